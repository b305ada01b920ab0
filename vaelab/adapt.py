"""The one door for any model: how it is called, what it returns, and what to write if that fails.

Every measurement takes any `nn.Module` that returns `(reconstruction, mu, logvar)`. A model that
returns something else needs an `adapter`, and one that needs labels as well gets them as `inputs`.
"""

import contextlib
import inspect
from typing import NamedTuple

import numpy as np
import torch

from .outputs import fits, read
from .untouched import evaluating, measuring

__all__ = [
    "Outputs",
    "call",
    "check_images",
    "evaluating",
    "measuring",
    "pieces",
    "sliced",
    "unwrap",
    "wanted",
]

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

NO_FORWARD = 'missing the required "forward"'  # in the error of torch
BY_HAND = """Let forward end with

    return reconstruction, mu, logvar

or pass adapter=adapter, with your own names in place of encode and decode:

    def adapter(model, x):
        mu, logvar = model.encode(x)
        z = mu + torch.exp(logvar / 2) * torch.randn_like(mu)
        return model.decode(z), mu, logvar"""


class Outputs(NamedTuple):
    """reconstruction shaped like x, mu and logvar [B, L]; logvar is None for an autoencoder.

    For tokens [B, T] the reconstruction has a value for each class, such as [B, T, V].
    """

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

    x is given in the model's own number type (tokens as they are), and as [B, D] if the model wants
    it flat. adapter: from what the model returns to (reconstruction, mu, logvar), or a function of
    (model, x, ...) that gives the same. inputs: a tensor, a tuple (after x) or a dict (by name).
    reshape: whether a reconstruction of x's size gets x's shape. Half-precision outputs come back
    as float32.
    Raises ValueError, with the adapter to write, if the three tensors do not come back.
    """
    model = unwrap(model)
    outputs = forward(model, x, adapter, inputs)
    if not are_three(outputs, x, model):
        raise ValueError(what_is_missing(model, x, adapter, inputs, outputs))
    outputs = Outputs(*map(_at_least_single, outputs))
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
        raise ValueError(_refusal(error, model, x, adapter, inputs)) from error


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
        yield x[rows], sliced(inputs, rows)


def check_images(model, x):
    """Raise ValueError for a model or an x that no measurement can use."""
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(x, torch.Tensor):
        raise ValueError(f"x must be a float tensor [N, ...], got {type(x).__name__}")
    tokens = x.dtype == torch.int64 and x.dim() == 2
    if not (x.is_floating_point() or tokens) or x.dim() < 2 or len(x) == 0:
        raise ValueError(
            "x must be a float tensor [N, ...] with at least one image, or int64 tokens [N, T], "
            f"got {x.dtype} {list(x.shape)}{'' if x.is_floating_point() else ': try x.float()'}"
        )
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
    required = [p for p in parameters if p.default is p.empty and p.kind in POSITIONAL]
    return len(required) >= 2


def _outputs_of(model, x, adapter, inputs):
    """What the model, or the adapter, returns for a copy of x."""
    x = x.detach().to(dtype_for(model, x), copy=True)
    others, named = as_arguments(inputs)
    if adapter is None:
        return model(x, *others, **named)
    if takes_model(adapter):
        return adapter(model, x, *others, **named)
    return adapter(model(x, *others, **named))


def dtype_for(model, x):
    """The number type of the model's parameters, if it is one, else that of x, as for tokens."""
    dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return dtypes.pop() if len(dtypes) == 1 and x.is_floating_point() else x.dtype


def as_arguments(inputs):
    """(positional, by name): how the inputs are given to a function after x."""
    if isinstance(inputs, dict):
        return [], inputs
    return [value for _, value in _named(inputs)], {}


def _named(inputs):
    """The inputs as pairs of a name for messages and a value."""
    if inputs is None:
        return []
    if isinstance(inputs, dict):
        return [(f"inputs[{name!r}]", value) for name, value in inputs.items()]
    if isinstance(inputs, (tuple, list)):
        return [(f"inputs[{i}]", value) for i, value in enumerate(inputs)]
    return [("inputs", inputs)]


