"""Each finding on a sick model, and silence on a healthy twin that differs in that one thing."""

import functools
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from ward.patients import Net, bce, data, elbo, kl, logits_bce, square, sse, train

import vaelab
from vaelab.clinic import findings, judging, observe

SHAPE, LATENTS = (1, 14, 14), 6
LABELS, ROWS, SEED = 10, 150, 0


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(SEED)


# ---- a small model that is well, and how it is checked


@functools.cache
def digits():
    """(training images, 150 held-out images), 14 x 14."""
    x, held_out = data()
    return F.avg_pool2d(x, 2), F.avg_pool2d(held_out[:ROWS], 2)


class Small(Net):
    """The ward's VAE for these images."""

    def __init__(self, latents=LATENTS, **options):
        super().__init__(SHAPE, latents, 64, **options)


@functools.cache
def weights():
    """The weights of a model that learned the digits."""
    torch.manual_seed(SEED)
    return train(Small(), digits()[0], elbo, steps=400, lr=4e-3).state_dict()


def well(kind=Small):
    """A model of this kind with these weights."""
    model = kind()
    model.load_state_dict(weights(), strict=False)
    return model


def learned(model, loss=elbo, steps=150, rows=None, **options):
    """The model after some training."""
    x = digits()[0] if rows is None else rows
    return train(model, x, loss, steps=steps, lr=4e-3, batch=64, **options)


def checked(model, loss=elbo, x=None, **options):
    return vaelab.checkup(model, digits()[1] if x is None else x, loss, **options)


def codes(report):
    return [finding.code for finding in report.findings]


def test_the_model_that_is_well_gets_no_finding_at_all():
    report = checked(well(), x_train=digits()[0])
    assert codes(report) == []
    assert {"path-around-z", "noise", "overfit", "untrained"} <= set(report.looked_for)
    assert report.verdict == "nothing serious found" and "were looked for" in report.scope


# ---- paths around z


class HalfOfX(Small):
    """Half of the output is x."""

    def forward(self, x):
        reconstruction, mu, logvar = super().forward(x)
        return 0.5 * reconstruction + 0.5 * x, mu, logvar


class Blurred(Small):
    """Half of the output is x in squares of 7 x 7."""

    def forward(self, x):
        reconstruction, mu, logvar = super().forward(x)
        coarse = F.interpolate(F.avg_pool2d(x, 7), x.shape[2:])
        return 0.5 * reconstruction + 0.5 * coarse, mu, logvar


