"""The check-up's manners: it changes nothing, explains what it cannot use, and says what it saw."""

import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from ward import patients
from ward.patients import HEALTHY, SICK, Net, data, elbo

import vaelab
from vaelab.clinic import findings
from vaelab.clinic.findings import CHECKS, Check
from vaelab.clinic.report import Report


def images(n=64):
    return data()[1][:n]


def state(model):
    """Everything of a model that a check-up could change."""
    return {
        "tensors": {name: t.clone() for name, t in model.state_dict(keep_vars=False).items()},
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "training": [module.training for module in model.modules()],
        "attributes": [sorted(vars(module)) for module in model.modules()],
    }


def same(a, b):
    equal = all(torch.equal(value, b["tensors"][name]) for name, value in a["tensors"].items())
    pairs = zip(a["gradients"], b["gradients"], strict=True)
    equal = equal and all(p is q is None or torch.equal(p, q) for p, q in pairs)
    return equal and a["training"] == b["training"] and a["attributes"] == b["attributes"]


class Counting(Net):
    """A model with BatchNorm, dropout and habits: it counts its calls and keeps its last code."""

    def __init__(self):
        super().__init__(norm=True, dropout=0.2)
        self.calls, self.codes, self.own = 0, [], torch.Generator().manual_seed(3)

    def forward(self, x):
        self.calls += 1
        torch.rand(2, generator=self.own)
        outputs = super().forward(x)
        self.codes.append(outputs[1])
        self.last = outputs[1]
        return outputs


@pytest.mark.parametrize("training", [True, False])
def test_model_and_random_state_are_bit_identical(training):
    torch.manual_seed(0)
    model = Counting().train(training)
    model.encoder[2].eval()  # a mode of its own
    elbo(*(lambda r, mu, logvar: (r, images(), mu, logvar))(*model(images()))).backward()
    before, codes, calls, own = state(model), list(model.codes), model.calls, model.own.get_state()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    gradients = [p.grad for p in model.parameters()]
    vaelab.checkup(model, images(), elbo)
    assert same(before, state(model))
    assert [p.grad for p in model.parameters()] == gradients or all(
        p.grad is g for p, g in zip(model.parameters(), gradients, strict=True)
    )
    assert model.calls == calls and model.codes == codes and torch.equal(model.own.get_state(), own)
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all() and states[2] == random.getstate()


def test_nothing_changes_when_the_model_or_the_loss_raises():
    model = Counting().train()
    before = state(model)
    for loss, x in ((lambda r, x: 0, images()), (elbo, torch.rand(64, 3, 5, 5))):
        with pytest.raises(ValueError):
            vaelab.checkup(model, x, loss)
        assert same(before, state(model))


def test_a_loss_with_a_memory_keeps_it():
    class WarmUp:
        step = 5

        def __call__(self, r, x, mu, logvar):
            self.step += 1
            return elbo(r, x, mu, logvar) * min(1, self.step / 1000)

    loss = WarmUp()
    assert "stateful-loss" in [f.code for f in vaelab.checkup(Net(), images(), loss).findings]
    assert loss.step == 5


def test_a_likelihood_with_a_memory_keeps_it():
    model = vaelab.mlp_vae((1, 28, 28), 5, 50, vaelab.Gaussian("optimal")).train()
    before = copy.deepcopy(model.state_dict())

    def loss(output, x, mu, logvar):
        return model.likelihood.nll(output, x).mean() + vaelab.gaussian_kl(mu, logvar).sum(1).mean()

    vaelab.checkup(model, images(), loss)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_it_works_where_gradients_are_off():
    model = Net()
    report = vaelab.checkup(model, images(), elbo)
    with torch.no_grad():
        assert repr(vaelab.checkup(model, images(), elbo)) == repr(report)
    with torch.inference_mode():
        assert repr(vaelab.checkup(model, images(), elbo)) == repr(report)


@pytest.mark.parametrize("std", [lambda logvar: (0.5 * logvar).exp(), lambda logvar: logvar.exp()])
def test_noise_is_watched_and_may_be_worked_on_in_place(std):
    class InPlace(Net):
        def sample(self, mu, logvar):
            noise = torch.randn_like(mu)
            return noise.mul_(std(logvar)).add_(mu)

    torch.manual_seed(0)
    model = InPlace().train()
    with torch.no_grad():
        model.logvar.weight *= 20
    report = vaelab.checkup(model, images(), elbo)
    assert ("logvar" in report.serious) == (std(torch.ones(1)) > 2)


