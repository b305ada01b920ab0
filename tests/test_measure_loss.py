"""A loss's form and weights are recovered from the gradients of real losses."""

import itertools
import math
import random

import numpy
import pytest
import torch
import torch.nn.functional as F

from vaelab import Gaussian, effective_beta, free_bits, gaussian_kl, implied_sigma2, measure_loss
from vaelab.clinic.forms import Classes, probabilities
from vaelab.clinic.losses import recover
from vaelab.clinic.meter import Shapes

REDUCE = {
    "sum": lambda t: t.sum(),
    "mean": lambda t: t.mean(),
    "sum_mean": lambda t: t.flatten(1).sum(1).mean(),
}
ERRORS = {
    "cross-entropy on probabilities": lambda r, x: F.binary_cross_entropy(r, x, reduction="none"),
    "cross-entropy on logits": lambda r, x: F.binary_cross_entropy_with_logits(
        r, x, reduction="none"
    ),
    "squared error": lambda r, x: F.mse_loss(r, x, reduction="none"),
}
SHAPES = {(1, 28, 28): 20, (3, 32, 32): 32, (30,): 1}


def kl(mu, logvar):
    return gaussian_kl(mu, logvar).sum(1).mean()


def sse(r, x):
    return (r - x).square().flatten(1).sum(1).mean()


def measured(loss, batch_size=16, shape=(1, 28, 28), latents=20):
    return measure_loss(loss, batch_size=batch_size, shape=shape, latent_dim=latents)


def reduced(form, reconstruction, kind, coefficient):
    """The loss of one row of the table."""

    def loss(r, x, mu, logvar):
        error = REDUCE[reconstruction](ERRORS[form](r, x))
        return error + coefficient * REDUCE[kind](gaussian_kl(mu, logvar))

    return loss


@pytest.mark.parametrize("batch_size", [1, 7, 128, 512])
@pytest.mark.parametrize("form", ERRORS)
def test_every_row_of_the_reductions_table(form, batch_size):
    for shape, reconstruction, kind in itertools.product(SHAPES, REDUCE, REDUCE):
        if batch_size == 512 and shape[0] == 3:
            continue  # a second each, and nothing new
        latents = SHAPES[shape]
        coefficient = 10 ** (len(shape) - 3.0)
        loss = reduced(form, reconstruction, kind, coefficient)
        found = measured(loss, batch_size, shape, latents)
        about = {"batch_size": batch_size, "n_values": math.prod(shape), "latent_dim": latents}
        about["coefficient"] = coefficient
        assert found.name == form
        if form == "squared error":
            assert found.sigma2 == pytest.approx(
                implied_sigma2(reconstruction, kind, **about), rel=1e-3
            )
            assert found.beta is None
        else:
            assert found.beta == pytest.approx(
                effective_beta(reconstruction, kind, **about), rel=1e-3
            )
            assert found.sigma2 is None


@pytest.mark.parametrize("coefficient", [1e-4, 0.5, 4.0, 500.0])
def test_any_coefficient_in_single_precision(coefficient):
    weight = torch.tensor(coefficient)  # a tensor of the reader's own, float32

    def loss(r, x, mu, logvar):
        if r.dtype != torch.float32:
            raise RuntimeError("expected scalar type Float but found Double")
        return (
            F.binary_cross_entropy(r, x, reduction="sum") + weight * gaussian_kl(mu, logvar).sum()
        )

    assert measured(loss, 128).beta == pytest.approx(coefficient, rel=0.01)


def test_a_batch_too_large_to_measure_is_extrapolated():
    found = measured(
        lambda r, x, mu, logvar: F.mse_loss(r, x) + gaussian_kl(mu, logvar).sum(), 100_000
    )
    assert found.sigma2 == pytest.approx(100_000 * 784 / 2, rel=0.01)
    assert found.depends_on_batch


