"""What can be wrong, causes before symptoms: the order of this file is the order of a report.

A check is a pure function that yields the text of what it saw, or `Evidence` where that is a note
or needs a remedy of its own. Its parameters name parts of the `Observation`
(or `seen`, the whole of it), and it is left out where one of these parts could not be measured.
Its decorator holds the code, the notebook that teaches it and the remedy. To add a finding, write
a check at its place.
"""

import inspect
import math
from collections.abc import Callable
from typing import NamedTuple

from ..diagnostics import reachable_floor
from ..elbo import gaussian_kl
from .activations import BOUNDS
from .meter import SWAPPED, first_line
from .noise import RIGHT
from .report import Finding, span

SCALE, COLLAPSE, LIKELIHOOD = "01_loss_scale", "02_posterior_collapse", "03_output_likelihood"
SATURATION, RANGES, MAPS = "04_sigmoid_saturation", "05_tanh_vs_zscore", "07_latent_maps"
CHECKS = []
KL = "0.5 * (mu ** 2 + logvar.exp() - 1 - logvar).sum(1).mean()"
SAMPLE = "z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)"


class Check(NamedTuple):
    """A registered check and the names of its parameters."""

    code: str
    notebook: str
    remedy: str
    look: Callable
    needs: tuple


class Evidence(NamedTuple):
    """What a check saw. An empty remedy stands for the one in the decorator."""

    text: str
    severity: str = "serious"
    remedy: str = ""


def note(text, remedy=""):
    """Evidence for something that is worth knowing and no illness."""
    return Evidence(text, "note", remedy)


def finding(code, notebook, remedy):
    """Register a check."""

    def register(look):
        needs = tuple(inspect.signature(look).parameters)
        CHECKS.append(Check(code, notebook, remedy, look, needs))
        return look

    return register


def diagnose(seen):
    """(findings, failed): what the checks found, and code -> why where a check itself failed."""
    findings, failed = [], {}
    for check in CHECKS:
        parts = [seen if name == "seen" else getattr(seen, name) for name in check.needs]
        if any(part is None for part in parts):
            continue
        try:
            for found in check.look(*parts):
                text, severity, remedy = Evidence(found) if isinstance(found, str) else found
                remedy = remedy or check.remedy
                findings.append(Finding(check.code, severity, text, remedy, check.notebook))
        except Exception as error:  # one check must not take the others with it
            failed[check.code] = f"{type(error).__name__}: {first_line(error)}"
    return findings, failed


# ---- numbers that are not finite


