"""The check-up's manners: it takes what it can, explains what it cannot use, says what it saw."""

import dataclasses
import re

import pytest
import torch
import torch.nn.functional as F
from plain_models import ConditionalVAE
from torch import nn
from ward import patients
from ward.patients import HEALTHY, SICK, Net, data, elbo, trained

import vaelab
from vaelab.clinic import register
from vaelab.clinic.findings import CHECKS
from vaelab.clinic.register import Check
from vaelab.clinic.report import Finding, Report


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def images(n=64):
    return data()[1][:n]


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

    model = InPlace().train()
    with torch.no_grad():
        model.logvar.weight *= 20
    report = vaelab.checkup(model, images(), elbo)
    assert ("logvar" in report.serious) == (std(torch.ones(1)) > 2)


class Returns(nn.Module):
    """A model that returns what a function makes of (x, reconstruction, mu, logvar)."""

    def __init__(self, make):
        super().__init__()
        self.net, self.make = Net(), make

    def forward(self, x):
        return self.make(x, *self.net(x))


@pytest.mark.parametrize(
    "make, how",
    [
        (
            lambda x, r, mu, lv: {"recon": r, "mu": mu, "log_var": lv},
            "adapter=lambda out: (out['recon'], out['mu'], out['log_var'])",
        ),
        (
            lambda x, r, mu, lv: {"z": mu, "mean": mu, "std": (0.5 * lv).exp(), "x_hat": r},
            "adapter=lambda out: (out['x_hat'], out['mean'], 2 * out['std'].log())",
        ),
        (lambda x, r, mu, lv: (mu, lv, r), "adapter=lambda out: (out[2], out[0], out[1])"),
        (lambda x, r, mu, lv: [r, x, mu, lv], "adapter=lambda out: (out[0], out[2], out[3])"),
    ],
)
def test_outputs_that_can_be_told_are_read_and_it_is_said_how(make, how):
    report = vaelab.checkup(Returns(make), images(), elbo)
    assert report.numbers["called as"] == how
    assert report.serious == ["untrained"] and report.beta == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize(
    "make, shown",
    [
        (lambda x, r, mu, lv: r, "one tensor"),
        (lambda x, r, mu, lv: (r, mu), "2 values"),
        (lambda x, r, mu, lv: (r[:, :, :5], mu, lv), "reconstruction, mu, logvar"),
        (lambda x, r, mu, lv: (r, mu, lv[:, :3]), "reconstruction, mu, logvar"),
        (lambda x, r, mu, lv: (r, mu, None), "autoencoder"),
    ],
)
def test_outputs_that_cannot_be_told_are_refused_with_what_is_needed(make, shown):
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
    with pytest.raises(ValueError, match="purpose must be one of"):
        vaelab.checkup(model, images(), elbo, purpose="compression")


@pytest.mark.parametrize(
    "x_train, inputs_train, message",
    [
        (images()[..., :14], None, "x_train and x must hold rows of one shape"),
        (images().flatten(1), None, "x_train and x must hold rows of one shape"),
        (images()[:0], None, "x_train must"),
        (images().numpy(), None, "x_train must"),
        (images() * float("nan"), None, "x_train holds NaN"),
        (images(), images()[:7], "inputs_train do not fit x_train"),
        (None, images(), "inputs_train"),
    ],
)
def test_training_rows_that_cannot_be_used_get_clear_errors(x_train, inputs_train, message):
    class TakesMore(Net):
        def forward(self, x, more):
            return super().forward(x)

    labels = images(30)
    with pytest.raises(ValueError, match=message):
        vaelab.checkup(
            TakesMore(),
            images(30),
            elbo,
            inputs=labels,
            x_train=x_train,
            inputs_train=inputs_train,
        )


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
    assert not report.healthy and report.verdict in repr(report) and report.scope in repr(report)
    for finding in report.findings:
        assert finding.evidence and finding.remedy and finding.severity in ("serious", "note")
        for text in (repr(report), report._repr_html_()):
            assert finding.code in text and finding.see in text


def test_a_finding_points_to_a_notebook_or_to_its_section_on_the_page():
    taught = Finding("loss-sign", "serious", "seen", "do", "01_loss_scale")
    assert taught.see == "01_loss_scale"
    assert dataclasses.replace(taught, notebook="").see == "docs/findings.md#loss-sign"


def test_every_remedy_is_a_sentence_and_names_only_functions_that_exist():
    for check in CHECKS:
        assert check.remedy.endswith((".", "?")), check.code
        for name in re.findall(r"vaelab\.(\w+)", check.remedy):
            assert hasattr(vaelab, name), check.code


def test_a_verdict_says_what_was_looked_for_and_what_was_not():
    assert Report().verdict == "nothing serious found"
    report = vaelab.checkup(Net(), images())
    assert "noise" in report.looked_for and not set(report.unchecked) & set(report.looked_for)
    # Where there is no condition, nothing about one is looked for, nor missed.
    told = {check.code for check in CHECKS if "condition" not in check.needs}
    assert set(report.looked_for) | set(report.unchecked) == told
    assert report.unchecked["loss-scale"] == "form not known"  # no loss was given
    assert report.unchecked["posterior-collapse"] == "the model is untrained"
    assert f"{len(report.looked_for)} kinds of faults were looked for" in report.scope
    assert all(code in report.scope for code in report.unchecked)


def test_a_check_that_fails_does_not_take_the_others_with_it(monkeypatch):
    def broken(seen):
        raise RuntimeError("no")

    check = Check("invented", "01_loss_scale", "Nothing.", broken, ("seen",), symptom=False)
    monkeypatch.setattr(register, "CHECKS", [check, *CHECKS])
    report = vaelab.checkup(Net(), images(), lambda r, x, mu, logvar: -elbo(r, x, mu, logvar))
    assert report.serious[0] == "loss-sign"
    assert report.unchecked["invented"] == "RuntimeError: no"
    assert "invented" not in report.looked_for


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
    x, x_train = images().cuda(), images(50).cuda()
    model, _, _ = trained(Net, elbo, steps=50)
    report = vaelab.checkup(model.cuda(), x, elbo, x_train=x_train)
    assert report.beta == pytest.approx(1, rel=1e-3)
    assert {"path-around-z", "noise", "untrained"} <= set(report.looked_for)
    assert not [name for name in report.numbers if name.startswith("not measured")]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_conditional_model_on_a_gpu():
    labels = torch.arange(64).cuda() % 10
    report = vaelab.checkup(
        ConditionalVAE().cuda(),
        images().cuda(),
        inputs=labels,
        x_train=images().cuda(),
        inputs_train=labels,
    )
    assert "condition-ignored" in report.looked_for and "x told from x_train" in report.numbers
