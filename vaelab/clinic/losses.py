"""What a loss is, recovered from its gradients alone: its form, its two weights, what moves them.

A VAE's loss is a * mean(R) + b * mean(K). R is the reconstruction error of one image summed over
its values, K its KL summed over its latents.
"""

import contextlib
import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ..untouched import measuring
from .calling import (
    AS_STD,
    AS_VARIANCE,
    FOUR,
    SWAPPED_FOUR,
    USUAL,
    NotScalar,
    adapter_line,
    parameter_names,
    takes_any_name,
    ways_to_call,
)
from .forms import SWAPPED, Classes
from .meter import COARSE, KL, Meter, Refused, Shapes, first_line, or_false

SMALL = (4, 8)  # batch sizes at which a loss is first looked at
MOST_VALUES = 6_000_000  # in one call of the loss; a larger batch is extrapolated from smaller ones
SHAPE_WORDS = ("size of tensor", "shape", "broadcast", "target size", "match")  # in torch's errors


@dataclass(frozen=True)
class LossForm:
    """What was recovered of a loss; None where it was not.

    name: the form of the reconstruction error. link: "sigmoid" or "tanh" if the loss applies one;
    of a categorical cross-entropy "softmax" for logits, "exp" for log-probabilities.
    classes: how that one groups the values of a reconstruction, see `forms.probabilities`.
    two_heads: the reconstruction holds a mean and a log-variance side by side in dimension 1.
    ignored: the share of a reconstruction's values that the error does not see.
    per_value: sigma^2 of each value, shaped like a reconstruction and infinite where it is ignored,
    if a squared error weighs the values unequally; `sigma2` is their geometric mean then.
    a, b: the weights of mean(R) and mean(K) at `batch_size`. weights: batch size -> (a, b).
    kl: see `KL`. grows: how a goes with the residual, 0 for a constant, -2 for a loss like
    log(MSE). mixes: the gradient of one image turns when only other images change. moved: it
    follows one other image's x, and not its own. refuses: batch size -> the error there.
    fixed_size: the one batch size that is written into the loss. stateful: two equal calls differ,
    with equal random states too. random: other random states give other values. coarse: the loss
    computes in half precision.
    call: the loss as (reconstruction, x, mu, logvar) -> scalar. order: its arguments, in words, ""
    if they are the usual ones.
    """

    name: str | None = None
    link: str = "identity"
    classes: Classes | None = None
    two_heads: bool = False
    ignored: float = 0.0
    per_value: torch.Tensor | None = None
    a: float | None = None
    b: float | None = None
    batch_size: int | None = None
    weights: dict = field(default_factory=dict)
    kl: KL = KL("none", 0.0)
    grows: float = 0.0
    mixes: bool = False
    moved: bool = False
    refuses: dict = field(default_factory=dict)
    fixed_size: int | None = None
    stateful: bool = False
    random: bool = False
    coarse: bool = False
    call: Callable | None = None
    order: str = ""

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
        """b / a where R is in nats, None for other forms; infinite without a reconstruction."""
        if self.b is None or self.a is None or not (self.in_nats or self.a == 0):
            return None
        return self.b / self.a if self.a else math.inf

    @property
    def sigma2(self):
        """b / (2a) for squared error, in squared units of x; None for other forms."""
        return self.b / (2 * self.a) if self.b is not None and self.squared and self.a else None

    @property
    def depends_on_batch(self):
        """Whether b / a changes with the batch size by more than 1%."""
        ratios = [abs(b / a) for a, b in self.weights.values() if a and b]
        if self.stateful or self.grows or len(ratios) < 2:
            return False
        return max(ratios) > (1 + (COARSE if self.coarse or self.random else 0.01)) * min(ratios)

    @property
    def broadcasts(self):
        """Whether it fails at some batch sizes, and not because one is written into it."""
        return bool(self.refuses) and self.fixed_size is None

    @property
    def summed_over_batch(self):
        """Whether both terms are summed over the batch, so that both grow with it."""
        low, high = min(self.weights, default=0), max(self.weights, default=0)
        if low == high:
            return False
        pairs = list(zip(self.weights[low], self.weights[high], strict=True))
        return all(p and q and abs(q / p * low / high - 1) < 0.01 for p, q in pairs)