@pytest.mark.parametrize(
    "name, loss",
    {
        "absolute error": lambda r, x, mu, logvar: F.l1_loss(r, x) + kl(mu, logvar),
        "Huber": lambda r, x, mu, logvar: F.smooth_l1_loss(r, x) + kl(mu, logvar),
        "squared error": lambda r, x, mu, logvar: sse(torch.tanh(r), x) + kl(mu, logvar),
        "Gaussian NLL": lambda r, x, mu, logvar: 392 * F.mse_loss(r, x).log() + kl(mu, logvar),
        "cross-entropy with its arguments swapped": lambda r, x, mu, logvar: (
            F.binary_cross_entropy(x, r) + kl(mu, logvar)
        ),
        None: lambda r, x, mu, logvar: sse(r, x) + F.l1_loss(r, x) + kl(mu, logvar),
    }.items(),
)
def test_the_form_is_told(name, loss):
    assert measured(loss).name == name


def test_a_sigma_that_follows_the_residual_is_read_where_the_model_is():
    x = torch.rand(64, 1, 28, 28)
    r = x + 0.1 * torch.randn(x.shape)
    own = (r, x, torch.zeros(64, 20), torch.zeros(64, 20))

    def log_mse(r, x, mu, logvar):
        return 392 * F.mse_loss(r, x).log() + kl(mu, logvar)

    found = recover(log_mse, Shapes((1, 28, 28), (1, 28, 28), (20,)), 64, own=own)
    assert found.sigma2 == pytest.approx(F.mse_loss(r, x).item(), rel=0.01)
    likelihood = Gaussian(0.04)
    found = measured(lambda r, x, mu, logvar: likelihood.nll(r, x).mean() + kl(mu, logvar))
    assert found.sigma2 == pytest.approx(0.04, rel=0.01)


def test_signs_free_bits_capacity_and_missing_terms():
    assert measured(lambda r, x, mu, logvar: sse(r, x) - kl(mu, logvar)).b == pytest.approx(-1)
    assert measured(lambda r, x, mu, logvar: -sse(r, x) - kl(mu, logvar)).a == pytest.approx(-1)
    found = measured(lambda r, x, mu, logvar: sse(r, x) + free_bits(gaussian_kl(mu, logvar), 1.25))
    assert found.kl.free_bits and found.sigma2 == pytest.approx(0.5)
    found = measured(lambda r, x, mu, logvar: sse(r, x) + 30 * (kl(mu, logvar) - 25).abs())
    assert found.kl.capacity and found.b == pytest.approx(30)
    assert measured(lambda r, x, mu, logvar: sse(r, x)).sigma2 == 0
    assert measured(lambda r, x, mu, logvar: kl(mu, logvar)).beta == math.inf


WRONG = {
    "mu not squared": lambda mu, logvar: -0.5 * (1 + logvar - mu - logvar.exp()),
    "logvar in place of exp(logvar)": lambda mu, logvar: -0.5 * (1 + logvar - mu**2 - logvar),
    "exp(logvar / 2) in place of exp(logvar)": lambda mu, logvar: (
        -0.5 * (1 + logvar - mu**2 - (0.5 * logvar).exp())
    ),
    "mu squared with twice its weight": lambda mu, logvar: gaussian_kl(mu, logvar) + mu**2 / 2,
    "mu squared with half its weight": lambda mu, logvar: gaussian_kl(mu, logvar) - mu**2 / 4,
    "mu squared with the wrong sign": lambda mu, logvar: gaussian_kl(mu, logvar) - mu**2,
    "mu squared left out": lambda mu, logvar: gaussian_kl(0 * mu, logvar),
    "exp(logvar) left out": lambda mu, logvar: -0.5 * (1 + logvar - mu**2),
    "exp(logvar) with the wrong sign": lambda mu, logvar: (
        -0.5 * (1 + logvar - mu**2 + logvar.exp())
    ),
    "logvar left out": lambda mu, logvar: 0.5 * (mu**2 + logvar.exp() - 1),
    "logvar with the wrong sign": lambda mu, logvar: 0.5 * (mu**2 + logvar.exp() - 1 + logvar),
    "logvar read as a standard deviation": lambda mu, s: gaussian_kl(mu, (s**2 + 1e-8).log()),
    "logvar read as the log of a standard deviation": lambda mu, s: gaussian_kl(mu, 2 * s),
    "logvar read as a variance": lambda mu, v: gaussian_kl(mu, v.abs().log()),
    "the KL of the batch's average code": lambda mu, logvar: gaussian_kl(
        mu.mean(0, keepdim=True), logvar.mean(0, keepdim=True)
    ),
}


