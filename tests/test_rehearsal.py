"""`rehearse` sees what is coming, says nothing of healthy models, and changes nothing."""

import copy
import functools
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from benchmark import sets
from torch import nn
from ward.patients import Net, bce, elbo, kl

from vaelab.clinic.rehearsal import Rehearsal, rehearse
from vaelab.clinic.twin import twin_of

SHAPE = (1, 8, 8)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def images(n=200):
    return sets.digits8().x_train[:n].clone()


def small(**options):
    return Net(SHAPE, latents=6, hidden=48, **options)


def adam(rate):
    return lambda parameters: torch.optim.Adam(parameters, lr=rate)


def codes(report):
    return [finding.code for finding in report.findings]


@functools.cache
def healthy():
    torch.manual_seed(0)
    return rehearse(small(), images(), elbo)


# ---- what it says


def test_a_healthy_untrained_model_gets_no_finding():
    assert healthy().findings == []


def test_the_report_says_what_was_done_and_what_was_not_looked_for():
    report = healthy()
    assert isinstance(report, Rehearsal)
    assert report.verdict == "60 steps on a copy: nothing serious found"
    assert report.unchecked["prior-mismatch"] == "60 steps cannot show it"
    assert "untrained" not in report.looked_for
    assert {"rate", "non-finite", "posterior-collapse"} <= set(report.looked_for)
    assert set(report.looked_for).isdisjoint(report.unchecked)
    assert report.beta == pytest.approx(1)
    assert report.verdict in repr(report) and report.verdict in report._repr_html_()
    assert report.numbers["loss on the way"].startswith("from ")


def test_a_mean_error_against_a_summed_kl_cannot_leave_zero():
    def loss(r, x, mu, logvar):
        return F.binary_cross_entropy(r, x) + kl(mu, logvar) * len(x)

    report = rehearse(small(), images(), loss)
    assert report.serious[0] == "loss-scale"
    collapse = next(f for f in report.findings if f.code == "posterior-collapse")
    assert "collapse threshold" in collapse.evidence
    assert collapse.see == "docs/rehearsal.md#posterior-collapse"


def test_a_logvar_on_its_way_to_an_overflow():
    def loss(r, x, mu, logvar):
        return bce(r, x) - kl(mu, logvar)

    report = rehearse(small(), images(), loss, adam(5e-3))
    assert report.serious[0] == "kl-sign"
    assert "non-finite" in report.serious


def test_a_rate_that_is_too_large_is_named_with_one_that_works():
    report = rehearse(small(), images(), elbo, adam(0.5))
    assert report.serious[0] == "rate"
    assert report.findings[0].remedy.startswith("Divide the learning rate by 1")


class Killing(torch.optim.Adam):
    """Adam with a step that drives the encoder's biases down, far only at a high rate."""

    def step(self, closure=None):
        super().step(closure)
        group = self.param_groups[0]
        with torch.no_grad():
            group["params"][1].sub_(30 * group["lr"] ** 2)


def test_a_rate_that_kills_units():
    report = rehearse(small(), images(), elbo, lambda p: Killing(p, lr=1e-1))
    assert report.serious[0] == "rate"
    assert report.findings[0].evidence.startswith("dead units grew from")


@pytest.mark.parametrize("end", [nn.Sigmoid, None])
@pytest.mark.parametrize("scaled", [lambda x: 255 * x, lambda x: (x - x.mean()) / x.std()])
def test_data_outside_the_range_of_a_cross_entropy(scaled, end):
    def of_logits(r, x, mu, logvar):
        error = F.binary_cross_entropy_with_logits(r, x, reduction="sum") / len(x)
        return error + kl(mu, logvar)

    loss = elbo if end else of_logits
    assert (
        rehearse(small(end=end), scaled(images()), loss, steps=30).serious[0] == "outside-support"
    )


