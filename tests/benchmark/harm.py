"""Whether a fault measurably harms: the model against its healthy twin, by the right loss."""

from typing import NamedTuple

import torch

from .case import kl

ROWS = 300
MUCH = 0.05  # of the way from the healthy twin to the mean row, in nats
DRAWS = 4


class Measured(NamedTuple):
    """Averages over held-out rows, in nats. shown: the negative ELBO of what forward returns.

    composed: the same when the codes are drawn from the model's own mu and logvar and decoded.
    """

    shown: float
    composed: float
    rate: float


@torch.no_grad()
def measure(subject, model, data):
    """`Measured` on the first held-out rows of data."""
    torch.manual_seed(1)
    x = data.x_test[:ROWS]
    labels = () if data.labels_test is None else (data.labels_test[:ROWS],)
    shown, composed, rate = 0.0, 0.0, 0.0
    for _ in range(DRAWS):
        reconstruction, mu, logvar = model(x, *labels)
        price = kl(mu, logvar).mean().item()
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        again = model.decode(z, *labels)
        shown += subject.error(model.net, reconstruction, x).mean().item() + price
        composed += subject.error(model.net, again, x).mean().item() + price
        rate += price
    return Measured(shown / DRAWS, composed / DRAWS, rate / DRAWS)


@torch.no_grad()
def span(subject, healthy, data, twin):
    """Nats between the healthy twin and a model whose outputs ignore their rows."""
    torch.manual_seed(1)
    x = data.x_test[:ROWS]
    labels = () if data.labels_test is None else (data.labels_test[:ROWS],)
    reconstruction, _, _ = healthy(x, *labels)
    other = reconstruction[torch.randperm(len(x))]
    blind = subject.error(healthy.net, other, x).mean().item()
    return abs(blind - twin.shown)


def reason(sick, twin, width):
    """Why a model counts as harmed, in a few words; empty where it does not."""
    for name in ("shown", "composed"):
        value = getattr(sick, name)
        worse = value - getattr(twin, name)
        if not worse <= MUCH * width:  # NaN is harm too
            return f"negative ELBO as {name} {value:.4g}, twin {getattr(twin, name):.4g}"
    if not 0.5 * twin.rate <= sick.rate <= 2 * twin.rate:
        return f"rate {sick.rate:.3g} nats, twin {twin.rate:.3g}"
    return ""
