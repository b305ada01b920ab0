"""The scripts of the symptom pages' pictures run on the embedded images as well."""

import os
import shutil
import subprocess
import sys

import pytest

import links

FOLDER = links.ROOT / "docs" / "pictures"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "run")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_made(name, tmp_path):
    """A copy of the script writes into a copy of the folder, so nothing committed is replaced."""
    script = tmp_path / "docs" / "pictures" / f"{name}.py"
    script.parent.mkdir(parents=True)
    (tmp_path / "figures").mkdir()
    shutil.copy(FOLDER / script.name, script)
    env = os.environ | {"VAELAB_OFFLINE": "1", "VAELAB_DATA": str(tmp_path), "MPLBACKEND": "Agg"}
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "figures" / f"page_{name}.png").stat().st_size > 5_000
    assert done.stdout.strip() and not done.stderr.strip()


def test_stand_ins_never_replace_the_committed_pictures(tmp_path):
    env = os.environ | {"VAELAB_OFFLINE": "1", "VAELAB_DATA": str(tmp_path)}
    before = (FOLDER / "numbers.json").read_bytes()
    command = [sys.executable, FOLDER / "run.py", "image_size"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode and "VAELAB_DATA" in done.stderr
    assert (FOLDER / "numbers.json").read_bytes() == before
