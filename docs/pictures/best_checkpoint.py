"""KL warm-up: the loss with the weight of its step picks one checkpoint, the full loss another."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

import vaelab
from vaelab import plots

vaelab.setup()
data = vaelab.load("mnist")
torch.manual_seed(vaelab.settings.seed())
model = vaelab.mlp_vae((1, 28, 28), latent_dim=20)
every = 30 if vaelab.settings.offline() else 100
held_out = data.x_test[:2000]
step, weight, error, kl = [], [], [], []


def warm_up(progress):
    return min(1.0, progress / 0.8)  # weight 1 after four fifths of the training


def measure(done, model):
    if done % every:
        return
    now = vaelab.evaluate(model, held_out)
    step.append(done)
    weight.append(warm_up((done - 1) / (20 * every - 1)))
    error.append(now["reconstruction"])
    kl.append(now["kl"])


vaelab.fit(
    model,
    data.x_train,
    beta=warm_up,
    schedule="constant",
    lr=1e-3,
    max_steps=20 * every,
    on_step=measure,
    progress=False,
)
weighted = [e + w * k for e, w, k in zip(error, weight, kl, strict=True)]
full = [e + k for e, k in zip(error, kl, strict=True)]
wrong, right = weighted.index(min(weighted)), full.index(min(full))
print(f"smallest weighted loss: step {step[wrong]} of {step[-1]:,}, at weight {weight[wrong]:.2f}")
print(f"  its full loss: {full[wrong]:.1f} nats, KL {kl[wrong]:.1f}")
print(f"smallest full loss: step {step[right]}, at weight {weight[right]:.2f}")
print(f"  its full loss: {full[right]:.1f} nats, KL {kl[right]:.1f}")

fig, ax = plt.subplots(figsize=(7.2, 3.6))
ax.plot(step, weighted, color=plots.ORANGE, lw=3, label="weight of that step")
ax.plot(step, full, color=plots.BLUE, lw=3, label="final weight 1")
ax.plot(step[wrong], weighted[wrong], "o", color=plots.ORANGE, ms=12)
ax.plot(step[right], full[right], "o", color=plots.BLUE, ms=12)
ax.plot([step[wrong]] * 2, [weighted[wrong], full[wrong]], ":", color="black")
ax.plot(step[wrong], full[wrong], "x", color="black", ms=12, mew=3)
ax.text(step[wrong], full[wrong] + 6, f"picked: {full[wrong]:.1f}", fontsize=13)
ax.text(step[right], full[right] + 6, f"best: {full[right]:.1f}", ha="right", fontsize=13)
ax.set_xlabel("step", fontsize=12)
ax.set_ylabel("held-out loss (nats)", fontsize=12)
ax.legend(fontsize=12)

fig.savefig(Path(__file__).parents[2] / "figures" / "page_best_checkpoint.png", dpi=110)
