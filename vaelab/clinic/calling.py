"""How a loss wants to be called: its own parameter names tell, and a lambda adapts it."""

import inspect

import torch

USUAL = "reconstruction, x, mu, logvar"
AS_STD, AS_VARIANCE = "torch.exp(0.5 * logvar)", "torch.exp(logvar)"
TARGETS = ("x", "target", "inputs", "input", "data", "images", "y", "original")
PICTURES = ("hat", "rec", "pred", "out", "prime")


def adapter_line(arguments):
    """The lambda that a reader should pass as the loss."""
    return f"loss=lambda {USUAL}: my_loss({arguments})"


def parameter_names(loss):
    """The names of a loss's positional parameters, or [] if it does not tell."""
    try:
        parameters = inspect.signature(loss).parameters.values()
    except (TypeError, ValueError):
        return []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in positional]


def ways_to_call(loss):
    """The ways in which a loss may want its four arguments: expression -> callable as usual."""
    ways = {}
    for swap in (False, True):
        first = "x, reconstruction" if swap else "reconstruction, x"
        for fourth in ("logvar", AS_STD, AS_VARIANCE):
            ways[f"{first}, mu, {fourth}"] = _way(loss, swap, fourth)
    return ways


def _way(loss, swap, fourth):
    def call(r, x, mu, logvar):
        pair = (x, r) if swap else (r, x)
        if fourth == AS_STD:
            return loss(*pair, mu, torch.exp(0.5 * logvar))
        return loss(*pair, mu, torch.exp(logvar) if fourth == AS_VARIANCE else logvar)

    return call


def declared_order(loss):
    """The call that a loss's parameter names ask for, as thread 002's (x, x_hat, mus, sigmas).

    None if they ask for the usual one, or tell nothing.
    """
    names = [name.lower() for name in parameter_names(loss)]
    if len(names) < 4:
        return None
    swapped = names[0] in TARGETS and any(part in names[1] for part in PICTURES)
    fourth = _fourth(names[3])
    if not swapped and fourth == "logvar":
        return None
    return f"{'x, reconstruction' if swapped else 'reconstruction, x'}, mu, {fourth}"


def _fourth(name):
    """The fourth argument that a parameter's name asks for, written with logvar."""
    if any(part in name for part in ("log", "lv")):
        return "logvar"
    if any(part in name for part in ("sig", "std", "scale")):
        return AS_STD
    return AS_VARIANCE if "var" in name else "logvar"
