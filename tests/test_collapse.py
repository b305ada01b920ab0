"""Posterior collapse: decoder variance, the linear VAE on paper, and measures of a dead code."""

import math

import pytest
import torch
from sklearn.decomposition import PCA

import vaelab


def correlated(n=400, shape=(1, 3, 3), seed=0):
    """Data with a few strong directions."""
    generator = torch.Generator().manual_seed(seed)
    d = math.prod(shape)
    mix = torch.randn(d, d, generator=generator) * torch.linspace(3, 0.1, d)
    return (torch.randn(n, d, generator=generator) @ mix.T + 0.5).reshape(n, *shape)


def test_learned_sigma2_is_a_parameter_and_matches_torch_distributions():
    likelihood = vaelab.Gaussian("learned")
    likelihood.log_sigma2.data.fill_(math.log(0.7))
    output, x = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    expected = -torch.distributions.Normal(output, math.sqrt(0.7)).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(likelihood.nll(output, x), expected)
    assert [name for name, _ in likelihood.named_parameters()] == ["log_sigma2"]
    assert not list(vaelab.Gaussian(0.5).parameters()) and not list(
        vaelab.Gaussian("optimal").parameters()
    )


def test_learned_sigma2_trains_to_the_mean_squared_error():
    likelihood, output = vaelab.Gaussian("learned"), torch.zeros(50, 8)
    x = 0.3 * torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        likelihood.nll(output, x).mean().backward()
        optimizer.step()
    assert likelihood.sigma2 == pytest.approx(x.square().mean().item(), rel=1e-3)


def test_optimal_sigma2_is_the_best_of_all_fixed_ones():
    output, x = torch.randn(6, 10), torch.randn(6, 10)
    mse = (output - x).square().mean().item()
    best = vaelab.Gaussian("optimal").nll(output, x).mean().item()
    assert best == pytest.approx(10 / 2 * (math.log(2 * math.pi * mse) + 1), rel=1e-5)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert vaelab.Gaussian(factor * mse).nll(output, x).mean().item() > best


def test_optimal_sigma2_has_the_gradient_of_half_d_log_mse():
    output, x = torch.randn(6, 10, requires_grad=True), torch.randn(6, 10)
    (ours,) = torch.autograd.grad(vaelab.Gaussian("optimal").nll(output, x).mean(), output)
    (expected,) = torch.autograd.grad(10 / 2 * (output - x).square().mean().log(), output)
    torch.testing.assert_close(ours, expected)


def test_optimal_sigma2_in_eval_mode_depends_on_no_batch():
    likelihood = vaelab.Gaussian("optimal")
    for _ in range(200):
        likelihood.nll(torch.zeros(4, 5), torch.full((4, 5), 0.2))
    assert likelihood.sigma2 == pytest.approx(0.04, rel=1e-2)
    likelihood.eval()
    output, x = torch.randn(6, 5), torch.randn(6, 5)
    parts = [likelihood.nll(output[i : i + 2], x[i : i + 2]) for i in (0, 2, 4)]
    torch.testing.assert_close(likelihood.nll(output, x), torch.cat(parts))
    assert likelihood.sigma2 == pytest.approx(0.04, rel=1e-2)


@pytest.mark.parametrize("bad", ["best", 0, -1.0, math.inf, None])
def test_gaussian_refuses_other_variances(bad):
    with pytest.raises(
        ValueError, match="sigma2 must be a positive number, 'learned' or 'optimal'"
    ):
        vaelab.Gaussian(bad)


@pytest.mark.parametrize("sigma2", [0.3, 4.0, 1e4])
def test_the_optimum_is_the_likelihood_of_probabilistic_pca(sigma2):
    """-ELBO at the closed form = -log N(x; mean, W W^T + sigma^2 I), by torch.distributions."""
    x, latents = correlated().double(), 3
    linear = vaelab.LinearOptimum(x)
    length = (linear.variances[:latents] - sigma2).clamp(min=0).sqrt()
    gaussian = torch.distributions.LowRankMultivariateNormal(
        linear.mean, linear.axes[:latents].T * length, torch.full((9,), sigma2, dtype=torch.double)
    )
    exact = -gaussian.log_prob(x.flatten(1)).mean().item()
    assert linear.at(sigma2, latents)["negative_elbo"] == pytest.approx(exact, rel=1e-9)


def test_the_optimum_at_the_best_sigma2_is_sklearns_score():
    x = correlated()
    linear, n = vaelab.LinearOptimum(x), len(x)
    best = linear.variances[3:].mean().item()
    pca = PCA(3).fit(x.flatten(1).double().numpy())  # its covariance divides by n - 1
    assert pca.noise_variance_ == pytest.approx(best * n / (n - 1), rel=1e-6)
    score = pca.score(x.flatten(1).double().numpy())
    assert linear.at(best, 3)["negative_elbo"] == pytest.approx(-score, rel=1e-4)


def test_the_optimum_by_hand():
    """Variances 4 and 1, sigma^2 = 2: one latent, KL 1/2 log 2, squared error 2 + 1."""
    x = torch.tensor([[2.0, 1.0], [2.0, -1.0], [-2.0, 1.0], [-2.0, -1.0]])
    end = vaelab.LinearOptimum(x).at(2.0, 2)
    assert end["active"] == 1
    assert end["kl"] == pytest.approx(0.5 * math.log(2))
    assert end["squared_error"] == pytest.approx(3)
    assert end["reconstruction"] == pytest.approx(3 / 4 + math.log(4 * math.pi))
    collapsed = vaelab.LinearOptimum(x).at(4.5, 2)
    assert (collapsed["active"], collapsed["kl"], collapsed["squared_error"]) == (
        0,
        0,
        pytest.approx(5),
    )
    with pytest.raises(ValueError, match="sigma2 must be a positive number"):
        vaelab.LinearOptimum(x).at(0, 2)