@pytest.mark.parametrize("latents", [1, 20])
@pytest.mark.parametrize("formula", WRONG)
def test_a_wrong_kl_is_named(formula, latents):
    def loss(r, x, mu, logvar):
        return sse(r, x) + 3 * WRONG[formula](mu, logvar).sum(1).mean()

    found = measured(loss, shape=(30,), latents=latents)
    assert found.kl.kind == "other" and found.kl.formula == formula
    assert found.b is None and not found.kl.mixes


def test_a_kl_that_is_wrong_in_a_way_that_has_no_name():
    def loss(r, x, mu, logvar):
        return sse(r, x) + (mu.abs() / 2 + gaussian_kl(0 * mu, logvar)).sum(1).mean()

    found = measured(loss, shape=(30,))
    assert found.kl.kind == "other" and found.kl.formula is None and found.b is None


# ---- KLs that are right, and not the closed form


def at_a_draw(mu, logvar, log_prior=None, beta=1.0):
    """beta times log q(z) - log p(z) at one draw of z, a mean over the batch."""
    posterior = torch.distributions.Normal(mu, torch.exp(0.5 * logvar))
    z = posterior.rsample()
    log_p = -0.5 * z**2 if log_prior is None else log_prior(z)
    return beta * (posterior.log_prob(z) - log_p).sum(1).mean()


def mixture(z):
    """A log-density [B, 1] with five narrow components, over all latents."""
    means = torch.randn(5, z.shape[1], generator=torch.Generator().manual_seed(0))
    component = torch.distributions.Normal(means, 0.3)
    return component.log_prob(z[:, None]).sum(2).logsumexp(1, keepdim=True)


def wide(z):
    return -0.5 * (z - 1) ** 2 / 4


@pytest.mark.parametrize(
    "price, kind, latents",
    [
        (at_a_draw, "gaussian", 1),
        (lambda mu, logvar: at_a_draw(mu, logvar.clamp(-10, 10)), "gaussian", 8),
        (lambda mu, logvar: at_a_draw(mu, logvar.clamp(-6, 2)), "gaussian", 8),
        (lambda mu, logvar: at_a_draw(mu, logvar, wide), "prior", 8),
    ],
)
def test_a_kl_at_random_codes(price, kind, latents):
    found = measured(
        lambda r, x, mu, logvar: bernoulli(r, x) + 4 * price(mu, logvar), 64, (30,), latents
    )
    assert found.kl.kind == kind and found.kl.monte_carlo and not found.kl.mixes
    assert found.beta == pytest.approx(4, rel=0.03) and found.random
    assert not found.stateful and not found.depends_on_batch


def bernoulli(r, x):
    return F.binary_cross_entropy(r, x, reduction="sum") / len(x)


def test_the_sign_the_batch_and_the_capacity_of_a_kl_at_random_codes():
    found = measured(lambda r, x, mu, logvar: bernoulli(r, x) - at_a_draw(mu, logvar), 64, (30,))
    assert found.kl.kind == "gaussian" and found.b == pytest.approx(-1, rel=0.01)
    found = measured(
        lambda r, x, mu, logvar: bernoulli(r, x) + len(x) * at_a_draw(mu, logvar), 64, (30,)
    )
    assert found.depends_on_batch and found.beta == pytest.approx(64, rel=0.01)
    found = measured(
        lambda r, x, mu, logvar: bernoulli(r, x) + 5 * (at_a_draw(mu, logvar) - 40).abs(),
        64,
        (30,),
    )
    assert found.kl.capacity and found.b == pytest.approx(5, rel=0.01)


@pytest.mark.parametrize(
    "formula, change",
    [
        ("logvar read as a standard deviation", lambda logvar: 2 * logvar.abs().log()),
        ("logvar read as the log of a standard deviation", lambda logvar: 2 * logvar),
    ],
)
def test_a_wrong_kl_at_random_codes(formula, change):
    def loss(r, x, mu, logvar):
        return bernoulli(r, x) + at_a_draw(mu, change(logvar))

    found = measured(loss, 16, (30,), 8)
    assert found.kl.kind == "other" and found.kl.formula == formula and found.b is None


