"""The matrix plans the right environments, and says what it could not do."""

import json
import os
import sys
import time

import pytest

import links
import matrix

PROJECT = """
[project]
requires-python = ">=3.11"
dependencies = ["torch>=2.4", "numpy>=1.26"]
[project.optional-dependencies]
lab = ["jupyterlab>=4.0", "ipywidgets>=7.7"]
test = ["pytest>=8", "nbclient>=0.10"]
"""


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    return {row.name: row for row in matrix.plan(tmp_path)}


@pytest.fixture
def build(tmp_path, monkeypatch):
    """A build folder of this test's own."""
    monkeypatch.setattr(matrix, "ROOT", tmp_path)
    monkeypatch.setattr(matrix, "BUILD", tmp_path / "build" / "matrix")
    return tmp_path / "build" / "matrix"


def test_plan(rows):
    assert {row.python for row in rows.values()} == {"3.11", "3.12", "3.13"}
    for version in ("3.11", "3.12", "3.13"):
        current = rows[f"py{version}"]
        assert (current.python, current.pins) == (version, {})
        assert current.wanted == ["-e", ".[lab]", "nbclient>=0.10"]


def test_oldest_is_the_floors_and_nothing_else(rows):
    floors = {"torch": "2.4", "numpy": "1.26", "jupyterlab": "4.0", "ipywidgets": "7.7", "nbclient": "0.10"}
    assert rows["oldest"].python == "3.11" and rows["oldest"].pins == floors
    assert "numpy==1.26" in rows["oldest"].constraints()


def test_colab_has_its_own_ipython_and_no_jupyterlab(rows):
    colab = rows["colab"]
    assert "ipython==7.34.*" in colab.constraints() and "torch==2.11.*" in colab.constraints()
    assert "." in colab.wanted and not any("lab" in requirement for requirement in colab.wanted)


def test_colab_is_within_the_floors():
    """What Colab brings satisfies pyproject.toml, or Colab readers could not install the package."""
    real = {row.name: row for row in matrix.plan()}
    for name, floor in real["oldest"].pins.items():
        if name in matrix.COLAB:
            brought = matrix.COLAB[name].removesuffix(".*").split(".")
            assert [int(part) for part in brought] >= [int(part) for part in floor.split(".")], name


def test_every_version_of_the_table_is_asked_for(rows):
    assert set(matrix.COLUMNS.values()) - {"torchvision", "scikit-learn", "matplotlib"} <= {
        "torch", "numpy", "ipython", "ipywidgets"
    }  # fmt: skip
    assert list(matrix.COLUMNS)[0] == "torch" and len(matrix.COLUMNS) == 7


def test_choosing(rows):
    planned = list(rows.values())
    assert [row.name for row in matrix.chosen(None, planned)] == list(rows)
    assert [row.name for row in matrix.chosen(["oldest", "py3.12"], planned)] == ["py3.12", "oldest"]
    with pytest.raises(SystemExit, match="there is no row 'new'; there are: py3.11, "):
        matrix.chosen(["new"], planned)


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="shell scripts stand in for Pythons")
def test_finding_a_python(tmp_path, monkeypatch):
    path, pyenv = tmp_path / "bin", tmp_path / "pyenv"
    path.mkdir()
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.setenv("PYENV_ROOT", str(pyenv))
    assert matrix.find_python("9.9") is None
    script(path / "python9.9", "echo 'pyenv: command not found' >&2; exit 127")
    assert matrix.find_python("9.9") is None, "a pyenv shim of a version that is not installed"
    for patch in (2, 10):
        script(pyenv / "versions" / f"9.9.{patch}" / "bin" / "python", "echo 9 9")
    assert matrix.find_python("9.9") == [str(pyenv / "versions" / "9.9.10" / "bin" / "python")]
    script(path / "python9.9", "echo 9 9")
    assert matrix.find_python("9.9") == ["python9.9"]
    mine = "{}.{}".format(*sys.version_info)
    assert matrix.find_python(mine) == [sys.executable]


def test_the_reason_in_pips_output():
    log = "Collecting x\nERROR: No matching distribution\n[notice] A new release of pip\n"
    assert matrix.reason(log) == "ERROR: No matching distribution"
    assert matrix.reason("one\ntwo\n\n") == "two"
    assert matrix.reason("") == "no output"


def test_a_missing_python_is_a_row_that_says_so(build, monkeypatch):
    monkeypatch.setattr(matrix, "find_python", lambda version: None)
    result = matrix.run(matrix.Row("py9.9", "9.9", ["-e", "."]), ["a.ipynb"], keep=False)
    assert "| py9.9 | 9.9 |" in matrix.table([result])
    assert "none run" in matrix.table([result]) and "Python 9.9 was not found" in matrix.table([result])


def test_what_pip_cannot_install_is_said(build, monkeypatch):
    monkeypatch.setattr(matrix, "find_python", lambda version: ["python"])

    def fake(command, log):
        log.write_text("ERROR: No matching distribution found for torch==2.4 | x\n")
        return "pip" not in command

    monkeypatch.setattr(matrix, "logged", fake)
    result = matrix.run(matrix.Row("oldest", "3.11", ["-e", "."], {"torch": "2.4"}), ["a.ipynb"], keep=True)
    table = matrix.table([result])
    assert "could not be installed here: ERROR: No matching distribution found for torch==2.4 / x |" in table
    assert (build / "oldest" / "constraints.txt").read_text() == "torch==2.4\n"
    assert not (build / "oldest" / "installed.json").exists(), "and it is not taken for a finished one"


