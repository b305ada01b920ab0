"""What can be wrong, causes before symptoms: the order of this file is the order of a report.

A check is a pure function that yields the text of what it saw, or `Evidence` where that is a note
or needs a remedy of its own. Its parameters name parts of the `Observation`
(or `seen`, the whole of it), and it is left out where one of these parts could not be measured.
Its decorator holds the code, the notebook that teaches it and the remedy. To add a finding, write
a check at its place, and a section with its code in docs/findings.md.
"""

import math

import torch

from ..elbo import gaussian_kl
from . import judging
from .activations import BOUNDS
from .forms import SWAPPED, UNPRICED
from .noise import RIGHT
from .register import CHECKS, Evidence, diagnose, finding, note
from .report import span
from .rows import tensors_of

__all__ = ["CHECKS", "diagnose"]

SCALE, COLLAPSE, LIKELIHOOD = "01_loss_scale", "02_posterior_collapse", "03_output_likelihood"
SATURATION, RANGES, MAPS = "04_sigmoid_saturation", "05_tanh_vs_zscore", "07_latent_maps"
NAN, STRONG, BLUR = "08_nan_loss", "09_strong_decoder", "10_blurry_pictures"
PAGE = ""  # the section of docs/findings.md
KL = "0.5 * (mu ** 2 + logvar.exp() - 1 - logvar).sum(1).mean()"
SAMPLE = "z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)"


# ---- rows that the model was not made for


@finding(
    "data-mismatch",
    PAGE,
    "Look at the rows: print x.min(), x.max(), x.mean() and a picture, beside those of training.",
)
def odd_rows(seen, rows):
    if rows.constant > 0.1 and rows.constant < 1:
        yield (
            f"{rows.constant:.0%} of the rows hold one value only, and the others do not: "
            "they look like files that could not be read"
        )
    if rows.mark is not None:
        yield Evidence(
            f"{rows.marked:.1%} of the values are {rows.mark:g}, far from all others: a mark for "
            "missing values is read as a number",
            remedy="Replace the mark, for instance by the column's mean, and tell the model where.",
        )


@finding(
    "data-mismatch",
    PAGE,
    "Give checkup and the model rows that went through the very preprocessing of training.",
)
def rows_unlike_training(seen, beside):
    if beside.odd.commonest > 0.5 and seen.rows.commonest < 0.1:
        yield Evidence(
            f"{beside.odd.commonest:.0%} of x_train are one and the same row",
            remedy="Look at the data loader: print a few rows of a batch.",
        )
    if beside.inputs_accuracy > 0.8:
        accuracy = f"accuracy {beside.inputs_accuracy:.2f}, 0.5 is chance"
        yield f"a classifier tells the inputs from inputs_train with {accuracy}"
    if not beside.told_apart:
        return
    told = f"a classifier tells x from x_train with accuracy {beside.accuracy:.2f}, 0.5 is chance"
    moved = f"means and spreads differ by {beside.shift:.0%} of the variance"
    worse = f"the model's error on x is {beside.ratio:.3g} times that on x_train"
    text = f"{told}; {moved}; {worse}"
    yield text if beside.shift > 0.2 or beside.ratio > 1.25 else note(text)


# ---- numbers that are not finite


@finding(
    "non-finite",
    NAN,
    "Go back to earlier weights, lower the learning rate, and bound logvar, as in clamp(-10, 10).",
)
def non_finite(seen, outputs):
    where = [f"the model's {name}" for name in seen.broken]
    if seen.bad_parameters:
        where.insert(0, f"parameters {', '.join(seen.bad_parameters[:3])}")
    if where:
        sizes = outputs.logvar.abs()
        finite = sizes[sizes < math.inf]
        most = f"; the largest finite |logvar| is {finite.max():.3g}" if len(finite) else ""
        yield f"there are NaN or infinite values in {' and '.join(where)}{most}"


@finding(
    "non-finite",
    NAN,
    "Bound logvar, as in clamp(-10, 10), and look for log(0) or 0/0 in the loss.",
)
def loss_not_finite(outputs, loss):
    if loss.value is None or math.isfinite(loss.value):
        return
    why = f"outputs span {span(outputs.reconstruction)}: a log of 0, or of less"
    if outputs.logvar.max() > 80:
        why = "exp(logvar) overflows"
    yield f"the loss is {loss.value} on these images; {why}"


