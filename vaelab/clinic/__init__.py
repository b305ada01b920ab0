"""The clinic: what is wrong with a VAE, the reader's own included."""

from .checkup import checkup
from .losses import measure_loss

__all__ = ["checkup", "measure_loss"]
