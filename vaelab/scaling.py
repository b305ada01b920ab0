"""Scalings of images and tables, with their exact inverses."""

import torch


class Scaling:
    """An affine scaling of [0, 1] data with its exact inverse: y = (x - shift) / scale.

    `scaling(x)` scales and `scaling.inverse(y)` undoes it, both on the device of their argument.
    `shift` and `scale` broadcast over [B, C, H, W], or over [N, F] for a table. `lo` and `hi` are
    the values that 0 and 1 become, per channel where the scaling is per channel.
    """

    def __init__(self, name, shift, scale):
        self.name = name
        self.shift = torch.as_tensor(shift, dtype=torch.float32)
        self.scale = torch.as_tensor(scale, dtype=torch.float32)
        self.lo = self(torch.tensor(0.0))
        self.hi = self(torch.tensor(1.0))

    @classmethod
    def unit(cls):
        """[0, 1], the data as they are."""
        return cls("[0, 1]", 0.0, 1.0)

    @classmethod
    def symmetric(cls):
        """[-1, 1], the range of a tanh."""
        return cls("[-1, 1]", 0.5, 0.5)

    @classmethod
    def zscore(cls, x_train, per_channel=False):
        """Mean 0 and standard deviation 1 over the training images [N, C, H, W] or a table [N, F].

        `per_channel=True` does it for each channel or column. Raises ValueError if `x_train` has
        another shape, or is constant or not finite (in any channel, if per channel).
        """
        if getattr(x_train, "ndim", None) not in (2, 4):
            is_tensor = isinstance(x_train, torch.Tensor)
            got = list(x_train.shape) if is_tensor else type(x_train).__name__
            raise ValueError(f"x_train must be a tensor [N, C, H, W] or [N, F], got {got}")
        averaged = list(range(x_train.ndim))
        if per_channel:
            averaged.remove(1)
        scale, shift = torch.std_mean(x_train, averaged, correction=0, keepdim=True)
        _refuse_unscalable(x_train, scale, averaged)
        if per_channel:
            return cls("z-score per channel", shift.cpu(), scale.cpu())
        return cls("z-score", shift.cpu().squeeze(), scale.cpu().squeeze())

    def __call__(self, x):
        """Scale `x` on its own device."""
        return (x - self.shift.to(x.device)) / self.scale.to(x.device)

    def inverse(self, y):
        """Undo the scaling, on the device of `y`."""
        return y * self.scale.to(y.device) + self.shift.to(y.device)

    def __repr__(self):
        return f"Scaling({self.name})"


def _refuse_unscalable(x_train, scale, averaged):
    # A constant's standard deviation may come out as a tiny number instead of 0: compare the ends.
    lowest = x_train.amin(averaged, keepdim=True)
    highest = x_train.amax(averaged, keepdim=True)
    bad = (highest == lowest) | ~scale.isfinite()
    if not bad.any():
        return
    where = f" in channels {bad.flatten().nonzero().flatten().tolist()}" if bad.numel() > 1 else ""
    raise ValueError(
        f"x_train is constant or not finite{where} and cannot be z-scored: "
        "leave that out, or use Scaling.unit()"
    )
