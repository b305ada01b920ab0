"""Run somebody's VAE on a few images and write down what it does: an `Observation`.

What is indispensable is the model's output in eval mode. Everything else is tried: what cannot be
measured is None, and `Observation.unmeasured` says why.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch

from ..adapt import Outputs, call, pieces
from ..diagnostics import active_units, code_swap
from ..elbo import gaussian_kl
from ..latents import TwoSample, two_sample_test
from ..threshold import collapse_threshold
from .activations import BOUNDS, Linearised, Watch
from .losses import LossForm, recover, value_on
from .meter import LINKS, Shapes, first_line
from .noise import Noise, read_noise

MOST_IMAGES = 1000  # that the model is run on
FEWEST_IMAGES = 16  # for anything that compares images
PIECE = 256  # images of one forward pass
TRAIN_BATCH = 128
THRESHOLD_IMAGES = 5000
FEWEST_CODES = 60  # for a test against the prior


@dataclass(frozen=True)
class Patient:
    """What the reader handed to `checkup`; x as the model wants it, model without its wrappers."""

    model: torch.nn.Module
    x: torch.Tensor
    loss: Callable | None = None
    adapter: Callable | None = None
    inputs: Any = None
    decode: Callable | None = None
    batch_size: int = 1
    seed: int = 0

    @property
    def likelihood(self):
        """The model's own likelihood, if it has one in vaelab's sense."""
        likelihood = getattr(self.model, "likelihood", None)
        return likelihood if hasattr(likelihood, "nll") and hasattr(likelihood, "mean") else None

    def run(self, x, inputs):
        """`Outputs`, the reconstruction in the shape in which the reader's loss gets it."""
        outputs = call(self.model, x, self.adapter, inputs, reshape=False)
        if outputs.logvar is None:
            raise ValueError(
                "logvar is None. An autoencoder without noise has no KL, so this is not a VAE: "
                "give (reconstruction, mu, logvar)"
            )
        return outputs


class Limits(NamedTuple):
    """(low, high) of a cross-entropy's beta, and of sigma^2 over the mean squared error."""

    beta: tuple = (0.1, 10.0)
    sigma2: tuple = (0.1, 200.0)


@dataclass(frozen=True)
class Loss:
    """The reader's loss (`given`), or a vaelab model's own ELBO, on the model's own outputs.

    value, error: one of the two. impossible: the share of outputs that are no probabilities
    although the loss takes them for some. threshold: the data's collapse threshold, in the unit of
    beta or sigma^2.
    """

    given: bool
    value: float | None = None
    error: str | None = None
    impossible: float = 0.0
    threshold: float | None = None


@dataclass(frozen=True)
class PictureError:
    """The mean squared error [B] of what an output shows, in the form of a likelihood.

    link: what turns an output into a picture: a name of LINKS, "mean" (the first of two heads) or
    "likelihood" (the model's own). shape: of one picture.
    """

    link: str
    likelihood: Any
    shape: tuple

    def shown(self, r):
        """The picture of a raw reconstruction, shaped like x."""
        if self.link == "likelihood":
            picture = self.likelihood.mean(r)
        elif self.link == "mean":
            picture = r.flatten(1).chunk(2, 1)[0]
        else:
            picture = LINKS[self.link](r)
        return picture.reshape(len(r), *self.shape)

    def nll(self, r, x):
        return (self.shown(r) - x).double().square().flatten(1).mean(1)


@dataclass(frozen=True)
class Picture:
    """What the model shows of x, shaped like x, and how it gets there.

    error: how a raw output becomes a picture. low, high: the range that it can reach.
    preactivation: the mean of what goes into the last activation. mse, mae, mean_image_mse: errors
    per value, the last of the best constant picture. noise_variance: between two passes. follows:
    the pictures' variance across images over the data's.
    """

    shown: torch.Tensor
    error: PictureError
    low: float
    high: float
    preactivation: float | None
    mse: float
    mae: float
    mean_image_mse: float
    noise_variance: float
    follows: float

    @property
    def bounded(self):
        """Whether the range ends somewhere."""
        return math.isfinite(self.low) or math.isfinite(self.high)


