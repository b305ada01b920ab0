"""`checkup`: run any PyTorch VAE on a few images, probe its loss, and say by name what is wrong with it."""

import math
from dataclasses import dataclass, field

import torch

from .diagnostics import collapse_threshold, reachable_floor, share_out_of_reach
from .latents import two_sample_test
from .observing import BOUNDS, FEWEST_IMAGES, not_probabilities, observe, untouched
from .probing import AS_STD, SWAPPED, adapter_line
from .teaching import html_table

KL = "0.5 * (mu ** 2 + logvar.exp() - 1 - logvar).sum(1).mean()"
SAMPLE = "z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)"
REDUCE = "sum over values and over latents, mean over the batch, in both terms"
NOTEBOOKS = {
    "01_loss_scale": (
        "shape-broadcast", "kl-form", "loss-sign", "kl-sign", "loss-scale", "batch-dependent-beta",
        "loss-unrecognised", "stateful-loss",
    ),
    "02_posterior_collapse": (
        "no-sampling", "encoder-detached", "posterior-collapse", "decoder-ignores-z", "no-better-than-mean",
    ),
    "03_output_likelihood": ("loss-raises", "swapped-arguments", "outside-support", "sigma"),
    "04_sigmoid_saturation": ("non-finite", "logvar", "saturated-output", "dead-units", "train-eval-gap"),
    "05_tanh_vs_zscore": ("out-of-reach", "range-mismatch"),
    "06_latent_maps": ("prior-mismatch",),
}  # fmt: skip
REMEDIES = {
    "non-finite": "go back to weights from before; lower the learning rate, bound logvar (for instance to "
    "[-10, 10]), look for log(0) or 0/0 in the loss",
    "shape-broadcast": "give both arguments of the error the same shape, x.view_as(reconstruction), and "
                       "reduce "
    "each term to one number per image before adding: error.flatten(1).sum(1) + kl.sum(1)",
    "loss-raises": "bring outputs and data into the range that the loss is for",
    "swapped-arguments": "binary_cross_entropy(reconstruction, x): the prediction comes first",
    "kl-form": f"{KL}; if your loss wants a standard deviation: "
    + adapter_line(f"reconstruction, x, mu, {AS_STD}"),
    "loss-sign": "minimise reconstruction error + KL, which is minus the ELBO",
    "kl-sign": f"add the KL, which is never negative: {KL}",
    "logvar": f"mu and logvar are plain outputs of linear layers, and {SAMPLE}; a layer that gives a "
              f"standard "
    "deviation has logvar = 2 * std.log()",
    "no-sampling": f"decode a sample in training: {SAMPLE}",
    "encoder-detached": f"{SAMPLE}, or Normal(mu, std).rsample(), not .sample()",
    "outside-support": "scale x to [0, 1] and use binary_cross_entropy_with_logits on the raw outputs, or "
                       "use "
    "squared error with a sigma that fits",
    "out-of-reach": "scale the data into the output's range, or drop the activation; multiplying data by s "
    "needs s^2 times the weight of the KL",
    "loss-scale": f"{REDUCE}; then set beta (or sigma^2) on purpose",
    "batch-dependent-beta": "reduce both terms over the batch in the same way",
    "saturated-output": "start the last bias at logit(mean pixel), or use cross-entropy on logits; a smaller "
    "learning rate only delays it",
    "dead-units": "start again with a lower learning rate, or use LeakyReLU: a dead unit gets no gradient",
    "posterior-collapse": "bring beta (or sigma^2) below the collapse threshold, then train again from new "
    "weights",
    "decoder-ignores-z": "the decoder must see the image through z, and only so: look at its output layer, "
                         "then "
    "at every path into it",
    "sigma": "set sigma^2 to the mean squared error, or learn it",
    "train-eval-gap": "BatchNorm's running statistics do not fit: train longer, raise its momentum, or use "
    "another normalisation",
    "prior-mismatch": "samples from N(0, I) fall into holes: raise the weight of the KL, or fit a prior to "
                      "the "
    "codes afterwards",
    "no-better-than-mean": "train longer; check that x and the reconstruction are in the same units",
    "range-mismatch": "match the output's range to the data's, and show pictures on a fixed scale: min-max "
    "normalised ones hide this",
    "loss-unrecognised": "compare the weights of the two terms by hand, per image",
    "stateful-loss": "check again at the end of training",
}