def test_a_broadcast():
    def loss(r, x, mu, logvar):
        pairs = r.flatten(1).unsqueeze(1) - x.flatten(1).unsqueeze(0)
        return pairs.square().sum() / len(x) + kl(mu, logvar)

    assert rehearse(small(), images(), loss, steps=30).serious[0] == "shape-broadcast"


def test_an_output_layer_that_saturates():
    class Runaway(torch.optim.SGD):
        """A step that drives the last bias far down."""

        def step(self, closure=None):
            super().step(closure)
            with torch.no_grad():
                self.param_groups[0]["params"][-1].sub_(1)

    report = rehearse(small(), images(), elbo, lambda p: Runaway(p, lr=0.0))
    assert "saturated-output" in report.serious
    found = next(f for f in report.findings if f.code == "saturated-output")
    assert "mean input of the last activation" in found.evidence


def test_a_loss_that_becomes_nan_is_told_with_its_step():
    class Breaks(nn.Module):
        """It gives NaN from its hundredth call in train mode on."""

        def __init__(self):
            super().__init__()
            self.net, self.calls = small(), 0

        def forward(self, x):
            r, mu, logvar = self.net(x)
            self.calls += self.training
            return r * (float("nan") if self.calls > 30 else 1), mu, logvar

    report = rehearse(Breaks(), images(), elbo)
    assert "non-finite" in report.serious
    assert "rate" not in report.serious


def test_an_error_in_a_step_does_not_end_the_rehearsal():
    class Raises(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.calls = small(), 0

        def forward(self, x):
            self.calls += self.training
            if self.calls > 30:
                raise RuntimeError("out of luck")
            return self.net(x)

    report = rehearse(Raises(), images(), elbo)
    found = next(f for f in report.findings if f.code == "loss-raises")
    assert "RuntimeError for x of shape [64, 1, 8, 8]: out of luck" in found.evidence


def test_a_model_without_anything_to_train():
    report = rehearse(small().requires_grad_(False), images(), elbo)
    assert report.numbers["training"] == "no parameter of the model requires a gradient"


# ---- how it is called


def test_other_ways_to_call_a_model():
    def adapter(model, x, labels):
        r, mu, logvar = model.net(x + 0 * labels.view(-1, 1, 1, 1))
        return r, mu, logvar

    class Dictionary(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = small()

        def forward(self, x, labels):
            r, mu, logvar = self.net(x)
            return {"recon": r, "mean": mu, "logvar": logvar}

    x, labels = images(), torch.arange(200) % 10
    found = rehearse(Dictionary(), x, elbo, steps=30, inputs=labels)
    again = rehearse(Dictionary(), x, elbo, steps=30, inputs=labels, adapter=adapter)
    assert found.serious == again.serious == ["condition-ignored"]


def last_loss(report):
    return float(report.numbers["loss on the way"].split()[-1])


def test_it_trains_on_x_train():
    """Black rows cost little once the last bias has fallen. The usual ones never do."""
    x = images()
    fast = {"optimizer": lambda parameters: torch.optim.Adam(parameters, lr=1e-2)}
    usual = rehearse(small(), x, elbo, **fast)
    black = rehearse(small(), x, elbo, x_train=0 * x, **fast)
    assert last_loss(black) < 0.3 * last_loss(usual)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"optimizer": torch.optim.SGD(small().parameters(), lr=0.02)},
            r"torch.optim.SGD\(p, lr=0.02",
        ),
        ({"optimizer": "adam"}, "optimizer=lambda p: torch.optim.Adam"),
        ({"optimizer": lambda p: 3}, "must return a torch.optim.Optimizer, got int"),
        ({"optimizer": lambda p: adam(1.0)([torch.ones(1)])}, "holds other parameters"),
        ({"steps": 3}, "steps must be a whole number of at least 30, got 3"),
        ({"loss": None}, "loss must be given"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"x": images()[0, 0, 0]}, "x must be a float tensor"),
    ],
)
def test_a_wrong_argument_is_named(arguments, text):
    given = {"x": images(), "loss": elbo} | arguments
    with pytest.raises(ValueError, match=text):
        rehearse(small(), **given)