def test_a_learned_gaussian_prior():
    mean, logvar_p = torch.linspace(-2, 2, 8), torch.linspace(-1, 1, 8)

    def loss(r, x, mu, logvar):
        price = gaussian_kl((mu - mean) / (0.5 * logvar_p).exp(), logvar - logvar_p)
        return bernoulli(r, x) + 2 * price.sum(1).mean()

    found = measured(loss, 64, (30,), 8)
    assert found.kl.kind == "prior" and found.beta == pytest.approx(2, rel=0.01)
    assert not found.kl.monte_carlo and not found.kl.capacity


def test_randomness_of_numpy_and_python_is_no_memory():
    def loss(r, x, mu, logvar):
        noise = numpy.random.rand() + random.random()
        return (1 + 0.1 * noise) * sse(r, x) + kl(mu, logvar)

    found = measured(loss, shape=(30,))
    assert found.random and not found.stateful and found.kl.kind == "gaussian"
    assert not found.kl.monte_carlo


def test_targets_that_are_drawn_anew_are_averaged():
    def loss(r, x, mu, logvar):
        return bernoulli(r, torch.bernoulli(x)) + kl(mu, logvar)

    found = measured(loss, 64)
    assert found.name == "cross-entropy on probabilities" and not found.depends_on_batch
    assert found.beta == pytest.approx(1, rel=0.03)


# ---- codes of different images


def total_correlation(mu, logvar):
    posterior = torch.distributions.Normal(mu[None], torch.exp(0.5 * logvar)[None])
    z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
    pairs = posterior.log_prob(z[:, None])
    return (pairs.sum(2).logsumexp(1) - pairs.logsumexp(1).sum(1)).mean()


def discrepancy(mu, logvar):
    def likeness(a, b):
        return torch.exp(-(a[:, None] - b[None]).square().mean(2)).mean()

    z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
    prior = torch.randn_like(z)
    return 50 * (likeness(z, z) - 2 * likeness(z, prior))


@pytest.mark.parametrize("crowd", [total_correlation, discrepancy])
@pytest.mark.parametrize("price", [kl, at_a_draw])
def test_codes_that_are_compared_with_each_other(crowd, price):
    def loss(r, x, mu, logvar):
        return bernoulli(r, x) + price(mu, logvar) + crowd(mu, logvar)

    found = measured(loss, 64, (30,), 8)
    assert found.kl.mixes and found.kl.formula is None and not found.depends_on_batch
    assert found.beta == pytest.approx(1, rel=0.03)


def test_codes_that_are_compared_and_no_kl():
    def loss(r, x, mu, logvar):
        return bernoulli(r, x) + discrepancy(mu, logvar)

    found = measured(loss, 64, (30,), 8)
    assert found.kl.kind == "other" and found.kl.mixes and found.b is None


FREE = {
    "of each latent's mean": lambda k: k.mean(0).clamp(min=0.5).sum(),
    "of each value": lambda k: k.clamp(min=0.5).sum(1).mean(),
    "of each image": lambda k: k.sum(1).clamp(min=2).mean(),
    "of the sum": lambda k: k.sum(1).mean().clamp(min=10),
}


@pytest.mark.parametrize("gate", FREE)
@pytest.mark.parametrize("latents", [2, 20])
def test_free_bits_of_every_kind_do_not_depend_on_the_batch(gate, latents):
    for seed in range(3):
        found = measure_loss(
            lambda r, x, mu, logvar: bernoulli(r, x) + 2 * FREE[gate](gaussian_kl(mu, logvar)),
            batch_size=64,
            shape=(30,),
            latent_dim=latents,
            seed=seed,
        )
        assert found.kl.kind == "gaussian" and found.kl.free_bits and not found.kl.mixes
        assert found.beta == pytest.approx(2, rel=1e-3) and not found.depends_on_batch


def test_free_bits_beside_a_real_dependence_on_the_batch():
    def loss(r, x, mu, logvar):
        return bernoulli(r, x) + len(x) * free_bits(gaussian_kl(mu, logvar), 0.25)

    assert measured(loss, 64, (30,)).depends_on_batch


