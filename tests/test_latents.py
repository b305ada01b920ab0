"""Latent spaces in numbers and maps: each instrument on codes whose answer is known."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import vaelab
from vaelab import latents, plots


def normal(*size, seed=0, dtype=torch.float32):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return vaelab.mlp_vae((1, 6, 6), latent_dim=3, hidden=8)


@pytest.fixture(scope="module")
def images():
    return torch.rand(120, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def texts(figure):
    return " ".join(text.get_text() for text in figure.findobj(plt.Text))


# project


@pytest.mark.parametrize("method", ["t-SNE", "tsne", "PCA", "pca", "raw"])
def test_project_gives_two_numbers_a_code_and_says_its_settings(method):
    shown = vaelab.project(normal(60, 4), method, perplexity=7, seed=3)
    assert shown.points.shape == (60, 2) and np.isfinite(shown.points).all()
    if shown.method == "t-SNE":
        assert shown.settings == "perplexity 7, 500 steps, start PCA, seed 3"


def test_raw_takes_the_most_active_latents_as_they_are():
    codes = normal(60, 4) * torch.tensor([1.0, 5.0, 0.1, 3.0])
    assert np.allclose(vaelab.project(codes, "raw").points, codes[:, [1, 3]])
    by_kl = vaelab.project(codes, "raw", activity=torch.tensor([2.0, 0.0, 3.0, 0.0]))
    assert np.allclose(by_kl.points, codes[:, [0, 2]]) and "0 and 2" in by_kl.settings


def test_pca_keeps_the_scale_and_tsne_has_none():
    codes = normal(100, 5)
    assert np.allclose(
        vaelab.project(1e-3 * codes, "PCA").points, 1e-3 * vaelab.project(codes, "PCA").points
    )
    widths = [vaelab.project(scale * codes, seed=0).points.std() for scale in (1e-6, 1.0, 1e6)]
    assert max(widths) < 1.5 * min(widths)


@pytest.mark.parametrize(
    "codes, options, message",
    [
        (
            normal(30, 4),
            {"perplexity": 30},
            "perplexity must be below the number of points, 30, got 30",
        ),
        (normal(30, 4), {"perplexity": 0}, "perplexity must be below"),
        (normal(30, 1), {}, "at least 2 latents"),
        (torch.full((30, 4), float("nan")), {}, "NaN or infinite values in 30 of 30 rows"),
        (torch.zeros(30, 4), {}, "all alike"),
        (torch.full((30, 4), 0.1), {"method": "PCA"}, "all alike"),
        (torch.tensor([[0.1, 7.3, -2.9]]).expand(30, 3), {"perplexity": 5}, "all alike"),
        (normal(30), {}, r"codes must be \[N, L\]"),
        (normal(30, 4), {"method": "umap"}, "method must be one of"),
        (normal(30, 4), {"start": "zeros", "perplexity": 5}, "start must be"),
        (normal(30, 4), {"method": "raw", "activity": torch.ones(3)}, "activity must be"),
    ],
)
def test_project_says_what_is_wrong(codes, options, message):
    with pytest.raises(ValueError, match=message):
        vaelab.project(codes, **options)


# the two-sample test


@pytest.mark.parametrize("latents", [1, 2, 20])
def test_equal_distributions_are_not_told_apart(latents):
    tests = [vaelab.two_sample_test(normal(1000, latents, seed=s), seed=s) for s in range(3)]
    assert abs(np.mean([test.accuracy for test in tests]) - 0.5) < 0.03
    assert all(test.held_out == 1000 and test.p_value > 1e-3 for test in tests)


@pytest.mark.parametrize(
    "codes",
    [
        normal(1000, 2) + 3,
        0.01 * normal(1000, 2),
        1e-4 * normal(1000, 20),
        100 * normal(1000, 5),
        2.5 * normal(1000, 20).sign() + 0.3 * normal(1000, 20, seed=1),
    ],
)
def test_different_distributions_are_told_apart(codes):
    test = vaelab.two_sample_test(codes, seed=0)
    assert test.accuracy > 0.85 and test.auc > 0.9 and test.p_value < 1e-6


def test_a_sphere_with_the_priors_mean_and_covariance_is_told_apart():
    sphere = 2 * torch.nn.functional.normalize(normal(1000, 4), dim=1)
    assert vaelab.two_sample_test(sphere, seed=0).accuracy > 0.6


def test_two_sample_test_against_given_draws():
    assert (
        vaelab.two_sample_test(normal(800, 3) + 4, normal(900, 3, seed=1) + 4, seed=0).accuracy
        < 0.57
    )
    assert (
        vaelab.two_sample_test(normal(800, 3), normal(500, 3, seed=1) + 4, seed=0).accuracy > 0.95
    )


def test_two_sample_test_says_what_is_wrong():
    with pytest.raises(ValueError, match="prior must have 3 latents like the codes, got 2"):
        vaelab.two_sample_test(normal(100, 3), normal(100, 2))
    with pytest.raises(ValueError, match="N at least 20"):
        vaelab.two_sample_test(normal(10, 3))
    broken = normal(100, 3)
    broken[7, 1] = float("inf")
    with pytest.raises(ValueError, match="1 of 100 rows, the first is row 7"):
        vaelab.two_sample_test(broken)


# ELBO surgery


def test_surgery_agrees_with_numerical_integration():
    mu, logvar = torch.tensor([[-1.0], [0.5], [2.0]]), torch.tensor([[-2.0], [-0.5], [0.3]])
    z = torch.linspace(-12, 12, 40_001, dtype=torch.float64)
    each = torch.distributions.Normal(mu.double(), (logvar.double() / 2).exp())
    q = each.log_prob(z).logsumexp(0) - math.log(3)
    p = torch.distributions.Normal(0.0, 1.0).log_prob(z)
    aggregate = torch.trapezoid(q.exp() * (q - p), z).item()
    cut = vaelab.elbo_surgery(mu, logvar, draws=60_000, seed=0)
    assert cut.kl == pytest.approx(vaelab.gaussian_kl(mu, logvar).sum(1).mean().item(), rel=1e-5)
    assert cut.aggregate_kl == pytest.approx(aggregate, abs=5 * cut.error)
    assert cut.information == pytest.approx(cut.kl - aggregate, abs=5 * cut.error)


def test_surgery_at_its_limits():
    for logvar in (-4.0, -18.0, -60.0):  # the last is an autoencoder in all but name
        apart = vaelab.elbo_surgery(1000 * normal(64, 3), torch.full((64, 3), logvar))
        assert apart.information == pytest.approx(
            math.log(64), abs=1e-6
        ) and apart.log_n == math.log(64)
    collapsed = vaelab.elbo_surgery(torch.zeros(64, 3), torch.zeros(64, 3))
    assert collapsed.kl == collapsed.information == 0 and collapsed.aggregate_kl == 0
    some = vaelab.elbo_surgery(normal(500, 4), torch.full((500, 4), -1.0))
    assert 0 < some.information <= math.log(500)


def test_an_exact_model_shows_its_kl_minus_log_n():
    n, latents, kl_each = 4000, 20, 1.2
    noise = 1 / math.expm1(2 * kl_each)
    z, e = normal(2, n, latents, dtype=torch.float64)
    mu = (z + noise**0.5 * e) / (1 + noise)
    logvar = torch.full_like(mu, math.log(noise / (1 + noise)))
    cut = vaelab.elbo_surgery(mu, logvar)
    assert cut.kl == pytest.approx(latents * kl_each, rel=0.01)
    assert cut.aggregate_kl == pytest.approx(latents * kl_each - math.log(n), abs=0.3)
    sampled = mu + (logvar / 2).exp() * normal(n, latents, seed=1)
    assert vaelab.two_sample_test(sampled, seed=0).accuracy < 0.54


def test_surgery_says_what_is_wrong():
    with pytest.raises(ValueError, match="autoencoder has no posterior"):
        vaelab.elbo_surgery(normal(10, 2), None)
    with pytest.raises(ValueError, match="same shape"):
        vaelab.elbo_surgery(normal(10, 2), normal(10, 3))


# the fitted prior


def test_a_fitted_prior_repairs_the_mismatch():
    sign = normal(3000, 1).sign()
    codes = 3 * sign * torch.tensor([[1.0, 1.0, 0.0]]) + 0.5 * normal(3000, 3, seed=1)
    draw = vaelab.fit_prior(codes[:1500], n_components=4, seed=0)
    drawn = draw(1500, seed=1)
    assert (
        drawn.shape == (1500, 3) and drawn.dtype == torch.float32 and drawn.device == codes.device
    )
    assert vaelab.two_sample_test(codes[1500:], seed=0).accuracy > 0.9
    assert vaelab.two_sample_test(codes[1500:], drawn, seed=0).accuracy < 0.56
    first = (drawn[:100, 0] > 0).double().mean().item()
    assert 0.25 < first < 0.75  # in random order, not component by component


def test_fitted_draws_follow_their_seed():
    draw = vaelab.fit_prior(normal(200, 2), n_components=3, seed=0)
    assert torch.equal(draw(50, seed=4), draw(50, seed=4))
    assert not torch.equal(draw(50, seed=4), draw(50, seed=5))


def test_a_dead_latent_or_few_codes_do_not_break_the_fit():
    codes = normal(60, 30)
    codes[:, 3] = 0.7
    drawn = vaelab.fit_prior(codes, n_components=10, seed=0)(40)
    assert torch.isfinite(drawn).all() and torch.allclose(drawn[:, 3], torch.tensor(0.7), atol=1e-3)
    with pytest.raises(ValueError, match="n_components must be between 1 and the 60 codes, got 61"):
        vaelab.fit_prior(codes, n_components=61)


# codes to decode


def test_the_grid_has_no_infinite_ends():
    assert (
        torch.isinf(torch.distributions.Normal(0.0, 1.0).icdf(torch.linspace(0, 1, 5))).sum() == 2
    )
    places = latents.prior_quantiles(9)
    assert torch.isfinite(places).all() and torch.allclose(places, -places.flip(0), atol=1e-6)
    shares = torch.special.ndtr(places)
    assert torch.allclose(shares.diff(), torch.full((8,), 1 / 9), atol=1e-6)
    grid = latents.prior_grid(9)
    assert grid.shape == (81, 2) and grid[0, 0] == places[0] and grid[0, 1] == places[-1]
    assert latents.prior_quantiles(1).item() == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="n must be a whole number"):
        latents.prior_quantiles(0)


def test_interpolation_reaches_both_ends():
    a, b = normal(2, 20)
    for path in ("straight", "arc"):
        codes = latents.interpolate(a, b, 7, path)
        assert codes.shape == (7, 20)
        assert torch.allclose(codes[0], a, atol=1e-5) and torch.allclose(codes[-1], b, atol=1e-5)
    assert torch.allclose(latents.interpolate(a, b, 3)[1], (a + b) / 2)


def test_the_arc_keeps_its_length_and_the_straight_line_dips():
    a, b = (20**0.5 * torch.nn.functional.normalize(v, dim=0) for v in normal(2, 20))
    assert torch.allclose(latents.interpolate(a, b, 9, "arc").norm(dim=1), a.norm())
    assert latents.interpolate(a, b, 9).norm(dim=1).min() < 0.9 * a.norm()


def test_interpolation_at_its_limits():
    a = normal(4)
    assert torch.allclose(latents.interpolate(a, a, 5, "arc"), a.expand(5, 4))
    assert torch.isfinite(latents.interpolate(a, a * (1 + 1e-6), 5, "arc")).all()
    with pytest.raises(ValueError, match="opposite"):
        latents.interpolate(a, -a, 5, "arc")
    with pytest.raises(ValueError, match="no direction"):
        latents.interpolate(a, torch.zeros(4), 5, "arc")
    with pytest.raises(ValueError, match="same length"):
        latents.interpolate(a, normal(5))
    with pytest.raises(ValueError, match="steps"):
        latents.interpolate(a, a, 1)
    with pytest.raises(ValueError, match="path"):
        latents.interpolate(a, a, 5, "scenic")


# maps


def test_maps_carry_their_settings_and_one_legend():
    codes, labels = normal(60, 3), torch.arange(60) % 3
    both = {
        "first": vaelab.project(codes, perplexity=5, seed=2),
        "second": vaelab.project(codes, "PCA"),
    }
    figure = plots.maps(both, labels, names=["cat", "dog", "emu"])
    assert "perplexity 5, 500 steps" in texts(figure)
    assert [text.get_text() for text in figure.legends[0].texts] == ["cat", "dog", "emu"]
    assert not plots.maps(both).legends and plots.maps(both, {"first": labels}).legends
    assert plots.maps(both, codes[:, 0]).axes
    with pytest.raises(ValueError, match="'first' must have one value for each of 60 codes, got 5"):
        plots.maps(both, labels[:5])


def test_latent_plane_is_finite_and_on_the_priors_quantiles():
    torch.manual_seed(0)
    flat = vaelab.mlp_vae((1, 6, 6), latent_dim=2, hidden=8)
    figure = plots.latent_plane(flat, normal(90, 2), torch.arange(90) % 3, side=5)
    canvas = figure.axes[1].images[0].get_array()
    assert canvas.shape == (35, 35) and np.isfinite(canvas).all()
    with torch.no_grad():
        corner = flat.likelihood.mean(flat.decode(latents.prior_grid(5)[:1]))[0, 0]
    assert np.allclose(canvas[:6, :6], corner)
    offsets = np.concatenate([dots.get_offsets() for dots in figure.axes[0].collections])
    assert ((offsets >= 0) & (offsets <= 1)).all()
    assert len(plots.latent_plane(flat).axes) == 1


def test_latent_plane_needs_two_latents(model):
    with pytest.raises(
        ValueError, match="model must have 2 latents to be drawn on a plane, it has 3"
    ):
        plots.latent_plane(model)
