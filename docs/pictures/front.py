"""Six rows of digits: the input, four failures that people describe, and a healthy VAE.

Each row below the first shows the reconstructions of a model that is trained here. The scale is
fixed, from 0 to 1, and values below 0 are shown black.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

import vaelab

device = vaelab.setup()
data = vaelab.load("mnist").to(device)
few, many = (80, 150) if vaelab.settings.offline() else (200, 600)  # steps
digits = torch.stack([data.x_test[data.y_test == k][0] for k in range(8)])  # [8, 1, 28, 28]
mean, std = data.x_train.mean(), data.x_train.std()


def train(images, latents=20, steps=few, network=vaelab.mlp_vae, likelihood=None, **options):
    """A VAE of images [N, 1, 28, 28]."""
    torch.manual_seed(vaelab.settings.seed())
    model = network(images.shape[1:], latents, likelihood=likelihood).to(device)
    vaelab.fit(model, images, max_steps=steps, evaluate_on=200, **options)
    return model


def squared_error(output, x, mu, logvar):
    """A sigmoid at the end, and a sum over pixels."""
    error = (torch.sigmoid(output) - x).square().flatten(1).sum(1)
    return (error + vaelab.gaussian_kl(mu, logvar).sum(1)).mean()


def large_rate(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


sigmoid = {"network": vaelab.conv_vae, "loss": squared_error, "optimizer": large_rate}
black = train(data.x_train, steps=20, **sigmoid)
heavy = 2 * vaelab.collapse_threshold(data.x_train)  # at half of it, codes begin to appear
blob = train(data.x_train, beta=heavy)
tanh = vaelab.Gaussian(activation="tanh")
flat = train((data.x_train - mean) / std, likelihood=tanh)  # up to 2.8, and a tanh ends at 1
blurry = train(data.x_train, latents=2)
healthy = train(data.x_train, steps=many)

rows = {"input": digits}
rows["all black"] = black.reconstruct(digits)
rows["the same\nblob"] = blob.reconstruct(digits)
rows["flat, grey"] = flat.reconstruct((digits - mean) / std) * std + mean
rows["blurry"] = blurry.reconstruct(digits)
rows["healthy"] = healthy.reconstruct(digits)
for name, pictures in rows.items():
    error = (pictures - digits).square().mean()
    words = name.replace("\n", " ")
    print(f"{words}: mean squared error {error:.3f}, brightest pixel {pictures.max():.2f}")

fig, axes = plt.subplots(len(rows), len(digits), figsize=(8, 5))
for line, (name, pictures) in zip(axes, rows.items(), strict=True):
    for ax, picture in zip(line, pictures, strict=True):
        vaelab.plots.show_image(ax, picture.clamp(0, 1))
    place = {"transform": line[0].transAxes, "ha": "right", "va": "center"}
    line[0].text(-0.15, 0.5, name, fontsize=15, **place)
fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, rect=(0.01, 0, 0.99, 1))
fig.savefig(Path(__file__).parents[2] / "figures" / "page_front.png", dpi=110, facecolor="white")
