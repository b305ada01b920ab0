"""What a bounded output layer does: where its inputs lie, and what share of the gradient passes."""

import contextlib
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from .adapt import forward, measuring, unwrap
from .diagnostics import likelihood_of

BOUNDED = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hardtanh": F.hardtanh,
    "hardsigmoid": F.hardsigmoid,
}


@dataclass
class Saturation:
    """A bounded output layer on one batch, averaged over its values.

    preactivation: what goes into the activation. output: what comes out. saturated: share of
    outputs within `margin` of a bound. slope: share of the gradient that passes, the activation's
    slope over its largest. gradient: mean |dloss / dpreactivation|, NaN without a backward pass.
    share: of the values that were selected.
    """

    preactivation: float
    output: float
    saturated: float
    slope: float
    gradient: float = math.nan
    share: float = 1.0


def saturation(model, x, *, adapter=None, inputs=None, **options):
    """`Saturation` of a bounded output layer on one batch x [B, ...], in the model's own mode.

    Options as in `watch_saturation`. The model is as before afterwards. Thread 000: a sigmoid whose
    inputs are far below zero passes no gradient, and squared error cannot bring its pixels back.
    """
    model = unwrap(model)
    with measuring(model, adapter, seed=0), torch.no_grad():
        with watch_saturation(model, every_mode=True, **options) as rows:
            forward(model, x, adapter, inputs)
    if not rows:
        raise ValueError(
            "the layer was not used, or the adapter does not call model(x): name a layer"
        )
    return rows[-1]


@contextlib.contextmanager
def watch_saturation(
    model, layer=None, activation=None, select=None, margin=0.01, every_mode=False
):
    """A list that gets one `Saturation` a training step: `with watch_saturation(model) as rows:`.

    Without `layer`: a vaelab model's likelihood, else the last bounded activation of the forward
    pass, a module or a function. layer: a module whose output goes into `activation` ("sigmoid",
    "tanh"). select: from the model's input x to a mask that fits the output, for some values only.
    every_mode: record in evaluation mode as well. Hooks do the work and are removed after the
    block. An output without bounds has saturated 0 and slope 1.
    Raises ValueError for an unknown activation, or a forward pass without a bounded output.
    """
    watcher = _Watcher(unwrap(model), activation, select, margin, every_mode)
    hooks = watcher.hook(layer)
    try:
        yield watcher.rows
    finally:
        for hook in hooks:
            hook.remove()


class _LastActivation(TorchFunctionMode):
    """While active, remembers the last bounded activation: its name and what went in."""

    name = preactivation = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        plain = name.removesuffix("_")
        if plain in BOUNDED and args:
            self.name, self.preactivation = plain, args[0]
            if plain != name or (kwargs or {}).get("inplace"):
                # It is about to be overwritten: the graph goes on from a copy of it.
                args = (args[0].clone(), *args[1:])
        return func(*args, **(kwargs or {}))


class _Watcher:
    """Hooks that measure the output layer at each forward pass of a model."""

    def __init__(self, model, activation, select, margin, every_mode):
        if activation is not None and activation not in BOUNDED:
            raise ValueError(f"activation must be one of {list(BOUNDED)}, got {activation!r}")
        self.model, self.activation, self.select = model, activation, select
        self.margin, self.every_mode = margin, every_mode
        self.rows, self.x, self.listening = [], None, None

    def hook(self, layer):
        """Register the hooks and return their handles."""
        likelihood = likelihood_of(self.model)
        hooks = [self.model.register_forward_pre_hook(self.remember_input)]
        if layer is not None:
            if self.activation is None and not isinstance(layer, (torch.nn.Sigmoid, torch.nn.Tanh)):
                names = list(BOUNDED)
                raise ValueError(f"activation must be one of {names} for this layer, got None")
            hooks.append(layer.register_forward_hook(self.measure_layer))
        elif likelihood is not None and getattr(likelihood, "on", "logits") == "logits":
            hooks.append(self.model.register_forward_hook(self.measure_likelihood))
        else:
            hooks.append(self.model.register_forward_pre_hook(self.begin_listening))
            # Also when the forward pass raises, or the mode would stay.
            hooks.append(self.model.register_forward_hook(self.measure_last, always_call=True))
        return hooks

    def remember_input(self, model, inputs):
        self.x = inputs[0]

    def measure_likelihood(self, model, inputs, outputs):
        likelihood = model.likelihood
        if likelihood.outputs_per_value == 1:
            self.add_row(outputs[0], likelihood.mean)
        else:  # several numbers for each value: their mean has no single activation
            self.add_row(likelihood.mean(outputs[0]), torch.Tensor.clone)

    def measure_layer(self, layer, inputs, output):
        if self.activation is None:
            self.add_row(inputs[0], layer.forward)
        else:
            self.add_row(output, BOUNDED[self.activation])

    def begin_listening(self, model, inputs):
        self.listening = _LastActivation()
        self.listening.__enter__()

    def measure_last(self, model, inputs, outputs):
        self.listening.__exit__(None, None, None)
        if outputs is None:  # the forward pass raised
            return
        if self.listening.name is None:
            raise ValueError(
                "the forward pass has no sigmoid or tanh: name the module before the activation, "
                'layer=model.decoder, activation="sigmoid"'
            )
        self.add_row(self.listening.preactivation, BOUNDED[self.listening.name])

    def add_row(self, values, function):
        """Measure the activation's inputs, and their gradient when it comes."""
        if not (self.model.training or self.every_mode):
            return
        if self.select is None:
            chosen = torch.ones_like(values, dtype=torch.bool)
        else:
            chosen = self.select(self.x).expand_as(values)
        row = _measure(values.detach()[chosen], function, self.margin)
        row.share = chosen.float().mean().item()
        self.rows.append(row)
        if values.requires_grad:

            def keep_gradient(gradient):
                row.gradient = gradient[chosen].abs().mean().item()

            values.register_hook(keep_gradient)


def _measure(values, function, margin):
    """Saturation of an activation function at these inputs."""
    with torch.enable_grad():
        values = values.float().clone().requires_grad_()
        output = function(values)
        (slope,) = torch.autograd.grad(output.sum(), values)
        ends = values.new_tensor([-1e6, 0.0, 1e6]).requires_grad_()
        (steepest,) = torch.autograd.grad(function(ends).sum(), ends)
    low, _, high = function(ends).tolist()
    if high - low > 1e3:
        return Saturation(values.mean().item(), output.mean().item(), 0.0, 1.0)
    near = margin * (high - low)
    flat = (output < low + near) | (output > high - near)
    passes = slope.mean() / steepest[1]
    return Saturation(
        values.mean().item(), output.mean().item(), flat.float().mean().item(), passes.item()
    )
