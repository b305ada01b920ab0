"""What the data say before training: the collapse threshold, the rate, the linear optimum."""

import math

import numpy as np
import torch

from .likelihoods import Gaussian
from .models import linear_vae

LOSSES = ("cross_entropy", "squared_error")
FULL_SPECTRUM = 1000  # directions; with more, the threshold alone is computed


def collapse_spectrum(x, loss="cross_entropy"):
    """The eigenvalues that a beta (or a sigma^2) is compared with, [D], largest first, float64.

    Around the mean image m the loss is quadratic with curvature H: diag(m (1 - m)) for the
    cross-entropy on logits, 1 for the squared error with an identity output. These are the
    eigenvalues of H^-1/2 C H^-1/2, with C the covariance of the pixels (squared units of x for the
    squared error). A code along direction i is worth its KL only where beta is below eigenvalue i.

    x: [N, ...], training data. Raises ValueError for another loss, for NaN, and for x outside
    [0, 1] under cross-entropy. Lucas et al. 2019, arXiv 1911.02469, for the linear VAE.
    """
    return _eigenvalues(*_whitened(x, loss))


def collapse_threshold(x, loss="cross_entropy"):
    """The beta (cross-entropy on logits) or sigma^2 (squared error) above which no code is stable.

    It is the largest eigenvalue of `collapse_spectrum`. Below it codes grow from nothing, so a
    model just below it is still a blob to the eye: see `predicted_rate`. The threshold is local:
    it speaks of models near the mean image. Arguments and errors as in `collapse_spectrum`.
    """
    centred, unit = _whitened(x, loss)
    n, size = centred.shape
    if not centred.any():
        return 0.0
    if min(n, size) < FULL_SPECTRUM:
        return _eigenvalues(centred, unit)[0].item()
    from scipy.sparse.linalg import svds

    # The largest one alone, by Lanczos: the whole spectrum of large images takes minutes.
    start = np.random.default_rng(0).normal(size=min(n, size))
    largest = svds(centred.numpy(), k=1, v0=start, return_singular_vectors=False)[0]
    return float(largest) ** 2 / n * unit**2


def predicted_rate(x, beta, loss="cross_entropy", latent_dim=None):
    """The KL in nats per image to expect at this beta (for squared error, at this sigma^2).

    The sum over eigenvalues above beta of 1/2 log(eigenvalue / beta): reverse water-filling (Cover
    & Thomas, chapter 10). Exact for squared error with a linear decoder; for other models it gives
    the onset and the order of size. latent_dim: at most so many directions. x: data, or the
    spectrum itself, [D]. Raises ValueError for a beta that is not positive.
    """
    if not 0 < beta < math.inf:
        raise ValueError(f"beta must be a positive number, got {beta!r}")
    spectrum = x if x.dim() == 1 else collapse_spectrum(x, loss)
    used = spectrum[:latent_dim]
    used = used[used > beta]
    return 0.5 * torch.log(used / beta).sum().item()


def _whitened(x, loss):
    """Centred data over the root of the loss's curvature, [N, D] in float32, and their unit."""
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {list(LOSSES)}, got {loss!r}")
    low, high = x.min().item(), x.max().item()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("x holds NaN or infinite values: clean the data first")
    if loss == "cross_entropy" and (low < 0 or high > 1):
        raise ValueError(
            f"x must lie in [0, 1] for cross-entropy, but spans [{low:.3g}, {high:.3g}]: "
            "scale x, or ask for loss='squared_error'"
        )
    x = x.detach().flatten(1).float().cpu()  # [N, D]
    mean = x.mean(0, dtype=torch.float64)
    unit = max(abs(low), abs(high)) or 1.0  # float32 products of tiny units would vanish
    centred = (x - mean.float()) / unit
    if centred.abs().max() < 1e-6:
        return torch.zeros_like(centred), unit  # identical images: nothing to encode
    if loss == "cross_entropy":
        curvature = mean * (1 - mean)
        # A pixel that never changes has no covariance either, whatever its weight.
        whitening = torch.where(curvature > 0, curvature.clamp(min=1e-12).rsqrt(), 0.0)
        centred = centred * whitening.float()
    return centred, unit


