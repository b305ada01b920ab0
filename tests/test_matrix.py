"""The matrix asks uv for the right environments, and says what it could not do."""

import subprocess
import sys
import tomllib

import pytest

import links
import matrix

PROJECT = tomllib.loads((links.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["lab"]


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """A matrix whose commands are recorded; those with a word of `calls.failing` fail."""

    class Calls(list):
        failing = ()

        def run(self, command, **_):
            command = [str(part) for part in command]
            self.append(command)
            failed = any(word in command for word in self.failing)
            return subprocess.CompletedProcess(
                command, int(failed), "torch==2.4.0\n", "error: no torch"
            )

        def call(self, command, **options):
            return self.run(command).returncode

    calls = Calls()
    monkeypatch.setattr(matrix, "BUILD", tmp_path)
    monkeypatch.setattr(subprocess, "run", calls.run)
    monkeypatch.setattr(subprocess, "call", calls.call)
    for name in matrix.ROWS:
        (tmp_path / name).mkdir()
    return calls


def matrix_main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["matrix.py", *arguments])
    return matrix.main()


def test_one_row_and_one_notebook(calls, monkeypatch, capsys):
    assert matrix_main(monkeypatch, "07", "--only", "oldest") == 0
    make, install, freeze, run = calls
    assert make[4:8] == ["venv", "--clear", "--python", "3.11"]
    assert "lowest-direct" in install and ".[lab]" in install
    assert run[1:] == [str(links.ROOT / "tools" / "notebooks.py"), "--check", "--offline", "07"]
    said = capsys.readouterr().out
    assert "oldest: Python 3.11, torch==2.4.0" in said and "passed         oldest" in said


def test_what_cannot_be_installed_is_said(calls, monkeypatch, capsys):
    calls.failing = ("3.13",)
    assert matrix_main(monkeypatch) == 0
    said = capsys.readouterr().out
    assert "py3.13: could not be installed here" in said and "error: no torch" in said
    assert "not installed  py3.13" in said and "passed         py3.12" in said


def test_a_failing_notebook_fails_the_matrix(calls, monkeypatch):
    calls.failing = ("--check",)
    assert matrix_main(monkeypatch, "--only", "py3.11") == 1


def test_nothing_installed_fails_the_matrix(calls, monkeypatch):
    calls.failing = ("venv",)
    assert matrix_main(monkeypatch) == 1


def test_the_rows_are_what_pyproject_promises():
    assert matrix.NBCLIENT in PROJECT["optional-dependencies"]["test"]
    assert matrix.ROWS["oldest"][0] == PROJECT["requires-python"].removeprefix(">=")


def test_colab_is_within_the_floors():
    """What Colab brings satisfies pyproject.toml, or it could not be installed there."""
    floors = dict(requirement.split(">=") for requirement in REQUIREMENTS)
    for pin in matrix.COLAB:
        name, version = pin.removesuffix(".*").split("==")
        brought = [int(part) for part in version.split(".")]
        assert brought >= [int(part) for part in floors.get(name, "0").split(".")], name
