"""The figures that notebooks share. Images are on a fixed scale, never min-max normalised."""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.ticker import MaxNLocator

from . import latents
from .adapt import evaluating
from .diagnostics import Landmarks

# Okabe & Ito's colours, and three more that stay apart for colour-blind readers: ten classes.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
YELLOW, SKY, BLACK, GREY = "#E69F00", "#56B4E9", "#000000", "#999999"
CLASS_COLOURS = [BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK, GREY, "#882255", "#999933"]
UNDER, OVER = "#2F6FDE", "#E8590C"  # values below and above the scale, on grey images
SLACK = 0.02  # of the scale: values that leave it by less are not marked
LANDMARK_NAMES = {
    "floor": "floor: the output\nequals the input",
    "linear": "linear model\n(PCA)",
    "mean_image": "mean image\n(collapse)",
}


def ruler(landmarks, runs, unit="nats per image", digits=1):
    """Where runs lie among the landmarks: one bar a run, its KL hatched, the landmarks as lines.

    landmarks: a Landmarks, or a dict name -> value. runs: dict name -> a History, or a dict with
    `reconstruction` and, where it is in the same unit, `kl`. Returns the figure.
    """
    marks = landmarks._asdict() if isinstance(landmarks, Landmarks) else dict(landmarks)
    ends = {name: run if isinstance(run, dict) else run.final for name, run in runs.items()}
    reconstruction = [end["reconstruction"] for end in ends.values()]
    kl = [end.get("kl", 0.0) for end in ends.values()]
    totals = [error + nats for error, nats in zip(reconstruction, kl, strict=True)]
    rows = range(len(ends))
    fig, ax = plt.subplots(figsize=(8, 1.3 + 0.42 * len(ends)))
    ax.barh(rows, reconstruction, color=BLUE, height=0.55, label="reconstruction")
    if any(kl):
        hatched = {"color": SKY, "edgecolor": "white", "hatch": "///", "label": "KL"}
        ax.barh(rows, kl, left=reconstruction, height=0.55, **hatched)
    for row, total in enumerate(totals):
        paper = {"color": "white", "pad": 0.5}
        ax.text(total, row, f" {total:.{digits}f}", va="center", fontsize=9, zorder=4, bbox=paper)
    ax.set_yticks(rows, ends)
    ax.set_ylim(len(ends) - 0.5, -0.65)
    reach = [0.0, *marks.values(), *reconstruction, *totals]
    ax.set_xlim(1.12 * min(reach), 1.12 * max(reach))  # the nats of a density can be negative
    near = 0.2 * (max(reach) - min(reach))
    for name, value in marks.items():
        ax.axvline(value, color=ORANGE, lw=1.5, ls="--", zorder=3)
        text = f"{LANDMARK_NAMES.get(name, name)}\n{value:.{digits}f}"
        side = _side(value, marks.values(), near)
        ax.text(value, -0.75, text, va="bottom", ha=side, fontsize=8.5, color="#A04000")
    ax.set_xlabel(f"{unit} (lower is better)")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig


def _side(value, others, near):
    """Where a landmark's label goes: close neighbours turn their labels away from each other."""
    above = any(0 < other - value < near for other in others)
    below = any(0 < value - other < near for other in others)
    if above == below:
        return "center"
    return "right" if above else "left"


def strip(rows, value_range=(0.0, 1.0), title=None, size=0.82):
    """The same images before and after, one labelled row each, on one fixed scale.

    rows: dict label -> images [n, C, H, W]. Grey values below the scale are drawn blue, above it
    orange, so that nothing is hidden; RGB values are cut at the scale. size: of one image, in
    inches. Returns the figure.
    """
    n = max(len(images) for images in rows.values())
    figsize = (1.15 + size * n, (size + 0.06) * len(rows) + 0.1)
    fig, axes = plt.subplots(len(rows), n, figsize=figsize, squeeze=False, layout="constrained")
    for line, (label, images) in zip(axes, rows.items(), strict=True):
        for ax in line:
            ax.set_axis_off()
        for ax, image in zip(line, images, strict=False):
            show_image(ax, image, *value_range)
        place = {"transform": line[0].transAxes, "ha": "right", "va": "center"}
        line[0].text(-0.12, 0.5, label, fontsize=9.5, **place)
    if title:
        fig.suptitle(title, x=0.01, ha="left", fontsize=11)
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
    return fig


