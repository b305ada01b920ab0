"""Reconstructions, draws from N(0, I), and draws from a prior fitted to the codes.

The VAE was trained with a KL weight of 0.01. Another one has the full weight.
"""

from pathlib import Path

import torch

import vaelab

device = vaelab.setup()
data = vaelab.load("mnist").to(device)
seed = vaelab.settings.seed()
steps, count = (150, 1400) if vaelab.settings.offline() else (500, 3000)
x = data.x_test[:9]


def train(weight):
    torch.manual_seed(seed)
    model = vaelab.mlp_vae(x.shape[1:], latent_dim=10).to(device)
    vaelab.fit(model, data.x_train, beta=weight, max_steps=steps, evaluate_on=200)
    return model


def sampled_codes(model):
    """One code for each of some training images, [N, 10]."""
    mu, logvar = vaelab.posterior(model, data.x_train[:count])
    torch.manual_seed(seed)
    return model.reparameterise(mu, logvar)


@torch.no_grad()
def decoded(model, z):
    return torch.sigmoid(model.decode(z))


def told(codes, draws):
    """How often a classifier tells codes from draws. 0.5 is guessing."""
    return vaelab.two_sample_test(codes, draws, seed=seed).accuracy


light, full = train(0.01), train(1.0)
for name, model in {"KL weight 0.01": light, "KL weight 1": full}.items():
    codes = sampled_codes(model)
    judged, fitted = codes.chunk(2)
    noise = torch.randn_like(judged)
    draw = vaelab.fit_prior(fitted, n_components=20, seed=seed)
    mixture = draw(len(judged), seed)
    error = (model.reconstruct(data.x_test[:500]) - data.x_test[:500]).square().mean()
    print(f"{name}: the codes have a standard deviation of {codes.std():.1f}", end=", ")
    print(f"the mean squared error is {error:.3f}")
    print(f"{name}: where 50% is guessing, told from N(0, I) {told(judged, noise):.0%}", end=", ")
    print(f"told from the fitted prior {told(judged, mixture):.0%}")
    if model is light:
        rows = {"input": x, "rebuilt": model.reconstruct(x)}
        rows["drawn from\nN(0, I)"] = decoded(model, noise[:9])
        rows["drawn from\nfitted prior"] = decoded(model, mixture[:9])

fig = vaelab.plots.strip(rows, size=0.74)
fig.get_layout_engine().set(rect=(0.01, 0, 0.99, 1))
for text in fig.findobj(match=lambda part: getattr(part, "get_text", str)() in rows):
    text.set_fontsize(13)
name = "page_bad_samples.png"
fig.savefig(Path(__file__).parents[2] / "figures" / name, dpi=110, facecolor="white")
