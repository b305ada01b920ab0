"""The KL of one latent against its log-variance, at mu 0: the formula, and three slips."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch

import vaelab
from vaelab import plots

vaelab.setup()
logvar = torch.arange(-4000, 4001) / 1000
formulas = {
    "right": 0.5 * (logvar.exp() - 1 - logvar),
    "-1 left out": 0.5 * (logvar.exp() - logvar),
    "exp(logvar / 2)": 0.5 * (torch.exp(logvar / 2) - 1 - logvar),
    "sign flipped": -0.5 * (logvar.exp() - 1 - logvar),
}
styles = [(plots.BLUE, "-"), (plots.GREEN, "--"), (plots.ORANGE, "-"), (plots.PINK, "-")]

fig, ax = plt.subplots(figsize=(7, 3.8))
for (name, kl), (colour, dashes) in zip(formulas.items(), styles, strict=True):
    ax.plot(logvar, kl, dashes, color=colour, lw=3, label=name)
    lowest = kl.argmin()
    if lowest in (0, len(kl) - 1):
        print(f"{name}: no minimum, {kl[lowest]:.1f} at the end of the axis")
        continue
    ax.plot(logvar[lowest], kl[lowest], "o", color=colour, ms=10)
    variance = logvar[lowest].exp()
    print(
        f"{name}: minimum {kl[lowest]:.3f} at logvar {logvar[lowest]:.3f}, variance {variance:.2f}"
    )
ax.axvline(0, color="black", lw=1)
ax.axhline(0, color="black", lw=1)
ax.set(xlim=(-3, 3), ylim=(-2.2, 2.2))
ax.set_xlabel("logvar (the prior has 0)", fontsize=12)
ax.set_ylabel("KL in nats", fontsize=12)
ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=12)

fig.savefig(Path(__file__).parents[2] / "figures" / "page_kl_formula.png", dpi=110)
