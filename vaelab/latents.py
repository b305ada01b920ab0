"""Latent spaces in numbers: what a map of the codes can only suggest, measured without eyes."""

import math
import warnings
from typing import NamedTuple

import numpy as np
import torch

from . import settings
from .elbo import gaussian_kl

METHODS = {"tsne": "t-SNE", "pca": "PCA", "raw": "raw"}
TESTED_CODES = 3000


class Projection(NamedTuple):
    """points [N, 2] (numpy), the method's name, and its settings in words, for under the map."""

    points: np.ndarray
    method: str
    settings: str


def project(
    codes, method="t-SNE", perplexity=30, seed=None, start="pca", max_iter=500, activity=None
):
    """Two numbers for each code [N, L], to draw it by: a Projection.

    method: "t-SNE", "PCA", or "raw" (the two most active latents as they are: those with the
    largest variance, or the largest `activity` [L], e.g. the mean KL of each latent).
    start: "pca" or "random", where t-SNE begins; from PCA another seed changes next to nothing.
    t-SNE has no scale: codes are divided by their spread first, which changes nothing but rounding.
    Raises ValueError for NaN, codes that are all alike, fewer than 2 latents, or a perplexity that
    is not between 1 and the number of codes.
    """
    method, codes = _method(method), checked(codes)
    seed = _seed(seed)
    if codes.shape[1] < 2:
        raise ValueError("codes must have at least 2 latents for a map, got 1: draw a histogram")
    if method == "raw":
        return _most_active(codes, activity)
    centred = codes - codes.mean(0)
    spread = centred.std()
    if not spread > 1e-12 * np.abs(codes).max():
        raise ValueError("codes are all alike: the encoder gives one answer, nothing to map")
    scaled = (centred / spread).astype(np.float32)
    if method == "PCA":
        from sklearn.decomposition import PCA

        points = PCA(2, random_state=seed).fit_transform(scaled) * spread
        return Projection(points, "PCA", "the two widest directions")
    return _tsne(scaled, perplexity, seed, start, max_iter)


def _most_active(codes, activity):
    """The two most active latents as they are."""
    if activity is None:
        activity = codes.var(0)
    activity = np.asarray(array(activity), dtype=np.float64)
    if activity.shape != codes.shape[1:]:
        got = list(activity.shape)
        raise ValueError(f"activity must be [L] with L = {codes.shape[1]}, got {got}")
    most_first = np.argsort(-activity, kind="stable")
    first, second = sorted(most_first[:2].tolist())
    return Projection(codes[:, [first, second]], "raw", f"latents {first} and {second} as they are")


def _tsne(scaled, perplexity, seed, start, max_iter):
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if not 1 <= perplexity < len(scaled):
        raise ValueError(
            f"perplexity must be below the number of points, {len(scaled)}, got {perplexity}: "
            "take a smaller perplexity (1 at least) or more codes"
        )
    if start not in ("pca", "random"):
        raise ValueError(f"start must be 'pca' or 'random', got {start!r}")
    begin, named = start, start
    if start == "pca":
        # As scikit-learn does it now: in 1.6 its PCA is randomised, and t-SNE magnifies that.
        plane = PCA(2, svd_solver="covariance_eigh").fit_transform(scaled).astype(np.float32)
        begin, named = plane / np.std(plane[:, 0]) * 1e-4, "PCA"
    tsne = TSNE(2, perplexity=perplexity, init=begin, max_iter=max_iter, random_state=seed)
    words = f"perplexity {perplexity:g}, {max_iter} steps, start {named}, seed {seed}"
    return Projection(tsne.fit_transform(scaled), "t-SNE", words)


class TwoSample(NamedTuple):
    """What a classifier made of unseen codes; 0.5 is guessing, for accuracy and AUC alike.

    held_out: how many were judged. p_value: the chance of at least this accuracy if both sets came
    from one distribution.
    """

    accuracy: float
    auc: float
    held_out: int
    p_value: float


