"""Latent spaces in numbers: what a map of the codes can only suggest, measured without eyes."""

import math
import warnings
from typing import NamedTuple

import numpy as np
import torch

from . import settings

METHODS = {"tsne": "t-SNE", "pca": "PCA", "raw": "raw"}
TESTED_CODES = 3000


class Projection(NamedTuple):
    """points [N, 2] (numpy), the method's name, and its settings in words, to be drawn under the map."""

    points: np.ndarray
    method: str
    settings: str


def project(codes, method="t-SNE", perplexity=30, seed=None, start="pca", max_iter=500, activity=None):
    """Two numbers for each code [N, L], to draw it by: a Projection.

    method: "t-SNE", "PCA", or "raw" (the two most active latents as they are: those with the
    largest variance, or the largest `activity` [L], e.g. the mean KL of each latent).
    start: "pca" or "random", where t-SNE begins; from PCA another seed changes next to nothing.
    t-SNE has no scale: codes are divided by their spread first, which changes nothing but rounding.
    Raises ValueError for NaN, codes that are all alike, fewer than 2 latents, or a perplexity that
    is not between 1 and the number of codes.
    """
    method, codes = _method(method), checked(codes)
    seed = (settings.seed() if seed is None else seed) % 2**32
    if codes.shape[1] < 2:
        raise ValueError("codes must have at least 2 latents to be drawn as a map, got 1: draw a histogram")
    if method == "raw":
        active = codes.var(0) if activity is None else np.asarray(array(activity), dtype=np.float64)
        if active.shape != codes.shape[1:]:
            raise ValueError(f"activity must be [L] with L = {codes.shape[1]}, got {list(active.shape)}")
        first, second = sorted(np.argsort(-active, kind="stable")[:2].tolist())
        return Projection(codes[:, [first, second]], "raw", f"latents {first} and {second} as they are")
    centred = codes - codes.mean(0)
    spread = centred.std()
    if not spread > 1e-12 * np.abs(codes).max():
        raise ValueError("codes are all alike: the encoder gives one answer for every image, nothing to map")
    scaled = (centred / spread).astype(np.float32)
    from sklearn.decomposition import PCA

    if method == "PCA":
        points = PCA(2, random_state=seed).fit_transform(scaled) * spread
        return Projection(points, "PCA", "the two widest directions")
    if not 1 <= perplexity < len(codes):
        raise ValueError(
            f"perplexity must be below the number of points, {len(codes)}, got {perplexity}: "
            "take a smaller perplexity (1 at least) or more codes"
        )
    if start not in ("pca", "random"):
        raise ValueError(f"start must be 'pca' or 'random', got {start!r}")
    from sklearn.manifold import TSNE

    begin = start
    if start == "pca":
        # As scikit-learn does it now. In 1.6 its PCA is randomised, and t-SNE magnifies a last digit.
        begin = PCA(2, svd_solver="covariance_eigh").fit_transform(scaled).astype(np.float32)
        begin = begin / np.std(begin[:, 0]) * 1e-4
    tsne = TSNE(2, perplexity=perplexity, init=begin, max_iter=max_iter, random_state=seed)
    named = "PCA" if start == "pca" else "random"
    words = f"perplexity {perplexity:g}, {max_iter} steps, start {named}, seed {seed}"
    return Projection(tsne.fit_transform(scaled), "t-SNE", words)


def count_islands(points, smallest=5, reach=2.0):
    """How many islands an eye would see in points [N, L]: groups of at least `smallest`, apart by a gap.

    Two points belong together if a chain of steps joins them, none longer than `reach` times the
    median distance to the second nearest neighbour.
    """
    from sklearn.cluster import DBSCAN
    from sklearn.neighbors import NearestNeighbors

    points = checked(points, "points", least=4)
    step = np.median(NearestNeighbors(n_neighbors=2).fit(points).kneighbors()[0][:, 1])
    if not step > 0:
        raise ValueError("points coincide: more than half of them have two neighbours at distance 0")
    groups = DBSCAN(eps=reach * step, min_samples=1).fit_predict(points)
    return int((np.bincount(groups) >= smallest).sum())


def same_class_neighbours(points, labels, k=5):
    """Of the k nearest neighbours of each point [N, L], the mean share that has the point's own label [N].

    Guessing gives the sum of the squared class shares. Works on codes and on maps of them alike.
    """
    from sklearn.neighbors import NearestNeighbors

    points, labels = checked(points, "points"), array(labels)
    if len(labels) != len(points):
        raise ValueError(f"labels must have one value for each of {len(points)} points, got {len(labels)}")
    if not 1 <= k < len(points):
        raise ValueError(f"k must be at least 1 and below the number of points, {len(points)}, got {k}")
    neighbours = NearestNeighbors(n_neighbors=k).fit(points).kneighbors()[1]
    return float((labels[neighbours] == labels[:, None]).mean())


class TwoSample(NamedTuple):
    """What a classifier made of unseen codes: accuracy and AUC (0.5: cannot tell), how many, and a p-value.

    p_value: the chance of at least this accuracy if both sets came from one distribution.
    """

    accuracy: float
    auc: float
    held_out: int
    p_value: float


