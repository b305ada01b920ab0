"""The one door for any model: how it is called, what it returns, and what to write if that fails.

Every measurement takes any `nn.Module` that returns `(reconstruction, mu, logvar)`. A model that
returns something else needs an `adapter`, and one that needs labels as well gets them as `inputs`.
"""

import contextlib
import inspect
from typing import NamedTuple

import numpy as np
import torch

from .untouched import evaluating, measuring

__all__ = [
    "Outputs",
    "call",
    "check_images",
    "evaluating",
    "measuring",
    "pieces",
    "unwrap",
    "wanted",
]


class Outputs(NamedTuple):
    """reconstruction shaped like x, mu and logvar [B, L]; logvar is None for an autoencoder."""

    reconstruction: torch.Tensor
    mu: torch.Tensor
    logvar: torch.Tensor


def unwrap(model):
    """The module inside `torch.compile`, `DataParallel` and `DistributedDataParallel`."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
            inner = model.module
        if inner is None:
            return model
        model = inner


def call(model, x, adapter=None, inputs=None, reshape=True):
    """`Outputs` of the model on a copy of x [B, ...], in the mode that the model is in.

    x is given in the model's own number type, and as [B, D] if the model wants it flat. adapter:
    from what the model returns to (reconstruction, mu, logvar), or (model, x, ...) -> the same.
    inputs: a tensor, a tuple (after x) or a dict (by name). reshape: whether a reconstruction of
    x's size gets x's shape. Half-precision outputs come back as float32.
    Raises ValueError, with the adapter to write, if the three tensors do not come back.
    """
    model = unwrap(model)
    outputs = forward(model, x, adapter, inputs)
    outputs = _checked(outputs, x, adapter, model)
    if reshape and outputs.reconstruction.numel() == x.numel():
        return outputs._replace(reconstruction=outputs.reconstruction.reshape(x.shape))
    return outputs


def forward(model, x, adapter=None, inputs=None):
    """Whatever the model (or the adapter) returns for a copy of x; errors as in `call`."""
    check_images(model, x)
    try:
        return _outputs_of(model, x, adapter, inputs)
    except Exception as error:
        if x.dim() > 2:
            with contextlib.suppress(Exception):
                return _outputs_of(model, x.flatten(1), adapter, inputs)
        raise ValueError(_refusal(error, x, adapter, inputs)) from error


def wanted(model, x, adapter=None, inputs=None):
    """x as the model wants it: as it is, or flat, [N, D]."""
    first_x, first_inputs = next(pieces(x, inputs, 2))
    model = unwrap(model)
    with measuring(model, adapter), torch.no_grad():
        model.eval()
        try:
            _outputs_of(model, first_x, adapter, first_inputs)
            return x
        except Exception:
            try:
                _outputs_of(model, first_x.flatten(1), adapter, first_inputs)
                return x.flatten(1)
            except Exception:  # `call` says what is wrong
                return x


def pieces(x, inputs=None, batch_size=1000):
    """(x, inputs) in pieces of at most `batch_size` images.

    Raises ValueError if an input does not have one row for each image.
    """
    for name, value in _named(inputs):
        if _has_rows(value) and (value.ndim == 0 or len(value) != len(x)):
            got = f"shape {list(value.shape)}"
            raise ValueError(f"{name} must have one row for each of {len(x)} images, got {got}")
    for start in range(0, len(x), batch_size):
        rows = slice(start, start + batch_size)
        yield x[rows], _sliced(inputs, rows)


def check_images(model, x):
    """Raise ValueError for a model or an x that no measurement can use."""
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(x, torch.Tensor) or not x.is_floating_point() or x.dim() < 2 or len(x) == 0:
        got = f"{x.dtype} {list(x.shape)}" if isinstance(x, torch.Tensor) else type(x).__name__
        raise ValueError(f"x must be a float tensor [N, ...] with at least one image, got {got}")
    parameters = list(model.parameters())
    if any(isinstance(p, torch.nn.parameter.UninitializedParameter) for p in parameters):
        raise ValueError(
            "the model has lazy layers without sizes yet: call model(x[:2]) once first"
        )
    devices = {p.device for p in parameters}
    if devices and x.device not in devices:
        other = next(iter(devices))
        raise ValueError(f"x is on {x.device}, the model on {other}: move one with .to(...)")


def takes_model(adapter):
    """Whether an adapter is written as (model, x, ...), not as one argument: what came back."""
    try:
        parameters = inspect.signature(adapter).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [p for p in parameters if p.default is p.empty and p.kind in positional]
    return len(required) >= 2


def _outputs_of(model, x, adapter, inputs):
    """What the model, or the adapter, returns for a copy of x."""
    x = x.detach().to(_dtype(model, x), copy=True)
    named = inputs if isinstance(inputs, dict) else {}
    others = [] if isinstance(inputs, dict) else [value for _, value in _named(inputs)]
    if adapter is None:
        return model(x, *others, **named)
    if takes_model(adapter):
        return adapter(model, x, *others, **named)
    return adapter(model(x, *others, **named))


def _dtype(model, x):
    """The number type of the model's parameters, if it is one, else that of x."""
    dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return dtypes.pop() if len(dtypes) == 1 else x.dtype


def _named(inputs):
    """The inputs as pairs of a name for messages and a value."""
    if inputs is None:
        return []
    if isinstance(inputs, dict):
        return [(f"inputs[{name!r}]", value) for name, value in inputs.items()]
    if isinstance(inputs, (tuple, list)):
        return [(f"inputs[{i}]", value) for i, value in enumerate(inputs)]
    return [("inputs", inputs)]


