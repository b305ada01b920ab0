"""Faults in the data: rows at check time that training never saw, or training rows that are spoilt.

The model and its loss are right. Accepted are `data-mismatch`, and the codes whose remedy brings
the rows back into the range that the model and its loss are made for.
"""

import torch

from .case import fault, has

RANGE = "data-mismatch outside-support range-mismatch out-of-reach loss-raises"
MISSING = -9.0  # how tables mark a value that nobody measured


def continuous(subject):
    """Rows are real numbers."""
    return "tokens" not in subject.traits


def columns_have_names(subject):
    """Rows are flat, and a place in a row means something."""
    return not subject.traits.isdisjoint({"table", "sequence"})


def checked(data, change):
    """The same data with other rows at check time."""
    return data._replace(x_test=change(data.x_test))


def learned(data, change):
    """The same data with other rows in training."""
    return data._replace(x_train=change(data.x_train))


def some_order(n):
    """A fixed order of n things, not the usual one."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(7))


def shuffled_places(x):
    """Every row [N, ...] with its values in the same other order."""
    flat = x.flatten(1)
    return flat[:, some_order(flat.shape[1])].reshape(x.shape)


# ---- the rows at check time


@fault("data", RANGE, has("images"), how="checked_data")
def images_from_0_to_255(data):
    return checked(data, lambda x: 255 * x)


@fault("data", RANGE, has("images"), how="checked_data")
def images_z_scored(data):
    mean, spread = data.x_train.mean(), data.x_train.std()
    return checked(data, lambda x: (x - mean) / spread)


@fault("data", RANGE, has("images"), how="checked_data")
def images_from_minus_1_to_1(data):
    return checked(data, lambda x: 2 * x - 1)


@fault("data", "data-mismatch", has("images"), how="checked_data")
def images_inverted(data):
    return checked(data, lambda x: 1 - x)


@fault("data", "data-mismatch", has("images"), how="checked_data")
def height_and_width_exchanged(data):
    return checked(data, lambda x: x.transpose(2, 3).contiguous())


@fault("data", "data-mismatch", has("images"), how="checked_data")
def pixels_shuffled(data):
    return checked(data, shuffled_places)


@fault("data", "data-mismatch", has("images"), how="checked_data")
def half_of_the_images_white(data):
    """Every second file could not be read, and its reader fills with ones."""

    def unread(x):
        x = x.clone()
        x[::2] = 1.0
        return x

    return checked(data, unread)


@fault("data", "data-mismatch range-mismatch", has("table"), how="checked_data")
def table_not_standardised(data):
    return checked(data, lambda x: 10 * x + 5)


@fault("data", "data-mismatch range-mismatch", has("table"), how="checked_data")
def missing_values_as_numbers(data):
    """One value in ten is a mark that says it is missing."""

    def marked(x):
        absent = torch.rand(x.shape, generator=torch.Generator().manual_seed(7)) < 0.1
        return x.masked_fill(absent, MISSING)

    return checked(data, marked)


@fault("data", "data-mismatch", columns_have_names, how="checked_data")
def columns_permuted(data):
    return checked(data, shuffled_places)


@fault("data", "data-mismatch", has("labels"), how="checked_data")
def labels_permuted(data):
    order = some_order(len(data.labels_test))
    return data._replace(labels_test=data.labels_test[order])


# ---- the rows in training


@fault("data", "data-mismatch condition-ignored", has("labels"), how="training_data")
def labels_permuted_in_training(data):
    """The model learns to do without them."""
    order = some_order(len(data.labels_train))
    return data._replace(labels_train=data.labels_train[order])


@fault("data", "data-mismatch range-mismatch out-of-reach", continuous, how="training_data")
def training_rows_times_a_tenth(data):
    return learned(data, lambda x: 0.1 * x)


@fault("data", "data-mismatch", has("images"), how="training_data")
def noisy_training_images(data):
    """Noise of 0.5, cut to [0, 1]: an augmentation that went too far."""
    source = torch.Generator().manual_seed(7)

    def noisy(x):
        return (x + 0.5 * torch.randn(x.shape, generator=source)).clamp(0, 1)

    return learned(data, noisy)


@fault("data", "data-mismatch overfit", how="training_data")
def one_row_repeated(data):
    """The loader returns its first row whatever row it is asked for."""
    labels = data.labels_train
    if labels is not None:
        labels = labels[:1].expand(len(labels))
    same = learned(data, lambda x: x[:1].repeat(len(x), *[1] * (x.dim() - 1)))
    return same._replace(labels_train=labels)
