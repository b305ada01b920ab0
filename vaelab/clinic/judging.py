"""What several checks ask of an `Observation`: the loss's weights, the use of codes, ranges."""

import math
from typing import NamedTuple

import numpy as np

from ..diagnostics import reachable_floor
from .register import Evidence, note


class Weight(NamedTuple):
    """The KL's weight in the unit of the loss, that over a natural one, its limits, in words."""

    value: float
    relative: float
    limits: tuple
    text: str


def error_of_pca(x, components):
    """The squared error per value that PCA leaves on half of the rows, fitted on the others."""
    from sklearn.decomposition import PCA

    fitted, judged = np.array_split(x.double().flatten(1).cpu().numpy(), 2)
    if components >= min(fitted.shape):
        return None
    pca = PCA(components, svd_solver="full").fit(fitted)
    return float(np.square(judged - pca.inverse_transform(pca.transform(judged))).mean())


def kl_weight(seen):
    """The `Weight` of the KL, or None where there is none to judge."""
    form, picture = seen.form, seen.picture
    if not form.a or not form.b or form.a < 0 or form.b < 0:
        return None
    at = f"at batch size {form.batch_size}"
    if form.beta is not None:
        text = f"effective beta {form.beta:.4g} {at}, where the ELBO has 1"
        return Weight(form.beta, form.beta, seen.limits.beta, text)
    if form.sigma2 is not None:
        # A broken model's error says nothing about the data: the mean image's is the largest.
        value, natural = form.sigma2, min(picture.mse, picture.mean_image_mse or math.inf)
        what = "mean squared error"
        text = f"implied sigma^2 {value:.4g} {at}"
    elif form.name == "absolute error":
        value, natural, what = form.b / form.a, picture.mae, "mean absolute error"
        text = f"implied scale {value:.4g} of a Laplace distribution {at}"
    else:
        return None
    relative = value / max(natural, 1e-12)
    text += f", {relative:.3g} times the {what} {natural:.3g}"
    return Weight(value, relative, seen.limits.sigma2, text)


def is_off(seen, weight):
    """Whether the KL's weight is outside the limits, or beyond what the data can stand."""
    low, high = weight.limits
    if not 0.99 * low <= weight.relative <= 1.01 * high:
        return True
    threshold = seen.loss.threshold
    unused = seen.comparable and seen.codes is not None and seen.codes.information < 0.1
    if not threshold or not unused or weight.value <= 0.7 * threshold:
        return False
    return seen.form.beta is None or weight.value > 1.5


def is_mean_over_latents(seen, weight):
    """Whether the KL of a summed error is averaged over the latents, to the third digit."""
    form, latents = seen.form, seen.outputs.mu[0].numel()
    if latents < 3 or weight.relative > 0.5 or form.a * seen.x[0].numel() < 3:
        return False
    return abs(form.b * latents - 1) < 1e-3


def sigma_is_off(seen):
    """Whether both terms are summed and the KL has its own weight, so that sigma is what is off."""
    form, weight = seen.form, kl_weight(seen)
    if weight is None or not form.squared or not is_off(seen, weight):
        return False
    weight_of_kl = form.b / (form.batch_size if form.summed_over_batch else 1)
    return abs(weight_of_kl - 1) < 0.01 and form.a * seen.x[0].numel() > 3


def too_much_or_little(seen, weight):
    """The evidence for a KL of the wrong weight."""
    direction = "little" if weight.relative < weight.limits[0] else "much"
    text = f"{weight.text}: the KL weighs too {direction}"
    if seen.loss.threshold:
        text += f"; on these data total collapse is stable beyond {seen.loss.threshold:.3g}"
    return text


def kl_is_weak(seen):
    """Whether nothing says that the KL had its full weight in training."""
    form = seen.form
    if form is None or form.b is None or not form.a:
        return True
    if form.beta is not None:
        return form.b < 0.5 * form.a
    return form.squared and form.sigma2 < 0.5 * seen.picture.mse


def of_forward(seen, text, remedy=""):
    """Evidence about the path from x to the output; a note where the reader's adapter is the path.

    An adapter that runs the model may draw or detach what training does not.
    """
    if not seen.patient.in_an_adapter:
        return Evidence(text, remedy=remedy)
    return note(f"in the adapter, {text}", "Write the adapter as the training step is written.")


def is_wide(condition):
    """Whether a condition has room for a picture: many real numbers, others for each row."""
    if not condition.is_floating_point() or condition[0].numel() < 8:
        return False
    return len(condition.flatten(1).unique(dim=0)) > len(condition) / 2


def width(x):
    """The range of x, 1 if all values are equal."""
    return (x.max() - x.min()).item() or 1.0


def outside(x, low, high):
    """The share of values outside a range."""
    return ((x < low) | (x > high)).double().mean().item()


def reach(x, picture):
    """(share of x out of the output's reach, the squared error that this costs at least)."""
    slack = 2e-3 * width(x)
    share = outside(x, picture.low - slack, picture.high + slack)
    return share, reachable_floor(x, picture.low, picture.high)


