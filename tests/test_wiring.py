"""How a model is wired: its activations, its noise, and what each output depends on."""

import functools
import math
import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vaelab.clinic import activations
from vaelab.clinic.activations import Activation, Linearised, Replaced, Watch, composed_range
from vaelab.clinic.noise import RIGHT, Noise, read_noise
from vaelab.clinic.observation import Patient, PictureError
from vaelab.clinic.wiring import force, read_wiring

ROWS, PIXELS, LATENTS = 40, 9, 4


@pytest.fixture
def x():
    return torch.rand(ROWS, PIXELS, generator=torch.Generator().manual_seed(0))


class Small(nn.Module):
    """A VAE in four layers whose codes are large and whose pictures follow them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(PIXELS, 16)
        self.mean, self.spread = nn.Linear(16, LATENTS), nn.Linear(16, LATENTS)
        self.picture = nn.Linear(LATENTS, PIXELS)
        with torch.no_grad():
            self.mean.weight *= 5
            self.spread.weight *= 3

    def features(self, x):
        return torch.tanh(self.body(x))

    def sample(self, mu, logvar):
        return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)

    def forward(self, x):
        h = self.features(x)
        mu, logvar = self.mean(h), self.spread(h)
        return self.picture(self.sample(mu, logvar)), mu, logvar


def patient(model, x, adapter=None):
    return Patient(model=model, x=x, adapter=adapter)


# ---- activations


@pytest.mark.parametrize(
    "end, name",
    [
        (torch.sigmoid, "sigmoid"),
        (nn.Tanh(), "tanh"),
        (lambda h: h.relu(), "relu"),
        (F.softplus, "softplus"),
        (lambda h: torch.sigmoid(h).clamp(0.01, 0.99), "sigmoid"),
        (lambda h: torch.sigmoid(h).view(-1, 3, 3), "sigmoid"),
        (lambda h: h.clone().sigmoid_(), "sigmoid"),
        (lambda h: h.clamp(-5, 5), "clamp"),
        (lambda h: 2 * torch.sigmoid(h), None),
        (lambda h: h, None),
    ],
)
def test_the_last_activation_of_an_output_is_found(end, name, x):
    with Watch() as watch:
        output = end(x - 0.5)
    assert watch.last_before(output).name == name


def test_an_activation_inside_an_activation_is_found(x):
    with Watch() as watch:
        twice = torch.sigmoid(torch.sigmoid(x))
        once = torch.sigmoid(torch.relu(x) + 0.1)
    assert watch.one_before(watch.last_before(twice)).name == "sigmoid"
    assert watch.one_before(watch.last_before(once)).name is None


@pytest.mark.parametrize(
    "ending, inner, expected",
    [
        (None, None, (-math.inf, math.inf)),
        ("sigmoid", None, (0, 1)),
        ("sigmoid", "sigmoid", (0.5, 0.7310586)),
        ("sigmoid", "relu", (0.5, 1)),
        ("tanh", "sigmoid", (0, 0.7615942)),
    ],
)
def test_the_range_of_two_activations(ending, inner, expected):
    assert composed_range(Activation(ending), Activation(inner)) == pytest.approx(expected)


def test_units_that_say_the_same_of_every_row_are_counted():
    before = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)).clamp(-2, 2)
    before[:, 0] -= 9  # a rectifier is zero there, and a tanh is at its end
    before[:, 1] += 9  # only the tanh is
    with Watch() as watch:
        torch.relu(before)
        torch.tanh(before)
    rectifiers, squashers = watch.units
    assert rectifiers.kind == "rectifier" and rectifiers.dead.tolist() == [
        True,
        False,
        False,
        False,
    ]
    assert squashers.kind == "squasher" and squashers.dead.tolist() == [True, True, False, False]
    assert rectifiers.share == 0.25 and rectifiers.depth > 2


def test_every_draw_is_kept_with_its_name():
    with Watch() as watch:
        torch.randn(3)
        torch.rand_like(torch.zeros(2))
        torch.empty(4).normal_()
        torch.randint(5, (2,))
        torch.zeros(2)
    assert [draw.name for draw in watch.noise] == ["randn", "rand_like", "normal_"]


def test_one_draw_of_several_is_replaced():
    with Replaced(1, torch.arange(3.0)):
        first, second, third = torch.randn(3), torch.randn(3), torch.randn(3)
    assert second.tolist() == [0, 1, 2]
    assert not torch.equal(first, second) and not torch.equal(third, second)


def test_a_linearised_network_lets_everything_pass():
    with Linearised():
        assert torch.relu(torch.tensor([-2.0])).item() == -2
        assert nn.ReLU()(torch.tensor([-2.0])).item() == -2
        assert torch.sigmoid(torch.zeros(1)).item() == 0.5


def test_watching_never_stops_a_model(monkeypatch):
    def fails(*_):
        raise RuntimeError("no units here")

    monkeypatch.setattr(activations, "_units", fails)
    with Watch() as watch:
        assert torch.relu(torch.tensor([-1.0])).item() == 0
    assert watch.units == []


# ---- noise


def noise_of(sample, model=None, x=None):
    """`Noise` of a model that samples in this way."""
    model = model or Small()
    model.sample = sample
    x = torch.rand(ROWS, PIXELS, generator=torch.Generator().manual_seed(0)) if x is None else x
    torch.manual_seed(1)
    with Watch(differentiate_noise=True) as watch:
        outputs = model(x)
    return read_noise(outputs, watch.noise)


def std(logvar):
    return torch.exp(0.5 * logvar)


RIGHT_WAYS = {
    "randn_like": lambda mu, logvar: mu + std(logvar) * torch.randn_like(mu),
    "randn of a shape": lambda mu, logvar: torch.randn(mu.shape) * std(logvar) + mu,
    "normal_": lambda mu, logvar: mu + std(logvar) * torch.empty_like(mu).normal_(),
    "torch.normal": lambda mu, logvar: mu + std(logvar) * torch.normal(0.0, 1.0, mu.shape),
    "sqrt of exp": lambda mu, logvar: mu + logvar.exp().sqrt() * torch.randn_like(mu),
    "Normal.rsample": lambda mu, logvar: torch.distributions.Normal(mu, std(logvar)).rsample(),
    "MultivariateNormal.rsample": lambda mu, logvar: torch.distributions.MultivariateNormal(
        mu, scale_tril=torch.diag_embed(std(logvar))
    ).rsample(),
    "minus the noise": lambda mu, logvar: mu - std(logvar) * torch.randn_like(mu),
    "addcmul": lambda mu, logvar: torch.addcmul(mu, std(logvar), torch.randn_like(mu)),
}


@pytest.mark.parametrize("name", RIGHT_WAYS)
def test_noise_that_is_right_in_whatever_way_it_is_written(name):
    found = noise_of(RIGHT_WAYS[name])
    assert found.kind == "sampled" and found.formula == RIGHT
    assert found.normal and not found.shared and not found.swapped
    assert found.off == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize(
    "factor, formula",
    [
        (lambda logvar: logvar.exp(), "exp(logvar)"),
        (lambda logvar: logvar, "logvar itself"),
        (F.softplus, "softplus(logvar)"),
        (lambda logvar: torch.full_like(logvar, 0.1), "0.1"),
        (torch.ones_like, "1"),
        (lambda logvar: 3 * std(logvar), "3 * exp(logvar / 2)"),
        (lambda logvar: 0.5 * std(logvar), "0.5 * exp(logvar / 2)"),
    ],
)
def test_noise_of_another_size_is_named(factor, formula):
    found = noise_of(lambda mu, logvar: mu + factor(logvar) * torch.randn_like(mu))
    assert found.kind == "sampled" and found.formula == formula


def test_noise_that_follows_no_formula_is_off_by_a_typical_factor():
    def sample(mu, logvar):
        return mu + 5 * std(logvar) * (1 + mu.detach().abs()) * torch.randn_like(mu)

    found = noise_of(sample)
    assert found.formula is None and found.off > 5


@pytest.mark.parametrize(
    "draw, name",
    [
        (torch.rand_like, "rand_like"),
        (lambda mu: torch.distributions.Laplace(0.0, 1.0).rsample(mu.shape), "uniform_"),
        (lambda mu: torch.empty_like(mu).exponential_(), "exponential_"),
    ],
)
def test_noise_of_another_kind_is_named(draw, name):
    found = noise_of(lambda mu, logvar: mu + std(logvar) * draw(mu))
    assert found.kind == "sampled" and found.drawn_by == name and not found.normal


@pytest.mark.parametrize(
    "draw", [lambda mu: torch.randn_like(mu[:1]), lambda _: torch.randn(LATENTS)]
)
def test_one_draw_for_all_rows_is_shared(draw):
    found = noise_of(lambda mu, logvar: mu + std(logvar) * draw(mu))
    assert found.kind == "sampled" and found.shared


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (ROWS, 1)])
def test_one_draw_for_all_latents_is_shared(shape):
    found = noise_of(lambda mu, logvar: mu + std(logvar) * torch.randn(shape))
    assert found.kind == "sampled" and "latents" in found.shared


def test_noise_that_is_added_twice_is_counted():
    def sample(mu, logvar):
        first, second = torch.randn_like(mu), torch.randn_like(mu)
        return mu + std(logvar) * first + std(logvar) * second

    assert noise_of(sample).times == 2


class Average(Small):
    """The picture is the mean of five, each from a draw of its own."""

    def forward(self, x):
        h = self.features(x)
        mu, logvar = self.mean(h), self.spread(h)
        pictures = [self.picture(self.sample(mu, logvar)) for _ in range(5)]
        return torch.stack(pictures).mean(0), mu, logvar


class TwoLevels(Small):
    """A second code is drawn from the first, with a noise that forward does not tell of."""

    def forward(self, x):
        h = self.features(x)
        mu, logvar = self.mean(h), self.spread(h)
        z = self.sample(mu, logvar)
        return self.picture(torch.tanh(z) + 0.3 * torch.randn_like(z)), mu, logvar


@pytest.mark.parametrize("kind", [Average, TwoLevels])
def test_noise_is_right_where_there_are_more_draws_of_its_size(kind):
    found = noise_of(RIGHT_WAYS["randn_like"], kind())
    assert found.kind != "sampled" or found.formula == RIGHT and found.times == 1


@pytest.mark.parametrize("shape", [(LATENTS, 1, 1), (1, 2, 2)])
def test_codes_that_are_pictures_are_read_too(shape):
    """Codes [B, C, H, W], with noise for each value, and with one draw for all rows."""

    def sample(mu, logvar, rows=ROWS):
        mu, logvar = mu.view(-1, *shape), logvar.view(-1, *shape)
        return (mu + std(logvar) * torch.randn(rows, *shape)).flatten(1)

    assert noise_of(sample).formula == RIGHT
    assert noise_of(functools.partial(sample, rows=1)).shared == "rows"


def test_a_draw_for_something_else_does_not_make_noise_shared():
    def sample(mu, logvar):
        jitter = 1 + 0.01 * torch.randn(LATENTS)
        return (mu + std(logvar) * torch.randn_like(mu)) * jitter

    found = noise_of(sample)
    assert not found.shared and found.formula == RIGHT and found.number == 1


def test_mu_and_logvar_that_have_changed_places_are_told():
    class Swapped(Small):
        def forward(self, x):
            reconstruction, mu, logvar = super().forward(x)
            return reconstruction, logvar, mu

    assert noise_of(RIGHT_WAYS["randn_like"], Swapped()).swapped
    assert not noise_of(RIGHT_WAYS["randn_like"]).swapped


def test_no_noise_blocked_noise_and_noise_whose_gradients_are_missing():
    assert noise_of(lambda mu, logvar: mu) == Noise("none")
    assert noise_of(lambda mu, logvar: 0 * RIGHT_WAYS["randn_like"](mu, logvar)).kind == "blocked"
    with torch.no_grad():
        assert noise_of(RIGHT_WAYS["randn_like"]).kind == "unknown"


# ---- which rows, which layers


class Rolled(Small):
    def forward(self, x):
        reconstruction, mu, logvar = super().forward(x)
        return reconstruction.roll(1, 0), mu, logvar


class Mixed(Small):
    def features(self, x):
        return super().features(x - x.mean(0))


class Normalised(Small):
    """BatchNorm mixes rows in train mode, as it should, and only there."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(16)

    def features(self, x):
        return self.norm(super().features(x))


