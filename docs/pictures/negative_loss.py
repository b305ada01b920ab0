"""Two losses below zero: a density above 1 (normal), a cross-entropy outside [0, 1] (a fault)."""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import vaelab
from vaelab import plots

vaelab.setup()
data = vaelab.load("mnist")
steps = 100 if vaelab.settings.offline() else 400

crossing = 1 / math.sqrt(2 * math.pi)
print(f"at its centre a Gaussian costs 0 nats at sigma {crossing:.4f}, and less than 0 below")

torch.manual_seed(vaelab.settings.seed())
model = vaelab.mlp_vae((1, 28, 28), latent_dim=20, likelihood=vaelab.Gaussian("optimal"))
vaelab.fit(model, data.x_train, max_steps=steps, progress=False)
loss = vaelab.evaluate(model, data.x_test)["negative_elbo"]
print(f"a healthy model with a learned sigma: loss {loss:.0f} nats")

mu, logvar = vaelab.posterior(model, data.x_test)
z = model.reparameterise(mu, logvar)
estimate = 0.5 * (z.square() - (z - mu).square() / logvar.exp() - logvar)
share = (estimate < 0).float().mean()
print(f"KL of one latent from one draw: {share:.0%} below zero, mean {estimate.mean():.2f} nats")

fig, (left, right) = plt.subplots(1, 2, figsize=(7.6, 3.4))
sigma = torch.linspace(0.05, 1, 200)
left.plot(sigma, sigma.log() + 0.5 * math.log(2 * math.pi), color=plots.BLUE, lw=3)
left.plot(crossing, 0, "o", color="black", ms=8)
left.annotate(
    "sigma 0.3989", (crossing, 0), (0.5, -1.1), fontsize=12, arrowprops={"arrowstyle": "->"}
)
left.set_title("Gaussian: normal", fontsize=14)
left.set_xlabel("sigma", fontsize=12)
left.set_ylabel("loss of one pixel (nats)", fontsize=12)
logit = torch.linspace(-4, 4, 100)
for pixel, colour, place in ((1, plots.BLUE, (1.2, 0.9)), (2, plots.ORANGE, (0, -3))):
    target = torch.full_like(logit, pixel)
    loss = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    right.plot(logit, loss, color=colour, lw=3)
    right.text(*place, f"pixel {pixel}", color=colour, fontsize=13)
right.set_title("cross-entropy, pixel 2: a fault", fontsize=14)
right.set_xlabel("output (logit)", fontsize=12)
for ax in (left, right):
    ax.axhline(0, color="black", lw=1)

fig.savefig(Path(__file__).parents[2] / "figures" / "page_negative_loss.png", dpi=110)
