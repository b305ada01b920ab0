"""How many rows a model can be run on within a few seconds and little memory, the same each time.

The count comes from operations and bytes, not from a clock, so a report can be repeated.
"""

import contextlib
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

MOST_ROWS, FEWEST_ROWS = 1000, 16  # in eval mode; fewer cannot be compared with one another
MOST_PIECE = 256  # rows of one forward pass
MOST_WATCHED = 128  # rows of a pass in train mode, or with chosen codes
OPERATIONS = 4e10  # of one pass over all rows: about two seconds on two cores
MEMORY = 4e8  # bytes of one piece's activations


class Budget(NamedTuple):
    """Rows in all, of one forward pass, of a pass with gradients, and of one with chosen codes."""

    rows: int = MOST_ROWS
    piece: int = MOST_PIECE
    graded: int = MOST_WATCHED
    chosen: int = MOST_WATCHED


def budget(run, x, inputs):
    """The `Budget` of a model; run(x, inputs) is a forward pass, x and inputs hold a few rows."""
    saved = _Saved()
    counter = FlopCounterMode(display=False)
    hooks = torch.autograd.graph.saved_tensors_hooks(saved.keep, lambda tensor: tensor)
    with contextlib.suppress(Exception), counter, hooks:
        run(x, inputs)
    operations = max(counter.get_total_flops() / len(x), 1.0)
    by_memory = int(MEMORY / max(saved.bytes / len(x), 1.0))
    rows = int(OPERATIONS / operations)
    return Budget(
        rows=_between(FEWEST_ROWS, rows, MOST_ROWS),
        piece=_between(1, by_memory, MOST_PIECE),
        graded=_between(2, min(by_memory, rows // 4), MOST_WATCHED),
        chosen=_between(8, rows // 4, MOST_WATCHED),
    )


class _Saved:
    """Counts the bytes that a pass keeps for its gradients."""

    def __init__(self):
        self.bytes = 0

    def keep(self, tensor):
        owner = tensor if tensor._base is None else tensor._base
        if not isinstance(owner, torch.nn.Parameter):
            self.bytes += tensor.numel() * tensor.element_size()
        return tensor


def _between(low, value, high):
    return max(low, min(value, high))
