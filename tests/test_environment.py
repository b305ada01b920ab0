"""pyproject.toml and environment.yml ask for the same, and the package imports nothing else."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
CONDA_NAMES = {"torch": "pytorch"}
IMPORT_NAMES = {"sklearn": "scikit-learn", "PIL": "pillow"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def floors(requirements):
    """{name: floor} of requirements that may have a floor and nothing else."""
    found = {}
    for requirement in requirements:
        match = re.fullmatch(r"([\w-]+)(?:>=([\d.]+))?", requirement)
        assert match, f"{requirement!r} is not a name with a floor"
        found[match[1]] = match[2]
    return found


def test_conda_asks_for_the_same_floors():
    wanted = floors(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["lab"])
    wanted = {CONDA_NAMES.get(name, name): floor for name, floor in wanted.items()}
    wanted["python"] = PROJECT["requires-python"].removeprefix(">=")
    conda = floors(item for item in CONDA["dependencies"] if isinstance(item, str))
    assert conda.pop("pip", "missing") is None
    assert conda == wanted


def test_conda_uses_conda_forge_only_and_installs_the_package():
    assert CONDA["channels"] == ["conda-forge", "nodefaults"]
    assert CONDA["dependencies"][-1] == {"pip": ["-e ."]}


def test_every_dependency_has_a_floor_and_no_ceiling():
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        assert None not in floors(group).values()


def test_the_package_imports_its_dependencies_only():
    """IPython is there in a notebook, and is imported only where it is used."""
    allowed = set(floors(PROJECT["dependencies"])) | {"vaelab"} | set(sys.stdlib_module_names)
    for path in (ROOT / "vaelab").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            optional = {"IPython"} if node not in tree.body else set()
            for name in names:
                top = name.partition(".")[0]
                assert IMPORT_NAMES.get(top, top) in allowed | optional, (
                    f"{path.name} imports {name}"
                )