class Reversed(Small):
    """Works on the rows in another order, and puts them back."""

    def forward(self, x):
        return tuple(tensor.flip(0) for tensor in super().forward(x.flip(0)))


class OwnGenerator(Small):
    """Its noise comes from a generator of its own, so two passes differ in eval mode too."""

    def __init__(self):
        super().__init__()
        self.source = torch.Generator().manual_seed(0)

    def sample(self, mu, logvar):
        noise = torch.randn(mu.shape, generator=self.source)
        return mu + torch.exp(0.5 * logvar) * noise


class Constant(Small):
    def forward(self, x):
        return super().forward(torch.zeros_like(x))


@pytest.mark.parametrize(
    "kind, rows",
    [
        (Small, "own"),
        (Normalised, "own"),
        (Reversed, "own"),
        (OwnGenerator, "own"),
        (Rolled, "moved"),
        (Mixed, "mixed"),
        (Constant, None),
    ],
)
def test_which_rows_an_output_depends_on(kind, rows, x):
    assert read_wiring(patient(kind(), x), x, None).rows == rows


def test_the_parts_of_a_model_are_told_by_gradients(x):
    wiring = read_wiring(patient(Small(), x), x, None)
    heads = {"body.weight", "body.bias", "mean.weight", "mean.bias", "spread.weight", "spread.bias"}
    assert wiring.encoder == heads and wiring.decoder == {"picture.weight", "picture.bias"}
    assert wiring.detached == wiring.unfed == wiring.cut_off == () and wiring.frozen == ""


