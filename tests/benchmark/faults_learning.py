"""Faults in the learning: parts that do not learn, weights that died, too little or too much of it.

The model, its loss and the data are right. A fault changes weights or gradients of the wired model
before training, or the plan of training.
"""

import torch
from torch import nn

from .case import fault, has

# Weights or gradients of the encoder stay as they were drawn.
NO_LEARNING = "encoder-frozen encoder-detached no-gradient"


def first_rows(data, n=8):
    """(x, labels...) of a few training rows."""
    rows = (data.x_train[:n],)
    return rows if data.labels_train is None else (*rows, data.labels_train[:n])


def reached_by(value, parameters):
    """Positions of the parameters on which a scalar depends."""
    gradients = torch.autograd.grad(value, parameters, allow_unused=True)
    return {i for i, gradient in enumerate(gradients) if gradient is not None}


def halves(wired, data):
    """(parameters of the encoder, all others): the first decide mu and logvar, not the decoder."""
    wired.eval()
    parameters = list(wired.parameters())
    x, *labels = first_rows(data)
    mu, logvar = wired.encode(x, *labels)
    encoder = reached_by(mu.sum() + logvar.sum(), parameters)
    decoded = wired.decode(mu.detach(), *labels)
    encoder -= reached_by(decoded.sum(), parameters)
    inside = [p for i, p in enumerate(parameters) if i in encoder]
    outside = [p for i, p in enumerate(parameters) if i not in encoder]
    return inside, outside


def replace_encode(wired, change):
    """The encoder's two outputs go through a function of (mu, logvar)."""
    encode = wired.encode

    def changed(x, *labels):
        return change(*encode(x, *labels))

    wired.encode = changed


def last_bias(wired, data):
    """The bias of the layer that the decoder calls last."""
    called = []
    hooks = []
    for module in wired.modules():
        if getattr(module, "bias", None) is not None:
            hooks.append(module.register_forward_hook(lambda layer, *_: called.append(layer)))
    wired.eval()
    x, *labels = first_rows(data)
    with torch.no_grad():
        wired.decode(wired.encode(x, *labels)[0], *labels)
    for hook in hooks:
        hook.remove()
    return called[-1].bias


def is_batchnorm(module):
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def has_bounded_outputs(subject):
    """Outputs end in a sigmoid each, inside the decoder or inside the loss."""
    bounded = not subject.traits.isdisjoint({"sigmoid", "logits"})
    return bounded and "tokens" not in subject.traits


# ---- parts that do not learn


@fault("learning", NO_LEARNING)
def encoder_frozen(wired, data, plan):
    for parameter in halves(wired, data)[0]:
        parameter.requires_grad_(False)


@fault("learning", "encoder-frozen untrained")
def encoder_missing_from_the_optimizer(wired, data, plan):
    plan.parameters = halves(wired, data)[1]


@fault("learning", "encoder-detached no-gradient")
def mu_detached(wired, data, plan):
    replace_encode(wired, lambda mu, logvar: (mu.detach(), logvar))


@fault("learning", "encoder-detached no-gradient logvar")
def logvar_detached(wired, data, plan):
    replace_encode(wired, lambda mu, logvar: (mu, logvar.detach()))


@fault("learning", NO_LEARNING)
def both_outputs_of_the_encoder_detached(wired, data, plan):
    replace_encode(wired, lambda mu, logvar: (mu.detach(), logvar.detach()))


# ---- too much, too little


@fault("learning", "dead-units saturated-output logvar non-finite")
def rate_a_hundred_times_too_high(wired, data, plan):
    plan.rate *= 100


@fault("learning", "untrained")
def rate_a_thousand_times_too_low(wired, data, plan):
    plan.rate /= 1000


@fault("learning", "untrained")
def untrained(wired, data, plan):
    plan.steps = 0


@fault("learning", "overfit")
def thirty_rows_only(wired, data, plan):
    plan.steps *= 4
    few = data._replace(x_train=data.x_train[:30])
    if data.labels_train is None:
        return few
    return few._replace(labels_train=data.labels_train[:30])


# Weights shrink until nothing passes: outputs are alike because the decoder does not read z.
@fault("learning", "decoder-ignores-z posterior-collapse dead-units")
def weight_decay_of_one(wired, data, plan):
    plan.weight_decay = 1.0


# ---- layers that cannot


@fault("learning", "saturated-output", has_bounded_outputs)
def last_bias_far_down(wired, data, plan):
    with torch.no_grad():
        last_bias(wired, data).fill_(-20.0)


@fault("learning", "dead-units", has("relu"))
def encoder_starts_dead(wired, data, plan):
    """Large negative biases before a ReLU: no input switches these units on."""
    inside = {id(parameter) for parameter in halves(wired, data)[0]}
    layers = [m for m in wired.modules() if id(getattr(m, "bias", None)) in inside]
    norms = [layer for layer in layers if is_batchnorm(layer)]
    first = (norms or layers)[0]  # a BatchNorm would take away the bias before it
    with torch.no_grad():
        first.bias.fill_(-30.0)


@fault("learning", "train-eval-gap", has("batchnorm"))
def batchnorm_never_settled(wired, data, plan):
    """Momentum 0: the running statistics stay at 0 and 1."""
    for module in wired.modules():
        if is_batchnorm(module):
            module.momentum = 0.0