def _eigenvalues(centred, unit):
    """Eigenvalues of the covariance of centred data [N, D], [D], largest first, float64."""
    n, size = centred.shape
    flipped = size > n  # the other product is smaller and has the same eigenvalues, but for zeros
    products = centred @ centred.T if flipped else centred.T @ centred
    values = torch.linalg.eigvalsh(products.double() / n).flip(0).clamp(min=0)
    # Below the rounding of float32 sums a value is not told from zero.
    values = torch.where(values > 1e-7 * values[0], values, 0.0) * unit**2
    return torch.nn.functional.pad(values, (0, size - len(values)))


class LinearOptimum:
    """The optimum of a linear VAE on data x [N, ...], for any sigma^2 (arXiv 1911.02469).

    Its optimum is probabilistic PCA: a code is worth its KL along the directions whose variance,
    an eigenvalue of the covariance, exceeds sigma^2. `variances` [D] are those eigenvalues, largest
    first, `axes` [D, D] (rows) the directions, `mean` [D] the mean image; float64, on the CPU.
    """

    def __init__(self, x):
        flat = x.flatten(1).cpu()
        self.shape, self.mean = tuple(x.shape[1:]), flat.mean(0).double()
        centred = flat - flat.mean(0)
        covariance = (centred.T @ centred).double() / len(flat)
        variances, axes = torch.linalg.eigh(covariance)
        self.variances, self.axes = variances.flip(0).clamp(min=0), axes.T.flip(0)

    def at(self, sigma2, latent_dim):
        """What the optimum at sigma2 does to an average training image, as a dict.

        active: latents in use. kl (nats): 1/2 log(variance / sigma2) for each of them.
        squared_error (summed, at sampled codes): sigma2 for each direction in use, its variance for
        each other one. reconstruction and negative_elbo (nats): the latter is also the exact
        negative log-likelihood of probabilistic PCA, for at the optimum the bound is tight.
        """
        used = self._used(sigma2, latent_dim)
        active = int(used.sum())
        kl = 0.5 * (self.variances[used] / sigma2).log().sum().item()
        squared_error = active * sigma2 + self.variances[~used].sum().item()
        constant = len(self.variances) / 2 * math.log(2 * math.pi * sigma2)
        reconstruction = squared_error / (2 * sigma2) + constant
        return {
            "active": active,
            "kl": kl,
            "squared_error": squared_error,
            "reconstruction": reconstruction,
            "negative_elbo": reconstruction + kl,
        }

    @torch.no_grad()
    def vae(self, sigma2, latent_dim):
        """A linear VAE (float32, on the CPU) with its weights at this optimum."""
        model = linear_vae(self.shape, latent_dim, Gaussian(sigma2))
        encoder, decoder = model.encoder[1], model.decoder[0]
        variances = self.variances[:latent_dim].clamp(min=1e-12)
        axes = self.axes[:latent_dim]  # [n, D]
        used = self._used(sigma2, latent_dim)[:latent_dim]
        length = (variances - sigma2).clamp(min=0).sqrt() * used
        to_mu = (length / variances)[:, None] * axes
        to_x = (length[:, None] * axes).T
        logvar = torch.where(used, (sigma2 / variances).log(), 0.0)
        n = len(variances)  # fewer than latent_dim where the data have fewer dimensions
        for parameter in (*encoder.parameters(), *decoder.parameters()):
            parameter.zero_()
        encoder.weight[:n] = to_mu.float()
        encoder.bias[:n] = -(to_mu @ self.mean).float()
        encoder.bias[latent_dim : latent_dim + n] = logvar.float()
        decoder.weight[:, :n] = to_x.float()
        decoder.bias[:] = self.mean.float()
        return model

    def _used(self, sigma2, latent_dim):
        """Which directions [D] are used: variance above sigma2, and at most latent_dim of them."""
        if not 0 < sigma2 < math.inf:
            raise ValueError(f"sigma2 must be a positive number, got {sigma2!r}")
        first = torch.arange(len(self.variances)) < latent_dim
        return (self.variances > sigma2) & first