def two_sample_test(codes, prior=None, seed=None, most=TESTED_CODES):
    """Can a classifier tell codes [N, L] from draws of the prior? Fitted on one half, judged on the other.

    prior: draws [M, L] to compare with; default N draws of N(0, I). Give one sampled code per image:
    `mu` alone is narrower than the posterior, and two codes of one image would sit in both halves.
    The classifier is a support vector machine or boosted trees, whichever does better on a third of
    the fitting half. At most `most` of each are used. Accuracy well above 0.5 shows that the two
    differ; 0.5 only that this classifier cannot tell (Lopez-Paz & Oquab 2017, arXiv 1610.06545).
    """
    from scipy.stats import binom
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    codes = checked(codes, least=20)
    seed = (settings.seed() if seed is None else seed) % 2**32
    random = np.random.default_rng(seed)
    prior = random.normal(size=codes.shape) if prior is None else checked(prior, "prior", least=20)
    if prior.shape[1] != codes.shape[1]:
        raise ValueError(f"prior must have {codes.shape[1]} latents like the codes, got {prior.shape[1]}")
    n = min(len(codes), len(prior), most)
    x = np.concatenate([part[random.permutation(len(part))[:n]] for part in (codes, prior)])
    y = np.repeat([1, 0], n)
    # Each half holds as many codes as draws, so that guessing is exactly 0.5.
    order = np.concatenate([np.arange(n), np.arange(n)])
    choose, fit, judge = order < n // 6, order < n // 2, order >= n // 2
    candidates = (
        make_pipeline(StandardScaler(), SVC()),
        HistGradientBoostingClassifier(max_iter=60, random_state=seed),
    )
    rest = fit & ~choose
    scores = [model.fit(x[rest], y[rest]).score(x[choose], y[choose]) for model in candidates]
    best = candidates[int(np.argmax(scores))].fit(x[fit], y[fit])
    accuracy, held_out = float(best.score(x[judge], y[judge])), int(judge.sum())
    auc = float(roc_auc_score(y[judge], best.decision_function(x[judge])))
    return TwoSample(accuracy, auc, held_out, float(binom.sf(round(accuracy * held_out) - 1, held_out, 0.5)))


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
        raise ValueError("logvar is None: an autoencoder has no posterior, so it has no KL to take apart")
    mu, logvar = (torch.as_tensor(checked(t, name)) for t, name in ((mu, "mu"), (logvar, "logvar")))
    if mu.shape != logvar.shape:
        shapes = f"{list(mu.shape)} and {list(logvar.shape)}"
        raise ValueError(f"mu and logvar must have the same shape, got {shapes}")
    if not draws >= 2:
        raise ValueError(f"draws must be at least 2, got {draws!r}")
    n, seed = len(mu), settings.seed() if seed is None else seed
    generator = torch.Generator().manual_seed(seed)
    images = torch.cat([torch.randperm(n, generator=generator) for _ in range(-(-draws // n))])[:draws]
    noise = torch.randn(len(images), mu.shape[1], generator=generator, dtype=mu.dtype)
    z = mu[images] + (0.5 * logvar[images]).exp() * noise
    precision = (-logvar).exp()
    lengths = (mu.square() * precision).sum(1)

    def squares(part):
        """Squared distance of codes [M, L] to each posterior, in its own standard deviations [M, N]."""
        if lengths.max() < 1e9:
            return part.square() @ precision.T - 2 * part @ (mu * precision).T + lengths
        # Nearly no noise: the three terms above would cancel each other to nothing but rounding.
        return sum((part[:, [j]] - mu[:, j]).square() * precision[:, j] for j in range(mu.shape[1]))

    own = -0.5 * (noise.square() + logvar[images]).sum(1)  # without log(2 pi), which cancels
    every = []
    for rows in torch.arange(len(z)).split(250):
        density = -0.5 * (squares(z[rows]) + logvar.sum(1))
        density[torch.arange(len(rows)), images[rows]] = own[rows]
        every.append(density.logsumexp(1))
    gain = own - torch.cat(every) + math.log(n)
    information, error = gain.mean().item(), (gain.std() / len(gain) ** 0.5).item()
    kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1).mean().item()
    return Surgery(kl, kl - information, information, math.log(n), error)


def fit_prior(codes, n_components=10, seed=None):
    """A prior fitted afterwards: a Gaussian mixture on codes [N, L]; returns draw(n, seed) -> [n, L].

    Give sampled codes of training images. Draws come in random order, float32, on the codes'
    device. scikit-learn's GaussianMixture, full covariances, on codes divided by their spread.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    device = codes.device if isinstance(codes, torch.Tensor) else "cpu"
    codes = checked(codes)
    if not 1 <= n_components <= len(codes):
        raise ValueError(f"n_components must be between 1 and the {len(codes)} codes, got {n_components}")
    centre, spread = codes.mean(0), np.maximum(codes.std(0), 1e-12)
    seed = settings.seed() if seed is None else seed
    mixture = GaussianMixture(n_components, reg_covar=1e-3, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopped early it is a prior all the same
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
        raise ValueError(f"start and end must have the same length, got {len(start)} and {len(end)}")
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
        first = int(bad.argmax())
        raise ValueError(
            f"{name} holds NaN or infinite values in {int(bad.sum())} of {len(codes)} rows, the first is "
            f"row {first}: look there before drawing or measuring"
        )
    return codes