class Concatenated(Small):
    """The last layer sees features of the encoder beside those of the decoder, as in a U-Net."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(128, 196)

    def forward(self, x):
        h = self.encoder(x)
        mu, logvar = self.mu(h), self.logvar(h)
        up = self.decode[:2](self.sample(mu, logvar))
        return torch.sigmoid(self.last(torch.cat([up, h], 1))).view_as(x), mu, logvar


class InDropout(HalfOfX):
    """A function draws in train mode beside the noise of the codes."""

    def forward(self, x):
        return super().forward(F.dropout(x, 0.1, self.training))


@pytest.mark.parametrize("kind", [HalfOfX, Blurred, InDropout])
def test_a_path_around_the_code_is_found(kind):
    assert checked(well(kind)).serious[0] == "path-around-z"


def test_a_decoder_that_sees_features_of_the_encoder_is_found():
    assert checked(learned(Concatenated())).serious[0] == "path-around-z"


class Autoregressive(Small):
    """Each pixel sees the pixel to its left beside the code."""

    def forward(self, x):
        reconstruction, mu, logvar = super().forward(x)
        left = F.pad(x[..., :-1], (1, 0))
        return 0.8 * reconstruction + 0.2 * left, mu, logvar


def silenced(model):
    """The model with one code for all images, that of the prior."""
    with torch.no_grad():
        for parameter in (*model.mu.parameters(), *model.logvar.parameters()):
            parameter.zero_()
    return model


def test_an_autoregressive_decoder_is_a_note_while_its_code_lives():
    living = checked(well(Autoregressive))
    assert living.healthy and codes(living) == ["strong-decoder"]
    dead = checked(silenced(well(Autoregressive)))
    assert dead.serious[0] == "strong-decoder" and "every step" in dead.findings[0].remedy


# ---- an encoder that does not learn


def without_gradients(*parts):
    model = well()
    for part in parts:
        getattr(model, part).requires_grad_(False)
    return model


def test_a_frozen_encoder_is_found_and_a_frozen_model_is_none():
    encoder = ("encoder", "mu", "logvar")
    assert checked(without_gradients(*encoder)).serious == ["encoder-frozen"]
    assert checked(without_gradients(*encoder, "decode")).healthy
    # A pretrained backbone is frozen on purpose, and its heads learn.
    assert checked(without_gradients("encoder")).healthy


def test_an_encoder_that_the_optimizer_does_not_have_is_found():
    model = Small()
    optimizer = torch.optim.Adam(model.decode.parameters(), lr=4e-3)
    assert checked(learned(model, optimizer=optimizer)).serious[0] == "encoder-frozen"
    assert "encoder-frozen" not in codes(checked(learned(Small(), steps=20)))


class FeaturesDetached(Small):
    def forward(self, x):
        h = self.encoder(x).detach()
        mu, logvar = self.mu(h), self.logvar(h)
        return self.decode(self.sample(mu, logvar)), mu, logvar


class MuDetached(Small):
    def sample(self, mu, logvar):
        return super().sample(mu.detach(), logvar)


class LogvarDetached(Small):
    def sample(self, mu, logvar):
        return super().sample(mu, logvar.detach())


class BothReturnedDetached(Small):
    def forward(self, x):
        h = self.encoder(x)
        mu, logvar = self.mu(h).detach(), self.logvar(h).detach()
        return self.decode(self.sample(mu, logvar)), mu, logvar


class NotReparameterised(Small):
    def sample(self, mu, logvar):
        return torch.distributions.Normal(mu, torch.exp(0.5 * logvar)).sample()


@pytest.mark.parametrize(
    "kind",
    [FeaturesDetached, MuDetached, LogvarDetached, BothReturnedDetached, NotReparameterised],
)
def test_a_gradient_that_is_cut_on_its_way_to_the_encoder_is_found(kind):
    assert checked(well(kind)).serious[0] == "encoder-detached"


class FixedLogvar(Small):
    """A variance that is a constant of the model, as in some latent-diffusion autoencoders."""

    def forward(self, x):
        mu = self.mu(self.encoder(x))
        logvar = torch.full_like(mu, -2.0)
        return self.decode(self.sample(mu, logvar)), mu, logvar


def test_a_constant_logvar_has_no_gradient_to_lose():
    assert "encoder-detached" not in codes(checked(well(FixedLogvar)))


# ---- noise


def sampling(draw):
    """The well model with z = draw(mu, std)."""
    model = well()
    model.sample = lambda mu, logvar: draw(mu, torch.exp(0.5 * logvar))
    return model


def laplace(mu, std):
    return torch.distributions.Laplace(mu, std).rsample()


def two_points(mu, std):
    return mu + std * (2 * torch.bernoulli(torch.full_like(mu, 0.5)) - 1)


WRONG_NOISE = {
    "times 3": lambda mu, std: mu + 3 * std * torch.randn_like(mu),
    "fixed at 0.1": lambda mu, std: mu + 0.1 * torch.randn_like(mu),
    "between 0 and 1": lambda mu, std: mu + std * torch.rand_like(mu),
    "between -1 and 1": lambda mu, std: mu + std * (2 * torch.rand_like(mu) - 1),
    "minus one or one": two_points,
    "Laplace": laplace,
}
RIGHT_NOISE = {
    "Normal.rsample": lambda mu, std: torch.distributions.Normal(mu, std).rsample(),
    "subtracted": lambda mu, std: mu - std * torch.randn_like(mu),
    "normal_": lambda mu, std: mu + std * torch.empty_like(mu).normal_(),
    "clamped": lambda mu, std: mu + std.clamp(min=1e-4) * torch.randn(*mu.shape),
    "row by row": lambda mu, std: mu + std * torch.stack([torch.randn(LATENTS) for _ in mu]),
}


@pytest.mark.parametrize("name", WRONG_NOISE)
def test_noise_that_is_not_that_of_the_kl_is_found(name):
    assert checked(sampling(WRONG_NOISE[name])).serious[0] == "noise"


@pytest.mark.parametrize("name", RIGHT_NOISE)
def test_noise_that_is_right_is_no_finding(name):
    assert checked(sampling(RIGHT_NOISE[name])).healthy


class OwnGenerator(Small):
    def sample(self, mu, logvar):
        source = self.__dict__.setdefault("source", torch.Generator().manual_seed(0))
        return mu + torch.exp(0.5 * logvar) * torch.randn(mu.shape, generator=source)


def test_noise_from_a_generator_of_the_models_own_is_no_finding():
    assert checked(well(OwnGenerator)).healthy


class DropsCodes(Small):
    """Dropout in a function, behind the code."""

    def sample(self, mu, logvar):
        return F.dropout(super().sample(mu, logvar), 0.2, self.training)


class DrawsAgain(Small):
    """The decoder draws noise of its own, for each row another one."""

    def forward(self, x):
        reconstruction, mu, logvar = super().forward(x)
        grain = 0.05 * torch.randn_like(reconstruction)
        return (reconstruction + grain).clamp(0, 1), mu, logvar


class Denoising(Small):
    def forward(self, x):
        return super().forward(x + 0.1 * torch.randn_like(x) if self.training else x)


@pytest.mark.parametrize("kind", [DropsCodes, DrawsAgain, Denoising])
def test_other_things_that_are_random_are_no_finding(kind):
    assert checked(learned(kind(), steps=300)).healthy


@pytest.mark.parametrize("shape", [lambda mu: mu[:1].shape, lambda mu: mu.shape[1:]])
def test_one_draw_for_a_whole_batch_is_found(shape):
    model = sampling(lambda mu, std: mu + std * torch.randn(shape(mu)))
    assert checked(model).serious == ["shared-noise"]


@pytest.mark.parametrize("shape", [lambda mu: (1,), lambda mu: (len(mu), 1)])
def test_one_draw_for_all_latents_is_found(shape):
    model = sampling(lambda mu, std: mu + std * torch.randn(shape(mu)))
    assert checked(model).serious[0] in ("shared-noise", "noise")


class NumpyNoise(Small):
    """Noise that cannot be watched, so codes of our choice cannot be given to the decoder."""

    def sample(self, mu, logvar):
        noise = torch.from_numpy(np.random.standard_normal(mu.shape)).float()
        return mu + torch.exp(0.5 * logvar) * noise


def test_noise_that_cannot_be_read_is_said_to_be_unchecked():
    report = checked(well(NumpyNoise))
    assert report.healthy and {"noise", "path-around-z"} <= set(report.unchecked)


# ---- what forward returns


class Swapped(Small):
    def forward(self, x):
        reconstruction, mu, logvar = super().forward(x)
        return reconstruction, logvar, mu


class OneHead(Small):
    def forward(self, x):
        mu = self.mu(self.encoder(x))
        return self.decode(self.sample(mu, mu)), mu, mu


class Rolled(Small):
    def forward(self, x):
        reconstruction, mu, logvar = super().forward(x)
        return reconstruction.roll(1, 0), mu, logvar


class ThereAndBack(Small):
    """Works on the rows in another order, and puts them back."""

    def forward(self, x):
        return tuple(tensor.flip(0) for tensor in super().forward(x.flip(0)))


@pytest.mark.parametrize(
    "kind, code",
    [(Swapped, "outputs-swapped"), (OneHead, "outputs-swapped"), (Rolled, "outputs-reordered")],
)
def test_outputs_in_the_wrong_place_are_found(kind, code):
    assert checked(well(kind)).serious[0] == code


def test_outputs_that_are_put_back_and_heads_that_start_at_zero_are_no_finding():
    assert checked(well(ThereAndBack)).healthy
    report = checked(silenced(well()))
    assert not {"outputs-swapped", "outputs-reordered"} & set(codes(report))


class Sequences(nn.Module):
    """A GRU reads [B, T, D], another writes it."""

    def __init__(self, batch_first):
        super().__init__()
        self.read = nn.GRU(14, 32, batch_first=batch_first)
        self.mu, self.logvar = nn.Linear(32, 4), nn.Linear(32, 4)
        self.write = nn.Linear(4, 196)

    def forward(self, x):
        h = self.read(x)[0][:, -1]
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.write(z).view_as(x), mu, logvar


def test_a_batch_that_is_read_as_time_is_found():
    x = digits()[1].squeeze(1)
    assert checked(Sequences(batch_first=False), square, x).serious[0] == "rows-mixed"
    assert checked(Sequences(batch_first=True), square, x).serious == ["untrained"]


class TwoSigmoids(Small):
    def forward(self, x):
        reconstruction, mu, logvar = super().forward(x)
        return torch.sigmoid(reconstruction), mu, logvar


def logits_elbo(r, x, mu, logvar):
    return logits_bce(r, x) + kl(mu, logvar)


def test_a_second_activation_is_found_in_the_model_and_in_the_loss():
    assert checked(learned(TwoSigmoids())).serious[0] == "activated-twice"
    assert checked(learned(Small(), logits_elbo), logits_elbo).serious[0] == "activated-twice"


class TanhBetween0And1(Small):
    def __init__(self):
        super().__init__(end=nn.Tanh)

    def forward(self, x):
        reconstruction, mu, logvar = super().forward(x)
        return (reconstruction + 1) / 2, mu, logvar


def test_one_activation_is_no_finding_wherever_it_stands():
    logits = checked(learned(Small(end=None), logits_elbo), logits_elbo)
    shifted = checked(learned(TanhBetween0And1(), square), square)
    for report in (logits, shifted):
        assert not {"activated-twice", "out-of-reach"} & set(codes(report))


# ---- rows that the model was not made for


def blank(x):
    x = x.clone()
    x[::2] = 1.0
    return x


def marked(x):
    absent = torch.rand(x.shape, generator=torch.Generator().manual_seed(7)) < 0.1
    return x.masked_fill(absent, -999.0)


OTHER_ROWS = {
    "0 to 255": lambda x: 255 * x,
    "inverted": lambda x: 1 - x,
    "-1 to 1": lambda x: 2 * x - 1,
    "z-scores": lambda x: (x - x.mean()) / x.std(),
    "half of them blank": blank,
    "marks for missing values": marked,
}
IN_RANGE = ("inverted", "half of them blank")
ABOUT_ROWS = {"data-mismatch", "outside-support", "out-of-reach", "loss-raises"}


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("name", OTHER_ROWS)
def test_rows_unlike_those_of_training_are_found(name, beside):
    x_train = digits()[0] if beside else None
    report = checked(well(), elbo, OTHER_ROWS[name](digits()[1]), x_train=x_train)
    assert report.serious[0] in ABOUT_ROWS
    if beside or name in IN_RANGE:
        assert report.serious[0] == "data-mismatch"


def test_training_rows_that_are_all_one_row_are_found():
    x, held_out = digits()
    report = checked(well(), elbo, held_out, x_train=x[:1].repeat(300, 1, 1, 1))
    assert report.serious[0] == "data-mismatch" and "one and the same row" in repr(report)


def test_a_few_blank_rows_and_a_few_binary_columns_are_no_finding():
    x = digits()[1].clone()
    x[::30] = 0.0
    assert "data-mismatch" not in codes(checked(well(), x=x))
    table = (torch.rand(300, 3, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    report = checked(Net((3,), 2, 16), elbo, table)
    assert "data-mismatch" not in codes(report)


def test_the_mean_image_is_the_least_that_a_model_must_beat():
    def inverted(x):
        reconstruction, mu, logvar = Small.forward(model, x)
        return 1 - reconstruction, mu, logvar

    model = well()
    model.forward = inverted
    assert "data-mismatch" in checked(model).serious


# ---- the loss


def test_an_error_that_sees_a_part_of_the_picture_is_found():
    def half(r, x, mu, logvar):
        return bce(r[..., :7], x[..., :7]) + kl(mu, logvar)

    def weighted(r, x, mu, logvar):
        weight = torch.linspace(0.5, 1.5, 14)
        return (weight * (r - x) ** 2).flatten(1).sum(1).mean() + kl(mu, logvar)

    assert checked(well(), half).serious[0] == "partial-error"
    assert "partial-error" not in codes(checked(well(), weighted))


def with_sigma(log_sigma):
    """(model, loss): sigma is a parameter of the model."""
    model = Small(end=None)
    model.log_sigma = nn.Parameter(torch.tensor(log_sigma))

    def loss(r, x, mu, logvar):
        precision = torch.exp(-2 * model.log_sigma)
        return 0.5 * precision * sse(r, x) + 196 * model.log_sigma + kl(mu, logvar)

    return model, loss


def test_a_sigma_that_runs_to_zero_is_found():
    model, loss = with_sigma(-2.0)
    learned(model, loss, steps=300)
    assert checked(model, loss).healthy
    with torch.no_grad():
        model.log_sigma -= 4
    assert checked(model, loss).serious[0] == "sigma"


# ---- the condition


class Labelled(Small):
    """The decoder gets a condition beside z."""

    def __init__(self, width):
        super().__init__(LATENTS)
        self.with_condition = nn.Linear(LATENTS + width, LATENTS)

    def picture(self, z, condition):
        return self.decode(self.with_condition(torch.cat([z, condition], 1)))

    def forward(self, x, condition):
        h = self.encoder(x)
        mu, logvar = self.mu(h), self.logvar(h)
        return self.picture(self.sample(mu, logvar), condition), mu, logvar


class Deaf(Labelled):
    """Accepts a condition and does not use it."""

    def picture(self, z, condition):
        return super().picture(z, torch.zeros_like(condition))


@functools.cache
def one_hot():
    """(of the training images, of the held-out ones): labels as [N, 10] of zeros and ones."""
    images = vaelab.load("digits")
    rows = images.y_train, images.y_test[:ROWS]
    return tuple(F.one_hot(labels, LABELS).float() for labels in rows)


def thumbnails():
    return tuple(F.avg_pool2d(x, 3).flatten(1) for x in digits())


def conditional(kind, conditions, steps=300):
    """A model of this kind, trained with a condition for each image."""
    x, rows = digits()[0], conditions[0]
    torch.manual_seed(SEED)
    model = kind(rows.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    for _ in range(steps):
        index = torch.randint(len(x), (64,))
        reconstruction, mu, logvar = model(x[index], rows[index])
        loss = elbo(reconstruction, x[index], mu, logvar)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@pytest.fixture(scope="module")
def labelled():
    return conditional(Labelled, one_hot())


def test_a_condition_that_is_used_is_no_finding(labelled):
    report = checked(labelled, inputs=one_hot()[1])
    assert codes(report) == []
    assert {"condition-ignored", "condition-leaks"} <= set(report.looked_for)


def test_a_condition_that_is_ignored_is_found():
    report = checked(conditional(Deaf, one_hot(), steps=100), inputs=one_hot()[1])
    assert report.serious[0] == "condition-ignored"


def test_a_condition_of_other_rows_is_found(labelled):
    permuted = one_hot()[1].roll(1, 0)
    assert checked(labelled, inputs=permuted).serious[0] == "data-mismatch"


def test_a_condition_that_holds_the_picture_is_found():
    rows = thumbnails()
    model = conditional(Labelled, rows)
    assert checked(model, inputs=rows[1]).serious[0] == "condition-leaks"


# ---- how much was learned, and of what


def test_a_model_that_knows_its_training_rows_only_is_found():
    few = digits()[0][:30]
    model = learned(Small(), steps=500, rows=few)
    report = checked(model, x_train=few)
    assert report.serious[0] == "overfit"
    assert "overfit" not in codes(checked(well(), x_train=digits()[0]))
    assert "overfit" in checked(model).unchecked  # without x_train nothing is said of it


def test_an_untrained_model_is_said_and_not_diagnosed():
    model = Small()
    assert checked(model).serious == ["untrained"]
    reversed_sign = checked(model, lambda *outputs: -elbo(*outputs))
    assert reversed_sign.serious == ["loss-sign", "untrained"]
    assert "untrained" not in codes(checked(learned(model, steps=20)))


def test_a_light_kl_on_purpose_is_a_fact():
    def light(r, x, mu, logvar):
        return sse(r, x) + 1e-6 * kl(mu, logvar)

    model = learned(Small(), light, steps=300)
    assert checked(model, light).serious[0] == "loss-scale"
    report = checked(model, light, purpose="autoencoding")
    assert codes(report) == []
    factor = float(report.numbers["scale factor of the codes"].split(",")[0])
    with torch.no_grad():
        _, mu, logvar = model(digits()[1])
    deviation = (mu.var(correction=0) + logvar.exp().mean()).sqrt().item()
    assert factor == pytest.approx(1 / deviation, rel=0.05)


def test_spare_latents_are_no_finding_on_a_model_that_works():
    report = checked(learned(Small(latents=40), steps=400))
    assert codes(report) == []


# ---- a verdict never stands over measurements that contradict it


CONTRADICTIONS = {
    "an error above the mean image's": lambda: learned(Small(), steps=3),
    "noise unlike logvar": lambda: sampling(lambda mu, std: mu + 2 * std * torch.randn_like(mu)),
    "outputs that follow x, and a code without a nat": lambda: silenced(well(HalfOfX)),
    "codes that say nothing": lambda: silenced(well()),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_no_verdict_stands_over_what_contradicts_it(name):
    assert not checked(CONTRADICTIONS[name]()).healthy


class DecodesOtherwise(Small):
    """`decode`, from which samples are drawn, is not what forward does with z."""

    def __init__(self):
        super().__init__()
        self.inner = well()

    def forward(self, x):
        return self.inner(x)


def test_a_decode_that_is_not_what_forward_does_is_said():
    assert "decode" in repr(checked(DecodesOtherwise()))
    assert "decode" not in repr(checked(well()))


# ---- remedies


def killed():
    """A learning rate a hundred times too high."""
    return train(Small(), digits()[0], elbo, steps=60, lr=0.4)


AT_BETA_ONE = {
    "untrained": Small,
    "five steps": lambda: learned(Small(), steps=5),
    "killed by its learning rate": killed,
    "a code that says nothing": lambda: silenced(well()),
    "gradients that are cut": lambda: well(MuDetached),
}
TO_WEIGH_LESS = re.compile(r"(?<!Do not )\b(lower|bring|reduce|decrease) (the )?(beta|KL)", re.I)


@pytest.mark.parametrize("name", AT_BETA_ONE)
def test_no_remedy_lowers_a_beta_that_is_below_the_threshold(name):
    report = checked(AT_BETA_ONE[name]())
    assert report.beta == pytest.approx(1, rel=1e-3)
    for finding in report.findings:
        assert not TO_WEIGH_LESS.search(finding.remedy), finding


def flat_elbo(r, x, mu, logvar):
    return bce(r, x) + 0.2 * kl(mu, logvar)


def test_a_beta_above_the_threshold_is_to_be_lowered():
    # Little varies in these pictures, so that a beta of 0.2 is enough for a collapse.
    x = 0.1 * digits()[1] + 0.45
    report = checked(silenced(learned(Small(), rows=x)), flat_elbo, x)
    collapse = next(finding for finding in report.findings if finding.code == "posterior-collapse")
    assert collapse.remedy.startswith("Bring beta well below the collapse threshold 0.06")


def test_a_remedy_for_a_collapse_claims_no_more_than_was_checked():
    report = checked(silenced(well(NumpyNoise)))
    collapse = next(finding for finding in report.findings if finding.code == "posterior-collapse")
    assert "path-around-z" in report.unchecked and "path-around-z" in report.scope
    assert "found right" not in collapse.remedy and "not checked" in collapse.remedy


# ---- blur


def blur_of(monkeypatch, sharpness=0.3, error=1.0, sigma2=1.0, of_pca=1.0, nats=1.0):
    """What the check-up says about a blur with these numbers, "" if nothing."""
    monkeypatch.setattr(judging, "error_of_pca", lambda x, components: of_pca)
    picture = SimpleNamespace(sharpness=sharpness, follows=0.5, mse=error)
    codes = SimpleNamespace(latents=4, kl=torch.full((4,), nats))
    seen, form = SimpleNamespace(x=None), SimpleNamespace(sigma2=sigma2)
    return "".join(note.text for note in findings.blur(seen, form, picture, codes))


def test_the_cause_of_a_blur_is_named(monkeypatch):
    assert "too noisy" in blur_of(monkeypatch, sigma2=10.0)
    assert "too little training" in blur_of(monkeypatch, of_pca=0.5)
    assert "too few latents" in blur_of(monkeypatch, nats=3.0)
    assert blur_of(monkeypatch) == ""
    assert blur_of(monkeypatch, sharpness=0.9, sigma2=10.0, nats=3.0) == ""
    # a sigma that is far too small fills the latents with noise
    assert blur_of(monkeypatch, sigma2=0.1, nats=4.0) == ""


def test_error_of_pca():
    x = torch.randn(200, 3, dtype=torch.float64) @ torch.randn(3, 12, dtype=torch.float64)
    assert judging.error_of_pca(x, 3) < 1e-12 < judging.error_of_pca(x, 2)
    assert judging.error_of_pca(x, 12) is None


def test_sharpness():
    x = torch.rand(20, 1, 24, 24)
    blurred = F.avg_pool2d(x, 3, 1, 1)
    assert observe._sharpness(x, x) == pytest.approx(1)
    assert observe._sharpness(x / 2, x) == pytest.approx(0.25)
    assert observe._sharpness(blurred, x) < 0.2
    assert observe._sharpness(x.flatten(1), x.flatten(1)) is None
