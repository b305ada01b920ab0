"""The forms of a reconstruction error, and the wrong formulas of a KL, to compare a loss with."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ..likelihoods import ContinuousBernoulli

SWAPPED = "cross-entropy with its arguments swapped"
CATEGORICAL = "categorical cross-entropy"
UNPRICED = "Gaussian NLL without its log-variance"


class Classes(NamedTuple):
    """How a reconstruction is made of softmaxes: its values are [places / inner, kinds, inner].

    inner is 1 where the kinds of a place lie side by side, as in [B, T, V].
    """

    kinds: int
    inner: int

    def split(self, values):
        """[B, ...] -> [B, places / inner, kinds, inner]."""
        return values.flatten(1).unflatten(1, (-1, self.kinds, self.inner))

    def one_hot(self, numbers):
        """Whole numbers, one for each place [B, ...] -> [B, places / inner, kinds, inner]."""
        places = numbers.flatten(1).unflatten(1, (-1, self.inner))
        return F.one_hot(places, self.kinds).movedim(3, 2)


@dataclass(frozen=True)
class Form:
    """One form of R: `error(reconstruction, x)`; the picture is link(reconstruction).

    weights: of every value of a reconstruction, 0 for those that the error does not see, with
    geometric mean 1 over the others; None for ones. classes: of a categorical cross-entropy.
    """

    name: str
    link: str
    error: Callable
    weights: torch.Tensor | None = None
    classes: Classes | None = None

    def gradient(self, r, x):
        """dR/dreconstruction, summed over the batch."""
        r = r.detach().double().requires_grad_()
        x = x.double() if x.is_floating_point() else x
        (gradient,) = torch.autograd.grad(self.error(r, x.detach()).sum(), r)
        return gradient if self.weights is None else gradient * self.weights

    def weighted(self, gradient, r, x):
        """The form with the weight of each value that a gradient [B, ...] shows, or None."""
        reference = self.gradient(r, x)
        weights = (gradient * reference).sum(0) / reference.square().sum(0).clamp(min=1e-300)
        given = weights[weights != 0]
        if given.min() < 0 < given.max():
            return None
        return replace(self, weights=weights.abs() / given.abs().log().mean().exp())

    @property
    def ignored(self):
        """The share of values that are not seen."""
        return 0.0 if self.weights is None else (self.weights == 0).double().mean().item()

    @property
    def uneven(self):
        """Whether the values that are seen have different weights."""
        return self.weights is not None and self.weights.unique().numel() > 1 + (self.ignored > 0)


# ---- value by value


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


def _swapped_logits(r, x):
    """A cross-entropy that takes x for logits, and the reconstruction for what is to be met."""
    return F.softplus(x) - r * x


def _swapped_on_sigmoid(r, x):
    """The same, where the reconstruction passes a sigmoid first."""
    return _swapped_logits(torch.sigmoid(r), x)


def _unpriced(r, x):
    """Two heads without the log-variance that an uncertain output has to pay."""
    mean, logvar = r.flatten(1).chunk(2, 1)
    return 0.5 * (mean - x.flatten(1)).square() * torch.exp(-logvar)


def _two_heads(r, x):
    mean, logvar = r.flatten(1).chunk(2, 1)
    return 0.5 * ((mean - x.flatten(1)).square() * torch.exp(-logvar) + logvar)


def _form(name, link, error):
    """The form with `error` between the picture and x, value by value."""

    def per_value(r, x):
        return error(LINKS[link](r.flatten(1)), x.flatten(1))

    return Form(name, link, per_value)


def _two_sigmoids(r):
    return torch.sigmoid(torch.sigmoid(r))


LINKS = {
    "identity": identity,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "two sigmoids": _two_sigmoids,
}
FORMS = (
    _form("squared error", "identity", _squared),
    _form("absolute error", "identity", _absolute),
    _form("cross-entropy on probabilities", "identity", _cross_entropy),
    _form("cross-entropy on logits", "sigmoid", _cross_entropy),
    _form("squared error", "sigmoid", _squared),
    _form("squared error", "tanh", _squared),
    _form("absolute error", "sigmoid", _absolute),
    _form("cross-entropy on logits", "two sigmoids", _cross_entropy),
    _form(SWAPPED, "identity", _swapped),
    _form(SWAPPED, "identity", _swapped_logits),
    _form(SWAPPED, "identity", _swapped_on_sigmoid),
    Form("continuous Bernoulli on logits", "sigmoid", ContinuousBernoulli().nll),
)
# Where a reconstruction is twice as large as x.
HALVES = (
    Form("Gaussian NLL", "identity", _two_heads),
    Form(UNPRICED, "identity", _unpriced),
)


# ---- one of several kinds at each place

LOG_CHANCES = {  # link -> log-probabilities of what a model returns, kinds in dimension 2
    "softmax": lambda r: r.log_softmax(2),
    "exp": identity,
}


def categorical_forms(shapes, gradient):
    """The categorical cross-entropies that could have this gradient [B, ...], one by one."""
    if shapes.kinds:
        for classes in _groupings(shapes):
            yield from (_categorical(link, classes, classes.one_hot) for link in LOG_CHANCES)
        return
    for classes in _groupings(shapes):
        # Chances add up to 1 whatever the logits are, so their gradients add up to 0.
        if classes.split(gradient).sum(2).norm() < 0.01 * gradient.norm():
            yield _categorical("softmax", classes, classes.split)
            yield _categorical("softmax", classes, _largest(classes))


def _groupings(shapes):
    """The `Classes` that fit shapes, the smallest first."""
    r, x = math.prod(shapes.reconstruction), math.prod(shapes.x)
    every = [r // x] if shapes.kinds else range(2, r + 1)
    inner = {math.prod(s[i:]) for s in (shapes.reconstruction, shapes.x) for i in range(len(s) + 1)}
    for kinds in (kinds for kinds in every if kinds > 1 and r % kinds == 0):
        places = r // kinds
        for size in sorted(inner | {places}):
            if places % size == 0:
                yield Classes(kinds, size)


def _largest(classes):
    """The target of a loss that takes x.argmax: x -> one-hot."""
    return lambda x: classes.one_hot(classes.split(x).argmax(2))


def _categorical(link, classes, target):
    """The form with a softmax over groups; target: x -> chances, split as by `Classes`."""

    def error(r, x):
        return -(target(x) * LOG_CHANCES[link](classes.split(r)))

    return Form(CATEGORICAL, link, error, classes=classes)


def probabilities(form, reconstruction, x_shape, kinds=0):
    """The chance of each kind that a reconstruction of categorical `form` stands for.

    form: a `LossForm` or `Form`. reconstruction: [B, ...] as the loss gets it. x_shape: of one x.
    Returns [B, *x_shape] for one-hot x, and [B, *x_shape, V] for whole numbers (kinds > 0).
    """
    chances = LOG_CHANCES[form.link](form.classes.split(reconstruction)).exp()
    if kinds:
        return chances.movedim(2, 3).reshape(-1, *x_shape, form.classes.kinds)
    return chances.reshape(-1, *x_shape)


# ---- wrong formulas of a KL, up to a factor

FORMULAS = {
    "logvar read as a standard deviation": lambda mu, s: mu**2 + s**2 - (s**2).log(),
    "logvar read as the log of a standard deviation": lambda mu, s: mu**2 + (2 * s).exp() - 2 * s,
    "logvar read as a variance": lambda mu, v: mu**2 + v.abs() - v.abs().log(),
    "mu not squared": lambda mu, logvar: mu + logvar.exp() - logvar,
    "mu squared left out": lambda mu, logvar: logvar.exp() - logvar,
    "mu squared with twice its weight": lambda mu, logvar: 2 * mu**2 + logvar.exp() - logvar,
    "mu squared with half its weight": lambda mu, logvar: mu**2 / 2 + logvar.exp() - logvar,
    "mu squared with the wrong sign": lambda mu, logvar: logvar.exp() - mu**2 - logvar,
    "exp(logvar) left out": lambda mu, logvar: mu**2 - logvar,
    "exp(logvar) with the wrong sign": lambda mu, logvar: mu**2 - logvar.exp() - logvar,
    "exp(logvar / 2) in place of exp(logvar)": lambda mu, v: mu**2 + (v / 2).exp() - v,
    "logvar in place of exp(logvar)": lambda mu, logvar: mu**2,
    "logvar left out": lambda mu, logvar: mu**2 + logvar.exp(),
    "logvar with the wrong sign": lambda mu, logvar: mu**2 + logvar.exp() + logvar,
    "the KL of the batch's average code": lambda mu, logvar: (
        mu.mean(0) ** 2 + logvar.mean(0).exp() - logvar.mean(0)
    ),
}