def show_image(ax, image, low=0.0, high=1.0):
    """One image [C, H, W] on a fixed scale; grey values well outside it are coloured, RGB cut."""
    image = image.detach().float().cpu()
    ax.set_axis_off()
    if len(image) != 1:
        unit = (image - low) / (high - low)
        ax.imshow(unit.clamp(0, 1).permute(1, 2, 0).numpy())
        return
    slack = SLACK * (high - low)
    grey = image[0]
    clipped = grey.clamp(low, high)
    slight = (grey - clipped).abs() <= slack
    cmap = plt.get_cmap("gray").with_extremes(under=UNDER, over=OVER)
    ax.imshow(torch.where(slight, clipped, grey).numpy(), cmap=cmap, vmin=low, vmax=high)


def maps(projections, labels=None, columns=4, names=None):
    """Small maps side by side, the settings of each written under it. Returns the figure.

    projections: dict title -> a `latents.Projection`. labels: [N], or a dict title -> labels for
    those that have some; classes (see `names` for their names) are told apart by colour.
    """
    labels = labels if isinstance(labels, dict) else dict.fromkeys(projections, labels)
    labels = {title: latents.array(own) for title, own in labels.items() if own is not None}
    for title, own in labels.items():
        n = len(projections[title].points)
        if len(own) != n:
            raise ValueError(
                f"labels of {title!r} must have one value for each of {n} codes, got {len(own)}"
            )
    classes = _classes(labels.values())
    columns = min(columns, len(projections))
    rows = (len(projections) + columns - 1) // columns
    figsize = (2.45 * columns, 2.95 * rows + 0.35)
    fig, axes = plt.subplots(rows, columns, figsize=figsize, squeeze=False)
    for ax in axes.flat[len(projections) :]:
        ax.set_axis_off()
    for ax, (title, projection) in zip(axes.flat, projections.items(), strict=False):
        _scatter(ax, projection.points, labels.get(title), size=4, named=False, classes=classes)
        ax.set_title(title, fontsize=9.5)
        ax.set_xlabel(projection.settings.replace(", start", ",\nstart"), fontsize=8)
    if classes:
        words = [str(k if names is None else names[k]) for k in classes]
        _class_legend(fig, words)
    return fig


def _classes(labels):
    """All classes among several label arrays, sorted; floats are no classes."""
    found = set()
    for own in labels:
        if own.dtype.kind != "f":
            found.update(own.tolist())
    return sorted(found)


def _class_legend(fig, words):
    """One coloured dot and a word for each class, under the figure."""
    dots = [
        plt.Line2D([], [], ls="", marker="o", ms=5, color=_colour(k)) for k in range(len(words))
    ]
    fig.legend(
        dots, words, loc="outside lower center", ncols=10, handletextpad=0.1, columnspacing=1.2
    )


def _colour(k):
    return CLASS_COLOURS[k % len(CLASS_COLOURS)]