@dataclass(frozen=True)
class Finding:
    """One thing found: its code, "serious" or "note", the evidence in numbers, what to do, where it is "
                                                    "taught."""

    code: str
    severity: str
    evidence: str
    remedy: str
    notebook: str


@dataclass
class Report:
    """What `checkup` found. findings: causes before symptoms. numbers: name -> what was measured, as text.

    beta: b / a for cross-entropy. sigma2: b / (2a) for squared error. loss_form: the form of the
    reconstruction error. Each is None where it was not recovered.
    """

    findings: list = field(default_factory=list)
    numbers: dict = field(default_factory=dict)
    beta: float = None
    sigma2: float = None
    loss_form: str = None

    @property
    def serious(self):
        """The codes of the serious findings, in order."""
        return [finding.code for finding in self.findings if finding.severity == "serious"]

    @property
    def healthy(self):
        """Whether nothing serious was found."""
        return not self.serious

    @property
    def verdict(self):
        """One line."""
        count = len(self.serious)
        return f"{count} serious: {', '.join(self.serious)}" if count else "healthy: nothing serious found"

    def __repr__(self):
        lines = [self.verdict]
        for f in self.findings:
            lines += ["", f"{f.code} ({f.severity}; see {f.notebook})"]
            lines += [f"  seen: {f.evidence}", f"  do:   {f.remedy}"]
        width = max(map(len, self.numbers), default=0)
        return "\n".join([*lines, "", *(
            f"{name.ljust(width)}  {text}" for name, text in self.numbers.items())])

    def _repr_html_(self):
        columns = ("finding", "severity", "seen", "do", "notebook")
        rows = [(f.code, f.severity, f.evidence, f.remedy, f.notebook) for f in self.findings]
        tables = [html_table(columns, rows, align="left")] if rows else []
        tables.append(html_table(("measured", ""), list(self.numbers.items()), align="left"))
        return f"<p><b>{self.verdict}</b></p>" + "".join(tables)


def checkup(
    model, x, loss=None, *, adapter=None, decode=None, batch_size=None, beta_limits=(0.1, 10.0),
    sigma2_limits=(0.1, 200.0), seed=0,
):  # fmt: skip
    """Say what is wrong with a VAE, from its outputs on x and from its loss: a Report. Trains nothing.

    model: an nn.Module with `reconstruction, mu, logvar = model(x)`. x: [N, ...], a few hundred images
    (or table rows) as the model gets them, on its device, in random order.
    loss: your own, as a callable (reconstruction, x, mu, logvar) -> scalar; without it a vaelab model
    is judged by the ELBO of its likelihood, and any other model by its outputs only.
    adapter: what the model returns -> (reconstruction, mu, logvar), or (model, x) -> the same.
    decode: codes [B, L] -> reconstruction, default model.decode or model.decoder, to swap codes.
    batch_size: at which the loss is probed, default len(x). beta_limits: a cross-entropy's beta outside
    them is a loss-scale problem; sigma2_limits: the same for sigma^2 over the mean squared error.

    The model, its mode, buffers and gradients, and all random states are as before afterwards.
    Raises ValueError for x, a model, an adapter or a loss that cannot be used, and shows how to adapt.
    """
    _check(model, x, batch_size, beta_limits, sigma2_limits)
    owners = model, loss, getattr(loss, "__self__", None)
    with untouched(*owners), torch.inference_mode(False), torch.enable_grad():
        case = observe(model, x, loss, adapter, decode, batch_size or len(x), seed)
        case.beta_limits, case.sigma2_limits = beta_limits, sigma2_limits
        case.sigma_said, case.cliff, case.prior_accuracy = False, _cliff(case), None
        findings = [finding for check in (BROKEN if case.broken else CHECKS) for finding in check(case)]
    form = case.form
    return Report(findings, _numbers(case), form and form.beta, form and form.sigma2, form and form.name)


