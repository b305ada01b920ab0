"""Ways in which the training of a small VAE stops being finite, and what the film has to say."""

import functools
from typing import NamedTuple

import sklearn.datasets
import torch
import torch.nn.functional as F
from torch import nn

from vaelab.clinic.film import Stopped, watch

BATCH, SICK_STEP = 64, 6  # the step in which a fault that is put in by hand shows


class Expected(NamedTuple):
    """What the alarm must hold."""

    kind: str
    layer: str = ""
    operation: str = ""
    term: str = ""


class Layer(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Small(nn.Module):
    """A VAE of 8 x 8 images. before, middle, after: layers to put into it."""

    def __init__(self, before=None, middle=None, after=torch.sigmoid):
        super().__init__()
        self.before, self.middle = Layer(before or nn.Identity()), Layer(middle or nn.Identity())
        self.body, self.up, self.out = nn.Linear(64, 32), nn.Linear(4, 32), nn.Linear(32, 64)
        self.to_mu, self.to_logvar = nn.Linear(32, 4), nn.Linear(32, 4)
        self.after = Layer(after)

    def forward(self, x):
        h = self.middle(F.relu(self.body(self.before(x))))
        mu, logvar = self.to_mu(h), self.to_logvar(h)
        z = self.sample(mu, logvar)
        return self.after(self.out(F.relu(self.up(z)))), mu, logvar

    def sample(self, mu, logvar):
        return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)


def linear():
    """One whose outputs have no bounds."""
    return Small(after=nn.Identity())


class Careful(Small):
    """It bounds the log-variance where it samples, but returns it without bounds."""

    def sample(self, mu, logvar):
        return super().sample(mu, logvar.clamp(-10, 10))


class WithSigma(Small):
    """The logarithm of a standard deviation is learned for each pixel, without a bound."""

    def __init__(self):
        super().__init__(after=torch.relu)
        self.log_sigma = nn.Parameter(torch.zeros(64))
        with torch.no_grad():
            self.out.bias[0] = -1.0  # the first pixel is 0 in all images, and is met exactly


@functools.cache
def images(seed, n=512):
    pixels = torch.tensor(sklearn.datasets.load_digits().data, dtype=torch.float32) / 16
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(seed))
    return pixels[order[:n]]


def squared(model, reconstruction, x):
    return (reconstruction - x).square().sum() / len(x)


def written_by_hand(model, reconstruction, x):
    """A cross-entropy without a bound on the logarithms."""
    log, other = torch.log(reconstruction), torch.log(1 - reconstruction)
    return -(x * log + (1 - x) * other).sum() / len(x)


def with_sigma(model, reconstruction, x):
    log_sigma = 100 * model.log_sigma  # learned fast
    return (0.5 * (reconstruction - x).square() / log_sigma.exp() ** 2 + log_sigma).sum() / len(x)


def kl_of(mu, logvar):
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum() / len(mu)


