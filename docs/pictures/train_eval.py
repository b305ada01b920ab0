"""The same images in train mode and in eval mode, before and after the statistics are renewed.

The VAE has BatchNorm, and was trained for few steps with a momentum of 0.001.
"""

import copy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import update_bn

import vaelab

device = vaelab.setup()
data = vaelab.load("mnist").to(device)
x = data.x_test[:300]
steps = 100 if vaelab.settings.offline() else 300


class Net(nn.Module):
    def __init__(self, momentum):
        super().__init__()
        torch.manual_seed(vaelab.settings.seed())
        self.encoder = nn.Sequential(*self.block(784, momentum), nn.Linear(256, 40))
        self.decoder = nn.Sequential(*self.block(20, momentum), nn.Linear(256, 784))

    def block(self, inputs, momentum):
        return nn.Linear(inputs, 256), nn.BatchNorm1d(256, momentum=momentum), nn.ReLU()

    def forward(self, x):
        mu, logvar = self.encoder(x.flatten(1)).chunk(2, dim=1)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return torch.sigmoid(self.decoder(z)).view_as(x), mu, logvar


def loss(output, x, mu, logvar):
    error = F.binary_cross_entropy(output, x, reduction="sum") / len(x)
    return error + vaelab.gaussian_kl(mu, logvar).sum(1).mean()


def train(momentum):
    model = Net(momentum).to(device)
    options = {"max_steps": steps, "batch_size": 64, "lr": 2e-3, "evaluate_on": 100}
    vaelab.fit(model, data.x_train, loss=loss, **options)
    return model


@torch.no_grad()
def pictures(model, training):
    """A copy is used, because in train mode BatchNorm changes its statistics."""
    torch.manual_seed(0)
    return copy.deepcopy(model).train(training)(x)[0]


model, usual = train(momentum=0.001), train(momentum=0.1)
renewed = copy.deepcopy(model)
update_bn(data.x_train[:6400].split(64), renewed)
lost = copy.deepcopy(usual)  # the weights were saved, and the statistics were not
for layer in lost.modules():
    if isinstance(layer, nn.BatchNorm1d):
        layer.reset_running_stats()

rows = {"input": x}
rows["train mode"] = pictures(model, True)
rows["eval mode"] = pictures(model, False)
rows["eval mode,\nrenewed"] = pictures(renewed, False)
errors = {name.replace("\n", " "): (shown - x).square().mean() for name, shown in rows.items()}
errors["the mean image"] = (data.x_train.mean(0) - x).square().mean()
errors["momentum 0.1, train mode"] = (pictures(usual, True) - x).square().mean()
errors["momentum 0.1, eval mode"] = (pictures(usual, False) - x).square().mean()
errors["momentum 0.1, loaded without the statistics"] = (pictures(lost, False) - x).square().mean()
print(f"{steps} steps with a momentum of 0.001:")
for name, error in errors.items():
    print(f"{name}: mean squared error {error:.3f}")
print("the check-up:", vaelab.checkup(model, x, loss).verdict)
print("the check-up, renewed:", vaelab.checkup(renewed, x, loss).verdict)

fig = vaelab.plots.strip({name: shown[:7] for name, shown in rows.items()}, size=0.95)
fig.get_layout_engine().set(rect=(0.01, 0, 0.99, 1))
for text in fig.findobj(match=lambda part: getattr(part, "get_text", str)() in rows):
    text.set_fontsize(14)
name = "page_train_eval.png"
fig.savefig(Path(__file__).parents[2] / "figures" / name, dpi=110, facecolor="white")