@dataclass(frozen=True)
class Codes:
    """kl: nats of each latent, [L]. active: how many units are. z: one sampled code of each image.

    information: nats that the codes can carry about the image. constant: they carry none.
    revived: the information if no rectifier cut anything off, where the codes are constant.
    """

    kl: torch.Tensor
    active: int
    z: torch.Tensor
    information: float
    constant: bool
    revived: float = 0.0

    @property
    def latents(self):
        return len(self.kl)


@dataclass(frozen=True)
class Training:
    """A pass in train mode. deterministic: two passes are equal. eval_mse: of the same images."""

    noise: Noise
    has_gradient: bool
    deterministic: bool
    mse: float
    eval_mse: float


@dataclass(frozen=True)
class Decoding:
    """Mean squared error of each image with its own sampled code, and with another image's."""

    own: float
    swapped: float


@dataclass(frozen=True)
class Observation:
    """All that was seen of one model on one set of images; None is what could not be measured.

    x: the images that the model was run on. x_all: all of them. outputs: in eval mode. endings:
    the last activation of each output. rectifiers: on the first images. broken: the outputs that
    are not finite. comparable: there are enough different images to compare them with one another.
    """

    x: torch.Tensor
    x_all: torch.Tensor
    limits: Limits
    outputs: Outputs
    endings: Outputs
    rectifiers: tuple
    broken: tuple
    bad_parameters: tuple
    trainable: bool
    comparable: bool
    form: LossForm | None = None
    loss: Loss | None = None
    picture: Picture | None = None
    codes: Codes | None = None
    training: Training | None = None
    decoding: Decoding | None = None
    prior: TwoSample | None = None
    unmeasured: dict = field(default_factory=dict)


def observe(patient, limits):
    """Run the model in both modes and measure its loss: an `Observation`."""
    model, attempts = patient.model, Attempts()
    x, inputs = next(pieces(patient.x, patient.inputs, MOST_IMAGES))
    model.eval()
    with torch.no_grad():
        outputs, endings, rectifiers = _watched(patient, x, inputs)
        again = attempts.measure("a second pass", _reconstructions, patient, x, inputs)
    broken = [name for name, t in outputs._asdict().items() if not _finite(t)]
    bad = [name for name, p in model.named_parameters() if not _finite(p)]
    varies = x.double().var(0, correction=0).mean().item() > 0
    seen = Observation(
        x=x,
        x_all=patient.x,
        limits=limits,
        outputs=outputs,
        endings=endings,
        rectifiers=rectifiers,
        broken=tuple(broken),
        bad_parameters=tuple(bad),
        trainable=any(p.requires_grad for p in model.parameters()),
        comparable=len(x) >= FEWEST_IMAGES and varies,
    )
    seen = _with_loss(patient, attempts, seen)
    if not broken:
        seen = _with_behaviour(patient, inputs, again, attempts, seen)
    return replace(seen, unmeasured=attempts.failed)


def _finite(tensor):
    return bool(torch.isfinite(tensor.detach()).all())


class Attempts:
    """Measurements that may fail: `failed` says which did, and why."""

    def __init__(self):
        self.failed = {}

    def measure(self, name, function, *arguments, let_through=()):
        """The result, or None; errors of the kinds `let_through` are for the reader."""
        try:
            return function(*arguments)
        except let_through:
            raise
        except Exception as error:
            self.failed[name] = f"{type(error).__name__}: {first_line(error)}"
            return None


def _watched(patient, x, inputs):
    """(outputs, endings, rectifiers) of x in pieces; the first one is watched."""
    (first, first_inputs), *rest = pieces(x, inputs, PIECE)
    with Watch() as watch:
        parts = [patient.run(first, first_inputs)]
    endings = Outputs(*map(watch.last_before, parts[0]))
    parts += [patient.run(*piece) for piece in rest]
    outputs = Outputs(*(torch.cat(tensors).detach() for tensors in zip(*parts, strict=True)))
    return outputs, endings, tuple(watch.rectifiers)


def _reconstructions(patient, x, inputs):
    return torch.cat([patient.run(*piece).reconstruction for piece in pieces(x, inputs, PIECE)])