def _scatter(ax, points, labels=None, size=5, named=True, classes=None):
    """Points coloured by class, or by a float: then it returns what a colour bar needs."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(True)
    if labels is None:
        ax.scatter(*points.T, s=size, color=GREY, alpha=0.7, linewidths=0)
        return None
    if labels.dtype.kind == "f":
        return ax.scatter(*points.T, s=size, c=labels, cmap="viridis", alpha=0.8, linewidths=0)
    paper = {"color": "white", "alpha": 0.75, "pad": 0.6}
    place = {"ha": "center", "va": "center", "weight": "bold", "fontsize": 12, "bbox": paper}
    for k, label in enumerate(np.unique(labels) if classes is None else classes):
        mine = points[labels == label]
        ax.scatter(*mine.T, s=size, color=_colour(k), alpha=0.6, linewidths=0)
        if named and len(mine):
            ax.text(*np.median(mine, 0), str(label), color=_colour(k), **place)
    return None


def latent_plane(model, codes=None, labels=None, side=14, value_range=(0.0, 1.0)):
    """A two-dimensional latent space on the prior's quantiles: where codes lie, what is decoded.

    Both axes run over the prior's quantiles from 0 to 1, so the prior is spread evenly and an empty
    region is a hole. codes: [N, 2], best sampled ones; without them only the decoded grid is drawn.
    labels: [N] classes. Raises ValueError unless the model has two latents. Returns the figure.
    """
    if model.latent_dim != 2:
        raise ValueError(
            f"model must have 2 latents to be drawn on a plane, it has {model.latent_dim}"
        )
    panels = 1 if codes is None else 2
    fig, axes = plt.subplots(1, panels, figsize=(4.1 * panels, 4.2), squeeze=False)
    if codes is not None:
        _quantile_scatter(axes[0, 0], codes, labels)
    z = latents.prior_grid(side).to(next(model.parameters()))
    with evaluating(model):
        images = model.likelihood.mean(model.decode(z))
    white = value_range[1]
    images = torch.nn.functional.pad(images, (0, 1, 0, 1), value=white)  # lines between them
    rows = [torch.cat(list(line), -1) for line in images.split(side)]
    show_image(axes[0, -1], torch.cat(rows, -2), *value_range)
    axes[0, -1].set_title(f"decoded at {side} x {side} quantiles of the prior", fontsize=10)
    return fig


def _quantile_scatter(ax, codes, labels):
    """Codes [N, 2] where the prior N(0, I) would be spread evenly."""
    places = torch.special.ndtr(torch.as_tensor(latents.checked(codes))).numpy()
    _scatter(ax, places, None if labels is None else latents.array(labels))
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    ax.set_xlabel("first latent, as a quantile of the prior")
    ax.set_ylabel("second latent, likewise")
    ax.set_title(f"{len(places):,} codes; the prior would fill this evenly", fontsize=10)


def kl_per_latent(kl, unit="nats"):
    """Mean KL of each latent, largest first: used latents stand up, unused ones lie at zero.

    kl: [N, L] as from `elbo_terms`. Returns the figure.
    """
    means = kl.mean(0).sort(descending=True).values.cpu().numpy()
    fig, ax = plt.subplots(figsize=(8, 2.2))
    ax.bar(range(1, len(means) + 1), means, color=BLUE)
    ax.set(xlabel="latent, largest KL first", ylabel=f"mean KL ({unit})")
    ax.set_xlim(0.4, len(means) + 0.6)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return fig


def lines(curves, x=None, marks=None, xlabel="step", ylabel="", yscale="linear", ylim=None):
    """Named curves on one axis, with named horizontal lines across it. Returns the figure.

    curves: dict label -> values. x: their common axis; default 1, 2, 3 ... marks: dict label ->
    height. yscale: as in matplotlib, e.g. "log" or "symlog".
    """
    fig, ax = plt.subplots(figsize=(8.4, 3.3))
    for i, (label, values) in enumerate(curves.items()):
        places = range(1, len(values) + 1) if x is None else x
        style = ("-", "--", "-.", ":")[i // 7 % 4]
        ax.plot(places, values, style, label=label, lw=1.5 if len(values) > 500 else 1.8)
    ax.set(xlabel=xlabel, ylabel=ylabel, yscale=yscale, ylim=ylim)
    for label, height in (marks or {}).items():
        ax.axhline(height, color=GREY, ls=":", lw=1.5, zorder=1)
        place = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": 8.5}
        ax.text(1.01, height, label, color="#666666", **place)
    ax.legend(loc="upper left", bbox_to_anchor=(1.2 if marks else 1.0, 1.0))
    return fig
