"""A loss's form and weights are recovered from the gradients of real losses."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from vaelab import Gaussian, effective_beta, free_bits, gaussian_kl, implied_sigma2, measure_loss
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


@pytest.mark.parametrize(
    "wrong",
    [
        lambda mu, logvar: -0.5 * (1 + logvar - mu - logvar.exp()).sum(1).mean(),
        lambda mu, logvar: -0.5 * (1 + logvar - mu**2 - logvar).sum(1).mean(),
        lambda mu, logvar: -0.5 * (1 + logvar - mu**2 - (0.5 * logvar).exp()).sum(1).mean(),
        lambda mu, logvar: (mu**2 + 0.5 * (logvar.exp() - 1 - logvar)).sum(1).mean(),
        lambda mu, logvar: kl(mu.mean(0, keepdim=True), logvar.mean(0, keepdim=True)),
    ],
)
def test_a_kl_that_is_not_the_gaussian_one(wrong):
    assert measured(lambda r, x, mu, logvar: sse(r, x) + wrong(mu, logvar)).kl.kind == "other"


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
        (lambda r, x, mu, logvar: {"loss": sse(r, x)}, r'\["loss"\]'),
        (lambda r, x, mu, logvar: (sse(r, x), kl(mu, logvar)), r"\[0\]"),
        (lambda r, x, mu, logvar: (r - x).square().flatten(1).sum(1), r"\.mean\(\)"),
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


def test_a_loss_in_another_order_gets_the_lambda_that_adapts_it():
    def loss(x, x_hat, mu, logvar):
        return F.binary_cross_entropy(x_hat, x, reduction="sum") / len(x) + kl(mu, logvar)

    with pytest.raises(ValueError, match=r"my_loss\(x, reconstruction, mu, logvar\)"):
        measured(loss)


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