class MuDetached(Small):
    def sample(self, mu, logvar):
        return super().sample(mu.detach(), logvar)


class MuReturnedDetached(Small):
    def forward(self, x):
        reconstruction, mu, logvar = super().forward(x)
        return reconstruction, mu.detach(), logvar


class FeaturesDetached(Small):
    def features(self, x):
        return super().features(x).detach()


def test_gradients_that_do_not_arrive(x):
    assert read_wiring(patient(MuDetached(), x), x, None).unfed == ("mu",)
    assert read_wiring(patient(MuReturnedDetached(), x), x, None).detached == ("mu",)
    assert read_wiring(patient(FeaturesDetached(), x), x, None).cut_off == ("body",)


def frozen(*parts):
    model = Small()
    for part in parts:
        getattr(model, part).requires_grad_(False)
    return model


def test_frozen_parts_are_told_from_a_frozen_backbone_and_from_a_frozen_model(x):
    encoder = ("body", "mean", "spread")
    assert read_wiring(patient(frozen(*encoder), x), x, None).frozen == "encoder"
    assert read_wiring(patient(frozen("picture"), x), x, None).frozen == "decoder"
    assert read_wiring(patient(frozen("body"), x), x, None).frozen == ""
    assert read_wiring(patient(frozen(*encoder, "picture"), x), x, None).frozen == ""


