"""vaelab: how variational autoencoders fail, why, how to see it, and what fixes it."""

import importlib

__version__ = "0.2.0"  # the one place: pyproject.toml reads it from here

from . import settings
from .clinic import checkup, measure_loss, rehearse, watch
from .data import load
from .diagnostics import (
    active_units,
    code_swap,
    elbo_terms,
    evaluate,
    landmarks,
    output_variance,
    posterior,
    probe,
    reachable_floor,
)
from .elbo import effective_beta, free_bits, gaussian_kl, implied_sigma2, rescale
from .latents import elbo_surgery, fit_prior, project, two_sample_test
from .likelihoods import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    Gaussian,
    GaussianWithVariance,
    Likelihood,
)
from .models import VAE, Autoencoder, conv_vae, linear_vae, mlp_vae, thread_000_vae, thread_004_vae
from .saturation import saturation, watch_saturation
from .scaling import Scaling
from .teaching import LossLog, claim, compare_prediction, save_figure, setup, table
from .threshold import LinearOptimum, collapse_spectrum, collapse_threshold, predicted_rate
from .training import fit

__all__ = [
    "VAE",
    "Autoencoder",
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "Gaussian",
    "GaussianWithVariance",
    "Likelihood",
    "LinearOptimum",
    "LossLog",
    "Scaling",
    "__version__",
    "active_units",
    "checkup",
    "claim",
    "code_swap",
    "collapse_spectrum",
    "collapse_threshold",
    "compare_prediction",
    "conv_vae",
    "effective_beta",
    "elbo_surgery",
    "elbo_terms",
    "evaluate",
    "fit",
    "fit_prior",
    "free_bits",
    "gaussian_kl",
    "implied_sigma2",
    "landmarks",
    "linear_vae",
    "load",
    "measure_loss",
    "mlp_vae",
    "output_variance",
    "plots",
    "posterior",
    "predicted_rate",
    "probe",
    "project",
    "reachable_floor",
    "rehearse",
    "rescale",
    "saturation",
    "save_figure",
    "settings",
    "setup",
    "table",
    "thread_000_vae",
    "thread_004_vae",
    "two_sample_test",
    "watch",
    "watch_saturation",
]


def __getattr__(name):
    """`vaelab.plots` is imported when it is first used: matplotlib takes a second."""
    if name == "plots":
        return importlib.import_module(".plots", __name__)
    raise AttributeError(f"module 'vaelab' has no attribute {name!r}")
