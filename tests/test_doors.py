"""First use: how a model is called is found by names, shapes and calls, or the line is shown."""

import collections
import copy
import dataclasses
import re
import textwrap
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from benchmark import case, public  # noqa: F401
from plain_models import ConditionalVAE, ExamplesVAE, plain_models
from torch import nn

import vaelab
from vaelab.adapt import call
from vaelab.clinic.doors import find_door
from vaelab.outputs import LOG_STD, LOGVAR, STD, VARIANCE, kind_of, spread_named

MODULES = {"pyro-ppl": "pyro"}
LATENTS, SIDE = 3, 4
PIXELS = SIDE * SIDE


@pytest.fixture
def images():
    return torch.rand(40, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def noise(mu, logvar):
    return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)


class Parts(nn.Module):
    """Layers whose names tell nothing; `truth` is what a door has to find."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(PIXELS, 12)
        self.second, self.third = nn.Linear(12, LATENTS), nn.Linear(12, LATENTS)
        self.last = nn.Linear(LATENTS, PIXELS)

    def truth(self, x):
        h = torch.tanh(self.first(x.flatten(1)))
        return self.second(h), self.third(h)

    def picture(self, z):
        return torch.sigmoid(self.last(z)).view(-1, 1, SIDE, SIDE)


class Forward(Parts):
    """Its forward returns whatever a function makes of (x, reconstruction, mu, logvar, z)."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        mu, logvar = self.truth(x)
        z = noise(mu, logvar)
        return self.make(x, self.picture(z), mu, logvar, z)


def gives_the_truth(model, x, door, inputs=None):
    """Whether a door leads to the model's own mu and logvar, and to pictures."""
    model.eval()
    reconstruction, mu, logvar = call(model, door.x, door.adapter, inputs)
    true_mu, true_logvar = (t.flatten(1) for t in model.truth(x))
    right = torch.allclose(mu, true_mu, atol=1e-5)
    return (
        right and torch.allclose(logvar, true_logvar, atol=1e-4) and len(reconstruction) == len(x)
    )


# ---- forwards that return the three in another form


@dataclasses.dataclass
class Latents:
    z: torch.Tensor
    loc: torch.Tensor
    scale: torch.Tensor
    x_recon: torch.Tensor


class ModelOutput(collections.OrderedDict):
    """As in Hugging Face's libraries: a dictionary with attributes."""

    __getattr__ = collections.OrderedDict.__getitem__


class DiagonalGaussian:
    """The posterior of latent diffusion's AutoencoderKL."""

    def __init__(self, parameters):
        self.parameters = parameters
        self.mean, self.logvar = torch.chunk(parameters, 2, dim=1)
        self.deterministic = False
        self.std, self.var = torch.exp(0.5 * self.logvar), torch.exp(self.logvar)

    def sample(self):
        return self.mean + self.std * torch.randn(self.mean.shape)


Named = collections.namedtuple("Named", "x_hat z_mean z_log_var")


def std(logvar):
    return torch.exp(0.5 * logvar)


def scvi_like(x, r, mu, lv, z):
    prior = torch.distributions.Normal(torch.zeros_like(mu), torch.ones_like(mu))
    inferred = {"z": z, "qz": torch.distributions.Normal(mu, std(lv)), "library": z[:, :1]}
    return inferred, {"px": torch.distributions.Normal(r, 1.0), "pz": prior}


