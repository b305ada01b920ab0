"""What a loss is, told from its gradients alone: its form, its two coefficients, and what else moves them.

A VAE's loss is a * mean(R) + b * mean(K): R the reconstruction error of one image summed over its
values, K its KL summed over its latents. At random arguments dL/dreconstruction is compared with the
gradient of every form of R listed here, dL/dmu with mu and dL/dlogvar with (exp(logvar) - 1) / 2.
"""

import inspect
import math
import warnings
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from .likelihoods import ContinuousBernoulli

_continuous = ContinuousBernoulli()
SWAPPED = "cross-entropy with its arguments swapped"
LINKS = {"identity": lambda r: r, "sigmoid": torch.sigmoid, "tanh": torch.tanh}
# (name, link): R of each value; the picture is link(r).
FORMS = {
    ("squared error", "identity"): lambda r, x: (r - x).square(),
    ("absolute error", "identity"): lambda r, x: (r - x).abs(),
    ("cross-entropy on probabilities", "identity"): lambda r, x: -(x * r.log() + (1 - x) * (1 - r).log()),
    ("cross-entropy on logits", "sigmoid"): lambda r, x: F.softplus(r) - x * r,
    ("squared error", "sigmoid"): lambda r, x: (r.sigmoid() - x).square(),
    ("squared error", "tanh"): lambda r, x: (r.tanh() - x).square(),
    ("absolute error", "sigmoid"): lambda r, x: (r.sigmoid() - x).abs(),
    (SWAPPED, "identity"): lambda r, x: -(r * x.log() + (1 - r) * (1 - x).log()),
    ("continuous Bernoulli on logits", "sigmoid"): _continuous.nll,
}
SMALL = (4, 8)  # batch sizes at which a loss is first looked at
MOST_VALUES = 6_000_000  # in one probe; a larger batch is extrapolated from smaller ones
CODE_SCALES = (1.0, 20.0, 0.1)  # free bits cost nothing at small codes, a capacity turns its sign there
SHAPES = ("size of tensor", "shape", "broadcast", "target size", "match")  # words of torch's own errors
USUAL = "(reconstruction, x, mu, logvar)"
AS_STD, AS_VARIANCE = "torch.exp(0.5 * logvar)", "torch.exp(logvar)"


@dataclass
class LossForm:
    """What probing found; None where it found nothing.

    name: the form of the reconstruction error. link: "sigmoid" or "tanh" if the loss applies one.
    two_heads: the reconstruction holds a mean and a log-variance side by side in dimension 1.
    a, b: the coefficients of mean(R) and mean(K) at `batch_size`. coefficients: batch size -> (a, b).
    kl: "gaussian", "none", or "other". free_bits: small codes cost nothing. capacity: small codes
    are pushed up. kl_gradients: how well (mu's part, logvar's part) fit a Gaussian KL, 1 is exactly;
    kl_scale: the size of codes at which b was read.
    grows: how a goes with the residual, 0 for a constant, -2 for the Gaussian NLL at its best sigma.
    mixes: an image's gradient turns when only other images change. refuses: batch size -> the error.
    stateful: two equal calls differ.
    """

    name: str = None
    link: str = "identity"
    two_heads: bool = False
    a: float = None
    b: float = None
    batch_size: int = None
    coefficients: dict = field(default_factory=dict)
    kl: str = "none"
    kl_gradients: tuple = (1.0, 1.0)
    kl_scale: float = 1.0
    free_bits: bool = False
    capacity: bool = False
    grows: float = 0.0
    mixes: bool = False
    stateful: bool = False
    refuses: dict = field(default_factory=dict)

    @property
    def squared(self):
        """Whether this is a squared error, with or without a sigma of its own."""
        return self.name in ("squared error", "Gaussian NLL") and not self.two_heads

    @property
    def cross_entropy(self):
        """Whether R is one of the cross-entropies."""
        return self.name is not None and self.name.startswith("cross-entropy on")

    @property
    def in_nats(self):
        """Whether R is a negative log-likelihood by itself, so that beta is b / a."""
        others = ("squared error", "absolute error", "Huber", SWAPPED)
        return self.name is not None and self.name not in others and not self.squared

    @property
    def beta(self):
        """b / a where R is in nats, None for other forms; infinite if there is no reconstruction term."""
        if self.b is None or self.a is None or not (self.in_nats or self.a == 0):
            return None
        return self.b / self.a if self.a else math.inf

    @property
    def sigma2(self):
        """b / (2a) for squared error, None for other forms."""
        return self.b / (2 * self.a) if self.b is not None and self.squared and self.a else None

    @property
    def depends_on_batch(self):
        """Whether b / a changes with the batch size by more than 1%."""
        ratios = [abs(b / a) for a, b in self.coefficients.values() if a and b]
        return not (self.stateful or self.grows) and len(ratios) > 1 and max(ratios) > 1.01 * min(ratios)


