"""Right models with right losses and wrong weights."""

import torch
from torch import nn

from ..case import kl
from .recipe import fault
from .subjects import squares


def initialise_again(module):
    """Fresh weights for every layer inside."""
    torch.manual_seed(7)
    for layer in module.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()


@fault("learning", on="binary", accepts="untrained")
def gradients_clipped_to_nothing(recipe):
    def prepare(model, plan):
        for p in model.parameters():
            p.register_hook(lambda gradient: gradient.clamp(-1e-11, 1e-11))

    recipe.prepare = prepare


@fault("learning", on="pen", accepts="untrained")
def learning_rate_of_zero(recipe):
    recipe.plan.rate, recipe.plan.steps = 0.0, 50


@fault("learning", on="two levels", accepts="encoder-frozen untrained")
def encoder_not_given_to_the_optimizer(recipe):
    def prepare(model, plan):
        plan.parameters = [*model.net.project.parameters(), *model.net.main.parameters()]

    recipe.prepare = prepare


@fault("learning", on="spatial", accepts="untrained no-gradient")
def decoder_frozen(recipe):
    def prepare(model, plan):
        model.net.dec.requires_grad_(False)

    recipe.prepare = prepare


@fault("learning", on="dials", accepts="untrained saturated-output dead-units non-finite")
def weights_after_divergence(recipe):
    recipe.plan.rate = 0.2


@fault("learning", on="sensors", accepts="dead-units")
def biases_far_below_zero_in_the_encoder(recipe):
    def prepare(model, plan):
        nn.init.constant_(model.net.encoder[2].bias, -20.0)

    recipe.prepare = prepare


@fault("learning", on="ellipses", accepts="saturated-output")
def last_layer_a_thousand_times_too_large(recipe):
    def prepare(model, plan):
        with torch.no_grad():
            model.net.up2[2].weight.mul_(1000.0)

    recipe.prepare = prepare


@fault("learning", on="spatial", accepts="untrained encoder-frozen")
def encoder_missing_in_the_checkpoint(recipe):
    def after(model):
        initialise_again(model.net.enc)

    recipe.after = after


@fault("learning", on="binary", accepts="untrained")
def decoder_missing_in_the_checkpoint(recipe):
    def after(model):
        initialise_again(model.net.decoder)

    recipe.after = after


@fault("learning", on="two levels", accepts="train-eval-gap")
def statistics_missing_in_the_checkpoint(recipe):
    def after(model):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()

    recipe.after = after


# The loss that is checked is right: the weights come from a run with another one.
@fault("learning", on="pulses", accepts="posterior-collapse")
def weights_of_a_run_with_beta_two_hundred(recipe):
    def loss(reconstruction, x, mu, logvar):
        error = squares(0.25)(None, reconstruction, x)
        return (error + 200 * kl(mu, logvar)).mean()

    recipe.training_loss = loss


@fault("learning", on="dials", accepts="non-finite")
def one_weight_that_overflowed(recipe):
    def after(model):
        with torch.no_grad():
            model.net.dec[2].weight[3, 5] = float("inf")

    recipe.after = after
