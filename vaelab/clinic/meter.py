"""Call a loss at random arguments of given shapes, and read its gradients.

At random arguments dL/dreconstruction is compared with the gradient of each form of reconstruction
error listed here, dL/dmu with mu, and dL/dlogvar with (exp(logvar) - 1) / 2.
"""

import contextlib
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from ..elbo import gaussian_kl
from ..likelihoods import ContinuousBernoulli
from .calling import USUAL, adapter_line

SWAPPED = "cross-entropy with its arguments swapped"
CODE_SCALES = (1.0, 20.0, 0.1)  # free bits cost nothing at small codes, a capacity turns its sign
FINE, COARSE = 2e-4, 5e-2  # how far two gradients may differ, for float32 and for half precision


# ---- the forms of a reconstruction error


@dataclass(frozen=True)
class Form:
    """One form of R: `error(reconstruction, x)`; the picture is link(reconstruction)."""

    name: str
    link: str
    error: Callable

    def gradient(self, r, x):
        """dR/dreconstruction, summed over the batch."""
        r = r.detach().double().requires_grad_()
        (gradient,) = torch.autograd.grad(self.error(r, x.detach().double()).sum(), r)
        return gradient


def identity(r):
    return r


def _squared(p, x):
    return (p - x).square()


def _absolute(p, x):
    return (p - x).abs()


def _cross_entropy(p, x):
    return -(x * p.log() + (1 - x) * (1 - p).log())


def _swapped(p, x):
    return _cross_entropy(x, p)


def _two_heads(r, x):
    mean, logvar = r.flatten(1).chunk(2, 1)
    return 0.5 * ((mean - x.flatten(1)).square() * torch.exp(-logvar) + logvar)


def _form(name, link, error):
    """The form with `error` between the picture and x, value by value."""

    def per_value(r, x):
        return error(LINKS[link](r.flatten(1)), x.flatten(1))

    return Form(name, link, per_value)


LINKS = {"identity": identity, "sigmoid": torch.sigmoid, "tanh": torch.tanh}
FORMS = (
    _form("squared error", "identity", _squared),
    _form("absolute error", "identity", _absolute),
    _form("cross-entropy on probabilities", "identity", _cross_entropy),
    _form("cross-entropy on logits", "sigmoid", _cross_entropy),
    _form("squared error", "sigmoid", _squared),
    _form("squared error", "tanh", _squared),
    _form("absolute error", "sigmoid", _absolute),
    _form(SWAPPED, "identity", _swapped),
    Form("continuous Bernoulli on logits", "sigmoid", ContinuousBernoulli().nll),
)
TWO_HEADS = Form("Gaussian NLL", "identity", _two_heads)


# ---- calling a loss, and reading its gradients


class Shapes(NamedTuple):
    """The shape of one reconstruction, of one x and of one mu."""

    reconstruction: tuple
    x: tuple
    codes: tuple

    @property
    def two_heads(self):
        return math.prod(self.reconstruction) == 2 * math.prod(self.x)

    @property
    def sizes(self):
        """Every number that a batch size could be mistaken for."""
        return {n for shape in self for n in (*shape, math.prod(shape))}


class KL(NamedTuple):
    """What a loss's KL is. kind: "gaussian", "none" or "other".

    b: its weight at the first batch size tried, scale: the size of codes at which b was read.
    cosines: how well the gradients on mu and on logvar fit a Gaussian KL, 1 is exactly.
    free_bits: small codes cost nothing. capacity: small codes are pushed up.
    """

    kind: str
    b: float | None
    scale: float = 1.0
    cosines: tuple = (1.0, 1.0)
    free_bits: bool = False
    capacity: bool = False


class Refused(Exception):
    """The loss raised, or did not return a finite scalar, at ordinary arguments."""


class NotScalar(ValueError):
    """The loss returned something that nobody can minimise."""


class Fit(NamedTuple):
    """gradient = c * reference by least squares; good: whether that is all of the gradient."""

    c: float
    cosine: float
    good: bool


class KLFit(NamedTuple):
    """How the gradients on mu and logvar fit a Gaussian KL: weight, cosines, size, whether well."""

    c: float
    cosines: tuple
    norm: float
    good: bool


class HalfPrecision(TorchFunctionMode):
    """While active, notes whether anything is computed in half precision."""

    seen = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        small = (torch.float16, torch.bfloat16)
        self.seen = self.seen or isinstance(output, torch.Tensor) and output.dtype in small
        return output