# ---- values that the loss is not made for


@finding(
    "outside-support",
    PAGE,
    "Scale x to [0, 1] and use binary_cross_entropy_with_logits, or use a squared error.",
)
def outside_support(outputs, x_all, form, loss):
    bernoulli = form.cross_entropy or "Bernoulli" in (form.name or "")
    if bernoulli and (x_all.min() < -1e-6 or x_all.max() > 1 + 1e-6):
        yield (
            f"x spans {span(x_all)}, but {form.name} is for values in [0, 1]; "
            f"{judging.outside(x_all, 0, 1):.0%} lie outside, where the loss can fall without limit"
        )
    if loss.impossible:
        spans = span(outputs.reconstruction)
        yield f"{loss.impossible:.1%} of the outputs are no probabilities: they span {spans}"


# ---- the loss as it is written


@finding(
    "shape-broadcast",
    SCALE,
    "Give both arguments of the error one shape, x.view_as(reconstruction). Reduce each term to "
    "one number per image before adding: error.flatten(1).sum(1) + kl.sum(1).",
)
def shape_broadcast(outputs, x, form):
    if form.moved:  # rows in another order are no wrong shape
        return
    tensors = {"reconstruction": outputs.reconstruction, "x": x, "mu": outputs.mu}
    named = [f"{name} [B, {', '.join(map(str, t.shape[1:]))}]" for name, t in tensors.items()]
    shapes = f"Shapes before the loss: {', '.join(named)}"
    if form.mixes:
        yield (
            "the gradient of one image's reconstruction turns when only other images change: every "
            f"image is compared with every other. {shapes}"
        )
    elif form.broadcasts:
        n, why = next(iter(form.refuses.items()))
        sizes = ", ".join(map(str, form.weights))
        works = f"; it works at batch size {sizes}, by accident" if sizes else ""
        yield f"the loss fails at batch size {n}: {why}{works}. {shapes}"


@finding("loss-raises", PAGE, "Bring outputs and data into the range that the loss is for.")
def loss_raises(outputs, x, x_all, form, loss):
    explained = form.mixes or form.broadcasts or list(outside_support(outputs, x_all, form, loss))
    if loss.error and not explained:
        spans = f"outputs span {span(outputs.reconstruction)}, x {span(x)}"
        yield f"the loss raises on the model's own outputs: {loss.error}; {spans}"


@finding(
    "swapped-arguments",
    PAGE,
    "Write binary_cross_entropy(reconstruction, x): the prediction comes first.",
)
def swapped_arguments(form):
    if form.name == SWAPPED:
        yield "the loss is a cross-entropy with the data as the probabilities"


@finding(
    "no-gradient",
    PAGE,
    "Take .detach(), .data, .item() and no_grad() out of the reconstruction error.",
)
def loss_detached(form, loss):
    if form.a == 0 and loss.detached:
        yield "the loss changes with the reconstruction, and has no gradient on it"


@finding("partial-error", PAGE, "Let the error see every value of the reconstruction.")
def partial_error(form):
    if form.ignored > 0:
        yield f"{form.ignored:.0%} of the reconstruction's values do not enter the loss"


@finding(
    "kl-form",
    PAGE,
    f"Write the KL as {KL}. A loss that wants a standard deviation gets torch.exp(0.5 * logvar).",
)
def kl_form(form):
    if form.kl.mixes:
        yield note("the loss compares codes of different images: a crowd's term beside the KL")
    elif form.kl.kind == "prior":
        yield note("the KL is to another prior than N(0, 1), which is taken as it is")
    elif form.kl.kind == "other":
        on_mu, on_logvar = form.kl.cosines
        why = f": {form.kl.formula}" if form.kl.formula else ""
        yield (
            f"the KL term is not that of N(mu, exp(logvar)) to N(0, 1){why}. Its gradient and "
            f"the right one have cosine {on_mu:.2f} on mu and {on_logvar:.2f} on logvar, where 1 "
            "is right"
        )


