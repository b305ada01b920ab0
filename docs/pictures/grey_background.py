"""BatchNorm before the sigmoid leaves a grey background. Without it, the last bias makes it dark.

The same small network on coloured shapes, trained in the same way twice.
"""

from pathlib import Path

import torch
from torch import nn

import vaelab

vaelab.setup()
data = vaelab.load("shapes", n_train=2000, n_test=200, image_size=24)
steps = 100 if vaelab.settings.offline() else 150
x = data.x_test
background = (x.amax(1, keepdim=True) < 0.05).expand_as(x)


class VAE(nn.Module):
    def __init__(self, batchnorm):
        super().__init__()
        torch.manual_seed(vaelab.settings.seed())
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(1728, 128), nn.SiLU(), nn.Linear(128, 32)
        )
        last = nn.ConvTranspose2d(24, 3, 4, 2, 1)
        if not batchnorm:
            last.bias.data = torch.logit(data.x_train.mean((0, 2, 3)))
        self.decoder = nn.Sequential(
            nn.Linear(16, 24 * 6 * 6),
            nn.SiLU(),
            nn.Unflatten(1, (24, 6, 6)),
            nn.ConvTranspose2d(24, 24, 4, 2, 1),
            nn.SiLU(),
            last,
            nn.BatchNorm2d(3) if batchnorm else nn.Identity(),
            nn.Sigmoid(),
        )

    def forward(self, x):
        mu, logvar = self.encoder(x).chunk(2, dim=1)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.decoder(z), mu, logvar


def train(model):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(steps):
        batch = data.x_train[torch.randint(len(data.x_train), (64,))]
        output, mu, logvar = model(batch)
        error = (output - batch).square().flatten(1).sum(1).mean()
        kl = vaelab.gaussian_kl(mu, logvar).sum(1).mean()
        optimizer.zero_grad()
        (error + kl).backward()
        optimizer.step()
    return model.eval()


models = {"BatchNorm": train(VAE(batchnorm=True)), "bias": train(VAE(batchnorm=False))}
rows = {"input": x[:8]}
for name, model in models.items():
    with torch.no_grad():
        output = model.decoder(model.encoder(x).chunk(2, dim=1)[0])
    rows[name] = output[:8]
    print(f"{name}: the background is at {output[background].mean():.2f} after {steps} steps")

fig = vaelab.plots.strip(rows)
for ax in fig.axes:
    ax.yaxis.label.set_fontsize(13)
fig.savefig(Path(__file__).parents[2] / "figures" / "page_grey_background.png", dpi=110)
