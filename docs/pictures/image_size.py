"""Sizes through three convolutions of stride 2 and back: 28 comes back as 32, and two cures."""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn

import vaelab
from vaelab.plots import BLUE, GREEN, ORANGE


def sides(image, output_paddings):
    """The side of the image before and after each layer."""
    x, found = image, [image.shape[-1]]
    for _ in range(3):
        x = nn.Conv2d(1, 1, 3, stride=2, padding=1)(x)
        found.append(x.shape[-1])
    for extra in output_paddings:
        x = nn.ConvTranspose2d(1, 1, 3, stride=2, padding=1, output_padding=extra)(x)
        found.append(x.shape[-1])
    return found


def features(side):
    """How many numbers five such convolutions leave of an image, with 512 channels at the end."""
    x = torch.zeros(1, 1, side, side)
    for channels in (32, 64, 128, 256, 512):
        x = nn.Conv2d(x.shape[1], channels, 3, stride=2, padding=1)(x)
    return x.flatten(1).shape[1]


def draw_row(ax, found, title):
    """One square for each size; the last one orange if it is not the first one."""
    colours = [BLUE] * 6 + [GREEN if found[-1] == found[0] else ORANGE]
    for place, (side, colour) in enumerate(zip(found, colours, strict=True)):
        width = side / 40
        ax.add_patch(plt.Rectangle((place - width / 2, -width / 2), width, width, color=colour))
        ax.text(place, -0.66, str(side), ha="center", fontsize=17, weight="bold", color=colour)
    ax.set(xlim=(-0.5, 6.5), ylim=(-0.75, 0.5), aspect="equal")
    ax.set_title(title, fontsize=15)
    ax.set_axis_off()


vaelab.setup()
image = torch.zeros(1, 1, 28, 28)
rows = {
    "Every layer back doubles: the output is too large": sides(image, (1, 1, 1)),
    "Cure 1: output_padding 0, 1, 1": sides(image, (0, 1, 1)),
    "Cure 2: pad the images to 32": sides(F.pad(image, (2, 2, 2, 2)), (1, 1, 1)),
}
fig, axes = plt.subplots(3, 1, figsize=(8, 5.4))
for ax, (title, found) in zip(axes, rows.items(), strict=True):
    draw_row(ax, found, title)
    print(f"{title}: {', '.join(map(str, found))}")
print(f"Five such convolutions leave {features(64):,} numbers of a 64 x 64 image.")
print(f"They leave {features(128):,} numbers of a 128 x 128 image.")
folded = torch.zeros(64, 512, 4, 4).view(-1, 512, 2, 2)
print(f"view(-1, 512, 2, 2) makes {len(folded)} codes of 64 codes that are 4 x 4.")
fig.savefig(Path(__file__).parents[2] / "figures" / "page_image_size.png", dpi=110)