def _check(model, x, batch_size, *limits):
    """Everything that can be known to be wrong before the model runs."""
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(x, torch.Tensor) or not x.is_floating_point() or x.dim() < 2 or len(x) == 0:
        got = f"{x.dtype} {list(x.shape)}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise ValueError(f"x must be a float tensor [N, ...] with at least one image, got {got}")
    if not torch.isfinite(x).all():
        raise ValueError("x holds NaN or infinite values: clean the data first")
    devices = {p.device for p in model.parameters()}
    if devices and x.device not in devices:
        raise ValueError(f"x is on {x.device}, the model on {next(iter(devices))}: move one with .to(...)")
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
    for low, high in limits:
        if not 0 <= low < high:
            raise ValueError(f"limits must be (low, high) with 0 <= low < high, got {(low, high)}")


def _cliff(case):
    """The collapse threshold in the unit of the loss, or None where it is not defined."""
    x, form = case.x_all[:5000], case.form
    if len(x) < FEWEST_IMAGES or form is None or form.beta is None and form.sigma2 is None:
        return None
    if form.sigma2 is not None:
        return collapse_threshold(x, "squared_error")
    return collapse_threshold(x, "cross_entropy") if x.min() >= 0 and x.max() <= 1 else None


# ---- the checks, causes before symptoms: each yields findings


def serious(code, evidence, remedy=None, severity="serious"):
    notebook = next(name for name, codes in NOTEBOOKS.items() if code in codes)
    return Finding(code, severity, evidence, remedy or REMEDIES[code], notebook)


def note(code, evidence, remedy=None):
    return serious(code, evidence, remedy, "note")


def _span(t):
    return f"[{t.min():.3g}, {t.max():.3g}]"


def _non_finite(case):
    if case.bad_parameters or case.broken:
        where = [f"parameters {', '.join(case.bad_parameters[:3])}"] if case.bad_parameters else []
        where += [f"the model's {', '.join(case.broken)}"] if case.broken else []
        finite = case.logvar[torch.isfinite(case.logvar)].abs()
        most = f"; the largest finite |logvar| is {finite.max():.3g}" if len(finite) else ""
        yield serious("non-finite", f"{' and '.join(where)} hold NaN or infinite values{most}")
    elif case.own_loss is not None and not math.isfinite(case.own_loss):
        overflow = case.logvar.max() > 80
        why = "exp(logvar) overflows" if overflow else f"outputs span {_span(case.r)}: a log of 0, or of less"
        yield serious("non-finite", f"the loss is {case.own_loss} on these images; {why}")


def _shapes(case):
    form = case.form
    if form is None:
        return
    tensors = {"reconstruction": case.r, "x": case.x, "mu": case.mu}
    shapes = ", ".join(f"{name} [B, {', '.join(map(str, t.shape[1:]))}]" for name, t in tensors.items())
    if form.mixes:
        yield serious("shape-broadcast",
            "the gradient of one image's reconstruction turns when only other images change: every "
            f"image is compared with every other. Shapes before the loss: {shapes}")
    elif form.refuses:
        n, why = next(iter(form.refuses.items()))
        sizes = ", ".join(map(str, form.coefficients))
        works = f"; it works at batch size {sizes}, by accident" if sizes else ""
        yield serious("shape-broadcast", f"the loss fails at batch size {n}: {why}{works}. Shapes: {shapes}")
    elif case.own_error and not list(_support(case)):
        spans = f"outputs span {_span(case.r)}, x {_span(case.x)}"
        yield serious("loss-raises", f"the loss raises on the model's own outputs: {case.own_error}; {spans}")


def _kl_form(case):
    form = case.form
    if form is None or form.refuses and not form.coefficients:
        return
    if form.name == SWAPPED:
        yield serious("swapped-arguments", "the loss is a cross-entropy with the data as the probabilities")
    if form.kl == "other":
        fits = zip(("mu", "logvar"), form.kl_gradients, strict=True)
        parts = ", ".join(f"cosine {value:.2f} on {name}" for name, value in fits)
        yield serious("kl-form",
            "the KL term is not that of N(mu, exp(logvar)) to N(0, 1): its gradient against the right "
            f"one has {parts}, where 1 is right (and both have to have one size)")
    a, b = form.a, form.b
    if a is not None and a < 0:
        both = "it is the ELBO, which is to be maximised" if b is not None and b < 0 else "its sign is wrong"
        yield serious("loss-sign",
            f"the loss falls as the reconstruction error grows (weight {a:.3g}): {both}")
    elif b is not None and b < 0 and not form.capacity:
        yield serious("kl-sign", f"the loss falls as the KL grows: its weight is {b:.3g}")


