"""Every figure the notebooks draw. Images are always on a fixed scale, never min-max normalised."""

import io

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.ticker import MaxNLocator

from . import latents
from .diagnostics import Landmarks, posterior
from .elbo import gaussian_kl

# Okabe & Ito's colours, and three more that stay apart for colour-blind readers: ten classes.
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000",
)  # fmt: skip
GREY = "#999999"
CLASS_COLOURS = [BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK, GREY, "#882255", "#999933"]
UNDER, OVER = "#2F6FDE", "#E8590C"  # values below and above the scale, on grey images


def ruler(landmarks, runs, unit="nats per image", digits=1):
    """Where runs lie among the landmarks: one bar a run, its KL hatched, the landmarks as lines.

    landmarks: a Landmarks, or a dict name -> value. runs: dict name -> a History, or a dict with
    `reconstruction` and, where it is in the same unit, `kl`. Returns the figure.
    """
    marks = landmarks._asdict() if isinstance(landmarks, Landmarks) else dict(landmarks)
    names = {
        "floor": "floor: the data's\nown entropy",
        "linear": "linear model\n(PCA)",
        "mean_image": "mean image\n(collapse)",
    }
    ends = {name: run if isinstance(run, dict) else run.final for name, run in runs.items()}
    fig, ax = plt.subplots(figsize=(8, 1.3 + 0.42 * len(ends)))
    rows = range(len(ends))
    reconstruction = [end["reconstruction"] for end in ends.values()]
    kl = [end.get("kl", 0.0) for end in ends.values()]
    ax.barh(rows, reconstruction, color=BLUE, height=0.55, label="reconstruction")
    if any(kl):
        hatched = {"color": SKY, "edgecolor": "white", "hatch": "///", "label": "KL"}
        ax.barh(rows, kl, left=reconstruction, height=0.55, **hatched)
    for row, total in enumerate(map(sum, zip(reconstruction, kl, strict=True))):
        paper = {"color": "white", "pad": 0.5}
        ax.text(total, row, f" {total:.{digits}f}", va="center", fontsize=9, zorder=4, bbox=paper)
    ax.set_yticks(range(len(ends)), ends)
    ax.set_ylim(len(ends) - 0.5, -0.65)
    reach = [0.0, *marks.values(), *reconstruction, *map(sum, zip(reconstruction, kl, strict=True))]
    ax.set_xlim(1.12 * min(reach), 1.12 * max(reach))  # the nats of a density can be negative
    near = 0.2 * (max(reach) - min(reach))  # neighbours this close turn their labels away from each other
    for name, value in marks.items():
        ax.axvline(value, color=ORANGE, lw=1.5, ls="--", zorder=3)
        above = any(0 < other - value < near for other in marks.values())
        below = any(0 < value - other < near for other in marks.values())
        side = {"ha": "right" if above and not below else "left" if below and not above else "center"}
        text = f"{names.get(name, name)}\n{value:.{digits}f}"
        ax.text(value, -0.75, text, va="bottom", fontsize=8.5, color="#A04000", **side)
    ax.set_xlabel(f"{unit} (lower is better)")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig


def strip(rows, value_range=(0.0, 1.0), title=None, size=0.82):
    """The same images before and after, one labelled row each, on one fixed scale.

    rows: dict label -> images [n, C, H, W]. Grey values below the scale are drawn blue, above it
    orange, so that nothing is hidden; RGB values are cut at the scale. size: of one image, in inches.
    Returns the figure.
    """
    low, high = value_range
    n = max(len(images) for images in rows.values())
    figsize = (1.15 + size * n, (size + 0.06) * len(rows) + 0.1)
    fig, axes = plt.subplots(len(rows), n, figsize=figsize, squeeze=False, layout="constrained")
    for line, (label, images) in zip(axes, rows.items(), strict=True):
        for ax in line:
            ax.set_axis_off()
        for ax, image in zip(line, images, strict=False):
            show_image(ax, image, low, high)
        line[0].text(-0.12, 0.5, label, transform=line[0].transAxes, ha="right", va="center", fontsize=9.5)
    if title:
        fig.suptitle(title, x=0.01, ha="left", fontsize=11)
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
    return fig