def two_sample_test(codes, prior=None, seed=None, most=TESTED_CODES):
    """Can a classifier tell codes [N, L] from draws of the prior? It is judged on unseen ones.

    prior: draws [M, L] to compare with; default N draws of N(0, I). Give one sampled code per
    image: `mu` alone is narrower than the posterior, and two codes of one image would sit in both
    halves. The classifier is a support vector machine or boosted trees, whichever does better on a
    third of the fitting half. At most `most` of each are used. Accuracy well above 0.5 shows that
    the two differ; 0.5 only that this classifier cannot tell (arXiv 1610.06545).
    """
    from scipy.stats import binom
    from sklearn.metrics import roc_auc_score

    codes, seed = checked(codes, least=20), _seed(seed)
    random = np.random.default_rng(seed)
    if prior is None:
        prior = random.normal(size=codes.shape)
    prior = checked(prior, "prior", least=20)
    if prior.shape[1] != codes.shape[1]:
        raise ValueError(
            f"prior must have {codes.shape[1]} latents like the codes, got {prior.shape[1]}"
        )
    n = min(len(codes), len(prior), most)
    some_codes = codes[random.permutation(len(codes))[:n]]
    some_draws = prior[random.permutation(len(prior))[:n]]
    x = np.concatenate([some_codes, some_draws])
    is_code = np.repeat([1, 0], n)
    # Each half holds as many codes as draws, so that guessing is exactly 0.5.
    order = np.concatenate([np.arange(n), np.arange(n)])
    choose, fit, judge = order < n // 6, order < n // 2, order >= n // 2
    best = _better_classifier(x, is_code, fit & ~choose, choose, seed).fit(x[fit], is_code[fit])
    accuracy = float(best.score(x[judge], is_code[judge]))
    auc = float(roc_auc_score(is_code[judge], best.decision_function(x[judge])))
    held_out = int(judge.sum())
    right = round(accuracy * held_out)
    return TwoSample(accuracy, auc, held_out, float(binom.sf(right - 1, held_out, 0.5)))


def _better_classifier(x, is_code, fit, choose, seed):
    """Of two kinds of classifier the one that does better on the rows `choose`."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    smooth = make_pipeline(StandardScaler(), SVC())
    trees = HistGradientBoostingClassifier(max_iter=60, random_state=seed)
    scores = []
    for classifier in (smooth, trees):
        classifier.fit(x[fit], is_code[fit])
        scores.append(classifier.score(x[choose], is_code[choose]))
    return smooth if scores[0] >= scores[1] else trees


class Surgery(NamedTuple):
    """kl = aggregate_kl + information, in nats per image; information is at most log_n.

    error: the Monte Carlo standard error of information (and so of aggregate_kl).
    """

    kl: float
    aggregate_kl: float
    information: float
    log_n: float
    error: float


@torch.no_grad()
def elbo_surgery(mu, logvar, draws=2000, seed=None):
    """The mean KL of N posteriors taken apart (Hoffman & Johnson 2016): a Surgery, in nats.

    information: how much a code says about which of the N images it came from, at most log N.
    aggregate_kl: KL from the equal mixture of these N posteriors to N(0, I). It speaks of this
    mixture only: a model that is exactly right has mean KL - log N of it once its KL exceeds log N.
    Both by Monte Carlo, one code from each of `draws` images. mu, logvar: [N, L]; float64 inside.
    """
    if logvar is None:
        raise ValueError("logvar is None: an autoencoder has no posterior, so no KL to take apart")
    mu, logvar = torch.as_tensor(checked(mu, "mu")), torch.as_tensor(checked(logvar, "logvar"))
    if mu.shape != logvar.shape:
        shapes = f"{list(mu.shape)} and {list(logvar.shape)}"
        raise ValueError(f"mu and logvar must have the same shape, got {shapes}")
    if not draws >= 2:
        raise ValueError(f"draws must be at least 2, got {draws!r}")
    n = len(mu)
    generator = torch.Generator().manual_seed(_seed(seed))
    rounds = math.ceil(draws / n)
    orders = [torch.randperm(n, generator=generator) for _ in range(rounds)]
    images = torch.cat(orders)[:draws]
    noise = torch.randn(len(images), mu.shape[1], generator=generator, dtype=mu.dtype)
    z = mu[images] + (0.5 * logvar[images]).exp() * noise  # [draws, L]
    own = -0.5 * (noise.square() + logvar[images]).sum(1)  # without log(2 pi), which cancels
    log_mixture = []
    for rows in torch.arange(len(z)).split(250):
        density = _log_densities(z[rows], mu, logvar)  # [rows, N]
        density[torch.arange(len(rows)), images[rows]] = own[rows]
        log_mixture.append(density.logsumexp(1))
    gain = own - torch.cat(log_mixture) + math.log(n)
    information, error = gain.mean().item(), (gain.std() / math.sqrt(len(gain))).item()
    kl = gaussian_kl(mu, logvar).sum(1).mean().item()
    return Surgery(kl, kl - information, information, math.log(n), error)


def _log_densities(z, mu, logvar):
    """log q(z | image) of codes z [M, L] under each of N posteriors, [M, N], without log(2 pi)."""
    precision = torch.exp(-logvar)
    lengths = (mu.square() * precision).sum(1)
    if lengths.max() < 1e9:
        squares = z.square() @ precision.T - 2 * z @ (mu * precision).T + lengths
    else:
        # Nearly no noise: the three terms above would cancel each other to nothing but rounding.
        squares = 0.0
        for j in range(mu.shape[1]):
            squares = squares + (z[:, [j]] - mu[:, j]).square() * precision[:, j]
    return -0.5 * (squares + logvar.sum(1))


def fit_prior(codes, n_components=10, seed=None):
    """A prior fitted afterwards, a Gaussian mixture: returns draw(n, seed) -> [n, L].

    codes: [N, L]. Give sampled codes of training images. Draws come in random order, float32, on
    the codes' device. scikit-learn's GaussianMixture with full covariances, on codes divided by
    their spread.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    device = codes.device if isinstance(codes, torch.Tensor) else "cpu"
    codes = checked(codes)
    if not 1 <= n_components <= len(codes):
        raise ValueError(
            f"n_components must be between 1 and the {len(codes)} codes, got {n_components}"
        )
    centre, spread = codes.mean(0), np.maximum(codes.std(0), 1e-12)
    mixture = GaussianMixture(n_components, reg_covar=1e-3, random_state=_seed(seed))
    with warnings.catch_warnings():
        # Stopped early it is a prior all the same.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit((codes - centre) / spread)

    def draw(n, seed=0):
        mixture.random_state = seed % 2**32
        points = mixture.sample(n)[0]  # sorted by component
        points = points[np.random.default_rng(seed % 2**32).permutation(n)]
        return torch.as_tensor(points * spread + centre, dtype=torch.float32, device=device)

    return draw


