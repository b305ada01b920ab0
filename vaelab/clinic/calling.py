"""How a loss wants to be called, and which part of what it returns is the loss.

Its own parameter names tell the first. What each part depends on tells the second.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ..outputs import LOG_STD, LOGVAR, STD, VARIANCE, spread_named

USUAL = "reconstruction, x, mu, logvar"
AS_STD, AS_VARIANCE = "torch.exp(0.5 * logvar)", "torch.exp(logvar)"
OUTPUTS = "(reconstruction, mu, logvar)"
NAMED = '{"reconstruction": reconstruction, "mu": mu, "logvar": logvar}'
ARGUMENTS = {  # what a reader may write between the brackets
    "reconstruction": lambda r, x, mu, logvar: r,
    "x": lambda r, x, mu, logvar: x,
    "mu": lambda r, x, mu, logvar: mu,
    "logvar": lambda r, x, mu, logvar: logvar,
    AS_STD: lambda r, x, mu, logvar: torch.exp(0.5 * logvar),
    AS_VARIANCE: lambda r, x, mu, logvar: torch.exp(logvar),
    OUTPUTS: lambda r, x, mu, logvar: (r, mu, logvar),
    NAMED: lambda r, x, mu, logvar: ByName(r, mu, logvar),
}
FROM_LOGVAR = {
    LOGVAR: lambda logvar: logvar,
    LOG_STD: lambda logvar: 0.5 * logvar,
    STD: lambda logvar: torch.exp(0.5 * logvar),
    VARIANCE: torch.exp,
}
FOUR = ("reconstruction", "x", "mu", "logvar")
SWAPPED_FOUR = ("x", "reconstruction", "mu", "logvar")
SHORT_NAMES = {"r": "reconstruction", "x": "x", "y": "x", "m": "mu", "v": "logvar"}
NAME_PARTS = {  # the first that occurs in a parameter's name says what it asks for
    "reconstruction": ("hat", "rec", "pred", "out", "prime", "tilde", "decod", "logit"),
    "logvar": ("log", "lv", "var", "sig", "std", "scale"),
    "mu": ("mu", "mean", "loc"),
    "x": ("x_in", "input", "target", "data", "image", "img", "orig", "true", "batch", "real"),
}
TOTALS = ('["loss"]', '["total_loss"]', '["total"]', '["objective"]', '["elbo"]')


class NotScalar(ValueError):
    """The loss returned something that nobody can minimise."""


class ByName(dict):
    """A model's outputs for a loss that reads them by its own names, as in out["x_hat"]."""

    def __init__(self, reconstruction, mu, logvar):
        super().__init__(reconstruction=reconstruction, mu=mu, logvar=logvar)

    def __missing__(self, name):
        role = asked_for(name)
        if role not in self:
            raise KeyError(name)
        if role != "logvar":
            return self[role]
        spread = spread_named(name) or LOGVAR
        return FROM_LOGVAR[spread](self["logvar"])


@dataclass(frozen=True)
class Call:
    """A loss as a callable (reconstruction, x, mu, logvar) -> scalar.

    given: its arguments, keys of ARGUMENTS. names: of the parameters that get them, where they
    have to be given by name. part: what a reader appends to his call to get the scalar, or "".
    """

    loss: Callable
    given: tuple = FOUR
    names: tuple = ()
    part: str = ""

    def __call__(self, *four):
        return self.parts(*four)[self.part]

    def parts(self, *four):
        """All that the loss returns: what a reader appends to get a part -> the part."""
        values = [ARGUMENTS[argument](*four) for argument in self.given]
        if self.names:
            returned = self.loss(**dict(zip(self.names, values, strict=True)))
        else:
            returned = self.loss(*values)
        if isinstance(returned, dict):
            return {f'["{key}"]': part for key, part in returned.items()}
        if isinstance(returned, (tuple, list)):
            return {f"[{i}]": part for i, part in enumerate(returned)}
        return {"": returned}

    @property
    def expression(self):
        """What a reader writes between the brackets."""
        if not self.names:
            return ", ".join(self.given)
        return ", ".join(f"{k}={v}" for k, v in zip(self.names, self.given, strict=True))

    def with_spread(self, spread):
        """The same call with a standard deviation or a variance in place of logvar."""
        given = tuple(spread if argument == "logvar" else argument for argument in self.given)
        return replace(self, given=given)

    def asked_spread(self):
        """The same call with what the name of its last parameter asks for; None if for logvar."""
        names = self.names or parameter_names(self.loss)
        name = dict(zip(self.given, names, strict=False)).get("logvar", "logvar").lower()
        if any(part in name for part in ("log", "lv")):
            return None
        if any(part in name for part in ("sig", "std", "scale")):
            return self.with_spread(AS_STD)
        return self.with_spread(AS_VARIANCE) if "var" in name else None

    def reading(self, parts, reconstruction, mu):
        """The same call with the part that holds every term. NotScalar says why there is none."""
        tensors = {key: part for key, part in parts.items() if isinstance(part, torch.Tensor)}
        if not tensors:
            got = ", ".join(type(part).__name__ for part in parts.values())
            raise NotScalar(f"loss must return a scalar tensor, got {got}: leave .item() out")
        terms = {key: _terms(part, reconstruction, mu) for key, part in tensors.items()}
        part = _total(tensors, terms)
        mean = "" if all(tensor.numel() == 1 for tensor in tensors.values()) else ".mean()"
        if part is None:
            held = [f"{key} depends on {' and '.join(terms[key]) or 'neither'}" for key in tensors]
            values = ".values()" if '["' in held[0] else ""
            line = adapter_line(self.expression, f"sum({{}}{values}){mean}")
            raise NotScalar(
                "loss must return one scalar, and no value that it returns holds all terms: "
                f"{', '.join(held)}. Add all terms up, for instance {line}"
            )
        if tensors[part].numel() != 1:
            line = adapter_line(self.expression, f"{{}}{part}{mean}")
            shape = list(tensors[part].shape)
            raise NotScalar(f"loss must return a scalar tensor, got shape {shape}: write {line}")
        return replace(self, part=part)