@finding("loss-sign", PAGE, "Minimise reconstruction error + KL, which is minus the ELBO.")
def loss_sign(form):
    if form.a is not None and form.a < 0:
        elbo = form.b is not None and form.b < 0
        why = "it is the ELBO, which is to be maximised" if elbo else "its sign is wrong"
        yield f"the loss falls as the reconstruction error grows (weight {form.a:.3g}): {why}"


@finding("kl-sign", SCALE, f"Add the KL, which is never negative: {KL}.")
def kl_sign(form):
    all_reversed = form.a is not None and form.a < 0
    if form.b is not None and form.b < 0 and not form.kl.capacity and not all_reversed:
        yield f"the loss falls as the KL grows: its weight is {form.b:.3g}"


# ---- what forward returns, and from where


@finding(
    "outputs-swapped", PAGE, "Return (reconstruction, mu, logvar), each from the head of its name."
)
def outputs_swapped(outputs, training):
    if training.noise.swapped:
        yield "the noise is exp(mu / 2): mu and logvar have changed places in what is returned"
    elif torch.equal(outputs.mu, outputs.logvar) and outputs.mu.any():
        yield "mu and logvar are one and the same tensor: both come from one head"


@finding(
    "outputs-reordered",
    PAGE,
    "Keep rows in the order of x: no roll, shuffle or sort between x and what is returned.",
)
def outputs_reordered(wiring, picture):
    if wiring.rows == "moved":
        yield "outputs stand in another order than x: a row of the output changes with another row"
    elif picture.misplaced > 0.5:
        share = f"{picture.misplaced:.0%} of the outputs"
        yield f"{share} fit another row of x far better than their own"


@finding(
    "outputs-reordered",
    PAGE,
    "Compare each reconstruction with its own row: no shuffle, roll or sort of x in the loss.",
)
def targets_reordered(form):
    if form.moved:
        yield "the error compares a row of the reconstruction with another row of x"


@finding(
    "rows-mixed",
    PAGE,
    "Keep the batch in the first dimension: look at view, reshape, permute and batch_first=True.",
)
def rows_mixed(wiring):
    if wiring.rows == "mixed":
        yield "in eval mode a row of the output changes when another row of x changes"


# ---- gradients that do not arrive


@finding(
    "no-gradient",
    PAGE,
    "Take .detach(), .data, no_grad() and inference_mode() out of forward, and of the adapter.",
)
def no_gradient(seen, training, wiring):
    if not seen.trainable:
        return
    if not training.has_gradient and not wiring.frozen:
        text = "the reconstruction carries no gradient in train mode: its error trains nothing"
        yield judging.of_forward(seen, text)
    elif wiring.frozen == "decoder":
        yield "all parameters of the decoder are frozen, requires_grad is False"


@finding("encoder-frozen", PAGE, "Give the encoder's parameters requires_grad_(True), and train.")
def encoder_frozen(wiring):
    if wiring.frozen == "encoder":
        count = f"all {len(wiring.encoder)} tensors of the encoder's parameters"
        yield f"{count} are frozen, requires_grad is False, and the decoder's are not"


@finding("encoder-detached", PAGE, f"Write {SAMPLE}, or Normal(mu, std).rsample(), not .sample().")
def encoder_detached(seen, training, wiring):
    if not seen.trainable:
        return
    cut = "Take .detach(), .data, no_grad() and .sample() out of the path from x to z."
    if wiring.cut_off:
        layers = ", ".join(wiring.cut_off[:3])
        text = f"no gradient reaches {layers}: the path is cut behind these layers"
        yield judging.of_forward(seen, text, cut)
    elif wiring.detached:
        names = " and ".join(wiring.detached)
        carries = "carries" if len(wiring.detached) == 1 else "carry"
        text = f"{names} {carries} no gradient: the heads that make them learn nothing"
        yield judging.of_forward(seen, text, cut)
    elif "mu" in wiring.unfed and training.has_gradient and not training.deterministic:
        text = "codes are sampled, but no gradient of the reconstruction reaches the encoder"
        yield judging.of_forward(seen, text)
    elif wiring.unfed == ("logvar",) and training.noise.formula == RIGHT:
        text = "codes are sampled, but no gradient of the reconstruction reaches logvar"
        yield judging.of_forward(seen, text, cut)


# ---- codes and their noise


