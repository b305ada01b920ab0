"""The environment switches, read in one place. Every notebook obeys the same ones."""

import os
from pathlib import Path

import torch


def _flag(name):
    return os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no", "off")


def seed():
    """The seed of every run: `$VAELAB_SEED`, default 0. Raises ValueError if it is no integer."""
    value = os.environ.get("VAELAB_SEED", "").strip() or "0"
    if not value.lstrip("-").isdigit():
        raise ValueError(f"VAELAB_SEED must be a whole number, got {value!r}")
    return int(value)


def device():
    """The device of every run: `$VAELAB_DEVICE`, else cuda if there is one, else cpu."""
    value = os.environ.get("VAELAB_DEVICE", "").strip()
    if not value:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(value)
    except RuntimeError:
        raise ValueError(f"VAELAB_DEVICE must be cpu, cuda, cuda:N or mps, got {value!r}") from None
    cuda = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    if cuda or (device.type == "mps" and not torch.backends.mps.is_available()):
        raise ValueError(
            f"VAELAB_DEVICE is {value!r}, but this machine has no such device: "
            "unset it, or set it to cpu"
        )
    return device


def dataset(default="mnist"):
    """The 28x28 grey-scale set that a notebook uses: `$VAELAB_DATASET`, else `default`."""
    return os.environ.get("VAELAB_DATASET", "").strip() or default


def data_root():
    """Where image sets live: `$VAELAB_DATA`, else a cache folder of this user's."""
    value = os.environ.get("VAELAB_DATA", "").strip()
    if value:
        path = Path(value).expanduser()
        # A notebook runs in its own folder: a relative path is read from the project's root.
        from_project = Path(__file__).resolve().parent.parent / path
        return from_project if from_project.exists() else path
    if os.name == "nt":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vaelab"


def strict():
    """Whether a claim that does not hold raises: `VAELAB_STRICT=1` (tests and CI)."""
    return _flag("VAELAB_STRICT")


def offline():
    """Whether the network is never touched: `VAELAB_OFFLINE=1`."""
    return _flag("VAELAB_OFFLINE")


def download():
    """Whether sets over 50 MB may be downloaded: `VAELAB_DOWNLOAD=1`."""
    return _flag("VAELAB_DOWNLOAD")