def test_a_pretrained_backbone_without_gradients_is_not_cut_off(x):
    model = FeaturesDetached()
    model.body.requires_grad_(False)
    assert read_wiring(patient(model, x), x, None).cut_off == ()


@pytest.mark.parametrize("raises", [False, True])
def test_reading_the_wiring_leaves_frozen_parameters_frozen(raises, x):
    class Raises(Small):
        def forward(self, x):
            if raises and self.training:
                raise RuntimeError("not in train mode")
            return super().forward(x)

    model = Raises()
    model.body.requires_grad_(False)
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    try:
        read_wiring(patient(model, x), x, None)
    except (RuntimeError, ValueError):
        assert raises
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before
    assert not any(module._forward_hooks for module in model.modules())


# ---- codes of our choice


def forced(model, x, inputs=None):
    """`Forced` of a model, with its own noise."""
    one = patient(model, x)
    with Watch(differentiate_noise=True) as watch:
        outputs = one.run(x, inputs)
    picture = types.SimpleNamespace(error=PictureError("identity", None, tuple(x.shape[1:])))
    return force(one, x, inputs, picture, read_noise(outputs, watch.noise), x)


class HalfOfX(Small):
    def forward(self, x):
        reconstruction, mu, logvar = super().forward(x)
        return 0.5 * reconstruction + 0.5 * x, mu, logvar