def test_the_same_report_twice():
    model = Net()
    assert repr(vaelab.checkup(model, images(), elbo)) == repr(
        vaelab.checkup(model, images(), elbo)
    )


class Returns(nn.Module):
    """A model that returns what a function makes of (x, reconstruction, mu, logvar)."""

    def __init__(self, make):
        super().__init__()
        self.net, self.make = Net(), make

    def forward(self, x):
        return self.make(x, *self.net(x))


@pytest.mark.parametrize(
    "make, shown",
    [
        (
            lambda x, r, mu, lv: {"recon": r, "mu": mu, "log_var": lv},
            r"lambda out: \(out\['recon'\], out\['mu'\], out\['log_var'\]\)",
        ),
        (
            lambda x, r, mu, lv: {"z": mu, "mean": mu, "std": lv.exp(), "x_hat": r},
            r"out\['x_hat'\], out\['mean'\], 2 \* out\['std'\].log\(\)",
        ),
        (lambda x, r, mu, lv: (mu, lv, r), r"out\[2\], out\[0\], out\[1\]"),
        (lambda x, r, mu, lv: [r, x, mu, lv], r"out\[0\], out\[2\], out\[3\]"),
        (lambda x, r, mu, lv: r, "one tensor"),
        (lambda x, r, mu, lv: (r, mu), "2 values"),
        (lambda x, r, mu, lv: (r[:, :, :5], mu, lv), "reconstruction, mu, logvar"),
        (lambda x, r, mu, lv: (r, mu, lv[:, :3]), "reconstruction, mu, logvar"),
        (lambda x, r, mu, lv: (r, mu, None), "autoencoder"),
    ],
)
def test_a_wrong_guess_shows_how_to_write_the_adapter(make, shown):
    with pytest.raises(ValueError, match=shown):
        vaelab.checkup(Returns(make), images())


def test_adapters_for_dictionaries_standard_deviations_and_flat_images():
    model = Returns(lambda x, r, mu, lv: {"mu": mu, "std": (0.5 * lv).exp(), "r": r})
    plain = vaelab.checkup(model.net, images(), elbo)
    report = vaelab.checkup(
        model, images(), elbo, adapter=lambda out: (out["r"], out["mu"], 2 * out["std"].log())
    )
    assert [f.code for f in report.findings] == [f.code for f in plain.findings]
    assert report.beta == pytest.approx(plain.beta)
    flat = Returns(lambda x, r, mu, lv: (r.flatten(1), mu, lv))

    def through(model, x):
        return model(x.view(-1, 1, 28, 28))

    def loss(r, x, mu, logvar):
        return elbo(r, x.view(-1, 784), mu, logvar)

    assert vaelab.checkup(flat, images(), loss).beta == pytest.approx(1, rel=1e-3)
    assert vaelab.checkup(flat, images().flatten(1), elbo, adapter=through).beta == pytest.approx(
        1, rel=1e-3
    )


def test_a_standard_deviation_in_third_place_is_told_apart_from_an_illness():
    class Std(Net):
        def forward(self, x):
            h = self.encoder(x)
            mu, std = self.mu(h), F.softplus(self.logvar(h)) + 0.1
            return self.decode(mu + std * torch.randn_like(mu)), mu, std

    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"2 \* out\[2\].log\(\)"):
        vaelab.checkup(Std(), images())
    # A loss that reads it as a log-variance says that it was meant to be one.
    assert vaelab.checkup(Std(), images(), elbo).serious[0] == "logvar"