def _logvar(case):
    ends = {"mu": case.watch.ends[1][0], "logvar": case.watch.ends[2][0]}
    for name, end in ends.items():
        if end in BOUNDS:
            low, high = BOUNDS[end]
            why = "codes cannot leave that range, whatever the image"
            if name == "logvar" and low == 0:
                why = "no posterior is narrower than the prior; a standard deviation is positive, its log not"
            yield serious("logvar", f"{name} ends in a {end}, so it lies in [{low:g}, {high:g}]: {why}")
    top, bottom = case.logvar.max().item(), case.logvar.min().item()
    if top > 20:
        yield serious("logvar",
            f"logvar reaches {top:.3g}, a variance of {math.exp(min(top, 700)):.2g}; exp overflows at 88")
    # A code that is used is narrower than the prior; one that is not may drift, which is no evidence.
    elif bottom > -1e-6 and ends["logvar"] not in BOUNDS and case.information > 0.1 and case.follows > 0.02:
        yield serious("logvar",
            f"no logvar is negative (they span {_span(case.logvar)}), as if it were a standard "
            "deviation: every posterior is wider than the prior")
    elif bottom < -25:
        yield note("logvar", f"logvar falls to {bottom:.3g}: those codes have practically no noise")


def _noise(case):
    """Is the noise that the model adds the one that logvar promises?"""
    if case.noise == "detached" and not case.deterministic:
        yield serious("encoder-detached",
            "codes are sampled, but no gradient of the reconstruction reaches the encoder")
    if case.noise == "none" and case.deterministic:
        yield serious("no-sampling",
            "in train mode two passes give identical outputs: the decoder gets mu, no noise")
    if case.noise != "sampled":
        return
    used, third = case.noise_std.double(), case.noise_logvar.double().reshape(case.noise_std.shape)
    ways = {
        "exp(logvar / 2)": (0.5 * third).exp(), "exp(logvar)": third.exp(), "logvar itself": third,
        "sqrt(logvar)": third.clamp(min=0).sqrt(), "softplus(logvar)": torch.nn.functional.softplus(third),
        "1": torch.ones_like(third),
    }  # fmt: skip
    off = {way: ((used - std).abs() / (std.abs() + 1e-3)).nanmedian().item() for way, std in ways.items()}
    best = min(off, key=off.get)
    if off["exp(logvar / 2)"] < 0.05 or not off[best] < 0.01:
        return
    agrees = not case.given or case.form.kl == "other"  # nothing says that it should be a log-variance
    if best in ("logvar itself", "sqrt(logvar)") and third.min() > 0 and agrees:
        what, log = "variance", "out[2].log()"
        if best == "logvar itself":
            what, log = "standard deviation", "2 * out[2].log()"
        raise ValueError(
            f"the third value that the model returns is a {what}, not a log-variance: adapter=lambda "
            f"out: (out[0], out[1], {log})"
            + ("; the loss then gets logvar: " + adapter_line(
                f"reconstruction, x, mu, {AS_STD}") if case.given else "")
        )
    yield serious("logvar",
        f"the model multiplies its noise by {best}, where the KL assumes exp(logvar / 2); logvar spans "
        f"{_span(third)}")


def _support(case):
    form, x = case.form, case.x_all
    crosses = form is not None and (form.cross_entropy or "Bernoulli" in (form.name or ""))
    if crosses and (x.min() < -1e-6 or x.max() > 1 + 1e-6):
        yield serious("outside-support",
            f"x spans {_span(x)}, but {form.name} is for values in [0, 1]; "
            f"{share_out_of_reach(x, 0, 1):.0%} lie outside, where the loss can fall without limit")
    if out := not_probabilities(case):
        yield serious("outside-support",
            f"{out:.1%} of the outputs are no probabilities: they span {_span(case.r)}")


