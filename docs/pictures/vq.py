"""How many of its 512 codes a small VQ-VAE uses, without and with restarts of dead codes."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn

import vaelab
from vaelab.plots import BLUE, ORANGE

CODES, WIDTH = 512, 16


class VQVAE(nn.Module):
    """A picture of 28 x 28 becomes 7 x 7 codes, each the nearest row of the codebook."""

    def __init__(self):
        super().__init__()
        first, second = nn.Conv2d(1, 16, 4, 2, 1), nn.Conv2d(16, WIDTH, 4, 2, 1)
        self.encoder = nn.Sequential(first, nn.ReLU(), second)
        third, last = nn.ConvTranspose2d(WIDTH, 16, 4, 2, 1), nn.ConvTranspose2d(16, 1, 4, 2, 1)
        self.decoder = nn.Sequential(third, nn.ReLU(), last)
        self.codebook = nn.Parameter(torch.randn(CODES, WIDTH))

    def forward(self, x):
        h = self.encoder(x).movedim(1, 3)  # [B, 7, 7, WIDTH]
        distances = self.codebook.square().sum(1) - 2 * h @ self.codebook.T
        chosen = distances.argmin(3)
        code = self.codebook[chosen]
        vq_loss = F.mse_loss(code, h.detach()) + 0.25 * F.mse_loss(h, code.detach())
        passed = h + (code - h).detach()  # the gradient goes past the choice
        return self.decoder(passed.movedim(3, 1)), vq_loss, chosen.flatten(), h.flatten(0, 2)


def train(x_train, restarts, steps):
    """A trained VQ-VAE; with restarts, codes unused for 20 batches become outputs of now."""
    torch.manual_seed(vaelab.settings.seed())
    model = VQVAE()
    adam = torch.optim.Adam(model.parameters(), lr=2e-3)
    unused = torch.zeros(CODES)
    for step in range(steps):
        x = x_train[torch.randint(len(x_train), (64,))]
        output, vq_loss, chosen, h = model(x)
        loss = 10 * F.mse_loss(output, x) + vq_loss
        adam.zero_grad()
        loss.backward()
        adam.step()
        unused += 1
        unused[chosen] = 0
        if restarts and step < 0.8 * steps:
            dead = unused > 20
            model.codebook.data[dead] = h.detach()[torch.randint(len(h), (int(dead.sum()),))]
            unused[dead] = 0
    return model


def perplexity(chosen):
    """How many codes used equally often would be as mixed."""
    shares = torch.bincount(chosen).float() / len(chosen)
    return torch.exp(-torch.xlogy(shares, shares).sum())


vaelab.setup()
data = vaelab.load("mnist", n_test=2000)
steps = 120 if vaelab.settings.offline() else 200
fig, ax = plt.subplots(figsize=(8, 4))
for name, restarts, colour in (("plain", False, ORANGE), ("restarts", True, BLUE)):
    model = train(data.x_train, restarts, steps)
    with torch.no_grad():
        output, _, chosen, _ = model(data.x_test)
    counts = torch.bincount(chosen, minlength=CODES).sort(descending=True).values
    used, mixed = int((counts > 0).sum()), perplexity(chosen)
    error = F.mse_loss(output, data.x_test)
    print(f"{name}: {used} of {CODES} codes used, perplexity {mixed:.0f}, error {error:.4f}")
    print(f"{name}: in a batch of 8 images the perplexity is {perplexity(chosen[: 8 * 49]):.0f}")
    label = f"{name}: {used} codes used, perplexity {mixed:.0f}"
    ax.plot(range(1, used + 1), counts[:used], color=colour, lw=4, label=label)
ax.set(yscale="log", xlim=(0, CODES))
ax.set_xlabel("codes, the most frequent first", fontsize=14)
ax.set_ylabel("how often used", fontsize=14)
ax.tick_params(labelsize=12)
ax.legend(loc="upper right", fontsize=14)
fig.savefig(Path(__file__).parents[2] / "figures" / "page_vq.png", dpi=110)
