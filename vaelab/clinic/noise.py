"""The noise that a model really adds to its codes, read from gradients."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .activations import NORMAL

RIGHT = "exp(logvar / 2)"  # the standard deviation that the KL assumes
SPREAD = 0.02  # how constant a ratio must be to be called a constant


@dataclass(frozen=True)
class Noise:
    """What the code gets in training.

    kind: "sampled", "none" (no noise was drawn), "blocked" (there is a path from mu to the output,
    and nothing passes) or "unknown". formula: what the noise is multiplied by, written with
    logvar; None if nothing fits. number, size: which of the draws it is, and of how many values.
    shared: what shares one draw, in words, "" if each value has its own. drawn_by: the function
    that drew it. swapped: the noise fits if mu and logvar change places. times: how many draws are
    added in this way. sign: of the factor. off: the typical factor between the noise and
    exp(logvar / 2).
    """

    kind: str
    formula: str | None = None
    number: int | None = None
    size: int = 0
    shared: str = ""
    drawn_by: str = ""
    swapped: bool = False
    times: int = 1
    sign: float = 1.0
    off: float = 1.0

    @property
    def normal(self):
        """Whether the draw is a standard normal one."""
        return self.drawn_by in NORMAL


def read_noise(outputs, draws, seed=0):
    """`Noise` of one pass in train mode: z = mu + s * noise, so dL/dnoise is s times dL/dmu.

    outputs: (reconstruction, mu, logvar) with gradients. draws: the noise that was watched.
    """
    reconstruction, mu, logvar = outputs
    sizes = [draw.value.numel() for draw in draws]
    numbers = [i for i, size in enumerate(sizes) if size == mu.numel()]
    shared = ""
    if not numbers:
        numbers, shared = _shared_draw(draws, mu)
    if not numbers:
        return Noise("unknown" if draws else "none")
    draw = draws[numbers[-1]]
    found = {"number": numbers[-1], "size": sizes[numbers[-1]]}
    found |= {"shared": shared, "drawn_by": draw.name}
    if not (mu.requires_grad and reconstruction.requires_grad):
        return Noise("unknown", **found)
    every = [draws[i].value for i in numbers]
    by_mu, by_logvar, *by_noises = _gradients(reconstruction, (mu, logvar, *every), seed)
    by_noise = by_noises[-1]
    if by_mu is None or by_noise is None:
        return Noise("unknown", **found)
    if not by_mu.any() and not by_noise.any():
        return Noise("blocked", **found)
    if shared or not (by_mu.any() and by_noise.any()):
        return Noise("sampled" if by_noise.any() else "unknown", **found)
    return _read_scale(found, numbers, by_mu, by_logvar, by_noises, mu, logvar)


def _read_scale(found, numbers, by_mu, by_logvar, by_noises, mu, logvar):
    """The `Noise` of draws that reach the output, from the gradients there."""
    reached = [(i, by) for i, by in zip(numbers, by_noises, strict=True) if by is not None]
    ratios = {i: _ratio(by, by_mu) for i, by in reached if by.any()}
    right = [i for i, ratio in ratios.items() if _formula(ratio, logvar) == RIGHT]
    number = right[0] if right else next(reversed(ratios))
    ratio, times = ratios[number], max(1, len(right))
    if not right and len(ratios) > 1:
        together = _ratio(sum(by for _, by in reached), by_mu)
        if _formula(together, logvar) == RIGHT:  # pictures of several draws are averaged
            number, ratio = None, together
    formula = _formula(ratio, logvar)
    swapped = False
    if formula != RIGHT and by_logvar is not None and by_logvar.any():
        swapped = _formula(_ratio(by_noises[-1], by_logvar), mu) == RIGHT
    off = (ratio.abs().double().log() - 0.5 * logvar.detach().double()).nanmedian().exp().item()
    sign = -1.0 if ratio.nanmedian() < 0 else 1.0
    found |= {"number": number, "swapped": swapped, "times": times, "sign": sign, "off": off}
    return Noise("sampled", formula, **found)


def _shared_draw(draws, mu):
    """([number], whose) of the one draw that serves several rows or latents; ([], "") if none."""
    found = []
    for number, draw in enumerate(draws):
        whose = _who_shares(draw.value, mu)
        if draw.name in NORMAL and whose:
            found.append((number, whose))
    if len(found) != 1:
        return [], ""
    number, whose = found[0]
    return [number], whose


def _who_shares(draw, mu):
    """What gets the same number when a draw is added to mu [B, ...]: in words, "" if nothing."""
    if draw.numel() == 1:
        return "rows and latents"
    if draw.numel() == mu[0].numel():
        return "rows"
    shape = (1,) * (mu.dim() - draw.dim()) + tuple(draw.shape)
    fits = len(shape) == mu.dim() and all(n in (1, m) for n, m in zip(shape, mu.shape, strict=True))
    if not fits or draw.numel() >= mu.numel():
        return ""
    return "latents of a row" if shape[0] == len(mu) else "rows and some latents"


def _gradients(reconstruction, tensors, seed):
    """Gradients of a random combination of the outputs' values; None where there is no path."""
    generator = torch.Generator("cpu").manual_seed(seed)
    weights = torch.randn(reconstruction.shape, generator=generator, device="cpu")
    weighted = (reconstruction * weights.to(reconstruction)).sum()
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    found = torch.autograd.grad(weighted, wanted, allow_unused=True, retain_graph=True)
    gradients = iter(found)
    return [next(gradients) if tensor.requires_grad else None for tensor in tensors]


def _ratio(by_noise, by_code):
    """How much more the noise moves the output than the code does; NaN where neither does."""
    clear = by_code.abs() > 1e-3 * by_code.abs().max()
    return torch.where(clear, by_noise.reshape(by_code.shape) / by_code, torch.nan)


def _formula(scale, logvar):
    """The formula that the noise's scale follows, or None."""
    scale, logvar = scale.abs().double(), logvar.detach().double()  # the noise has no sign
    formulas = {
        RIGHT: (0.5 * logvar).exp(),
        "exp(logvar)": logvar.exp(),
        "logvar itself": logvar.abs(),
        "sqrt(logvar)": logvar.clamp(min=0).sqrt(),
        "softplus(logvar)": F.softplus(logvar),
    }
    off = {}
    for formula, std in formulas.items():
        off[formula] = ((scale - std).abs() / (std.abs() + 1e-3)).nanmedian().item()
    if off[RIGHT] < 0.05:
        return RIGHT
    best = min(off, key=off.get)
    return best if off[best] < 0.01 else _constant(scale, logvar)


def _constant(scale, logvar):
    """A fixed number, or a fixed number of times the right scale, as text; None if neither."""
    times = (scale.log() - 0.5 * logvar).flatten()
    for logarithm, text in ((scale.log().flatten(), "{}"), (times, "{} * " + RIGHT)):
        values = logarithm[logarithm.isfinite()]
        if len(values) > 1 and (values - values.median()).abs().median() < SPREAD:
            return text.format(f"{math.exp(values.median().item()):.3g}")
    return None