class Previous(Small):
    """Each place of the picture sees the place before it, as an autoregressive decoder does."""

    def forward(self, x):
        reconstruction, mu, logvar = super().forward(x)
        before = F.pad(x[:, :-1], (1, 0))
        return reconstruction + before, mu, logvar


def test_only_the_code_moves_a_healthy_models_pictures(x):
    found = forced(Small(), x)
    assert found.around == pytest.approx(0, abs=1e-12)
    assert found.by_code > 0.1 and found.own_part is None and found.condition_moves is None
    assert found.own < found.swapped or found.by_code > 1


def test_a_path_around_the_code_is_measured_in_shares_of_the_variance(x):
    found = forced(HalfOfX(), x)
    assert found.around == pytest.approx(0.25, rel=0.1)
    assert found.own_part is True


def test_a_decoder_that_reads_other_places_of_x_is_told_from_one_that_copies(x):
    found = forced(Previous(), x)
    assert found.around > 0.5 and found.own_part is False


class Labelled(Small):
    """The label is added to the picture, `strength` times."""

    strength = 0.5

    def forward(self, x, y):
        reconstruction, mu, logvar = super().forward(x)
        return reconstruction + self.strength * y[:, None], mu, logvar


def test_what_a_condition_moves(x):
    y = torch.arange(ROWS).float() % 2
    found = forced(Labelled(), x, y)
    assert found.around == pytest.approx(0, abs=1e-9)
    assert found.by_condition == pytest.approx(0.25 * 0.25 / x.var(0, correction=0).mean().item())
    assert found.condition_moves > 0 and found.condition_alone > 0
    model = Labelled()
    model.strength = 0.0
    ignored = forced(model, x, y)
    assert ignored.condition_moves == pytest.approx(0, abs=1e-9)
    assert ignored.by_condition == pytest.approx(0, abs=1e-9)


def test_codes_are_not_chosen_where_the_noise_is_not_understood(x):
    model = Small()
    model.sample = lambda mu, logvar: mu + 3 * std(logvar) * torch.randn_like(mu)
    with pytest.raises(ValueError, match="noise is not known"):
        forced(model, x)


class WithDropout(Small):
    def __init__(self, functional):
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.functional = functional

    def features(self, x):
        h = super().features(x)
        return F.dropout(h, 0.5, self.training) if self.functional else self.drop(h)


def test_dropout_and_batchnorm_do_not_disturb_chosen_codes(x):
    model = Normalised().train()
    before = model.norm.running_mean.clone()
    assert forced(model, x).around == pytest.approx(0, abs=1e-12)
    model.eval()
    with torch.no_grad():
        model(x)
    assert model.norm.running_mean.shape == before.shape
    assert forced(WithDropout(functional=False).eval(), x).around == pytest.approx(0, abs=1e-12)