@finding("no-sampling", PAGE, f"Decode a sample in training: {SAMPLE}.")
def no_sampling(seen, training):
    if training.noise.kind == "none" and training.deterministic:
        text = "in train mode two passes give identical outputs: the decoder gets mu, no noise"
        yield judging.of_forward(seen, text)


@finding("shared-noise", PAGE, f"Draw noise for each row: {SAMPLE}.")
def shared_noise(noise):
    if noise.shared and noise.kind == "sampled":
        yield f"one draw of noise is shared by all {noise.shared}"


@finding("noise", PAGE, f"Sample with {SAMPLE}.")
def noise_of_another_kind(noise):
    if noise.kind != "sampled" or noise.shared or noise.swapped:
        return
    if noise.times > 1:
        yield f"the noise is added {noise.times} times"
    elif not noise.normal:
        yield f"the noise is drawn by {noise.drawn_by}, and the KL assumes a normal distribution"
    elif noise.formula is None and not 0.9 < noise.off < 1.1:
        off = f"typically {noise.off:.3g} times exp(logvar / 2)"
        yield f"the noise does not follow logvar: it is {off}, the standard deviation of the KL"
    elif noise.formula not in (None, RIGHT) and "logvar" not in noise.formula.replace(RIGHT, ""):
        yield f"the noise is multiplied by {noise.formula}, where the KL assumes {RIGHT}"


@finding("logvar", PAGE, f"Sample with {SAMPLE}.")
def noise_formula(noise):
    formula = noise.formula
    if formula not in (None, RIGHT) and "logvar" in formula.replace(RIGHT, ""):
        yield f"the noise is multiplied by {formula}, where the KL assumes {RIGHT}"


@finding(
    "logvar",
    PAGE,
    "Make both plain outputs of linear layers. A standard deviation has logvar = 2 * std.log().",
)
def bounded_codes(endings):
    for name, ending in (("mu", endings.mu), ("logvar", endings.logvar)):
        if ending.name in BOUNDS:
            low, high = BOUNDS[ending.name]
            why = "codes cannot leave that range, whatever the image"
            if name == "logvar" and low == 0:
                why = "no posterior is narrower than the prior"
            yield f"{name} ends in a {ending.name}, so it lies in [{low:g}, {high:g}]: {why}"


@finding(
    "logvar",
    PAGE,
    "Return the log of the variance. A standard deviation has logvar = 2 * std.log().",
)
def logvar_never_negative(outputs, endings, picture, codes):
    lowest, highest = outputs.logvar.min(), outputs.logvar.max()
    # A code that is used is narrower than the prior. An unused one may drift: that is no evidence.
    used = codes.information > 0.1 and picture.follows > 0.02
    if used and -1e-6 < lowest and highest <= 20 and endings.logvar.name not in BOUNDS:
        spans = span(outputs.logvar)
        yield f"no logvar is negative, they span {spans}: no posterior is narrower than the prior"


# ---- paths that go past the code


@finding(
    "path-around-z",
    STRONG,
    "The decoder must see the image through z only: remove skips and copies of x behind the code.",
)
def path_around_z(forced, codes):
    if forced.around < 0.005 or forced.own_part is False:
        return
    share = f"{forced.around:.1%} of the data's variance"
    yield f"with one code for all images the outputs still follow the images, by {share}"


@finding(
    "strong-decoder",
    STRONG,
    "Give the decoder the code at every step, or let it see less of x. Then compare the loss with "
    "that of the same decoder without a code.",
)
def decoder_reads_its_targets(forced, codes):
    if forced.around < 0.005 or forced.own_part is not False:
        return
    nats = f"the code has {codes.kl.sum():.3g} nats"
    text = (
        f"the decoder reads other values of x past the code, as an autoregressive one does; {nats}"
    )
    yield text if codes.kl.sum() < 1 else note(text)


@finding(
    "decoder-ignores-z",
    PAGE,
    "Pass z into the decoder: nothing of it arrives, whatever its values.",
)
def decoder_without_z(x, outputs, training, picture):
    hidden = outputs.logvar.max() > 20 or judging.is_saturated(x, picture)
    if training.noise.kind == "blocked" and not hidden:
        yield "no gradient passes from the outputs to z: they are the same whatever z is"


