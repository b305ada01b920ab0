"""What the setup cell does in a real kernel with a fake Colab (`google.colab`) and a fake pip.

The fake pip records its calls and "installs" a package vaelab that says where it comes from.
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
# The kernel's own vaelab is this project, installed or in a folder of sys.path: hide it.
STARTUP = """
import sys
from pathlib import Path
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
kept = [path for path in sys.path if path == {site!r} or not (Path(path) / "vaelab").exists()]
sys.path[:] = kept
"""


@pytest.fixture
def run(tmp_path):
    """A function that runs a setup cell in a new kernel: its text, its error, pip's calls."""
    site = tmp_path / "site"
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    for folder in (site / "google" / "colab", site / "pip", startup):
        folder.mkdir(parents=True)
    (site / "google" / "colab" / "__init__.py").touch()
    (site / "pip" / "__init__.py").touch()
    (site / "pip" / "__main__.py").write_text(PIP)

    def execute(repository, colab, installed):
        code = STARTUP.format(site=str(site)) + ("import google.colab\n" if colab else "")
        (startup / "hide.py").write_text(code)
        (site / "vaelab").mkdir()  # an empty folder of that name is not the package
        if installed:
            (site / "vaelab" / "__init__.py").write_text(PACKAGE)
        nb = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(links.setup_cell(repository))]
        )
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


def test_on_colab_a_stamped_copy_installs_itself_and_then_begins(run):
    done = run("ann/vaes", colab=True, installed=False)
    assert done.calls == [["install", "-q", "git+https://github.com/ann/vaes"]]
    assert done.error == "" and "the package that was installed" in done.text


@pytest.mark.parametrize("colab", [True, False])
def test_an_unstamped_copy_installs_nothing_and_tells_a_reader_what_to_do(run, colab):
    done = run("OWNER/vaelab", colab=colab, installed=False)
    assert done.calls == [] and done.text == ""
    assert done.error.startswith("ModuleNotFoundError: This notebook needs the package vaelab")
    assert "Ask the person who gave you the notebook" in done.error
    assert "make links" not in done.error and "OWNER" not in done.error


def test_elsewhere_a_stamped_copy_gives_the_line_that_installs(run):
    done = run("ann/vaes", colab=False, installed=False)
    assert done.calls == []
    assert done.error.endswith('\n%pip install "git+https://github.com/ann/vaes"')


@pytest.mark.parametrize("repository", ["ann/vaes", "OWNER/vaelab"])
@pytest.mark.parametrize("colab", [True, False])
def test_nothing_is_installed_where_it_is_installed(run, repository, colab):
    done = run(repository, colab=colab, installed=True)
    assert done.calls == [] and done.error == ""
    assert "the package that was installed" in done.text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_begins_with_its_only_setup_cell(path):
    """Student versions of the coursework included; no other cell installs anything."""
    nb = nbformat.read(path, as_version=4)
    first, *others = [cell for cell in nb.cells if cell.cell_type == "code"]
    assert first.source == links.setup_cell(links.address()[0])
    assert first.metadata.items() >= links.SETUP_METADATA.items()
    for cell in others:
        assert "setup" not in cell.metadata.get("tags", [])
        assert "google.colab" not in cell.source and "pip install" not in cell.source


def test_this_python_has_the_kernel_that_ran():
    """The kernel `python3` is this very Python, or the tests above say nothing."""
    from jupyter_client.kernelspec import KernelSpecManager

    command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    assert command in ("python", "python3") or os.path.samefile(command, sys.executable)
