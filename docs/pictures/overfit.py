"""The loss on the images of training and on other images, for 300 and for 60,000 images."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

import vaelab

device = vaelab.setup()
data = vaelab.load("mnist").to(device)
steps, every = (150, 15) if vaelab.settings.offline() else (1000, 50)
x_test = data.x_test[:500] if data.real else data.x_test
shuffled = torch.randperm(len(data.x_train), generator=torch.Generator().manual_seed(0))
few = 300 if data.real else 10


def train(images):
    """The loss in nats, as (step, training, held-out), every few steps."""
    torch.manual_seed(vaelab.settings.seed())
    model = vaelab.mlp_vae(images.shape[1:]).to(device)
    known, log = images[:500], []

    def measure(step, model):
        if step % every == 0:
            losses = [vaelab.evaluate(model, part)["negative_elbo"] for part in (known, x_test)]
            log.append((step, *losses))

    vaelab.fit(model, images, max_steps=steps, lr=2e-3, schedule="constant", on_step=measure)
    return log


logs = {few: train(data.x_train[shuffled[:few].to(device)])}
logs[len(data.x_train)] = train(data.x_train)
for count, log in logs.items():
    step, known, held_out = log[-1]
    print(f"{count:,} images, step {step}: {known:.0f} nats in training, {held_out:.0f} held out")
    print(f"{count:,} images: the gap at the end is {held_out - known:.1f} nats")
    best_step, _, best = min(log, key=lambda row: row[2])
    print(f"{count:,} images: the best held-out loss is {best:.0f} nats, at step {best_step}")

fig, axes = plt.subplots(1, 2, figsize=(8, 3.8), sharey=True)
for ax, (count, log) in zip(axes, logs.items(), strict=True):
    at, known, held_out = zip(*log, strict=True)
    ax.plot(at, held_out, color=vaelab.plots.ORANGE, lw=3)
    ax.plot(at, known, color=vaelab.plots.BLUE, lw=3)
    ax.set_title(f"{count:,} training images", fontsize=14)
    ax.set_xlabel("step", fontsize=13)
    ax.tick_params(labelsize=12)
axes[0].set_ylabel("loss in nats", fontsize=13)
step, known, held_out = logs[few][-1]
for words, height, offset, colour in (
    ("new images", held_out, 8, vaelab.plots.ORANGE),
    ("training images", known, -18, vaelab.plots.BLUE),
):
    place = {"xytext": (0, offset), "textcoords": "offset points", "ha": "right"}
    axes[0].annotate(words, (step, height), color=colour, fontsize=14, **place)
axes[0].margins(y=0.15)
name = "page_overfit.png"
fig.savefig(Path(__file__).parents[2] / "figures" / name, dpi=110, facecolor="white")
