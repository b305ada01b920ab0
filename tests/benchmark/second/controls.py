"""Healthy oddities: no serious finding is right."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from ..case import kl
from . import drawn
from .recipe import control, trained
from .subjects import (
    DialCVAE,
    GeluVAE,
    PenLSTM,
    ResnetBlock,
    ResnetVAE,
    SensorVAE,
    SpatialVAE,
    logits_error,
    squares,
)

# ---- the KL's weight changes during training; the loss that is checked has beta 1


def weighted(error, weight_at):
    """A loss that counts its calls. weight_at: number of the step -> beta."""
    step = 0

    def loss(reconstruction, x, mu, logvar):
        nonlocal step
        step += 1
        return (error(None, reconstruction, x) + weight_at(step) * kl(mu, logvar)).mean()

    return loss


@control(on="pulses")
def warm_up_to_beta_one(recipe):
    recipe.training_loss = weighted(squares(0.25), lambda step: min(1.0, step / 200))


@control(on="binary")
def cyclical_weights(recipe):
    """Four times: 0 to 1 in 75 steps, then 1 for 50."""
    recipe.training_loss = weighted(logits_error, lambda step: min(1.0, step % 125 / 75))


# ---- other networks


@control(on="pen")
def two_latents_on_purpose(recipe):
    recipe.build = lambda: PenLSTM(latent=2)


class UShaped(ResnetVAE):
    """One level deeper, a U without skips."""

    def __init__(self, ch=8, z_dim=8):
        super().__init__(ch, z_dim)
        self.down3 = nn.Sequential(nn.Conv2d(2 * ch, 4 * ch, 4, 2, 1), ResnetBlock(4 * ch))
        self.quant = nn.Linear(4 * ch * 9, 2 * z_dim)
        self.post_quant = nn.Linear(z_dim, 4 * ch * 9)
        self.up0 = nn.Sequential(
            ResnetBlock(4 * ch), nn.Upsample(scale_factor=2), nn.Conv2d(4 * ch, 2 * ch, 3, 1, 1)
        )

    def encode(self, x):
        h = self.down3(self.down2(self.down1(x)))
        return torch.chunk(self.quant(h.flatten(1)), 2, dim=1)

    def decode(self, z):
        h = self.up0(self.post_quant(z).view(-1, 4 * self.ch, 3, 3))
        return torch.sigmoid(self.up2(self.up1(h)))


@control(on="ellipses")
def u_shape_without_skips(recipe):
    recipe.build = UShaped
    recipe.plan.rate = 2e-3


class OnFrozenFeatures(GeluVAE):
    """The encoder reads the 40 leading principal components, from a layer that is not trained."""

    def __init__(self, x):
        super().__init__()
        mean = x.mean(0)
        _, _, directions = torch.pca_lowrank(x - mean, q=40, center=False)
        self.pretrained = nn.Linear(64, 40)
        self.pretrained.weight.data = directions.T.contiguous()
        self.pretrained.bias.data = -directions.T @ mean
        self.pretrained.requires_grad_(False)
        self.encoder[0] = nn.Linear(40, 96)

    def encode(self, x):
        return super().encode(self.pretrained(x))


@control(on="binary")
def frozen_features_in_front_of_the_encoder(recipe):
    rows = recipe.data.x_train
    recipe.build = lambda: OnFrozenFeatures(rows)


class Tied(nn.Module):
    """The decoder uses the encoder's weights, transposed."""

    def __init__(self, hidden=96, z_size=12):
        super().__init__()
        self.first = nn.Linear(64, hidden)
        self.mean = nn.Linear(hidden, z_size)
        self.logvar = nn.Linear(hidden, z_size)
        self.bias1 = nn.Parameter(torch.zeros(hidden))
        self.bias2 = nn.Parameter(torch.zeros(64))

    def encode(self, x):
        h = F.gelu(self.first(x))
        return self.mean(h), self.logvar(h)

    def decode(self, z):
        h = F.gelu(F.linear(z, self.mean.weight.t(), self.bias1))
        return F.linear(h, self.first.weight.t(), self.bias2)

    def forward(self, x):
        mu, logvar = self.encode(x)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.decode(z), mu, logvar


@control(on="binary")
def tied_weights(recipe):
    recipe.build = Tied


def spectral_vae():
    """Spectral norm on every convolution of the encoder."""
    net = SpatialVAE()
    for part in (net.enc[0], net.enc[2]):
        spectral_norm(part)
    return net


@control(on="spatial")
def spectral_norm_in_the_encoder(recipe):
    recipe.build = spectral_vae


class DecoderOnly(DialCVAE):
    """The encoder gets no angle, the decoder does."""

    def posterior(self, x, angle):
        return super().posterior(x, torch.zeros_like(angle))


@control(on="dials")
def condition_in_the_decoder_only(recipe):
    recipe.build = DecoderOnly


# ---- other rows


@control(on="spatial")
def a_slightly_noisier_test_set(recipe):
    x = recipe.data.x_test
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(4))
    recipe.data = recipe.data._replace(x_test=(x + 0.03 * noise).clamp(-1, 1))


@control(on="pulses")
def fine_tuned_on_few_rows_and_tested_on_the_like(recipe):
    few = recipe.data.x_train[:60]
    noise = torch.randn((300, 1, 64), generator=torch.Generator().manual_seed(4))
    alike = few.repeat(5, 1, 1) + 0.05 * noise
    recipe.data = recipe.data._replace(x_train=few, x_test=alike)
    recipe.plan.steps, recipe.plan.rate = 100, 5e-4

    def prepare(model, plan):
        model.net.load_state_dict(trained("pulses").model.net.state_dict())

    recipe.prepare = prepare


@control(on="sensors")
def sixty_wines(recipe):
    """118 rows of 13 columns for training and 60 held out, with a network of their size."""
    recipe.data = drawn.wine()
    recipe.build = lambda: SensorVAE(n_sensors=13, n_hidden=24, n_latent=3)
    recipe.plan.steps, recipe.plan.batch = 200, 32