FORMS = {
    "a dictionary": lambda x, r, mu, lv, z: {"recon": r, "mu": mu, "log_var": lv, "z": z},
    "a dictionary with std": lambda x, r, mu, lv, z: {"x_hat": r, "mean": mu, "std": std(lv)},
    "a variance": lambda x, r, mu, lv, z: {"out": r, "mu": mu, "sigma2": lv.exp()},
    "var that can be negative": lambda x, r, mu, lv, z: {"out": r, "mu": mu, "var": lv},
    "a log std, as in VITS": lambda x, r, mu, lv, z: {"o": r, "m_q": mu, "logs_q": lv / 2},
    "a namedtuple": lambda x, r, mu, lv, z: Named(r, mu, lv),
    "a dataclass": lambda x, r, mu, lv, z: Latents(z, mu, std(lv), r),
    "a ModelOutput": lambda x, r, mu, lv, z: ModelOutput(
        loss=r.mean(), reconstruction=r, embedding=mu, log_covariance=lv
    ),
    "AntixK/PyTorch-VAE": lambda x, r, mu, lv, z: [r, x, mu, lv],
    "z in front": lambda x, r, mu, lv, z: (r, z, mu, lv),
    "z behind": lambda x, r, mu, lv, z: (r, mu, lv, z),
    "z without noise in eval mode": lambda x, r, mu, lv, z: (r, mu, mu, lv),
    "z without noise behind": lambda x, r, mu, lv, z: (r, mu, lv, mu),
    "z as in MONAI's eval mode": lambda x, r, mu, lv, z: (r, mu, lv, mu + std(lv)),
    "std and logvar": lambda x, r, mu, lv, z: (r, mu, std(lv), lv),
    "another order": lambda x, r, mu, lv, z: (mu, lv, r),
    "with a loss": lambda x, r, mu, lv, z: (((r - x) ** 2).sum(), r, mu, lv),
    "a pair inside": lambda x, r, mu, lv, z: (r, (mu, lv)),
    "a posterior": lambda x, r, mu, lv, z: (r, torch.distributions.Normal(mu, std(lv))),
    "an independent posterior": lambda x, r, mu, lv, z: {
        "recon": r,
        "q": torch.distributions.Independent(torch.distributions.Normal(mu, std(lv)), 1),
    },
    "latent diffusion": lambda x, r, mu, lv, z: (r, DiagonalGaussian(torch.cat([mu, lv], 1))),
    "scvi": scvi_like,
    "a decoder with two heads": lambda x, r, mu, lv, z: {
        "x_mu": r,
        "x_logvar": r - 2,
        "z_mu": mu,
        "z_logvar": lv,
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_a_forward_that_returns_the_three_in_another_form_is_read(form, images):
    model = Forward(FORMS[form])
    door = find_door(model, images)
    assert gives_the_truth(model, images, door)
    assert door.own_noise and "adapter=lambda out: (" in door.how


@pytest.mark.parametrize("form", FORMS)
def test_what_is_said_of_it_is_an_adapter_that_works(form, images):
    model = Forward(FORMS[form])
    written = eval(find_door(model, images).how.removeprefix("adapter="))
    mu, _ = vaelab.posterior(model, images, adapter=written)
    assert torch.allclose(mu, model.truth(images)[0], atol=1e-5)


def test_the_usual_forward_is_left_as_it_is():
    model, x = plain_models()["convolutional"][0], torch.rand(8, 1, 28, 28)
    door = find_door(model, x)
    assert door.x is x and door.adapter is None and door.own_noise and door.how == ""
    assert torch.equal(door.decode(torch.zeros(4, 8)), model.decode(torch.zeros(4, 8)))


@pytest.mark.parametrize("name", plain_models())
def test_compiled_wrapped_and_half_precision_models_have_a_door(name):
    model, options = plain_models()[name]
    x = torch.rand(64, 1, 28, 28)
    door = find_door(nn.DataParallel(model), x, **options)
    assert door.adapter is None
    assert door.x.dim() == (2 if name == "flat input" else 4)


def test_a_half_precision_model_is_composed_in_its_own_precision(images):
    class Half(Parts):
        def encode(self, x):
            return self.truth(x)

        def decode(self, z):
            return self.picture(z)

    door = find_door(Half().bfloat16(), images)
    reconstruction, _, logvar = call(Half().bfloat16(), door.x, door.adapter)
    assert reconstruction.dtype == logvar.dtype == torch.float32


# ---- models without a forward, or with one that returns a picture only


class PictureOnly(Parts):
    def encode(self, x):
        return self.truth(x)

    def decode(self, z):
        return self.picture(z)

    def forward(self, x):
        return self.decode(noise(*self.encode(x)))


class WantsADictionary(PictureOnly):
    def forward(self, batch):
        return {"recon_x": super().forward(batch["data"])}


class ReturnsItsLoss(PictureOnly):
    def forward(self, x):
        return F.mse_loss(super().forward(x), x)


class NoForward(PictureOnly):
    forward = nn.Module.forward


class EncodesToANormal(NoForward):
    def encode(self, x):
        mu, logvar = self.truth(x)
        return torch.distributions.Normal(mu, std(logvar))


class EncodesToNames(NoForward):
    def encode(self, x):
        mu, logvar = self.truth(x)
        return ModelOutput(latent_dist=DiagonalGaussian(torch.cat([mu, logvar], 1)))

    def decode(self, z):
        return ModelOutput(sample=self.picture(z))


class EncodesToThree(NoForward):
    """As in Keras's examples: z_mean, z_log_var, z."""

    def encode(self, x):
        mu, logvar = self.truth(x)
        return mu, logvar, noise(mu, logvar)


class EncodesToMuStdLogvar(NoForward):
    """As in ctgan."""

    def encode(self, x):
        mu, logvar = self.truth(x)
        return mu, torch.exp(0.5 * logvar), logvar

    def decode(self, z):
        return self.picture(z), torch.ones(PIXELS)


class EncodesToHalves(NoForward):
    def encode(self, x):
        return torch.cat(self.truth(x), 1)


class WantsFlatRows(NoForward):
    def encode(self, x):
        h = torch.tanh(self.first(x))
        return self.second(h), self.third(h)

    def decode(self, z):
        return self.picture(z).flatten(1)


class WantsFlatRowsAndShowsPictures(WantsFlatRows):
    def decode(self, z):
        return self.picture(z)


class Scales(NoForward):
    """As in Pyro's tutorial: a standard deviation, whose name stands where it is used."""

    def encode(self, x):
        mu, logvar = self.truth(x)
        return mu, torch.exp(logvar / 2)

    def guide(self, x):
        z_loc, z_scale = self.encode(x)
        return torch.distributions.Normal(z_loc, z_scale)


class ScalesOfAModule(NoForward):
    """The same with a module, which returns expressions."""

    class Encoder(Parts):
        def forward(self, x):
            return self.truth(x)[0], torch.exp(self.truth(x)[1] / 2)

    def __init__(self):
        super().__init__()
        self.encoder, self.encode = self.Encoder(), None

    def guide(self, x):
        z_loc, z_scale = self.encoder(x)
        return torch.distributions.Normal(z_loc, z_scale)


class Heads(Parts):
    """Features, and two layers fc_mu and fc_var, joined only in its training step."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), self.first, nn.Tanh())
        self.decoder = nn.Sequential(self.last, nn.Sigmoid(), nn.Unflatten(1, (1, SIDE, SIDE)))
        self.fc_mu, self.fc_var = self.second, self.third
        del self.first, self.second, self.third, self.last

    def truth(self, x):
        return self.fc_mu(self.encoder(x)), self.fc_var(self.encoder(x))


class ConvolutionalHeads(Heads):
    """The same with features [B, 12, 1, 1], which are made flat in between."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(*self.encoder, nn.Unflatten(1, (12, 1, 1)))

    def truth(self, x):
        h = self.encoder(x).flatten(1)
        return self.fc_mu(h), self.fc_var(h)


class Spatial(nn.Module):
    """A code [B, 2, 2, 2]; `encode` gives twice as many channels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Conv2d(1, 4, 2, 2)
        self.quant_conv = nn.Conv2d(4, 4, 1)  # no codebook, in spite of its name
        self.decoder = nn.ConvTranspose2d(2, 1, 2, 2)

    def truth(self, x):
        return self.encode(x).chunk(2, dim=1)

    def encode(self, x):
        return self.quant_conv(self.encoder(x))

    def decode(self, z):
        return self.decoder(z)


COMPOSED = (
    PictureOnly,
    WantsADictionary,
    ReturnsItsLoss,
    NoForward,
    EncodesToANormal,
    EncodesToNames,
    EncodesToThree,
    EncodesToMuStdLogvar,
    EncodesToHalves,
    WantsFlatRows,
    WantsFlatRowsAndShowsPictures,
    Scales,
    ScalesOfAModule,
    Heads,
    ConvolutionalHeads,
    Spatial,
)


@pytest.mark.parametrize("kind", COMPOSED)
def test_a_model_is_composed_of_its_parts(kind, images):
    model = kind()
    door = find_door(model, images)
    assert gives_the_truth(model, images, door)
    assert not door.own_noise and ", then model.decode" in door.how


@pytest.mark.parametrize("kind", COMPOSED)
def test_a_composed_model_decodes_a_code_with_the_noise_of_its_logvar(kind, images):
    model = kind()
    door = find_door(model, images)
    torch.manual_seed(0)
    reconstruction, mu, logvar = call(model, door.x, door.adapter)
    torch.manual_seed(0)
    door.adapter.encode(model, door.x, ())  # an encoder may draw as well
    expected = door.decode(noise(mu, logvar)).view_as(reconstruction)
    assert torch.equal(reconstruction, expected)


@pytest.mark.parametrize("kind", COMPOSED)
def test_the_source_of_a_composed_adapter_works(kind, images):
    model = kind()
    door = find_door(model, images)
    written = executed(door.adapter.source())
    mu, logvar = vaelab.posterior(model, door.x, adapter=written)
    assert torch.allclose(mu, model.truth(images)[0].flatten(1), atol=1e-5)
    assert torch.allclose(logvar, model.truth(images)[1].flatten(1), atol=1e-4)


def test_x_is_flat_only_where_encoder_and_decoder_both_are(images):
    assert find_door(WantsFlatRows(), images).x.shape == (40, PIXELS)
    assert find_door(WantsFlatRowsAndShowsPictures(), images).x is images


def test_spatial_codes_come_flat_and_are_decoded_in_their_own_shape(images):
    model = Spatial()
    door = find_door(model, images)
    _, mu, logvar = call(model, images, door.adapter)
    assert mu.shape == logvar.shape == (40, 8)
    picture = model.decode(mu.view(40, 2, 2, 2))
    assert torch.equal(door.decode(mu), picture)
    assert "z.unflatten(1, (2, 2, 2))" in door.how


def test_codes_that_a_forward_gives_as_pictures_are_flat_too(images):
    class LatentDiffusion(Spatial):
        def forward(self, x):
            posterior = DiagonalGaussian(self.encode(x))
            return self.decode(posterior.sample()), posterior

    model = LatentDiffusion()
    door = find_door(model, images)
    assert gives_the_truth(model, images, door) and door.own_noise
    assert door.decode(torch.zeros(40, 8)).shape == images.shape


def test_a_generator_of_samples_is_not_called_where_there_is_a_decoder(images):
    class Generates(PictureOnly):
        def generate(self, z):
            raise KeyboardInterrupt

    assert find_door(Generates(), images).decode is not None


def test_a_model_that_gives_nan_is_composed_as_well(images):
    model = NoForward()
    model.third.bias.data.fill_(float("nan"))
    assert ", then model.decode" in find_door(model, images).how


def test_the_kind_of_spread_is_said(images):
    assert "a standard deviation" in find_door(Scales(), images).how


def test_a_check_up_of_a_composed_model_says_no_word_about_adapters(images):
    def loss(reconstruction, x, mu, logvar):
        error = F.binary_cross_entropy(reconstruction, x, reduction="sum")
        kl = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum()
        return (error + kl) / len(x)

    report = vaelab.checkup(Scales(), images, loss)
    assert report.beta == pytest.approx(1, rel=1e-3)
    assert "cross-entropy" in report.loss_form


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ("log_var logvar z_log_var logvar_z log_covariance log_sigma2 lv fc_logvar", LOGVAR),
        ("log_std logs log_sigma logs_q log_scale", LOG_STD),
        ("std stddev z_scale sigma sigma_z qz_std", STD),
        ("var variance sigma2 sigma_sq fc_var qz_v", VARIANCE),
        ("z mu latent_variable sigmoid logits invariant loss", None),
    ],
)
def test_a_name_tells_the_kind_of_spread(names, kind):
    assert [spread_named(name) for name in names.split()] == [kind] * len(names.split())


@pytest.mark.parametrize(
    ("lowest", "name", "ending", "kind"),
    [
        (-1, "second", None, LOGVAR),
        (-1, "var", None, LOGVAR),
        (-1, "std", None, None),
        (1, "second", None, None),
        (1, "std", None, STD),
        (1, "logvar", None, LOGVAR),
        (1, "logvar", "exp", None),
        (1, "second", "softplus", None),
        (1, "scale", "softplus", STD),
    ],
)
def test_values_and_the_last_layer_rule_kinds_out(lowest, name, ending, kind):
    assert kind_of(torch.tensor([lowest, 2.0]), [name], ending) is kind


# ---- labels and other inputs


class Labelled(ConditionalVAE):
    """Labels go into both parts, and forward returns a picture only."""

    def encode(self, x, labels):
        one_hot = F.one_hot(labels, self.classes).to(x.dtype)
        return self.heads(self.encoder(torch.cat([x.flatten(1), one_hot], 1))).chunk(2, 1)

    def forward(self, x, labels):
        return super().forward(x, labels)[0]


@pytest.mark.parametrize("model", [ConditionalVAE(), Labelled()])
@pytest.mark.parametrize("by_name", [False, True])
def test_labels_are_given_to_the_parts_that_take_them(model, by_name):
    x, labels = torch.rand(20, 1, 28, 28), torch.arange(20) % 10
    inputs = {"labels": labels} if by_name else labels
    door = find_door(model, x, inputs=inputs)
    assert call(model, x, door.adapter, inputs).mu.shape == (20, 8)
    expected = model.decode(torch.zeros(20, 8), labels)
    given = {"labels": labels} if by_name else {}
    assert torch.equal(
        door.decode(torch.zeros(20, 8), *([] if by_name else [labels]), **given), expected
    )


@pytest.mark.parametrize("model", [ConditionalVAE(), Labelled()])
def test_missing_labels_are_asked_for_by_name(model):
    with pytest.raises(ValueError, match="inputs=labels"):
        vaelab.checkup(model, torch.rand(20, 1, 28, 28))


# ---- tokens


class Tokens(nn.Module):
    """Six tokens of five kinds; `shape` is that of the logits of one row."""

    def __init__(self, shape=(6, 5)):
        super().__init__()
        self.embed, self.heads = nn.Embedding(5, 4), nn.Linear(24, 4)
        self.decoder = nn.Sequential(nn.Linear(2, 30), nn.Unflatten(1, shape))

    def forward(self, x):
        mu, logvar = self.heads(self.embed(x).flatten(1)).chunk(2, 1)
        return self.decoder(noise(mu, logvar)), mu, logvar


@pytest.mark.parametrize("shape", [(6, 5), (5, 6), (30,)])
def test_whole_numbers_stay_whole_and_their_logits_are_taken(shape):
    x = torch.randint(5, (20, 6))
    model = Tokens(shape)
    door = find_door(model, x)
    assert door.x is x and door.adapter is None
    assert call(model, x).reconstruction.shape == (20, *shape)
    assert door.decode(torch.zeros(20, 2)).shape == (20, *shape)


def test_whole_numbers_of_a_model_for_measurements_are_told_to_become_floats():
    with pytest.raises(ValueError, match=r"x.float\(\)"):
        find_door(nn.Linear(6, 6), torch.randint(5, (20, 6)))


def test_logits_that_are_no_multiple_of_the_tokens_are_refused():
    def adapter(out):
        return out[0].flatten(1)[:, :29], out[1], out[2]

    with pytest.raises(ValueError, match="must return"):
        call(Tokens(), torch.randint(5, (20, 6)), adapter)


# ---- where it is not certain, the line to write is shown, and works


def refusal(model, x, **options):
    """The text of the error."""
    with pytest.raises(ValueError) as caught:
        find_door(model, x, **options)
    return str(caught.value)


def executed(source):
    """The function adapter of this source."""
    names = {"torch": torch}
    exec(textwrap.dedent(source), names)
    return names["adapter"]


def shown(text):
    """The adapters that an error shows, executed as they are printed."""
    if "def adapter" in text:
        return [executed(text[text.index("    def adapter") :])]
    lines = re.findall(r"^    adapter=(.*)$", text, re.M)
    return [eval(line) for line in lines]


class ScaleOrVariance(NoForward):
    """Nothing in its source says what the second tensor is."""

    def encode(self, x):
        mu, logvar = self.truth(x)
        return mu, F.softplus(logvar) + 1e-6


def test_a_second_tensor_that_can_be_anything_is_asked_about(images):
    model = ScaleOrVariance()
    text = refusal(model, images)
    assert "a standard deviation, a variance or a log-variance" in text
    (adapter,) = shown(text)
    _, spread = model.encode(images)
    assert torch.allclose(call(model, images, adapter).logvar, 2 * spread.log())
    (adapter,) = shown(text.replace("2 * out[1].log()", "out[1].log()", 1))
    assert torch.allclose(call(model, images, adapter).logvar, spread.log())


def test_so_is_one_among_four_values(images):
    model = Forward(lambda x, r, mu, lv, z: (r, mu, std(lv), z))
    adapters = shown(refusal(model, images))
    expected = std(model.truth(images)[1])
    logvars = [call(model.eval(), images, adapter).logvar for adapter in adapters]
    for logvar, right in zip(logvars, (expected, 2 * expected.log(), expected.log()), strict=True):
        assert torch.allclose(logvar, right, atol=1e-5)


def test_two_pictures_in_a_tuple_are_shown_and_not_guessed(images):
    model = Forward(lambda x, r, mu, lv, z: (r, r * 0.5, mu, lv))
    (adapter,) = shown(refusal(model, images))
    assert gives_the_truth(model, images, find_door(model, images, adapter))


def test_the_readers_adapter_is_never_replaced_and_its_failure_shows_a_line_that_works(images):
    model = Forward(FORMS["AntixK/PyTorch-VAE"])

    def reader(out):
        return out[0], out[2], out[3]

    door = find_door(model, images, reader)
    assert door.adapter is reader and door.own_noise and door.how == ""
    (adapter,) = shown(refusal(model, images, adapter=lambda out: out))
    assert torch.allclose(call(model.eval(), images, adapter).mu, model.truth(images)[0])


def test_the_readers_decode_is_never_replaced(images):
    def reader(z):
        return z

    assert find_door(PictureOnly(), images, decode=reader).decode is reader


def test_measurements_of_the_package_show_the_same_line(images):
    model = Forward(FORMS["z in front"])
    with pytest.raises(ValueError) as caught:
        vaelab.posterior(model, images)
    (adapter,) = shown(str(caught.value))
    mu, logvar = vaelab.posterior(model, images, adapter=adapter)
    assert torch.equal(mu, model.truth(images)[0]) and torch.equal(logvar, model.truth(images)[1])


class Broken:
    """Nothing can be read of it, and it holds itself."""

    def __init__(self, x):
        self.itself, self.x = self, x

    mu = property(lambda self: 1 / 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x, r, mu, lv, z: r, "it returned one tensor"),
        (lambda x, r, mu, lv, z: ((r - x) ** 2).sum(), "a single number such as a loss"),
        (lambda x, r, mu, lv, z: {"recon": r, "z": z}, "return reconstruction, mu, logvar"),
        (lambda x, r, mu, lv, z: None, "return reconstruction, mu, logvar"),
        (lambda x, r, mu, lv, z: Broken(x), "return reconstruction, mu, logvar"),
        (lambda x, r, mu, lv, z: (r, mu.double(), mu.half(), lv, z), "out[0]"),
    ],
)
def test_where_nothing_is_there_the_error_says_what_to_return(make, message, images):
    assert message in refusal(Forward(make), images)


def test_the_adapter_that_is_then_shown_is_complete(images):
    class NotNamed(Parts):
        """Its encode and decode have names that nobody can guess."""

    text = refusal(NotNamed(), images)
    assert "is not implemented" in text
    adapter = executed(text[text.index("    def adapter") :])
    assert gives_the_truth(PictureOnly(), images, find_door(PictureOnly(), images, adapter))


def test_a_generator_alone_is_refused(images):
    generator = nn.Sequential(nn.Linear(100, PIXELS), nn.Tanh())
    assert "x must have the shape that the model is trained on" in refusal(generator, images)


# ---- models without a KL


class VectorQuantizer(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(8, LATENTS)


class Quantized(Parts):
    def __init__(self):
        super().__init__()
        self.bottleneck = VectorQuantizer()

    def forward(self, x):
        codes = self.truth(x)[0]
        return self.picture(codes), codes, codes.round()


class Codebook(Parts):
    def __init__(self):
        super().__init__()
        self.register_buffer("codebook", torch.zeros(8, LATENTS))

    def forward(self, x):
        raise RuntimeError("wants another x")


@pytest.mark.parametrize(
    "model",
    [
        Quantized(),
        Codebook(),
        Forward(lambda x, r, mu, lv, z: {"x_recon": r, "perplexity": z.mean()}),
        Forward(lambda x, r, mu, lv, z: {"x_recon": r, "z": z, "commitment_loss": z.mean()}),
    ],
)
def test_a_codebook_is_refused_with_what_to_measure_instead(model, images):
    text = refusal(model, images)
    assert "VQ-VAE" in text and "no KL" in text
    assert "perplexity" in text and "dead codes" in text and "mean image" in text


def test_a_model_with_a_codebook_beside_a_log_variance_is_taken(images):
    model = Forward(FORMS["a dictionary"])
    model.codebook = nn.Embedding(3, 3)
    assert gives_the_truth(model, images, find_door(model, images))


def test_an_autoencoder_is_refused(images):
    class Autoencoder(PictureOnly):
        def encode(self, x):
            return self.truth(x)[0]

        def forward(self, x):
            return self.decode(self.encode(x))

    assert "An autoencoder without noise has no KL" in refusal(Autoencoder(), images)


def test_so_is_one_whose_code_has_a_name(images):
    class Named(NoForward):
        def encode(self, x):
            return {"embedding": self.truth(x)[0]}

    assert "An autoencoder without noise has no KL" in refusal(Named(), images)


def test_a_sampled_code_without_its_mean_is_refused(images):
    class Samples(NoForward):
        def encode(self, x):
            return noise(*self.truth(x))

    assert "let it return mu and logvar as well" in refusal(Samples(), images)


# ---- finding a door changes nothing


def test_nothing_is_changed(images):
    class Counts(PictureOnly):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))
            self.batchnorm, self.count = nn.BatchNorm1d(LATENTS), 0

        def encode(self, x):
            x.mul_(0.5)
            self.calls += 1
            self.count += 1
            mu, logvar = self.truth(x)
            return self.batchnorm(mu), logvar

    model = Counts().train()
    x, before = images.clone(), copy.deepcopy(model.state_dict())
    random_state = torch.get_rng_state()
    find_door(model, images)
    assert torch.equal(x, images) and torch.equal(random_state, torch.get_rng_state())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert model.count == 0 and model.training and model.batchnorm.training


# ---- the page about it

PAGE = (Path(__file__).resolve().parents[1] / "docs/adapters.md").read_text()
ROWS = re.findall(r"^\| ([^|]+) \| [^|]+ \| `(vaelab.+?)` \| (?:`(.+?)`)? ?\|$", PAGE, re.M)


def run_lines(model, x, loss, check_up, adapter):
    """(the report, mu) of the two lines in a row of the page."""
    names = {"vaelab": vaelab, "torch": torch, "find_door": find_door}
    names |= {"model": model, "x": x, "loss": loss}
    report = eval(check_up, names)
    return report, eval(f"vaelab.posterior(model, x, {adapter})", names)[0]


@pytest.mark.parametrize(("name", "check_up", "adapter"), ROWS)
def test_the_lines_of_the_page_work(name, check_up, adapter, images):
    subjects = [subject for subject in case.SUBJECTS.values() if subject.package == name]
    if not subjects:
        model = ExamplesVAE() if name == "pytorch/examples" else Forward(FORMS[name])
        x = torch.rand(40, 1, 28, 28) if name == "pytorch/examples" else images
        assert len(run_lines(model, x, None, check_up, adapter)[1]) == 40
    for subject in subjects:
        torch.manual_seed(0)
        x = subject.load().x_test[:40]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a package may warn on import
            pytest.importorskip(MODULES.get(name, name))
            model = subject.build().eval()
            _, mu = run_lines(model, x, subject.loss(model), check_up, adapter)
        assert torch.allclose(mu, subject.encode(model, x)[0], atol=1e-5)


def test_every_package_of_the_benchmark_stands_on_the_page():
    packages = {subject.package for subject in case.SUBJECTS.values()} - {""}
    assert packages <= {name for name, _, _ in ROWS}
    assert len(ROWS) == PAGE.count("vaelab.checkup(model, x, loss)") - 1


def test_the_function_on_the_page_works(images):
    blocks = re.findall(r"```python\n(.+?)```", PAGE, re.S)
    exec(blocks[0])
    model = Scales()
    model.encoder, model.decoder = model.encode, model.decode
    assert gives_the_truth(model, images, find_door(model, images, executed(blocks[1])))