def show_image(ax, image, low=0.0, high=1.0):
    """One image [C, H, W] on a fixed scale; grey values outside it are coloured, RGB values cut."""
    image = image.detach().float().cpu()
    if len(image) == 1:
        slack = 0.005 * (high - low)  # a rounding error is not a finding
        cmap = plt.get_cmap("gray").with_extremes(under=UNDER, over=OVER)
        inside = image[0].clone()
        inside[(inside < low) & (inside >= low - slack)] = low
        inside[(inside > high) & (inside <= high + slack)] = high
        ax.imshow(inside.numpy(), cmap=cmap, vmin=low, vmax=high)
    else:
        ax.imshow(((image - low) / (high - low)).clamp(0, 1).permute(1, 2, 0).numpy())
    ax.set_axis_off()


def reconstructions(model, x, label="reconstruction", value_range=(0.0, 1.0)):
    """Images above, the model's reconstructions at z = mu below. x: [n, C, H, W]. Returns the figure."""
    return strip({"input": x, label: model.reconstruct(x)}, value_range)


def prior_samples(model, n=16, seed=0, value_range=(0.0, 1.0)):
    """n new pictures decoded from z ~ N(0, I), in rows of eight. Returns the figure."""
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    images = model.sample(n, generator)
    return strip({"samples" if i == 0 else " " * i: images[i : i + 8] for i in range(0, n, 8)}, value_range)


def latent_map(
    source, x=None, labels=None, n=2000, perplexity=30, seed=0, method=("t-SNE", "PCA"), sampled=False,
    max_iter=500,
):  # fmt: skip
    """Codes drawn in two dimensions, one panel for each method, coloured by labels. Returns the figure.

    latent_map(model, x, labels) maps the codes of images x: mu, or with `sampled` one draw from each
    posterior. latent_map(codes, labels) maps codes [N, L]. labels (optional) [N]: whole numbers or
    text are classes, floats a continuous colour. method: of "t-SNE", "PCA", "raw" (the two most
    active latents as they are: largest mean KL of a model, largest variance of codes), one or more.
    At most n codes are drawn, chosen with `seed`; the title says how many of how many, the line
    under a map its settings. Raises ValueError for too few codes for the perplexity, NaN codes, or
    labels of another length. Distances between the islands of t-SNE and their sizes mean little
    (Wattenberg et al. 2016).
    """
    is_model, activity = hasattr(source, "encode"), None
    if not is_model and labels is None:
        x, labels = None, x
    if is_model == (x is None):
        raise ValueError("give latent_map(model, x, labels) with images x, or latent_map(codes, labels)")
    everything = x if is_model else torch.as_tensor(latents.checked(source))
    labels = None if labels is None else latents.array(labels)
    if labels is not None and labels.shape != (len(everything),):
        got = list(labels.shape)
        raise ValueError(f"labels must have one value for each of the {len(everything)} codes, got {got}")
    keep = torch.randperm(len(everything), generator=torch.Generator().manual_seed(seed))[:n]
    codes = everything[keep.to(everything.device)]
    if is_model:
        mu, logvar = posterior(source, codes)
        generator = torch.Generator(mu.device).manual_seed(seed)
        codes = source.reparameterise(mu, logvar, generator) if sampled and logvar is not None else mu
        activity = None if logvar is None else gaussian_kl(mu, logvar).mean(0)
    methods = [method] if isinstance(method, str) else list(method)
    panels = [latents.project(codes, one, perplexity, seed, "pca", max_iter, activity) for one in methods]
    count = f"all {len(codes):,} codes"
    if len(codes) < len(everything):
        count = f"{len(codes):,} of {len(everything):,} codes, drawn with seed {seed}"
    fig, axes = plt.subplots(1, len(panels), figsize=(4.3 * len(panels), 4.3), squeeze=False)
    for ax, panel in zip(axes[0], panels, strict=True):
        colour = _scatter(ax, panel.points, None if labels is None else labels[keep.numpy()])
        ax.set_title(f"{panel.method}, {count}", fontsize=10)
        ax.set_xlabel(panel.settings, fontsize=9)
        if panel.method == "raw":
            ax.xaxis.set_major_locator(MaxNLocator(5))
            ax.yaxis.set_major_locator(MaxNLocator(5))
    if colour is not None:
        fig.colorbar(colour, ax=list(axes[0]), shrink=0.8)
    return fig


