"""The networks: one VAE class, and builders for the shapes of network that the threads used."""

import itertools
import math

import torch
from torch import nn

from .likelihoods import Bernoulli, Gaussian


class VAE(nn.Module):
    """A Gaussian encoder, a decoder and a likelihood (Kingma & Welling 2013, arXiv 1312.6114).

    encoder: x [B, ...] -> [B, 2 * latent_dim], mu and logvar side by side.
    decoder: z [B, latent_dim] -> the likelihood's parameters, e.g. logits shaped like x.
    """

    def __init__(self, encoder, decoder, latent_dim, likelihood=None):
        super().__init__()
        self.encoder, self.decoder, self.latent_dim = encoder, decoder, latent_dim
        self.likelihood = likelihood if likelihood is not None else Bernoulli()

    def encode(self, x):
        """Mean and log-variance of q(z | x), each [B, L]."""
        mu, logvar = self.encoder(x).chunk(2, dim=1)
        return mu, logvar

    def reparameterise(self, mu, logvar, generator=None):
        """A draw z = mu + sigma * noise, [B, L], through which gradients flow."""
        noise = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
        return mu + torch.exp(0.5 * logvar) * noise

    def decode(self, z):
        """The likelihood's parameters (logits for Bernoulli) at z [B, L]."""
        return self.decoder(z)

    def forward(self, x):
        """(output, mu, logvar) at a sampled z: what a loss needs."""
        mu, logvar = self.encode(x)
        return self.decode(self.reparameterise(mu, logvar)), mu, logvar

    @torch.no_grad()
    def reconstruct(self, x):
        """The picture the model shows for x: the likelihood's mean at z = mu, shaped like x."""
        return self.likelihood.mean(self.decode(self.encode(x)[0]))

    @torch.no_grad()
    def sample(self, n, generator=None):
        """n new pictures: the likelihood's mean at z drawn from the prior N(0, I)."""
        like = next(self.parameters())
        z = torch.randn(
            n, self.latent_dim, generator=generator, device=like.device, dtype=like.dtype
        )
        return self.likelihood.mean(self.decode(z))


class Autoencoder(VAE):
    """A VAE without the V: the code is z itself, there is no noise, `logvar` is None.

    encoder: x [B, ...] -> [B, latent_dim].
    """

    def encode(self, x):
        return self.encoder(x), None

    def reparameterise(self, mu, logvar, generator=None):
        return mu


def mlp_vae(shape, latent_dim=20, hidden=400, likelihood=None):
    """The network of thread 001: one hidden ReLU layer each way, 784-400-20 on MNIST.

    shape: of one x, e.g. (1, 28, 28) or (30,) for a table of 30 columns.
    """
    likelihood = likelihood if likelihood is not None else Bernoulli()
    n_in, shape_out, n_out = _sizes(shape, likelihood)
    encoder = nn.Sequential(
        nn.Flatten(),
        nn.Linear(n_in, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 2 * latent_dim),
    )
    decoder = nn.Sequential(
        nn.Linear(latent_dim, hidden),
        nn.ReLU(),
        nn.Linear(hidden, n_out),
        nn.Unflatten(1, shape_out),
    )
    return VAE(encoder, decoder, latent_dim, likelihood)


def linear_vae(shape, latent_dim=30, likelihood=None):
    """No hidden layer: with an identity Gaussian it is probabilistic PCA (Lucas et al. 2019)."""
    likelihood = likelihood if likelihood is not None else Bernoulli()
    n_in, shape_out, n_out = _sizes(shape, likelihood)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(n_in, 2 * latent_dim))
    decoder = nn.Sequential(nn.Linear(latent_dim, n_out), nn.Unflatten(1, shape_out))
    return VAE(encoder, decoder, latent_dim, likelihood)


