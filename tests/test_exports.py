"""Pictures keep their alternative texts when a notebook is exported by nbconvert."""

import subprocess
import sys

import links


def test_pictures_carry_their_texts_in_html():
    command = [sys.executable, "-m", "nbconvert", "--config", "tools/nbconvert_config.py"]
    command += ["--to", "html", "--stdout"]
    notebook = "notebooks/04_sigmoid_saturation.ipynb"
    done = subprocess.run([*command, notebook], cwd=links.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("<img") >= 3
    assert "No description has been provided" not in done.stdout
    assert "Alternative text is missing" not in done.stderr
