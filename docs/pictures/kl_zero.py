"""The KL of each latent, sorted: a healthy VAE, one whose KL weighs too much, one cut in two.

All three have the same first weights, the same batches and the same steps.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

import vaelab
from vaelab import plots

vaelab.setup()
data = vaelab.load("mnist")
steps = 100 if vaelab.settings.offline() else 400
threshold = vaelab.collapse_threshold(data.x_train)


def train(beta=1.0, cut_off=False):
    torch.manual_seed(vaelab.settings.seed())
    model = vaelab.mlp_vae((1, 28, 28), latent_dim=20)
    if cut_off:  # the fault: no gradient of the error reaches the encoder
        sample = model.reparameterise
        model.reparameterise = lambda mu, logvar: sample(mu, logvar).detach()
    vaelab.fit(model, data.x_train, beta=beta, max_steps=steps, progress=False)
    return model


models = {
    "healthy": train(),
    "KL too heavy": train(beta=2 * threshold),
    "encoder cut off": train(cut_off=True),
}
colours = [plots.BLUE, plots.ORANGE, plots.PINK]

fig, axes = plt.subplots(1, 3, figsize=(7, 3), sharey=True)
for ax, colour, (name, model) in zip(axes, colours, models.items(), strict=True):
    mu, logvar = vaelab.posterior(model, data.x_test)
    kl = vaelab.gaussian_kl(mu, logvar).mean(0)
    print(f"{name}: KL {kl.sum():.2f} nats, {(kl < 0.05).sum()} of 20 latents below 0.05 nats")
    ax.bar(range(1, 21), kl.sort(descending=True).values, color=colour)
    ax.set_title(f"{name}\n{kl.sum():.1f} nats", fontsize=14)
    ax.set_xlabel("latent, sorted", fontsize=12)
    ax.set_xticks([1, 10, 20])
axes[0].set_ylabel("KL in nats", fontsize=12)
print(f"the collapse threshold is {threshold:.1f}, the heavy weight {2 * threshold:.1f}")

fig.savefig(Path(__file__).parents[2] / "figures" / "page_kl_zero.png", dpi=110)
