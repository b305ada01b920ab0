"""What a model returned: where reconstruction, mu and logvar lie in it, by name and by shape."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import NamedTuple

import torch

DEEPEST = 3  # levels of containers that are looked into


class Spread(NamedTuple):
    """How the width of a posterior is told: its name, and its log-variance as text and function."""

    name: str
    text: str
    logvar: Callable


LOGVAR = Spread("log-variance", "{}", lambda t: t)
LOG_STD = Spread("log standard deviation", "2 * {}", lambda t: 2 * t)
STD = Spread("standard deviation", "2 * {}.log()", lambda t: 2 * t.log())
VARIANCE = Spread("variance", "{}.log()", lambda t: t.log())
SPREADS = {  # the first pattern that a name matches tells what it is
    r"(log|ln)_?\w*(var|cov|sigma_?(2|sq)|std_?(2|sq))|(^|_)(lv|logv)(_|$)": LOGVAR,
    r"log_?\w*(std|sig|scale)|(^|_)logs(_|$)": LOG_STD,
    r"(sig|sigma|std)_?(2|sq)|(^|_)(v|var|vars|variance|cov|covariance)(_|$)": VARIANCE,
    r"std|scale|deviation|(^|_)sig(mas?)?(_|$)": STD,
}
MEAN = r"(^|_)z?_?(mu|mus|m|mean|means|loc|embedding)_?z?(_|$)"
PRIOR = r"prior|(^|_)p_?z|_p$"
PICTURE = r"rec|hat|output|sample|decod|generat|px|p_x|tilde|pred"


def spread_named(name):
    """The `Spread` that a name tells, or None."""
    for pattern, spread in SPREADS.items():
        if re.search(pattern, name.lower()):
            return spread
    return None


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in what came back. steps: (is it an attribute, its name or number)."""

    steps: tuple = ()

    def then(self, key, attribute=False):
        return Place((*self.steps, (attribute, key)))

    def of(self, outputs):
        """The tensor that lies here."""
        for attribute, key in self.steps:
            outputs = getattr(outputs, key) if attribute else outputs[key]
        return outputs

    def after(self, expression):
        """The source that takes the tensor from an expression."""
        written = [f".{key}" if attribute else f"[{key!r}]" for attribute, key in self.steps]
        return "".join([expression, *written])

    def __str__(self):
        return self.after("out")

    @property
    def names(self):
        """All names on the way, joined with underscores; "" for a number in a tuple."""
        return "_".join(key.lower() for _, key in self.steps if isinstance(key, str))

    @property
    def name(self):
        """The last name on the way, if the last step has one."""
        key = self.steps[-1][1] if self.steps else ""
        return key.lower() if isinstance(key, str) else ""


@dataclass(frozen=True)
class Posterior:
    """Where mu and its spread lie. kind: a `Spread`, None if the values do not tell which.

    shape: of one code as the model has it, such as (4, 8, 8).
    """

    mu: Place
    spread: Place
    kind: Spread | None
    shape: tuple

    def of(self, outputs):
        """(mu, logvar), both [B, L]."""
        logvar = self.kind.logvar(self.spread.of(outputs))
        return self.mu.of(outputs).flatten(1), logvar.flatten(1)

    def __str__(self):
        flat = ".flatten(1)" if len(self.shape) > 1 else ""
        kind = self.kind or LOGVAR
        logvar = kind.text.format(self.spread)
        if flat and kind is LOG_STD:
            logvar = f"({logvar})"
        return f"{self.mu}{flat}, {logvar}{flat}"


@dataclass(frozen=True)
class Reading:
    """An adapter from what came back to (reconstruction, mu, logvar); `str` is its source."""

    reconstruction: Place
    posterior: Posterior

    def __call__(self, outputs):
        return self.reconstruction.of(outputs), *self.posterior.of(outputs)

    def __str__(self):
        return f"lambda out: ({self.reconstruction}, {self.posterior})"


def tensors_in(value, place=Place(), depth=0):
    """place -> tensor, for every float tensor in what came back."""
    if isinstance(value, torch.Tensor):
        return {place: value} if value.is_floating_point() else {}
    found = {}
    if depth < DEEPEST:
        for inner, part in _parts(value, place).items():
            found |= tensors_in(part, inner, depth + 1)
    return found


def _parts(value, place):
    """place -> part of a container: what has a name or a number."""
    if isinstance(value, torch.distributions.Distribution):
        names = _moments(value)
    elif isinstance(value, Mapping):
        return {place.then(key): part for key, part in value.items()}
    elif hasattr(value, "_fields"):
        names = value._fields
    elif isinstance(value, (tuple, list)):
        return {place.then(number): part for number, part in enumerate(value)}
    elif is_dataclass(value):
        names = [field.name for field in fields(value)]
    else:
        names = [] if isinstance(value, torch.nn.Module) else getattr(value, "__dict__", {})
    there = [name for name in names if hasattr(value, name)]
    return {place.then(name, attribute=True): getattr(value, name) for name in there}


def _moments(distribution):
    """The attributes that hold a distribution's tensors: only a Gaussian is told by two."""
    inner = distribution
    if isinstance(distribution, torch.distributions.Independent):
        inner = distribution.base_dist
    if isinstance(inner, torch.distributions.Normal):
        return ("mean", "stddev")
    return ("mean",) if isinstance(inner, torch.distributions.Bernoulli) else ()