def test_an_environment_is_kept_only_for_the_same_plan(build, monkeypatch):
    made = []
    monkeypatch.setattr(matrix, "find_python", lambda version: ["python"])
    monkeypatch.setattr(matrix, "logged", lambda command, log: log.touch() or not made.append(command))

    def install(keep, **change):
        made.clear()
        plan = {"name": "a", "python": "3.11", "wanted": ["-e", "."], "pins": {"x": "1"}} | change
        assert matrix.install(matrix.Row(**plan), build / "a", keep) == ""
        return len(made)

    assert install(True) == 2, "a virtual environment, then pip"
    assert install(True) == 0
    assert install(False) == 2
    assert install(True, pins={"x": "2"}) == 2


def test_notebooks_run_without_the_readers_switches(build, monkeypatch):
    monkeypatch.setenv("VAELAB_SEED", "3")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    env = matrix.environment()
    assert "VAELAB_SEED" not in env and "MPLBACKEND" not in env
    assert env["VAELAB_OFFLINE"] == env["OMP_NUM_THREADS"] == "1"
    assert env["VAELAB_DATA"] == str(build / "no-data") and not os.listdir(env["VAELAB_DATA"])


def test_notebooks_are_those_that_run_from_top_to_bottom(tmp_path):
    wanted = ["coursework/source/one/one.ipynb", "notebooks/00_a.ipynb"]
    for name in (*wanted, "coursework/practice/one.ipynb", "notebooks/.ipynb_checkpoints/00_a.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [path.as_posix() for path in matrix.find_notebooks(root=tmp_path)] == wanted
    assert [path.as_posix() for path in matrix.find_notebooks(["00"], tmp_path)] == wanted[1:]
    with pytest.raises(SystemExit, match="no notebook starts with '05'; there are: one, 00_a"):
        matrix.find_notebooks(["05"], tmp_path)


def result(passed, total, notes=(), **versions):
    row = matrix.Row("oldest", "3.11", [])
    return matrix.Result(row, versions, passed, total, 12.3, list(notes))


def test_the_table():
    found = result(2, 3, ["02_b: cell 3: ValueError: a | b"], python="3.11.7", torch="2.4.0", ipython="9.1")
    header, line, row, *_ = matrix.table([found]).splitlines()
    assert header.count("|") == line.count("|") == row.count("|") == 13
    assert row.startswith("| oldest | 3.11.7 | 2.4.0 |") and "| 2 of 3 passed | 12 |" in row
    assert row.endswith("| 02_b: cell 3: ValueError: a / b |")


def test_long_notes_fit_the_table():
    assert len(matrix.short("x" * 1000)) == 240 and matrix.short("x") == "x"


def test_what_counts_as_failed():
    assert not matrix.failed([result(3, 3, python="3.11.7")])
    assert matrix.failed([result(2, 3, python="3.11.7"), result(3, 3, python="3.12.1")])
    assert not matrix.failed([result(0, 3, ["not found"]), result(3, 3, python="3.12.1")])
    assert matrix.failed([result(0, 3, ["not found"])]), "nothing ran at all"


def test_a_report_of_a_notebook(capsys):
    found = result(0, 2, python="3.11.7")
    matrix.report(found, "00_a", {"error": "", "stderr": "\n/a/b/c.py:4: DeprecationWarning: old\n  x()\n"})
    matrix.report(found, "01_b", {"error": "cell 3: \x1b[31mValueError\x1b[0m:\n no", "stderr": ""})
    assert found.passed == 1
    assert found.notes[0] == "00_a writes to stderr: c.py:4: DeprecationWarning: old"
    assert found.notes[1:] == ["01_b: cell 3: ValueError: no"]
    assert "FAILED  01_b  cell 3: ValueError: no" in capsys.readouterr().out


def fake_worker(tmp_path, monkeypatch, body):
    """A worker that is not a notebook: `body` is its program."""
    worker = tmp_path / "worker.py"
    worker.write_text(body)
    monkeypatch.setattr(matrix, "__file__", str(worker))


def test_a_worker_that_answers(build, tmp_path, monkeypatch):
    build.mkdir(parents=True)
    answer = {"error": "", "stderr": "", "seconds": 1.0}
    fake_worker(tmp_path, monkeypatch, f"print('noise')\nprint({json.dumps(json.dumps(answer))})")
    assert matrix.execute(sys.executable, build, "a.ipynb") == answer


def test_a_worker_that_dies(build, tmp_path, monkeypatch):
    fake_worker(tmp_path, monkeypatch, "raise ImportError('no nbclient')")
    error = matrix.execute(sys.executable, build, "a.ipynb")["error"]
    assert error == "could not be executed: ImportError: no nbclient"


def test_a_worker_that_hangs_is_ended(build, tmp_path, monkeypatch):
    fake_worker(tmp_path, monkeypatch, "import time; time.sleep(60)")
    began = time.monotonic()
    assert matrix.execute(sys.executable, build, "a.ipynb", limit=0.5)["error"] == "not done after 0.5 s"
    assert time.monotonic() - began < 20


@pytest.mark.slow
def test_a_worker_executes_a_notebook(tmp_path):
    """The real worker, with this Python in place of a row's, on the first notebook."""
    path = links.ROOT / "notebooks" / "00_start_here.ipynb"
    found = matrix.execute(sys.executable, tmp_path, path)
    assert found["error"] == "" and found["seconds"] > 0
    assert (tmp_path / "notebooks" / path.stem / path.name).exists()