@finding(
    "decode-differs",
    PAGE,
    "Let forward and decode do the same with z: what stands between them is missing in samples.",
)
def decode_differs(forced, picture):
    if forced.decoded is None or forced.around > 0.005:
        return
    if forced.decoded > 1.5 * forced.own + 0.01 * picture.mean_image_mse:
        errors = f"mean squared error {forced.decoded:.3g} against {forced.own:.3g}"
        yield f"decode(z) gives other pictures than forward does with the same code: {errors}"


@finding("condition-ignored", PAGE, "Give the labels to the decoder, and check that they arrive.")
def condition_ignored(seen, condition):
    moves = condition.condition_moves
    least = 1e-6 if seen.untrained else 0.005
    if moves < least and condition.by_condition < 2 * least:
        share = f"{moves:.2%} of the data's variance"
        yield f"outputs change by {share} when rows get other inputs than their own"


@finding(
    "condition-leaks",
    PAGE,
    "Take out of the inputs what is computed from the picture, or make it much coarser.",
)
def condition_leaks(seen, condition, picture):
    wide = any(map(judging.is_wide, tensors_of(seen.patient.inputs).values()))
    alone = 1 - condition.condition_alone / picture.mean_image_mse
    own = 1 - condition.own / picture.mean_image_mse
    if wide and own > 0.05 and alone > 0.5 * own:
        yield (
            f"the inputs alone, with one code for all images, explain {alone:.0%} of the data's "
            f"variance, and with the right codes it is {own:.0%}"
        )


@finding("data-mismatch", PAGE, "Look whether labels and rows were shuffled in the same way.")
def wrong_condition(condition):
    own, other = condition.own, condition.condition_error
    if condition.condition_moves < 0.02 or own < 0.98 * other:
        return
    errors = f"mean squared error {own:.3g} with them, {other:.3g} with others"
    yield f"the inputs of a row fit it no better than those of another row: {errors}"


# ---- ranges


@finding("activated-twice", PAGE, "Drop one of the two: the loss or the model applies it.")
def activated_twice(seen, endings, picture):
    both = judging.two_activations(seen, endings.reconstruction.name, picture.error.link)
    wide_enough = judging.width(seen.x) < 0.6 * (picture.high - picture.low)
    if both and not wide_enough:
        spans = f"[{picture.low:.3g}, {picture.high:.3g}]"
        yield f"outputs pass {both}: they can only reach {spans}, x spans {span(seen.x)}"


@finding(
    "out-of-reach",
    RANGES,
    "Scale the data (by s, with s^2 times the KL's weight) into the range, or drop the activation.",
)
def out_of_reach(x, picture, endings):
    if picture.bounded and judging.reach_matters(x, picture):
        share, floor = judging.reach(x, picture)
        bound = judging.bound(picture, endings)
        yield (
            f"the model answers in [{picture.low:.3g}, {picture.high:.3g}] ({bound}), x spans "
            f"{span(x)}: {share:.0%} of the values are out of reach, {floor:.3g} of the mean "
            f"squared error of {picture.mse:.3g} at the least"
        )


@finding(
    "range-mismatch",
    RANGES,
    "Match the output's range to the data's, and show pictures on a fixed scale.",
)
def range_mismatch(x, picture):
    if not picture.bounded or judging.reach_matters(x, picture):
        return
    if judging.width(x) < 0.6 * (picture.high - picture.low) < math.inf:
        yield note(
            f"the output can lie in [{picture.low:.3g}, {picture.high:.3g}], x spans only "
            f"{span(x)}; outputs span {span(picture.shown)}"
        )


@finding("logvar", PAGE, "Bound logvar, as in logvar.clamp(-10, 10), and lower the learning rate.")
def logvar_out_of_hand(outputs):
    lowest, highest = outputs.logvar.min().item(), outputs.logvar.max().item()
    if highest > 20:
        variance = f"a variance of {math.exp(min(highest, 700)):.2g}"
        yield f"logvar reaches {highest:.3g}, {variance}; exp overflows at 88"
    elif lowest < -25:
        text = f"logvar falls to {lowest:.3g}: those codes have practically no noise"
        yield text if lowest < -60 else note(text)


# ---- parts that did not train


