"""Measurements on data and on any model, each a few lines: landmarks, terms, codes, outputs.

A model is any `nn.Module` that returns `(reconstruction, mu, logvar)`. What the functions share:
adapter, inputs: for a model that returns or takes something else, as in `vaelab.adapt.call`.
likelihood: what the reconstruction means, for a model without a `likelihood` of its own, such as
`vaelab.Bernoulli()` for logits or `vaelab.Bernoulli(on="probabilities")` for a final sigmoid.
Models are measured in evaluation mode. Model, data and random states are as before afterwards.
"""

import inspect
import math
from typing import NamedTuple

import torch

from .adapt import call, check_images, evaluating, pieces, unwrap
from .elbo import gaussian_kl

ACTIVE_THRESHOLD = 0.01
BATCH = 1000


# ---- the data alone


class Landmarks(NamedTuple):
    """Where a run lies: floor (no model is lower), linear (PCA), mean_image (a collapsed model)."""

    floor: float
    linear: float
    mean_image: float


def landmarks(x_train, x_test, latent_dim=20):
    """The three landmarks of cross-entropy on the test images, in nats per image, without training.

    x_train, x_test: [N, C, H, W] in [0, 1]. latent_dim: components of the PCA. Raises ValueError
    outside that range.
    """
    for name, x in {"x_train": x_train, "x_test": x_test}.items():
        _check_unit_range(name, x)
    return Landmarks(
        entropy_floor(x_test),
        linear_model_loss(x_train, x_test, latent_dim),
        mean_image_loss(x_train, x_test),
    )


def entropy_floor(x):
    """The cross-entropy that no model goes below, in nats per image: the entropy of x in [0, 1]."""
    return _cross_entropy(x.double(), x.double()).item()


def mean_image_loss(x_train, x_test):
    """Cross-entropy in nats per image of the best constant answer, the mean training image."""
    # Half a count more of each colour: a pixel that is black in all of training may be lit later.
    sums = x_train.sum(0, keepdim=True, dtype=torch.float64)
    mean = (sums + 0.5) / (len(x_train) + 1)
    return _cross_entropy(mean.expand_as(x_test), x_test.double()).item()


def linear_model_loss(x_train, x_test, latent_dim):
    """Cross-entropy in nats per image of PCA with `latent_dim` components, from 20,000 at most.

    PCA leaves [0, 1], where cross-entropy is infinite, so its pictures are clipped to
    [eps, 1 - eps], with the eps that is best on the training images.
    """
    from sklearn.decomposition import PCA

    few = x_train[:: math.ceil(len(x_train) / 20_000)]
    few = few.flatten(1).cpu().numpy()
    components = min(latent_dim, *few.shape)
    pca = PCA(components, svd_solver="randomized", random_state=0).fit(few)

    def clipped_loss(flat, eps):
        rebuilt = torch.from_numpy(pca.inverse_transform(pca.transform(flat))).double()
        return _cross_entropy(rebuilt.clamp(eps, 1 - eps), torch.from_numpy(flat).double()).item()

    losses = {eps: clipped_loss(few[:5000], eps) for eps in (0.003, 0.01, 0.02, 0.04, 0.08)}
    best = min(losses, key=losses.get)
    return clipped_loss(x_test.flatten(1).cpu().numpy(), best)


def reachable_floor(x, low, high):
    """The squared error per value that no output in [low, high] avoids: E[(x - clip(x))^2].

    Raises ValueError unless low is below high. Threads 002 and 004.
    """
    if not low < high:
        raise ValueError(f"low must be below high, got low={low}, high={high}")
    return (x - x.clamp(low, high)).double().square().mean().item()


# ---- any model


class ElboTerms(NamedTuple):
    """reconstruction [N] and kl [N, L], in nats."""

    reconstruction: torch.Tensor
    kl: torch.Tensor


def posterior(model, x, *, adapter=None, inputs=None):
    """mu and logvar of q(z | x) for all of x, each [N, L] (logvar is None for an autoencoder)."""
    parts = _measure_in_pieces(model, x, adapter, inputs, 0, lambda outputs, _: outputs[1:])
    mu, logvar = zip(*parts, strict=True)
    return torch.cat(mu), None if logvar[0] is None else torch.cat(logvar)


def elbo_terms(model, x, *, likelihood=None, adapter=None, inputs=None, seed=0):
    """Reconstruction [N] at one sampled z, and KL [N, L], in nats: -ELBO is their sum per image.

    For an autoencoder (logvar None) the KL is zero. Raises ValueError for a model whose likelihood
    is not known, and names the ones that fit.
    """
    model = unwrap(model)
    nll = _known_likelihood(model, likelihood, x, adapter, inputs).nll

    def terms(outputs, x):
        return nll(outputs.reconstruction, x), _kl(outputs)

    parts = _measure_in_pieces(model, x, adapter, inputs, seed, terms, likelihood)
    reconstruction, kl = zip(*parts, strict=True)
    return ElboTerms(torch.cat(reconstruction), torch.cat(kl))


