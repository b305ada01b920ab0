"""The check-up changes nothing, and goes on: in-place work, memories, wrappers, fixed sizes.

Every attack on `checkup` of the review has a test:

| attack | test |
| --- | --- |
| a model, or a loss, that works in place on x | test_a_model_that_works_in_place_on_x_... |
| a scripted model is left in eval mode | test_a_scripted_model_keeps_its_mode |
| a memory in a closure, a partial, an object, a generator | test_a_memory_is_put_back |
| a buffer that is resized, gradients set to zero in forward | test_a_buffer_that_grows_and_... |
| a reconstruction without gradient is called healthy | test_a_reconstruction_without_gradient_... |
| view(200, ...) in a loss is called a broadcast | test_a_batch_size_written_into_the_loss_... |
| a loss in half precision is called a wrong KL | test_a_loss_in_half_precision_gets_no_... |
| a loss that clamps in place raises | test_a_loss_that_clamps_in_place |
| x that requires grad, a model made in inference mode | test_x_that_requires_grad_and_... |
| a lazy module | test_a_lazy_model_is_told_to_run_once |
| a module with a FrozenDict | test_a_module_that_holds_a_frozen_dictionary |
| a probe that drives logvar out of range | test_codes_driven_out_of_range_... |
| a Monte-Carlo KL, beta-TC, MMD, a capacity | test_a_loss_in_another_form_is_no_illness |
| an adapter that uses .sample() is called ill | test_an_adapter_that_draws_otherwise_is_a_note |
| loss(x, x_hat, ...) is called swapped cross-entropy | test_a_loss_in_another_order_is_not_blamed |
| an adapter that closes over labels | test_labels_in_an_adapter_are_asked_for_as_inputs |
| a conditional model gets a hint about flat images | test_a_model_that_misses_its_labels_is_told |
| L1 with a heavy KL is called a deaf decoder | test_an_absolute_error_with_a_heavy_kl |
| train-eval-gap in the wrong direction | test_dropout_makes_no_gap |
| VQ models, integer tokens, models without forward | test_doors.py |
| losses that return several terms, or want more arguments | test_measure_loss.py |
| pointers that lead nowhere | test_findings_page.py |
| all other wrong causes, and models that were called healthy | test_findings.py |
"""

import copy
import functools
import random
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from plain_models import ConditionalVAE
from torch import nn
from ward.patients import Net, bce, data, elbo, kl, trained

import vaelab
from vaelab.clinic import cost, observe


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def images(n=64):
    return data()[1][:n].clone()


def codes(report):
    return [finding.code for finding in report.findings]


@pytest.fixture(scope="module")
def well():
    """A trained model with nothing serious."""
    model, _, _ = trained(Net, elbo, steps=300)
    assert vaelab.checkup(model, images(), elbo).healthy
    return model


# ---- nothing of the reader's changes


def bits(tensor):
    return None if tensor is None else tensor.detach().numpy().tobytes()


def snapshot(model, *tensors):
    """All that a check-up could change, as values that can be compared."""
    parameters = dict(model.named_parameters())
    modules = dict(model.named_modules())
    return {
        "weights and buffers": {name: bits(t) for name, t in model.state_dict().items()},
        "gradients": {name: bits(p.grad) for name, p in parameters.items()},
        "same gradients": {name: id(p.grad) for name, p in parameters.items()},
        "frozen": {name: p.requires_grad for name, p in parameters.items()},
        "modes": {name: module.training for name, module in modules.items()},
        "attributes": {name: sorted(vars(module)) for name, module in modules.items()},
        "hooks": sum(len(module._forward_hooks) for module in modules.values()),
        "tensors": [(bits(t), t.requires_grad) for t in tensors],
        "torch": bits(torch.get_rng_state()),
        "numpy": repr(np.random.get_state()),
        "python": random.getstate(),
    }


class Habits(Net):
    """BatchNorm, dropout, a generator of its own; it counts its calls and keeps its codes."""

    def __init__(self):
        super().__init__(norm=True, dropout=0.2)
        self.calls, self.codes, self.own = 0, [], torch.Generator().manual_seed(3)

    def forward(self, x):
        self.calls += 1
        torch.rand(2, generator=self.own)
        np.random.rand()
        random.random()
        outputs = super().forward(x.mul_(1.0))
        self.codes.append(outputs[1])
        self.last = outputs[1]
        return outputs