@finding(
    "encoder-frozen",
    PAGE,
    "Give all parameters to the optimizer, load all of them, and look for a path without gradient.",
)
def encoder_as_drawn(seen, drawn):
    # A dead layer keeps its weights: it is the cause, and named below.
    if drawn.encoder and not drawn.decoder and not judging.has_dead_layer(seen):
        yield "the encoder's weights look as they were drawn, and the decoder's do not"


@finding(
    "untrained",
    PAGE,
    "Give all parameters to the optimizer, load all of them, and look for a path without gradient.",
)
def decoder_as_drawn(seen, drawn):
    if drawn.decoder and not drawn.encoder and not judging.has_dead_layer(seen):
        yield "the decoder's weights look as they were drawn, and the encoder's do not"


# ---- the weights of the two terms


@finding(
    "loss-scale",
    SCALE,
    "Sum over values and latents, mean over the batch. Then set beta (or sigma^2) on purpose.",
)
def loss_scale(seen, form, picture):
    light_on_purpose = seen.patient.purpose == "autoencoding"
    if form.b == 0 and not light_on_purpose:
        text = "the loss has no KL: nothing ties the codes to the prior"
        yield Evidence(text, remedy=f"Add {KL}.")
    if form.a == 0 and not seen.loss.detached:
        text = "the loss does not depend on the reconstruction: only the KL is trained"
        yield Evidence(text, remedy="Add the reconstruction error, summed over each image.")
    weight = judging.kl_weight(seen)
    if weight is None or judging.sigma_is_off(seen):
        return
    if light_on_purpose and weight.relative < 1:
        return
    if judging.is_off(seen, weight):
        yield judging.too_much_or_little(seen, weight)
    elif judging.is_mean_over_latents(seen, weight):
        latents = seen.outputs.mu[0].numel()
        text = f"the KL weighs exactly 1 / {latents}, one over the number of latents"
        yield f"{text}: it is averaged over them, where the ELBO has a sum"


@finding(
    "untrained",
    PAGE,
    "Train first, or let vaelab.rehearse train a copy for a few steps. If it was trained: was the "
    "learning rate far too small, or were the weights not loaded?",
)
def untrained(seen):
    if seen.untrained:
        yield (
            "all weights look as they were drawn. The loss and the wiring were checked, what only "
            "training shows was not"
        )


@finding("sigma", LIKELIHOOD, "Set sigma^2 to the mean squared error, or learn it.")
def sigma(seen, form, picture):
    if form.name == UNPRICED:
        text = "the squared error is divided by a variance that costs nothing: it will grow"
        yield Evidence(text, remedy="Add 0.5 * logvar of the output, the log of its deviation.")
    weight = judging.kl_weight(seen)
    if weight is None or form.sigma2 is None or seen.untrained:
        return
    if seen.patient.purpose == "autoencoding" and weight.relative < 1:
        return
    needed = form.b * picture.mse / form.sigma2
    remedy = (
        f"Set sigma^2 to the mean squared error, {picture.mse:.3g}, or learn it. With your "
        f"reconstruction term that is a KL weight of {needed:.3g} instead of {form.b:.3g}."
    )
    if judging.sigma_is_off(seen):
        yield Evidence(judging.too_much_or_little(seen, weight), remedy=remedy)
    elif not 0.25 <= weight.relative <= 4:
        yield note(
            f"the loss assumes sigma {form.sigma2**0.5:.3g}, the root mean squared error is "
            f"{picture.mse**0.5:.3g}: the KL weighs {weight.relative:.3g} times what these errors "
            "would give it",
            remedy,
        )


@finding("batch-dependent-beta", SCALE, "Reduce both terms over the batch in the same way.")
def batch_dependent_beta(form):
    if form.depends_on_batch and not form.mixes:
        ratios = ", ".join(f"{b / a:.4g} at {n}" for n, (a, b) in form.weights.items())
        yield f"the KL's weight over the error's changes with the batch size: {ratios}"


# ---- rows that the model does not know


@finding(
    "overfit",
    PAGE,
    "Check that each batch of training holds other rows. Then train on more rows, stop earlier, or "
    "make the network smaller.",
    symptom=True,
)
def overfit(beside, picture):
    if beside.train_error is None or beside.told_apart:
        return
    train, held_out = beside.train_error.mean().item(), beside.error.mean().item()
    lost = (held_out - train) / max(picture.mean_image_mse - train, 1e-12)
    if beside.ratio > 1.5 and lost > 0.15:
        yield (
            f"mean squared error {train:.3g} on the training rows, {held_out:.3g} on x: "
            f"{lost:.0%} of what is explained there is not explained here"
        )


