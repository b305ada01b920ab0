"""Watch a model's activations, its rectifiers and its noise while it runs, without changing it."""

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
CLAMPS = ("clamp", "clip")
UNBOUNDED = ("elu", "gelu", "silu", "mish", "leaky_relu", *CLAMPS)
RECTIFIERS = ("relu", "relu6", "threshold")
NOISE = ("randn_like", "randn", "normal", "normal_")


class Activation(NamedTuple):
    """One call: the function's name, what went in (None if that is not known), what came out."""

    name: str | None = None
    before: torch.Tensor | None = None
    after: torch.Tensor | None = None


class Rectifier(NamedTuple):
    """dead: which units (dimension 1) are zero for every image. depth: how far below zero they are.

    The depth is the dead units' median of the highest input, in standard deviations of that input.
    """

    dead: torch.Tensor
    depth: float

    @property
    def share(self):
        return self.dead.float().mean().item()


class Watch(TorchFunctionMode):
    """While active, keeps activations, rectifiers, and Gaussian noise.

    differentiate_noise: the noise gets gradients, so that its scale can be read from them.
    """

    def __init__(self, differentiate_noise=False):
        super().__init__()
        self.activations, self.rectifiers, self.noise = [], [], []
        self.differentiate_noise = differentiate_noise

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        plain = name.removesuffix("_")
        if plain in RECTIFIERS:
            with contextlib.suppress(Exception):  # watching must never stop the model
                self.rectifiers.append(_rectifier(args[0].detach()))  # now: it may work in place
        output = func(*args, **(kwargs or {}))
        if not isinstance(output, torch.Tensor) or not output.is_floating_point():
            return output
        if name in NOISE:
            return self._noise(output, in_place=plain != name)
        if plain in BOUNDS or plain in UNBOUNDED:
            self.activations.append(Activation(plain, args[0] if args else None, output))
        return output

    def _noise(self, output, in_place):
        """Keep the noise, and hand it to the model as something that it may work on in place."""
        self.noise.append(output)
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


class Linearised(TorchFunctionMode):
    """While active, rectifiers let everything pass: what a network says without its dead units."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "").removesuffix("_") in RECTIFIERS:
            return args[0]
        return func(*args, **(kwargs or {}))


def _rectifier(before):
    """The `Rectifier` of one call, from what goes into it, [B, units, ...]."""
    units = before.movedim(1, 0).flatten(1)
    highest = units.amax(1)
    dead = highest <= 0
    below = (-highest / units.std(1, correction=0).clamp(min=1e-9))[dead]
    return Rectifier(dead, below.median().item() if len(below) else 0.0)


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