def test_bad_arguments_get_clear_errors():
    model = Net()
    for x, message in (
        (images().int(), "float tensor"),
        (images()[:0], "at least one"),
        ("x", "str"),
        (images() * float("nan"), "NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            vaelab.checkup(model, x)
    with pytest.raises(ValueError, match="torch.nn.Module"):
        vaelab.checkup(lambda x: x, images())
    with pytest.raises(ValueError, match="batch_size"):
        vaelab.checkup(model, images(), elbo, batch_size=0)
    with pytest.raises(ValueError, match="limits"):
        vaelab.checkup(model, images(), elbo, beta_limits=(10, 1))
    with pytest.raises(ValueError, match="sigma2_limits"):
        vaelab.checkup(model, images(), elbo, sigma2_limits=3)
    with pytest.raises(ValueError, match="one tensor"):
        vaelab.checkup(nn.Linear(784, 3), images())
    with pytest.raises(ValueError, match="loss must be a function"):
        vaelab.checkup(model, images(), "mse")


@pytest.mark.parametrize("n", [1, 2, 15])
def test_few_images_are_enough_for_the_loss(n):
    report = vaelab.checkup(Net(), images(n), elbo)
    assert report.beta == pytest.approx(1, rel=1e-3) and "too few images" in report.numbers


def test_limits_are_parameters_and_the_batch_size_is_said():
    def loss(r, x, mu, logvar):
        return F.binary_cross_entropy(r, x) + 0.01 * vaelab.gaussian_kl(mu, logvar).sum()

    model = Net()
    report = vaelab.checkup(model, images(), loss, batch_size=100)
    assert report.beta == pytest.approx(784, rel=1e-3) and "loss-scale" in report.serious
    report = vaelab.checkup(model, images(), loss, batch_size=100, beta_limits=(0.1, 1000))
    assert "batch-dependent-beta" in report.serious


def test_a_report_reads_as_text_and_as_a_table():
    report = vaelab.checkup(Net(), images(), lambda r, x, mu, logvar: -elbo(r, x, mu, logvar))
    assert not report.healthy and report.verdict in repr(report)
    assert Report().verdict == "nothing serious found"
    for finding in report.findings:
        assert finding.code in repr(report) and finding.severity in ("serious", "note")
        assert finding.evidence and finding.remedy and finding.notebook.split("_")[0].isdigit()
        assert finding.code in report._repr_html_()


def test_every_finding_points_to_a_notebook_and_says_what_to_do():
    folder = Path(__file__).resolve().parent.parent / "notebooks"
    for check in CHECKS:
        assert (folder / f"{check.notebook}.ipynb").is_file(), check.code
        assert check.remedy.endswith("."), check.code


def test_a_check_that_fails_does_not_take_the_others_with_it(monkeypatch):
    def broken(seen):
        raise RuntimeError("no")

    check = Check("invented", "01_loss_scale", "Nothing.", broken, ("seen",))
    monkeypatch.setattr(findings, "CHECKS", [check, *CHECKS])
    report = vaelab.checkup(Net(), images(), lambda r, x, mu, logvar: -elbo(r, x, mu, logvar))
    assert report.serious[0] == "loss-sign" and "no" in report.numbers["not measured: invented"]


def test_a_vaelab_model_without_a_loss_is_judged_by_its_own_elbo():
    for likelihood in (
        vaelab.Bernoulli(),
        vaelab.ContinuousBernoulli(),
        vaelab.Categorical(4),
        vaelab.GaussianWithVariance(),
    ):
        report = vaelab.checkup(vaelab.mlp_vae((1, 28, 28), 5, 50, likelihood), images())
        assert report.beta == pytest.approx(1, rel=1e-3), likelihood
    report = vaelab.checkup(
        vaelab.mlp_vae((1, 28, 28), 5, 50, vaelab.Gaussian(0.2, "sigmoid")), images()
    )
    assert report.sigma2 == pytest.approx(0.2, rel=1e-3) and report.loss_form == "squared error"


QUICK = (
    "elbo_minimised",
    "blob_by_broadcast",
    "thread_002_broadcast",
    "sizes_that_never_fit",
    "prediction_as_target",
    "logvar_out_of_hand",
    "nan_weights",
    "log_of_zero",
    "cross_entropy_on_z_scores",
    "probabilities_without_sigmoid",
    "decoder_without_z",
)


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("name", QUICK)
def test_untrained_patients(name):
    code, build = SICK[name]
    model, x, loss, *options = build(1)
    assert vaelab.checkup(model, x, loss, **(options[0] if options else {})).serious[0] == code


def test_the_ward_is_large_enough_and_its_table_is_current():
    assert len(SICK) >= 25 and len(HEALTHY) >= 8
    rows = [
        line.split("|") for line in (patients.FOLDER / "results.md").read_text().splitlines()[2:]
    ]
    listed = {row[1].strip(): (row[2].strip(), row[3].strip()) for row in rows}
    assert set(listed) == {*SICK, *HEALTHY}
    for name, (must, found) in listed.items():
        assert must == (SICK[name][0] if name in SICK else "healthy")
        assert found.split(",")[0] == ("-" if must == "healthy" else must)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_on_a_gpu():
    with pytest.raises(ValueError, match="x is on cpu"):
        vaelab.checkup(Net().cuda(), images())
    assert vaelab.checkup(Net().cuda(), images().cuda(), elbo).beta == pytest.approx(1, rel=1e-3)