class Meter:
    """Calls a loss at random arguments of given shapes and reads its gradients."""

    def __init__(self, loss, shapes, seed=0, nll=None):
        self.loss, self.shapes, self.seed = loss, shapes, seed
        self.dtype, self.device, self.coarse = torch.float64, "cpu", False
        self.forms = [Form(nll[0], "identity", nll[1])] if nll else []
        if shapes.two_heads:
            self.forms.append(TWO_HEADS)
        elif math.prod(shapes.reconstruction) == math.prod(shapes.x):
            self.forms += FORMS

    def draw(self, n, scale=1.0):
        """r and x inside (0, 1), mu and logvar around 0, for n images; the same on every call."""
        generator = torch.Generator("cpu").manual_seed(self.seed + 7919 * n)
        about = {"generator": generator, "dtype": torch.float64, "device": "cpu"}
        r = 0.05 + 0.9 * torch.rand(n, *self.shapes.reconstruction, **about)
        x = 0.05 + 0.9 * torch.rand(n, *self.shapes.x, **about)
        mu = scale * torch.randn(n, *self.shapes.codes, **about)
        logvar = 0.5 * min(scale, 3.0) * torch.randn(n, *self.shapes.codes, **about)
        return r, x, mu, logvar

    def leaves(self, arguments):
        """The arguments as the loss can take them, with gradients."""
        return [t.detach().to(self.dtype).requires_grad_() for t in arguments]

    def value(self, arguments):
        """The loss as a tensor, from copies that are no leaves; Refused says why there is none."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                value = self.loss(*(t.to(self.device).clone() for t in arguments))
        except Exception as error:  # whatever the reader's loss raises is evidence
            raise Refused(f"{type(error).__name__}: {first_line(error)}") from error
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            raise NotScalar(_not_scalar(value))
        return value.reshape(())

    def refusal(self, n):
        """Find a number type and a device that the loss takes: None, or why there is none."""
        first = None
        places = [(torch.float64, "cpu"), (torch.float32, "cpu")]
        places += [(torch.float32, "cuda")] if torch.cuda.is_available() else []
        for dtype, device in places:
            self.dtype, self.device = dtype, device
            try:
                with HalfPrecision() as precision:
                    value = self.value(self.leaves(self.draw(n))).item()
                self.coarse = precision.seen
                if math.isfinite(value):
                    return None
                first = first or f"it is {value} at ordinary arguments"
            except Refused as error:
                first = first or str(error)
        return first

    def gradients(self, arguments):
        """dL/d(reconstruction, x, mu, logvar), zeros where the loss does not depend on one."""
        leaves = self.leaves(arguments)
        value = self.value(leaves)
        if not value.requires_grad:
            return [torch.zeros_like(leaf) for leaf in leaves]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = torch.autograd.grad(
                    value, leaves, allow_unused=True, materialize_grads=True
                )
        except Exception as error:
            raise Refused(f"{type(error).__name__}: {first_line(error)}") from error
        return [gradient.detach().double().cpu() for gradient in found]

    @property
    def tolerance(self):
        return COARSE if self.coarse else FINE

    def fit(self, gradient, reference):
        """`Fit` of a gradient to a reference."""
        gradient, reference = gradient.double(), reference.double()
        size, norm = gradient.norm().item(), reference.norm().item()
        if size == 0 or norm == 0 or not math.isfinite(size + norm):
            return Fit(0.0, 0.0, size == 0)
        inner = (gradient * reference).sum().item()
        c = inner / norm**2
        rest = (gradient - c * reference).norm().item()
        return Fit(c, inner / (size * norm), rest < self.tolerance * size)

    def form(self, n):
        """The form whose gradient is the loss's, or None."""
        r, x, *codes = self.draw(n)
        gradient = self.gradients((r, x, *codes))[0]
        if gradient.norm() == 0:
            return None
        for form in self.forms:
            if self.fit(gradient, form.gradient(r, x)).good:
                return form
        return None

    def name(self, n, form):
        """(name, grows) of the loss once a form is known: some look like a squared error nearby."""
        if form is None or form.name != "squared error":
            return form and form.name, 0.0
        if form.link == "identity" and or_false(self.is_huber, n):
            return "Huber", 0.0
        grows = or_false(self.growth, n, form) or 0.0
        if grows >= -0.5:
            return form.name, grows
        return "Gaussian NLL" if grows < -1.5 else None, grows

    def is_huber(self, n):
        """Whether a squared error stops being one at large residuals."""
        r, x, *codes = self.draw(n)
        far = self.gradients((x + 40 * (r - x), x, *codes))[0]
        return not self.fit(far, self.gradients((r, x, *codes))[0]).good

    def growth(self, n, form):
        """The power of the residual with which a goes: 0, or -2 for a loss like log(MSE)."""
        r, x, *codes = self.draw(n)
        near = x + 0.5 * (r - x)
        c, c_near = (
            self.fit(self.gradients((p, x, *codes))[0], form.gradient(p, x)).c for p in (r, near)
        )
        return round(-math.log2(c_near / c), 3) if c * c_near > 0 else 0.0

    def own_a(self, form, own):
        """a at the model's own reconstructions."""
        own = [t.detach().double().cpu() for t in own]
        gradient = self.gradients(own)[0]
        return len(own[0]) * self.fit(gradient, form.gradient(*own[:2])).c

    def weights(self, n, form, kl):
        """(a, b) at batch size n; None for what was not recognised."""
        r, x, mu, logvar = self.draw(n, kl.scale)
        gradient, _, g_mu, _ = self.gradients((r, x, mu, logvar))
        if form is not None:
            a = n * self.fit(gradient, form.gradient(r, x)).c
        else:
            a = 0.0 if gradient.norm() == 0 else None
        b = n * self.fit(g_mu, mu).c if kl.kind == "gaussian" else kl.b
        return a, b

    def kl(self, n):
        """Whether the KL is the Gaussian one, and what it does to small codes."""
        fits = {}
        for scale in CODE_SCALES:
            with contextlib.suppress(Refused):
                fits[scale] = self.kl_fit(n, scale)
        if all(fit.norm == 0 for fit in fits.values()):
            return KL("none", 0.0)
        good = {scale: fit for scale, fit in fits.items() if fit.good}
        if not good:
            return KL("other", None, cosines=next(iter(fits.values())).cosines)
        largest = max(abs(fit.c) for fit in fits.values())
        clear = [fit.c for fit in good.values() if abs(fit.c) > 1e-3 * largest]
        capacity = min(clear, default=0) < 0 < max(clear, default=0)
        scale = max(good) if capacity else next(iter(good))
        small = fits.get(0.1, good[scale])
        free_bits = small.norm < 1e-3 * good[scale].norm
        return KL("gaussian", n * good[scale].c, scale, (1.0, 1.0), free_bits, capacity)

    def kl_fit(self, n, scale):
        """How the gradients at codes of one size agree with those of a Gaussian KL."""
        r, x, *codes = self.draw(n, scale)
        _, _, *gradients = self.gradients((r, x, *codes))
        leaves = [t.requires_grad_() for t in codes]
        right = torch.autograd.grad(gaussian_kl(*leaves).sum(), leaves)
        mu, logvar = map(self.fit, gradients, right)
        norm = math.hypot(*(gradient.norm().item() for gradient in gradients))
        agree = abs(mu.c - logvar.c) <= max(1e-3, self.tolerance) * max(abs(mu.c), abs(logvar.c))
        good = norm > 0 and mu.good and logvar.good and agree
        return KLFit(mu.c, (mu.cosine, logvar.cosine), norm, good)

    def mixes(self, n):
        """Whether the gradient of the first image turns when only the other images change."""
        r, x, *codes = self.draw(n)
        other = x.clone()
        other[1:] = 1 - other[1:]
        before = self.gradients((r, x, *codes))[0][0]
        after = self.gradients((r, other, *codes))[0][0]
        return not self.fit(after, before).good

    def stateful(self, n):
        """Whether the same call gives another value the second time."""
        first, second = (self.value(self.leaves(self.draw(n))).item() for _ in range(2))
        return abs(first - second) > 1e-6 * max(abs(first), abs(second))


def first_line(error):
    """The first line of an error's text, at most 160 characters."""
    line = (str(error).strip().splitlines() or [""])[0]
    return line if len(line) <= 160 else line[:157] + "..."


def or_false(measure, *arguments):
    """A measurement that a loss may refuse: then the answer is no."""
    try:
        return measure(*arguments)
    except Refused:
        return False


def _not_scalar(value):
    got = type(value).__name__
    cure = {"tuple": "[0]", "list": "[0]", "dict": '["loss"]'}.get(got, ".mean()")
    if isinstance(value, torch.Tensor):
        got = f"shape {list(value.shape)}"
    shown = adapter_line(USUAL) + cure
    return f"loss must return a scalar tensor, got {got}: adapt it, for instance {shown}"
