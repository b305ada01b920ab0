"""One code decoded with the ten labels, by three VAEs that are given the label in three ways."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn

import vaelab

device = vaelab.setup()
data = vaelab.load("mnist").to(device)
steps = 90 if vaelab.settings.offline() else 400
x, y = data.x_test[:1000], data.y_test[:1000]


def one_number(y):
    return y[:, None] / 9


def one_hot(y):
    return F.one_hot(y, 10).float()


def louder(y):
    return 5 * one_hot(y)


class Conditional(nn.Module):
    def __init__(self, label):
        super().__init__()
        torch.manual_seed(vaelab.settings.seed())
        self.label = label
        width = label(y).shape[1]
        self.encoder = nn.Sequential(nn.Linear(784 + width, 300), nn.ReLU(), nn.Linear(300, 20))
        self.decoder = nn.Sequential(nn.Linear(10 + width, 300), nn.ReLU(), nn.Linear(300, 784))

    def forward(self, x, y):
        mu, logvar = self.encoder(torch.cat([x.flatten(1), self.label(y)], 1)).chunk(2, dim=1)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.decode(z, y), mu, logvar

    def decode(self, z, y):
        logits = self.decoder(torch.cat([z, self.label(y)], 1))
        return torch.sigmoid(logits).view(-1, 1, 28, 28)


def loss(output, x, mu, logvar):
    error = F.binary_cross_entropy(output, x, reduction="sum") / len(x)
    return error + vaelab.gaussian_kl(mu, logvar).sum(1).mean()


def train(model, loss_of_batch):
    torch.manual_seed(vaelab.settings.seed())
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(steps):
        rows = torch.randint(len(data.x_train), (128,), device=device)
        value = loss_of_batch(model, data.x_train[rows], data.y_train[rows])
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return model


def elbo(model, x, y):
    output, mu, logvar = model(x, y)
    return loss(output, x, mu, logvar)


reader = nn.Sequential(nn.Flatten(), nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 10)).to(device)
train(reader, lambda model, x, y: F.cross_entropy(model(x), y))
models = {"one number": Conditional(one_number), "one-hot": Conditional(one_hot)}
models["one-hot × 5"] = Conditional(louder)
asked = (y + torch.randint(1, 10, y.shape, device=device)) % 10  # never the image's own label
ten, rows = torch.arange(10, device=device), {}
with torch.no_grad():
    right = (reader(x).argmax(1) == y).float().mean()
print(f"the classifier reads {right:.0%} of {len(x):,} test images")
for name, model in models.items():
    train(model.to(device), elbo)
    with torch.no_grad():
        codes = model(x, y)[1]  # mu of the test images
        read = reader(model.decode(codes, asked)).argmax(1)
        rows[name] = model.decode(codes[:1].expand(10, -1), ten)
        total = elbo(model, x, y)
    share = (read == asked).float().mean()
    print(f"{name}: {share:.0%} show the digit that was asked for, the loss is {total:.0f} nats")
report = vaelab.checkup(models["one-hot"], x[:200], loss, inputs=y[:200])
print(f"the check-up on one-hot: {report.verdict}")

fig, axes = plt.subplots(3, 10, figsize=(8, 2.9))
for line, (name, pictures) in zip(axes, rows.items(), strict=True):
    for ax, picture in zip(line, pictures, strict=True):
        vaelab.plots.show_image(ax, picture)
    place = {"transform": line[0].transAxes, "ha": "right", "va": "center"}
    line[0].text(-0.15, 0.5, name, fontsize=14, **place)
for ax, label in zip(axes[0], range(10), strict=True):
    ax.set_title(str(label), fontsize=15, loc="center")
fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, rect=(0.01, 0, 0.99, 1))
name = "page_label_ignored.png"
fig.savefig(Path(__file__).parents[2] / "figures" / name, dpi=110, facecolor="white")
