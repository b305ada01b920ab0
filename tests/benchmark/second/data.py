"""Rows that are wrong in training, or unlike those of training when the model is checked."""

import torch

from .recipe import fault


@fault("data", on="spatial", accepts="data-mismatch out-of-reach range-mismatch")
def normalised_twice(recipe):
    """Rows from -1 to 1 become rows from -3 to 1, which a tanh cannot give either."""
    recipe.data = recipe.data._replace(x_test=(recipe.data.x_test - 0.5) / 0.5)


@fault("data", on="ellipses", accepts="data-mismatch")
def blue_green_red(recipe):
    recipe.data = recipe.data._replace(x_test=recipe.data.x_test.flip(1))


@fault("data", on="sensors", accepts="data-mismatch")
def columns_in_another_order(recipe):
    recipe.data = recipe.data._replace(x_test=recipe.data.x_test.roll(3, dims=1))


@fault("data", on="sensors", accepts="data-mismatch")
def a_number_that_means_missing(recipe):
    x = recipe.data.x_test.clone()
    missing = torch.rand(x.shape, generator=torch.Generator().manual_seed(3)) < 0.05
    recipe.data = recipe.data._replace(x_test=x.masked_fill(missing, -99.0))


@fault("data", on="pulses", accepts="data-mismatch range-mismatch")
def another_gain_of_the_amplifier(recipe):
    recipe.data = recipe.data._replace(x_test=5 * recipe.data.x_test)


@fault("data", on="two levels", accepts="data-mismatch")
def training_images_cut_to_whole_numbers(recipe):
    """Pictures in [0, 1] as bytes: nearly all black."""
    recipe.data = recipe.data._replace(x_train=recipe.data.x_train.byte().float())


@fault("data", on="two levels", accepts="data-mismatch")
def pictures_transposed(recipe):
    recipe.data = recipe.data._replace(x_test=recipe.data.x_test.transpose(2, 3).contiguous())


# The model learned to ignore the condition, because it was another row's.
@fault("data", on="dials", accepts="condition-ignored data-mismatch")
def conditions_of_other_rows_in_training(recipe):
    labels = recipe.data.labels_train
    recipe.data = recipe.data._replace(labels_train=labels.roll(1, dims=0))


@fault("data", on="dials", accepts="data-mismatch")
def sine_of_degrees(recipe):
    sine, cosine = recipe.data.labels_test.unbind(1)
    degrees = torch.rad2deg(torch.atan2(sine, cosine))
    labels = torch.stack([degrees.sin(), degrees.cos()], dim=1)
    recipe.data = recipe.data._replace(labels_test=labels)


# More rows cure both: the gap to the training rows is wide, and the angles are new.
@fault("data", on="dials", accepts="data-mismatch overfit")
def trained_on_a_quarter_of_the_circle(recipe):
    data = recipe.data
    chosen = (data.labels_train > 0).all(1)
    recipe.data = data._replace(
        x_train=data.x_train[chosen], labels_train=data.labels_train[chosen]
    )


@fault("data", on="pen", accepts="overfit")
def twenty_training_rows(recipe):
    recipe.data = recipe.data._replace(x_train=recipe.data.x_train[:20])


@fault("data", on="binary", accepts="outside-support out-of-reach range-mismatch")
def minus_one_and_one_under_a_cross_entropy(recipe):
    data = recipe.data
    recipe.data = data._replace(x_train=2 * data.x_train - 1, x_test=2 * data.x_test - 1)
    recipe.target = lambda x: (x + 1) / 2
