"""One door: every measurement takes any model, and leaves everything as it was."""

import functools
import random
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from plain_models import ConvolutionalVAE, ExamplesVAE, plain_models
from torch import nn

import vaelab
from vaelab.adapt import call, measuring, pieces, unwrap, wanted

PROBABILITIES = vaelab.Bernoulli(on="probabilities")
MODELS = plain_models()
LABELS = torch.arange(64) % 10


@pytest.fixture
def images():
    return torch.rand(64, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def everything(model, x, **options):
    """Each public measurement once, by name."""
    return {
        "posterior": vaelab.posterior(model, x, **options),
        "active_units": vaelab.active_units(model, x, **options),
        "output_variance": vaelab.output_variance(model, x, **options),
        "elbo_terms": vaelab.elbo_terms(model, x, likelihood=PROBABILITIES, **options),
        "evaluate": vaelab.evaluate(model, x, likelihood=PROBABILITIES, **options),
        "code_swap": vaelab.code_swap(model, x, likelihood=PROBABILITIES, **options),
        "saturation": vaelab.saturation(model, x, **options),
    }


@pytest.mark.parametrize("name", MODELS)
def test_every_measurement_takes_any_model(name, images):
    model, options = MODELS[name]
    found = everything(model, images, **options)
    latents = found["posterior"][0].shape[1]
    assert found["posterior"][0].shape == (64, latents)
    assert found["active_units"] <= latents
    assert found["output_variance"] >= 0
    assert found["elbo_terms"].reconstruction.shape == (64,)
    assert found["evaluate"]["reconstruction"] == pytest.approx(543, rel=0.1)  # 784 log 2
    own, swapped = found["code_swap"]
    assert own == pytest.approx(found["evaluate"]["reconstruction"], rel=0.02)
    assert swapped == pytest.approx(own, rel=0.05)  # it has not learned to use its code
    assert found["saturation"].output == pytest.approx(0.5, abs=0.1)


def test_inputs_of_another_length_are_refused(images):
    model, _ = MODELS["conditional"]
    with pytest.raises(ValueError, match="inputs must have one row for each of 64 images"):
        vaelab.posterior(model, images, inputs=LABELS[:10])


def test_inputs_by_name_and_missing_ones(images):
    model, _ = MODELS["conditional"]
    by_name = vaelab.posterior(model, images, inputs={"labels": LABELS})[0]
    assert torch.equal(by_name, vaelab.posterior(model, images, inputs=LABELS)[0])
    with pytest.raises(ValueError, match="forward also asks for labels.*inputs=labels"):
        vaelab.posterior(model, images)


def test_pieces_slice_inputs_with_x(images):
    lengths = [(len(x), len(inputs[0])) for x, inputs in pieces(images, LABELS, 50)]
    assert lengths == [(50, 50), (14, 14)]


def test_a_model_that_returns_a_dictionary_is_shown_its_adapter(images):
    class Named(ExamplesVAE):
        def forward(self, x):
            r, mu, logvar = super().forward(x)
            return {"x_hat": r, "mean": mu, "std": torch.exp(0.5 * logvar)}

    with pytest.raises(ValueError, match="out\\['x_hat'\\], out\\['mean'\\], 2 \\* out\\['std'\\]"):
        vaelab.posterior(Named(), images)

    def adapter(out):
        return out["x_hat"], out["mean"], 2 * out["std"].log()

    assert vaelab.posterior(Named(), images, adapter=adapter)[0].shape == (64, 20)


def test_a_model_without_a_forward_is_shown_a_whole_adapter(images):
    class Parts(ExamplesVAE):
        forward = nn.Module.forward

    with pytest.raises(ValueError, match=r"def adapter\(model, x\):"):
        vaelab.posterior(Parts(), images)


def test_an_adapter_may_call_the_model(images):
    def adapter(model, x):
        mu, logvar = model.encode(x.flatten(1))
        return model.decode(mu), mu, logvar

    reconstruction, mu, _ = call(ExamplesVAE(), images, adapter)
    assert reconstruction.shape == images.shape and mu.shape == (64, 20)


def test_without_a_likelihood_the_error_names_the_one_that_fits(images):
    with pytest.raises(ValueError, match='Bernoulli\\(on="probabilities"\\)'):
        vaelab.evaluate(ExamplesVAE(), images)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(3, 28, 28, dtype=torch.uint8), r"float tensor.*try x.float\(\)"),
        (torch.zeros(3, 28, 28, dtype=torch.int64), r"int64 tokens \[N, T\].*try x.float\(\)"),
        (torch.zeros(3, 784, dtype=torch.int32), "float tensor"),
        (torch.zeros(0, 1, 28, 28), "at least one image"),
        (np.zeros((3, 784)), "ndarray"),
    ],
)
def test_a_bad_x_is_refused_by_name(x, message):
    with pytest.raises(ValueError, match=message):
        vaelab.posterior(ExamplesVAE(), x)