def _with_behaviour(patient, inputs, again, attempts, seen):
    """The observation with what only a model with finite outputs shows."""
    x, measure = seen.x, attempts.measure
    picture = measure("pictures", _picture, patient.likelihood, seen, again)
    codes = measure("codes", _codes, patient, inputs, seen, attempts)
    training = decoding = prior = None
    if picture is not None:
        training = measure("train mode", _training, patient, x, inputs, picture)
        patient.model.eval()
    if picture is not None and seen.comparable:
        decoding = measure("code swap", _decoding, patient, x, inputs, picture)
    if codes is not None and seen.comparable and not codes.constant and len(x) >= FEWEST_CODES:
        prior = measure("codes against the prior", _prior, codes)
    return replace(
        seen, picture=picture, codes=codes, training=training, decoding=decoding, prior=prior
    )


# ---- the loss


def _with_loss(patient, attempts, seen):
    """The observation with the form of the loss and its value on the model's outputs, if any."""
    loss, likelihood, nll = patient.loss, patient.likelihood, None
    if loss is None and likelihood is not None:
        loss = _own_elbo(likelihood)
        nll = (likelihood.name, likelihood.nll) if likelihood.outputs_per_value > 1 else None
    if loss is None:
        return seen
    r = seen.outputs.reconstruction
    tensors = r, seen.x, seen.outputs.mu, seen.outputs.logvar
    own = [t[:PIECE].to(r.dtype) for t in tensors]
    shapes = Shapes(*(tuple(t.shape[1:]) for t in own[:3]))
    arguments = (loss, shapes, patient.batch_size, None if seen.broken else own, nll, patient.seed)
    form = attempts.measure("the loss", recover, *arguments, let_through=ValueError)
    if form is None:
        return seen
    threshold = attempts.measure("collapse threshold", _threshold, patient.x, form)
    impossible, value, error = 0.0, None, None
    if form.name == "cross-entropy on probabilities":
        impossible = ((r < 0) | (r > 1)).float().mean().item()
    if not seen.broken and not impossible:
        value, error = value_on(loss, _rows(own, form.fixed_size), r.device)
    found = Loss(patient.loss is not None, value, error, impossible, threshold)
    return replace(seen, form=form, loss=found)


def _own_elbo(likelihood):
    """A vaelab model's own loss."""

    def loss(r, x, mu, logvar):
        return likelihood.nll(r, x).mean() + gaussian_kl(mu, logvar).flatten(1).sum(1).mean()

    return loss


def _rows(tensors, size):
    """As many rows as a loss wants that has its batch size written into it."""
    if size is None:
        return tensors
    rows = torch.arange(size, device=tensors[0].device) % len(tensors[0])
    return [t[rows] for t in tensors]


def _threshold(x, form):
    """The collapse threshold in the unit of the loss, or None where it is not defined."""
    x = x[:THRESHOLD_IMAGES]
    if len(x) < FEWEST_IMAGES or form.beta is None and form.sigma2 is None:
        return None
    if form.sigma2 is not None:
        return collapse_threshold(x, "squared_error")
    inside = x.min() >= 0 and x.max() <= 1
    return collapse_threshold(x, "cross_entropy") if inside else None


# ---- what the model shows


def _picture(likelihood, seen, again):
    """The `Picture` of the outputs in eval mode."""
    x, r, ending = seen.x, seen.outputs.reconstruction, seen.endings.reconstruction
    link = _link(seen, likelihood)
    low, high = BOUNDS.get(ending.name, (-math.inf, math.inf))
    before = ending.before
    if link in ("sigmoid", "tanh"):
        low, high = (LINKS[link](torch.tensor(end)).item() for end in (low, high))
        before = r
    elif link == "likelihood" and math.isinf(low):
        low, high = likelihood.support
    error = PictureError(link, likelihood, tuple(x.shape[1:]))
    picture = error.shown(r)
    residual = (picture - x).double()
    noise = math.nan
    if again is not None:
        noise = (picture - error.shown(again)).double().square().mean().item() / 2
    varies = picture.double().var(0, correction=0).mean().item() - (
        noise if again is not None else 0
    )
    mean_image_mse = x.double().var(0, correction=0).mean().item()
    return Picture(
        shown=picture,
        error=error,
        low=low,
        high=high,
        preactivation=None if before is None else before.float().mean().item(),
        mse=residual.square().mean().item(),
        mae=residual.abs().mean().item(),
        mean_image_mse=mean_image_mse,
        noise_variance=noise,
        follows=max(varies, 0.0) / mean_image_mse if seen.comparable else math.nan,
    )