def conv_vae(shape, latent_dim=32, likelihood=None, channels=(16, 32)):
    """Stride-2 convolutions and a linear layer, and the same backwards, for data as in thread 002.

    shape: (C, H, W) of one image; H and W must be divisible by 2 ** len(channels), since each
    convolution halves the side. The thread posts no network: this one is small enough for a laptop.
    """
    likelihood = likelihood if likelihood is not None else Bernoulli()
    _, (channels_out, *side), _ = _sizes(shape, likelihood)
    shrink = 2 ** len(channels)
    if len(side) != 2 or any(n % shrink for n in side):
        raise ValueError(
            f"shape must be (C, H, W) with H and W divisible by {shrink}, got {tuple(shape)}"
        )
    height, width = side
    small = (channels[-1], height // shrink, width // shrink)
    n_small = math.prod(small)

    encoder = []
    for n_in, n_out in itertools.pairwise((int(shape[0]), *channels)):
        encoder += [nn.Conv2d(n_in, n_out, 4, 2, 1), nn.LeakyReLU(0.2)]
    encoder += [nn.Flatten(), nn.Linear(n_small, 2 * latent_dim)]

    decoder = [nn.Linear(latent_dim, n_small), nn.Unflatten(1, small)]
    backwards = (*reversed(channels), channels_out)
    for n_in, n_out in itertools.pairwise(backwards):
        decoder += [nn.LeakyReLU(0.2), nn.ConvTranspose2d(n_in, n_out, 4, 2, 1)]
    return VAE(nn.Sequential(*encoder), nn.Sequential(*decoder), latent_dim, likelihood)


def thread_000_vae(likelihood=None, batchnorm=False, latent_dim=8):
    """The network of thread 000, for 64x64 RGB images: four strided convolutions each way.

    The decoder ends in raw numbers; the likelihood owns the activation. Identity: `Gaussian(0.5)`
    (the default), the thread's sigmoid with squared error: `Gaussian(0.5, "sigmoid")`,
    cross-entropy on logits: `Bernoulli()`. batchnorm: the thread's BatchNorm2d(3) as the decoder's
    last module.
    """
    likelihood = likelihood if likelihood is not None else Gaussian(0.5)
    features = 3 * likelihood.outputs_per_value
    encoder = []
    for n_in, n_out in itertools.pairwise((3, 8, 16, 32, 64)):  # sides 64 -> 31 -> 14 -> 6 -> 2
        encoder += [nn.Conv2d(n_in, n_out, 4, stride=2), nn.LeakyReLU(0.01)]
    encoder += [nn.Flatten(), nn.Linear(64 * 2 * 2, 2 * latent_dim)]

    decoder = [nn.Linear(latent_dim, 64), nn.LeakyReLU(0.01), nn.Unflatten(1, (64, 1, 1))]
    layers = ((64, 64, 5), (64, 64, 5), (64, 32, 6), (32, 16, 6))  # sides 1 -> 5 -> 13 -> 30 -> 64
    for n_in, n_out, kernel in layers:
        decoder += [nn.ConvTranspose2d(n_in, n_out, kernel, stride=2), nn.LeakyReLU(0.01)]
    decoder += [nn.Conv2d(16, features, 1)]
    if batchnorm:
        decoder += [nn.BatchNorm2d(features)]
    return VAE(nn.Sequential(*encoder), nn.Sequential(*decoder), latent_dim, likelihood)


def thread_004_vae(shape, latent_dim=30, likelihood=None, variational=True):
    """The network of thread 004: linear to `latent_dim`, linear heads, linear back, tanh.

    likelihood: default Gaussian with a tanh, sigma2 1/2 (the thread does not say one).
    variational=False is its vanilla autoencoder, without the heads.
    """
    likelihood = likelihood if likelihood is not None else Gaussian(activation="tanh")
    n_in, shape_out, n_out = _sizes(shape, likelihood)
    to_code = [nn.Flatten(), nn.Linear(n_in, latent_dim)]
    decoder = nn.Sequential(nn.Linear(latent_dim, n_out), nn.Unflatten(1, shape_out))
    if not variational:
        return Autoencoder(nn.Sequential(*to_code), decoder, latent_dim, likelihood)
    encoder = nn.Sequential(*to_code, nn.Linear(latent_dim, 2 * latent_dim))
    return VAE(encoder, decoder, latent_dim, likelihood)


def _sizes(shape, likelihood):
    """Numbers in one x, the decoder's output shape, and the numbers in that."""
    shape = tuple(int(n) for n in shape)
    if not shape or min(shape) < 1:
        raise ValueError(f"shape must be that of one x, such as (1, 28, 28) or (30,), got {shape}")
    first, *others = shape
    shape_out = (likelihood.outputs_per_value * first, *others)
    return math.prod(shape), shape_out, math.prod(shape_out)