@pytest.mark.parametrize("sigma2", [0.3, 4.0, 1e4])
def test_a_network_with_the_weights_of_the_optimum_measures_it(sigma2):
    x = correlated(2000)
    linear = vaelab.LinearOptimum(x)
    measured, expected = vaelab.evaluate(linear.vae(sigma2, 5), x), linear.at(sigma2, 5)
    assert measured["kl"] == pytest.approx(expected["kl"], rel=1e-3, abs=1e-6)
    assert measured["reconstruction"] == pytest.approx(expected["reconstruction"], rel=0.02)
    assert measured["active_units"] == expected["active"]


def test_the_optimum_is_an_optimum():
    """Any small change of the weights raises the negative ELBO, computed without noise."""
    x = correlated(500)
    model = vaelab.LinearOptimum(x).vae(1.0, 4)

    def negative_elbo():
        mu, logvar = model.encode(x)
        weight = model.decoder[0].weight
        error = (model.decode(mu) - x).flatten(1).square().sum(1) + (
            logvar.exp() @ weight.square().T
        ).sum(1)
        return (error / 2 + vaelab.gaussian_kl(mu, logvar).sum(1)).mean()

    gradients = torch.autograd.grad(negative_elbo(), list(model.parameters()))
    assert max(g.abs().max().item() for g in gradients) < 1e-3


def test_the_thread_004_network_has_its_layers():
    vae, ae = (
        vaelab.thread_004_vae((1, 28, 28)),
        vaelab.thread_004_vae((1, 28, 28), variational=False),
    )
    count = sum(p.numel() for p in vae.parameters())
    assert count == (784 * 30 + 30) + 2 * (30 * 30 + 30) + (30 * 784 + 784)
    assert sum(p.numel() for p in ae.parameters()) == (784 * 30 + 30) + (30 * 784 + 784)
    assert vae.reconstruct(5 * torch.randn(4, 1, 28, 28)).abs().max() <= 1
    assert ae(torch.randn(2, 1, 28, 28))[2] is None


def test_code_swap_of_a_decoder_that_ignores_its_code_and_of_one_that_listens():
    x = correlated(200)
    linear = vaelab.LinearOptimum(x)
    own, swapped = vaelab.code_swap(linear.vae(1e6, 3), x)  # nothing is worth coding: collapsed
    assert own == pytest.approx(swapped, abs=1e-9)
    own, swapped = vaelab.code_swap(linear.vae(0.1, 3), x)
    mean_image = (x - x.mean(0)).flatten(1).square().sum(1).mean().item() / (2 * 0.1)
    assert swapped - own > mean_image  # a confident wrong code is worse than none


@pytest.mark.parametrize("kind", ["neighbours", "linear"])
def test_probe_ignores_scale_and_cannot_read_noise(kind):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 2
    codes = labels[:, None] + 0.1 * torch.randn(400, 3, generator=generator)
    assert vaelab.probe(codes, labels, kind) == 1.0
    assert vaelab.probe(1e-4 * codes, labels, kind) == 1.0
    noise = 1e-4 * codes + torch.randn(400, 3, generator=generator)
    assert abs(vaelab.probe(noise, labels, kind) - 0.5) < 0.12
    with pytest.raises(ValueError, match="kind must be"):
        vaelab.probe(codes, labels, "tree")


def floor_and_constant(data):
    """The tanh floor and the best constant picture inside [-1, 1], on z-scored test images."""
    scaling = vaelab.Scaling.zscore(data.x_train)
    x_train, x_test = scaling(data.x_train), scaling(data.x_test)
    constant = (x_test - x_train.mean(0).clamp(-1, 1)).square().mean().item()
    return vaelab.reachable_floor(x_test, -1, 1), constant, x_test


def test_tanh_floor_and_best_constant_on_mnist(monkeypatch, mnist_root):
    monkeypatch.setenv("VAELAB_DATA", mnist_root)
    floor, constant, _ = floor_and_constant(vaelab.load("mnist"))
    assert floor == pytest.approx(0.323, abs=0.0005)
    assert constant == pytest.approx(0.7135, abs=0.0005)


def test_tanh_floor_and_best_constant_on_digits():
    floor, constant, x = floor_and_constant(vaelab.load("digits"))
    beyond = (x.abs() > 1).double()
    assert floor == pytest.approx(
        (beyond * (x.abs() - 1).double().square()).mean().item(), rel=1e-6
    )
    assert floor < constant < x.square().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_cliff_of_the_tanh_network_is_confirmed_by_training(seed):
    data = vaelab.load("digits")
    x = vaelab.Scaling.zscore(data.x_train)(data.x_train)
    threshold = vaelab.collapse_threshold(x[:, x.mean(0).abs() < 1], "squared_error")
    for factor, alive in [(0.7, True), (1.3, False)]:
        torch.manual_seed(seed)
        model = vaelab.thread_004_vae(x.shape[1:], 30, vaelab.Gaussian(factor * threshold, "tanh"))
        vaelab.fit(model, x.repeat(8, 1, 1, 1), max_steps=300, lr=1e-2, seed=seed, progress=False)
        units = vaelab.active_units(vaelab.posterior(model, x)[0])
        assert (units > 0) == alive, (factor, units)