def with_gradients():
    model = Net()
    elbo(*(lambda r, mu, logvar: (r, images(8), mu, logvar))(*model(images(8)))).backward()
    return model


def with_frozen_parts():
    model = Net(norm=True)
    model.encoder.requires_grad_(False)
    model.decode[0].bias.requires_grad_(False)
    model.encoder[2].eval()  # a mode of its own
    return model


def in_double_precision():
    return Net().double()


def trained_a_little():
    return trained(Net, elbo, steps=20)[0]


KINDS = {
    "habits": Habits,
    "gradients": with_gradients,
    "frozen parts": with_frozen_parts,
    "double precision": in_double_precision,
    "trained": trained_a_little,
    "labels": ConditionalVAE,
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_everything_is_bit_identical_afterwards(name, training):
    model = KINDS[name]().train(training)
    x, x_train = images(80).requires_grad_(), data()[0][:70].clone()
    labels, labels_train = torch.arange(80) % 10, torch.arange(70) % 10
    given = (labels, labels_train) if name == "labels" else (None, None)

    def loss(r, x, mu, logvar):
        x.clamp_(0, 1)
        return elbo(r.view_as(x), x, mu, logvar)

    before = snapshot(model, x, x_train, labels, labels_train)
    report = vaelab.checkup(model, x, loss, inputs=given[0], x_train=x_train, inputs_train=given[1])
    assert "x told from x_train" in report.numbers and report.beta == pytest.approx(1, rel=1e-3)
    assert snapshot(model, x, x_train, labels, labels_train) == before


def test_a_models_own_memory_is_put_back():
    model = Habits()
    model(images(4))
    calls, kept, own, last = model.calls, list(model.codes), model.own.get_state(), model.last
    vaelab.checkup(model, images(), elbo, x_train=images())
    assert model.calls == calls and model.last is last
    assert len(model.codes) == 1 and model.codes[0] is kept[0]
    assert torch.equal(model.own.get_state(), own)


RAISES = {
    "in the second pass": lambda calls, training: calls == 2,
    "after some passes": lambda calls, training: calls > 4,
    "in train mode": lambda calls, training: training,
    "always": lambda calls, training: True,
}


@pytest.mark.parametrize("when", RAISES)
def test_everything_is_bit_identical_where_the_model_raises(when):
    class Raises(Net):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if RAISES[when](self.calls, self.training):
                raise RuntimeError("not now")
            return super().forward(x)

    model = Raises()
    model.encoder.requires_grad_(False)
    model.train()
    x = images()
    before = snapshot(model, x)
    try:
        vaelab.checkup(model, x, elbo, x_train=x)
    except ValueError as error:
        assert "not now" in str(error)
    assert snapshot(model, x) == before


def test_nothing_changes_when_the_arguments_are_refused():
    model = Habits().train()
    small = images().reshape(64, 1, 14, 56)[..., :14]
    before = snapshot(model)
    for loss, x in ((lambda r, x: 0, images()), (elbo, small)):
        with pytest.raises(ValueError):
            vaelab.checkup(model, x, loss)
        assert snapshot(model) == before


def test_a_model_that_works_in_place_on_x_leaves_the_readers_x_alone():
    class InPlace(Net):
        def forward(self, x):
            x.sub_(0.5).add_(0.5)
            return super().forward(x.mul_(0.9))

    x, labels = images(), torch.zeros(64, 1)
    before = x.clone()
    vaelab.checkup(InPlace(), x, elbo, x_train=x)
    assert torch.equal(x, before)

    def loss(r, x, mu, logvar):
        x.mul_(0)
        return elbo(r, x, mu, logvar)

    vaelab.checkup(Net(), x, loss, adapter=lambda model, x, y: model(x + y.add_(1)), inputs=labels)
    assert torch.equal(x, before) and labels.abs().max() == 0


class WarmUp:
    """A loss whose KL grows with each call; `step` is an attribute, or lies in a list."""

    def __init__(self):
        self.step, self.history = 5, []

    def __call__(self, r, x, mu, logvar):
        self.step += 1
        self.history.append(self.step)
        return bce(r, x) + kl(mu, logvar) * min(1, self.step / 1000)


def in_an_object():
    loss = WarmUp()
    return loss, lambda: (loss.step, list(loss.history))


def in_a_method():
    loss = WarmUp()
    return loss.__call__, lambda: (loss.step, list(loss.history))


def in_a_partial():
    state = {"step": 5}

    def loss(r, x, mu, logvar, state):
        state["step"] += 1
        return bce(r, x) + kl(mu, logvar) * min(1, state["step"] / 1000)

    return functools.partial(loss, state=state), lambda: dict(state)


def in_a_closure():
    step = 5

    def loss(r, x, mu, logvar):
        nonlocal step
        step += 1
        return bce(r, x) + kl(mu, logvar) * min(1, step / 1000)

    return loss, lambda: step


def in_generators():
    sources = torch.Generator().manual_seed(1), np.random.default_rng(1), random.Random(1)

    def loss(r, x, mu, logvar):
        torch.rand(1, generator=sources[0])
        sources[1].random()
        return elbo(r, x, mu, logvar) * (1 + 0.1 * sources[2].random())

    def states():
        state = sources[1].bit_generator.state
        return bits(sources[0].get_state()), repr(state), sources[2].getstate()

    return loss, states


@pytest.mark.parametrize(
    "build", [in_an_object, in_a_method, in_a_partial, in_a_closure, in_generators]
)
def test_a_memory_is_put_back(build):
    loss, memory = build()
    before = memory()
    report = vaelab.checkup(Net(), images(), loss)
    assert "stateful-loss" in codes(report)
    assert memory() == before


def test_a_memory_of_an_adapter_and_of_decode_is_put_back():
    calls = {"adapter": 0, "decode": 0}
    source = torch.Generator().manual_seed(1)
    before = source.get_state()
    model = Net()

    def adapter(out):
        calls["adapter"] += 1
        torch.rand(1, generator=source)
        return out

    def decode(z):
        calls["decode"] += 1
        return model.decode(z)

    vaelab.checkup(model, images(), elbo, adapter=adapter, decode=decode)
    assert calls == {"adapter": 0, "decode": 0} and torch.equal(source.get_state(), before)


def test_a_likelihood_with_a_memory_keeps_it():
    model = vaelab.mlp_vae((1, 28, 28), 5, 50, vaelab.Gaussian("optimal")).train()
    before = copy.deepcopy(model.state_dict())

    def loss(output, x, mu, logvar):
        return model.likelihood.nll(output, x).mean() + vaelab.gaussian_kl(mu, logvar).sum(1).mean()

    vaelab.checkup(model, images(), loss)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_scripted_model_keeps_its_mode():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = nn.Linear(784, 8), nn.Linear(4, 784)

        def forward(self, x):
            h = self.encoder(x.flatten(1))
            mu, logvar = h[:, :4], h[:, 4:]
            z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
            return torch.sigmoid(self.decoder(z)).view_as(x), mu, logvar

    model = torch.jit.script(Plain())
    for training in (True, False):
        model.train(training)
        report = vaelab.checkup(model, images(), elbo)
        assert report.beta == pytest.approx(1, rel=1e-3) and "no-sampling" not in report.serious
        assert [module.training for module in model.modules()] == [training] * 3


def test_a_buffer_that_grows_and_gradients_set_to_zero_in_forward_are_put_back():
    class Grows(Net):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(3))

        def forward(self, x):
            self.seen.resize_(len(self.seen) + 1)
            self.zero_grad(set_to_none=False)
            return super().forward(x)

    model = Grows()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    vaelab.checkup(model, images(), elbo)
    assert model.seen.shape == (3,) and model.seen.abs().max() == 0
    assert all(parameter.grad.min() == 1 for parameter in model.parameters())


