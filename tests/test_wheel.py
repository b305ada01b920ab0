"""What a reader installs: the wheel holds everything, and `vaelab.checkup` works from it alone."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

import links

pytestmark = pytest.mark.slow
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
CHECKUP = """
import torch
import vaelab

print(vaelab.__file__)
torch.manual_seed(0)
model = vaelab.mlp_vae((1, 8, 8), latent_dim=4)
print(vaelab.checkup(model, torch.rand(64, 1, 8, 8)))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of this project, made without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(links.ROOT / "vaelab", source / "vaelab")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(links.ROOT / name, source)
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source]
    subprocess.run([*PIP, *build], check=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_whole_package(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    package = links.ROOT / "vaelab"
    sources = [*package.rglob("*.py"), *package.rglob("*.mplstyle")]
    assert names >= {path.relative_to(links.ROOT).as_posix() for path in sources}
    assert "vaelab/clinic/__init__.py" in names and "vaelab/vaelab.mplstyle" in names
    assert not [name for name in names if name.startswith(("tests", "tools", "build"))]


def test_the_checkup_works_from_the_wheel(wheel, tmp_path):
    target = tmp_path / "target"
    subprocess.run([*PIP, "install", "--no-deps", "--target", target, wheel], check=True)
    env = os.environ | {"PYTHONPATH": str(target), "MPLCONFIGDIR": str(tmp_path)}
    command = [sys.executable, "-P", "-c", CHECKUP]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    where, _, report = done.stdout.partition("\n")
    assert where == str(target / "vaelab" / "__init__.py")
    assert report.strip()
