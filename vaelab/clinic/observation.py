"""What is known of a model once it was run: the parts of an `Observation`, all of them frozen."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from ..adapt import Outputs, call, takes_model
from ..latents import TwoSample
from ..likelihoods import ContinuousBernoulli
from .activations import Activation
from .cost import FEWEST_ROWS, Budget
from .forms import LINKS, probabilities
from .losses import LossForm
from .noise import Noise
from .rows import Beside, Rows
from .weights import Drawn
from .wiring import Forced, Wiring

FEWEST_IMAGES = FEWEST_ROWS  # for anything that compares images


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
    x_train: torch.Tensor | None = None
    inputs_train: Any = None
    purpose: str = "generation"
    how: str = ""  # how the model is called, where that is not model(x)
    own_noise: bool = True  # whether the codes are drawn by the model itself

    @property
    def in_an_adapter(self):
        """Whether the reader's adapter runs the model, so that training may run it otherwise."""
        given = self.adapter is not None and not self.how
        return given and takes_model(self.adapter)

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
    although the loss takes them for some. detached: its value follows the reconstruction, and its
    gradient does not. threshold: the data's collapse threshold, in the unit of beta or sigma^2.
    """

    given: bool
    value: float | None = None
    error: str | None = None
    impossible: float = 0.0
    detached: bool = False
    threshold: float | None = None


@dataclass(frozen=True)
class PictureError:
    """The mean squared error [B] of what an output shows, in the form of a likelihood.

    link: what turns an output into a picture: a name of LINKS, "mean" (the first of two heads),
    "continuous Bernoulli", "categorical" or "likelihood" (the model's own). shape: of one picture.
    form, raw_shape, kinds: of a categorical loss, as `forms.probabilities` wants them.
    """

    link: str
    likelihood: Any
    shape: tuple
    form: LossForm | None = None
    raw_shape: tuple = ()
    kinds: int = 0

    def shown(self, r):
        """The picture of a raw reconstruction, shaped like x."""
        if self.link == "likelihood":
            picture = self.likelihood.mean(r)
        elif self.link == "continuous Bernoulli":
            picture = ContinuousBernoulli().mean(r)
        elif self.link == "categorical":
            picture = probabilities(self.form, r, self.raw_shape, self.kinds)
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
    the pictures' variance across images over the data's. misplaced: the share of pictures that fit
    another row twice as well as their own. sharpness: the energy of the differences of neighbouring
    values over that of x, None where rows are no pictures.
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
    misplaced: float
    sharpness: float | None

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

    x: the images that the model was run on, tokens as one-hot rows. raw: the same as given. x_all:
    all of them, as given.
    outputs: in eval mode. endings: the last activation of each output, and inner_ending the one
    whose values go into the reconstruction's. units: those of the hidden layers, on the first
    images. broken: the outputs that are not finite. comparable: there are enough different images
    to compare them with one another. budget: how many images the passes had.
    """

    patient: Patient
    x: torch.Tensor
    raw: torch.Tensor
    x_all: torch.Tensor
    limits: Limits
    budget: Budget
    outputs: Outputs
    endings: Outputs
    inner_ending: Activation
    units: tuple
    broken: tuple
    bad_parameters: tuple
    trainable: bool
    comparable: bool
    rows: Rows
    form: LossForm | None = None
    loss: Loss | None = None
    picture: Picture | None = None
    codes: Codes | None = None
    training: Training | None = None
    wiring: Wiring | None = None
    drawn: Drawn | None = None
    forced: Forced | None = None
    decoding: Decoding | None = None
    prior: TwoSample | None = None
    beside: Beside | None = None
    unmeasured: dict = field(default_factory=dict)

    @property
    def condition(self):
        """`Forced` of a model that gets other inputs beside x, None for other models."""
        return None if self.patient.inputs is None else self.forced

    @property
    def noise(self):
        """The `Noise` of the codes, None where it could not be read."""
        if self.training is None or self.training.noise.kind == "unknown":
            return None
        unseen = self.training.noise.kind == "none" and not self.training.deterministic
        return None if unseen else self.training.noise

    @property
    def untrained(self):
        """Whether all weights look as they were drawn."""
        return self.drawn is not None and self.drawn.everything