class Frozen(dict):
    """Like the FrozenDict of diffusers: nothing can be set, and so it cannot be copied as usual."""

    def __reduce__(self):
        return Frozen, (), None, None, iter(self.items())

    def __setitem__(self, key, value):
        raise RuntimeError("frozen")

    clear = update = pop = __delitem__ = __setitem__


def test_a_module_that_holds_a_frozen_dictionary():
    model = Net()
    model.config = Frozen({"latents": 10})
    assert vaelab.checkup(model, images(), elbo).beta == pytest.approx(1, rel=1e-3)
    assert model.config == {"latents": 10}


# ---- models of all kinds


def test_x_that_requires_grad_and_a_model_made_in_inference_mode(well):
    x = images().requires_grad_()
    assert vaelab.checkup(well, x, elbo).healthy and x.grad is None
    with torch.inference_mode():
        model, made_there = Net(), images() * 1
    report = vaelab.checkup(model, made_there, elbo, x_train=made_there)
    assert report.beta == pytest.approx(1, rel=1e-3)
    assert "not measured: train mode" in report.numbers


def test_a_lazy_model_is_told_to_run_once():
    class Lazy(Net):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Sequential(nn.Flatten(), nn.LazyLinear(200), nn.ReLU())

    with pytest.raises(ValueError, match="lazy"):
        vaelab.checkup(Lazy(), images(), elbo)


