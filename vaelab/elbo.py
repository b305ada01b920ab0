"""One loss, two numbers: formulas of the ELBO, and the (a, b) that a hand-written loss comes to.

Let R be the reconstruction error of one image summed over its D values, K its KL summed over the
latents. Whatever sums and means a loss uses, it is a * mean(R) + b * mean(K).
"""

REDUCTIONS = ("sum", "mean", "sum_mean")


def gaussian_kl(mu, logvar):
    """KL(N(mu, exp(logvar)) || N(0, 1)) of each latent, in nats (Kingma & Welling, appendix B).

    mu, logvar: [B, L]; the result has the same shape.
    """
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar)


def free_bits(kl, floor):
    """KL with a floor in nats on each latent's batch mean, a scalar (arXiv 1606.04934).

    kl: [B, L]. Below the floor a latent costs nothing more and gets no gradient.
    """
    latent_means = kl.mean(0)  # [L]
    return latent_means.clamp(min=floor).sum()


def effective_beta(reconstruction, kl, *, batch_size, n_values, latent_dim, coefficient=1.0):
    """The beta that a cross-entropy loss has once R and K are sums per image: b / a.

    reconstruction, kl: how each term is reduced: "sum", "mean" (over everything) or "sum_mean" (sum
    over an image's values or latents, mean over the batch). n_values: D = C * H * W.
    coefficient: the number in front of the KL. The ELBO has 1; thread 004's loss, ("mean", "sum"),
    has batch_size * n_values. Raises ValueError for another reduction or a size below 1.
    """
    sizes = {"batch_size": batch_size, "n_values": n_values, "latent_dim": latent_dim}
    for argument, value in sizes.items():
        if not value >= 1:
            raise ValueError(f"{argument} must be at least 1, got {value!r}")
    a = _weight("reconstruction", reconstruction, batch_size, n_values)
    b = _weight("kl", kl, batch_size, latent_dim)
    return coefficient * b / a


def implied_sigma2(reconstruction, kl, *, batch_size, n_values, latent_dim, coefficient=1.0):
    """The Gaussian variance that a squared-error loss assumes: b / (2a), in squared units of x.

    SSE / (2 sigma^2) is a Gaussian's negative log-likelihood, so a * SSE + b * KL is proportional
    to its ELBO at sigma^2 = b / (2a). Arguments and errors as in `effective_beta`.
    """
    ratio = effective_beta(
        reconstruction,
        kl,
        batch_size=batch_size,
        n_values=n_values,
        latent_dim=latent_dim,
        coefficient=coefficient,
    )
    return ratio / 2


def rescale(weight, s):
    """The KL weight (or sigma^2) that keeps a squared-error loss the same for data times s.

    Squared errors grow by s^2, so the weight has to: weight * s^2. Left as it was, it acts in the
    old units as weight / s^2. From z-scores to [-1, 1], s is 2 * std; back to pixels, std. Thread
    002. Raises ValueError if s is not positive.
    """
    if not s > 0:
        raise ValueError(f"s must be a positive number, got {s!r}")
    return weight * s**2


def _weight(argument, reduction, batch_size, n_terms):
    """The weight of a per-image sum's batch mean in a term reduced in this way."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"{argument} must be one of {list(REDUCTIONS)}, got {reduction!r}")
    if reduction == "sum":
        return batch_size
    return 1.0 if reduction == "sum_mean" else 1 / n_terms
