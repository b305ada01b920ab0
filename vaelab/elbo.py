"""One loss, two numbers: the ELBO's terms, and the (a, b) that any hand-written VAE loss comes down to.

Let R be the reconstruction error of one image summed over its D values, K its KL summed over the
latents. Whatever sums and means a loss uses, it is a * mean(R) + b * mean(K).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

REDUCTIONS = {"sum": "sum", "mean": "mean", "sum_mean": "sum over values, mean over the batch"}


class ElboTerms(NamedTuple):
    """reconstruction [B] and kl [B, L], in nats."""

    reconstruction: torch.Tensor
    kl: torch.Tensor


def gaussian_kl(mu, logvar):
    """KL(N(mu, exp(logvar)) || N(0, 1)) of each latent, [B, L], in nats (Kingma & Welling, appendix B)."""
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar)


def elbo_terms(model, x):
    """Reconstruction [B] at one sampled z, and KL [B, L], in nats: -ELBO is their sum per image.

    model: returns (output, mu, logvar) and has a `likelihood`. For an autoencoder (logvar None)
    the KL is zero.
    """
    output, mu, logvar = model(x)
    kl = torch.zeros_like(mu) if logvar is None else gaussian_kl(mu, logvar)
    return ElboTerms(model.likelihood.nll(output, x), kl)


def free_bits(kl, floor):
    """KL with a floor in nats on each latent's batch mean, a scalar (Kingma et al. 2016, arXiv 1606.04934).

    kl: [B, L]. Below the floor a latent costs nothing more and gets no gradient.
    """
    return kl.mean(0).clamp(min=floor).sum()


def loss_coefficients(reconstruction, kl, *, batch_size, n_values, latent_dim, coefficient=1.0):
    """The (a, b) of a loss, from the reductions of its two terms.

    reconstruction, kl: "sum", "mean" (over everything) or "sum_mean" (sum over an image's values or
    latents, mean over the batch). n_values: D = C*H*W. coefficient: the number in front of the KL.
    """
    for argument, value in {"reconstruction": reconstruction, "kl": kl}.items():
        if value not in REDUCTIONS:
            raise ValueError(f"{argument} must be one of {list(REDUCTIONS)}, got {value!r}")
    for argument, value in {"batch_size": batch_size, "n_values": n_values, "latent_dim": latent_dim}.items():
        if not value >= 1:
            raise ValueError(f"{argument} must be at least 1, got {value!r}")
    per_image = {"sum": batch_size, "sum_mean": 1.0}
    a = per_image.get(reconstruction, 1 / n_values)
    b = per_image.get(kl, 1 / latent_dim)
    return a, coefficient * b


def effective_beta(reconstruction, kl, *, batch_size, n_values, latent_dim, coefficient=1.0):
    """The beta that a cross-entropy loss has once R and K are sums per image: b / a. The ELBO has 1.

    Arguments as in `loss_coefficients`. The thread 004 loss is ("mean", "sum"): batch_size * n_values.
    """
    a, b = loss_coefficients(
        reconstruction, kl, batch_size=batch_size, n_values=n_values, latent_dim=latent_dim,
        coefficient=coefficient,
    )  # fmt: skip
    return b / a


def implied_sigma2(reconstruction, kl, *, batch_size, n_values, latent_dim, coefficient=1.0):
    """The Gaussian variance that a squared-error loss assumes: b / (2a), in squared units of x.

    SSE / (2 sigma^2) is a Gaussian's negative log-likelihood, so a*SSE + b*KL is proportional to
    its ELBO at sigma^2 = b / (2a). Arguments as in `loss_coefficients`.
    """
    a, b = loss_coefficients(
        reconstruction, kl, batch_size=batch_size, n_values=n_values, latent_dim=latent_dim,
        coefficient=coefficient,
    )  # fmt: skip
    return b / (2 * a)


def rescale(weight, s):
    """The KL weight (or sigma^2) that keeps a squared-error loss the same when the data are multiplied by s.

    Squared errors grow by s^2, so the weight has to: weight * s^2. Left as it was, it acts in the
    old units as weight / s^2. From z-scores to [-1, 1], s is 2 * std; back to pixels, std. Thread 002.
    """
    if not s > 0:
        raise ValueError(f"s must be a positive number, got {s!r}")
    return weight * s**2


def measure_beta(loss, *, batch_size, shape, latent_dim, on="logits", seed=0):
    """The effective beta of a cross-entropy loss, measured from its gradients, whatever its code says.

    loss: callable (output, x, mu, logvar) -> scalar. on: what `output` is, "logits" or
    "probabilities". The reconstruction's gradient is compared with that of the summed
    cross-entropy, the KL's with mu. Raises ValueError if the loss is not a * R + b * K.
    """
    if on not in ("logits", "probabilities"):
        raise ValueError(f"on must be 'logits' or 'probabilities', got {on!r}")
    generator = torch.Generator().manual_seed(seed)

    def draw(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    x = torch.rand(batch_size, *shape, generator=generator, dtype=torch.float64)
    output = draw(batch_size, *shape) if on == "logits" else draw(batch_size, *shape).sigmoid()
    mu, logvar = draw(batch_size, latent_dim), 0.5 * draw(batch_size, latent_dim)
    output, mu, logvar = (t.requires_grad_() for t in (output, mu, logvar))
    cross_entropy = F.binary_cross_entropy_with_logits if on == "logits" else F.binary_cross_entropy
    summed = cross_entropy(output, x, reduction="sum") + gaussian_kl(mu, logvar).sum()

    yours = torch.autograd.grad(loss(output, x, mu, logvar), (output, mu, logvar), allow_unused=True)
    plain = torch.autograd.grad(summed, (output, mu, logvar))
    a, from_mu, from_logvar = (_ratio(g, p) for g, p in zip(yours, plain, strict=True))
    if abs(from_mu - from_logvar) > 1e-3 * max(abs(from_mu), abs(from_logvar)):
        raise ValueError(
            f"the KL's gradient is {from_mu:.3g} times the usual on mu, {from_logvar:.3g} on logvar"
        )
    if a == 0:
        raise ValueError("the loss does not depend on the output: is the reconstruction term missing?")
    return from_mu / a


def _ratio(gradient, reference):
    """c in gradient = c * reference, by least squares; ValueError if they are not parallel."""
    if gradient is None:
        return 0.0
    c = ((gradient * reference).sum() / reference.square().sum()).item()
    if (gradient - c * reference).norm() > 1e-3 * gradient.norm():
        raise ValueError(
            "the loss is not a * (cross-entropy) + b * (Gaussian KL): its gradient points elsewhere. "
            "Does `on` say what the decoder returns, logits or probabilities?"
        )
    return c