def test_half_precision_double_precision_and_wrappers(well):
    state = {name: value.clone() for name, value in well.state_dict().items()}
    for model in (Net().half(), Net().bfloat16(), Net().double(), nn.DataParallel(Net())):
        inner = getattr(model, "module", model)
        inner.load_state_dict(state)
        for x in (images(), images().to(next(model.parameters()).dtype)):
            report = vaelab.checkup(model, x, elbo, x_train=x)
            assert report.healthy and report.beta == pytest.approx(1, rel=1e-3)
            assert "x told from x_train" in report.numbers


def test_a_compiled_model_and_one_with_compiled_parts_run_as_they_are_written(well):
    state, backend = well.state_dict(), "eager"
    model = Net()
    model.load_state_dict(state)
    expected = repr(vaelab.checkup(model, images(), elbo))
    assert repr(vaelab.checkup(torch.compile(model, backend=backend), images(), elbo)) == expected
    model.encoder = torch.compile(model.encoder, backend=backend)
    model.compile(backend=backend)
    assert vaelab.checkup(model, images(), elbo).healthy


def test_a_conditional_model_gets_its_labels_with_x():
    class Conditional(Net):
        def forward(self, x, y, *, flip):
            assert len(y) == len(x) == len(flip)
            return super().forward(x + 0 * y[:, None, None, None])

    x, y = images(300), torch.arange(300.0)
    report = vaelab.checkup(Conditional(), x, elbo, inputs={"y": y, "flip": y})
    assert report.beta == pytest.approx(1, rel=1e-3)
    with pytest.raises(ValueError, match="300 images"):
        vaelab.checkup(Conditional(), x, elbo, inputs={"y": y[:7], "flip": y})


def test_a_model_that_misses_its_labels_is_told():
    with pytest.raises(ValueError, match="inputs=labels") as refusal:
        vaelab.checkup(ConditionalVAE(), images())
    assert "flat" not in str(refusal.value)


def test_labels_in_an_adapter_are_asked_for_as_inputs():
    labels = torch.arange(300) % 10
    with pytest.raises(ValueError, match="inputs="):
        vaelab.checkup(ConditionalVAE(), images(300), adapter=lambda model, x: model(x, labels))


def test_flat_images_are_given_to_a_model_that_wants_them_flat():
    class Flat(Net):
        def __init__(self):
            super().__init__((784,))
            self.encoder = nn.Sequential(*list(self.encoder)[1:])

    report = vaelab.checkup(Flat(), images(), elbo, x_train=images(40))
    assert report.beta == pytest.approx(1, rel=1e-3) and "[64, 784]" in report.numbers["x"]
    assert "x told from x_train" in report.numbers


def test_an_adapter_that_draws_otherwise_is_a_note(well):
    def adapter(model, x):
        h = model.encoder(x)
        mu, logvar = model.mu(h), model.logvar(h)
        z = torch.distributions.Normal(mu, torch.exp(0.5 * logvar)).sample()
        return model.decode(z), mu, logvar

    report = vaelab.checkup(well, images(), elbo, adapter=adapter)
    assert report.healthy and codes(report) == ["encoder-detached"]
    assert "Write the adapter" in report.findings[0].remedy


def test_dropout_makes_no_gap():
    """The error is larger in train mode, as it should be."""
    model, _, _ = trained(lambda: Net(dropout=0.5), elbo, steps=200)
    assert "train-eval-gap" not in vaelab.checkup(model, images(), elbo).serious


# ---- what cannot be measured does not stop the rest


