"""The check-up changes nothing, and goes on: in-place work, memories, wrappers, fixed sizes."""

import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from ward.patients import Net, bce, data, elbo, kl, trained

import vaelab
from vaelab.clinic import observe


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


def test_a_model_that_works_in_place_on_x_leaves_the_readers_x_alone():
    class InPlace(Net):
        def forward(self, x):
            x.sub_(0.5).add_(0.5)
            return super().forward(x.mul_(0.9))

    x, labels = images(), torch.zeros(64, 1)
    before = x.clone()
    vaelab.checkup(InPlace(), x, elbo)
    assert torch.equal(x, before)

    def loss(r, x, mu, logvar):
        x.mul_(0)
        return elbo(r, x, mu, logvar)

    vaelab.checkup(Net(), x, loss, adapter=lambda model, x, y: model(x + y.add_(1)), inputs=labels)
    assert torch.equal(x, before) and labels.abs().max() == 0


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
    class Habits(Net):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(3))

        def forward(self, x):
            self.seen.resize_(len(self.seen) + 1)
            self.zero_grad(set_to_none=False)
            return super().forward(x)

    model = Habits()
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
    report = vaelab.checkup(model, made_there, elbo)
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
            report = vaelab.checkup(model, x, elbo)
            assert report.healthy and report.beta == pytest.approx(1, rel=1e-3)


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


def test_flat_images_are_given_to_a_model_that_wants_them_flat():
    class Flat(Net):
        def __init__(self):
            super().__init__((784,))
            self.encoder = nn.Sequential(*list(self.encoder)[1:])

    report = vaelab.checkup(Flat(), images(), elbo)
    assert report.beta == pytest.approx(1, rel=1e-3) and "[64, 784]" in report.numbers["x"]


# ---- what cannot be measured does not stop the rest


@pytest.mark.parametrize("part", ["_revived", "_decoding", "_prior", "_training", "_threshold"])
def test_a_measurement_that_raises_is_a_line_in_the_numbers(part, well, monkeypatch):
    def fails(*_):
        raise RuntimeError("cannot be measured")

    monkeypatch.setattr(observe, part, fails)
    model = Net() if part == "_revived" else well  # an untrained model has constant codes
    report = vaelab.checkup(model, images(), elbo)
    assert report.beta == pytest.approx(1, rel=1e-3)
    reasons = [text for name, text in report.numbers.items() if name.startswith("not measured")]
    assert reasons == ["RuntimeError: cannot be measured"]


def test_codes_driven_out_of_range_without_rectifiers_do_not_stop_the_checkup():
    class Asserts(Net):
        def forward(self, x):
            r, mu, logvar = super().forward(x)
            assert logvar.abs().max() < 3, "logvar out of range"
            return r, mu, logvar

    torch.manual_seed(0)
    model = Asserts()
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
    assert vaelab.checkup(model, images(), elbo).serious == ["no-gradient"]
    model.requires_grad_(False)  # a model that is not to be trained is another matter
    assert vaelab.checkup(model, images(), elbo).healthy
