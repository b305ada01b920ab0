import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vaelab


def test_thread_000_network_has_the_threads_layers():
    model = vaelab.thread_000_vae()
    kinds = [type(layer).__name__ for layer in model.decoder]
    assert kinds == ["Linear", "LeakyReLU", "Unflatten"] + 4 * ["ConvTranspose2d", "LeakyReLU"] + [
        "Conv2d"
    ]
    kernels = [layer.kernel_size[0] for layer in model.decoder if hasattr(layer, "kernel_size")]
    assert kernels == [5, 5, 6, 6, 1]
    assert all(
        layer.negative_slope == 0.01 for layer in model.modules() if isinstance(layer, nn.LeakyReLU)
    )
    output, mu, logvar = model(torch.rand(2, 3, 64, 64))
    assert output.shape == (2, 3, 64, 64) and mu.shape == logvar.shape == (2, 8)
    assert isinstance(vaelab.thread_000_vae(batchnorm=True).decoder[-1], nn.BatchNorm2d)


def test_squared_error_of_the_thread_is_a_gaussian_with_half_a_variance():
    output, x = torch.randn(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    likelihood = vaelab.Gaussian(0.5, "sigmoid")
    constant = likelihood.nll(output, likelihood.mean(output))
    squares = F.mse_loss(torch.sigmoid(output), x, reduction="none").flatten(1).sum(1)
    assert torch.allclose(likelihood.nll(output, x) - constant, squares, atol=1e-4)


def fixed(*values):
    """A network whose last layer before the sigmoid gives these values, whatever the input."""
    layer = nn.Linear(1, len(values))
    nn.init.zeros_(layer.weight)
    layer.bias.data = torch.tensor(values)
    return layer


def test_saturation_by_hand():
    model = nn.Sequential(fixed(-10.0, 0.0, 10.0, 1.0), nn.Sigmoid())
    report = vaelab.saturation(model, torch.zeros(5, 1))
    s = [1 / (1 + math.exp(-v)) for v in (-10, 0, 10, 1)]
    assert report.preactivation == pytest.approx(0.25)
    assert report.output == pytest.approx(sum(s) / 4)
    assert report.saturated == pytest.approx(0.5)
    assert report.slope == pytest.approx(sum(4 * v * (1 - v) for v in s) / 4, rel=1e-4)
    assert math.isnan(report.gradient) and report.share == 1


def test_saturation_of_tanh_counts_both_ends():
    report = vaelab.saturation(
        nn.Sequential(fixed(-5.0, 5.0, 0.0, 2.0), nn.Tanh()), torch.zeros(3, 1)
    )
    assert report.saturated == pytest.approx(0.5)
    assert report.slope == pytest.approx(
        sum(1 - math.tanh(v) ** 2 for v in (-5, 5, 0, 2)) / 4, rel=1e-4
    )


def test_a_named_layer_with_a_named_activation_says_the_same():
    model = nn.Sequential(fixed(-10.0, 0.0), nn.Sigmoid())
    x = torch.zeros(2, 1)
    named = vaelab.saturation(model[:1], x, layer=model[0], activation="sigmoid")
    found = vaelab.saturation(model, x)
    assert (named.preactivation, named.saturated, named.slope) == (
        found.preactivation,
        0.5,
        found.slope,
    )
    with pytest.raises(ValueError, match="activation must be one of"):
        vaelab.saturation(model[:1], x, layer=model[0])
    with pytest.raises(ValueError, match="no sigmoid or tanh"):
        vaelab.saturation(model[:1], x)


@pytest.mark.parametrize(
    ("likelihood", "bounded"),
    [
        (vaelab.Bernoulli(), True),
        (vaelab.Gaussian(0.5, "sigmoid"), True),
        (vaelab.Gaussian(0.5, "tanh"), True),
        (vaelab.Gaussian(0.5), False),
    ],
)
def test_a_likelihoods_activation_is_found(likelihood, bounded):
    model = vaelab.mlp_vae((1, 4, 4), 2, 8, likelihood)
    nn.init.constant_(model.decoder[2].bias, -40.0)
    report = vaelab.saturation(model, torch.rand(3, 1, 4, 4))
    assert report.preactivation == pytest.approx(-40, abs=2)
    assert (report.saturated, report.slope < 1e-6) == ((1.0, True) if bounded else (0.0, False))


def test_an_activation_in_place_is_watched_with_its_gradient():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = fixed(-10.0, 0.0)

        def forward(self, x):
            return self.layer(x).sigmoid_()

    model = InPlace()
    with vaelab.watch_saturation(model) as rows:
        model(torch.zeros(3, 1)).sum().backward()
    assert rows[0].preactivation == pytest.approx(-5) and rows[0].output == pytest.approx(
        0.25, abs=1e-3
    )
    assert rows[0].gradient == pytest.approx((0.25 + 4.5e-5) / 2, rel=1e-2)


def test_likelihoods_with_several_numbers_a_value_have_no_bound():
    for likelihood in (vaelab.GaussianWithVariance(), vaelab.Categorical(4)):
        model = vaelab.mlp_vae((1, 4, 4), 2, 8, likelihood)
        assert vaelab.saturation(model, torch.rand(3, 1, 4, 4)).saturated == 0


def test_a_likelihood_on_probabilities_watches_the_networks_own_sigmoid():
    model = vaelab.mlp_vae((1, 4, 4), 2, 8, vaelab.Bernoulli(on="probabilities"))
    model.decoder.append(nn.Sigmoid())
    nn.init.constant_(model.decoder[2].bias, -40.0)
    assert vaelab.saturation(model, torch.rand(3, 1, 4, 4)).saturated == 1


def test_a_forward_pass_that_was_never_made_is_said():
    model = vaelab.mlp_vae((1, 4, 4), 2, 8)

    def adapter(model, x):
        mu, logvar = model.encode(x)
        return model.decode(mu), mu, logvar

    with pytest.raises(ValueError, match="does not call model"):
        vaelab.saturation(model, torch.rand(3, 1, 4, 4), adapter=adapter)


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_watching_gives_one_row_a_training_step_and_removes_its_hooks():
    model, x = (
        vaelab.mlp_vae((1, 4, 4), 2, 8, vaelab.Gaussian(0.5, "sigmoid")),
        torch.rand(20, 1, 4, 4),
    )
    with vaelab.watch_saturation(model) as rows:
        assert hooks(model) == 2
        vaelab.fit(model, x, max_steps=7, batch_size=5, progress=False)
    assert len(rows) == 7 and hooks(model) == 0
    assert all(row.gradient > 0 for row in rows)
    with pytest.raises(RuntimeError, match="stop"), vaelab.watch_saturation(model):
        raise RuntimeError("stop")
    assert hooks(model) == 0


def test_the_gradient_is_the_one_that_arrives_and_can_be_looked_at_in_parts():
    model, x = (
        vaelab.mlp_vae((1, 2, 2), 2, 8, vaelab.Gaussian(0.5, "sigmoid")),
        torch.rand(6, 1, 2, 2),
    )
    x[:, :, 0] = 0
    with (
        vaelab.watch_saturation(model) as rows,
        vaelab.watch_saturation(model, select=lambda x: x > 0) as bright,
    ):
        output, _, _ = model(x)
        (torch.sigmoid(output) - x).square().sum().backward()
    s = torch.sigmoid(output.detach())
    by_hand = (2 * (s - x) * s * (1 - s)).abs()
    assert rows[0].gradient == pytest.approx(by_hand.mean().item(), rel=1e-4)
    assert bright[0].gradient == pytest.approx(by_hand[x > 0].mean().item(), rel=1e-4)
    assert bright[0].share == pytest.approx(0.5) and rows[0].share == 1


def test_cross_entropy_on_probabilities_dies_in_float32_where_the_notebook_says():
    def pull(logit):
        logit = torch.tensor(logit, requires_grad=True)
        F.binary_cross_entropy(torch.sigmoid(logit), torch.tensor(0.6)).backward()
        return abs(logit.grad.item())

    assert pull(-26.0) > 0.5 and pull(-30.0) < 0.2 and pull(-35.0) < 1e-2
    assert pull(15.0) > 0.3 and pull(18.0) == 0


def test_lines_marks_a_height():
    ax = vaelab.plots.lines({"a": [1, 2], "b": [2, 1]}, marks={"here": 1.5}).axes[0]
    assert len(ax.lines) == 3 and ax.texts[0].get_text() == "here"


def thread_000_run(seed, data, likelihood, bias=None):
    """(error, brightness of the objects) of thread 000's network after 250 steps of 8 images."""
    torch.manual_seed(seed)
    model = vaelab.thread_000_vae(likelihood)
    if bias is not None:
        model.decoder[-1].bias.data.copy_(bias)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(250):
        x = data.x_train[torch.randint(len(data.x_train), (8,))]
        output, mu, logvar = model(x)
        if isinstance(likelihood, vaelab.Gaussian):
            error = F.mse_loss(torch.sigmoid(output), x, reduction="sum")
        else:
            error = F.binary_cross_entropy_with_logits(output, x, reduction="sum")
        loss = error + 100 * vaelab.gaussian_kl(mu, logvar).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pictures = model.reconstruct(data.x_test)
    objects = (data.x_test.amax(1, keepdim=True) > 0).expand_as(pictures)
    error = (pictures - data.x_test).square().flatten(1).sum(1).mean().item()
    return error, pictures[objects].mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_the_failure_and_its_fix(seed):
    """Black with the sigmoid, alive with the last bias at the mean pixel, on ten seeds."""
    data = vaelab.load("shapes", n_train=2000, n_test=100)
    all_black = data.x_test.square().flatten(1).sum(1).mean().item()
    squared, entropy = vaelab.Gaussian(0.5, "sigmoid"), vaelab.Bernoulli()
    error, brightness = thread_000_run(seed, data, squared)
    assert brightness < 0.02 and error > 0.95 * all_black
    start = torch.logit(data.x_train.mean((0, 2, 3)))
    for likelihood in (squared, entropy):
        error, brightness = thread_000_run(seed, data, likelihood, start)
        assert brightness > 0.1 and error < 0.65 * all_black