def read(outputs, again, x, guess=False):
    """The `Reading` of what a model returned for x, or None where it is not certain.

    again: what the same call returned once more; a sampled code has changed there. guess: take the
    most likely tensors where several would do.
    """
    found = tensors_in(outputs)
    picture = read_picture(found, x, guess)
    if picture is None:
        return None
    others = {place: t for place, t in found.items() if place != picture and not _is_x(t, x)}
    posterior = read_posterior(others, tensors_in(again), len(x), guess)
    return None if posterior is None else Reading(picture, posterior)


def read_picture(found, x, guess=False):
    """The place of the reconstruction, or None where it is not certain."""
    fitting = [place for place, t in found.items() if fits(t, x) and not _is_x(t, x)]
    unlike_codes = [p for p in fitting if not _is_mean(p) and spread_named(p.name) is None]
    named = [place for place in fitting if re.search(PICTURE, place.names)]
    unlike_spreads = [place for place in fitting if spread_named(place.name) is None]
    shaped = [place for place in unlike_spreads if found[place].shape == x.shape]
    for places in (fitting, unlike_codes, unlike_spreads, shaped, named):
        if len(places) == 1:
            return places[0]
    return (unlike_codes + fitting)[0] if guess and fitting else None


def read_posterior(found, again, rows, guess=False):
    """The `Posterior` among these tensors, or None where it is not certain."""
    codes = {}
    for place, t in found.items():
        if t.dim() >= 2 and len(t) == rows and not re.search(PRIOR, place.names):
            codes[place] = t
    means = [place for place in codes if _is_mean(place)]
    spreads = _named_spreads(codes, codes[means[0]].shape) if len(means) == 1 else []
    pair = means + spreads if spreads else _unnamed_pair(codes, again, guess)
    if pair is None:
        return None
    mu, spread = pair
    kind = kind_of(codes[spread], [spread.name])
    return Posterior(mu, spread, kind, tuple(codes[mu].shape[1:]))


def fits(tensor, x):
    """Whether a tensor has the size of x, or for whole numbers one value for each class."""
    if tensor.dim() < 2 or len(tensor) != len(x):
        return False
    size, wanted = tensor[0].numel(), x[0].numel()
    return size == wanted if x.is_floating_point() else size % wanted == 0


def kind_of(spread, names, ending=None):
    """The `Spread` of a posterior's second tensor, None where it is not certain.

    names: what it is called. ending: the name of the activation whose output it is, if any.
    """
    told = {spread_named(name) for name in names} - {None}
    possible = [LOGVAR, LOG_STD, STD, VARIANCE]
    negative = not bool((spread > 0).all())
    if negative:
        possible = [LOGVAR, LOG_STD]
    elif ending in ("exp", "softplus"):
        possible = [STD, VARIANCE]
    kinds = [kind for kind in possible if kind in told]
    if len(kinds) == 1:
        return kinds[0]
    # A layer called fc_var gives log-variances if they can be negative.
    return LOGVAR if negative and told <= {VARIANCE} else None


def _is_x(tensor, x):
    """Whether this is x itself, handed through."""
    same_size = len(tensor) == len(x) if tensor.dim() else False
    if not same_size or tensor.numel() != x.numel():
        return False
    return torch.equal(tensor.reshape(x.shape), x.to(tensor.dtype))


def _is_mean(place):
    return re.search(MEAN, place.name) is not None


def _named_spreads(codes, shape):
    """The one place of this shape that is named as a spread, in a list; a log-variance first."""
    alike = [place for place, t in codes.items() if t.shape == shape]
    for kind in (LOGVAR, LOG_STD, STD, VARIANCE):
        places = [place for place in alike if spread_named(place.name) is kind]
        if places:
            return places if len(places) == 1 else []
    return []


def _unnamed_pair(codes, again, guess):
    """[mu, spread] among tensors without names, in this order, or None."""
    unnamed = {place: t for place, t in codes.items() if not place.name}
    forms = [(t.shape, t.dtype) for t in unnamed.values()]
    alike = {p: t for p, t in unnamed.items() if forms.count((t.shape, t.dtype)) > 1}
    if len({t.shape for t in alike.values()}) > 1:
        return None
    for drop in (_sampled, _computed, _repeated):
        if len(alike) > 2:
            alike = drop(alike, again)
    certain = len(alike) == 2 and all(_stays(place, t, again) for place, t in alike.items())
    return list(alike)[:2] if certain or guess and len(alike) >= 2 else None


def _stays(place, tensor, again):
    """Whether another call gave the same, NaN included."""
    return place in again and torch.equal(tensor.nan_to_num(), again[place].nan_to_num())


def _sampled(codes, again):
    """Without the tensors that another call changes, if two or more are left."""
    kept = {place: t for place, t in codes.items() if _stays(place, t, again)}
    return kept if len(kept) >= 2 else codes


def _computed(codes, again):
    """Without the tensors that follow from two others: exp(s / 2), exp(s), or m + exp(s / 2)."""
    kept = {}
    for place, t in codes.items():
        others = [other for p, other in codes.items() if p != place]
        computed = [s.exp() for s in others] + [(s / 2).exp() for s in others]
        computed += [m + (s / 2).exp() for m in others for s in others if s is not m]
        if not any(torch.allclose(t, other, rtol=1e-4, atol=1e-6) for other in computed):
            kept[place] = t
    return kept if len(kept) >= 2 else codes


def _repeated(codes, again):
    """Of equal tensors the one in front of another: mu in (z, mu, logvar) and (mu, logvar, z)."""
    following = [*codes.values()][1:] + [None]
    kept = {}
    for (place, t), after in zip(codes.items(), following, strict=True):
        in_front = after is not None and not torch.equal(t, after)
        alone = sum(torch.equal(t, other) for other in codes.values()) == 1
        if in_front or alone:
            kept[place] = t
    return kept if len(kept) >= 2 else codes