def _reach(case):
    low, high, x = case.low, case.high, case.x
    if math.isinf(low) and math.isinf(high):
        return
    end = f"its output ends in a {case.output_end}" if case.output_end else f"the loss applies a {case.link}"
    if case.output_end and case.link in ("sigmoid", "tanh"):
        end += f" and the loss applies a {case.link} to that"
    span = (x.max() - x.min()).item() or 1.0
    share, floor = share_out_of_reach(x, low - 2e-3 * span, high + 2e-3 * span), reachable_floor(x, low, high)
    matters = floor > max(0.05 * case.mse, 0.005 * case.mean_image_mse if case.enough else 0.0)
    if share > 0.01 and matters:
        yield serious("out-of-reach",
            f"the model answers in [{low:.3g}, {high:.3g}] ({end}), x spans {_span(x)}: {share:.0%} of "
            f"the values are out of reach, {floor:.3g} of the mean squared error of {case.mse:.3g} at "
            "the least")
    elif span < 0.6 * (high - low) < math.inf:
        yield note("range-mismatch",
            f"the output can lie in [{low:.3g}, {high:.3g}], x spans only {_span(x)}; outputs span "
            f"{_span(case.picture)}")


def _scale(case):
    form = case.form
    if form is None or form.b is None or form.a is None or form.a < 0 or form.b < 0:
        return
    if form.b == 0:
        yield serious("loss-scale", "the loss has no KL: nothing ties the codes to the prior", f"add {KL}")
    if form.a == 0:
        yield serious("loss-scale", "the loss does not depend on the reconstruction: only the KL is trained",
                      "add the reconstruction error, summed over the values of each image")
    if form.beta is not None:
        (low, high), value, relative = case.beta_limits, form.beta, form.beta
        seen = f"effective beta {value:.4g} at batch size {case.batch_size}, where the ELBO has 1"
    elif form.sigma2 is not None:
        (low, high), value, relative = case.sigma2_limits, form.sigma2, form.sigma2 / max(case.mse, 1e-12)
        seen = f"implied sigma^2 {value:.4g} at batch size {case.batch_size}"
        seen += f", {relative:.3g} times the mean squared error {case.mse:.3g}"
    elif form.name == "absolute error":
        (low, high), value, relative = case.sigma2_limits, form.b / (form.a or 1), form.b / (form.a or 1)
        relative /= max((case.picture - case.x).abs().mean().item(), 1e-12)
        seen = f"implied scale {value:.4g} of a Laplace distribution at batch size {case.batch_size}"
        seen += f", {relative:.3g} times the mean absolute error"
    else:
        return
    if form.a == 0 or form.b == 0:
        return
    unused = case.enough and case.information < 0.1
    beyond = case.cliff and value > 0.7 * case.cliff and unused and (form.beta is None or value > 1.5)
    if 0.99 * low <= relative <= 1.01 * high and not beyond:
        return
    seen += f": the KL weighs too {'little' if relative < low else 'much'}"
    seen += f"; on these data total collapse is stable beyond {case.cliff:.3g}" if case.cliff else ""
    # With both errors and KL summed and the KL at its own weight, it is the noise level that is off.
    weight = form.b / (case.batch_size if _summed_over_batch(form) else 1)
    if form.squared and abs(weight - 1) < 0.01 and form.a * case.x[0].numel() > 3:
        case.sigma_said = True
        yield serious("sigma", seen, _sigma_cure(case))
    else:
        yield serious("loss-scale", seen)


def _summed_over_batch(form):
    """Whether both terms are summed over the batch: they grow with it."""
    (n, low), *_, (m, high) = [*sorted(form.coefficients.items())] * 2
    return m > n and all(p and q and abs(q / p * n / m - 1) < 0.01 for p, q in zip(low, high, strict=True))


def _sigma_cure(case):
    weight = case.form.b * case.mse / case.form.sigma2
    return (
        f"set sigma^2 to the mean squared error, {case.mse:.3g}, or learn it; with your reconstruction "
        f"term that is a KL weight of {weight:.3g} instead of {case.form.b:.3g}")


def _batch(case):
    form = case.form
    if form is not None and form.depends_on_batch and not form.mixes:
        ratios = ", ".join(f"{b / a:.4g} at {n}" for n, (a, b) in form.coefficients.items())
        yield serious("batch-dependent-beta",
            f"the KL's weight over the error's changes with the batch size: {ratios}")


