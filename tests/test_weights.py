"""Weights that are as they were drawn are told from weights that were trained."""

import pytest
import torch
from torch import nn
from ward.patients import ConvNet, Net, data, kl, logits_bce, train

from vaelab.clinic.observation import Patient
from vaelab.clinic.weights import drawn_parts
from vaelab.clinic.wiring import read_wiring


def elbo(r, x, mu, logvar):
    return logits_bce(r, x) + kl(mu, logvar)


def drawn(model):
    """`Drawn` of a model for 28 x 28 images."""
    x = data()[1][:16]
    return drawn_parts(model, read_wiring(Patient(model=model, x=x), x, None))


def layers(model):
    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    return [module for module in model.modules() if isinstance(module, kinds)]


MODELS = {
    "mlp": Net,
    "few units": lambda: Net(hidden=32, latents=2),
    "batchnorm": lambda: Net(norm=True),
    "convolutions": ConvNet,
}


@pytest.mark.parametrize("name", MODELS)
def test_weights_as_torch_draws_them(name):
    for seed in range(5):
        torch.manual_seed(seed)
        assert drawn(MODELS[name]()).everything, seed


INITS = {
    "uniform, Xavier": nn.init.xavier_uniform_,
    "normal, Xavier": nn.init.xavier_normal_,
    "uniform, Kaiming": nn.init.kaiming_uniform_,
    "normal, Kaiming": nn.init.kaiming_normal_,
    "orthogonal": nn.init.orthogonal_,
    "normal, 0.02": lambda weight: nn.init.normal_(weight, 0.0, 0.02),
    "truncated normal": lambda weight: nn.init.trunc_normal_(weight, std=0.02),
}


@pytest.mark.parametrize("name", INITS)
def test_weights_as_people_draw_them(name):
    torch.manual_seed(0)
    model = Net()
    for layer in layers(model):
        INITS[name](layer.weight)
        nn.init.zeros_(layer.bias)
    assert drawn(model).everything


@pytest.mark.parametrize("build", [lambda: Net(end=None), lambda: ConvNet(end=None)])
@pytest.mark.parametrize("steps, rate", [(5, 1e-2), (10, 1e-3), (60, 1e-4)])
def test_a_few_steps_of_training_are_seen(build, steps, rate):
    torch.manual_seed(0)
    model = train(build(), data()[0], elbo, steps=steps, lr=rate, batch=32)
    found = drawn(model)
    assert not found.encoder and not found.decoder


def test_plain_descent_is_seen():
    torch.manual_seed(0)
    model = Net(end=None)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    found = drawn(train(model, data()[0], elbo, steps=50, optimizer=optimizer))
    assert not found.encoder and not found.decoder


@pytest.mark.parametrize("trained", ["encoder", "decoder"])
def test_a_part_that_did_not_train_is_told(trained):
    torch.manual_seed(0)
    model = Net(end=None)
    encoder = [*model.encoder.parameters(), *model.mu.parameters(), *model.logvar.parameters()]
    parts = {"encoder": encoder, "decoder": [*model.decode.parameters()]}
    optimizer = torch.optim.Adam(parts[trained], lr=1e-3)
    found = drawn(train(model, data()[0], elbo, steps=20, optimizer=optimizer))
    assert found.encoder == (trained == "decoder")
    assert found.decoder == (trained == "encoder")
    assert not found.everything


def test_weights_that_tell_nothing_are_no_evidence_for_drawn_ones():
    """Normal weights without biases may be trained or not."""
    torch.manual_seed(0)
    model = Net()
    for layer in layers(model):
        nn.init.normal_(layer.weight, 0.0, 0.02)
        layer.bias = None
    found = drawn(model)
    assert not found.encoder and not found.decoder
