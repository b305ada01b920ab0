import math

import pytest
import torch
import torch.nn.functional as F

import vaelab
from vaelab.diagnostics import entropy_floor, mean_image_loss


def test_entropy_floor_is_zero_for_black_and_white_and_log_two_for_grey():
    assert entropy_floor(torch.tensor([[[[0.0, 1.0]]]])) == 0
    assert entropy_floor(torch.full((3, 1, 2, 2), 0.5)) == pytest.approx(4 * math.log(2))


def test_landmarks_are_ordered_and_the_mean_image_is_the_best_constant():
    g = torch.Generator().manual_seed(0)
    codes = torch.randn(600, 3, generator=g)
    x = torch.sigmoid(codes @ torch.randn(3, 36, generator=g)).reshape(600, 1, 6, 6)
    marks = vaelab.landmarks(x[:500], x[500:], latent_dim=3)
    assert marks.floor < marks.linear < marks.mean_image
    m = x[:500].mean(0, keepdim=True)
    direct = (
        torch.nn.functional.binary_cross_entropy(
            m.expand(100, -1, -1, -1), x[500:], reduction="sum"
        )
        / 100
    )
    assert marks.mean_image == pytest.approx(direct.item(), rel=1e-3)


def test_mean_image_loss_is_finite_where_training_was_all_black():
    x_train, x_test = torch.zeros(10, 1, 2, 2), torch.full((1, 1, 2, 2), 0.3)
    assert math.isfinite(mean_image_loss(x_train, x_test))


def test_collapse_threshold_in_closed_form():
    """Two pixels that switch on together: C / (m(1-m)) is all ones, its largest eigenvalue 2."""
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).repeat(50, 1)
    assert vaelab.collapse_threshold(x) == pytest.approx(2.0, rel=1e-6)
    assert vaelab.collapse_threshold(x, "squared_error") == pytest.approx(0.5, rel=1e-6)
    independent = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    assert vaelab.collapse_threshold(independent) == pytest.approx(1.0, rel=1e-6)


def test_collapse_threshold_agrees_with_a_dense_eigenvalue_problem():
    x = torch.rand(400, 1, 5, 5, generator=torch.Generator().manual_seed(0)).square()
    flat = x.flatten(1).double()
    covariance = torch.cov(flat.T, correction=0)
    h = flat.mean(0) * (1 - flat.mean(0))
    dense = torch.linalg.eigvalsh(covariance / torch.sqrt(h[:, None] * h[None]))[-1].item()
    assert vaelab.collapse_threshold(x) == pytest.approx(dense, rel=1e-3)
    largest = torch.linalg.eigvalsh(covariance)[-1].item()
    assert vaelab.collapse_threshold(x, "squared_error") == pytest.approx(largest, rel=1e-3)


def test_collapse_threshold_at_the_door():
    assert vaelab.collapse_threshold(torch.full((5, 3), 0.2)) == 0.0
    with pytest.raises(ValueError, match="loss must be"):
        vaelab.collapse_threshold(torch.rand(5, 3), "mse")
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        vaelab.collapse_threshold(torch.randn(5, 3))


def test_the_threshold_of_data_in_tiny_units_is_not_lost():
    x = torch.rand(200, 6, generator=torch.Generator().manual_seed(0))
    full = vaelab.collapse_threshold(x, "squared_error")
    for unit in (1e-7, 1e-3, 1e5):
        small = vaelab.collapse_threshold(unit * x, "squared_error")
        assert small == pytest.approx(unit**2 * full, rel=1e-4)


@pytest.mark.parametrize("shape", [(300, 12), (12, 300)])
def test_the_spectrum_is_the_whole_one_also_with_few_images(shape):
    x = torch.rand(*shape, generator=torch.Generator().manual_seed(1))
    spectrum = vaelab.collapse_spectrum(x, "squared_error")
    dense = torch.linalg.eigvalsh(torch.cov(x.T.double(), correction=0)).flip(0)
    assert spectrum.shape == (shape[1],)
    torch.testing.assert_close(spectrum, dense.clamp(min=0), atol=1e-6, rtol=1e-4)


def test_large_images_get_the_same_threshold_without_the_whole_spectrum(monkeypatch):
    x = torch.rand(80, 60, generator=torch.Generator().manual_seed(2))
    full = vaelab.collapse_threshold(x)
    monkeypatch.setattr("vaelab.threshold.FULL_SPECTRUM", 10)
    assert vaelab.collapse_threshold(x) == pytest.approx(full, rel=1e-4)


