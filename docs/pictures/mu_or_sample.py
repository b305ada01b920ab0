"""What a VAE draws from the mean code of each image, and from three sampled codes."""

from pathlib import Path

import torch

import vaelab
from vaelab import plots

vaelab.setup()
data = vaelab.load("mnist")
torch.manual_seed(vaelab.settings.seed())
model = vaelab.mlp_vae((1, 28, 28), latent_dim=20)
steps = 200 if vaelab.settings.offline() else 900
vaelab.fit(model, data.x_train, max_steps=steps, progress=False)


def error(z):
    with torch.no_grad():
        return model.likelihood.nll(model.decode(z), data.x_test).mean().item()


mu, logvar = vaelab.posterior(model, data.x_test)
at_mu = error(mu)
at_samples = [error(model.reparameterise(mu, logvar)) for _ in range(3)]
print(f"error at mu: {at_mu:.1f} nats")
print(
    f"error at a sample: {at_samples[0]:.1f} nats, again {at_samples[1]:.1f}, {at_samples[2]:.1f}"
)
print(f"KL, the price of the noise: {vaelab.gaussian_kl(mu, logvar).sum(1).mean():.1f} nats")

shown = slice(0, 7)
rows = {"input": data.x_test[shown], "mu": torch.sigmoid(model.decode(mu[shown]))}
for number in (1, 2, 3):
    z = model.reparameterise(mu[shown], logvar[shown])
    rows[f"sample {number}"] = torch.sigmoid(model.decode(z))
fig = plots.strip(rows)
for ax in fig.axes:
    for text in ax.texts:
        text.set_fontsize(13)

fig.savefig(Path(__file__).parents[2] / "figures" / "page_mu_or_sample.png", dpi=110)