def reach_matters(x, picture):
    """Whether what is out of reach is a good part of the error."""
    share, floor = reach(x, picture)
    least = 0.0 if math.isnan(picture.follows) else 0.005 * picture.mean_image_mse
    return share > 0.01 and floor > max(0.05 * picture.mse, least)


def bound(picture, endings):
    """What bounds the picture."""
    ending, link = endings.reconstruction.name, picture.error.link
    if ending is None:
        return f"the loss applies a {link}"
    applied = f" and the loss applies a {link} to that" if link in ("sigmoid", "tanh") else ""
    return f"its output ends in a {ending}{applied}"


def two_activations(seen, ending, link):
    """The two activations that outputs pass, in words; "" where they pass one or none."""
    inner = seen.inner_ending.name
    if link == "two sigmoids":
        return "two sigmoids in the loss"
    if link in ("sigmoid", "tanh") and ending in ("sigmoid", "tanh"):
        return f"a {ending} in the model, then a {link} in the loss"
    return f"a {inner}, then a {ending}" if inner is not None else ""


def ends(x, picture):
    """Shares: of outputs at an end of their range, of far-off values there, of far-off values."""
    low, high, shown = picture.low, picture.high, picture.shown
    near = 1e-6 if math.isinf(high - low) else 0.01 * (high - low)
    at_end = (shown <= low + near) | (shown >= high - near)
    wrong = (shown - x.clamp(low, high)).abs() > 0.25 * (x.max() - x.min())
    stuck = (at_end & wrong).sum() / wrong.sum().clamp(min=1)
    return at_end.float().mean().item(), stuck.item(), wrong.float().mean().item()


def is_saturated(x, picture):
    """Whether most values that are far off sit at an end of the output's range."""
    if not picture.bounded:
        return False
    _, stuck, wrong = ends(x, picture)
    return stuck > 0.5 and wrong > (1e-4 if picture.follows <= 0.02 else 0.05)


def has_dead_layer(seen):
    """Whether nearly all units of a hidden layer say the same of every image."""
    return any(units.share > 0.9 for units in seen.units)


def dead(seen, after_collapse):
    """Hidden units that say the same of every image; after a collapse they are its consequence."""
    codes, picture = seen.codes, seen.picture
    says = {"rectifier": "are zero", "squasher": "sit at one end of their tanh"}
    for number, layer in enumerate(seen.units, 1):
        # An encoder that the KL has silenced dies by drift: just below zero, with small heads.
        drifted = codes.constant and codes.revived < 3 and layer.depth < 10 and layer.share >= 0.9
        harmed = seen.comparable and picture.mse > 0.8 * picture.mean_image_mse
        if len(layer.dead) < 8 or layer.share < 0.9 or after_collapse != drifted or not harmed:
            continue
        text = f"{layer.share:.0%} of the {len(layer.dead)} units of activation {number}"
        yield f"{text} {says[layer.kind]} for every image"


def remedy_of_a_collapse(seen):
    """What to do about unused codes, by the weight that the KL has."""
    weight = kl_weight(seen) if seen.form is not None else None
    threshold = seen.loss.threshold if seen.loss is not None else None
    if weight is None or not threshold:
        return (
            "The KL's weight could not be compared with the data's collapse threshold. Cure what "
            "stands above first. Then compare the weights of the two terms per image."
        )
    name = "beta" if seen.form.beta is not None else "sigma^2"
    heavy = seen.form.beta is None or weight.value > 1.5
    if weight.value > threshold or weight.value > 0.5 * threshold and heavy:
        return (
            f"Bring {name} well below the collapse threshold {threshold:.3g}, it is "
            f"{weight.value:.3g}. Then train from new weights."
        )
    return (
        f"This is not due to {name}: {weight.value:.3g} is below the collapse threshold "
        f"{threshold:.3g}. Cure what stands above. If nothing does, look at what was not checked, "
        "at the number of steps, the learning rate, a heavier KL earlier in training, and at a "
        "decoder that can do without the code."
    )


def facts(seen):
    """The numbers that say whether codes are used."""
    codes, picture, decoding = seen.codes, seen.picture, seen.decoding
    text = (
        f"KL {codes.kl.sum():.3g} nats, {codes.active} of {codes.latents} active units; outputs "
        f"follow the images with {picture.follows:.1%} of the data's variance; error "
        f"{picture.mse:.3g}, of the mean image {picture.mean_image_mse:.3g}"
    )
    if decoding is not None:
        swapped = f"with another image's {decoding.swapped:.3g}"
        text += f"; error with its own code {decoding.own:.3g}, {swapped}"
    return text


def goes_past_the_code(picture, codes):
    """Whether the pictures follow the images although the codes do not."""
    better = picture.mse < 0.8 * picture.mean_image_mse
    return codes.constant and picture.follows > 0.1 and better


def ignores_its_codes(seen):
    """Whether the codes follow the images although the pictures do not."""
    codes, decoding = seen.codes, seen.decoding
    if not seen.comparable or codes.constant or codes.information <= 0.1:
        return False
    own_helps = decoding is None or decoding.own < 0.98 * decoding.swapped
    return seen.picture.follows < 0.02 or codes.information > 0.5 and not own_helps
