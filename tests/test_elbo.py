import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

import vaelab

REDUCE = {
    "sum": lambda t: t.sum(),
    "mean": lambda t: t.mean(),
    "sum_mean": lambda t: t.flatten(1).sum(1).mean(),
}


def test_kl_matches_torch_distributions():
    mu, logvar = torch.randn(6, 3), torch.randn(6, 3)
    expected = kl_divergence(Normal(mu, (0.5 * logvar).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(vaelab.gaussian_kl(mu, logvar), expected)


def test_elbo_terms_have_the_stated_shapes_and_values():
    model, x = vaelab.mlp_vae((1, 4, 4), latent_dim=3, hidden=8), torch.rand(5, 1, 4, 4)
    terms = vaelab.elbo_terms(model, x, seed=3)
    torch.manual_seed(3)
    with torch.no_grad():
        logits, mu, logvar = model(x)
    assert terms.reconstruction.shape == (5,) and terms.kl.shape == (5, 3)
    summed = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    torch.testing.assert_close(terms.reconstruction.sum(), summed)
    torch.testing.assert_close(terms.kl, vaelab.gaussian_kl(mu, logvar))


def test_an_autoencoder_has_no_kl():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    decoder = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Unflatten(1, (1, 4, 4)))
    terms = vaelab.elbo_terms(vaelab.Autoencoder(net, decoder, 3), torch.rand(5, 1, 4, 4))
    assert terms.kl.abs().max() == 0


@pytest.mark.parametrize("reconstruction", REDUCE)
@pytest.mark.parametrize("kl", REDUCE)
@pytest.mark.parametrize(
    "batch_size,latent_dim,coefficient", [(1, 2, 1.0), (7, 5, 1e-4), (64, 3, 250.0)]
)
def test_effective_beta_agrees_with_the_gradients_of_the_real_loss(
    reconstruction, kl, batch_size, latent_dim, coefficient
):
    """beta and sigma^2 are read off autograd on the loss itself; the table is not consulted."""
    shape = (1, 3, 4)

    def loss(logits, x, mu, logvar):
        cross_entropy = F.binary_cross_entropy_with_logits(logits, x, reduction="none")
        return REDUCE[reconstruction](cross_entropy) + coefficient * REDUCE[kl](
            vaelab.gaussian_kl(mu, logvar)
        )

    sizes = {
        "batch_size": batch_size,
        "n_values": 12,
        "latent_dim": latent_dim,
        "coefficient": coefficient,
    }
    beta = vaelab.effective_beta(reconstruction, kl, **sizes)
    form = vaelab.measure_loss(loss, batch_size=batch_size, shape=shape, latent_dim=latent_dim)
    assert form.beta == pytest.approx(beta, rel=1e-6)

    r = torch.randn(batch_size, *shape, dtype=torch.float64, requires_grad=True)
    mu = torch.randn(batch_size, latent_dim, dtype=torch.float64, requires_grad=True)
    x, zero = torch.zeros_like(r), torch.zeros_like(mu)
    squares = (r - x).square()
    (
        REDUCE[reconstruction](squares) + coefficient * REDUCE[kl](vaelab.gaussian_kl(mu, zero))
    ).backward()
    a, b = (r.grad / (2 * r)).mean().item(), (mu.grad / mu).mean().item()
    assert vaelab.implied_sigma2(reconstruction, kl, **sizes) == pytest.approx(
        b / (2 * a), rel=1e-6
    )


def test_the_five_rows_of_the_table():
    sizes = {"batch_size": 128, "n_values": 784, "latent_dim": 20}
    rows = [
        ("sum", "sum", 1),
        ("mean", "sum", 128 * 784),
        ("mean", "sum_mean", 784),
        ("mean", "mean", 784 / 20),
        ("sum", "mean", 1 / (128 * 20)),
    ]
    for reconstruction, kl, beta in rows:
        assert vaelab.effective_beta(reconstruction, kl, **sizes) == pytest.approx(beta)
        assert vaelab.implied_sigma2(reconstruction, kl, **sizes) == pytest.approx(beta / 2)


def test_free_bits_have_no_gradient_below_the_floor():
    mu = torch.tensor([[0.1, 3.0], [-0.1, 3.0]], requires_grad=True)
    value = vaelab.free_bits(vaelab.gaussian_kl(mu, torch.zeros(2, 2)), floor=1.0)
    assert value.item() == pytest.approx(1.0 + 4.5)
    value.backward()
    assert mu.grad[:, 0].abs().max() == 0 and mu.grad[:, 1].abs().min() > 0


@pytest.mark.parametrize(
    "argument,value",
    [("reconstruction", "avg"), ("kl", "none"), ("batch_size", 0), ("n_values", -1)],
)
def test_wrong_arguments_are_named(argument, value):
    arguments = {
        "reconstruction": "sum",
        "kl": "sum",
        "batch_size": 1,
        "n_values": 1,
        "latent_dim": 1,
        argument: value,
    }
    with pytest.raises(ValueError, match=argument):
        vaelab.effective_beta(**arguments)
