from pathlib import Path

import pytest
import torch

from vaelab import settings


def test_a_relative_data_folder_is_also_found_from_the_notebooks_folder(monkeypatch, tmp_path):
    """VAELAB_DATA=../shared/data is written at the root, but a kernel starts in notebooks/."""
    root = Path(settings.__file__).resolve().parent.parent
    monkeypatch.setenv("VAELAB_DATA", "vaelab")  # a folder of the project, not of tmp_path
    monkeypatch.chdir(tmp_path)
    assert settings.data_root() == root / "vaelab"
    monkeypatch.setenv(
        "VAELAB_DATA", "my-images"
    )  # not a folder of the project: as any program reads it
    assert settings.data_root() == Path("my-images")


def test_switches_and_their_errors(monkeypatch):
    for name in ("VAELAB_STRICT", "VAELAB_OFFLINE", "VAELAB_DOWNLOAD"):
        monkeypatch.delenv(name, raising=False)
    assert not (settings.strict() or settings.offline() or settings.download())
    monkeypatch.setenv("VAELAB_STRICT", "1")
    monkeypatch.setenv("VAELAB_OFFLINE", "0")
    assert settings.strict() and not settings.offline()
    monkeypatch.setenv("VAELAB_SEED", "7")
    assert settings.seed() == 7
    monkeypatch.setenv("VAELAB_SEED", "seven")
    with pytest.raises(ValueError, match="VAELAB_SEED.*'seven'"):
        settings.seed()
    monkeypatch.setenv("VAELAB_DEVICE", "cpu")
    assert settings.device() == torch.device("cpu")
    monkeypatch.setenv("VAELAB_DEVICE", "toaster")
    with pytest.raises(ValueError, match="VAELAB_DEVICE.*'toaster'"):
        settings.device()
    monkeypatch.setenv("VAELAB_DATASET", "fashion-mnist")
    assert settings.dataset() == "fashion-mnist"