def _sliced(inputs, rows):
    """The same rows of every tensor among the inputs; copies, so that a model may work in place."""

    def part(value):
        if not _has_rows(value):
            return value
        return value[rows].clone() if isinstance(value, torch.Tensor) else value[rows].copy()

    if isinstance(inputs, dict):
        return {name: part(value) for name, value in inputs.items()}
    if inputs is None:
        return None
    return tuple(part(value) for _, value in _named(inputs))


def _has_rows(value):
    return isinstance(value, (torch.Tensor, np.ndarray))


# ---- what came back, and the adapter to write if it is not what a measurement needs


def _checked(outputs, x, adapter, model):
    """The three tensors as `Outputs`, if that is what came back."""
    who = "adapter" if adapter else "model(x)"
    want = (
        f"{who} must return (reconstruction, mu, logvar): x's shape {list(x.shape)} "
        f"and two of shape [{len(x)}, L]; it returned {_describe(outputs)}"
    )
    three = isinstance(outputs, (tuple, list)) and len(outputs) == 3
    if not three or not all(v is None or isinstance(v, torch.Tensor) for v in outputs):
        raise ValueError(f"{want}. {_suggest(outputs, x)}")
    reconstruction, mu, logvar = outputs
    heads = {1, 2, getattr(getattr(model, "likelihood", None), "outputs_per_value", 1)}
    sizes = {head * x[0].numel() for head in heads}
    picture_fits = _has_a_row_for_each(reconstruction, x) and reconstruction[0].numel() in sizes
    codes_fit = _has_a_row_for_each(mu, x) and (logvar is None or logvar.shape == mu.shape)
    if not picture_fits or not codes_fit:
        raise ValueError(f"{want}. {_suggest(outputs, x)}")
    return Outputs(*(_at_least_single(tensor) for tensor in outputs))


def _has_a_row_for_each(tensor, x):
    return tensor is not None and tensor.dim() >= 2 and len(tensor) == len(x)


def _at_least_single(tensor):
    """Half precision as float32: a sum over pixels needs more digits than it has."""
    small = tensor is not None and tensor.dtype in (torch.float16, torch.bfloat16)
    return tensor.float() if small else tensor


def _refusal(error, x, adapter, inputs):
    """What to say when the model raised on x."""
    lines = str(error).strip().splitlines() or [""]
    who = "the adapter on model(x)" if adapter else "model(x)"
    text = (
        f"{who} raised {type(error).__name__} for x of shape {list(x.shape)}: {lines[0][:200]}. "
        "x must have the shape that the model is trained on."
    )
    if "positional argument" in lines[0] and inputs is None:
        text += " If the model takes labels or other tensors too, pass them as inputs=labels."
    return text


def _describe(outputs):
    """What came back, in a few words."""
    if isinstance(outputs, torch.Tensor):
        return f"one tensor {list(outputs.shape)}"
    if isinstance(outputs, dict):
        shapes = ", ".join(f"{key!r} {_shape(value)}" for key, value in outputs.items())
        return f"a dictionary with {shapes}"
    if isinstance(outputs, (tuple, list)):
        return f"{len(outputs)} values: " + ", ".join(map(_shape, outputs))
    return f"a {type(outputs).__name__}"


def _shape(value):
    return str(list(value.shape)) if isinstance(value, torch.Tensor) else type(value).__name__


def _suggest(outputs, x):
    """The adapter that would probably do, written out; names and shapes are the evidence."""
    items, access = _items(outputs)
    tensors = {}
    for key, value in items:
        if isinstance(value, torch.Tensor) and value.dim() >= 2 and len(value) == len(x):
            tensors[key] = value
    pictures = [key for key, value in tensors.items() if _is_picture(value, x)]
    codes = [key for key, value in tensors.items() if value[0].numel() != x[0].numel()]
    named = [key for key in codes if isinstance(key, str) and key.lower() != "z"]
    codes = sorted(named, key=_is_spread) if named else codes
    reconstruction, mu, logvar = "out[0]", "out[1]", "out[2]"
    if pictures and len(codes) >= 2:
        reconstruction = access.format(pictures[0])
        mu, logvar = access.format(codes[0]), _as_logvar(access.format(codes[1]), codes[1])
    return (
        f"Say where they are: adapter=lambda out: ({reconstruction}, {mu}, {logvar}), "
        "with 2 * std.log() for a standard deviation and variance.log() for a variance"
    )


def _items(outputs):
    """What came back as (key, value) pairs, and how one of them is written."""
    if isinstance(outputs, dict):
        return list(outputs.items()), "out[{!r}]"
    if isinstance(outputs, (tuple, list)):
        return list(enumerate(outputs)), "out[{!r}]"
    return list(getattr(outputs, "__dict__", {}).items()), "out.{}"


def _is_picture(value, x):
    """Whether a tensor has the size of x and is not x itself, handed through."""
    same_size = value[0].numel() == x[0].numel()
    return same_size and not torch.equal(value.reshape(x.shape), x.to(value.dtype))


def _is_spread(key):
    return any(word in key.lower() for word in ("var", "sig", "std", "scale"))


def _as_logvar(expression, key):
    """The expression of a log-variance, judged by the name of what came back."""
    name = str(key).lower()
    if "log" in name:
        return expression
    if any(word in name for word in ("std", "sig", "scale")):
        return f"2 * {expression}.log()"
    return f"{expression}.log()" if "var" in name else expression