def test_a_capacity_that_is_squared_has_no_constant_weight():
    def loss(r, x, mu, logvar):
        return bernoulli(r, x) + 5 * (kl(mu, logvar) - 15).square()

    found = measured(loss, 64, (30,))
    assert found.kl.capacity and found.b is None and found.beta is None
    assert found.kl.kind == "gaussian" and not found.depends_on_batch and not found.kl.mixes


# ---- values that the error does not see, or weighs unequally


def half(t):
    """The upper half of pictures, the other values 0."""
    kept = torch.ones_like(t)
    kept[..., t.shape[-1] // 2 :] = 0
    return t * kept


@pytest.mark.parametrize("form", ERRORS)
def test_a_part_of_the_picture_that_is_not_in_the_error(form):
    def loss(r, x, mu, logvar):
        return REDUCE["sum_mean"](half(ERRORS[form](r, x))) + 3 * kl(mu, logvar)

    found = measured(loss)
    assert found.name == form and found.ignored == 0.5 and found.per_value is None
    assert found.b / found.a == pytest.approx(3, rel=1e-3)
    assert measured(lambda *args: ERRORS[form](*args[:2]).mean()).ignored == 0


def test_what_is_left_out_for_a_reason_in_x_is_not_ignored():
    def missing(r, x, mu, logvar):
        there = ~(x.isnan() | (x == 0))
        return ((r - x.nan_to_num()).square() * there).sum() / len(x) + kl(mu, logvar)

    def small_errors_are_free(r, x, mu, logvar):
        return ((r - x).abs() - 0.1).relu().sum() / len(x) + kl(mu, logvar)

    def dropped_at_random(r, x, mu, logvar):
        return ((r - x).square() * (torch.rand_like(x[:1]) < 0.5)).sum() / len(x) + kl(mu, logvar)

    assert measured(missing).ignored == 0 and measured(missing).sigma2 == pytest.approx(0.5)
    assert measured(small_errors_are_free).ignored == 0
    assert measured(dropped_at_random).ignored == 0


@pytest.mark.parametrize("link", [torch.Tensor.clone, torch.tanh])
def test_a_sigma_for_each_value(link):
    sigma = torch.nn.Parameter(torch.linspace(0.1, 2, 30))

    def loss(r, x, mu, logvar):
        spread = torch.distributions.Normal(link(r), sigma)
        return (kl(mu, logvar) - spread.log_prob(x).sum(1)).mean()

    found = measured(loss, 64, (30,))
    assert found.name == "Gaussian NLL" and found.ignored == 0 and not found.depends_on_batch
    assert torch.allclose(found.per_value, sigma.detach().double() ** 2, rtol=1e-3)
    assert found.sigma2 == pytest.approx((2 * sigma.log()).mean().exp().item(), rel=1e-3)
    found = measured(lambda *args: half(((args[0] - args[1]) / sigma) ** 2).sum(), 64, (30,))
    assert found.ignored == 0.5 and found.name == "Gaussian NLL"


def test_weights_of_values_with_different_signs_are_no_sigma():
    weights = torch.linspace(-1, 1, 30)
    found = measured(lambda r, x, mu, logvar: (weights * (r - x) ** 2).sum(), 64, (30,))
    assert found.name is None


# ---- one of several kinds


def one_hot_loss(view, target=torch.Tensor.clone):
    """A cross-entropy of one-hot x. view: values -> [places, kinds]."""

    def loss(r, x, mu, logvar):
        nll = F.cross_entropy(view(r), target(view(x)), reduction="sum") / len(x)
        return nll + 2 * kl(mu, logvar)

    return loss


def test_groups_of_one_hot_values():
    side_by_side = one_hot_loss(lambda t: t.reshape(-1, 8))
    largest = one_hot_loss(lambda t: t.reshape(-1, 8), lambda t: t.argmax(1))
    first = one_hot_loss(lambda t: t.reshape(-1, 8, 12).transpose(1, 2).reshape(-1, 8))
    pictures = one_hot_loss(lambda t: t.movedim(1, 3).reshape(-1, 3))
    for loss, shape, classes in [
        (side_by_side, (96,), (8, 1)),
        (side_by_side, (12, 8), (8, 1)),
        (largest, (96,), (8, 1)),
        (first, (96,), (8, 12)),
        (first, (8, 12), (8, 12)),
        (pictures, (3, 4, 5), (3, 20)),
    ]:
        found = measured(loss, 16, shape)
        assert found.name == "categorical cross-entropy" and found.classes == classes
        assert found.beta == pytest.approx(2, rel=1e-3) and found.link == "softmax"
        r = torch.randn(3, *shape)
        chances = probabilities(found, r, shape)
        assert chances.shape == r.shape
        places = Classes(*classes).split(chances)
        assert torch.allclose(places.sum(2), torch.ones(()))
        x = Classes(*classes).one_hot(places.argmax(2)).reshape(3, *shape)
        nats = -(x * chances.log()).sum().item() / 3
        assert value_of(loss, r, x) == pytest.approx(nats, rel=1e-4)


def value_of(loss, r, x):
    nothing = torch.zeros(3, 1)
    return loss(r, x.float(), nothing, nothing).item()


WHOLE = {
    (5, 8): lambda r, x: F.cross_entropy(r.transpose(1, 2), x, reduction="sum"),
    (8, 5): lambda r, x: F.cross_entropy(r, x, reduction="sum", ignore_index=0),
    (40,): lambda r, x: F.cross_entropy(r.view(-1, 8), x.flatten(), reduction="sum"),
}


@pytest.mark.parametrize("shape", WHOLE)
def test_whole_numbers(shape):
    def loss(r, x, mu, logvar):
        return WHOLE[shape](r, x) / len(x) + 2 * kl(mu, logvar)

    options = {"batch_size": 16, "shape": (5,), "latent_dim": 4, "kinds": 8}
    found = measure_loss(loss, output_shape=shape, **options)
    assert found.name == "categorical cross-entropy" and not found.depends_on_batch
    assert found.beta == pytest.approx(2, rel=1e-3) and found.ignored == 0
    r, x = torch.randn(3, *shape), torch.randint(1, 8, (3, 5))
    chances = probabilities(found, r, (5,), kinds=8)
    assert chances.shape == (3, 5, 8)
    right = chances.gather(2, x[..., None]).log()
    assert WHOLE[shape](r, x).item() == pytest.approx(-right.sum().item(), rel=1e-4)


def test_log_probabilities_of_whole_numbers():
    def loss(r, x, mu, logvar):
        return F.nll_loss(r.transpose(1, 2), x, reduction="sum") / len(x) + kl(mu, logvar)

    found = measure_loss(
        loss, batch_size=16, shape=(5,), output_shape=(5, 8), latent_dim=4, kinds=8
    )
    assert found.link == "exp" and found.beta == pytest.approx(1, rel=1e-3)
    r = torch.randn(3, 5, 8).log_softmax(2)
    assert torch.allclose(probabilities(found, r, (5,), kinds=8), r.exp())


# ---- broadcasting, memory and arguments


def test_broadcasts_that_mix_images_or_fit_by_accident():
    assert measured(lambda r, x, mu, logvar: F.mse_loss(r, x.squeeze(1)) + kl(mu, logvar)).mixes

    def added(reduce):
        def loss(r, x, mu, logvar):
            return reduce(F.mse_loss(r, x, reduction="none") + gaussian_kl(mu, logvar))

        return measured(loss, 32, (3, 32, 32), 32)

    lucky = added(torch.mean)
    assert lucky.refuses and lucky.sigma2 == pytest.approx(3072 / 64)
    summed = added(torch.sum)
    assert summed.sigma2 == pytest.approx(96 / 2)


def test_a_warm_up_is_noticed():
    calls = []

    def loss(r, x, mu, logvar):
        calls.append(1)
        return sse(r, x) + min(1, len(calls) / 1000) * kl(mu, logvar)

    found = measured(loss)
    assert found.stateful and not found.depends_on_batch


def normal_kl(mu, sigma):
    normal = torch.distributions.Normal
    prior = normal(torch.zeros_like(mu), 1.0)
    # Explicitly: Pyro switches the validation off for the whole process.
    posterior = normal(mu, sigma, validate_args=True)
    return torch.distributions.kl_divergence(posterior, prior).sum(1).mean()


def thread_002(x, x_hat, mus, sigmas):
    normal = torch.distributions.Normal
    d_kl = torch.distributions.kl_divergence(
        normal(mus, sigmas), normal(torch.zeros_like(mus), 1.0)
    )
    return (F.mse_loss(x_hat, x, reduction="none") + d_kl).mean()


def std_loss(x, x_hat, mu, sigma):
    return sse(x_hat, x) + 0.5 * (mu**2 + sigma**2 - 1 - 2 * sigma.abs().log()).sum(1).mean()


@pytest.mark.parametrize(
    "loss, shown",
    [
        (thread_002, r"my_loss\(x, reconstruction, mu, torch.exp\(0.5 \* logvar\)\)"),
        (
            lambda x, x_hat, mus, sigmas: F.binary_cross_entropy(x_hat, x) + sigmas.log().sum(),
            r"my_loss\(x, reconstruction, mu, torch.exp\(0.5 \* logvar\)\)",
        ),
        (std_loss, r"my_loss\(x, reconstruction, mu, torch.exp\(0.5 \* logvar\)\)"),
        (lambda r, x, m, v: sse(r, x) + (v - v.log()).sum(), r"torch.exp\(0.5 \* logvar\)"),
        (lambda r, x: sse(r, x), "lambda reconstruction, x, mu, logvar"),
        (lambda a, b, c, s: sse(a, b) + normal_kl(c, s), r"torch.exp\(0.5 \* logvar\)"),
    ],
)
def test_a_loss_of_another_shape_gets_the_lambda_that_adapts_it(loss, shown):
    with pytest.raises(ValueError, match=shown):
        measured(loss)


def test_arguments_that_cannot_be_used_are_named():
    good = {"batch_size": 8, "shape": (1, 28, 28), "latent_dim": 20}
    for name, value in {"batch_size": 0, "shape": (1, 0), "latent_dim": 2.5}.items():
        with pytest.raises(ValueError, match=name):
            measure_loss(sse, **{**good, name: value})
    with pytest.raises(ValueError, match="loss must be a function"):
        measure_loss("mse", **good)


def test_a_loss_in_half_precision_is_measured_within_its_rounding():
    def loss(r, x, mu, logvar):
        r, x, mu, logvar = (t.half() for t in (r, x, mu, logvar))
        return (r - x).square().flatten(1).sum(1).mean() + kl(mu, logvar)

    found = measured(loss, 64)
    assert found.coarse and found.kl.kind == "gaussian" and not found.depends_on_batch
    assert found.name == "squared error" and found.sigma2 == pytest.approx(0.5, rel=0.05)

    def wrong(r, x, mu, logvar):
        return loss(r, x, mu.sign() * mu.abs().sqrt(), logvar)

    assert measured(wrong, 64).kl.kind == "other"


def test_a_loss_that_works_in_place_is_measured():
    def loss(r, x, mu, logvar):
        r.clamp_(1e-6, 1 - 1e-6)
        return F.binary_cross_entropy(r, x, reduction="sum") / len(x) + kl(mu, logvar)

    assert measured(loss).beta == pytest.approx(1, rel=1e-3)


def test_a_loss_that_takes_gradients_itself_is_measured():
    def loss(r, x, mu, logvar):
        (slope,) = torch.autograd.grad(r.sum(), r, create_graph=True)
        return sse(r, x) + kl(mu, logvar) + 0 * slope.sum()

    assert measured(loss).sigma2 == pytest.approx(0.5)


@pytest.mark.parametrize("batch_size", [200, 64])
def test_a_batch_size_written_into_the_loss_is_found(batch_size):
    def loss(r, x, mu, logvar):
        return sse(r.view(200, 784), x.view(200, 784)) + kl(mu, logvar)

    found = measured(loss, batch_size)
    assert found.fixed_size == 200 and not found.broadcasts
    assert found.sigma2 == pytest.approx(0.5, rel=1e-3)


def test_what_a_loss_remembers_is_put_back():
    calls = []

    def loss(r, x, mu, logvar):
        calls.append(1)
        torch.rand(1)
        return sse(r, x) + kl(mu, logvar)

    state = torch.get_rng_state()
    with torch.inference_mode():
        assert measured(loss).sigma2 == pytest.approx(0.5)
    assert calls == [] and torch.equal(state, torch.get_rng_state())
