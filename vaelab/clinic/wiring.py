"""How a model is wired: which rows, which layers and which inputs its outputs depend on.

The codes are chosen by us: where the noise of a code is known to be exp(logvar / 2) times a draw,
the draw (z - mu) / exp(logvar / 2) makes any code z. So forward itself shows what a code does, and
what reaches the output by another way.
"""

import contextlib
import itertools
from dataclasses import dataclass

import torch
from torch import nn

from ..adapt import pieces, sliced
from ..diagnostics import decoded
from .activations import Replaced
from .forms import LINKS
from .noise import RIGHT

FEW = 2  # rows of a pass with gradients: BatchNorm wants more than one
ROWS = 6  # of which one is changed at a time
TESTED_ROWS = (2, 3)  # of these; the rest must not notice
MIXED = 1e-3  # of the largest change: what another row may change by rounding
KEPT = 1e-9  # of the data's variance: what a code that is the same may change by rounding
# Layers that draw or remember in train mode: they stay in eval mode where only a draw is wanted.
RESTLESS = (
    nn.modules.batchnorm._NormBase,
    nn.modules.dropout._DropoutNd,
    nn.RNNBase,
    nn.MultiheadAttention,
)


@dataclass(frozen=True)
class Wiring:
    """What depends on what.

    rows: an output row depends on its "own" row of x, on a "moved" one, or on "mixed" ones; None
    if nothing depends on x. encoder, decoder: names of the parameters that mu and logvar depend
    on, and of those that only the reconstruction does. detached: the outputs among mu and logvar
    that carry no gradient. unfed: those whose own parameters the reconstruction does not reach.
    cut_off: layers that run first and get no gradient from any output. frozen: "encoder" or
    "decoder" if all of its parameters are frozen and others are not.
    """

    rows: str | None
    encoder: frozenset
    decoder: frozenset
    detached: tuple
    unfed: tuple
    cut_off: tuple
    frozen: str


def read_wiring(patient, x, inputs):
    """The `Wiring` of a model."""
    model = patient.model
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    rows = _rows(patient, *next(pieces(x, inputs, ROWS)))
    images, others = next(pieces(x, inputs, FEW))
    model.train()
    with _all_trainable(model), _Called(model) as called:
        outputs = patient.run(images, others)
        by_mu, by_logvar = _reached(model, outputs.mu), _reached(model, outputs.logvar)
        by_picture = _reached(model, outputs.reconstruction)
        named = {"mu": outputs.mu, "logvar": outputs.logvar}
        detached = tuple(name for name, tensor in named.items() if _carries_nothing(tensor))
    model.eval()
    by_codes = by_mu | by_logvar
    decoder = by_picture - by_codes
    return Wiring(
        rows=rows,
        encoder=by_codes,
        decoder=decoder,
        detached=detached,
        unfed=_unfed(by_mu, by_logvar, by_picture),
        cut_off=_cut_off(called.layers, by_codes | by_picture, trainable),
        frozen=_frozen({"encoder": by_codes, "decoder": decoder}, trainable),
    )


def _carries_nothing(tensor):
    """Whether a tensor has no gradient although its values are computed, not constant."""
    varies = bool((tensor != tensor.flatten()[0]).any())
    return varies and not tensor.requires_grad


def _unfed(by_mu, by_logvar, by_picture):
    """The outputs whose own parameters, or else all of whose parameters, get no gradient."""
    own = {"mu": by_mu - by_logvar or by_mu, "logvar": by_logvar - by_mu or by_logvar}
    return tuple(
        name for name, parameters in own.items() if parameters and not parameters & by_picture
    )


def _rows(patient, x, inputs):
    """Which row of x an output row depends on, seen by changing one row at a time."""
    if len(x) < ROWS:
        return None
    patient.model.eval()
    verdicts = set()
    with torch.no_grad():
        before = _seeded(patient, x, inputs)
        again = _seeded(patient, x, inputs)
        steady = [torch.equal(*pair) for pair in zip(before, again, strict=True)]
        for row in TESTED_ROWS:
            after = _changed(patient, x, inputs, row)
            # What differs by itself, through noise that no seed governs, tells nothing.
            pairs = itertools.compress(zip(before, after, strict=True), steady)
            verdicts |= _verdicts(row, pairs)
    return next((verdict for verdict in ("mixed", "moved", "own") if verdict in verdicts), None)


