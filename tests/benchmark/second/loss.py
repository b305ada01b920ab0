"""Losses that are wrong in one place; they are trained and checked."""

import torch
import torch.nn.functional as F

from ..case import kl
from .recipe import fault
from .subjects import logits_error, sigmoid_error, squares, two_headed_error


def each_kl(mu, logvar):
    """[B, L] nats."""
    return 0.5 * (mu**2 + logvar.exp() - 1 - logvar)


# With a squared error, a wrong weight of the KL and a wrong sigma are one and the same number.
@fault("loss", on="ellipses", accepts="loss-scale sigma")
def mean_squared_error_divided_by_the_batch_as_well(recipe):
    def loss(reconstruction, x, mu, logvar):
        return F.mse_loss(reconstruction, x) / len(x) + kl(mu, logvar).mean()

    recipe.loss = loss


@fault("loss", on="binary", accepts="loss-scale")
def beta_is_the_latent_size(recipe):
    def loss(reconstruction, x, mu, logvar):
        error = logits_error(None, reconstruction, x)
        return (error + mu.shape[1] * kl(mu, logvar)).mean()

    recipe.loss = loss


@fault("loss", on="dials", accepts="loss-scale batch-dependent-beta sigma")
def kl_summed_over_the_batch_and_averaged_over_latents(recipe):
    def loss(reconstruction, x, mu, logvar):
        error = squares(0.1)(None, reconstruction, x).mean()
        return error + each_kl(mu, logvar).sum(0).mean()

    recipe.loss = loss


# A KL of weight 0 may be called a wrong weight, or no KL at all.
@fault("loss", on="two levels", accepts="loss-scale kl-form")
def annealing_that_never_begins(recipe):
    epoch, warm_up = 0, 100

    def loss(reconstruction, x, mu, logvar):
        weight = min(1.0, epoch / warm_up)  # nobody counts the epochs
        return (sigmoid_error(None, reconstruction, x) + weight * kl(mu, logvar)).mean()

    recipe.loss = loss


@fault("loss", on="sensors", accepts="no-gradient")
def error_of_a_detached_reconstruction(recipe):
    def loss(reconstruction, x, mu, logvar):
        error = two_headed_error(None, reconstruction.detach(), x)
        return (error + kl(mu, logvar)).mean()

    recipe.loss = loss


@fault("loss", on="pulses", accepts="outputs-reordered rows-mixed")
def targets_in_another_order(recipe):
    def loss(reconstruction, x, mu, logvar):
        targets = x.flip(0)  # from a second loader
        return (squares(0.25)(None, reconstruction, targets) + kl(mu, logvar)).mean()

    recipe.loss = loss


# Cured in the KL, or by a noise of exp(logvar), which makes the head a log of sigma.
@fault("loss", on="binary", accepts="kl-form logvar noise")
def kl_that_takes_logvar_for_the_log_of_sigma(recipe):
    def loss(reconstruction, x, mu, logvar):
        price = 0.5 * (mu**2 + (2 * logvar).exp() - 1 - 2 * logvar).sum(1)
        return (logits_error(None, reconstruction, x) + price).mean()

    recipe.loss = loss


@fault("loss", on="sensors", accepts="kl-form")
def means_that_cost_nothing(recipe):
    def loss(reconstruction, x, mu, logvar):
        price = 0.5 * (logvar.exp() - 1 - logvar).sum(1)
        return (two_headed_error(None, reconstruction, x) + price).mean()

    recipe.loss = loss


@fault("loss", on="binary", accepts="kl-form")
def sigma_where_its_square_belongs(recipe):
    def loss(reconstruction, x, mu, logvar):
        price = 0.5 * (mu**2 + (0.5 * logvar).exp() - 1 - logvar).sum(1)
        return (logits_error(None, reconstruction, x) + price).mean()

    recipe.loss = loss


@fault("loss", on="pen", accepts="partial-error")
def only_the_first_coordinate(recipe):
    def loss(reconstruction, x, mu, logvar):
        error = squares(0.2)(None, reconstruction[..., 0], x[..., 0])
        return (error + kl(mu, logvar)).mean()

    recipe.loss = loss


@fault("loss", on="pulses", accepts="shape-broadcast")
def a_target_without_its_channel(recipe):
    def loss(reconstruction, x, mu, logvar):
        squared = (reconstruction - x.squeeze(1)) ** 2  # [B, B, 64]
        error = squared.mean() * x[0].numel() / (2 * 0.25**2)
        return error + kl(mu, logvar).mean()

    recipe.loss = loss


@fault("loss", on="sensors", accepts="loss-sign")
def log_likelihood_without_its_minus(recipe):
    def loss(reconstruction, x, mu, logvar):
        log_likelihood = -two_headed_error(None, reconstruction, x)
        return (log_likelihood + kl(mu, logvar)).mean()

    recipe.loss = loss


@fault("loss", on="binary", accepts="kl-sign")
def kld_added_as_the_paper_writes_it(recipe):
    """The paper's formula is minus the KL, for a bound that is maximised."""

    def loss(reconstruction, x, mu, logvar):
        kld = 0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1)
        return (logits_error(None, reconstruction, x) + kld).mean()

    recipe.loss = loss


@fault("loss", on="sensors", accepts="sigma loss-scale")
def uncertainty_without_its_price(recipe):
    def loss(reconstruction, x, mu, logvar):
        mean, x_logvar = reconstruction.chunk(2, dim=1)
        error = 0.5 * ((x - mean) ** 2 / x_logvar.exp()).sum(1)
        return (error + kl(mu, logvar)).mean()

    recipe.loss = loss


@fault("loss", on="binary", accepts="activated-twice out-of-reach range-mismatch")
def sigmoid_before_the_loss_with_logits(recipe):
    def loss(reconstruction, x, mu, logvar):
        error = logits_error(None, torch.sigmoid(reconstruction), x)
        return (error + kl(mu, logvar)).mean()

    recipe.loss = loss


@fault("loss", on="binary", accepts="swapped-arguments")
def target_given_as_the_prediction(recipe):
    def loss(reconstruction, x, mu, logvar):
        return (logits_error(None, x, reconstruction) + kl(mu, logvar)).mean()

    recipe.loss = loss
