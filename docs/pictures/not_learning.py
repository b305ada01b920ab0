"""Five trainings of one VAE: a healthy one, and four that do not get below the mean image."""

import copy
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

import vaelab
from vaelab import plots

vaelab.setup()
data = vaelab.load("mnist")
steps = 100 if vaelab.settings.offline() else 300
held_out = data.x_test[:1000]
mean_image = data.x_train.mean(0).clamp(1e-4, 1 - 1e-4).expand_as(held_out)
landmark = F.binary_cross_entropy(mean_image, held_out, reduction="sum").item() / len(held_out)
torch.manual_seed(vaelab.settings.seed())
untrained = vaelab.mlp_vae((1, 28, 28), latent_dim=20)


def train(rate=1e-3, cut_off=False, other_model=False, zero_grad=True):
    torch.manual_seed(vaelab.settings.seed())
    model = copy.deepcopy(untrained)
    trained = copy.deepcopy(model) if other_model else model
    optimizer = torch.optim.Adam(trained.parameters(), lr=rate)
    curve = [vaelab.evaluate(model, held_out)["negative_elbo"]]
    for step in range(steps):
        x = data.x_train[torch.randint(len(data.x_train), (128,))]
        mu, logvar = model.encode(x)
        z = model.reparameterise(mu, logvar)
        logits = model.decode(z.detach() if cut_off else z)
        loss = model.likelihood.nll(logits, x).mean() + vaelab.gaussian_kl(mu, logvar).sum(1).mean()
        if zero_grad:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 10 == 0:
            curve.append(vaelab.evaluate(model, held_out)["negative_elbo"])
    return curve


curves = {
    "another model's optimizer": train(other_model=True),
    "rate 0.000001": train(rate=1e-6),
    "no zero_grad": train(zero_grad=False),
    "encoder cut off": train(cut_off=True),
    "healthy, rate 0.001": train(),
}

fig, ax = plt.subplots(figsize=(7.6, 3.8))
colours = [plots.BLACK, plots.PINK, plots.YELLOW, plots.ORANGE, plots.BLUE]
for colour, (name, curve) in zip(colours, curves.items(), strict=True):
    print(f"{name}: from {curve[0]:.0f} to {curve[-1]:.0f} nats")
    ax.plot(range(0, steps + 1, 10), curve, color=colour, lw=3, label=name)
print(f"mean image: {landmark:.0f} nats, all trainings have {steps} steps")
ax.axhline(landmark, color=plots.GREY, ls=":", lw=2, label="mean image")
ax.set(ylim=(0, 700))
ax.set_xlabel("step", fontsize=12)
ax.set_ylabel("held-out loss (nats)", fontsize=12)
ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=12)

fig.savefig(Path(__file__).parents[2] / "figures" / "page_not_learning.png", dpi=110)
