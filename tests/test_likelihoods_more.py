import math

import matplotlib.pyplot as plt
import mpmath
import pytest
import torch

import vaelab
from vaelab.training import History

FAR = [0.0, 1e-6, 0.01, 0.2499, 0.2501, 0.7, 3.0, 17.0, 60.0, 95.0, 1e3, 1e4, 1e20]
LOGITS = sorted({sign * logit for logit in FAR for sign in (-1.0, 1.0)})
LIKELIHOODS = {
    "bernoulli": vaelab.Bernoulli,
    "continuous bernoulli": vaelab.ContinuousBernoulli,
    "gaussian": vaelab.Gaussian,
    "gaussian sigmoid": lambda: vaelab.Gaussian(0.1, "sigmoid"),
    "gaussian learned": lambda: vaelab.Gaussian("learned"),
    "gaussian optimal": lambda: vaelab.Gaussian("optimal"),
    "gaussian with variance": vaelab.GaussianWithVariance,
    "categorical": lambda: vaelab.Categorical(4),
}
every_likelihood = pytest.mark.parametrize("make", LIKELIHOODS.values(), ids=LIKELIHOODS)


@pytest.fixture(autouse=True)
def random_state():
    torch.manual_seed(0)
    with plt.style.context("vaelab.vaelab"):
        yield
    plt.close("all")


def exact_nll(logit, x):
    """-log of the continuous Bernoulli's density with 60 digits."""
    with mpmath.workdps(60):
        logit, x = mpmath.mpf(logit), mpmath.mpf(x)
        return mpmath.mpf(0) if logit == 0 else mpmath.log(mpmath.expm1(logit) / logit) - logit * x


def exact_mean(logit):
    with mpmath.workdps(60):
        logit = mpmath.mpf(logit)
        return mpmath.mpf(0.5) if logit == 0 else 1 / -mpmath.expm1(-logit) - 1 / logit


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float32, 1e-6), (torch.float64, 1e-9)], ids=str
)
@pytest.mark.parametrize("x", [0.0, 0.25, 1.0])
def test_continuous_bernoulli_nll_and_gradient_match_60_digits(x, dtype, tolerance):
    output = torch.tensor(LOGITS, dtype=dtype)[:, None].requires_grad_()
    nll = vaelab.ContinuousBernoulli().nll(output, torch.full_like(output, x))
    gradients = torch.autograd.grad(nll.sum(), output)[0]
    for logit, value, gradient in zip(output[:, 0].tolist(), nll, gradients, strict=True):
        exact = exact_nll(logit, x)
        assert abs(mpmath.mpf(value.item()) - exact) <= tolerance * max(1, abs(exact))
        assert abs(mpmath.mpf(gradient.item()) - (exact_mean(logit) - x)) <= tolerance


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float32, 1e-6), (torch.float64, 1e-9)], ids=str
)
def test_continuous_bernoulli_mean_matches_60_digits_and_has_a_gradient(dtype, tolerance):
    output = torch.tensor(LOGITS, dtype=dtype)[:, None].requires_grad_()
    means = vaelab.ContinuousBernoulli().mean(output)
    for logit, mean in zip(output[:, 0].tolist(), means, strict=True):
        assert abs(mpmath.mpf(mean.item()) / exact_mean(logit) - 1) <= tolerance
    slopes = torch.autograd.grad(means.sum(), output)[0]
    assert torch.isfinite(slopes).all() and (slopes >= 0).all()
    assert slopes[LOGITS.index(0.0)].item() == pytest.approx(1 / 12)