PARTS = {
    "_revived": "codes without dead units",
    "force": "chosen codes",
    "read_wiring": "wiring",
    "drawn_parts": "weights",
    "two_sample_test": "codes against the prior",
    "compare": "x beside x_train",
    "_training": "train mode",
    "_threshold": "collapse threshold",
    "_picture": "pictures",
    "_codes": "codes",
}


@pytest.mark.parametrize("part", PARTS)
def test_a_measurement_that_raises_is_a_line_in_the_numbers(part, well, monkeypatch):
    def fails(*_):
        raise RuntimeError("cannot be measured")

    monkeypatch.setattr(observe, part, fails)
    model = Net() if part == "_revived" else well  # an untrained model has constant codes
    report = vaelab.checkup(model, images(), elbo, x_train=images())
    assert report.beta == pytest.approx(1, rel=1e-3)
    assert report.numbers[f"not measured: {PARTS[part]}"] == "RuntimeError: cannot be measured"
    assert report.healthy or report.serious == ["untrained"]


def test_a_decode_that_raises_is_a_line_in_the_numbers(well):
    def fails(z):
        raise RuntimeError("cannot be decoded")

    class OtherNoise(Net):
        """Its codes cannot be chosen, so that `decode` is needed."""

        def sample(self, mu, logvar):
            return mu + 0.1 * torch.randn_like(mu)

    model = OtherNoise()
    model.load_state_dict(well.state_dict())
    report = vaelab.checkup(model, images(), elbo, decode=fails)
    assert "cannot be decoded" in report.numbers["not measured: code swap"]


def test_codes_driven_out_of_range_without_rectifiers_do_not_stop_the_checkup(well):
    class Asserts(Net):
        def forward(self, x):
            r, mu, logvar = super().forward(x)
            assert logvar.abs().max() < 20, "logvar out of range"
            return r, mu, logvar

    model = Asserts()
    model.load_state_dict(well.state_dict())
    with torch.no_grad():
        model.encoder[1].bias.fill_(-100.0)  # only the rectifier keeps the codes small
    report = vaelab.checkup(model, images(), elbo)
    assert "posterior-collapse" in report.serious
    assert "out of range" in report.numbers["not measured: codes without dead units"]


def test_a_model_with_a_training_pass_that_raises():
    class EvalOnly(Net):
        def forward(self, x):
            if self.training:
                raise NotImplementedError("no training here")
            return super().forward(x)

    report = vaelab.checkup(EvalOnly(), images(), elbo)
    assert "no training here" in report.numbers["not measured: train mode"]


# ---- cost, in rows


def test_a_heavy_model_is_run_on_fewer_rows_and_on_the_same_ones_again(well, monkeypatch):
    light = vaelab.checkup(well, images(200), elbo)
    assert "rows used" not in light.numbers
    monkeypatch.setattr(cost, "OPERATIONS", 5e7)  # as if every layer were a thousand times as wide
    heavy = vaelab.checkup(well, images(200), elbo)
    rows = int(heavy.numbers["rows used"].split(",")[0].removeprefix("the first "))
    assert cost.FEWEST_ROWS < rows < 200
    assert repr(vaelab.checkup(well, images(200), elbo)) == repr(heavy)


def test_a_report_can_be_repeated_exactly(well):
    first, second = (
        vaelab.checkup(well, images(), elbo, x_train=images(50), seed=3) for _ in range(2)
    )
    assert repr(first) == repr(second) and first._repr_html_() == second._repr_html_()


# ---- losses


def test_a_loss_that_clamps_in_place(well):
    def loss(r, x, mu, logvar):
        r.clamp_(1e-6, 1 - 1e-6)
        return bce(r, x) + kl(mu, logvar)

    assert vaelab.checkup(well, images(), loss).healthy


@pytest.mark.parametrize("n", [200, 64])
def test_a_batch_size_written_into_the_loss_is_said_and_no_broadcast(n, well):
    def loss(r, x, mu, logvar):
        return bce(r.view(200, -1), x.view(200, -1)) + kl(mu, logvar)

    report = vaelab.checkup(well, images(n), loss)
    assert report.healthy and report.beta == pytest.approx(1, rel=1e-3)
    assert "200 images only" in report.numbers["batch size"]


