"""What the benchmark is made of: data, subjects, faults, and the parts of a VAE that faults change.

A subject is a healthy VAE, from an installed package or written here. A fault changes one thing in
it. The check-up is right when it names the cause that was written beside the fault.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

GROUPS = ("loss", "wiring", "data", "learning")
SUBJECTS, FAULTS, CONTROLS = {}, {}, {}


class Data(NamedTuple):
    """Rows [N, ...] for training and held out. labels: whole numbers [N], or None."""

    x_train: torch.Tensor
    x_test: torch.Tensor
    labels_train: torch.Tensor | None = None
    labels_test: torch.Tensor | None = None


@dataclass(frozen=True)
class Subject:
    """A healthy VAE, and how its parts are called.

    load: () -> Data. build: () -> nn.Module, untrained, as its author wrote it.
    encode: (model, x) or (model, x, labels) -> mu, logvar, both [B, L], flat.
    decode: (model, z) or (model, z, labels) -> reconstruction, as `error` wants it.
    error: (model, reconstruction, x) -> [B], the right negative log-likelihood in nats.
    attempts: what a stranger would try, in order, each (model, data, loss) -> Report.
    traits: what faults look at, see TRAITS.
    """

    name: str
    load: Callable
    build: Callable
    encode: Callable
    decode: Callable
    error: Callable
    attempts: tuple = ()
    traits: frozenset = frozenset()
    steps: int = 300
    rate: float = 2e-3
    batch: int = 64
    package: str = ""

    def loss(self, model):
        """The right loss of a model, as the check-up gets it."""

        def negative_elbo(reconstruction, x, mu, logvar):
            return (self.error(model, reconstruction, x) + kl(mu, logvar)).mean()

        return negative_elbo


# images: x is [N, C, H, W] in [0, 1]. table: x is [N, D], standardised. sequence, tokens: [N, T].
# squares: the error is a Gaussian's. sigmoid: decode ends in one, so outputs are in [0, 1].
# logits: decode gives logits of a cross-entropy. relu: hidden layers end in one.
# labels: encode and decode take them. batchnorm: there is one.
TRAITS = frozenset(
    "images table sequence tokens squares sigmoid logits relu labels batchnorm".split()
)


def subject(found):
    """Register a subject."""
    unknown = found.traits - TRAITS
    if unknown or found.name in SUBJECTS:
        raise ValueError(f"{found.name} is there already, or has unknown traits {unknown}")
    SUBJECTS[found.name] = found
    return found


def kl(mu, logvar):
    """[B] nats from N(mu, exp(logvar)), both [B, L], to the standard normal."""
    return 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1)


class Wired(nn.Module):
    """A subject's network with its parts in the usual order. A wiring fault is a subclass."""

    def __init__(self, subject, net):
        super().__init__()
        self.subject, self.net = subject, net

    def encode(self, x, *labels):
        return self.subject.encode(self.net, x, *labels)

    def sample(self, mu, logvar):
        return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)

    def decode(self, z, *labels):
        return self.subject.decode(self.net, z, *labels)

    def forward(self, x, *labels):
        mu, logvar = self.encode(x, *labels)
        z = self.sample(mu, logvar)
        return self.decode(z, *labels), mu, logvar


@dataclass
class Plan:
    """How a wired model is trained. parameters: which ones, default all. A fault changes one."""

    steps: int
    rate: float
    batch: int
    weight_decay: float = 0.0
    parameters: list | None = None


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    accepts: codes that count as its cause, written down before any run. fits: subject -> bool.
    Of the others exactly one is given:
    loss: (subject, model, reconstruction, x, mu, logvar) -> scalar.
    wired: a subclass of Wired. training_data, checked_data: Data -> Data.
    learning: (wired, data, plan) -> None or other data. It changes weights or the plan.
    """

    name: str
    group: str
    accepts: frozenset
    fits: Callable
    loss: Callable | None = None
    wired: type = Wired
    training_data: Callable | None = None
    checked_data: Callable | None = None
    learning: Callable | None = None

    def loss_of(self, subject, model):
        """The loss that is trained and checked."""
        if self.loss is None:
            return subject.loss(model)

        def wrong(reconstruction, x, mu, logvar):
            return self.loss(subject, model, reconstruction, x, mu, logvar)

        return wrong


def everywhere(subject):
    """A fault that fits every subject."""
    return True


def has(*traits):
    """A fault that fits subjects with all of these traits."""
    return lambda subject: subject.traits.issuperset(traits)


def fault(group, accepts, fits=everywhere, how=""):
    """Register a fault: the decorated function or class is its one change, under its own name.

    how: "training_data" or "checked_data" in the group "data".
    """
    part = {"loss": "loss", "wiring": "wired", "learning": "learning", "data": how}[group]

    def register(change):
        name = change.__name__.strip("_").replace("_", " ")
        if name in FAULTS:
            raise ValueError(f"there is a fault {name!r} already")
        FAULTS[name] = Fault(name, group, frozenset(accepts.split()), fits, **{part: change})
        return change

    return register


@dataclass(frozen=True)
class Control:
    """A healthy model that must get no serious finding. check: () -> Report."""

    name: str
    check: Callable


def control(name):
    """Register a healthy control."""

    def register(check):
        if name in CONTROLS:
            raise ValueError(f"there is a control {name!r} already")
        CONTROLS[name] = Control(name, check)
        return check

    return register
