"""The spread of the codes at two weights of the KL, and the factor that makes it 1."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

import vaelab
from vaelab.plots import BLACK, BLUE, ORANGE

vaelab.setup()
data = vaelab.load("mnist")
steps = 200 if vaelab.settings.offline() else 300
fig, axes = plt.subplots(2, 1, figsize=(8, 4.6), sharex=True)
bins = torch.linspace(-15, 15, 151).numpy()
for ax, weight, colour in zip(axes, (1.0, 1e-6), (BLUE, ORANGE), strict=True):
    torch.manual_seed(vaelab.settings.seed())
    model = vaelab.mlp_vae((1, 28, 28), latent_dim=20)
    vaelab.fit(model, data.x_train, max_steps=steps, beta=weight)
    with torch.no_grad():
        z = model.reparameterise(*model.encode(data.x_test))
    spread = z.std()
    again = (z / spread).std()
    print(f"KL weight {weight:g}: standard deviation {spread:.2f}, factor {1 / spread:.4f}")
    print(f"After the factor the standard deviation is {again:.2f}.")
    ax.hist(z.flatten().numpy(), bins=bins, density=True, color=colour)
    ax.set_title(
        f"KL weight {weight:g}:  std {spread:.2f},  1 / std = {1 / spread:.3f}", fontsize=15
    )
    ax.set(yticks=[], ylim=(0, 0.45))
    ax.plot(bins, torch.distributions.Normal(0, 1).log_prob(torch.tensor(bins)).exp(), color=BLACK)
    ax.tick_params(labelsize=13)
axes[0].text(1.8, 0.3, "black: N(0, 1)", fontsize=13)
axes[1].set_xlabel("values of the codes", fontsize=14)
print(f"1 / 0.18215 is {1 / 0.18215:.2f}.")
fig.savefig(Path(__file__).parents[2] / "figures" / "page_latent_scale.png", dpi=110)
