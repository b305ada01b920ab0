"""The linear VAE solved on paper: probabilistic PCA tells what a VAE with a given sigma^2 will use."""

import math

import torch

from .likelihoods import Gaussian
from .models import linear_vae


class LinearOptimum:
    """The optimum of a linear VAE on data x [N, ...], for any sigma^2 (Lucas et al. 2019, arXiv 1911.02469).

    Its optimum is probabilistic PCA: a latent is worth its KL along the directions whose variance,
    an eigenvalue of the covariance, exceeds sigma^2. `variances` [D] are those eigenvalues, largest
    first, `axes` [D, D] (rows) the directions, `mean` [D] the mean image; float64, on the CPU.
    """

    def __init__(self, x):
        flat = x.flatten(1).cpu()
        self.shape, self.mean = tuple(x.shape[1:]), flat.mean(0).double()
        centred = flat - flat.mean(0)
        variances, axes = torch.linalg.eigh((centred.T @ centred).double() / len(flat))
        self.variances, self.axes = variances.flip(0).clamp(min=0), axes.T.flip(0)

    def at(self, sigma2, latent_dim):
        """What the optimum at sigma2 does to an average training image, as a dict.

        active: latents in use. kl (nats): 1/2 log(variance / sigma2) for each of them.
        squared_error (summed, at sampled codes): sigma2 for each direction in use, its variance for
        each other one. reconstruction and negative_elbo (nats): the latter is also the exact
        negative log-likelihood of probabilistic PCA, for at the optimum the bound is tight.
        """
        used = self._used(sigma2, latent_dim)
        kl = 0.5 * (self.variances[used] / sigma2).log().sum().item()
        squared_error = used.sum().item() * sigma2 + self.variances[~used].sum().item()
        constant = len(self.variances) / 2 * math.log(2 * math.pi * sigma2)
        reconstruction = squared_error / (2 * sigma2) + constant
        return {
            "active": int(used.sum()), "kl": kl, "squared_error": squared_error,
            "reconstruction": reconstruction, "negative_elbo": reconstruction + kl,
        }  # fmt: skip

    @torch.no_grad()
    def vae(self, sigma2, latent_dim):
        """A linear VAE (float32, on the CPU) with its weights at this optimum: also a start from PCA."""
        model = linear_vae(self.shape, latent_dim, Gaussian(sigma2))
        encoder, decoder = model.encoder[1], model.decoder[0]
        variances, axes = self.variances[:latent_dim], self.axes[:latent_dim]
        used = self._used(sigma2, latent_dim)[:latent_dim]
        length = (variances - sigma2).clamp(min=0).sqrt() * used
        to_mu = length[:, None] * axes / variances.clamp(min=1e-12)[:, None]
        logvar = torch.where(used, (sigma2 / variances.clamp(min=1e-12)).log(), 0.0)
        n = len(variances)  # fewer than latent_dim where the data have fewer dimensions
        for parameter in (*encoder.parameters(), *decoder.parameters()):
            parameter.zero_()
        encoder.weight[:n], encoder.bias[:n] = to_mu.float(), -(to_mu @ self.mean).float()
        encoder.bias[latent_dim : latent_dim + n] = logvar.float()
        decoder.weight[:, :n], decoder.bias[:] = (length[:, None] * axes).T.float(), self.mean.float()
        return model

    def _used(self, sigma2, latent_dim):
        """Which directions [D] the optimum uses: variance above sigma2, and at most latent_dim of them."""
        if not 0 < sigma2 < math.inf:
            raise ValueError(f"sigma2 must be a positive number, got {sigma2!r}")
        return (self.variances > sigma2) & (torch.arange(len(self.variances)) < latent_dim)
