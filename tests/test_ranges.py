"""Ranges: what a bounded output cannot reach, how weights scale, and the small conv VAE."""

import math

import pytest
import torch
import torch.nn.functional as F

import vaelab


def test_floor_of_a_normal():
    x = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tail = 0.5 * math.erfc(1 / math.sqrt(2))  # P(x > 1)
    density = math.exp(-0.5) / math.sqrt(2 * math.pi)
    # E[(x - 1)^2; x > 1] = 2 P(x > 1) - density(1), twice for the two tails
    assert vaelab.reachable_floor(x, -1, 1) == pytest.approx(2 * (2 * tail - density), abs=0.003)


@pytest.mark.parametrize("bright", [0.05, 0.2, 0.5])
def test_floor_of_z_scored_two_valued_images(bright):
    """A share p is white: it becomes sqrt((1-p)/p), so (sqrt(1-p) - sqrt(p))^2 is lost."""
    x = torch.zeros(4, 1, 10, 10)
    x.view(4, -1)[:, : round(100 * bright)] = 1.0
    z = vaelab.Scaling.zscore(x)(x)
    expected = (math.sqrt(1 - bright) - math.sqrt(bright)) ** 2
    assert vaelab.reachable_floor(z, -1, 1) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("s", [0.25, 2.0, 255.0])
def test_a_rescaled_weight_leaves_the_loss_the_same_up_to_a_factor(s):
    """mse(s x) + rescale(w, s) kl = s^2 (mse(x) + w kl), whatever x and the KL are."""
    x, y, kl = torch.rand(8, 3, dtype=torch.float64), torch.rand(8, 3, dtype=torch.float64), 1.7
    for weight in (0.3, 5.0):
        before = F.mse_loss(y, x) + weight * kl
        after = F.mse_loss(s * y, s * x) + vaelab.rescale(weight, s) * kl
        assert after.item() == pytest.approx(s**2 * before.item(), rel=1e-9)


def test_rescaling_keeps_the_number_of_directions_above_sigma2():
    """In a linear VAE a direction is used where its variance exceeds sigma^2: both move by s^2."""
    x = torch.randn(500, 6, generator=torch.Generator().manual_seed(1))
    x = x * torch.tensor([3, 2, 1.5, 1, 0.5, 0.2])
    for s in (0.1, 1.0, 7.0):
        assert (torch.linalg.eigvalsh(torch.cov((s * x).T)) > vaelab.rescale(1.2, s)).sum() == 3
    assert (
        torch.linalg.eigvalsh(torch.cov((0.1 * x).T)) > 1.2
    ).sum() == 0  # the weight left as it was


def test_rescale_refuses_a_scale_that_is_not_positive():
    for s in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="positive"):
            vaelab.rescale(1.0, s)


@pytest.mark.parametrize(
    "shape,likelihood",
    [
        ((3, 32, 32), vaelab.Gaussian(1.0, "tanh")),
        ((1, 28, 28), None),
        ((2, 8, 16), vaelab.Gaussian()),
    ],
)
def test_conv_vae_keeps_the_shape(shape, likelihood):
    model = vaelab.conv_vae(shape, latent_dim=5, likelihood=likelihood)
    x = torch.rand(4, *shape)
    output, mu, logvar = model(x)
    assert output.shape == x.shape and mu.shape == logvar.shape == (4, 5)
    if likelihood is None:
        assert isinstance(model.likelihood, vaelab.Bernoulli)


def test_conv_vae_gives_a_likelihood_all_its_outputs_and_takes_other_depths():
    like = vaelab.Gaussian()
    like.outputs_per_value = 2
    output, _, _ = vaelab.conv_vae((3, 16, 16), 4, like, channels=(4, 8, 8))(
        torch.rand(2, 3, 16, 16)
    )
    assert output.shape == (2, 6, 16, 16)


@pytest.mark.parametrize("shape", [(3, 30, 32), (1, 784), (3, 0, 4)])
def test_conv_vae_names_a_shape_it_cannot_halve(shape):
    with pytest.raises(ValueError, match="shape must be"):
        vaelab.conv_vae(shape)


def test_conv_vae_learns():
    torch.manual_seed(0)
    x = vaelab.load("photos").x_train[:128]
    model = vaelab.conv_vae((3, 32, 32), 8, vaelab.Gaussian(0.05))
    history = vaelab.fit(model, x, max_steps=40, batch_size=32, progress=False)
    assert history.final["reconstruction"] < 0.7 * history.start["train"]["reconstruction"]


def test_a_ruler_takes_another_unit():
    ruler = vaelab.plots.ruler(
        {"floor": 0.0066}, {"run": {"reconstruction": 0.0316}}, "MSE", digits=4
    )
    texts = [text.get_text() for text in ruler.axes[0].texts]
    assert " 0.0316" in texts and "floor: the output\nequals the input\n0.0066" in texts


def test_loss_log_in_another_unit():
    log = vaelab.LossLog("sigma^2", "MSE", digits=4)
    log.add("a run", 3.04, {"reconstruction": 0.03157, "kl": 3.7, "active_units": 32})
    assert "sigma^2" in repr(log) and "0.0316" in repr(log) and "KL" in repr(log)
    assert vaelab.LossLog().columns[1:3] == ("beta", "reconstruction")
