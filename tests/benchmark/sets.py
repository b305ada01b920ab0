"""Small sets that ship with scikit-learn, or that are drawn here: the same on every machine.

A set has labels only where it is asked for them, because a subject that gets labels must take them.
"""

import functools

import numpy
import torch
import torch.nn.functional as F
from sklearn import datasets

from .case import Data

SEED = 19
HUES = ((0.9, 0.2, 0.2), (0.2, 0.8, 0.3), (0.25, 0.35, 0.95), (0.9, 0.8, 0.2))


def generator(seed=SEED):
    """A source of random numbers of its own."""
    return torch.Generator().manual_seed(seed)


def split(x, n_train, n_test, labels=None):
    """`Data` of rows in random order, the first n_train for training, the next n_test held out."""
    order = torch.randperm(len(x), generator=generator())
    train, test = order[:n_train], order[n_train : n_train + n_test]
    if labels is None:
        return Data(x[train], x[test])
    return Data(x[train], x[test], labels[train], labels[test])


def uniform(low, high, shape, source):
    """Numbers between low and high."""
    return low + (high - low) * torch.rand(shape, generator=source)


@functools.cache
def digits8(labels=False):
    """[N, 1, 8, 8] handwritten digits in [0, 1], 1,000 and 400 of them. labels: 0 to 9."""
    found = datasets.load_digits()
    x = torch.tensor(found.images, dtype=torch.float32).div(16).unsqueeze(1)
    return split(x, 1000, 400, torch.tensor(found.target) if labels else None)


@functools.cache
def digits28(labels=False):
    """[N, 1, 28, 28]: the same digits in the same order, smoothly enlarged."""
    small = digits8(labels)
    return small._replace(x_train=_enlarged(small.x_train), x_test=_enlarged(small.x_test))


def _enlarged(x):
    """[N, 1, 8, 8] -> [N, 1, 28, 28]."""
    return F.interpolate(x, size=(28, 28), mode="bilinear", align_corners=False)


@functools.cache
def patches(side=16):
    """[N, 3, side, side] crops of scikit-learn's two photographs in [0, 1], 800 and 300 of them.

    They are taken at half the photographs' resolution, and may overlap.
    """
    source = generator()
    photographs = [_photograph(name) for name in ("china.jpg", "flower.jpg")]
    crops = []
    for i in range(1100):
        photograph = photographs[i % 2]
        top = _whole(photograph.shape[1] - side, source)
        left = _whole(photograph.shape[2] - side, source)
        crops.append(photograph[:, top : top + side, left : left + side])
    return split(torch.stack(crops), 800, 300)


def _photograph(name):
    """[3, H, W] in [0, 1], at half the resolution."""
    pixels = numpy.array(datasets.load_sample_image(name))
    x = torch.tensor(pixels, dtype=torch.float32).div(255).permute(2, 0, 1)
    return F.avg_pool2d(x, 2)


def _whole(below, source):
    """A whole number from 0 to below - 1."""
    return torch.randint(below, (1,), generator=source).item()


@functools.cache
def shapes16():
    """[N, 3, 16, 16] discs, squares and rings in four colours, in [0, 1]."""
    source = generator()
    n, side = 1000, 16
    line = torch.arange(side, dtype=torch.float32)
    rows, columns = torch.meshgrid(line, line, indexing="ij")
    down = uniform(5, 10, (n, 1, 1), source) - rows
    across = uniform(5, 10, (n, 1, 1), source) - columns
    size = uniform(2.5, 4.5, (n, 1, 1), source)
    kinds = torch.randint(3, (n,), generator=source)
    round_distance = (down**2 + across**2).sqrt()
    square_distance = torch.maximum(down.abs(), across.abs())
    ring_distance = (round_distance - size).abs() + size - 1.2
    distances = torch.stack([round_distance, square_distance, ring_distance])
    distance = distances[kinds, torch.arange(n)]
    mask = (size - distance + 0.5).clamp(0, 1).unsqueeze(1)  # soft edges
    hues = torch.tensor(HUES)[torch.randint(len(HUES), (n,), generator=source)]
    shade = uniform(0.7, 1.0, (n, 1), source)
    ground = uniform(0.05, 0.3, (n, 1, 1, 1), source)
    x = mask * (hues * shade)[..., None, None] + (1 - mask) * ground
    return split(x, 700, 300)


@functools.cache
def table():
    """[N, 30] breast cancer, standardised by the 398 training rows, 171 held out."""
    found = datasets.load_breast_cancer()
    x = torch.tensor(found.data, dtype=torch.float32)
    data = split(x, 398, 171)
    mean, spread = data.x_train.mean(0), data.x_train.std(0)
    scaled = [(part - mean) / spread for part in (data.x_train, data.x_test)]
    return data._replace(x_train=scaled[0], x_test=scaled[1])


@functools.cache
def waves():
    """[N, 48] sine waves of random phase, frequency and height, with noise of 0.1."""
    source = generator()
    n, length = 1000, 48
    time = torch.linspace(0, 1, length)
    frequency = uniform(1.0, 3.0, (n, 1), source)
    phase = uniform(0.0, 2 * torch.pi, (n, 1), source)
    height = uniform(0.5, 1.5, (n, 1), source)
    clean = height * torch.sin(2 * torch.pi * frequency * time + phase)
    return split(clean + 0.1 * torch.randn(n, length, generator=source), 700, 300)


@functools.cache
def tokens():
    """[N, 12] whole numbers 0 to 7: two of six fixed words of six tokens, 5% of them wrong."""
    source = generator()
    n, length = 1000, 12
    words = torch.randint(8, (6, length // 2), generator=source)
    chosen = torch.randint(len(words), (n, 2), generator=source)
    x = words[chosen].flatten(1)
    wrong = torch.rand(n, length, generator=source) < 0.05
    other = torch.randint(8, (n, length), generator=source)
    return split(torch.where(wrong, other, x), 700, 300)


@functools.cache
def tokens_one_hot():
    """[N, 96]: the same tokens, twelve places of eight values each, one of them 1."""
    whole = tokens()
    parts = [F.one_hot(x, 8).float().flatten(1) for x in (whole.x_train, whole.x_test)]
    return whole._replace(x_train=parts[0], x_test=parts[1])