@torch.enable_grad()
def probe_loss(loss, *, batch_size, shape, latent_shape, output_shape=None, own=None, nll=None, seed=0):
    """Recover a loss's form and coefficients from its gradients: a LossForm. Trains nothing.

    loss: callable (reconstruction, x, mu, logvar) -> scalar. shape, output_shape: of one x and of one
    reconstruction (default alike), e.g. (1, 28, 28). latent_shape: of one mu, e.g. (20,).
    own: real (reconstruction, x, mu, logvar), where a loss that finds its own sigma is evaluated.
    nll: (name, callable (reconstruction, x) -> [B]), one more form to compare with.
    Random arguments in (0, 1), in float64 on the CPU, so that losses that assert their range are safe.
    Raises ValueError for a loss that cannot be called so, and shows how to adapt it.
    """
    probe = _Probe(loss, tuple(shape), tuple(output_shape or shape), tuple(latent_shape), seed, nll)
    sizes = sorted({*SMALL, batch_size})
    largest = max(1, MOST_VALUES // max(math.prod(probe.shape), math.prod(probe.output_shape)))
    sizes = [n for n in sizes if n <= largest] or [largest]
    errors = {}
    for n in sizes[:]:
        try:
            probe.check(n)
        except _Refused as error:
            errors[n] = str(error)
            sizes.remove(n)
    if not sizes:
        _explain_refusal(probe, batch_size, errors)
        return LossForm(batch_size=batch_size, refuses=errors)
    first = sizes[0] if len(sizes) == 1 or sizes[0] > 1 else sizes[1]
    form = LossForm(batch_size=batch_size, refuses=errors)
    form.stateful = probe.stateful(first)
    form.name, form.link = probe.name(first)
    form.two_heads = probe.two_heads
    if form.name is None:
        form.mixes = first > 1 and probe.mixes(first)
    _recover_kl(probe, form, first)
    if form.name is not None or form.b:
        form.grows = probe.growth(first, form) if form.name == "squared error" else 0.0
        if form.grows < -0.5:
            form.name = "Gaussian NLL" if form.grows < -1.5 else None
    for n in () if form.mixes else sizes:
        form.coefficients[n] = probe.coefficients(n, form)
    if form.kl == "other":
        _suggest_adapter(probe)
    if form.coefficients:
        form.a, form.b = _at(form.coefficients, batch_size)
    if form.grows and own is not None and form.name:
        form.a = probe.own_a(form, own)
    return form


def _suggest_adapter(probe):
    """Raise ValueError if the loss's own parameter names explain why its KL looks wrong."""
    order = declared_order(probe.loss)
    if order is None:
        return
    way = adapted(probe.loss)[order]
    if _Probe(way, probe.shape, probe.output_shape, probe.latent_shape, probe.seed).kl(SMALL[0], 1.0).good:
        raise ValueError(
            f"loss is called as loss{USUAL}, but it asks for ({', '.join(parameter_names(probe.loss))}). "
            f"Adapt it with a lambda: {adapter_line(order)}"
        )


def _recover_kl(probe, form, n):
    """Whether the KL is the Gaussian one, and what it does to small codes."""
    fits = {scale: probe.kl(n, scale) for scale in CODE_SCALES}
    good = {scale: fit for scale, fit in fits.items() if fit.good}
    size = max(abs(fit.b) for fit in fits.values())
    if all(fit.none for fit in fits.values()):
        form.kl, form.b = "none", 0.0
        return
    if not good:
        form.kl, form.kl_gradients = "other", fits[1.0].parts
        return
    signs = {math.copysign(1, fit.b) for fit in good.values() if abs(fit.b) > 1e-3 * size}
    form.kl, form.capacity = "gaussian", len(signs) == 2
    form.kl_scale = max(good) if form.capacity else next(scale for scale in CODE_SCALES if scale in good)
    form.b, form.free_bits = good[form.kl_scale].b, fits[0.1].norm < 1e-3 * fits[form.kl_scale].norm


def _at(coefficients, batch_size):
    """(a, b) at a batch size: measured, or extended from the two largest as powers of the batch size."""
    if batch_size in coefficients:
        return coefficients[batch_size]
    *_, last = sizes = sorted(coefficients)
    if len(sizes) == 1:
        return coefficients[last]
    before, ends = sizes[-2], []
    for low, high in zip(coefficients[before], coefficients[last], strict=True):
        same_sign = low is not None and high is not None and low * high > 0
        power = round(math.log(high / low) / math.log(last / before)) if same_sign else 0
        ends.append(None if high is None else high * (batch_size / last) ** power)
    return tuple(ends)


class _Refused(Exception):
    """The loss raised, or did not return a finite scalar, at ordinary arguments."""


@dataclass
class _KLFit:
    b: float
    parts: tuple
    norm: float
    good: bool
    none: bool


class _Probe:
    """Calls a loss at random arguments of one shape and reads its gradients."""

    def __init__(self, loss, shape, output_shape, latent_shape, seed, nll=None):
        self.loss, self.shape, self.output_shape = loss, shape, output_shape
        self.latent_shape, self.seed, self.nll = latent_shape, seed, nll
        self.two_heads = math.prod(output_shape) == 2 * math.prod(shape)
        self.dtype, self.device = torch.float64, "cpu"

    def draw(self, n, scale=1.0):
        """r and x inside (0, 1), mu and logvar around 0, for n images; the same on every call."""
        generator = torch.Generator().manual_seed(self.seed + 7919 * n)
        unit = [
            0.05 + 0.9 * torch.rand(n, *s, generator=generator, dtype=torch.float64)
            for s in (self.output_shape, self.shape)
        ]
        mu, logvar = (
            torch.randn(n, *self.latent_shape, generator=generator, dtype=torch.float64) for _ in "12"
        )
        return [*unit, scale * mu, 0.5 * min(scale, 3.0) * logvar]

    def value(self, arguments):
        """The loss as a tensor; _Refused says why there is none."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value = self.loss(*(t.to(self.device) for t in arguments))
        except Exception as error:  # whatever the reader's loss raises is evidence
            raise _Refused(f"{type(error).__name__}: {first_line(error)}") from error
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            got = f"shape {list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
            cure = {"tuple": "[0]", "list": "[0]", "dict": '["loss"]'}.get(got, ".mean()")
            shown = adapter_line("reconstruction, x, mu, logvar") + cure
            raise _NotScalar(f"loss must return a scalar tensor, got {got}: adapt it, for instance {shown}")
        return value.reshape(())

    def check(self, n):
        """Find a number type and a device that the loss takes; raises _Refused."""
        first, tried = None, [(torch.float64, "cpu"), (torch.float32, "cpu")]
        tried += [(torch.float32, "cuda")] if torch.cuda.is_available() else []
        for dtype, device in tried:
            self.dtype, self.device = dtype, device
            try:
                value = self.value([t.to(dtype) for t in self.draw(n)])
                if not torch.isfinite(value):
                    raise _Refused(f"it is {value.item()} at ordinary arguments")
                return
            except _Refused as error:
                first = first or error
        raise first

    def gradients(self, arguments):
        """dL/d(reconstruction, x, mu, logvar), zeros where the loss does not depend on one."""
        arguments = [t.detach().to(self.dtype).requires_grad_() for t in arguments]
        value = self.value(arguments)
        if not value.requires_grad:
            return [torch.zeros_like(t) for t in arguments]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.autograd.grad(value, arguments, allow_unused=True)
        return [
            torch.zeros_like(t) if g is None else g.detach().double().cpu()
            for g, t in zip(found, arguments, strict=True)
        ]

    def reference(self, name, link, r, x):
        """The gradient of R summed over the batch, shaped like r."""
        r = r.detach().double().requires_grad_()
        if self.nll is not None and name == self.nll[0]:
            return torch.autograd.grad(self.nll[1](r, x.detach().double()).sum(), r)[0]
        if name == "Gaussian NLL" and self.two_heads:
            mean, logvar = r.flatten(1).chunk(2, 1)
            nll = 0.5 * ((mean - x.flatten(1)).square() * torch.exp(-logvar) + logvar)
        else:
            name = "squared error" if name in ("Gaussian NLL", "Huber") else name
            nll = FORMS[name, link](r.flatten(1), x.detach().double().flatten(1))
        return torch.autograd.grad(nll.sum(), r)[0]

    def name(self, n):
        """(name, link) of the form whose gradient is the loss's, or (None, "identity")."""
        r, x, mu, logvar = self.draw(n)
        gradient = self.gradients((r, x, mu, logvar))[0]
        if gradient.norm() == 0:
            return None, "identity"
        if self.nll is not None and _fit(gradient, self.reference(self.nll[0], "identity", r, x))[1]:
            return self.nll[0], "identity"
        if self.two_heads:
            fits = _fit(gradient, self.reference("Gaussian NLL", "identity", r, x))[1]
            return ("Gaussian NLL" if fits else None, "identity")
        if r.flatten(1).shape != x.flatten(1).shape:
            return None, "identity"
        for name, link in FORMS:
            if not _fit(gradient, self.reference(name, link, r, x))[1]:
                continue
            return "Huber" if self._huber(name, n) else name, link
        return None, "identity"

    def _huber(self, name, n):
        """Whether a squared error stops being one at large residuals."""
        if name != "squared error":
            return False
        r, x, mu, logvar = self.draw(n)
        far = x + 40 * (r - x)
        try:
            gradient = self.gradients((far, x, mu, logvar))[0]
        except _Refused:  # it asserts its range: residuals beyond 1 do not exist for it
            return False
        # With a link, far values saturate it: the gradient is too small to judge.
        plain = self.gradients((r, x, mu, logvar))[0]
        parallel = _fit(gradient, plain)[1]
        return not parallel and _fit(plain, self.reference(name, "identity", r, x))[1]

    def growth(self, n, form):
        """The power of the residual with which a goes: 0, or -2 for a loss like log(MSE)."""
        r, x, mu, logvar = self.draw(n)
        near = x + 0.5 * (r - x)
        a = [
            _fit(self.gradients((p, x, mu, logvar))[0], self.reference(form.name, form.link, p, x))[0]
            for p in (r, near)
        ]
        return 0.0 if not a[0] or a[1] / a[0] <= 0 else round(-math.log(a[1] / a[0], 2), 3)

    def own_a(self, form, own):
        """a at the model's own reconstructions."""
        own = [t.detach().double().cpu() for t in own]
        gradient = self.gradients(own)[0]
        return len(own[0]) * _fit(gradient, self.reference(form.name, form.link, *own[:2]))[0]

    def coefficients(self, n, form):
        """(a, b) at batch size n; None for what was not recognised."""
        r, x, mu, logvar = self.draw(n, form.kl_scale)
        gradient, _, g_mu, _ = self.gradients((r, x, mu, logvar))
        if form.name is None:
            a = 0.0 if gradient.norm() == 0 else None
        else:
            a = n * _fit(gradient, self.reference(form.name, form.link, r, x))[0]
        b = n * _fit(g_mu, mu)[0] if form.kl == "gaussian" else 0.0 if form.kl == "none" else None
        return a, b

    def kl(self, n, scale):
        """How the gradients on mu and logvar agree with those of a Gaussian KL."""
        _, _, mu, logvar = arguments = self.draw(n, scale)
        _, _, g_mu, g_logvar = self.gradients(arguments)
        b_mu, mu_fits, mu_part = _fit(g_mu, mu, with_cosine=True)
        b_logvar, logvar_fits, logvar_part = _fit(g_logvar, 0.5 * torch.expm1(logvar), with_cosine=True)
        none = g_mu.norm() == 0 and g_logvar.norm() == 0
        agree = abs(b_mu - b_logvar) <= 1e-3 * max(abs(b_mu), abs(b_logvar))
        norm = (g_mu.norm() ** 2 + g_logvar.norm() ** 2).sqrt().item()
        good = bool(mu_fits and logvar_fits and agree and not none)
        return _KLFit(n * b_mu, (mu_part, logvar_part), norm, good, bool(none))

    def mixes(self, n):
        """Whether the gradient of the first image turns when only the other images change."""
        r, x, mu, logvar = self.draw(n)
        before = self.gradients((r, x, mu, logvar))[0][0]
        other = x.clone()
        other[1:] = 1 - other[1:]
        after = self.gradients((r, other, mu, logvar))[0][0]
        return not _fit(after, before)[1]

    def stateful(self, n):
        """Whether the same call gives another value the second time."""
        arguments = [t.to(self.dtype) for t in self.draw(n)]
        first, second = (self.value(arguments).item() for _ in range(2))
        return abs(first - second) > 1e-6 * max(abs(first), abs(second))


def first_line(error):
    """The first line of an error's text, at most 160 characters."""
    line = (str(error).strip().splitlines() or [""])[0]
    return line if len(line) <= 160 else line[:157] + "..."


class _NotScalar(ValueError):
    pass


def _fit(gradient, reference, with_cosine=False):
    """c in gradient = c * reference by least squares, and whether that is all of it."""
    gradient, reference = gradient.double(), reference.double()
    size, norm = gradient.norm().item(), reference.norm().item()
    if not (math.isfinite(size) and math.isfinite(norm)) or norm == 0 or size == 0:
        return (0.0, size == 0, 0.0) if with_cosine else (0.0, size == 0)
    inner = (gradient * reference).sum().item()
    c = inner / norm**2
    fits = (gradient - c * reference).norm().item() < 2e-4 * size
    return (c, fits, inner / (size * norm)) if with_cosine else (c, fits)


def parameter_names(loss):
    """The names of a loss's positional parameters, or [] if it does not tell."""
    try:
        parameters = inspect.signature(loss).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def adapted(loss):
    """Other ways in which a loss may want its four arguments: expression -> callable in the usual order."""
    ways = {}
    fourths = ("logvar", lambda v: v), (AS_STD, lambda v: (0.5 * v).exp()), (AS_VARIANCE, torch.exp)
    for first, second in (("reconstruction", "x"), ("x", "reconstruction")):
        for fourth, convert in fourths:
            swap = first == "x"

            def way(r, x, mu, logvar, swap=swap, convert=convert):
                return loss(*((x, r) if swap else (r, x)), mu, convert(logvar))

            ways[f"{first}, {second}, mu, {fourth}"] = way
    return ways


def adapter_line(expression):
    """The lambda a reader should pass."""
    return f"loss=lambda reconstruction, x, mu, logvar: my_loss({expression})"


def declared_order(loss):
    """The call that a loss's own parameter names ask for, thread 002: (x, x_hat, mus, sigmas)."""
    names = [name.lower() for name in parameter_names(loss)]
    if len(names) < 4:
        return None
    targets = ("x", "target", "inputs", "input", "data", "images", "y", "original")
    pictures = ("hat", "rec", "pred", "out", "prime")
    swapped = names[0] in targets and any(part in names[1] for part in pictures)
    log = any(part in names[3] for part in ("log", "lv"))
    std = not log and any(part in names[3] for part in ("sig", "std", "scale"))
    variance = not log and not std and "var" in names[3]
    if not (swapped or std or variance):
        return None
    fourth = AS_STD if std else AS_VARIANCE if variance else "logvar"
    return f"{'x, reconstruction' if swapped else 'reconstruction, x'}, mu, {fourth}"


def _explain_refusal(probe, batch_size, errors):
    """Raise a ValueError that shows how to adapt the loss, unless only the shapes are at odds."""
    n, why = next(iter(errors.items()))
    wanted = parameter_names(probe.loss)
    names = f" (it asks for {', '.join(wanted)})" if wanted else ""
    declared, ways, working = declared_order(probe.loss), adapted(probe.loss), None
    for expression in sorted(ways, key=lambda e: e != declared):  # what its own names say comes first
        try:
            _Probe(ways[expression], probe.shape, probe.output_shape, probe.latent_shape, probe.seed).check(n)
        except (_Refused, _NotScalar):
            continue
        working = expression
        break
    working = working or declared
    if working is None and any(word in why for word in SHAPES):
        return
    shown = adapter_line(working or "reconstruction, x, mu, logvar")
    raise ValueError(
        f"loss is called as loss{USUAL}{names} and failed at batch size {n}: {why}. "
        f"Adapt it with a lambda, for instance {shown}"
    )
