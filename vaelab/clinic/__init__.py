"""The clinic: what is wrong with a VAE, the reader's own included."""

from .checkup import checkup
from .film import watch
from .losses import measure_loss
from .rehearsal import rehearse

__all__ = ["checkup", "measure_loss", "rehearse", "watch"]
