"""The rows that the model is checked on, by themselves and beside those that it was trained on."""

from dataclasses import dataclass

import numpy as np
import torch

from ..latents import two_sample_test

MOST_ROWS = 300  # of each kind that are compared
MOST_LOOKED_AT = 1000  # of each kind that are looked at by themselves
COMPONENTS = 20  # principal axes that a classifier gets of a row
FEWEST = 20  # rows for a classifier
WIDE = 16  # values in a row that would not be equal by chance
DISTINCT = 20  # different values that make a set of numbers continuous


@dataclass(frozen=True)
class Rows:
    """What is odd about a set of rows.

    constant: the share of rows that hold one value only. commonest: the share of the commonest
    row. mark, marked: a value far from all others that comes back often, and its share.
    """

    constant: float
    commonest: float
    mark: float | None
    marked: float


@dataclass(frozen=True)
class Beside:
    """x beside the rows that the model was trained on.

    odd: what is odd about those rows. accuracy, p_value: of a classifier that tells the two apart;
    0.5 is chance. shift: how far the values' means and standard deviations differ, as a share of
    the training rows' variance. error, train_error: mean squared error [N] of each row.
    inputs_accuracy: of a classifier that tells the inputs from those of training.
    """

    odd: Rows
    accuracy: float
    p_value: float
    shift: float
    error: torch.Tensor | None
    train_error: torch.Tensor | None
    inputs_accuracy: float

    @property
    def told_apart(self):
        """Whether the classifier tells x from the training rows, far beyond chance."""
        return self.accuracy >= 0.8 and self.p_value <= 1e-4

    @property
    def ratio(self):
        """The error on x over that on the training rows; 1 where it is not known."""
        if self.train_error is None:
            return 1.0
        return (self.error.mean() / self.train_error.mean().clamp(min=1e-12)).item()


def look_at(x):
    """`Rows` of x [N, ...], by its first rows."""
    flat = x[:MOST_LOOKED_AT].flatten(1)
    _, counts = flat.unique(dim=0, return_counts=True)
    constant = (flat == flat[:, :1]).all(1).double().mean().item()
    constant = constant if flat.shape[1] >= WIDE else 0.0
    return Rows(constant, counts.max().item() / len(flat), *_mark(flat))


def _mark(flat):
    """(value, share) of a number that stands far outside and comes back, as -999 for missing."""
    values, counts = flat.flatten().unique(return_counts=True)
    if not flat.is_floating_point() or len(values) < DISTINCT:
        return None, 0.0
    ends = [(0, values[1] - values[0]), (len(values) - 1, values[-1] - values[-2])]
    for place, gap in ends:
        share = counts[place].item() / flat.numel()
        rest = flat[flat != values[place]]
        some = rest[:: max(1, len(rest) // 100_000)]
        width = some.quantile(0.99) - some.quantile(0.01)
        if 0.005 < share < 0.5 and gap > 0.5 * width:
            return values[place].item(), share
    return None, 0.0


def compare(x, x_train, error, train_error, inputs_accuracy=0.5, seed=0):
    """`Beside` of x [N, ...] and x_train [M, ...]; the errors [N] and [M] of the model, or None."""
    few, few_train = _some(x), _some(x_train)
    accuracy, p_value = _told_apart(few, few_train, seed)
    return Beside(
        odd=look_at(x_train),
        accuracy=accuracy,
        p_value=p_value,
        shift=_shift(few, few_train),
        error=error,
        train_error=train_error,
        inputs_accuracy=inputs_accuracy,
    )


def compare_inputs(inputs, inputs_train, seed=0):
    """The best accuracy at which one of the inputs is told from the same one of training."""
    accuracies, known = [0.5], tensors_of(inputs_train)
    for name, one in tensors_of(inputs).items():
        other = known.get(name)
        if other is not None and one[0].numel() == other[0].numel():
            accuracies.append(_told_apart(_some(one), _some(other), seed)[0])
    return max(accuracies)


def tensors_of(inputs):
    """Name or place -> tensor, of the tensors among the inputs."""
    if not isinstance(inputs, (dict, tuple, list)):
        inputs = (inputs,)
    named = inputs.items() if isinstance(inputs, dict) else enumerate(inputs)
    return {name: value for name, value in named if isinstance(value, torch.Tensor)}


def _told_apart(rows, other_rows, seed):
    """(accuracy, p-value) of a classifier between two sets of rows [N, D]; 0.5 for too few."""
    if min(len(rows), len(other_rows)) < FEWEST:
        return 0.5, 1.0
    features = _features(torch.cat([rows, other_rows]))
    test = two_sample_test(features[: len(rows)], features[len(rows) :], seed=seed)
    return test.accuracy, test.p_value


def _some(x):
    return x.reshape(len(x), -1)[:MOST_ROWS].double().cpu()


def _features(rows):
    """[N, K]: principal components of the rows, and what is simplest about each."""
    from sklearn.decomposition import PCA

    simple = [rows.mean(1), rows.std(1, correction=0), rows.amin(1), rows.amax(1)]
    features = np.column_stack([column.numpy() for column in simple])
    if rows.var(0).any():
        components = min(COMPONENTS, *rows.shape)
        pca = PCA(components, svd_solver="randomized", random_state=0)
        features = np.column_stack([pca.fit_transform(rows.numpy()), features])
    # What does not vary would be divided by zero.
    spread = features.std(0)
    varies = spread > 1e-9 * spread.max()
    return features[:, varies] if varies.any() else features[:, :1]


def _shift(x, x_train):
    """How far means and standard deviations of the values differ, beyond what chance does."""
    variance = x_train.var(0, correction=0)
    means = (x.mean(0) - x_train.mean(0)).square()
    spreads = (x.std(0, correction=0) - variance.sqrt()).square()
    by_chance = 1.5 * variance.mean() * (1 / len(x) + 1 / len(x_train))
    total = means.mean() + spreads.mean() - by_chance
    return (total / variance.mean().clamp(min=1e-12)).clamp(min=0).item()
