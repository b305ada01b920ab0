"""`rehearse` on seeds 0 to 4: what it must see coming, and healthy models without a finding."""

import pytest
import torch
import torch.nn.functional as F
from benchmark import case, controls, own, training
from benchmark.run import is_there
from ward.patients import Net, Thread000, bce, data, elbo, kl, thread_000_loss

import vaelab
from vaelab.clinic.rehearsal import rehearse

pytestmark = pytest.mark.slow
SEEDS = range(5)
TRAINED = (False, True)
# the subjects from packages take part where their packages are installed (the extra "benchmark")
SUBJECTS = [name for name in sorted(case.SUBJECTS) if is_there(name)]
SOME_CONTROLS = (
    "beta 4.0",
    "free bits",
    "weights after a warm-up",
    "capacity",
    "learned sigma",
    "continuous Bernoulli",
    "images from -1 to 1 with tanh",
    "256 latents",
    "BatchNorm",
    "torch.compile",
    "table",
    "one-hot tokens",
)


def adam(rate):
    return lambda parameters: torch.optim.Adam(parameters, lr=rate)


def digits():
    return data()[0]


def test_it_is_the_benchmark_that_is_asked():
    assert own.ROWS and set(SOME_CONTROLS) <= set(case.CONTROLS)


@pytest.mark.parametrize("seed", SEEDS)
def test_thread_000(seed):
    torch.manual_seed(seed)
    x = data("shapes")[0]
    report = rehearse(Thread000(), x, thread_000_loss, batch_size=16, seed=seed)
    assert report.serious == ["saturated-output"]


@pytest.mark.parametrize("seed", SEEDS)
def test_thread_004(seed):
    def loss(r, x, mu, logvar):
        return F.binary_cross_entropy(r, x) + len(x) * kl(mu, logvar)

    torch.manual_seed(seed)
    report = rehearse(Net(), digits(), loss, batch_size=128, seed=seed)
    assert report.serious[0] == "loss-scale"
    assert "posterior-collapse" in report.serious


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rate", [1e-3, 5e-3])
def test_an_exploding_logvar(rate, seed):
    def loss(r, x, mu, logvar):
        return bce(r, x) - kl(mu, logvar)

    torch.manual_seed(seed)
    report = rehearse(Net(), digits(), loss, adam(rate), seed=seed)
    assert report.serious[0] == "kl-sign"
    assert {"non-finite", "logvar"} & set(report.serious)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rate", [0.1, 0.3, 1.0])
def test_a_killing_rate(rate, seed):
    torch.manual_seed(seed)
    report = rehearse(Net(), digits(), elbo, adam(rate), seed=seed)
    assert report.serious[0] == "rate"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scaled", [lambda x: 255 * x, lambda x: (x - x.mean()) / x.std()])
def test_data_out_of_range(scaled, seed):
    torch.manual_seed(seed)
    report = rehearse(Net(), scaled(digits()), elbo, seed=seed)
    assert report.serious[0] == "outside-support"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_healthy_model(seed):
    torch.manual_seed(seed)
    assert rehearse(Net(), digits(), elbo, seed=seed).serious == []


@pytest.mark.parametrize("trained", TRAINED)
@pytest.mark.parametrize("name", SUBJECTS)
def test_healthy_subjects_of_the_benchmark(name, trained, monkeypatch):
    subject = case.SUBJECTS[name]
    monkeypatch.setattr(vaelab, "checkup", rehearse)
    if trained:
        model, rows, loss = training.trained(subject)
    else:
        torch.manual_seed(0)
        rows, model = subject.load(), case.Wired(subject, subject.build())
        loss = subject.loss(model.net)
    assert _first_that_works(subject.attempts, model, rows, loss).serious == []


def _first_that_works(attempts, *arguments):
    """What a stranger gets who tries one call after the other."""
    for attempt in attempts[:-1]:
        try:
            return attempt(*arguments)
        except ValueError:
            continue
    return attempts[-1](*arguments)


@pytest.mark.parametrize("name", SOME_CONTROLS)
def test_healthy_controls_before_training(name, monkeypatch):
    monkeypatch.setattr(vaelab, "checkup", rehearse)
    monkeypatch.setattr(controls, "fit", lambda model, *arguments: model.eval())
    assert case.CONTROLS[name].check().serious == []
