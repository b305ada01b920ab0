import math

import pytest
import torch

import vaelab


def test_bernoulli_nll_matches_torch_distributions():
    logits, x = torch.randn(4, 1, 5, 5), torch.rand(4, 1, 5, 5)
    nll = vaelab.Bernoulli().nll(logits, x)
    expected = (
        -torch.distributions.Bernoulli(logits=logits, validate_args=False)
        .log_prob(x)
        .flatten(1)
        .sum(1)
    )
    assert nll.shape == (4,)
    torch.testing.assert_close(nll, expected)


def test_bernoulli_probabilities_of_both_colours_sum_to_one():
    logits = torch.tensor([[-30.0], [-1.0], [0.0], [5.0]])
    likelihood = vaelab.Bernoulli()
    total = (-likelihood.nll(logits, torch.zeros(4, 1))).exp() + (
        -likelihood.nll(logits, torch.ones(4, 1))
    ).exp()
    torch.testing.assert_close(total, torch.ones(4))


def test_bernoulli_gradient_is_alive_at_extreme_logits():
    logits = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    vaelab.Bernoulli().nll(logits, torch.tensor([[1.0, 0.0]])).sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-1.0, 1.0]]))


@pytest.mark.parametrize("activation", [None, "tanh", "sigmoid"])
def test_gaussian_nll_matches_torch_distributions(activation):
    output, x = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    likelihood = vaelab.Gaussian(sigma2=0.3, activation=activation)
    mean = {None: output, "tanh": output.tanh(), "sigmoid": output.sigmoid()}[activation]
    expected = -torch.distributions.Normal(mean, math.sqrt(0.3)).log_prob(x).flatten(1).sum(1)
    torch.testing.assert_close(likelihood.nll(output, x), expected)
    torch.testing.assert_close(likelihood.mean(output), mean)


def test_gaussian_samples_have_its_variance():
    draws = vaelab.Gaussian(sigma2=4.0).sample(
        torch.zeros(100, 1000), torch.Generator().manual_seed(0)
    )
    assert draws.var().item() == pytest.approx(4.0, rel=0.03)


def test_bernoulli_samples_are_black_or_white_at_the_right_rate():
    draws = vaelab.Bernoulli().sample(
        torch.full((100, 1000), -1.0), torch.Generator().manual_seed(0)
    )
    assert set(draws.unique().tolist()) == {0.0, 1.0}
    assert draws.mean().item() == pytest.approx(torch.sigmoid(torch.tensor(-1.0)).item(), abs=0.01)


def test_data_outside_the_support_is_refused_with_value_and_cure():
    with pytest.raises(ValueError, match=r"spans \[-0.42, 2.8\].*Bernoulli.*rescale"):
        vaelab.Bernoulli().check(torch.tensor([-0.42, 2.8]))
    with pytest.raises(ValueError, match="NaN"):
        vaelab.Gaussian().check(torch.tensor([float("nan")]))
    vaelab.Gaussian().check(torch.tensor([-5.0, 2.8]))


@pytest.mark.parametrize("bad", [0, -1.0, float("inf"), "1"])
def test_gaussian_refuses_an_impossible_variance(bad):
    with pytest.raises(ValueError, match="sigma2 must be a positive number"):
        vaelab.Gaussian(sigma2=bad)


def test_gaussian_refuses_an_unknown_activation():
    with pytest.raises(ValueError, match="'relu'"):
        vaelab.Gaussian(activation="relu")