def _seeded(patient, x, inputs):
    torch.manual_seed(patient.seed)
    return patient.run(x, inputs)


def _changed(patient, x, inputs, row):
    """The outputs when this row of x becomes another row."""
    other = x.clone()
    other[row] = x[-1]
    return _seeded(patient, other, inputs)


def _verdicts(row, pairs):
    """For each output: the row that changed is its "own", another ("moved"), or one of several."""
    found = set()
    for old, new in pairs:
        moved = (new - old).flatten(1).abs().amax(1)
        if not moved.max() > 0:
            continue
        rows = (moved > MIXED * moved.max()).nonzero().flatten().tolist()
        if rows == [row]:
            found.add("own")
        else:
            found.add("moved" if len(rows) == 1 else "mixed")
    return found


@contextlib.contextmanager
def _all_trainable(model):
    """All parameters take gradients in the block, so that it can be seen what depends on them."""
    frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
    try:
        for parameter in frozen:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


class _Called:
    """While active, keeps the names of the parameters of each layer, in the order of calls."""

    def __init__(self, model):
        self.model, self.layers, self.hooks = model, {}, []

    def __enter__(self):
        for name, module in self.model.named_modules():
            own = [f"{name}.{key}".lstrip(".") for key, _ in module.named_parameters(recurse=False)]
            if own and name:
                self.hooks.append(module.register_forward_hook(self._keep(name, own)))
        return self

    def _keep(self, name, own):
        def hook(*_):
            self.layers.setdefault(name, own)

        return hook

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


