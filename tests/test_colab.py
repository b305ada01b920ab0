"""What the setup cell does in a real kernel with a fake Colab: `google.colab`, and a pip that records.

The fake pip "installs" by writing a package vaelab that says where it comes from, so the order counts too.
"""

import json
import os
import sys
from types import SimpleNamespace

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import links

NOTEBOOKS = [path for path in links.files() if path.suffix == ".ipynb"]
PACKAGE = "def setup():\n    print('the package that was installed')\n    return 'cpu'\n"
PIP = f"""
import json, os, sys
from pathlib import Path
site = Path(__file__).parent.parent
with open(site / "calls.jsonl", "a") as out:
    print(json.dumps(sys.argv[1:]), file=out)
(site / "vaelab").mkdir(exist_ok=True)
(site / "vaelab" / "__init__.py").write_text({PACKAGE!r})
"""
ELSEWHERE = "raise ImportError('the setup cell imported vaelab before it was installed')"


def setup_cells(nb):
    """The code cells that are tagged as setup."""
    return [cell for cell in nb.cells if "setup" in cell.metadata.get("tags", [])]


@pytest.fixture
def run(tmp_path):
    """A function that runs a setup cell in a new kernel: (its text output, its error, pip's calls)."""
    site = tmp_path / "site"
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    for folder in (site / "google" / "colab", site / "pip", site / "vaelab", startup):
        folder.mkdir(parents=True)
    (site / "google" / "colab" / "__init__.py").touch()
    (site / "pip" / "__init__.py").touch()
    (site / "pip" / "__main__.py").write_text(PIP)
    (site / "vaelab" / "__init__.py").write_text(ELSEWHERE)

    def execute(repository, colab, source=None, before=PACKAGE):
        if colab:
            (startup / "colab.py").write_text("import google.colab\n")
        else:
            (site / "vaelab" / "__init__.py").write_text(before)
        cell = nbformat.v4.new_code_cell(source or links.setup_cell(repository))
        nb = nbformat.v4.new_notebook(cells=[cell])
        env = os.environ | {"PYTHONPATH": str(site), "IPYTHONDIR": str(tmp_path / "ipython")}
        env |= {"PYTHONDONTWRITEBYTECODE": "1"}
        client = NotebookClient(nb, timeout=120, kernel_name="python3", coalesce_streams=True)
        error = ""
        try:
            client.execute(env=env, cwd=str(tmp_path))
        except CellExecutionError as raised:
            error = f"{raised.ename}: {raised.evalue}"
        text = "".join(output.get("text", "") for output in nb.cells[0].outputs)
        calls = site / "calls.jsonl"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return SimpleNamespace(text=text, error=error, calls=[json.loads(line) for line in lines])

    return execute


def test_on_colab_a_stamped_copy_installs_itself_once_and_then_begins(run):
    done = run("ann/vaes", colab=True)
    assert done.calls == [["install", "-q", "git+https://github.com/ann/vaes"]]
    assert done.error == "" and "the package that was installed" in done.text


def test_on_colab_an_unstamped_copy_installs_nothing_and_says_how_to_stamp(run):
    done = run("OWNER/vaelab", colab=True)
    assert done.calls == []
    assert done.error.startswith("RuntimeError:") and "`make links REPO=owner/name`" in done.error
    assert "the package that was installed" not in done.text


@pytest.mark.parametrize("repository", ["ann/vaes", "OWNER/vaelab"])
def test_elsewhere_nothing_is_installed(run, repository):
    done = run(repository, colab=False)
    assert done.calls == [] and done.error == ""
    assert "the package that was installed" in done.text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.relative_to(links.ROOT).as_posix())
def test_every_notebook_has_one_setup_cell_first_and_it_is_stamped(path):
    """Student versions of the coursework included; no other cell installs anything."""
    nb = nbformat.read(path, as_version=4)
    links.render_notebook(nb, path.relative_to(links.ROOT).as_posix(), "ann/vaes")
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    assert setup_cells(nb) == code[:1]
    assert code[0].source == links.setup_cell("ann/vaes")
    for cell in code[1:]:
        assert "google.colab" not in cell.source and "pip install" not in cell.source


def test_this_python_has_the_kernel_that_ran():
    """The kernel `python3` is this very Python, or the tests above say nothing."""
    from jupyter_client.kernelspec import KernelSpecManager

    command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    assert command in ("python", "python3") or os.path.samefile(command, sys.executable)
