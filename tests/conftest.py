"""Every test runs without the reader's switches, without a display, and without the network."""

import os
import socket

import pytest

os.environ["MPLBACKEND"] = "Agg"
DATA_ROOT = os.environ.get("VAELAB_DATA", "").strip()
for name in [name for name in os.environ if name.startswith("VAELAB_")]:
    del os.environ[name]


@pytest.fixture(autouse=True)
def no_user_cache(monkeypatch, tmp_path):
    """Image sets that this user once downloaded are not found."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Only this machine can be reached from this process."""
    resolve = socket.getaddrinfo

    def local_only(host, *args, **options):
        if host not in (None, "", "localhost", "127.0.0.1", "::1", b"localhost"):
            raise socket.gaierror(f"tests do not use the network: {host}")
        return resolve(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", local_only)


@pytest.fixture
def mnist_root():
    """The folder of the real MNIST, as VAELAB_DATA named it to pytest; skips without one."""
    if not os.path.isdir(os.path.join(DATA_ROOT, "MNIST", "raw")):
        pytest.skip("VAELAB_DATA does not hold MNIST/raw")
    return DATA_ROOT
