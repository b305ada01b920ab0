"""The KL rises in a healthy training, where the total falls. Nearly without a KL both rise.

Both trainings have the same first weights, batches and steps. All numbers are of held-out images.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

import vaelab
from vaelab import plots

vaelab.setup()
data = vaelab.load("mnist")
every = 6 if vaelab.settings.offline() else 25
held_out = data.x_test[:1000]


def train(beta):
    torch.manual_seed(vaelab.settings.seed())
    model = vaelab.mlp_vae((1, 28, 28), latent_dim=20)
    rows = [vaelab.evaluate(model, held_out)]

    def measure(step, model):
        if step % every == 0:
            rows.append(vaelab.evaluate(model, held_out))

    steps = 24 * every
    vaelab.fit(model, data.x_train, beta=beta, max_steps=steps, on_step=measure, progress=False)
    return rows


trainings = {"KL weight 1: normal": train(1.0), "KL weight 0.001: not normal": train(0.001)}

fig, axes = plt.subplots(2, 2, figsize=(7.4, 4.4), sharex=True, sharey="row")
for column, (title, rows) in zip(axes.T, trainings.items(), strict=True):
    step = [every * number for number in range(len(rows))]
    total = [row["negative_elbo"] for row in rows]
    kl = [row["kl"] for row in rows]
    best = total.index(min(total))
    print(f"{title}: KL from {kl[0]:.1f} to {kl[-1]:.1f} nats")
    print(f"  error plus KL from {total[0]:.0f} to {total[-1]:.0f} nats")
    print(f"  lowest {total[best]:.0f} nats, at step {step[best]} of {step[-1]}, KL {kl[best]:.0f}")
    column[0].plot(step, total, color=plots.BLUE, lw=3)
    column[0].set_title(title, fontsize=14)
    column[1].plot(step, kl, color=plots.ORANGE, lw=3)
    column[1].set_xlabel("step", fontsize=12)
axes[0, 0].set_ylabel("error plus KL\n(nats)", fontsize=12)
axes[1, 0].set_ylabel("KL (nats)", fontsize=12)
axes[0, 0].set_ylim(0, 600)

fig.savefig(Path(__file__).parents[2] / "figures" / "page_kl_goes_up.png", dpi=110)
