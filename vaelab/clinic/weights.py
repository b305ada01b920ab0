"""Whether weights are still as they were drawn, before any training.

A drawn weight is uniform, normal or orthogonal, and a drawn bias is constant or uniform. Training
moves weights by about the learning rate a step, which blurs the ends of a uniform distribution and
spreads a bias that was constant.
"""

import math
from dataclasses import dataclass

import torch
from scipy import stats
from torch import nn

LEAST = 32  # values below which a distribution tells nothing
LEAST_CONSTANT = 8  # values below which being equal tells nothing
HARDLY = 0.005  # a bias that spreads less has hardly moved
MOST = 5_000  # values that are compared with a distribution
MOST_PRODUCTS = 100_000  # values of a matrix whose rows are multiplied with each other
CRITICAL = 1.95  # over sqrt(n): a Kolmogorov-Smirnov distance beyond it has a chance of 0.1%
SLACK = 0.004
BEYOND = 1.05  # training moves the largest weight of a layer further than this
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


@dataclass(frozen=True)
class Drawn:
    """Which parts of a model look as they were drawn; a part that cannot be judged does not."""

    encoder: bool
    decoder: bool

    @property
    def everything(self):
        return self.encoder and self.decoder


def drawn_parts(model, wiring):
    """`Drawn` of a model, whose parts are named by `Wiring`."""
    verdicts = dict(_verdicts(model))
    parameters = dict(model.named_parameters())
    return Drawn(
        _drawn(verdicts, {name: parameters[name] for name in wiring.encoder}),
        _drawn(verdicts, {name: parameters[name] for name in wiring.decoder}),
    )


def _drawn(verdicts, parameters):
    """Whether nothing speaks against it, and most weights or all biases look drawn."""
    if any(verdicts[name] is False for name in parameters):
        return False
    drawn = [p for name, p in parameters.items() if verdicts[name]]
    weights = sum(p.numel() for p in drawn if p.dim() > 1)
    of_weights = sum(p.numel() for p in parameters.values() if p.dim() > 1)
    biases = sum(p.numel() for p in drawn if p.dim() == 1)
    of_biases = sum(p.numel() for p in parameters.values() if p.dim() == 1)
    return weights > 0.5 * of_weights or LEAST <= biases == of_biases


def _verdicts(model):
    """(name, drawn) of each parameter; drawn is None where it tells nothing."""
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            values = parameter.detach().cpu()
            yield f"{prefix}.{name}".lstrip("."), _verdict(values, name, module)


def _verdict(values, name, module):
    spread = (values.max() - values.min()).item() if values.numel() else 0.0
    if spread < HARDLY and values.numel() >= LEAST_CONSTANT:
        return True if spread == 0 else None
    if isinstance(module, NORMS):
        return None if name == "weight" else False
    if values.numel() < LEAST or values.min() > 0:  # few, or the norms of weight_norm
        return None
    if values.dim() < 2:
        return None if _uniform(values) else False
    return _drawn_weight(values, module)


def _drawn_weight(values, module):
    """Whether a matrix or a kernel looks uniform or orthogonal; None where it looks normal.

    Weights that were drawn from a normal distribution may stay normal in training.
    """
    largest = values.abs().max().item()
    bounds = _usual_bounds(values) if isinstance(module, LAYERS) else [largest]
    at_a_bound = any(0.9 * bound <= largest <= BEYOND * bound for bound in bounds)
    if at_a_bound and _uniform(values) or _orthogonal(values):
        return True
    some = _some(values)
    return None if _looks_like(some, stats.norm(some.mean(), some.std())) else False


def _usual_bounds(values):
    """The bounds of the uniform distributions from which the weights of a layer are drawn."""
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(values)
    squares = (1 / fan_in, 3 / fan_in, 6 / fan_in, 6 / (fan_in + fan_out))
    return [math.sqrt(square) for square in squares]


def _uniform(values):
    """Whether values look uniform between two ends that differ in sign only."""
    some, largest = _some(values), values.abs().max().item()
    return _looks_like(some, stats.uniform(-largest, 2 * largest))


def _orthogonal(values):
    """Whether the rows, or the columns, are at right angles and of one length."""
    if values.numel() > MOST_PRODUCTS:
        return False
    matrix = values.flatten(1).double()
    if len(matrix) > matrix.shape[1]:
        matrix = matrix.T
    if len(matrix) < 2:
        return False
    products = matrix @ matrix.T
    length = products.diagonal().mean()
    off = products - length * torch.eye(len(matrix), dtype=products.dtype)
    return bool(off.abs().max() < 1e-3 * length)


def _some(values):
    """At most `MOST` of the values, as a flat numpy array."""
    flat = values.flatten()
    return flat[:: math.ceil(len(flat) / MOST)].double().numpy()


def _looks_like(values, distribution):
    """Whether values could be draws of a distribution, by the largest distance of the two."""
    # Exact p-values would take most of the time, and only the distance is looked at.
    distance = stats.kstest(values, distribution.cdf, method="asymp").statistic
    return bool(distance < CRITICAL / math.sqrt(len(values)) + SLACK)
