"""Measurements, each a few lines: what the data alone predicts, and what a trained model does."""

import contextlib
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from .elbo import elbo_terms

ACTIVE_THRESHOLD = 0.01
BOUNDED = (nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Hardsigmoid)


def entropy_floor(x):
    """Nats per image that no model can go below under cross-entropy: the entropy of x in [0, 1] itself."""
    return _cross_entropy(x.double(), x.double()).item()


def mean_image_loss(x_train, x_test):
    """Cross-entropy in nats per image of the best constant answer, the mean training image."""
    # Half a count more of each colour: a pixel that is black in all of training may not be so in the test.
    m = (x_train.sum(0, keepdim=True, dtype=torch.float64) + 0.5) / (len(x_train) + 1)
    return _cross_entropy(m.expand_as(x_test), x_test.double()).item()


def linear_model_loss(x_train, x_test, latent_dim):
    """Cross-entropy in nats per image of PCA with `latent_dim` components, from 20,000 images at most.

    PCA leaves [0, 1], where cross-entropy is infinite, so its pictures are clipped to
    [eps, 1 - eps], with the eps that is best on the training images.
    """
    from sklearn.decomposition import PCA

    x_train = x_train[:: max(1, len(x_train) // 20_000)]
    pca = PCA(latent_dim, svd_solver="randomized", random_state=0).fit(x_train.flatten(1).cpu().numpy())

    def rebuild(x):
        codes = pca.transform(x.flatten(1).cpu().numpy())
        return torch.from_numpy(pca.inverse_transform(codes)).double(), x.flatten(1).cpu().double()

    fitted, target = rebuild(x_train[:5000])
    eps = min((0.003, 0.01, 0.02, 0.04, 0.08), key=lambda e: _cross_entropy(fitted.clamp(e, 1 - e), target))
    fitted, target = rebuild(x_test)
    return _cross_entropy(fitted.clamp(eps, 1 - eps), target).item()


def _cross_entropy(p, x):
    """Mean over images of the summed cross-entropy of x under probabilities p; 0 log 0 is 0."""
    loss = -(torch.xlogy(x, p) + torch.xlogy(1 - x, 1 - p))
    return loss.flatten(1).sum(1).mean()


class Landmarks(NamedTuple):
    """Where any run lies: floor (no model goes below), linear (PCA), mean_image (a collapsed model)."""

    floor: float
    linear: float
    mean_image: float


def landmarks(x_train, x_test, latent_dim=20):
    """The three landmarks of cross-entropy on the test images, in nats per image. Seconds, no training.

    x_train, x_test: [N, C, H, W] in [0, 1]. Raises ValueError outside that range.
    """
    for name, x in {"x_train": x_train, "x_test": x_test}.items():
        _check_unit_range(name, x)
    return Landmarks(
        entropy_floor(x_test),
        linear_model_loss(x_train, x_test, latent_dim),
        mean_image_loss(x_train, x_test),
    )


def collapse_threshold(x, loss="cross_entropy"):
    """The beta (cross-entropy on logits) or sigma^2 (squared error) beyond which total collapse is stable.

    It comes from the data alone: the largest eigenvalue of H^-1/2 C H^-1/2, with C the covariance
    of the pixels, m the mean image and H = diag(m (1 - m)); for squared error with an identity
    output, of C itself. At the mean image a code along direction v lowers the reconstruction by
    its variance times that eigenvalue and costs as much KL as beta says (Lucas et al. 2019,
    arXiv 1911.02469, for the linear VAE; design section 3).

    x: [N, ...], training data; in [0, 1] for cross-entropy. Raises ValueError otherwise.
    """
    if loss not in ("cross_entropy", "squared_error"):
        raise ValueError(f"loss must be 'cross_entropy' or 'squared_error', got {loss!r}")
    x = x.flatten(1).float().cpu()
    m = x.mean(0, dtype=torch.float64)
    centred = x - m.float()
    if loss == "cross_entropy":
        _check_unit_range("x", x)
        h = m * (1 - m)
        # A pixel that never changes has no covariance either, whatever its weight.
        centred *= torch.where(h > 0, h.clamp(min=1e-12).rsqrt(), 0.0).float()
    if centred.abs().max() < 1e-6:
        return 0.0  # identical images: nothing to encode
    return largest_variance(centred)


def largest_variance(centred):
    """The largest eigenvalue of the covariance of centred data [N, D] (population variance), by Lanczos."""
    from scipy.sparse.linalg import svds

    n, d = centred.shape
    if min(n, d) == 1:
        return (centred.square().sum() / n).item()
    start = np.random.default_rng(0).normal(size=min(n, d))
    return float(svds(centred.numpy(), k=1, v0=start, return_singular_vectors=False)[0]) ** 2 / n


def reachable_floor(x, low, high):
    """E[(x - clip(x, low, high))^2], the squared error per value that no output in [low, high] avoids."""
    if not low < high:
        raise ValueError(f"low must be below high, got low={low}, high={high}")
    return (x - x.clamp(low, high)).double().square().mean().item()


def share_out_of_reach(x, low, high):
    """The share of the values of x that an output confined to [low, high] cannot equal, 0 to 1."""
    if not low < high:
        raise ValueError(f"low must be below high, got low={low}, high={high}")
    return ((x < low) | (x > high)).double().mean().item()


@torch.no_grad()
def posterior(model, x, batch_size=1000):
    """mu and logvar of q(z | x) for all of x, each [N, L] (logvar is None for an autoencoder)."""
    parts = [model.encode(batch) for batch in x.split(batch_size)]
    mu = torch.cat([mu for mu, _ in parts])
    return mu, None if parts[0][1] is None else torch.cat([logvar for _, logvar in parts])


def active_units(mu, threshold=ACTIVE_THRESHOLD):
    """How many latents have Var_x(mu) > threshold (Burda et al. 2015, arXiv 1509.00519). mu: [N, L]."""
    return int((mu.var(0, correction=0) > threshold).sum())


@torch.no_grad()
def output_variance(model, x):
    """Variance across inputs of the shown reconstruction, averaged over values: 0 when all outputs agree."""
    return model.reconstruct(x).var(0, correction=0).mean().item()


@torch.no_grad()
def code_swap(model, x, seed=0, batch_size=1000):
    """Reconstruction in nats per image from an image's own code, and from the next image's: (own, swapped).

    The codes are sampled. Equal numbers mean that the decoder ignores its code; in a healthy model
    the second is worse than the mean image. x: [N, ...] in random order.
    """
    generator = torch.Generator(x.device).manual_seed(seed)
    mu, logvar = posterior(model, x, batch_size)
    z = model.reparameterise(mu, logvar, generator)
    was_training = model.training
    model.eval()
    own, swapped = (
        torch.cat([
            model.likelihood.nll(model.decode(codes), images)
            for codes, images in zip(z.roll(shift, 0).split(batch_size), x.split(batch_size), strict=True)
        ]).double().mean().item()
        for shift in (0, 1)
    )  # fmt: skip
    model.train(was_training)
    return own, swapped


def probe(codes, labels, kind="neighbours"):
    """Accuracy of a classifier that sees only codes [N, L]: fitted on the first half, tested on the second.

    kind: "neighbours" (five nearest) or "linear" (logistic regression on standardised codes). Both
    ignore the codes' scale: means that differ by a hair, far below the posterior's noise, can score
    as high as useful ones, so give them sampled codes as well.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if kind not in ("neighbours", "linear"):
        raise ValueError(f"kind must be 'neighbours' or 'linear', got {kind!r}")
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    classifier = KNeighborsClassifier(5) if kind == "neighbours" else linear
    codes, labels, half = codes.detach().cpu().numpy(), labels.cpu().numpy(), len(codes) // 2
    return float(classifier.fit(codes[:half], labels[:half]).score(codes[half:], labels[half:]))


@dataclass
class Saturation:
    """A bounded output layer on one batch, averaged over its values: see `saturation`.

    preactivation: what goes into the activation. output: what comes out. saturated: share of outputs
    within `margin` of a bound. slope: share of the gradient that passes, the activation's slope over
    its largest. gradient: mean |dloss / dpreactivation|, NaN without a backward pass. share: of the
    values that were selected.
    """

    preactivation: float
    output: float
    saturated: float
    slope: float
    gradient: float = math.nan
    share: float = 1.0


def saturation(model, x, **options):
    """Saturation of a bounded output layer on one batch x [B, ...], in the mode the model is in.

    Options as in `watch_saturation`. Thread 000: a sigmoid whose inputs are far below zero passes no
    gradient, and the squared error behind it can no longer bring its pixels back.
    """
    with torch.no_grad(), watch_saturation(model, every_mode=True, **options) as rows:
        model(x)
    return rows[-1]


@contextlib.contextmanager
def watch_saturation(model, layer=None, activation=None, select=None, margin=0.01, every_mode=False):
    """A list that gets one `Saturation` a training step: `with watch_saturation(model) as rows: fit(...)`.

    Without `layer`: a vaelab model's decoder and its likelihood, else the model's last nn.Sigmoid or nn.Tanh.
    layer: an activation module, or any module whose output goes into `activation` ("sigmoid", "tanh").
    select: callable from the model's input x to a mask that fits the output, to look at some values
    only. every_mode: record in evaluation mode as well. Forward hooks do the work and are removed after
    the block, whatever happens in it. An output without bounds has saturated 0 and slope 1.
    """
    rows, seen = [], {}
    layer, function, takes_input = _output_layer(model, layer, activation)

    def at_start(_, inputs):
        seen["x"] = inputs[0]

    def at_layer(_, inputs, output):
        if model.training or every_mode:
            values = inputs[0] if takes_input else output
            chosen = slice(None) if select is None else select(seen["x"]).expand_as(values)
            row = _measure_saturation(values.detach()[chosen], function, margin)
            row.share = 1.0 if select is None else chosen.float().mean().item()
            rows.append(row)
            if values.requires_grad:
                values.register_hook(lambda gradient: _keep_gradient(row, gradient[chosen]))

    hooks = [model.register_forward_pre_hook(at_start), layer.register_forward_hook(at_layer)]
    try:
        yield rows
    finally:
        for hook in hooks:
            hook.remove()


def _keep_gradient(row, gradient):
    row.gradient = gradient.abs().mean().item()


def _measure_saturation(values, function, margin):
    with torch.enable_grad():
        values = values.clone().requires_grad_()
        output = function(values)
        (slope,) = torch.autograd.grad(output.sum(), values)
        ends = values.new_tensor([-1e6, 0.0, 1e6]).requires_grad_()
        (steepest,) = torch.autograd.grad(function(ends).sum(), ends)
    low, _, high = function(ends).tolist()
    if high - low > 1e3:
        return Saturation(values.mean().item(), output.mean().item(), 0.0, 1.0)
    near = margin * (high - low)
    flat = (output < low + near) | (output > high - near)
    slope = slope.mean() / steepest[1]
    return Saturation(values.mean().item(), output.mean().item(), flat.float().mean().item(), slope.item())


def _output_layer(model, layer, activation):
    """The module to hook, the activation as a function, and whether it is the module's own."""
    functions = {"sigmoid": torch.sigmoid, "tanh": torch.tanh}
    if layer is None and hasattr(model, "likelihood"):
        return model.decoder, model.likelihood.mean, False
    if layer is None:
        bounded = [module for module in model.modules() if isinstance(module, BOUNDED)]
        if not bounded:
            raise ValueError("the model has no nn.Sigmoid or nn.Tanh: name the module before the activation, "
                             'layer=model.decoder, activation="sigmoid"')  # fmt: skip
        layer = bounded[-1]
    if isinstance(layer, BOUNDED):
        return layer, layer.forward, True
    if activation not in functions:
        raise ValueError(f"activation must be one of {list(functions)} for this layer, got {activation!r}")
    return layer, functions[activation], False


def batchnorm_bound(norm, share):
    """The lowest mean that a BatchNorm layer's output can have over a `share` of its values.

    Normalised values have mean 0 and variance 1, so the mean over a share p of them is at least
    -sqrt((1 - p) / p), and beta - |gamma| sqrt((1 - p) / p) after the layer's own scale and shift
    (their means over the channels), in training mode. Equality: the share all one value, the rest
    another. Thread 000: with p of the pixels background no background is darker than its sigmoid.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must lie in (0, 1], got {share!r}")
    reach = math.sqrt((1 - share) / share)
    return (norm.bias - norm.weight.abs() * reach).mean().item()


def frechet_distance(x, y, n_axes=30):
    """How far apart two sets of images [N, ...] are as Gaussians, in squared units of x: 0 if both agree.

    Measured along the first n_axes principal axes of x, the real images. Fréchet's distance is what
    FID computes on a network's features; blur and wrong scale show in it, fine detail does not.
    """
    from sklearn.decomposition import PCA

    pca = PCA(n_axes, random_state=0).fit(x.flatten(1).cpu().numpy())
    a, b = (torch.from_numpy(pca.transform(t.detach().flatten(1).cpu().numpy())).double() for t in (x, y))
    c, d = torch.cov(a.T), torch.cov(b.T)
    overlap = torch.linalg.eigvals(c @ d).real.clamp(min=0).sqrt().sum()
    return ((a.mean(0) - b.mean(0)).square().sum() + c.trace() + d.trace() - 2 * overlap).item()


@torch.no_grad()
def evaluate(model, x, seed=0, batch_size=1000):
    """Reconstruction, KL and their sum in nats per image, and active units, on x in eval mode.

    The model's mode and the global random state are put back. Returns a dict with
    reconstruction, kl, negative_elbo, active_units.
    """
    was_training = model.training
    model.eval()
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        terms = [elbo_terms(model, batch) for batch in x.split(batch_size)]
    mu, _ = posterior(model, x, batch_size)
    model.train(was_training)
    reconstruction = torch.cat([t.reconstruction for t in terms]).double().mean().item()
    kl = torch.cat([t.kl for t in terms]).double().sum(1).mean().item()
    return {
        "reconstruction": reconstruction, "kl": kl, "negative_elbo": reconstruction + kl,
        "active_units": active_units(mu),
    }  # fmt: skip


def _check_unit_range(name, x):
    low, high = x.min().item(), x.max().item()
    if low < 0 or high > 1 or math.isnan(low + high):
        raise ValueError(f"{name} must lie in [0, 1] for cross-entropy, but spans [{low:.3g}, {high:.3g}]")