def evaluate(model, x, *, likelihood=None, adapter=None, inputs=None, seed=0):
    """Reconstruction, KL and their sum in nats per image, and active units, as a dict.

    Keys: reconstruction, kl, negative_elbo, active_units. Errors as in `elbo_terms`.
    """
    model = unwrap(model)
    nll = _known_likelihood(model, likelihood, x, adapter, inputs).nll

    def terms(outputs, x):
        return nll(outputs.reconstruction, x), _kl(outputs).sum(1), outputs.mu

    parts = _measure_in_pieces(model, x, adapter, inputs, seed, terms, likelihood)
    errors, kls, mus = (torch.cat(column) for column in zip(*parts, strict=True))
    reconstruction, kl = errors.double().mean().item(), kls.double().mean().item()
    return {
        "reconstruction": reconstruction,
        "kl": kl,
        "negative_elbo": reconstruction + kl,
        "active_units": active_units(mus),
    }


def active_units(model, x=None, *, threshold=ACTIVE_THRESHOLD, adapter=None, inputs=None):
    """How many latents have Var_x(mu) > threshold (Burda et al. 2015, arXiv 1509.00519).

    model: any model, with x [N, ...]; or mu [N, L] itself. An untrained encoder can have all its
    latents active by this count (it does on z-scores), so it says little without the KL beside it.
    """
    if isinstance(model, torch.Tensor):
        mu = model
    elif x is None:
        raise ValueError("x is None: give active_units(model, x), or mu [N, L] alone")
    else:
        mu, _ = posterior(model, x, adapter=adapter, inputs=inputs)
    return int((mu.var(0, correction=0) > threshold).sum())


def output_variance(model, x, *, adapter=None, inputs=None, seed=0):
    """Variance across images of what the model shows, averaged over values; 0 if all outputs agree.

    In squared units of x. What the noise of the codes adds is not counted: the outputs of two
    passes are compared. Divided by the data's own variance, `x.var(0, correction=0).mean()`, it is
    the share of that variance which the outputs follow. An untrained network's outputs vary a
    little as well, so compare with one.
    """
    model = unwrap(model)

    def picture(outputs, _):
        return mean_picture(model, outputs.reconstruction).float()

    first = torch.cat(_measure_in_pieces(model, x, adapter, inputs, seed, picture))
    second = torch.cat(_measure_in_pieces(model, x, adapter, inputs, seed + 1, picture))
    # Noise of two passes is independent, so it drops out of their covariance.
    covariance = (first - first.mean(0)) * (second - second.mean(0))
    return max(covariance.double().mean().item(), 0.0)


def code_swap(model, x, *, likelihood=None, decode=None, adapter=None, inputs=None, seed=0):
    """Error per image from an image's own sampled code, and from another image's: (own, swapped).

    Equal numbers mean that the decoder ignores its code. The errors are nats of the likelihood, or
    summed squared errors where there is none. decode: codes [B, L] (and inputs) -> reconstruction,
    default model.decode or model.decoder. x: [N, ...] in random order.
    Raises ValueError if there is no decoder to be found.
    """
    model = unwrap(model)
    mu, logvar = posterior(model, x, adapter=adapter, inputs=inputs)
    decode = decode or getattr(model, "decode", None) or getattr(model, "decoder", None)
    if decode is None:
        raise ValueError("the model has no decode or decoder: name it, decode=model.my_decoder")
    likelihood = likelihood or likelihood_of(model)
    nll = _squared_error if likelihood is None else likelihood.nll
    z = sample_posterior(mu, logvar, seed)

    def mean_error(codes):
        errors = []
        for (images, others), part in zip(
            pieces(x, inputs, BATCH), codes.split(BATCH), strict=True
        ):
            reconstruction = decoded(model, decode, part, others)
            errors.append(nll(_shaped(reconstruction, images), images))
        return torch.cat(errors).double().mean().item()

    with evaluating(model, likelihood, decode, seed=seed):
        return mean_error(z), mean_error(z.roll(1, 0))