def measure_loss(loss, *, batch_size, shape, latent_dim, output_shape=None, kinds=0, seed=0):
    """Recover a loss's form and weights from its gradients at random arguments: a `LossForm`.

    loss: callable (reconstruction, x, mu, logvar) -> scalar, as it is used in training. Parameters
    named otherwise, as (x, x_hat, ...), are given in that order; of several returned values the
    total is taken. shape, output_shape: of one x and one reconstruction (default alike), e.g.
    (1, 28, 28). kinds: x holds whole numbers below it, 0 for real-valued x. The arguments
    are float64 on the CPU: reconstruction and x [B, ...] in (0, 1), so that losses that assert
    their range are safe, mu and logvar [B, latent_dim]. Nothing is trained, and what the loss
    remembers is put back, except what lies in a module's globals or in files.
    Raises ValueError for a loss that cannot be called so, and shows how to adapt it.
    """
    codes = _shape(latent_dim, "latent_dim")
    shapes = Shapes(_shape(output_shape or shape), _shape(shape), codes, kinds)
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
    with measuring(loss, seed=seed):
        return recover(loss, shapes, batch_size, seed=seed)


def recover(loss, shapes, batch_size, own=None, nll=None, seed=0):
    """`measure_loss` without its precautions: call it inside `measuring`.

    own: real (reconstruction, x, mu, logvar), where a loss that finds its own sigma is evaluated.
    nll: (name, callable (reconstruction, x) -> [B]), one more form to compare with.
    """
    if not callable(loss):
        raise ValueError(f"loss must be a function of ({USUAL}), got {type(loss).__name__}")
    try:
        with torch.inference_mode(False), torch.enable_grad():
            meter, sizes, refuses = _called(loss, shapes, batch_size, seed, nll)
            if not sizes:
                _explain_refusal(meter, refuses)
                return LossForm(batch_size=batch_size, refuses=refuses, call=meter.call)
            return _recovered(meter, sizes, refuses, batch_size, own)
    except Refused as error:
        raise ValueError(f"loss has a value, but its gradients cannot be used: {error}") from error


def _called(loss, shapes, batch_size, seed, nll):
    """(meter, sizes, refuses) of the first way to call a loss that works, else of the likeliest."""
    tried = []
    for call in ways_to_call(loss):
        meter = Meter(call, shapes, seed, nll)
        sizes, refuses = _usable_sizes(meter, batch_size)
        by_accident = tried and call.given == SWAPPED_FOUR and _is_about_shapes(tried[0][2])
        if sizes and not by_accident:
            return meter, sizes, refuses
        tried.append((meter, [], refuses))
    return tried[0]


def _recovered(meter, sizes, refuses, batch_size, own):
    first = next((n for n in sizes if n > 1), sizes[0])
    meter.refusal(first)  # settles the number type, which a size that failed may have changed
    stateful, meter.random = or_false(meter.memory, first) or (False, False)
    form = meter.form(first)
    name, grows = meter.name(first, form)
    form = form if name else None
    mixes = form is None and not grows and first > 1 and or_false(meter.mixes, first, "x")
    kl = meter.kl(first)
    if kl.kind == "other" or name == SWAPPED:
        _suggest_spread(meter)
    weights = {} if mixes else {n: meter.weights(n, form, kl) for n in sizes}
    a, b = _at(weights, batch_size) if weights else (None, kl.b)
    if grows and own is not None and form is not None:
        a = or_false(meter.own_a, form, own) or a
    return LossForm(
        name=name,
        link=form.link if form else "identity",
        classes=form.classes if form else None,
        two_heads=meter.shapes.two_heads,
        ignored=form.ignored if form else 0.0,
        per_value=b / (2 * a * form.weights) if form and form.uneven and a and b else None,
        a=a,
        b=b,
        batch_size=batch_size,
        weights=weights,
        kl=kl,
        grows=grows,
        mixes=mixes,
        moved=mixes and or_false(meter.moves_rows, first),
        refuses=refuses,
        fixed_size=_fixed_size(meter.shapes, sizes, refuses),
        stateful=stateful,
        random=meter.random,
        coarse=meter.coarse,
        call=meter.call,
        order="" if meter.call.given == FOUR else meter.call.expression,
    )