def _link(seen, likelihood):
    """What turns the output into the picture: see `PictureError`."""
    form = seen.form if seen.form is not None and seen.form.name else None
    if likelihood is not None and (form is None or not seen.loss.given):
        return "likelihood"
    if form is not None:
        return "mean" if form.two_heads else form.link
    r, x = seen.outputs.reconstruction.flatten(1), seen.x.flatten(1)
    if r.shape != x.shape:
        return "mean"
    # Without a loss: logits leave [0, 1] widely where the data fill it; their sigmoid is closer.
    wide = x.min() >= 0 and x.max() <= 1 and (r.min() < -1 or r.max() > 2)
    return "sigmoid" if wide and (r.sigmoid() - x).norm() < (r - x).norm() else "identity"


def _codes(patient, inputs, seen, attempts):
    """KL, active units, and how much the codes say about the images."""
    mu, logvar = (t.flatten(1).double() for t in (seen.outputs.mu, seen.outputs.logvar))
    noise = torch.randn(mu.shape, dtype=mu.dtype, device="cpu").to(mu.device)
    information = _information(mu, logvar)
    constant, revived = seen.comparable and information < 0.05, None
    if constant:
        revived = attempts.measure("codes without dead units", _revived, patient, seen.x, inputs)
    return Codes(
        kl=gaussian_kl(mu, logvar).mean(0),
        active=active_units(mu),
        z=mu + (0.5 * logvar).exp() * noise,
        information=information,
        constant=constant,
        revived=revived or 0.0,
    )


def _revived(patient, x, inputs):
    """The codes' information if rectifiers let everything pass; 0 where that gives no numbers."""
    images, others = next(pieces(x, inputs, PIECE))
    with Linearised(), torch.no_grad():
        _, mu, logvar = patient.run(images, others)
    information = _information(mu, logvar)
    return information if math.isfinite(information) else 0.0


def _information(mu, logvar):
    """Nats that channels with this signal and this noise can carry, summed over latents."""
    mu, logvar = mu.flatten(1).double(), logvar.flatten(1).double()
    noise = logvar.exp().mean(0).clamp(min=1e-30)
    return 0.5 * torch.log1p(mu.var(0, correction=0) / noise).sum().item()


def _prior(codes):
    return two_sample_test(codes.z, seed=0, most=500)


# ---- train mode, and other codes


def _training(patient, x, inputs, picture):
    """One pass in train mode, for its noise and for the error there against eval mode."""
    try:
        return _training_pass(patient, x, inputs, picture, differentiate_noise=True)
    except Exception:  # a model may work in place on its noise: only watch it then
        return _training_pass(patient, x, inputs, picture, differentiate_noise=False)


def _training_pass(patient, x, inputs, picture, differentiate_noise):
    images, others = next(pieces(x, inputs, TRAIN_BATCH))
    torch.manual_seed(patient.seed)
    patient.model.train()
    with Watch(differentiate_noise) as watch:
        outputs = patient.run(images, others)
    r = outputs.reconstruction.detach()
    noise = read_noise(outputs, watch.noise, list(patient.model.parameters()), patient.seed)
    with torch.no_grad():
        deterministic = torch.equal(patient.run(images, others).reconstruction, r)
    return Training(
        noise=noise,
        has_gradient=outputs.reconstruction.requires_grad,
        deterministic=deterministic,
        mse=picture.error.nll(r, images).mean().item(),
        eval_mse=(picture.shown[: len(images)] - images).double().square().mean().item(),
    )


def _decoding(patient, x, inputs, picture):
    """Errors with an image's own code and with another's, if `decode` gives the pictures."""
    own, swapped = code_swap(
        patient.model,
        x,
        likelihood=picture.error,
        decode=patient.decode,
        adapter=patient.adapter,
        inputs=inputs,
        seed=patient.seed,
    )
    if not own < 1.5 * picture.mse + 1e-9:
        raise ValueError("decode gives other pictures than the model")
    return Decoding(own, swapped)
