"""The KL of a healthy training jumps at one batch that is ten times as bright as the others."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

import vaelab
from vaelab import plots

vaelab.setup()
data = vaelab.load("mnist")
steps = 120 if vaelab.settings.offline() else 300
odd_step = 2 * steps // 3
likelihood = vaelab.Bernoulli()

model = vaelab.mlp_vae((1, 28, 28), latent_dim=20)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
with vaelab.watch(model, stop=False, every=1) as film:
    for step in range(1, steps + 1):
        x = data.x_train[torch.randint(len(data.x_train), (128,))]
        if step == odd_step:
            x = 10 * x
        logits, mu, logvar = model(x)
        error = likelihood.nll(logits, x.clamp(0, 1)).mean()
        kl = vaelab.gaussian_kl(mu, logvar).sum(1).mean()
        optimizer.zero_grad()
        (error + kl).backward()
        optimizer.step()

kl = film.record.kl
before = torch.tensor(kl[odd_step - 51 : odd_step - 1]).median()
print(f"median of the KL in the 50 steps before: {before:.1f} nats")
print(f"KL of the odd batch: {kl[odd_step - 1]:,.0f} nats")
print(f"the film says: {film.alarm}")

fig, ax = plt.subplots(figsize=(7.4, 3.4))
ax.plot(film.record.step, kl, color=plots.ORANGE, lw=2)
ax.set_yscale("log")
ax.set_xlabel("step", fontsize=13)
ax.set_ylabel("KL (nats)", fontsize=13)
ax.annotate(
    "one batch, ten times\nas bright",
    (odd_step, kl[odd_step - 1]),
    (0.08 * steps, kl[odd_step - 1] / 6),
    arrowprops={"arrowstyle": "->"},
    fontsize=14,
)
fig.savefig(Path(__file__).parents[2] / "figures" / "page_kl_spike.png", dpi=110)