def test_the_number_of_passes():
    """A count in place of a time: a healthy model is run some sixty times for the training."""
    report_passes = _Passes()
    rehearse(small(), images(), report_passes.loss)
    assert 60 < report_passes.number() < 120


class _Passes:
    """Counts the calls of a loss in a file's worth of memory that nothing puts back."""

    def __init__(self):
        self._count = np.zeros(2_000_000, dtype=np.int64)  # too large to be kept

    def loss(self, r, x, mu, logvar):
        self._count[0] += 1
        return elbo(r, x, mu, logvar)

    def number(self):
        return int(self._count[0])


# ---- what it leaves alone


def test_model_data_and_random_states_are_as_before():
    model, x = small(norm=True), images()
    model(x)[0].sum().backward()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.mu.eval()
    before = copy.deepcopy(model.state_dict())
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    versions = [p._version for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    kept_x = x.clone()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()

    rehearse(model, x, elbo, steps=30)

    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert parameter.grad is None if gradient is None else torch.equal(parameter.grad, gradient)
    assert versions == [p._version for p in model.parameters()]
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(kept_x, x)
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()
    assert states[2] == random.getstate()
    assert not optimizer.state
    assert not any(module._forward_hooks for module in model.modules())
    assert (torch.tensor(1e-40) * 1).item() > 0


def test_two_rehearsals_say_the_same():
    torch.manual_seed(0)
    assert repr(rehearse(small(), images(), elbo)) == repr(healthy())


# ---- the copy


class Sigma(nn.Module):
    """A module with one parameter, and losses that know it in many ways."""

    def __init__(self):
        super().__init__()
        self.log_sigma = nn.Parameter(torch.zeros(()))

    def as_method(self):
        return self.log_sigma * 1

    def forward(self, x):
        return x


GLOBAL = Sigma()


def by_global():
    return GLOBAL.as_method()


def through_another_function():
    return by_global()


def by_argument(model):
    return model.as_method()


class Holder:
    def __init__(self, held):
        self.held = {"models": [held]}

    def __call__(self):
        return self.held["models"][0].as_method()


class LossModule(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self):
        return self.model.as_method()


def closure_over_the_parameter():
    parameter = GLOBAL.log_sigma
    return lambda: parameter * 1


def default(model=GLOBAL):
    return model.as_method()


@pytest.mark.parametrize(
    "function",
    [
        GLOBAL.as_method,
        by_global,
        through_another_function,
        functools.partial(by_argument, GLOBAL),
        functools.partial(by_argument, model=GLOBAL),
        Holder(GLOBAL),
        LossModule(GLOBAL),
        closure_over_the_parameter(),
        default,
    ],
)
def test_a_function_that_knows_the_model_gets_the_copy(function):
    twin, bound = twin_of(GLOBAL, function)
    (gradient,) = torch.autograd.grad(bound(), twin.log_sigma)
    assert gradient == 1
    (gradient,) = torch.autograd.grad(function(), GLOBAL.log_sigma)
    assert gradient == 1


def test_a_function_that_does_not_know_the_model_is_given_back():
    partial, other = functools.partial(bce), Sigma()
    _, *functions = twin_of(GLOBAL, elbo, partial, other, None)
    assert functions[0] is elbo
    assert functions[1] is partial
    assert functions[2] is other
    assert functions[3] is None


def test_what_a_forward_left_in_the_model_is_no_obstacle():
    model = small()
    model.kept = model(images())[1]
    assert "kept" in vars(twin_of(model)[0])


def test_a_model_that_cannot_be_copied_is_refused():
    model = small()
    model.stream = (part for part in ())
    with pytest.raises(ValueError, match="model must be one that copy.deepcopy copies"):
        rehearse(model, images(), elbo)