# ---- symptoms in what the model shows


@finding(
    "train-eval-gap",
    PAGE,
    "BatchNorm's running statistics do not fit: train longer, or raise its momentum.",
    symptom=True,
)
def train_eval_gap(seen, training, picture):
    train, evaluated = training.mse, training.eval_mse
    clear = evaluated - train > 0.05 * picture.mean_image_mse
    if seen.comparable and evaluated > 1.5 * train and clear:
        yield f"mean squared error {train:.3g} in train mode, {evaluated:.3g} in eval mode"


@finding(
    "saturated-output",
    SATURATION,
    "Start the last bias at logit(mean pixel), and train from new weights.",
    symptom=True,
)
def saturated_output(seen, x, picture):
    if not seen.comparable or not judging.is_saturated(x, picture):
        return
    at_end, stuck, _ = judging.ends(x, picture)
    low, high = picture.low, picture.high
    colour = "black" if picture.shown.mean() < (low + min(high, low + 1)) / 2 else "white"
    text = (
        f"{at_end:.0%} of the outputs sit at an end of [{low:g}, {high:g}] ({colour}), and so do "
        f"{stuck:.0%} of the values that are far off; no gradient passes there"
    )
    if picture.preactivation:
        text += f"; mean input of the last activation {picture.preactivation:.3g}"
    yield text


@finding(
    "data-mismatch",
    PAGE,
    "Compare x with a batch of training: range, mean, order of axes, colours. Then pass x_train=.",
    symptom=True,
)
def error_far_above_the_mean_image(seen, x, picture):
    far = picture.mse > 2 * picture.mean_image_mse
    if seen.comparable and far and not judging.is_saturated(x, picture):
        times = picture.mse / max(picture.mean_image_mse, 1e-12)
        yield (
            f"the error is {times:.3g} times that of the best constant picture: these rows are not "
            "what the model learned to show, or it never learned"
        )


@finding(
    "dead-units",
    PAGE,
    "Start again with a lower learning rate, or use LeakyReLU: a dead unit gets no gradient.",
    symptom=True,
)
def dead_units(seen, picture, codes):
    yield from judging.dead(seen, after_collapse=False)


# ---- symptoms in the codes


@finding(
    "decoder-ignores-z",
    COLLAPSE,
    "The decoder must see the image through z, and only so: look at every path into it.",
    symptom=True,
)
def decoder_ignores_z(seen, picture, codes):
    if judging.goes_past_the_code(picture, codes):
        what = "the codes say nothing, yet the output follows the image, past the code"
        yield f"{what}: {judging.facts(seen)}"
    elif judging.ignores_its_codes(seen):
        what = "codes differ between images, and the output does not follow them"
        yield f"{what}: {judging.facts(seen)}"


@finding(
    "posterior-collapse",
    COLLAPSE,
    "Bring beta (or sigma^2) well below the collapse threshold, then train from new weights.",
    symptom=True,
)
def posterior_collapse(seen, picture, codes):
    if codes.constant and not judging.goes_past_the_code(picture, codes):
        text = f"every image gets the same code: {judging.facts(seen)}"
        yield Evidence(text, remedy=judging.remedy_of_a_collapse(seen))
    elif seen.comparable and not codes.constant and codes.active < 0.1 * codes.latents:
        what = f"only {codes.active} of {codes.latents} latents are used"
        yield note(f"{what}; the others do not pay for their KL", "Nothing, if the pictures do.")


@finding(
    "no-better-than-mean",
    PAGE,
    "Train longer. Check that x and the reconstruction are in the same units.",
    symptom=True,
)
def no_better_than_mean(seen, picture, codes):
    told_already = codes.constant or judging.ignores_its_codes(seen)
    times = picture.mse / max(picture.mean_image_mse, 1e-12)
    if not seen.comparable or told_already or not 1 < times <= 2:
        return
    yield judging.facts(seen) if times > 1.1 else note(judging.facts(seen))