@finding(
    "non-finite",
    SATURATION,
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
        yield f"{' and '.join(where)} hold NaN or infinite values{most}"


@finding(
    "non-finite",
    SATURATION,
    "Bound logvar, as in clamp(-10, 10), and look for log(0) or 0/0 in the loss.",
)
def loss_not_finite(outputs, loss):
    if loss.value is None or math.isfinite(loss.value):
        return
    why = f"outputs span {span(outputs.reconstruction)}: a log of 0, or of less"
    if outputs.logvar.max() > 80:
        why = "exp(logvar) overflows"
    yield f"the loss is {loss.value} on these images; {why}"


# ---- the loss as it is written


@finding(
    "shape-broadcast",
    SCALE,
    "Give both arguments of the error one shape, x.view_as(reconstruction). Reduce each term to "
    "one number per image before adding: error.flatten(1).sum(1) + kl.sum(1).",
)
def shape_broadcast(outputs, x, form):
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


@finding("loss-raises", LIKELIHOOD, "Bring outputs and data into the range that the loss is for.")
def loss_raises(outputs, x, x_all, form, loss):
    explained = form.mixes or form.broadcasts or list(outside_support(outputs, x_all, form, loss))
    if loss.error and not explained:
        spans = f"outputs span {span(outputs.reconstruction)}, x {span(x)}"
        yield f"the loss raises on the model's own outputs: {loss.error}; {spans}"


@finding(
    "swapped-arguments",
    LIKELIHOOD,
    "Write binary_cross_entropy(reconstruction, x): the prediction comes first.",
)
def swapped_arguments(form):
    if form.name == SWAPPED:
        yield "the loss is a cross-entropy with the data as the probabilities"


@finding(
    "kl-form",
    SCALE,
    f"Write the KL as {KL}. A loss that wants a standard deviation gets torch.exp(0.5 * logvar).",
)
def kl_form(form):
    if form.kl.kind == "other":
        on_mu, on_logvar = form.kl.cosines
        yield (
            "the KL term is not that of N(mu, exp(logvar)) to N(0, 1): its gradient and the right "
            f"one have cosine {on_mu:.2f} on mu and {on_logvar:.2f} on logvar, where 1 is right"
        )


@finding("loss-sign", SCALE, "Minimise reconstruction error + KL, which is minus the ELBO.")
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


# ---- codes and their noise


@finding(
    "logvar",
    SATURATION,
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
    "logvar", SATURATION, "Bound logvar, as in logvar.clamp(-10, 10), and lower the learning rate."
)
def logvar_out_of_hand(outputs):
    lowest, highest = outputs.logvar.min().item(), outputs.logvar.max().item()
    if highest > 20:
        variance = f"a variance of {math.exp(min(highest, 700)):.2g}"
        yield f"logvar reaches {highest:.3g}, {variance}; exp overflows at 88"
    elif lowest < -25:
        yield note(f"logvar falls to {lowest:.3g}: those codes have practically no noise")


@finding(
    "logvar",
    SATURATION,
    "Return the log of the variance. A standard deviation has logvar = 2 * std.log().",
)
def logvar_never_negative(outputs, endings, picture, codes):
    lowest, highest = outputs.logvar.min(), outputs.logvar.max()
    # A code that is used is narrower than the prior. An unused one may drift: that is no evidence.
    used = codes.information > 0.1 and picture.follows > 0.02
    if used and -1e-6 < lowest and highest <= 20 and endings.logvar.name not in BOUNDS:
        spans = span(outputs.logvar)
        yield f"no logvar is negative, they span {spans}: no posterior is narrower than the prior"


@finding(
    "no-gradient",
    COLLAPSE,
    "Take .detach(), .data, no_grad() and inference_mode() out of forward, and of the adapter.",
)
def no_gradient(seen, training):
    if seen.trainable and not training.has_gradient:
        yield "the reconstruction carries no gradient in train mode: its error trains nothing"


@finding(
    "encoder-detached", COLLAPSE, f"Write {SAMPLE}, or Normal(mu, std).rsample(), not .sample()."
)
def encoder_detached(training):
    if training.noise.kind == "detached" and not training.deterministic:
        yield "codes are sampled, but no gradient of the reconstruction reaches the encoder"


@finding("no-sampling", COLLAPSE, f"Decode a sample in training: {SAMPLE}.")
def no_sampling(training):
    if training.noise.kind == "none" and training.deterministic:
        yield "in train mode two passes give identical outputs: the decoder gets mu, no noise"


@finding("logvar", SATURATION, f"Sample with {SAMPLE}.")
def noise_formula(training):
    if training.noise.formula not in (None, RIGHT):
        yield f"the noise is multiplied by {training.noise.formula}, where the KL assumes {RIGHT}"


# ---- ranges


@finding(
    "outside-support",
    LIKELIHOOD,
    "Scale x to [0, 1] and use binary_cross_entropy_with_logits, or use a squared error.",
)
def outside_support(outputs, x_all, form, loss):
    bernoulli = form.cross_entropy or "Bernoulli" in (form.name or "")
    if bernoulli and (x_all.min() < -1e-6 or x_all.max() > 1 + 1e-6):
        yield (
            f"x spans {span(x_all)}, but {form.name} is for values in [0, 1]; "
            f"{_outside(x_all, 0, 1):.0%} lie outside, where the loss can fall without limit"
        )
    if loss.impossible:
        spans = span(outputs.reconstruction)
        yield f"{loss.impossible:.1%} of the outputs are no probabilities: they span {spans}"


@finding(
    "out-of-reach",
    RANGES,
    "Scale the data (by s, with s^2 times the KL's weight) into the range, or drop the activation.",
)
def out_of_reach(x, picture, endings):
    if picture.bounded and _reach_matters(x, picture):
        share, floor = _reach(x, picture)
        yield (
            f"the model answers in [{picture.low:.3g}, {picture.high:.3g}] "
            f"({_bound(picture, endings)}), x spans {span(x)}: {share:.0%} of the values are out "
            f"of reach, {floor:.3g} of the mean squared error of {picture.mse:.3g} at the least"
        )


@finding(
    "range-mismatch",
    RANGES,
    "Match the output's range to the data's, and show pictures on a fixed scale.",
)
def range_mismatch(x, picture):
    if not picture.bounded or _reach_matters(x, picture):
        return
    if _width(x) < 0.6 * (picture.high - picture.low) < math.inf:
        yield note(
            f"the output can lie in [{picture.low:.3g}, {picture.high:.3g}], x spans only "
            f"{span(x)}; outputs span {span(picture.shown)}"
        )


# ---- the weights of the two terms


@finding(
    "loss-scale",
    SCALE,
    "Sum over values and latents, mean over the batch. Then set beta (or sigma^2) on purpose.",
)
def loss_scale(seen, form, picture):
    if form.a is None or form.b is None or form.a < 0 or form.b < 0:
        return
    if form.b == 0:
        text = "the loss has no KL: nothing ties the codes to the prior"
        yield Evidence(text, remedy=f"Add {KL}.")
    if form.a == 0:
        text = "the loss does not depend on the reconstruction: only the KL is trained"
        yield Evidence(text, remedy="Add the reconstruction error, summed over each image.")
    weight = _kl_weight(seen)
    if weight is not None and _is_off(seen, weight) and not _sigma_is_off(seen):
        yield _too_much_or_little(seen, weight)


@finding("sigma", LIKELIHOOD, "Set sigma^2 to the mean squared error, or learn it.")
def sigma(seen, form, picture):
    weight = _kl_weight(seen)
    if weight is None or form.sigma2 is None:
        return
    needed = form.b * picture.mse / form.sigma2
    remedy = (
        f"Set sigma^2 to the mean squared error, {picture.mse:.3g}, or learn it. With your "
        f"reconstruction term that is a KL weight of {needed:.3g} instead of {form.b:.3g}."
    )
    if _sigma_is_off(seen):
        yield Evidence(_too_much_or_little(seen, weight), remedy=remedy)
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


# ---- symptoms in what the model shows


@finding(
    "train-eval-gap",
    SATURATION,
    "BatchNorm's running statistics do not fit: train longer, or raise its momentum.",
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
)
def saturated_output(seen, x, picture):
    low, high, shown = picture.low, picture.high, picture.shown
    if not seen.comparable or picture.follows > 0.02 or not picture.bounded:
        return
    near = 1e-6 if math.isinf(high - low) else 0.01 * (high - low)
    at_end = (shown <= low + near) | (shown >= high - near)
    wrong = (shown - x.clamp(low, high)).abs() > 0.25 * (x.max() - x.min())
    stuck = (at_end & wrong).sum() / wrong.sum().clamp(min=1)
    if wrong.float().mean() > 1e-4 and stuck > 0.5:
        colour = "black" if shown.mean() < (low + min(high, low + 1)) / 2 else "white"
        text = (
            f"{at_end.float().mean():.0%} of the outputs sit at an end of [{low:g}, {high:g}] "
            f"({colour}) for every image, and so do {stuck:.0%} of the values that are far off; no "
            "gradient passes there"
        )
        if picture.preactivation:
            text += f"; mean input of the last activation {picture.preactivation:.3g}"
        yield text


@finding(
    "dead-units",
    SATURATION,
    "Start again with a lower learning rate, or use LeakyReLU: a dead unit gets no gradient.",
)
def dead_units(seen, picture, codes):
    yield from _dead(seen, after_collapse=False)


# ---- symptoms in the codes


@finding(
    "decoder-ignores-z",
    COLLAPSE,
    "The decoder must see the image through z, and only so: look at every path into it.",
)
def decoder_ignores_z(seen, picture, codes):
    if _goes_past_the_code(picture, codes):
        what = "the codes say nothing, yet the output follows the image, past the code"
        yield f"{what}: {_facts(seen)}"
    elif _ignores_its_codes(seen):
        what = "codes differ between images, and the output does not follow them"
        yield f"{what}: {_facts(seen)}"


@finding(
    "posterior-collapse",
    COLLAPSE,
    "Bring beta (or sigma^2) well below the collapse threshold, then train from new weights.",
)
def posterior_collapse(seen, picture, codes):
    unused = codes.latents - codes.active
    if codes.constant and not _goes_past_the_code(picture, codes):
        what = "every image gets the same code, or training has not begun"
        yield f"{what}: {_facts(seen)}"
    elif seen.comparable and not codes.constant and unused:
        what = f"partial: {unused} of {codes.latents} latents are unused"
        yield note(f"{what}: they do not pay for their KL")


@finding(
    "no-better-than-mean",
    COLLAPSE,
    "Train longer. Check that x and the reconstruction are in the same units.",
)
def no_better_than_mean(seen, picture, codes):
    told_already = codes.constant or _ignores_its_codes(seen)
    if seen.comparable and picture.mse > picture.mean_image_mse and not told_already:
        yield note(_facts(seen))


@finding(
    "dead-units",
    SATURATION,
    "They may have died with the codes. Cure the collapse first, and train from new weights.",
)
def dead_units_after_collapse(seen, picture, codes):
    yield from _dead(seen, after_collapse=True)


@finding(
    "train-eval-gap", SATURATION, "Report an ELBO at sampled codes only. At mu it is too good."
)
def mu_is_decoded(training, picture, decoding):
    if training.noise.kind == "sampled" and picture.noise_variance == 0:
        errors = f"error {picture.mse:.3g}; at a sampled code it is {decoding.own:.3g}"
        yield note(f"in eval mode this model decodes mu, with {errors}")


@finding(
    "prior-mismatch",
    MAPS,
    "Samples from N(0, I) fall into holes. Raise the KL's weight, or fit a prior to the codes.",
)
def prior_mismatch(seen, picture, codes, prior):
    if prior.accuracy < 0.6 or prior.p_value > 1e-3:
        return
    mean, variance = codes.z.mean(0), codes.z.var(0, correction=0)
    off = gaussian_kl(mean, variance.clamp(min=1e-12).log()).mean()
    # Precise codes alone are told from the prior too. Serious: far off, or hardly any noise.
    loose = _kl_is_weak(seen) and (off > 3 or codes.information > 4 * max(codes.active, 1))
    serious = prior.accuracy > 0.95 and (off > 8 or loose)
    yield Evidence(
        "a classifier tells unseen codes from draws of the prior with accuracy "
        f"{prior.accuracy:.2f}, where 0.5 is best; the latents' means reach {mean.abs().max():.2f}"
        f", their standard deviations {variance.max().sqrt():.2f}; the prior has 0 and 1",
        "serious" if serious else "note",
    )


# ---- what is not known of the loss


@finding("loss-unrecognised", SCALE, "Compare the weights of the two terms by hand, per image.")
def loss_unrecognised(form, picture):
    if form.name is None and form.a != 0 and not form.mixes and form.weights:
        yield note("the reconstruction error is of no known form: no beta and no sigma^2")


@finding("stateful-loss", SCALE, "Check again at the end of training.")
def stateful_loss(form, picture):
    if form.stateful:
        yield note("two equal calls give different values: the weights are those of this moment")


# ---- what several checks ask


class Weight(NamedTuple):
    """The KL's weight in the unit of the loss, that over a natural one, its limits, in words."""

    value: float
    relative: float
    limits: tuple
    text: str


def _kl_weight(seen):
    """The `Weight` of the KL, or None where there is none to judge."""
    form, picture = seen.form, seen.picture
    if not form.a or not form.b or form.a < 0 or form.b < 0:
        return None
    at = f"at batch size {form.batch_size}"
    if form.beta is not None:
        text = f"effective beta {form.beta:.4g} {at}, where the ELBO has 1"
        return Weight(form.beta, form.beta, seen.limits.beta, text)
    if form.sigma2 is not None:
        value, natural, what = form.sigma2, picture.mse, "mean squared error"
        text = f"implied sigma^2 {value:.4g} {at}"
    elif form.name == "absolute error":
        value, natural, what = form.b / form.a, picture.mae, "mean absolute error"
        text = f"implied scale {value:.4g} of a Laplace distribution {at}"
    else:
        return None
    relative = value / max(natural, 1e-12)
    text += f", {relative:.3g} times the {what} {natural:.3g}"
    return Weight(value, relative, seen.limits.sigma2, text)


def _is_off(seen, weight):
    """Whether the KL's weight is outside the limits, or beyond what the data can stand."""
    low, high = weight.limits
    if not 0.99 * low <= weight.relative <= 1.01 * high:
        return True
    threshold = seen.loss.threshold
    unused = seen.comparable and seen.codes is not None and seen.codes.information < 0.1
    if not threshold or not unused or weight.value <= 0.7 * threshold:
        return False
    return seen.form.beta is None or weight.value > 1.5


def _sigma_is_off(seen):
    """Whether both terms are summed and the KL has its own weight, so that sigma is what is off."""
    form, weight = seen.form, _kl_weight(seen)
    if weight is None or not form.squared or not _is_off(seen, weight):
        return False
    weight_of_kl = form.b / (form.batch_size if form.summed_over_batch else 1)
    return abs(weight_of_kl - 1) < 0.01 and form.a * seen.x[0].numel() > 3


def _too_much_or_little(seen, weight):
    """The evidence for a KL of the wrong weight."""
    direction = "little" if weight.relative < weight.limits[0] else "much"
    text = f"{weight.text}: the KL weighs too {direction}"
    if seen.loss.threshold:
        text += f"; on these data total collapse is stable beyond {seen.loss.threshold:.3g}"
    return text


def _kl_is_weak(seen):
    """Whether nothing says that the KL had its full weight in training."""
    form = seen.form
    if form is None or form.b is None or not form.a:
        return True
    if form.beta is not None:
        return form.b < 0.5 * form.a
    return form.squared and form.sigma2 < 0.5 * seen.picture.mse


def _width(x):
    """The range of x, 1 if all values are equal."""
    return (x.max() - x.min()).item() or 1.0


def _outside(x, low, high):
    """The share of values outside a range."""
    return ((x < low) | (x > high)).double().mean().item()


def _reach(x, picture):
    """(share of x out of the output's reach, the squared error that this costs at least)."""
    slack = 2e-3 * _width(x)
    share = _outside(x, picture.low - slack, picture.high + slack)
    return share, reachable_floor(x, picture.low, picture.high)


def _reach_matters(x, picture):
    """Whether what is out of reach is a good part of the error."""
    share, floor = _reach(x, picture)
    least = 0.0 if math.isnan(picture.follows) else 0.005 * picture.mean_image_mse
    return share > 0.01 and floor > max(0.05 * picture.mse, least)


def _bound(picture, endings):
    """What bounds the picture."""
    ending, link = endings.reconstruction.name, picture.error.link
    if ending is None:
        return f"the loss applies a {link}"
    applied = f" and the loss applies a {link} to that" if link in ("sigmoid", "tanh") else ""
    return f"its output ends in a {ending}{applied}"


def _dead(seen, after_collapse):
    """Rectifiers that are zero for every image; after a collapse they are its consequence."""
    codes, picture = seen.codes, seen.picture
    for number, layer in enumerate(seen.rectifiers, 1):
        # An encoder that the KL has silenced dies by drift: just below zero, with small heads.
        drifted = codes.constant and codes.revived < 3 and layer.depth < 10 and layer.share >= 0.9
        if len(layer.dead) < 8 or layer.share < 0.75 or after_collapse != drifted:
            continue
        harmed = seen.comparable and picture.mse > 0.8 * picture.mean_image_mse
        yield Evidence(
            f"{layer.share:.0%} of the {len(layer.dead)} units of rectifier {number} are zero for "
            "every image",
            "serious" if layer.share >= 0.9 and harmed else "note",
        )


def _facts(seen):
    """The numbers that say whether codes are used."""
    codes, picture, decoding = seen.codes, seen.picture, seen.decoding
    text = (
        f"KL {codes.kl.sum():.3g} nats, {codes.active} of {codes.latents} active units; outputs "
        f"follow the images with {picture.follows:.1%} of the data's variance; error "
        f"{picture.mse:.3g}, of the mean image {picture.mean_image_mse:.3g}"
    )
    if decoding is not None:
        swapped = f"with another image's {decoding.swapped:.3g}"
        text += f"; error with its own code {decoding.own:.3g}, {swapped}"
    return text


def _goes_past_the_code(picture, codes):
    """Whether the pictures follow the images although the codes do not."""
    better = picture.mse < 0.8 * picture.mean_image_mse
    return codes.constant and picture.follows > 0.1 and better


def _ignores_its_codes(seen):
    """Whether the codes follow the images although the pictures do not."""
    codes, decoding = seen.codes, seen.decoding
    if not seen.comparable or codes.constant or codes.information <= 0.1:
        return False
    own_helps = decoding is None or decoding.own < 0.98 * decoding.swapped
    return seen.picture.follows < 0.02 or codes.information > 0.5 and not own_helps
