"""The workflows, and the citation: valid, safe, and of commands that exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import links
from matrix import ROWS

FOLDER = links.ROOT / ".github" / "workflows"
PATHS = sorted(FOLDER.glob("*.yml"))
BIN = Path(sys.executable).parent


def load(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def commands(path):
    """Every line that a workflow runs."""
    steps = [step for job in load(path)["jobs"].values() for step in job["steps"]]
    return [line.strip() for step in steps for line in step.get("run", "").splitlines()]


def passes(*command):
    """Assert that a command succeeds, and show what it said where it does not."""
    done = subprocess.run(command, cwd=links.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_there_is():
    names = {path.stem for path in PATHS}
    assert names == {"test", "monthly", "site", "links", "stamp", "release"}


def test_the_workflows_are_valid():
    passes(BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *PATHS)


def test_the_workflows_are_safe():
    passes(BIN / "zizmor", "--offline", "--no-progress", "--quiet", FOLDER)


def test_the_citation_is_valid():
    schema = "vendor.citation-file-format"
    passes(BIN / "check-jsonschema", "--builtin-schema", schema, links.ROOT / "CITATION.cff")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_commands_exist(path):
    makefile = (links.ROOT / "Makefile").read_text(encoding="utf-8")
    for line in commands(path):
        for target in re.findall(r"^make ([\w-]+)", line):
            assert re.search(rf"(?m)^{target}:", makefile), target
        for tool in re.findall(r"tools/(\w+)\.py", line):
            assert (links.ROOT / "tools" / f"{tool}.py").exists(), tool


def test_rows_of_the_matrix_exist():
    jobs = load(FOLDER / "monthly.yml")["jobs"]
    assert set(jobs["rows"]["strategy"]["matrix"]["row"]) <= set(ROWS)


def test_the_tests_run_on_three_systems_and_three_pythons():
    matrix = load(FOLDER / "test.yml")["jobs"]["test"]["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert matrix["python"] == ["3.11", "3.12", "3.13"]