def test_a_batch_size_that_fits_by_accident_stays_a_broadcast():
    def loss(r, x, mu, logvar):
        per_latent = 0.5 * (mu.pow(2) + logvar.exp() - 1 - logvar)
        return (F.mse_loss(r, x, reduction="none") + per_latent).mean()

    model = Net((1, 28, 28), latents=28)
    assert vaelab.checkup(model, images(28), loss).serious[0] == "shape-broadcast"


def test_a_loss_in_half_precision_gets_no_false_kl_form(well):
    def loss(r, x, mu, logvar):
        r, x, mu, logvar = (t.half() for t in (r, x, mu, logvar))
        return (r - x).square().flatten(1).sum(1).mean() + kl(mu, logvar)

    report = vaelab.checkup(well, images(), loss)
    assert report.healthy and "half precision" in report.numbers["precision"]


def drawn(mu, logvar):
    return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)


def monte_carlo(r, x, mu, logvar):
    """The KL from one draw of each code."""
    z = drawn(mu, logvar)
    posterior = torch.distributions.Normal(mu, torch.exp(0.5 * logvar))
    prior = torch.distributions.Normal(0.0, 1.0)
    return bce(r, x) + (posterior.log_prob(z) - prior.log_prob(z)).sum(1).mean()


def kernel(a, b):
    return torch.exp(-torch.cdist(a, b).square() / a.shape[1])


def mmd(r, x, mu, logvar):
    """InfoVAE: the crowd of codes is compared with a crowd of draws from the prior."""
    z = drawn(mu, logvar)
    prior = torch.randn_like(z)
    crowd = kernel(z, z).mean() + kernel(prior, prior).mean() - 2 * kernel(z, prior).mean()
    return bce(r, x) + kl(mu, logvar) + 10 * crowd


def total_correlation(r, x, mu, logvar):
    """beta-TC-VAE: the KL in three parts, that of dependence between latents six times."""
    z = drawn(mu, logvar)
    posterior = torch.distributions.Normal(mu, torch.exp(0.5 * logvar))
    own = posterior.log_prob(z).sum(1)
    prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    pairs = posterior.log_prob(z[:, None])
    joint = pairs.sum(2).logsumexp(1) - np.log(len(z))
    product = (pairs.logsumexp(1) - np.log(len(z))).sum(1)
    parts = (own - joint) + 6 * (joint - product) + (product - prior)
    return bce(r, x) + parts.mean()


def capacity(r, x, mu, logvar):
    """The KL is held at eight nats."""
    return bce(r, x) + 10 * (kl(mu, logvar) - 8).abs()


@pytest.mark.parametrize("loss", [monte_carlo, mmd, total_correlation, capacity])
def test_a_loss_in_another_form_is_no_illness(loss, well):
    report = vaelab.checkup(well, images(), loss)
    assert report.healthy, report


def test_a_loss_in_another_order_is_not_blamed(well):
    def loss(x, x_hat, mu, logvar):
        return bce(x_hat, x) + kl(mu, logvar)

    try:
        report = vaelab.checkup(well, images(), loss)
    except ValueError as error:
        assert "x, reconstruction, mu, logvar" in str(error)
    else:
        assert report.healthy and report.beta == pytest.approx(1, rel=1e-3)


def test_an_absolute_error_with_a_heavy_kl():
    def loss(r, x, mu, logvar):
        return F.l1_loss(r, x) + kl(mu, logvar)

    model, _, _ = trained(Net, loss, steps=150)
    assert vaelab.checkup(model, images(), loss).serious[0] == "loss-scale"


# ---- a reconstruction that trains nothing


@pytest.mark.parametrize("way", ["detach", "no_grad", "inference_mode"])
def test_a_reconstruction_without_gradient_is_serious_on_trained_weights(way, well):
    def forward(self, x):
        if way == "detach":
            r, mu, logvar = Net.forward(self, x)
            return r.detach(), mu, logvar
        with getattr(torch, way)():
            return Net.forward(self, x)

    model = Net()
    model.load_state_dict(well.state_dict())
    model.forward = types.MethodType(forward, model)
    # Under no_grad mu and logvar carry no gradient either, and that may be said as well.
    serious = vaelab.checkup(model, images(), elbo).serious
    assert serious[0] == "no-gradient" and set(serious) <= {"no-gradient", "encoder-detached"}
    model.requires_grad_(False)  # a model that is not to be trained is another matter
    assert vaelab.checkup(model, images(), elbo).healthy
