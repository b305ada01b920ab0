"""One model, one batch, three ways to report the loss: per batch, per image, per pixel."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import vaelab
from vaelab import plots

vaelab.setup()
data = vaelab.load("mnist")
torch.manual_seed(vaelab.settings.seed())
model = vaelab.mlp_vae((1, 28, 28), latent_dim=20)
steps = 200 if vaelab.settings.offline() else 900
vaelab.fit(model, data.x_train, max_steps=steps, progress=False)

x = data.x_test[:128]
with torch.no_grad():
    logits, mu, logvar = model(x)
kl = vaelab.gaussian_kl(mu, logvar).sum()
error = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
mean_image = data.x_train.mean(0).clamp(1e-4, 1 - 1e-4).expand_as(x)
landmark = F.binary_cross_entropy(mean_image, x, reduction="sum")
bars = {"VAE": (error + kl).item(), "mean image": landmark.item()}
scales = {"batch of 128": 1, "image": len(x), "pixel": x.numel()}

fig, axes = plt.subplots(1, 3, figsize=(7.2, 3))
for ax, (unit, divisor) in zip(axes, scales.items(), strict=True):
    digits = 0 if divisor == 1 else 1 if divisor == len(x) else 3
    heights = [value / divisor for value in bars.values()]
    texts = [f"{height:,.{digits}f}" for height in heights]
    print(f"nats per {unit}: VAE {texts[0]}, mean image {texts[1]}")
    drawn = ax.bar(list(bars), heights, color=[plots.BLUE, plots.GREY])
    ax.bar_label(drawn, texts, fontsize=12)
    ax.set_title(f"per {unit}", fontsize=14)
    ax.set_xticks([0, 1], ["VAE", "mean\nimage"], fontsize=12)
    ax.set_yticks([])
    ax.margins(y=0.15)
print(f"in each unit the VAE has {bars['VAE'] / bars['mean image']:.0%} of the mean image's loss")

fig.savefig(Path(__file__).parents[2] / "figures" / "page_large_loss.png", dpi=110)
