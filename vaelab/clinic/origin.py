"""Where the first value that is not finite comes from: a training pass is run once more."""

import contextlib
import functools
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from ..adapt import unwrap
from ..untouched import measuring

# Attention masks with -inf on purpose: these are no errors.
ON_PURPOSE = ("masked_fill", "full", "full_like", "where")
PLAIN = {"truediv": "div", "rtruediv": "div", "divide": "div", "rpow": "pow"}


class Origin(NamedTuple):
    """Where a value stopped being finite.

    layer: its name in the model, "" for the model's own forward. operation: the name of the torch
    function. given: the range of what went in, as text. after: the last layer that had ended.
    """

    layer: str
    operation: str
    given: str
    after: str

    def __str__(self):
        place = f"the layer {self.layer}" if self.layer else "the model's own forward"
        after = f", after the layer {self.after}" if self.after and not self.layer else ""
        return f"{self.operation} in {place}{after}, which got {self.given}"


@dataclass
class Pass:
    """One forward in training, and what it takes to run it again.

    number: of the batch, from 1. args, kwargs: what the model got, not copied. outputs: name ->
    what it returned. gradients: name of an output -> the gradient that the loss sent into it, once
    backward has run.
    """

    number: int
    args: tuple
    kwargs: dict
    random: list
    autocast: tuple
    outputs: dict = field(default_factory=dict)
    gradients: dict = field(default_factory=dict)

    @classmethod
    def begin(cls, number, model, args, kwargs):
        """A pass that is about to run, with the random states as they are."""
        device = next((p.device.type for p in model.parameters()), "cpu")
        random = [torch.get_rng_state()]
        if torch.cuda.is_initialized():
            random += torch.cuda.get_rng_state_all()
        autocast = (
            device,
            torch.get_autocast_dtype(device),
            torch.is_autocast_enabled(device),
        )
        return cls(number, args, kwargs, random, autocast)

    @property
    def tensors(self):
        """The float tensors that the model got."""
        return floats([*self.args, *self.kwargs.values()])

    @property
    def x_and_inputs(self):
        """(x, None, the other inputs), as `find_door` takes them after the model."""
        others = self.args[1:] or None
        named = dict(self.kwargs)
        x = self.args[0] if self.args else named.pop(next(iter(named)))
        return x, None, others or named or None

    def follow(self, named):
        """Keep the outputs, name -> tensor, and the gradient that will arrive at each."""
        for name, tensor in named.items():
            self.outputs[name] = tensor.detach()
            if tensor.requires_grad:
                tensor.register_hook(functools.partial(self._keep, name))

    def _keep(self, name, gradient):
        self.gradients[name] = gradient.detach()

    @contextlib.contextmanager
    def again(self, model):
        """In the block the model runs as it did in this pass; afterwards all is as before."""
        device, dtype, enabled = self.autocast
        with (
            measuring(model),
            torch.enable_grad(),
            torch.autocast(device, dtype=dtype, enabled=enabled),
        ):
            cpu, *others = self.random
            torch.set_rng_state(cpu)
            if others:
                torch.cuda.set_rng_state_all(others)
            yield

    def run(self, model):
        """What the model returns; its own hooks do not see this call."""
        return model.forward(*self.args, **self.kwargs)


class Call(NamedTuple):
    """One call of a torch function in a pass."""

    origin: Origin
    inputs: list
    outputs: list
    good_before: bool
    good_after: bool