def _reached(model, tensor):
    """Names of the parameters that a tensor depends on, by the graph alone: nothing is computed."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found, seen, waiting = set(), set(), [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if "Checkpoint" in node.name():
            raise ValueError("a checkpoint hides what its outputs depend on")
        found.add(names.get(id(getattr(node, "variable", None))))
        waiting += [following for following, _ in node.next_functions]
    return frozenset(found - {None})


def _cut_off(layers, reached, trainable):
    """The layers called before the first one that a gradient reaches, as far as they may train."""
    found = []
    for name, own in layers.items():
        if reached.intersection(own):
            break
        if trainable.intersection(own):
            found.append(name)
    return tuple(found) if reached else ()


def _frozen(parts, trainable):
    """The part whose parameters are all frozen, "" if there is none or all of the model is."""
    for name, parameters in parts.items():
        if parameters and trainable and not trainable.intersection(parameters):
            return name
    return ""


# ---- codes of our choice


@dataclass(frozen=True)
class Forced:
    """What the pictures follow when their codes are chosen; shares of the data's variance.

    around: how far pictures of other rows differ at one code and one condition. by_code: how
    far a row's picture moves with another row's code. own, swapped: the mean squared error with a
    row's own code and with another's. own_part: whether a place of the picture depends on x at
    that very place, past the code; an autoregressive decoder's does not. by_condition: as around,
    with each row's own condition. condition_moves: how far pictures move with another row's
    condition, and condition_error: their error then; None without a condition.
    condition_alone: the error of pictures that have one code and each row's own condition.
    decoded: the error of decode(z) at the codes of `own`, None where it gives no pictures.
    """

    around: float
    by_code: float
    own: float
    swapped: float
    own_part: bool | None = None
    by_condition: float = 0.0
    condition_moves: float | None = None
    condition_error: float | None = None
    condition_alone: float | None = None
    decoded: float | None = None


def force(patient, x, inputs, picture, noise, target):
    """`Forced` of a model; ValueError where its codes cannot be chosen.

    target: the rows as a picture shows them. picture: what the model shows.
    """
    right = noise.kind == "sampled" and noise.formula == RIGHT and noise.normal
    if not right or noise.number is None or noise.times > 1:
        raise ValueError("the noise is not known to be exp(logvar / 2) times a draw of its own")
    forcing = _Forcing(patient, picture, noise)
    variance = max(target.double().var(0, correction=0).mean().item(), 1e-12)
    with torch.no_grad(), _drawing(patient.model):
        return _forced(forcing, x, inputs, target, variance)


def _forced(forcing, x, inputs, target, variance):
    outputs = forcing.patient.run(x, inputs)
    mu, std = outputs.mu.flatten(1), (0.5 * outputs.logvar.flatten(1)).exp()
    z = mu + std * forcing.draws(mu)
    others = torch.arange(len(x), device="cpu").roll(1)
    one, first = z[:1].expand_as(z), torch.zeros_like(others)
    own = forcing.shown(x, inputs, z)
    if not torch.equal(own, forcing.shown(x, inputs, z)):
        raise ValueError("two passes with one code differ: something else is random")
    swapped = forcing.shown(x, inputs, z[others])
    # Both see the same draws and masks at each place, so that only x can make a difference.
    alone = forcing.shown(x, sliced(inputs, first), one)
    beside = forcing.shown(x[others], sliced(inputs, first), one)
    around = _half_difference(alone, beside) / variance
    found = {
        "around": around,
        "by_code": _half_difference(own, swapped) / variance,
        "own": _error(own, target),
        "swapped": _error(swapped, target),
    }
    by_decode = forcing.decoded(z, inputs)
    if by_decode is not None and by_decode.numel() == own.numel():
        ways = [forcing.picture.error.shown, *LINKS.values()]
        shown = [way(by_decode).reshape(own.shape) for way in ways]
        nearest = min(shown, key=lambda picture: (picture - own).abs().mean().item())
        found["decoded"] = _error(nearest, target)
    if around > KEPT:
        found["own_part"] = _own_part(forcing, x, inputs, one)
    if inputs is not None:
        elsewhere = forcing.shown(x, sliced(inputs, others), z)
        condition = forcing.shown(x, inputs, one)
        found["by_condition"] = _half_difference(condition, alone) / variance
        found["condition_moves"] = _half_difference(own, elsewhere) / variance
        found["condition_error"] = _error(elsewhere, target)
        found["condition_alone"] = _error(condition, target)
    return Forced(**found)


@dataclass(frozen=True)
class _Forcing:
    """Runs a model so that its rows get the codes that we want."""

    patient: object
    picture: object
    noise: object

    def draws(self, like):
        generator = torch.Generator("cpu").manual_seed(self.patient.seed)
        return torch.randn(like.shape, generator=generator, device="cpu").to(like)

    def shown(self, x, inputs, z):
        """The pictures of x with the codes z [B, L]."""
        outputs = _seeded(self.patient, x, inputs)
        mu, std = outputs.mu.flatten(1), (0.5 * outputs.logvar.flatten(1)).exp()
        with Replaced(self.noise.number, self.noise.sign * (z - mu) / std):
            reconstruction = _seeded(self.patient, x, inputs).reconstruction
        return self.picture.error.shown(reconstruction)

    def decoded(self, z, inputs):
        """What the model's decode gives for z; None if there is none, or it fails."""
        model, decode = self.patient.model, self.patient.decode
        if decode is None or inputs is not None:  # a decode may lack the condition
            return None
        try:
            return decoded(model, decode, z, inputs)
        except Exception:  # it may want other arguments than a code
            return None


@contextlib.contextmanager
def _drawing(model):
    """Codes are sampled as in training, and nothing else is as in training."""
    model.train()
    for module in model.modules():
        if isinstance(module, RESTLESS):
            module.eval()
    try:
        yield
    finally:
        model.eval()


def _own_part(forcing, x, inputs, z):
    """Whether pictures change at a place of x that was changed, at the same code."""
    flat = x.flatten(1)
    other = flat.roll(1, 0)
    place = (flat - other).abs().argmax(1, keepdim=True)
    changed = flat.scatter(1, place, other.gather(1, place)).reshape(x.shape)
    condition = sliced(inputs, torch.zeros(len(x), dtype=torch.long, device="cpu"))
    before = forcing.shown(x, condition, z)
    moved = (forcing.shown(changed, condition, z) - before).abs().reshape(*flat.shape, -1).amax(2)
    at_place = moved.gather(1, place).max().item()
    return at_place > MIXED * moved.max().item()


def _half_difference(pictures, others):
    """Half of the mean squared difference: the variance, where the two are independent."""
    return (pictures - others).double().square().mean().item() / 2


def _error(pictures, target):
    return (pictures - target).double().square().mean().item()