def test_continuous_bernoulli_agrees_with_the_library_where_that_does_not_clamp():
    output, x = torch.linspace(-6, 6, 101)[:, None], torch.rand(101, 1)
    library = torch.distributions.ContinuousBernoulli(logits=output)
    likelihood = vaelab.ContinuousBernoulli()
    torch.testing.assert_close(
        likelihood.nll(output, x), -library.log_prob(x)[:, 0], rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(likelihood.mean(output), library.mean, rtol=1e-3, atol=1e-3)
    far = torch.tensor([[-1000.0]])
    assert torch.distributions.ContinuousBernoulli(logits=far).mean.item() > 0.06  # the clamp
    assert likelihood.mean(far).item() == pytest.approx(0.001)


def test_continuous_bernoulli_parameter_is_not_its_mean():
    mean = vaelab.ContinuousBernoulli().mean(torch.tensor([[0.1]]).logit()).item()
    assert mean == pytest.approx(0.33, abs=0.005)


@pytest.mark.parametrize("logit", [-400.0, -30.0, -1.0, 0.0, 0.2, 30.0])
def test_continuous_bernoulli_integrates_to_one_and_samples_its_mean(logit):
    likelihood = vaelab.ContinuousBernoulli()
    x = torch.linspace(0, 1, 200_001, dtype=torch.float64)[:, None]
    density = (-likelihood.nll(torch.full_like(x, logit), x)).exp()
    assert torch.trapezoid(density, x[:, 0]).item() == pytest.approx(1, abs=1e-5)
    output = torch.full((100, 1000), logit)
    draws = likelihood.sample(output, torch.Generator().manual_seed(0))
    assert 0 <= draws.min() and draws.max() <= 1
    assert draws.mean().item() == pytest.approx(likelihood.mean(output).mean().item(), rel=0.02)


@pytest.mark.parametrize("make", [vaelab.Gaussian, vaelab.GaussianWithVariance])
def test_gaussians_integrate_to_one(make):
    likelihood, x = make(), torch.linspace(-40, 40, 80_001, dtype=torch.float64)[:, None]
    output = torch.tensor([[0.3, -1.0][: likelihood.outputs_per_value]], dtype=torch.float64)
    density = (-likelihood.nll(output.expand(len(x), -1), x)).exp()
    assert torch.trapezoid(density, x[:, 0]).item() == pytest.approx(1, abs=1e-6)


def test_gaussian_with_variance_matches_torch_distributions():
    likelihood = vaelab.GaussianWithVariance((0.2, 5.0))
    output, x = torch.randn(3, 4, 5, 5), torch.randn(3, 2, 5, 5)
    mean, logvar = output[:, :2], likelihood.logvar(output)
    expected = (
        -torch.distributions.Normal(mean, torch.exp(0.5 * logvar)).log_prob(x).flatten(1).sum(1)
    )
    torch.testing.assert_close(likelihood.nll(output, x), expected)
    torch.testing.assert_close(likelihood.mean(output), mean)
    unguarded = vaelab.GaussianWithVariance(None)
    torch.testing.assert_close(unguarded.logvar(output), output[:, 2:])
    torch.testing.assert_close(likelihood.logvar(output), output[:, 2:], atol=0.8, rtol=0.05)


def test_the_guard_keeps_sigma_within_its_range():
    likelihood = vaelab.GaussianWithVariance((0.1, 10.0))
    sigma = (
        likelihood.logvar(torch.tensor([[0.0, -1e6], [0.0, 0.0], [0.0, 1e6]]))
        .mul(0.5)
        .exp()
        .flatten()
    )
    torch.testing.assert_close(sigma[[0, 2]], torch.tensor([0.1, 10.0]), rtol=0.02, atol=0)
    assert sigma[1].item() == pytest.approx(1.0, rel=0.02)


def test_gaussian_with_variance_samples_have_its_mean_and_variance():
    output = torch.tensor([[3.0, math.log(4.0)]]).expand(100_000, 2)
    draws = vaelab.GaussianWithVariance(None).sample(output, torch.Generator().manual_seed(0))
    assert draws.shape == (100_000, 1)
    assert draws.mean().item() == pytest.approx(3.0, abs=0.03)
    assert draws.var().item() == pytest.approx(4.0, rel=0.03)


@pytest.mark.parametrize("bad", [(0.0, 1.0), (2.0, 1.0), (0.1, math.inf)])
def test_gaussian_with_variance_refuses_an_impossible_range(bad):
    with pytest.raises(ValueError, match="both above 0"):
        vaelab.GaussianWithVariance(bad)


def test_categorical_probabilities_sum_to_one_and_match_torch_distributions():
    likelihood, output = vaelab.Categorical(16), torch.randn(1, 16)
    x = torch.linspace(0, 1, 16)[:, None]
    nll = likelihood.nll(output.expand(16, -1), x)
    expected = -torch.distributions.Categorical(logits=output[0]).log_prob(torch.arange(16))
    torch.testing.assert_close(nll, expected)
    assert (-nll).exp().sum().item() == pytest.approx(1, abs=1e-6)
    assert likelihood.mean(output).item() == pytest.approx(
        (output.softmax(1)[0] * x[:, 0]).sum().item()
    )


def test_categorical_keeps_pixels_and_channels_in_place():
    x = torch.randint(0, 4, (2, 3, 5, 5)) / 3
    output = (
        50
        * torch.nn.functional.one_hot((x * 3).round().long(), 4)
        .movedim(-1, 1)
        .flatten(1, 2)
        .float()
    )
    likelihood = vaelab.Categorical(4)
    torch.testing.assert_close(likelihood.mean(output), x)
    torch.testing.assert_close(likelihood.sample(output), x)
    torch.testing.assert_close(likelihood.nll(output, x), torch.zeros(2))
    torch.testing.assert_close(
        likelihood.nll(output, x.clamp(0.1, 0.9)), torch.zeros(2)
    )  # the nearest level


@pytest.mark.parametrize("bad", [1, 2.5, "16"])
def test_categorical_refuses_an_impossible_number_of_levels(bad):
    with pytest.raises(ValueError, match="levels must be a whole number of at least 2"):
        vaelab.Categorical(bad)


def test_256_levels_would_be_80_million_parameters_on_the_network_of_thread_001():
    with torch.device("meta"):
        model = vaelab.mlp_vae((1, 28, 28), likelihood=vaelab.Categorical(256))
    assert sum(p.numel() for p in model.decoder[2].parameters()) == 401 * 784 * 256 == 80_482_304


@every_likelihood
@pytest.mark.parametrize("size", [0.0, 30.0, 1e4])
def test_gradients_are_finite_at_extreme_outputs(make, size):
    likelihood = make()
    output = (size * torch.randn(4, likelihood.outputs_per_value, 5, 5).sign()).requires_grad_()
    nll = likelihood.nll(output, torch.rand(4, 1, 5, 5).round())
    gradient = torch.autograd.grad(nll.sum(), output)[0]
    assert nll.shape == (4,) and torch.isfinite(nll).all() and torch.isfinite(gradient).all()
    assert torch.isfinite(likelihood.mean(output)).all()


@every_likelihood
def test_bounded_likelihoods_name_the_value_and_the_cure(make):
    likelihood = make()
    if likelihood.support == (-math.inf, math.inf):
        likelihood.check(torch.tensor([-0.42, 2.8]))
    else:
        with pytest.raises(ValueError, match=r"spans \[-0.42, 2.8\].*rescale x .*Gaussian"):
            likelihood.check(torch.tensor([-0.42, 2.8]))
    with pytest.raises(ValueError, match="NaN"):
        likelihood.check(torch.tensor([float("nan")]))


@every_likelihood
@pytest.mark.parametrize("shape", [(1, 8, 8), (12,)], ids=["images", "table"])
def test_fit_works_with_every_likelihood(make, shape):
    x = torch.rand(64, *shape)
    model = vaelab.mlp_vae(shape, latent_dim=2, hidden=8, likelihood=make())
    history = vaelab.fit(model, x, x[:20], max_steps=5, progress=False)
    assert math.isfinite(history.final["negative_elbo"])
    assert model.reconstruct(x).shape == x.shape
    generator = torch.Generator().manual_seed(0)
    assert model.sample(3, generator).shape == (3, *shape)
    with torch.no_grad():
        assert model.likelihood.sample(model.decode(model.encode(x)[0]), generator).shape == x.shape


@every_likelihood
def test_every_plot_works_with_every_likelihood(make):
    x = torch.rand(40, 1, 8, 8)
    model = vaelab.mlp_vae((1, 8, 8), latent_dim=2, hidden=8, likelihood=make())
    history = vaelab.fit(model, x, x[:20], max_steps=5, progress=False)
    vaelab.plots.kl_per_latent(vaelab.elbo_terms(model, x).kl.detach())
    low, high = vaelab.plots.ruler({"linear": 3.0}, {"a run": history}).axes[0].get_xlim()
    assert low <= min(0, history.final["reconstruction"]) and high >= history.final["negative_elbo"]


def test_negative_nats_are_not_cut_off():
    end = {"reconstruction": -500.0, "kl": 50.0, "negative_elbo": -450.0, "active_units": 2}
    history = History(start={"train": end, "test": end}, epochs=[{"train": end, "test": end}])
    assert vaelab.plots.ruler({"linear": -600.0}, {"a run": history}).axes[0].get_xlim()[0] < -600


def test_a_likelihood_of_ones_own_takes_three_members():
    class Laplace(vaelab.Likelihood):
        name = "Laplace"

        def nll(self, output, x):
            return ((x - output).abs() + math.log(2)).flatten(1).sum(1)

        def mean(self, output):
            return output

    output, x = torch.randn(3, 5), torch.randn(3, 5)
    expected = -torch.distributions.Laplace(output, 1.0).log_prob(x).sum(1)
    torch.testing.assert_close(Laplace().nll(output, x), expected)
    model = vaelab.mlp_vae((5,), latent_dim=2, hidden=8, likelihood=Laplace())
    assert vaelab.fit(model, torch.randn(64, 5), max_steps=5, progress=False).steps == 5