def sliced(inputs, rows):
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


def are_three(outputs, x, model):
    """Whether these are (reconstruction, mu, logvar) for x; logvar may be None."""
    three = isinstance(outputs, (tuple, list)) and len(outputs) == 3
    if not three or not all(v is None or isinstance(v, torch.Tensor) for v in outputs):
        return False
    reconstruction, mu, logvar = outputs
    if not (_has_a_row_for_each(reconstruction, x) and _has_a_row_for_each(mu, x)):
        return False
    heads = {1, 2, getattr(getattr(model, "likelihood", None), "outputs_per_value", 1)}
    sizes = {head * x[0].numel() for head in heads}
    picture_fits = fits(reconstruction, x) or reconstruction[0].numel() in sizes
    return picture_fits and (logvar is None or logvar.shape == mu.shape)


def what_is_missing(model, x, adapter, inputs, outputs):
    """The text of an error about outputs that are not the three tensors, with the line to write."""
    who = "adapter" if adapter else "model(x)"
    text = (
        f"{who} must return (reconstruction, mu, logvar): x's shape {list(x.shape)} "
        f"and two of shape [{len(x)}, L]; it returned {_describe(outputs)}"
    )
    reading = None
    if not takes_model(adapter):
        plain, again = (forward(model, x, None, inputs) for _ in range(2))
        reading = read(plain, again, x, guess=True)
    if reading is None:
        return f"{text}. {BY_HAND}"
    advice = "Say where they are"
    if reading.posterior.kind is None or not reading.posterior.spread.name:
        advice += ", with 2 * std.log() for a standard deviation and variance.log() for a variance"
    return f"{text}. {advice}:\n    adapter={reading}"


def _has_a_row_for_each(tensor, x):
    return tensor is not None and tensor.dim() >= 2 and len(tensor) == len(x)


def _at_least_single(tensor):
    """Half precision as float32: a sum over pixels needs more digits than it has."""
    small = tensor is not None and tensor.dtype in (torch.float16, torch.bfloat16)
    return tensor.float() if small else tensor


def _refusal(error, model, x, adapter, inputs):
    """What to say when the model raised on x."""
    if isinstance(error, NotImplementedError) and NO_FORWARD in str(error) and adapter is None:
        return f"model(x) is not implemented, so it cannot be measured. {BY_HAND}"
    lines = str(error).strip().splitlines() or [""]
    who = "the adapter on model(x)" if adapter else "model(x)"
    text = (
        f"{who} raised {type(error).__name__} for x of shape {list(x.shape)}: {lines[0][:200]}. "
        "x must have the shape that the model is trained on."
    )
    missing = missing_inputs(model) if inputs is None else []
    if missing:
        names = ", ".join(missing)
        given = names if len(missing) == 1 else f"({names})"
        text += (
            f" The model's forward also asks for {names}. Pass labels or other tensors, with one "
            f"row for each image, as inputs=labels. Here that is:\n    inputs={given}"
        )
    elif not x.is_floating_point():
        text += " x holds whole numbers. Give x.float() if they are not tokens."
    return text


def missing_inputs(model):
    """The names of what the model's forward needs after x."""
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.default is p.empty and p.kind in POSITIONAL][1:]


def _describe(outputs):
    """What came back, in a few words."""
    if isinstance(outputs, torch.Tensor):
        number = ", a single number such as a loss" if outputs.numel() == 1 else ""
        return f"one tensor {list(outputs.shape)}{number}"
    if isinstance(outputs, dict):
        shapes = ", ".join(f"{key!r} {_shape(value)}" for key, value in outputs.items())
        return f"a dictionary with {shapes}"
    if isinstance(outputs, (tuple, list)):
        return f"{len(outputs)} values: " + ", ".join(map(_shape, outputs))
    return f"a {type(outputs).__name__}"


def _shape(value):
    return str(list(value.shape)) if isinstance(value, torch.Tensor) else type(value).__name__