class Trace(TorchFunctionMode):
    """While active, keeps the calls of torch functions, and the layer that each belongs to.

    gradients: whether to keep in `arrived`, in backward order, each tensor whose gradient came.
    """

    def __init__(self, model, gradients=False):
        super().__init__()
        self.calls, self.arrived = [], []
        self._gradients, self._known = gradients, set()
        self._inside, self._after = [""], ""
        self._names = {module: name for name, module in model.named_modules() if name}
        self._handles = []

    def __enter__(self):
        for module in self._names:
            self._handles.append(module.register_forward_pre_hook(self._enter))
            self._handles.append(module.register_forward_hook(self._leave))
        return super().__enter__()

    def __exit__(self, *error):
        for handle in self._handles:
            handle.remove()
        return super().__exit__(*error)

    def _enter(self, module, args):
        self._inside.append(self._names[module])

    def _leave(self, module, args, output):
        self._after = self._inside.pop()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        inputs = floats([*args, *kwargs.values()])
        # Now, since the function may work in place.
        good_before, given = finite(inputs), " and ".join(map(span, inputs))
        output = func(*args, **kwargs)
        outputs = floats([output])
        if inputs and outputs:
            name = getattr(func, "__name__", str(func)).strip("_")
            origin = Origin(self._inside[-1], PLAIN.get(name, name), given, self._after)
            self.calls.append(Call(origin, inputs, outputs, good_before, finite(outputs)))
            if self._gradients:
                self._follow([*inputs, *outputs])
        return output

    def _follow(self, tensors):
        for tensor in tensors:
            if tensor.requires_grad and id(tensor) not in self._known:
                self._known.add(id(tensor))
                keep = _keeper(self.arrived, tensor)
                self._handles.append(tensor.register_hook(keep))


def _keeper(arrived, tensor):
    return lambda gradient: arrived.append((tensor, finite([gradient])))


def forward_origin(model, one):
    """The `Origin` of the first value that is not finite in a pass, or None."""
    model = unwrap(model)
    with one.again(model), torch.no_grad(), Trace(model) as trace:
        one.run(model)
    for call in trace.calls:
        wanted = call.origin.operation in ON_PURPOSE
        if call.good_before and not call.good_after and not wanted:
            return call.origin
    return None


def backward_origin(model, one, names, outputs_of):
    """The `Origin` in the backward of a pass: where the first gradient is made that is not finite.

    names: of the outputs whose gradients are sent back. outputs_of: from what the model returns to
    {name: output}. None if all gradients are finite.
    """
    model = unwrap(model)
    with one.again(model), Trace(model, gradients=True) as trace:
        outputs = outputs_of(one.run(model))
        chosen = [outputs[name] for name in names]
        sent = [one.gradients[name] for name in names]
        parameters = [p for p in model.parameters() if p.requires_grad]
        torch.autograd.grad(chosen, parameters, sent, allow_unused=True)
    good = {id(tensor) for tensor, is_finite in trace.arrived if is_finite}
    for bad in [tensor for tensor, is_finite in trace.arrived if not is_finite]:
        for call in trace.calls:
            used = any(bad is tensor for tensor in call.inputs)
            if used and all(id(tensor) in good for tensor in call.outputs):
                return call.origin
    return None


def bad_weights(model):
    """The names of the parameters that are not finite."""
    return [name for name, parameter in model.named_parameters() if not finite([parameter])]


def bad_gradients(model):
    """The names of the parameters whose gradients are not finite, in the model's order."""
    named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    return [name for name, gradient in named if not finite([gradient])]


def floats(things):
    """The float tensors among things, and in lists, tuples and dictionaries among them."""
    found = []
    for thing in things:
        if isinstance(thing, torch.Tensor) and thing.is_floating_point():
            found.append(thing)
        elif isinstance(thing, (list, tuple)):
            found += floats(thing)
        elif isinstance(thing, dict):
            found += floats(thing.values())
    return found


def finite(tensors):
    """Whether all values of all tensors are finite."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in floats(tensors))


def span(tensor):
    """The range of a tensor's values, as text; NaN is counted apart."""
    values = tensor.detach().float()
    known = values[~values.isnan()]
    if len(known) == 0:
        return "only NaN"
    low, high = known.min().item(), known.max().item()
    text = f"[{low:.4g}, {high:.4g}]" if low < high else f"{low:.4g} everywhere"
    missing = values.numel() - known.numel()
    return f"{text} and NaN" if missing else text
