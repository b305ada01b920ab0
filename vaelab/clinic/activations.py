"""Watch a model's activations, its units and its noise while it runs, without changing it."""

import contextlib
import math
from typing import NamedTuple

import torch
from torch.overrides import TorchFunctionMode

BOUNDS = {
    **dict.fromkeys(("sigmoid", "expit", "hardsigmoid", "softmax"), (0.0, 1.0)),
    **dict.fromkeys(("tanh", "hardtanh", "softsign"), (-1.0, 1.0)),
    **dict.fromkeys(("relu", "softplus", "exp"), (0.0, math.inf)),
    "relu6": (0.0, 6.0),
}
# How a bounded activation maps the range of what goes into it, where that is bounded too.
MAPS = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "softplus": torch.nn.functional.softplus,
    "exp": torch.exp,
}
CLAMPS = ("clamp", "clip")
UNBOUNDED = ("elu", "gelu", "silu", "mish", "leaky_relu", *CLAMPS)
RECTIFIERS = ("relu", "relu6", "threshold")
SQUASHERS = ("tanh",)
SATURATED = 4.0  # beyond it the slope of a tanh is below 0.002
NORMAL = ("randn_like", "randn", "normal", "normal_")
OTHER_NOISE = (
    *("rand_like", "rand", "uniform_", "exponential_", "cauchy_", "log_normal_"),
    *("bernoulli", "bernoulli_", "poisson"),
)


class Activation(NamedTuple):
    """One call: the function's name, what went in (None if that is not known), what came out."""

    name: str | None = None
    before: torch.Tensor | None = None
    after: torch.Tensor | None = None


class Units(NamedTuple):
    """dead: units (dimension 1) that say the same of every image. depth: how far out they are.

    kind: "rectifier" (zero for every image) or "squasher" (at one end for every image). depth: the
    dead units' median distance from where they would wake, in standard deviations of their input.
    """

    kind: str
    dead: torch.Tensor
    depth: float

    @property
    def share(self):
        return self.dead.float().mean().item()


class Draw(NamedTuple):
    """One draw of noise: the name of the function that drew it, and what it drew."""

    name: str
    value: torch.Tensor


class Watch(TorchFunctionMode):
    """While active, keeps activations, units, and noise.

    differentiate_noise: the noise gets gradients, so that its scale can be read from them.
    """

    def __init__(self, differentiate_noise=False):
        super().__init__()
        self.activations, self.units, self.noise = [], [], []
        self.differentiate_noise = differentiate_noise

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        plain = name.removesuffix("_")
        if plain in RECTIFIERS or plain in SQUASHERS:
            with contextlib.suppress(Exception):  # watching must never stop the model
                self.units.append(_units(plain, args[0].detach()))  # now: it may work in place
        output = func(*args, **(kwargs or {}))
        if not isinstance(output, torch.Tensor) or not output.is_floating_point():
            return output
        if name in NORMAL or name in OTHER_NOISE:
            return self._noise(name, output, in_place=plain != name)
        if plain in BOUNDS or plain in UNBOUNDED:
            self.activations.append(Activation(plain, args[0] if args else None, output))
        return output

    def _noise(self, name, output, in_place):
        """Keep the noise, and hand it to the model as something that it may work on in place."""
        self.noise.append(Draw(name, output))
        if not (self.differentiate_noise and output.is_leaf):
            return output
        output.requires_grad_()
        return output * 1 if torch.is_grad_enabled() and not in_place else output

    def last_before(self, tensor):
        """The activation whose output `tensor` is, past a final clamp; an empty one if none is."""
        clamp = Activation()
        for activation in reversed(self.activations):
            if not _same(activation.after, tensor):
                continue
            if activation.name not in CLAMPS:
                return activation
            clamp, tensor = activation, activation.before
        return clamp

    def one_before(self, activation):
        """The bounded activation whose output goes into this one; an empty one if none does."""
        if activation.before is None or activation.name not in MAPS:
            return Activation()
        inner = self.last_before(activation.before)
        known = inner.name in BOUNDS and inner.after is not activation.after
        return inner if known else Activation()


class Replaced(TorchFunctionMode):
    """While active, the `number`-th draw of noise (counted from 0) gives the values `noise`."""

    def __init__(self, number, noise):
        super().__init__()
        self.number, self.noise, self.count = number, noise, -1

    def __torch_function__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        drawn = isinstance(output, torch.Tensor) and output.is_floating_point()
        if not drawn or name not in NORMAL and name not in OTHER_NOISE:
            return output
        self.count += 1
        if self.count != self.number:
            return output
        with torch.no_grad():
            return output.copy_(self.noise.reshape(output.shape))


class Linearised(TorchFunctionMode):
    """While active, rectifiers let everything pass: what a network says without its dead units."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "").removesuffix("_") in RECTIFIERS:
            return args[0]
        return func(*args, **(kwargs or {}))


def composed_range(ending, inner):
    """(low, high) that an output can reach which ends in one or two bounded activations."""
    low, high = BOUNDS.get(ending.name, (-math.inf, math.inf))
    if inner.name is None:
        return low, high
    ends = torch.tensor(BOUNDS[inner.name], dtype=torch.float64)
    mapped = MAPS[ending.name](ends)
    return mapped[0].item(), mapped[1].item()


def _units(name, before):
    """The `Units` of one call, from what goes into it, [B, units, ...]."""
    values = before.movedim(1, 0).flatten(1)
    if name in SQUASHERS:
        # Inside by less than SATURATED for at least one image, or else stuck at one end.
        distance = torch.maximum(values.amin(1), -values.amax(1)) - SATURATED
        kind = "squasher"
    else:
        distance = -values.amax(1)
        kind = "rectifier"
    dead = distance >= 0
    depth = (distance / values.std(1, correction=0).clamp(min=1e-9))[dead]
    return Units(kind, dead, depth.median().item() if len(depth) else 0.0)


def _same(a, b):
    """Whether two tensors are views of one another, or equal."""
    if not isinstance(b, torch.Tensor):
        return False
    if a is b or _shares_memory(a, b):
        return True
    if a.numel() != b.numel():
        return False
    return torch.equal(a.detach().flatten().to(b.dtype), b.detach().flatten())


def _shares_memory(a, b):
    try:
        same = a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
    except (AttributeError, RuntimeError):
        return False
    return same and a.numel() >= b.numel()