def adapter_line(arguments, around="{}"):
    """The lambda that a reader should pass as the loss. around: what to do with its value."""
    return f"loss=lambda {USUAL}: " + around.format(f"my_loss({arguments})")


def parameters(loss):
    """The parameters of a loss, [] if it does not tell."""
    called = loss.forward if isinstance(loss, torch.nn.Module) else loss
    try:
        return list(inspect.signature(called).parameters.values())
    except (TypeError, ValueError):
        return []


def parameter_names(loss):
    """The names of a loss's parameters, without those of *args and **kwargs."""
    return [p.name for p in parameters(loss) if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def takes_any_name(loss):
    """Whether a loss has **kwargs, so that its signature does not tell what it needs."""
    return any(p.kind == p.VAR_KEYWORD for p in parameters(loss))


def ways_to_call(loss):
    """The ways in which a loss may want its arguments, the likeliest first."""
    names = parameter_names(loss)
    by_names = _call_by_names(loss)
    if by_names is not None:
        return [by_names] if by_names.given == FOUR else [by_names, Call(loss)]
    if len(names) in (2, 3):
        if asked_for(names[0]) == "x":
            orders = [("x", OUTPUTS), (OUTPUTS, "x"), ("x", NAMED)]
        else:
            orders = [(OUTPUTS, "x"), ("x", OUTPUTS), (NAMED, "x")]
        return [*(Call(loss, order) for order in orders), Call(loss)]
    return [Call(loss), Call(loss, SWAPPED_FOUR)]


def asked_for(name):
    """Which of the four arguments a parameter's name asks for, or None."""
    if name.lower() in SHORT_NAMES:
        return SHORT_NAMES[name.lower()]
    for argument, parts in NAME_PARTS.items():
        if any(part in name.lower() for part in parts):
            return argument
    return None


def _call_by_names(loss):
    """The call that a loss's parameter names ask for, or None if they do not tell."""
    names = parameter_names(loss)
    told = [asked_for(name) for name in names]
    where = {told.index(argument): argument for argument in FOUR if argument in told}
    if len(where) < 4 <= len(names) and told[:2] == ["x", "reconstruction"]:
        where = dict(enumerate(SWAPPED_FOUR))
    if len(where) < 4:
        return None
    places = sorted(where)
    given = tuple(where[place] for place in places)
    by_place = [p.name for p in parameters(loss) if p.kind != p.KEYWORD_ONLY]
    if places == [0, 1, 2, 3] and names[:4] == by_place[:4]:
        return Call(loss, given)
    return Call(loss, given, tuple(names[place] for place in places))


def _terms(part, reconstruction, mu):
    """Which of reconstruction and mu a part of the returned values depends on."""
    if not part.requires_grad:
        return []
    gradients = torch.autograd.grad(
        part.sum(), (reconstruction, mu), retain_graph=True, allow_unused=True
    )
    names = ("reconstruction", "mu")
    return [name for name, found in zip(names, gradients, strict=True) if found is not None]


def _total(tensors, terms):
    """The part that holds every term: by its name, as the sum of the others, the first or only."""
    most = len(set().union(*terms.values()))
    whole = [key for key in tensors if len(terms[key]) == most]
    values = {key: part.detach().double().sum().item() for key, part in tensors.items()}
    everything, size = sum(values.values()), max(map(abs, values.values()))
    sums = [key for key, value in values.items() if abs(everything - 2 * value) <= 1e-5 * size]
    for key in (*TOTALS, *sums, next(iter(tensors))):
        if key in whole:
            return key
    return whole[0] if len(whole) == 1 else None
