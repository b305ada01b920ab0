"""The noise that a model really adds to its codes, read from gradients."""

from typing import NamedTuple

import torch
import torch.nn.functional as F

RIGHT = "exp(logvar / 2)"  # the standard deviation that the KL assumes


class Noise(NamedTuple):
    """What the code gets in training.

    kind: "sampled", "none" (no noise was drawn), "detached" (noise, but no gradient reaches mu) or
    "unknown". formula: what the noise is multiplied by, written with logvar; None if nothing fits.
    """

    kind: str
    formula: str | None = None


def read_noise(outputs, noise, parameters, seed=0):
    """`Noise` of one pass in train mode: z = mu + s * noise, so dL/dnoise is s times dL/dmu.

    outputs: (reconstruction, mu, logvar) with gradients. noise: the draws that were watched.
    """
    reconstruction, mu, logvar = outputs
    noise = [draw for draw in noise if draw.numel() == mu.numel()]
    if not noise:
        return Noise("none")
    if not (mu.requires_grad and reconstruction.requires_grad):
        return Noise("unknown")
    if not _reaches_encoder(reconstruction, mu, parameters):
        return Noise("detached")
    if not noise[-1].requires_grad:
        return Noise("unknown")
    scale = _scale(reconstruction, mu, noise[-1], seed)
    return Noise("unknown") if scale is None else Noise("sampled", _formula(scale, logvar))


def _scale(reconstruction, mu, noise, seed):
    """s, shaped like mu; NaN where the gradients are too small to tell, None if they are zero."""
    generator = torch.Generator("cpu").manual_seed(seed)
    weights = torch.randn(reconstruction.shape, generator=generator, device="cpu")
    weighted = (reconstruction * weights.to(reconstruction)).sum()
    by_mu, by_noise = torch.autograd.grad(weighted, (mu, noise), allow_unused=True)
    if by_mu is None or by_noise is None or not (by_mu.any() and by_noise.any()):
        return None
    clear = by_mu.abs() > 1e-3 * by_mu.abs().max()
    return torch.where(clear, by_noise.reshape(by_mu.shape) / by_mu, torch.nan)


def _formula(scale, logvar):
    """The formula that the noise's scale follows, or None."""
    scale, logvar = scale.double(), logvar.detach().double()
    formulas = {
        RIGHT: (0.5 * logvar).exp(),
        "exp(logvar)": logvar.exp(),
        "logvar itself": logvar,
        "sqrt(logvar)": logvar.clamp(min=0).sqrt(),
        "softplus(logvar)": F.softplus(logvar),
        "1": torch.ones_like(logvar),
    }
    off = {}
    for formula, std in formulas.items():
        off[formula] = ((scale - std).abs() / (std.abs() + 1e-3)).nanmedian().item()
    if off[RIGHT] < 0.05:
        return RIGHT
    best = min(off, key=off.get)
    return best if off[best] < 0.01 else None


def _reaches_encoder(reconstruction, mu, parameters):
    """Whether any parameter that mu depends on gets a gradient from the reconstruction."""
    encoder = _reached(mu, [p for p in parameters if p.requires_grad])
    return not encoder or bool(_reached(reconstruction, encoder))


def _reached(output, parameters):
    """Those parameters that get a gradient from an output."""
    if not parameters:
        return []
    found = torch.autograd.grad(output.sum(), parameters, retain_graph=True, allow_unused=True)
    return [p for p, g in zip(parameters, found, strict=True) if g is not None]
