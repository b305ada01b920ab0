"""Small sets of other kinds than those in sets.py: drawn here, or cut out of what is there."""

import functools
import math

import torch
from sklearn import datasets

from ..sets import digits8, generator, patches, split, uniform

RED, YELLOW = torch.tensor([0.9, 0.15, 0.05]), torch.tensor([0.95, 0.8, 0.1])
NIGHT = torch.tensor([0.05, 0.1, 0.3])


def grid(side):
    """Row and column numbers, both [side, side], from -1 to 1."""
    line = torch.linspace(-1, 1, side)
    return torch.meshgrid(line, line, indexing="ij")


@functools.cache
def ellipses():
    """[N, 3, 24, 24] turned ellipses between red and yellow on dark blue, in [0, 1]."""
    source = generator(5)
    n = 1000
    rows, columns = grid(24)
    down = rows - uniform(-0.4, 0.4, (n, 1, 1), source)
    across = columns - uniform(-0.4, 0.4, (n, 1, 1), source)
    turn = uniform(0, math.pi, (n, 1, 1), source)
    along = down * turn.cos() + across * turn.sin()
    beside = across * turn.cos() - down * turn.sin()
    long, short = uniform(0.4, 0.6, (n, 1, 1), source), uniform(0.15, 0.35, (n, 1, 1), source)
    distance = ((along / long) ** 2 + (beside / short) ** 2).sqrt()
    mask = torch.sigmoid(8 * (1 - distance)).unsqueeze(1)
    hue = uniform(0, 1, (n, 1), source)
    colour = hue * YELLOW + (1 - hue) * RED
    ground = NIGHT * uniform(0.5, 1.0, (n, 1), source)
    x = mask * colour[..., None, None] + (1 - mask) * ground[..., None, None]
    return split(x, 700, 300)


@functools.cache
def grey_patches():
    """[N, 1, 16, 16] grey crops of the two photographs, from -1 to 1."""
    colour = patches(16)
    grey = [2 * part.mean(1, keepdim=True) - 1 for part in (colour.x_train, colour.x_test)]
    return colour._replace(x_train=grey[0], x_test=grey[1])


@functools.cache
def pen():
    """[N, 24, 2] places of a pen that draws loops of many widths and heights."""
    source = generator(6)
    n, steps = 1000, 24
    time = torch.linspace(0, 2 * math.pi, steps)
    size = uniform(0.5, 1.5, (2, n, 1), source)
    start = uniform(0, 1.5, (2, n, 1), source)
    speed = uniform(0.8, 1.2, (n, 1), source)
    across = size[0] * torch.sin(speed * time + start[0])
    up = size[1] * torch.sin(2 * speed * time + start[1])
    clean = torch.stack([across, up], dim=2)
    return split(clean + 0.03 * torch.randn(n, steps, 2, generator=source), 700, 300)


@functools.cache
def pulses():
    """[N, 1, 64] a high and a low bump on a slope, as from a heart, with mean 0 and spread 1."""
    source = generator(7)
    n, length = 1000, 64
    time = torch.linspace(0, 1, length)
    first = uniform(0.15, 0.45, (n, 1), source)
    second = first + uniform(0.2, 0.4, (n, 1), source)
    high = uniform(1.0, 2.0, (n, 1), source) * torch.exp(-0.5 * ((time - first) / 0.05) ** 2)
    low = uniform(0.4, 1.0, (n, 1), source) * torch.exp(-0.5 * ((time - second) / 0.08) ** 2)
    slope = uniform(-0.5, 0.5, (n, 1), source) * time
    x = high - low + slope + 0.03 * torch.randn(n, length, generator=source)
    x = (x - x.mean()) / x.std()
    return split(x.unsqueeze(1), 700, 300)


@functools.cache
def sensors():
    """[N, 16] sensors that follow three hidden causes, each with a noise of its own, standardised.

    The noise is from 0.05 to 0.6 of a column's spread or so.
    """
    source = generator(8)
    n, columns = 1200, 16
    causes = torch.randn(n, 3, generator=source)
    mixing = torch.randn(3, columns, generator=source)
    bend = torch.randn(3, columns, generator=source)
    clean = causes @ mixing + torch.sin(2 * causes @ bend)
    noise = torch.linspace(0.05, 1.0, columns) * torch.randn(n, columns, generator=source)
    x = clean + noise
    return split((x - x.mean(0)) / x.std(0), 800, 300)


@functools.cache
def dials():
    """[N, 1, 16, 16] dials with one hand, in [0, 1]; labels [N, 2]: sine and cosine of its angle.

    The hand's length, width and shade, and the shade of the ring, are free.
    """
    source = generator(9)
    n = 1000
    rows, columns = grid(16)
    angle = uniform(0, 2 * math.pi, (n, 1, 1), source)
    along = columns * angle.cos() + rows * angle.sin()
    beside = columns * angle.sin() - rows * angle.cos()
    length, width = uniform(0.4, 0.8, (n, 1, 1), source), uniform(0.06, 0.2, (n, 1, 1), source)
    inside = torch.sigmoid(30 * along) * torch.sigmoid(30 * (length - along))
    hand = inside * torch.exp(-((beside / width) ** 2)) * uniform(0.4, 0.9, (n, 1, 1), source)
    radius = (rows**2 + columns**2).sqrt()
    ring = torch.exp(-(((radius - 0.9) / 0.08) ** 2)) * uniform(0.1, 0.8, (n, 1, 1), source)
    labels = torch.cat([angle.sin(), angle.cos()], dim=1).squeeze(2)
    return split(torch.maximum(hand, ring).unsqueeze(1), 700, 300, labels)


@functools.cache
def binary_digits():
    """[N, 64] digits of 8x8 whose values are 0 or 1."""
    grey = digits8()
    parts = [(part > 0.45).float().flatten(1) for part in (grey.x_train, grey.x_test)]
    return grey._replace(x_train=parts[0], x_test=parts[1])


@functools.cache
def wine():
    """[178, 13] scikit-learn's wines, standardised by the 118 training rows, 60 held out."""
    x = torch.tensor(datasets.load_wine().data, dtype=torch.float32)
    data = split(x, 118, 60)
    mean, spread = data.x_train.mean(0), data.x_train.std(0)
    return data._replace(
        x_train=(data.x_train - mean) / spread, x_test=(data.x_test - mean) / spread
    )