def maps(projections, labels=None, columns=4, names=None):
    """Small maps side by side, the settings of each written under it. Returns the figure.

    projections: dict title -> a `latents.Projection`. labels: [N], or a dict title -> labels for
    those that have some; classes (see `names` for their names) are told apart by colour.
    """
    labels = labels if isinstance(labels, dict) else dict.fromkeys(projections, labels)
    labels = {title: latents.array(own) for title, own in labels.items() if own is not None}
    for title, own in labels.items():
        if len(own) != (n := len(projections[title].points)):
            raise ValueError(f"labels of {title!r} must have one value for each of {n} codes, got {len(own)}")
    classes = sorted({label for own in labels.values() if own.dtype.kind != "f" for label in own.tolist()})
    columns = min(columns, len(projections))
    rows = -(-len(projections) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(2.45 * columns, 2.95 * rows + 0.35), squeeze=False)
    for ax in axes.flat[len(projections) :]:
        ax.set_axis_off()
    for ax, (title, shown) in zip(axes.flat, projections.items(), strict=False):
        _scatter(ax, shown.points, labels.get(title), 4, False, classes)
        ax.set_title(title, fontsize=9.5)
        ax.set_xlabel(shown.settings.replace(", start", ",\nstart"), fontsize=8)
    if classes:
        dots = [plt.Line2D([], [], ls="", marker="o", ms=5, color=_colour(k)) for k in range(len(classes))]
        words = [str(k if names is None else names[k]) for k in classes]
        fig.legend(dots, words, loc="outside lower center", ncols=10, handletextpad=0.1, columnspacing=1.2)
    return fig


def _colour(k):
    return CLASS_COLOURS[k % len(CLASS_COLOURS)]