def value_on(loss, own, device):
    """(value, error) of a loss on real arguments: one of the two is None.

    On the CPU first. There a value out of range is an error, on a GPU it is the end of the session.
    """
    refusal = None
    for place in dict.fromkeys(("cpu", torch.device(device).type)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                leaves = [t.detach().to(place) for t in own]
                copies = [t.requires_grad_(t.is_floating_point()).clone() for t in leaves]
                return float(loss(*copies)), None
        except Exception as error:  # whatever the reader's loss raises is evidence
            refusal = refusal or f"{type(error).__name__}: {first_line(error)}"
    return None, refusal


def _shape(shape, argument="shape"):
    """A tuple of positive whole numbers."""
    numbers = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    if not numbers or not all(isinstance(n, int) and n >= 1 for n in numbers):
        raise ValueError(f"{argument} must be made of whole numbers of at least 1, got {shape!r}")
    return numbers


def _usable_sizes(meter, batch_size):
    """The batch sizes at which the loss works, and why it does not work at others."""
    largest = max(1, MOST_VALUES // meter.shapes.largest)
    sizes = [n for n in sorted({*SMALL, batch_size}) if n <= largest] or [largest]
    refuses = {}
    for n in sizes:
        refuses[n] = meter.refusal(n)
    if all(refuses.values()):  # the size that it wants may stand in its error
        numbers = {int(number) for why in refuses.values() for number in re.findall(r"\d+", why)}
        for n in sorted(n for n in numbers - set(sizes) if 1 < n <= largest)[:8]:
            if meter.refusal(n) is None:
                refuses[n] = None
                break
    usable = sorted(n for n, why in refuses.items() if why is None)
    return usable, {n: why for n, why in refuses.items() if why is not None}


def _fixed_size(shapes, sizes, refuses):
    """The batch size that is written into a loss; None if there is none, or it fits by accident."""
    if len(sizes) != 1 or not refuses:
        return None
    views = all("invalid for input" in why for why in refuses.values())
    return sizes[0] if views or sizes[0] not in shapes.sizes else None


def _at(weights, batch_size):
    """(a, b) at a batch size: measured, or extended from the two largest as powers of the size."""
    if batch_size in weights:
        return weights[batch_size]
    sizes = sorted(weights)
    last = sizes[-1]
    if len(sizes) == 1:
        return weights[last]
    return tuple(
        _extended(low, high, last / sizes[-2], batch_size / last)
        for low, high in zip(weights[sizes[-2]], weights[last], strict=True)
    )


def _extended(low, high, step, further):
    """The weight beyond `high`, if it grows from low to high as a power of the batch size."""
    if low is None or high is None or low * high <= 0:
        return high
    return high * further ** round(math.log(high / low) / math.log(step))


# ---- what to say when a loss cannot be called


def _is_about_shapes(refuses):
    why = next(iter(refuses.values()))
    return any(word in why for word in SHAPE_WORDS)


def _suggest_spread(meter):
    """Raise ValueError if the loss's own parameter names explain why its KL looks wrong."""
    call = meter.call.asked_spread()
    if call is None:
        return
    other = Meter(call, meter.shapes, meter.seed)
    other.random = meter.random
    if other.refusal(SMALL[0]) is None and other.kl(SMALL[0]).kind == "gaussian":
        raise ValueError(
            f"loss is called as loss({meter.call.expression}), but it asks for "
            f"({', '.join(parameter_names(call.loss))}). "
            f"Adapt it with a lambda: {adapter_line(call.expression)}"
        )


def _explain_refusal(meter, refuses):
    """Raise a ValueError that shows how to adapt the loss, unless only the shapes are at odds."""
    call, names = meter.call, parameter_names(meter.call.loss)
    n, why = next(iter(refuses.items()))
    further = why.startswith("KeyError") and takes_any_name(call.loss)
    if further or "missing" in why and "required" in why:
        missing = [f"{name}=..." for name in re.findall(r"'(\w+)'", why)]
        line = adapter_line(", ".join([call.expression, *missing]))
        raise ValueError(
            f"loss failed with {why}. Only you know that value. Write it in place of the dots: "
            f"{line}"
        )
    working = _working(meter, n) or call.asked_spread()
    if working is None and _is_about_shapes(refuses):
        return
    wanted = f" (it asks for {', '.join(names)})" if names else ""
    line = adapter_line((working or call).expression)
    if 0 < len(names) < 4:
        line = adapter_line("reconstruction, x", "{} + my_kl(mu, logvar)")
    raise ValueError(
        f"loss is called as loss({call.expression}){wanted} and failed at batch size {n}: {why}. "
        f"Adapt it with a lambda, for instance {line}"
    )


def _working(meter, n):
    """The call with a standard deviation or a variance that the loss accepts, or None."""
    for spread in (AS_STD, AS_VARIANCE):
        call = meter.call.with_spread(spread)
        with contextlib.suppress(NotScalar):
            if Meter(call, meter.shapes, meter.seed).refusal(n) is None:
                return call
    return None
