"""A VAE trained on the digit 8 only: which other digits does its loss tell from an 8?"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from sklearn.metrics import roc_auc_score

import vaelab
from vaelab.plots import BLUE, GREEN, GREY, ORANGE

vaelab.setup()
data = vaelab.load("mnist")
model = vaelab.mlp_vae((1, 28, 28), latent_dim=20)
vaelab.fit(model, data.x_train[data.y_train == 8], max_steps=400)


def auc(scores, digit):
    """How often an image of this digit gets a higher score than an 8."""
    normal, others = scores[data.y_test == 8], scores[data.y_test == digit]
    is_anomaly = [0] * len(normal) + [1] * len(others)
    return roc_auc_score(is_anomaly, torch.cat([normal, others]))


with torch.no_grad():
    mu, logvar = model.encode(data.x_test)
    draws = [model.decode(model.reparameterise(mu, logvar)) for _ in range(10)]
errors = torch.stack([model.likelihood.nll(draw, data.x_test) for draw in draws])
losses = errors.mean(0) + vaelab.gaussian_kl(mu, logvar).sum(1)
probabilities = torch.logsumexp(-errors, 0)  # of the 10 draws together, but for a constant
squares = (model.reconstruct(data.x_test) - data.x_test).square().flatten(1).sum(1)
ink = data.x_test.flatten(1).sum(1)

digits = [0, 1, 2, 3, 4, 5, 6, 7, 9]
by_loss = [auc(losses, digit) for digit in digits]
by_ink = [auc(squares / ink, digit) for digit in digits]
for digit, first, second in zip(digits, by_loss, by_ink, strict=True):
    print(f"digit {digit}: AUC {first:.2f} by the loss, {second:.2f} by the error divided by ink")
print("Guessing has an AUC of 0.5.")
print(f"The mean loss is {losses[data.y_test == 8].mean():.0f} nats for an 8.")
print(f"The mean loss is {losses[data.y_test == 1].mean():.0f} nats for a 1.")
print(f"A reconstruction probability of 10 draws has AUC {auc(-probabilities, 1):.2f} for a 1.")
print(f"The squared error as it is has AUC {auc(squares, 1):.2f} for a 1.")

fig, ax = plt.subplots(figsize=(8, 4))
places = torch.arange(len(digits))
colours = [ORANGE if value < 0.5 else BLUE for value in by_loss]
ax.bar(places, by_loss, width=0.6, color=colours, label="its own loss")
ax.plot(places, by_ink, "D", color=GREEN, ms=10, mec="white", label="error divided by ink")
ax.axhline(0.5, color=GREY, ls=":")
ax.text(8.45, 0.53, "guessing", color="#666666", fontsize=13, ha="left")
ax.text(1, by_loss[1] + 0.03, f"{by_loss[1]:.2f}", color=ORANGE, fontsize=15, ha="center")
ax.set_xticks(places, digits, fontsize=15)
ax.set_xlabel("digit, told from an 8", fontsize=14)
ax.set_ylabel("AUC", fontsize=14)
ax.tick_params(axis="y", labelsize=12)
ax.set(ylim=(0, 1.05), xlim=(-0.5, 9.6))
fig.legend(loc="outside upper center", fontsize=14, ncols=2)
fig.savefig(Path(__file__).parents[2] / "figures" / "page_anomalies.png", dpi=110)