def test_the_predicted_rate_is_that_of_the_linear_optimum():
    x = torch.randn(500, 8, generator=torch.Generator().manual_seed(3)) * torch.arange(1.0, 9.0)
    linear = vaelab.LinearOptimum(x)
    for sigma2 in (0.5, 5.0, 100.0):
        rate = vaelab.predicted_rate(x, sigma2, "squared_error")
        assert rate == pytest.approx(linear.at(sigma2, 8)["kl"], rel=1e-3, abs=1e-9)
    spectrum = vaelab.collapse_spectrum(x, "squared_error")
    few = vaelab.predicted_rate(spectrum, 0.5, latent_dim=3)
    assert few == pytest.approx(linear.at(0.5, 3)["kl"], rel=1e-3)
    with pytest.raises(ValueError, match="beta must be a positive number, got 0"):
        vaelab.predicted_rate(x, 0, "squared_error")


def test_a_collapsed_model_follows_nothing_and_noise_is_not_counted():
    """The codes are pure noise around one point: outputs differ, but not by the images."""
    model, x = vaelab.mlp_vae((1, 4, 4), latent_dim=2, hidden=8), torch.rand(2000, 1, 4, 4)
    torch.nn.init.zeros_(model.encoder[-1].weight)
    torch.nn.init.normal_(model.decoder[2].weight, std=3.0)
    with torch.no_grad():
        plain = model.likelihood.mean(model(x)[0]).var(0).mean().item()
    assert plain > 0.01 and vaelab.output_variance(model, x) < 0.05 * plain


def test_measurements_are_made_in_evaluation_mode():
    model, x = vaelab.mlp_vae((1, 4, 4), latent_dim=2, hidden=8), torch.rand(30, 1, 4, 4)
    model.encoder.insert(1, torch.nn.Dropout(0.9))
    model.train()
    assert torch.equal(vaelab.posterior(model, x)[0], vaelab.posterior(model, x)[0])
    assert all(module.training for module in model.modules())


def test_reachable_floor_by_hand():
    assert vaelab.reachable_floor(torch.tensor([-2.0, 0.5, 3.0]), -1, 1) == pytest.approx(
        (1 + 0 + 4) / 3
    )
    assert vaelab.reachable_floor(torch.tensor([0.2, 0.9]), 0, 1) == 0
    with pytest.raises(ValueError, match="low must be below high"):
        vaelab.reachable_floor(torch.zeros(2), 1, 1)


def test_active_units_count_latents_that_move():
    mu = torch.zeros(100, 4)
    mu[:50, 0], mu[:50, 1] = 1.0, 0.3
    mu[:50, 2] = 0.1  # variance 0.0025, below Burda's 0.01
    assert vaelab.active_units(mu) == 2


def test_output_variance_is_zero_for_a_decoder_that_ignores_its_code():
    model = vaelab.mlp_vae((1, 4, 4), latent_dim=2, hidden=8)
    x = torch.rand(20, 1, 4, 4)
    assert vaelab.output_variance(model, x) > 0
    torch.nn.init.zeros_(model.decoder[2].weight)
    assert vaelab.output_variance(model, x) < 1e-12


def small_shapes():
    """The drawn shapes, grey and 16x16: a set whose cliff is far from that of handwriting."""
    data = vaelab.load("shapes")
    return [F.avg_pool2d(x.mean(1, keepdim=True), 4) for x in (data.x_train, data.x_test)]


def handwriting():
    """MNIST where it can be had, else the digits."""
    data = vaelab.load("mnist")
    return data.x_train, data.x_test


@pytest.mark.slow
@pytest.mark.parametrize("images", [handwriting, small_shapes])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_collapse_threshold_is_confirmed_by_training(images, seed):
    """Below the predicted beta (by 30%) a trained model uses its latents, above it none."""
    x_train, x_test = images()
    threshold = vaelab.collapse_threshold(x_train)
    for factor, alive in [(0.7, True), (1.3, False)]:
        torch.manual_seed(seed)
        model = vaelab.mlp_vae(x_train.shape[1:])
        history = vaelab.fit(
            model,
            x_train,
            x_test,
            max_steps=600,
            beta=factor * threshold,
            seed=seed,
            progress=False,
        )
        assert (history.final["active_units"] > 0) == alive, (factor, threshold, history)


@pytest.mark.slow
@pytest.mark.parametrize("images", [handwriting, small_shapes])
def test_the_squared_error_threshold_is_confirmed_by_training(images):
    """The same for sigma^2 and a linear VAE, whose optimum the threshold describes exactly."""
    x_train, x_test = images()
    threshold = vaelab.collapse_threshold(x_train, "squared_error")
    for factor, alive in [(0.7, True), (1.3, False)]:
        torch.manual_seed(0)
        model = vaelab.linear_vae(x_train.shape[1:], 10, vaelab.Gaussian(factor * threshold))
        history = vaelab.fit(model, x_train, x_test, max_steps=2000, progress=False)
        assert (history.final["active_units"] > 0) == alive, (factor, threshold, history)
