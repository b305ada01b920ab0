"""What float16, bfloat16 and float32 can hold, and three numbers that are too much for float16.

Afterwards a small VAE is trained for 20 steps in each of six ways.
"""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import vaelab

device = vaelab.setup()
data = vaelab.load("mnist").to(device)
kinds = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
batch = data.x_train[:128]
first_loss = batch.numel() * math.log(2)  # untrained, each pixel costs log(2)
numbers = {"1e-8, the eps of Adam": 1e-8, "exp(12), from logvar = 12": math.exp(12)}
numbers["the loss of 128 images, summed"] = first_loss

ends = torch.finfo(torch.float16)
print(f"float16 ends at {ends.max:,.0f}, so exp(logvar) is infinite above {math.log(ends.max):.2f}")
print(f"a batch of 128 untrained images has a summed loss of {first_loss:,.0f}")
for name, number in numbers.items():
    kept = {kind: torch.tensor(number, dtype=dtype).item() for kind, dtype in kinds.items()}
    print(f"{name}: " + ", ".join(f"{value:.4g} in {kind}" for kind, value in kept.items()))


def loss(output, x, mu, logvar):
    error = F.binary_cross_entropy_with_logits(output, x, reduction="sum") / len(x)
    return error + vaelab.gaussian_kl(mu, logvar).sum(1).mean()


def train(weights=torch.float32, autocast=None, eps=1e-8, steps=20):
    """How many steps were finite, and the last loss, with the weights in one number type."""
    torch.manual_seed(vaelab.settings.seed())
    model = vaelab.mlp_vae(batch.shape[1:]).to(device, weights)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=eps)
    for step in range(steps):
        rows = torch.randint(len(data.x_train), (128,), device=device)
        x = data.x_train[rows].to(weights)
        with torch.autocast(device.type, dtype=autocast, enabled=autocast is not None):
            outputs = model(x)
        value = loss(outputs[0].float(), x.float(), outputs[1].float(), outputs[2].float())
        if not value.isfinite():
            return step, value.item()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return steps, value.item()


runs = {"model.half()": train(torch.float16), "model.bfloat16()": train(torch.bfloat16)}
runs["model.half(), Adam's eps at 1e-4"] = train(torch.float16, eps=1e-4)
runs["autocast to float16"] = train(autocast=torch.float16)
runs["autocast to bfloat16"] = train(autocast=torch.bfloat16)
runs["float32"] = train()
for name, (steps, last) in runs.items():
    print(f"{name}, the loss in float32: {steps} steps were finite, the last loss is {last:.0f}")

fig, ax = plt.subplots(figsize=(8, 3.6))
for row, (kind, dtype) in enumerate(kinds.items()):
    smallest = math.log10(torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps)
    largest = math.log10(torch.finfo(dtype).max)
    colour = vaelab.plots.ORANGE if kind == "float16" else vaelab.plots.BLUE
    ax.barh(row, largest - smallest, left=smallest, height=0.5, color=colour)
ax.set_yticks(range(3), kinds, fontsize=14)
ax.set_ylim(2.5, -1.7)
for words, number, side, height in (
    ("Adam's eps\n1e-8", 1e-8, "right", -0.5),
    ("exp(12)", math.exp(12), "left", -1.3),
    ("loss of\n128 images", first_loss, "left", -0.5),
):
    place = math.log10(number)
    ax.axvline(place, color="black", ls="--", lw=1.2)
    ax.text(place + (1 if side == "left" else -1), height, words, ha=side, va="bottom", fontsize=13)
ax.set_xticks([-40, -20, 0, 20, 40], ["1e-40", "1e-20", "1", "1e20", "1e40"], fontsize=13)
ax.set_xlabel("the numbers that each type can hold", fontsize=13)
fig.get_layout_engine().set(rect=(0.01, 0, 0.99, 1))
name = "page_half_precision.png"
fig.savefig(Path(__file__).parents[2] / "figures" / name, dpi=110, facecolor="white")