def _scatter(ax, points, labels=None, size=5, named=True, classes=None):
    """Points coloured by class, named at its median, or by a float: then returns what a colour bar needs."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(True)
    if labels is None:
        ax.scatter(*points.T, s=size, color=GREY, alpha=0.7, linewidths=0)
        return None
    if labels.dtype.kind == "f":
        return ax.scatter(*points.T, s=size, c=labels, cmap="viridis", alpha=0.8, linewidths=0)
    for k, label in enumerate(np.unique(labels) if classes is None else classes):
        mine = points[labels == label]
        ax.scatter(*mine.T, s=size, color=_colour(k), alpha=0.6, linewidths=0)
        paper = {"color": "white", "alpha": 0.75, "pad": 0.6}
        place = {"ha": "center", "va": "center", "weight": "bold", "fontsize": 12, "bbox": paper}
        if named and len(mine):
            ax.text(*np.median(mine, 0), str(label), color=_colour(k), **place)
    return None


@torch.no_grad()
def latent_plane(model, codes=None, labels=None, side=14, value_range=(0.0, 1.0)):
    """A two-dimensional latent space on the prior's quantiles: where codes lie, and what is decoded there.

    Both axes run over the prior's quantiles from 0 to 1, so the prior is spread evenly and an empty
    region is a hole. codes: [N, 2], best sampled ones; without them only the decoded grid is drawn.
    labels: [N] classes. Raises ValueError unless the model has two latents. Returns the figure.
    """
    if model.latent_dim != 2:
        raise ValueError(f"model must have 2 latents to be drawn on a plane, it has {model.latent_dim}")
    like = next(model.parameters())
    images = model.likelihood.mean(model.decode(latents.prior_grid(side).to(like)))
    images = torch.nn.functional.pad(images, (0, 1, 0, 1), value=value_range[1])  # lines between them
    _, channels, height, width = images.shape
    canvas = images.view(side, side, channels, height, width).permute(2, 0, 3, 1, 4)
    panels = 1 if codes is None else 2
    fig, axes = plt.subplots(1, panels, figsize=(4.1 * panels, 4.2), squeeze=False)
    if codes is not None:
        places = torch.special.ndtr(torch.as_tensor(latents.checked(codes))).numpy()
        _scatter(axes[0, 0], places, None if labels is None else latents.array(labels))
        axes[0, 0].set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axes[0, 0].set(xlabel="first latent, as a quantile of the prior", ylabel="second latent, likewise")
        axes[0, 0].set_title(f"{len(places):,} codes; the prior would fill this evenly", fontsize=10)
    show_image(axes[0, -1], canvas.reshape(channels, side * height, side * width), *value_range)
    axes[0, -1].set_title(f"decoded at {side} x {side} quantiles of the prior", fontsize=10)
    return fig


def latent_slider(model, start, end, live=None, value_range=(0.0, 1.0)):
    """A slider from code start [L] to code end [L] with the decoded picture beside it; returns the widget.

    live: None makes it only where a notebook page is looking (JupyterLab, Jupyter Notebook, VS Code)
    and ipywidgets is installed; True wherever ipywidgets is; False never. Without a slider it prints
    one line and returns None: `strip` of the same codes shows all of it.
    """
    if live is False or (live is None and not _watched()):
        print("A slider appears here in a live notebook with ipywidgets. The strip shows the same path.")
        return None
    try:
        import ipywidgets
    except ImportError:
        print("No slider: ipywidgets is not installed. The strip shows the same path.")
        return None
    like = next(model.parameters())
    start, end = (torch.as_tensor(code).detach().flatten().to(like) for code in (start, end))

    @torch.no_grad()
    def picture(t):
        image = model.likelihood.mean(model.decode(((1 - t) * start + t * end)[None]))[0]
        fig, ax = plt.subplots(figsize=(2.2, 2.2), layout="none")
        show_image(ax, image, *value_range)
        ax.set_position([0, 0, 1, 1])
        with io.BytesIO() as file:
            fig.savefig(file, format="png", dpi=100, bbox_inches=None)
            plt.close(fig)
            return file.getvalue()

    shown = ipywidgets.Image(value=picture(0.0), format="png", width=220, height=220)
    slider = ipywidgets.FloatSlider(value=0.0, min=0.0, max=1.0, step=0.05, description="from 0 to 1")
    slider.observe(lambda change: setattr(shown, "value", picture(change["new"])), "value")
    return ipywidgets.VBox([slider, shown])


def _watched():
    """Whether a notebook page sent the running cell: it names the cell; nbclient and scripts do not."""
    try:
        from IPython import get_ipython

        return "cellId" in get_ipython().get_parent().get("metadata", {})
    except (ImportError, AttributeError):
        return False


def training_history(history, floor=None):
    """Negative ELBO, KL and active units before training and after each epoch. Returns the figure."""
    fig, axes = plt.subplots(1, 3, figsize=(9, 2.7))
    rows = [history.start, *history.epochs]
    titles = {"negative_elbo": "negative ELBO (nats)", "kl": "KL (nats)", "active_units": "active units"}
    splits = {"train": ("o-", BLUE, "training images"), "test": ("s--", ORANGE, "held-out images")}
    for ax, (measure, title) in zip(axes, titles.items(), strict=True):
        for split, (line, colour, label) in splits.items():
            if history.start[split] is not None:
                ax.plot([row[split][measure] for row in rows], line, color=colour, label=label, ms=3.5)
        ax.set(title=title, xlabel="epoch (0: before training)")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if ax.dataLim.ymin >= 0:  # the nats of a density can be negative
            ax.set_ylim(bottom=0)
    if floor is not None:
        axes[0].axhline(floor, color=GREY, ls=":", lw=1.5)
        axes[0].text(0, floor, "floor", color="#666666", fontsize=8.5, va="bottom")
    axes[0].legend()
    return fig


def kl_per_latent(kl, unit="nats"):
    """Mean KL of each latent, largest first: used latents stand up, unused ones lie at zero.

    kl: [N, L] as from `elbo_terms`. Returns the figure.
    """
    means = kl.mean(0).sort(descending=True).values.cpu().numpy()
    fig, ax = plt.subplots(figsize=(8, 2.2))
    ax.bar(range(1, len(means) + 1), means, color=BLUE)
    ax.set(xlabel="latent, largest KL first", ylabel=f"mean KL ({unit})", xlim=(0.4, len(means) + 0.6))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return fig


def beta_axis(threshold, betas, active=None, title=None):
    """Losses on one beta axis with the cliff on it: left of it codes can live, right of it they die.

    threshold: the collapse threshold. betas: dict label -> effective beta. active: dict label ->
    active units of a trained model, for those that were trained. Returns the figure.
    """
    active = active or {}
    fig, ax = plt.subplots(figsize=(8.6, 0.9 + 0.34 * len(betas)))
    low, high = 0.2 * min(*betas.values(), threshold), 200 * max(*betas.values(), threshold)
    ax.axvspan(low, threshold, color=BLUE, alpha=0.07, lw=0)
    ax.axvspan(threshold, high, color=ORANGE, alpha=0.13, lw=0)
    ax.axvline(threshold, color=ORANGE, lw=2.2)
    ax.axvline(1, color=GREY, lw=1, ls=":")
    for row, (label, beta) in enumerate(betas.items()):
        if label not in active:
            ax.plot(beta, row, "o", mfc="white", mec="black", ms=8)
        elif active[label] > 0:
            ax.plot(beta, row, "o", color=BLUE, ms=8)
        else:
            ax.plot(beta, row, "X", color=ORANGE, ms=9)
        note = f"{beta:,.3g}" if beta < 1000 else f"{beta:,.0f}"
        note += f", {active[label]} active" if label in active else ""
        crosses = beta < threshold < beta * (high / low) ** 0.25  # on the right of its dot
        place = {"xytext": (-10 if crosses else 10, 0), "ha": "right" if crosses else "left"}
        ax.annotate(note, (beta, row), textcoords="offset points", va="center", fontsize=8.5, **place)
    above = {"va": "bottom", "fontsize": 9, "transform": ax.get_xaxis_transform()}
    ax.text(threshold, 1.01, f"the cliff: {threshold:.0f}", color="#A04000", ha="center", **above)
    ax.text(1, 1.01, "ELBO", color="#666666", ha="center", **above)
    ax.set_yticks(range(len(betas)), betas)
    ax.set(xscale="log", xlim=(low, high), ylim=(len(betas) - 0.4, -0.6), xlabel="effective beta")
    if title:
        ax.set_title(title, pad=18)
    return fig


def lines(curves, x=None, marks=None, xlabel="step", ylabel="", yscale="linear", ylim=None):
    """Named curves on one axis, with named horizontal lines across it. Returns the figure.

    curves: dict label -> values. x: their common axis; default 1, 2, 3 ... marks: dict label -> height.
    yscale: as in matplotlib, e.g. "log" or "symlog".
    """
    fig, ax = plt.subplots(figsize=(8.4, 3.3))
    for i, (label, values) in enumerate(curves.items()):
        places = range(1, len(values) + 1) if x is None else x
        style = ("-", "--", "-.", ":")[i // 7 % 4]
        ax.plot(places, values, style, label=label, lw=1.5 if len(values) > 500 else 1.8)
    ax.set(xlabel=xlabel, ylabel=ylabel, yscale=yscale, ylim=ylim)
    for label, height in (marks or {}).items():
        ax.axhline(height, color=GREY, ls=":", lw=1.5, zorder=1)
        place = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": 8.5, "color": "#666666"}
        ax.text(1.01, height, label, **place)
    ax.legend(loc="upper left", bbox_to_anchor=(1.2 if marks else 1.0, 1.0))
    return fig


def saturation_history(runs, steps=None):
    """A bounded output layer step by step: mean pre-activation, share of saturated outputs, gradient.

    runs: dict label -> the list that `watch_saturation` filled. steps: draw the first ones only.
    The gradient is on a log scale, cut off at 1e-12. Returns the figure.
    """
    panels = {
        "preactivation": "mean input of the\noutput activation",
        "saturated": "share of saturated\noutputs",
        "gradient": "mean |gradient| that\nreaches the decoder",
    }
    fig, axes = plt.subplots(1, 3, figsize=(9.4, 3.1))
    for ax, (measure, title) in zip(axes, panels.items(), strict=True):
        for label, rows in runs.items():
            values = [getattr(row, measure) for row in rows[:steps]]
            values = np.maximum(values, 1e-12) if measure == "gradient" else values
            ax.plot(range(1, len(values) + 1), values, label=label)
        ax.set(title=title, xlabel="step")
    axes[1].set_ylim(-0.03, 1.03)
    axes[2].set_yscale("log")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return fig


def output_curve(x, outputs, low=None, high=None):
    """What a model answers to each true pixel value: the mean output in 25 bins of x, by model.

    x: true pixels in [0, 1]. outputs: dict label -> reconstructions shaped like x, in the same
    unit. low, high: the limits of a bounded output, drawn as a band. Returns the figure.
    """
    fig, ax = plt.subplots(figsize=(6.4, 3.9))
    edges = np.linspace(0, 1, 26)
    place = np.digitize(x.flatten().cpu().numpy(), edges[1:-1])
    counts = np.bincount(place, minlength=25)
    seen = counts >= 20  # a mean of fewer pixels says nothing
    if low is not None:
        ax.axhspan(low, high, color=GREY, alpha=0.18, lw=0, label="what the tanh can reach")
    ax.plot([0, 1], [0, 1], color=GREY, ls=":", lw=1.5)
    for (label, y), style in zip(outputs.items(), ("-", "--", "-.", ":"), strict=False):
        means = np.bincount(place, y.flatten().cpu().double().numpy(), minlength=25)[seen] / counts[seen]
        ax.plot((edges[:-1] + 0.02)[seen], means, style, label=label)
    ax.set(xlabel="true pixel, 0 black to 1 white", ylabel="mean output", xlim=(0, 1), ylim=(0, 1))
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig


def beliefs(outputs):
    """What likelihoods say about one value, given the decoder's output: its density or probabilities.

    outputs: dict name -> (likelihood, output [1, outputs_per_value]). Dashed: the mean, which is what
    a picture shows. Orange: belief in values outside [0, 1]. Returns the figure.
    """
    fig, axes = plt.subplots(1, len(outputs), figsize=(1.95 * len(outputs), 2.5), squeeze=False)
    for ax, (name, (likelihood, output)) in zip(axes[0], outputs.items(), strict=True):
        levels = 2 if likelihood.name == "Bernoulli" else getattr(likelihood, "levels", None)
        x = torch.linspace(0, 1, levels) if levels else torch.linspace(-0.5, 1.5, 801)
        inside = (x >= likelihood.support[0]) & (x <= likelihood.support[1])
        p = torch.zeros_like(x)
        p[inside] = (-likelihood.nll(output.expand(int(inside.sum()), -1), x[inside, None])).exp().detach()
        x, p, inside = x.numpy(), p.numpy(), inside.numpy()
        if levels:
            ax.bar(x, p, width=0.8 / (levels + 6), color=BLUE)
        else:
            for where, colour in (((x < 0) | (x > 1), ORANGE), ((x >= 0) & (x <= 1), BLUE)):
                ax.fill_between(x, p, where=where, color=colour, alpha=0.5, lw=0)
            ax.plot(x[inside], p[inside], color=BLUE, lw=1.3)
        ax.axvline(likelihood.mean(output).item(), color=BLACK, ls="--", lw=1.2)
        ax.set_title(name, fontsize=9.5)
        ax.set(xlim=(-0.5, 1.5), xticks=[0, 1], xlabel="pixel", ylabel="probability" if levels else "density")
        ax.set_ylim(bottom=0)
    return fig


def latent_maps(models, x, labels, n=1000, perplexity=30, seed=0):
    """Codes of several models side by side: t-SNE of mu; PCA of mu; PCA of sampled codes. Returns the figure.

    models: dict title -> model. t-SNE has no scale; both PCA rows share one, and their circle holds
    86% of the prior N(0, I) seen from any two sides. Dots are coloured by label.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    keep = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:n]
    generator = torch.Generator(x.device).manual_seed(seed)
    fig, axes = plt.subplots(3, len(models), figsize=(2.5 * len(models) + 0.4, 7.6), squeeze=False)
    for column, (title, model) in zip(axes.T, models.items(), strict=True):
        mu, logvar = posterior(model, x[keep.to(x.device)])
        z = model.reparameterise(mu, logvar, generator)
        tsne = TSNE(2, perplexity=perplexity, init="pca", max_iter=400, random_state=seed)
        pca = PCA(2, random_state=seed)
        maps = [tsne.fit_transform(mu.cpu().numpy())]
        maps += [pca.fit_transform(codes.cpu().numpy()) for codes in (mu, z)]
        for ax, points in zip(column, maps, strict=True):
            colours = [CLASS_COLOURS[k % len(CLASS_COLOURS)] for k in labels.cpu()[keep].tolist()]
            ax.scatter(*points.T, s=4, c=colours, alpha=0.6, linewidths=0)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(True)
        for ax in column[1:]:
            ax.add_patch(plt.Circle((0, 0), 2, fill=False, color=BLACK, lw=1, ls="--"))
            ax.set(xlim=(-5, 5), ylim=(-5, 5), aspect="equal")
        column[0].set_title(title, fontsize=10)
    names = (f"mu, t-SNE\nperplexity {perplexity}, seed {seed}", "mu, PCA\none scale")
    names += ("sampled codes, PCA\none scale",)
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(name, fontsize=9.5)
    return fig