def prior_quantiles(n):
    """n places on N(0, 1) with equal probability around each: its quantiles at 1/2n, 3/2n, ... [n].

    Quantiles 0 and 1 themselves are minus and plus infinity, so the ends stay half a step away.
    """
    if not (isinstance(n, int) and n >= 1):
        raise ValueError(f"n must be a whole number of at least 1, got {n!r}")
    return torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(n) + 0.5) / n)


def prior_grid(n):
    """Codes [n * n, 2] on the prior's quantiles, row by row from the top left: all finite."""
    places = prior_quantiles(n)
    down, across = torch.meshgrid(places.flip(0), places, indexing="ij")
    return torch.stack([across.flatten(), down.flatten()], 1)


def interpolate(start, end, steps=8, path="straight"):
    """Codes [steps, L] from start [L] to end [L], both included.

    path: "straight", or "arc", which turns from one direction to the other and does not dip
    towards the middle of the prior, where no code of a many-dimensional prior lies.
    """
    start, end = (torch.as_tensor(code).detach().flatten() for code in (start, end))
    if start.shape != end.shape:
        raise ValueError(
            f"start and end must have the same length, got {len(start)} and {len(end)}"
        )
    if not steps >= 2:
        raise ValueError(f"steps must be at least 2, got {steps!r}")
    if path not in ("straight", "arc"):
        raise ValueError(f"path must be 'straight' or 'arc', got {path!r}")
    t = torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device)[:, None]
    lengths = start.norm(), end.norm()
    if path == "straight":
        return (1 - t) * start + t * end
    if min(lengths) == 0:
        raise ValueError("a code of all zeros has no direction: take path='straight'")
    a, b = start / lengths[0], end / lengths[1]
    # The angle from its half: acos of the product loses it for nearly equal directions.
    angle = 2 * torch.atan2((a - b).norm(), (a + b).norm())
    if angle.sin() < 1e-4:
        if angle > 1:
            raise ValueError("start and end point in opposite directions: no single arc joins them")
        return (1 - t) * start + t * end
    turned = (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / angle.sin()
    return ((1 - t) * lengths[0] + t * lengths[1]) * turned


def _seed(seed):
    """The seed, by default that of the notebook, as numpy takes it."""
    return (settings.seed() if seed is None else seed) % 2**32


def _method(method):
    """The method's proper name, however it is written."""
    name = METHODS.get(str(method).lower().replace("-", "").replace("_", ""))
    if name is None:
        raise ValueError(f"method must be one of {list(METHODS.values())}, got {method!r}")
    return name


def array(values):
    """A tensor, array or list as numpy."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def checked(codes, name="codes", least=2):
    """Codes [N, L] as float64 numpy, or an error that says what is wrong with them."""
    codes = array(codes)
    if codes.ndim != 2 or len(codes) < least or codes.shape[1] < 1:
        raise ValueError(f"{name} must be [N, L] with N at least {least}, got {list(codes.shape)}")
    codes = codes.astype(np.float64)
    bad = ~np.isfinite(codes).all(1)
    if bad.any():
        raise ValueError(
            f"{name} holds NaN or infinite values in {int(bad.sum())} of {len(codes)} rows, "
            f"the first is row {int(bad.argmax())}: look there before drawing or measuring"
        )
    return codes