@finding(
    "poor-fit",
    PAGE,
    "Print the first rows of three batches of training: each has to hold other rows, and look like "
    "x. Then train longer, and lower the learning rate at the end.",
    symptom=True,
)
def poor_fit(seen, picture):
    explained = 1 - picture.mse / max(picture.mean_image_mse, 1e-12)
    if seen.comparable and 0 < explained < picture.follows - 0.15:
        yield (
            f"outputs vary with the images by {picture.follows:.0%} of the data's variance and "
            f"explain {explained:.0%} of it: much of what they show is wrong"
        )


@finding("blur", BLUR, "Change one thing at a time, and measure the sharpness.", symptom=True)
def blur(seen, form, picture, codes):
    if picture.sharpness is None or picture.sharpness > 0.6 or picture.follows < 0.1:
        return
    shown = f"outputs have {picture.sharpness:.0%} of the sharpness of x"
    of_sigma2 = picture.mse / form.sigma2 if form.sigma2 else 1.0  # no sigma, nothing to blame
    of_pca = judging.error_of_pca(seen.x, codes.latents)
    nats = codes.kl.median()
    if of_sigma2 < 0.2:
        text = f"the mean squared error is {of_sigma2:.2g} of sigma^2: the code is too noisy"
        remedy = "Lower the weight of the KL. Samples from the prior may become worse."
    elif of_pca is not None and picture.mse > 1.2 * of_pca:
        text = (
            f"their error {picture.mse:.3g} is above {of_pca:.3g}, that of PCA with "
            f"{codes.latents} components: too little training"
        )
        remedy = "Train longer."
    elif nats > 2.5 and of_sigma2 < 3:
        text = f"the median latent has {nats:.2g} nats: too few latents"
        remedy = "Give the model more latents."
    else:
        return
    yield note(f"{shown}, and {text}", remedy)


@finding(
    "dead-units",
    PAGE,
    "They may have died with the codes. Cure the collapse first, and train from new weights.",
    symptom=True,
)
def dead_units_after_collapse(seen, picture, codes):
    yield from judging.dead(seen, after_collapse=True)


@finding("train-eval-gap", PAGE, "Report an ELBO at sampled codes only. At mu it is too good.")
def mu_is_decoded(training, picture, decoding):
    if training.noise.kind == "sampled" and picture.noise_variance == 0:
        errors = f"error {picture.mse:.3g}; at a sampled code it is {decoding.own:.3g}"
        yield note(f"in eval mode this model decodes mu, with {errors}")


@finding(
    "prior-mismatch",
    MAPS,
    "Fit a prior to the codes, or raise the KL's weight where it is below 1.",
    symptom=True,
)
def prior_mismatch(seen, picture, codes, prior):
    other_prior = seen.form is not None and (seen.form.kl.kind == "prior" or seen.form.kl.mixes)
    if prior.accuracy < 0.6 or prior.p_value > 1e-3 or other_prior:
        return
    if seen.patient.purpose == "autoencoding":
        return
    mean, variance = codes.z.mean(0), codes.z.var(0, correction=0)
    off = gaussian_kl(mean, variance.clamp(min=1e-12).log()).mean()
    # Precise codes alone are told from the prior too. Serious: far off, or hardly any noise.
    loose = judging.kl_is_weak(seen) and (off > 3 or codes.information > 4 * max(codes.active, 1))
    serious = prior.accuracy > 0.95 and (off > 8 or loose)
    if not serious and off < 0.5:
        return
    yield Evidence(
        "a classifier tells unseen codes from draws of the prior with accuracy "
        f"{prior.accuracy:.2f}, where 0.5 is best; the latents' means reach {mean.abs().max():.2f}"
        f", their standard deviations {variance.max().sqrt():.2f}; the prior has 0 and 1",
        "serious" if serious else "note",
    )


# ---- what is not known of the loss


@finding("loss-unrecognised", PAGE, "Compare the weights of the two terms by hand, per image.")
def loss_unrecognised(form, picture):
    if form.name is None and form.a != 0 and not form.mixes and form.weights:
        yield note("the reconstruction error is of no known form: no beta and no sigma^2")


@finding("stateful-loss", PAGE, "Check again at the end of training.")
def stateful_loss(form, picture):
    if form.stateful:
        yield note("two equal calls give different values: the weights are those of this moment")