def spectrum(variances, sigma2s, n=40):
    """The data's variance along each principal direction, and levels of sigma^2 to compare it with.

    variances: [D], largest first. sigma2s: dict label -> sigma^2. A linear VAE uses the directions
    above its line. Returns the figure.
    """
    fig, ax = plt.subplots(figsize=(8, 3.2))
    shown = variances[:n].cpu().numpy()
    ax.bar(range(1, len(shown) + 1), shown, color=SKY)
    for (label, value), colour in zip(sigma2s.items(), (GREEN, BLUE, ORANGE, BLACK, PINK), strict=False):
        used = int((variances > value).sum())
        ax.axhline(value, color=colour, lw=1.6)
        ax.text(len(shown) + 0.9, value, f"{label}: {used} above", color=colour, va="center", fontsize=9)
    ax.set_yscale("log")
    ax.set(xlabel="principal direction", ylabel="variance of the data", xlim=(0.3, len(shown) + 0.7))
    return fig


def rate_distortion(curve, points, marks=None, aside=None):
    """Rate (KL) against distortion: a theoretical curve, trained models on it, landmarks as lines.

    curve: (rates, distortions). points: dict label -> (rate in nats, distortion). marks: dict label
    -> distortion, drawn across. aside: dict label -> distortion of models without a finite rate,
    drawn as an arrow at the right edge. The rate axis is a square root, so that both ends can be read.
    """
    fig, ax = plt.subplots(figsize=(8, 4.2))
    right = 1.6 * max(*curve[0], *(rate for rate, _ in points.values()))
    ax.plot(*curve, color=GREY, lw=2, label="linear VAE, identity output (closed form)")
    symbols = zip(points.items(), "osD^vP*X<>hd", strict=False)
    colours = [BLUE, ORANGE, GREEN, PINK, YELLOW, BLACK, "#882255"]
    for i, ((label, (rate, distortion)), marker) in enumerate(symbols):
        ax.plot(rate, distortion, marker, color=colours[i % 7], ms=8, ls="none", label=label, clip_on=False)
    for label, value in (marks or {}).items():
        ax.axhline(value, color=ORANGE, lw=1.2, ls="--")
        ax.text(right, value, f"{label} {value:.2f}", color="#A04000", fontsize=8.5, va="bottom", ha="right")
    for label, value in (aside or {}).items():
        ax.annotate(label, (right, value), (-62, 14), textcoords="offset points", fontsize=9,
                    arrowprops={"arrowstyle": "->", "color": BLACK}, ha="right")  # fmt: skip
    ax.set_xscale("function", functions=(np.sqrt, np.square))
    ax.set(xlim=(0, right), xlabel="rate: KL in nats per image (square-root scale)")
    ax.set_ylabel("distortion: squared error per value")
    ax.set_ylim(bottom=0)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8.5)
    return fig


def gallery(tiles, columns=3, value_range=(0.0, 1.0)):
    """Several small strips side by side, inputs above outputs, on one fixed scale. Returns the figure.

    tiles: dict title -> (inputs [n, C, H, W], outputs [n, C, H, W]).
    """
    rows = -(-len(tiles) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(2.75 * columns, 1.2 * rows), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (title, images) in zip(axes.flat, tiles.items(), strict=False):
        lines = [torch.cat(list(torch.nn.functional.pad(part, (1, 1, 1, 1), value=value_range[1])), -1)
                 for part in images]  # fmt: skip
        show_image(ax, torch.cat(lines, -2), *value_range)
        ax.set_title(title, fontsize=9.5, loc="left", pad=3)
    return fig