def train(
    model, x, error=squared, spoil=None, terms=False, steps=60, film=None, rate=1e-3, sgd=False
):
    """A plain loop. spoil(model, x): called before step `SICK_STEP`, returns the batch."""
    kind = torch.optim.SGD if sgd else torch.optim.Adam
    optimizer = kind(model.parameters(), lr=rate)
    for step in range(1, steps + 1):
        batch = x[torch.randint(len(x), (BATCH,))]
        if step == SICK_STEP and spoil is not None:
            batch = spoil(model, batch)
        reconstruction, mu, logvar = model(batch)
        parts = {"reconstruction": error(model, reconstruction, batch), "kl": kl_of(mu, logvar)}
        loss = sum(parts.values())
        if film is not None and terms:
            film.step(loss, **parts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


# ---- what is put in before the sick step


def fill(name, value):
    def spoil(model, batch):
        with torch.no_grad():
            model.get_parameter(name).fill_(value)
        return batch

    return spoil


def blank(model, batch):
    """One image without any contrast."""
    return torch.cat([torch.full_like(batch[:1], 0.5), batch[1:]])


def nan_pixel(model, batch):
    batch = batch.clone()
    batch[3, 10] = torch.nan
    return batch


def inf_pixel(model, batch):
    batch = batch.clone()
    batch[3, 10] = torch.inf
    return batch


# ---- functions that are layers of sick models


def normalised(x):
    return (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)


def batch_scaled(h):
    return h / h.std(0)


def distance(h):
    """A distance that is 0 for every image."""
    return h + (h - h.detach()).square().sum(1, keepdim=True).sqrt()


def guarded_root(h):
    return torch.where(h > 0.05, torch.sqrt(h - 0.05), torch.zeros_like(h))


def angle(logits):
    return torch.acos(logits * 100)


WAYS = {
    "exp in the sampling": (
        dict(model=Small, spoil=fill("to_logvar.bias", 200.0)),
        Expected("forward", "", "exp"),
    ),
    "exp in the KL": (
        dict(model=Careful, spoil=fill("to_logvar.bias", 120.0)),
        Expected("loss", term="kl"),
    ),
    "log of 0": (
        dict(model=Small, error=written_by_hand, spoil=fill("out.bias", -200.0)),
        Expected("loss", term="reconstruction"),
    ),
    "a constant image": (
        dict(model=lambda: Small(before=normalised), spoil=blank),
        Expected("forward", "before", "div"),
    ),
    "a learned sigma": (
        dict(model=WithSigma, error=with_sigma, rate=1e-2, steps=150),
        Expected("loss", term="reconstruction"),
    ),
    "float16": (
        dict(
            model=lambda: linear().half(),
            spoil=fill("out.weight", 6e4),
            half=torch.float16,
            sgd=True,
        ),
        Expected("forward", "out", "linear"),
    ),
    "bfloat16": (
        dict(
            model=lambda: linear().bfloat16(), spoil=fill("out.weight", 3e38), half=torch.bfloat16
        ),
        Expected("forward", "out", "linear"),
    ),
    "a NaN pixel": (dict(model=Small, spoil=nan_pixel), Expected("input")),
    "an infinite pixel": (dict(model=Small, spoil=inf_pixel), Expected("input")),
    "the slope of sqrt at 0": (
        dict(model=lambda: Small(middle=distance)),
        Expected("backward", "middle", "sqrt"),
    ),
    "a root behind torch.where": (
        dict(model=lambda: Small(middle=guarded_root)),
        Expected("backward", "middle", "sqrt"),
    ),
    "a rate that is too large": (
        dict(model=linear, rate=1e15, sgd=True),
        Expected("forward", "up", "linear"),
    ),
    "a unit that is the same for a batch": (
        dict(model=lambda: Small(middle=batch_scaled), spoil=fill("body.bias", -100.0)),
        Expected("forward", "middle", "div"),
    ),
    "log of a negative output": (
        dict(model=lambda: Small(after=torch.log)),
        Expected("forward", "after", "log"),
    ),
    "log1p below -1": (
        dict(model=lambda: Small(after=torch.log1p), spoil=fill("out.bias", -3.0)),
        Expected("forward", "after", "log1p"),
    ),
    "acos out of range": (
        dict(model=lambda: Small(after=angle)),
        Expected("forward", "after", "acos"),
    ),
    "a broken power of a negative number": (
        dict(model=lambda: Small(after=lambda t: t**0.5)),
        Expected("forward", "after", "pow"),
    ),
    "a NaN weight": (
        dict(model=Small, spoil=fill("up.weight", torch.nan)),
        Expected("weight", "up"),
    ),
}


def alarm_of(name, seed, terms):
    """The alarm that the film gives for one of the `WAYS`. terms: whether the loop names them."""
    options = dict(WAYS[name][0])
    torch.manual_seed(seed)
    model, dtype = options.pop("model")(), options.pop("half", torch.float32)
    x = images(seed).to(dtype)
    try:
        with watch(model) as film:
            train(model, x, film=film, terms=terms, **options)
    except Stopped as stopped:
        return stopped.alarm
    return None
