"""The codes of a trained model are turned: the loss stays, and each latent means something else."""

from pathlib import Path

import torch
from torch.distributions import MultivariateNormal, kl_divergence

import vaelab
from vaelab.plots import strip

LATENTS = 10
vaelab.setup()
data = vaelab.load("mnist", n_test=2000)
model = vaelab.mlp_vae((1, 28, 28), latent_dim=LATENTS)
steps = 400 if vaelab.settings.offline() else 700
vaelab.fit(model, data.x_train, max_steps=steps)

model, x = model.double(), data.x_test.double()
axes = torch.eye(LATENTS).double()
turn = torch.linalg.qr(torch.randn(LATENTS, LATENTS).double()).Q


def error(z):
    """The mean cross-entropy of the pictures that the decoder makes of z."""
    return model.likelihood.nll(model.decode(z), x).mean()


with torch.no_grad():
    mu, logvar = model.encode(x)
    noise = torch.randn_like(mu)
    z = mu + torch.exp(logvar / 2) * noise
    loss = error(z) + vaelab.gaussian_kl(mu, logvar).sum(1).mean()

    turned_mu, turned_z = mu @ turn, z @ turn
    covariance = turn.T @ torch.diag_embed(logvar.exp()) @ turn
    prior = MultivariateNormal(torch.zeros(LATENTS).double(), axes)
    turned_kl = kl_divergence(MultivariateNormal(turned_mu, covariance), prior).mean()
    turned_loss = error(turned_z @ turn.T) + turned_kl

    variances = covariance.diagonal(dim1=1, dim2=2)  # the noise is not turned: one for each latent
    plain_z = turned_mu + variances.sqrt() * noise
    plain_kl = vaelab.gaussian_kl(turned_mu, variances.log()).sum(1).mean()
    plain_loss = error(plain_z @ turn.T) + plain_kl
print(f"The loss is {loss:.4f} nats before the turn, and {turned_loss:.4f} after it.")
print(f"With one variance for each turned latent it is {plain_loss - loss:.1f} nats larger.")

rows = {}
values = torch.linspace(-2.5, 2.5, 8).double()
first, second = mu.var(0).argsort(descending=True)[:2].tolist()
for name, start, back in (("before", mu[0], axes), ("turned", turned_mu[0], turn.T)):
    for latent in (first, second):
        codes = start.repeat(8, 1)
        codes[:, latent] = values
        with torch.no_grad():
            pictures = model.likelihood.mean(model.decode(codes @ back))
        rows[f"{name},\nlatent {latent + 1}"] = pictures
fig = strip(rows)
for ax in fig.axes[::8]:
    ax.texts[0].set_fontsize(14)
fig.savefig(Path(__file__).parents[2] / "figures" / "page_disentanglement.png", dpi=110)
