"""Three ranges of the same images, what the last layers reach, and the cross-entropy on each."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import vaelab
from vaelab.plots import BLUE, GREEN, GREY, ORANGE

vaelab.setup()
images = vaelab.load("mnist").x_train
steps = 60 if vaelab.settings.offline() else 120
scaled = {
    "images": images,
    "2 * images - 1": 2 * images - 1,
    "z-scores": (images - images.mean()) / images.std(),
}
colours = dict(zip(scaled, (BLUE, GREEN, ORANGE), strict=True))


def cross_entropies(x):
    """The error at each step of a VAE that is trained with the cross-entropy on logits."""
    torch.manual_seed(vaelab.settings.seed())
    model = vaelab.mlp_vae((1, 28, 28))
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    values = []
    for _ in range(steps):
        batch = x[torch.randint(len(x), (128,))]
        logits, mu, logvar = model(batch)
        error = F.binary_cross_entropy_with_logits(logits, batch, reduction="sum") / len(batch)
        loss = error + vaelab.gaussian_kl(mu, logvar).sum() / len(batch)
        adam.zero_grad()
        loss.backward()
        adam.step()
        values.append(error.item())
    return values


fig, (ranges, curves) = plt.subplots(2, 1, figsize=(8, 6.6), height_ratios=(1, 1.1))
reach = {"sigmoid reaches": (0, 1), "tanh reaches": (-1, 1)}
for row, (low, high) in enumerate(reach.values()):
    ranges.barh(row, high - low, left=low, color=GREY)
for row, (name, x) in enumerate(scaled.items(), len(reach)):
    low, high = x.min().item(), x.max().item()
    ranges.barh(row, high - low, left=low, color=colours[name])
    outside = ((x < 0) | (x > 1)).float().mean()
    values = cross_entropies(x)
    print(f"{name}: {low:.2f} to {high:.2f}, {outside:.0%} of the values outside [0, 1]")
    ends = f"{values[-1]:.0f}" if values[-1] > 0 else f"{values[-1] / 1e6:,.0f} million"
    print(f"{name}: the cross-entropy ends at {ends} nats after {steps} steps")
    curves.plot(range(1, steps + 1), values, color=colours[name], label=name)
ranges.set_yticks(range(5), [*reach, *scaled], fontsize=14)
ranges.tick_params(axis="x", labelsize=12)
ranges.set_title("The values, and what the last layer reaches", fontsize=15)
curves.axhline(0, color=GREY, ls=":")
curves.set(yscale="symlog", yticks=[1e3, 0, -1e3, -1e6, -1e9])
curves.set_title("Cross-entropy while training", fontsize=15)
curves.set_xlabel("step", fontsize=13)
curves.set_ylabel("nats per image", fontsize=13)
curves.tick_params(labelsize=12)
curves.legend(fontsize=13, loc="upper right", bbox_to_anchor=(1, 0.58))
fig.savefig(Path(__file__).parents[2] / "figures" / "page_data_range.png", dpi=110)