def _saturation(case):
    low, high, x, p = case.low, case.high, case.x, case.picture
    if not case.enough or case.follows > 0.02 or math.isinf(low) and math.isinf(high):
        return
    near = 1e-6 if math.isinf(high - low) else 0.01 * (high - low)
    at_end = (p <= low + near) | (p >= high - near)
    wrong = (p - x.clamp(low, high)).abs() > 0.25 * (x.max() - x.min())
    stuck = (at_end & wrong).sum() / wrong.sum().clamp(min=1)
    if wrong.float().mean() > 1e-4 and stuck > 0.5:
        colour = "black" if p.mean() < (low + min(high, low + 1)) / 2 else "white"
        before = f"; mean input of the last activation {case.preactivation:.3g}" if case.preactivation else ""
        yield serious("saturated-output",
            f"{at_end.float().mean():.0%} of the outputs sit at an end of [{low:g}, {high:g}] ({colour}) "
            f"for every image, and so do {stuck:.0%} of the values that are far off; no gradient passes "
            f"there{before}")


def _dead(case, after_collapse=False):
    """Rectifiers that are zero for every image; after a collapse they are its consequence."""
    for i, layer in enumerate(case.watch.rectified):
        dead, share = layer.dead, layer.dead.float().mean().item()
        # An encoder that the KL has silenced dies by drift: just below zero, and its heads are small by then.
        consequence = case.constant and case.revived < 3 and layer.depth < 10 and share >= 0.9
        if len(dead) < 8 or share < 0.75 or after_collapse != consequence:
            continue
        harmed = case.enough and case.mse > 0.8 * case.mean_image_mse
        say = serious if share >= 0.9 and harmed else note
        yield say("dead-units",
            f"{share:.0%} of the {len(dead)} units of rectifier {i + 1} are zero for every image")


def _codes(case):
    """Collapse, codes that are ignored, and codes that are not needed."""
    if not case.enough:
        return
    facts = (
        f"KL {case.kl.sum():.3g} nats, {case.active} of {case.latents} active units; outputs follow the "
        f"images with {case.follows:.1%} of the data's variance; error {case.mse:.3g}, of the mean image "
        f"{case.mean_image_mse:.3g}")
    if case.own is not None:
        facts += f"; error with its own code {case.own:.3g}, with another image's {case.swapped:.3g}"
    own_helps = case.own is None or case.own < 0.98 * case.swapped
    unmoved = case.follows < 0.02 or case.information > 0.5 and not own_helps
    if case.constant and case.follows > 0.1 and case.mse < 0.8 * case.mean_image_mse:
        yield serious("decoder-ignores-z",
            f"the codes say nothing, yet the output follows the image, past the code: {facts}")
    elif case.constant:
        yield serious("posterior-collapse",
            f"every image gets the same code, or training has not begun: {facts}")
    elif unmoved and case.information > 0.1:
        yield serious("decoder-ignores-z",
            f"codes differ between images, and the output does not follow them: {facts}")
    elif case.mse > case.mean_image_mse:
        yield note("no-better-than-mean", facts)
    if case.constant:
        yield from _dead(case, after_collapse=True)
    elif case.active < case.latents:
        yield note("posterior-collapse",
            f"partial: {case.latents - case.active} of {case.latents} latents are unused: they do not "
            "pay for their KL")


def _sigma(case):
    form = case.form
    if form is None or not form.sigma2 or form.sigma2 < 0 or case.sigma_said:
        return
    ratio = form.sigma2 / max(case.mse, 1e-12)
    if not 0.25 <= ratio <= 4:
        yield note("sigma",
            f"the loss assumes sigma {form.sigma2**0.5:.3g}, the root mean squared error is "
            f"{case.mse**0.5:.3g}: the KL weighs {ratio:.3g} times what these errors would give it",
                   _sigma_cure(case))


def _gap(case):
    """Is the model another one in eval mode? All that follows is seen in eval mode."""
    if case.train_mse is None or not case.enough:
        return
    gap = case.eval_mse - case.train_mse
    if case.eval_mse > 1.5 * case.train_mse and gap > 0.05 * case.mean_image_mse:
        yield serious("train-eval-gap",
            f"on the same images the mean squared error is {case.train_mse:.3g} in train mode, "
            f"{case.eval_mse:.3g} in eval mode")


def _mu_decoded(case):
    if case.own is not None and case.noise == "sampled" and case.noise_variance == 0:
        yield note("train-eval-gap",
            f"in eval mode this model decodes mu, with error {case.mse:.3g}; at a sampled code the error "
            f"is {case.own:.3g}",
            "report an ELBO at sampled codes only; at mu it is too good")