def test_lazy_layers_are_refused_with_the_cure():
    with pytest.raises(ValueError, match="call model\\(x\\[:2\\]\\) once first"):
        vaelab.posterior(nn.LazyLinear(3), torch.zeros(2, 4))


def test_unwrap_finds_the_module_inside():
    model = ExamplesVAE()
    assert unwrap(torch.nn.DataParallel(torch.compile(model, backend="eager"))) is model


def test_wanted_is_flat_only_for_models_that_want_it(images):
    assert wanted(MODELS["flat input"][0], images).shape == (64, 784)
    assert wanted(MODELS["convolutional"][0], images) is images


# ---- measuring changes nothing


class Restless(ConvolutionalVAE):
    """Does in its forward pass whatever a forward pass should not do."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("seen", torch.zeros(2))
        self.history, self.count = [], 0
        self.noise = np.random.default_rng(0)

    def forward(self, x):
        self.calls += 1
        self.count += 1
        self.history.append(self.count)
        self.seen.resize_(len(x)).fill_(x.mean().item())
        self.noise.normal(), random.random(), np.random.rand()
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.zero_()
        x.sub_(0.5)
        return super().forward(x)


def state(model):
    """Everything of a model that could change, as comparable values."""
    tensors = {name: t.clone() for name, t in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    return tensors, gradients, modes, list(model.history), model.count


def same(a, b):
    tensors = all(torch.equal(a[0][name], b[0][name]) for name in a[0])
    gradients = all(torch.equal(g, h) for g, h in zip(a[1], b[1], strict=True))
    return tensors and gradients and a[2:] == b[2:]


def restless():
    torch.manual_seed(0)
    model = Restless()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    model.train()
    model.down[1].eval()  # a frozen BatchNorm inside a model in training
    return model


def test_measuring_changes_nothing_of_a_restless_model(images):
    model = restless()
    before, x = state(model), images.clone()
    hooks = len(model._forward_hooks), len(model._forward_pre_hooks)
    noise = model.noise.bit_generator.state
    torch.manual_seed(7), np.random.seed(7), random.seed(7)
    random_states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    everything(model, images)
    assert same(before, state(model)) and torch.equal(x, images)
    assert model.noise.bit_generator.state == noise
    assert torch.equal(torch.get_rng_state(), random_states[0])
    assert (np.random.get_state()[1] == random_states[1]).all()
    assert random.getstate() == random_states[2]
    assert hooks == (len(model._forward_hooks), len(model._forward_pre_hooks))


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_also_when_the_measurement_is_interrupted(images, error):
    model = restless()
    before = state(model)

    def adapter(out):
        raise error("stop")

    with pytest.raises((KeyboardInterrupt, ValueError)):
        vaelab.posterior(model, images, adapter=adapter)
    assert same(before, state(model))


def test_a_scripted_model_keeps_its_mode():
    class Scripted(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads, self.back = nn.Linear(4, 6), nn.Linear(3, 4)

        def forward(self, x):
            mu, logvar = self.heads(x).chunk(2, 1)
            return self.back(mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)), mu, logvar

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripting is deprecated, and still in use
        model = torch.jit.script(Scripted())
    model.train()
    vaelab.posterior(model, torch.rand(8, 4))
    assert model.training and model.heads.training


def test_what_a_loss_remembers_is_put_back():
    class Warmup:
        def __init__(self):
            self.step = 0

    warmup, counts = Warmup(), {"calls": 0}
    step = 0

    def loss(r, x, mu, logvar):
        nonlocal step
        step += 1
        warmup.step += 1
        counts["calls"] += 1
        return F.mse_loss(r, x)

    bound = functools.partial(loss, mu=None, logvar=None)
    with measuring(bound):
        bound(torch.zeros(2), torch.zeros(2))
    assert (step, warmup.step, counts["calls"]) == (0, 0, 0)


def test_a_frozen_dictionary_does_not_stop_a_measurement(images):
    class Frozen(dict):
        def clear(self):
            raise TypeError("frozen")

        update = pop = __setitem__ = clear

    model = ExamplesVAE()
    model.config = Frozen(width=400)
    assert vaelab.posterior(model, images)[0].shape == (64, 20)
    assert model.config == {"width": 400}