def probe(codes, labels, kind="neighbours"):
    """Accuracy of a classifier that sees only codes [N, L]: fitted on one half, tested on one.

    kind: "neighbours" (five nearest) or "linear" (logistic regression on standardised codes). Both
    ignore the codes' scale: means that differ by a hair, far below the posterior's noise, can score
    as high as useful ones, so give them sampled codes as well.
    Raises ValueError for another kind, or labels of another length.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(labels) != len(codes):
        raise ValueError(
            f"labels must have one value for each of {len(codes)} codes, got {len(labels)}"
        )
    if kind == "neighbours":
        classifier = KNeighborsClassifier(5)
    elif kind == "linear":
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    else:
        raise ValueError(f"kind must be 'neighbours' or 'linear', got {kind!r}")
    codes, labels = codes.detach().cpu().numpy(), labels.cpu().numpy()
    half = len(codes) // 2
    classifier.fit(codes[:half], labels[:half])
    return float(classifier.score(codes[half:], labels[half:]))


def sample_posterior(mu, logvar, seed=0):
    """One code from each posterior, [N, L]; mu itself where logvar is None."""
    if logvar is None:
        return mu
    generator = torch.Generator(mu.device).manual_seed(seed)
    noise = torch.randn(mu.shape, generator=generator, device=mu.device, dtype=mu.dtype)
    return mu + torch.exp(0.5 * logvar) * noise


def likelihood_of(model):
    """The likelihood that a model of this package carries, or None."""
    likelihood = getattr(unwrap(model), "likelihood", None)
    return likelihood if hasattr(likelihood, "nll") and hasattr(likelihood, "mean") else None


def mean_picture(model, reconstruction):
    """The picture of a reconstruction: the likelihood's mean, or the reconstruction itself."""
    likelihood = likelihood_of(model)
    return reconstruction if likelihood is None else likelihood.mean(reconstruction)


def _measure_in_pieces(model, x, adapter, inputs, seed, measure, *owners):
    """`measure(outputs, images)` of each piece of x, in evaluation mode; nothing is changed."""
    check_images(model, x)
    with evaluating(unwrap(model), adapter, *owners, seed=seed):
        results = []
        for images, others in pieces(x, inputs, BATCH):
            outputs = call(model, images, adapter, others)
            results.append(measure(outputs, images))
        return results


def _kl(outputs):
    """KL of each latent [B, L] in nats; zero without a posterior."""
    mu, logvar = outputs.mu.flatten(1), outputs.logvar
    return torch.zeros_like(mu) if logvar is None else gaussian_kl(mu, logvar.flatten(1))


def _known_likelihood(model, likelihood, x, adapter, inputs):
    """The likelihood given or the model's own, or a ValueError that says which one to pass."""
    likelihood = likelihood or likelihood_of(model)
    if likelihood is not None:
        return likelihood
    images, others = next(pieces(x, inputs, 100))
    with evaluating(model, adapter):
        r = call(model, images, adapter, others).reconstruction
    low, high = r.min().item(), r.max().item()
    line = "vaelab.Bernoulli() if these are logits, vaelab.Gaussian(sigma2) for a squared error"
    if 0 <= low and high <= 1:
        line = 'vaelab.Bernoulli(on="probabilities") for a model that ends in a sigmoid'
    raise ValueError(
        f"the model has no likelihood, so its outputs in [{low:.3g}, {high:.3g}] have no nats: "
        f"pass likelihood={line}"
    )


def decoded(model, decode, codes, inputs):
    """The reconstruction of codes; a decoder with one parameter gets no other inputs."""
    parameter = next(model.parameters(), codes)
    codes = codes.to(parameter.dtype)
    if inputs is None or _takes_one(decode):
        return decode(codes).float()
    if isinstance(inputs, dict):
        return decode(codes, **inputs).float()
    return decode(codes, *inputs).float()


def _takes_one(function):
    """Whether a function, or a module's forward, takes one argument."""
    function = function.forward if isinstance(function, torch.nn.Module) else function
    return len(inspect.signature(function).parameters) == 1


def _shaped(reconstruction, x):
    """The reconstruction in x's shape, where the sizes agree."""
    same = reconstruction.numel() == x.numel()
    return reconstruction.reshape(x.shape) if same else reconstruction


def _squared_error(reconstruction, x):
    return (reconstruction - x).flatten(1).square().sum(1)


def _cross_entropy(p, x):
    """Mean over images of the summed cross-entropy of x under probabilities p; 0 log 0 is 0."""
    loss = -(torch.xlogy(x, p) + torch.xlogy(1 - x, 1 - p))
    return loss.flatten(1).sum(1).mean()


def _check_unit_range(name, x):
    low, high = x.min().item(), x.max().item()
    if low < 0 or high > 1 or math.isnan(low + high):
        raise ValueError(
            f"{name} must lie in [0, 1] for cross-entropy, but spans [{low:.3g}, {high:.3g}]"
        )