def _prior(case):
    if not case.enough or case.constant or len(case.z) < 60:
        return
    test = two_sample_test(case.z, seed=0, most=500)
    case.prior_accuracy = test.accuracy
    if test.accuracy < 0.6 or test.p_value > 1e-3:
        return
    mean, variance = case.z.mean(0), case.z.var(0, correction=0)
    off = 0.5 * (mean.square() + variance - 1 - variance.clamp(min=1e-12).log()).mean().item()
    # Precise codes alone are told from the prior too. Serious: far off, or hardly any noise.
    loose = _kl_is_weak(case) and (off > 3 or case.information > 4 * max(case.active, 1))
    say = serious if test.accuracy > 0.95 and (off > 8 or loose) else note
    yield say("prior-mismatch",
        f"a classifier tells unseen codes from draws of the prior with accuracy {test.accuracy:.2f}, "
        f"where 0.5 is best; the latents' means reach {mean.abs().max():.2f}, their standard deviations "
        f"{variance.max().sqrt():.2f}; the prior has 0 and 1")


def _kl_is_weak(case):
    """Whether nothing says that the KL had its full weight in training."""
    form = case.form
    if form is None or form.b is None or not form.a:
        return True
    return form.b < 0.5 * form.a if form.beta is not None else form.squared and form.sigma2 < 0.5 * case.mse


def _unrecognised(case):
    form = case.form
    if form is None:
        return
    if form.name is None and form.a != 0 and not form.mixes and form.coefficients:
        yield note("loss-unrecognised",
            "the reconstruction term is none of the known forms (squared, absolute, Huber, "
            "cross-entropy, Gaussian NLL): beta and sigma^2 are not recovered")
    if form.stateful:
        yield note("stateful-loss",
            "two equal calls of the loss give different values, as in a warm-up: its weights are those "
            "of this moment")


CHECKS = (
    _non_finite, _shapes, _kl_form, _logvar, _noise, _support, _reach, _scale, _batch, _gap, _saturation,
    _dead, _codes, _sigma, _mu_decoded, _prior, _unrecognised,
)  # fmt: skip
BROKEN = (_non_finite, _shapes, _kl_form, _logvar, _batch)


def _numbers(case):
    """What was measured, as short texts."""
    form, numbers = case.form, {"x": f"{list(case.x_all.shape)}, values {_span(case.x_all)}"}
    if form is not None:
        source = "" if case.given else "the model's own likelihood, as no loss was given: "
        extras = ", free bits" if form.free_bits else ", held at a capacity" if form.capacity else ""
        numbers["loss"] = f"{source}{form.name or 'not recognised'}; KL {form.kl}{extras}"
        if form.a is not None and form.b is not None:
            numbers["weights per image"] = f"error {form.a:.4g}, KL {form.b:.4g}"
            numbers["probed at batch size"] = f"{case.batch_size}"
        value = form.beta if form.beta is not None else form.sigma2
        if value is not None:
            numbers["effective beta" if form.beta is not None else "implied sigma^2"] = f"{value:.4g}"
        if value is not None and case.cliff:
            images = f"{min(len(case.x_all), 5000):,} images"
            numbers["collapse threshold"] = f"{case.cliff:.3g}, from {images}"
            numbers["this loss over the threshold"] = f"{value / case.cliff:.2g}"
    if case.broken:
        return numbers
    end = f", ending in {case.output_end}" if case.output_end else ""
    shown = f" (shown through {case.link})" if case.link not in ("identity", "likelihood") else ""
    numbers["outputs"] = f"values {_span(case.r)}{end}{shown}"
    numbers["codes"] = (
        f"KL {case.kl.sum():.3g} nats, {case.active} of {case.latents} active units, room for at most "
        f"{case.information:.3g} nats about the image")
    numbers["mean squared error"] = f"{case.mse:.3g}, of the mean image {case.mean_image_mse:.3g}"
    if case.own is not None:
        numbers["with another image's code"] = f"{case.swapped:.3g}, with its own {case.own:.3g}"
    if case.enough:
        numbers["outputs follow the images"] = f"{case.follows:.1%} of the data's variance"
    else:
        few = f"fewer than {FEWEST_IMAGES} different ones"
        numbers["too few images"] = f"{few}: collapse and the prior were not checked"
    if case.prior_accuracy is not None:
        numbers["codes told from the prior"] = f"accuracy {case.prior_accuracy:.2f}, where 0.5 is best"
    return numbers
