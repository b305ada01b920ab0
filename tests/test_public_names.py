"""The public names: one explicit list, each used by a notebook, the coursework or the README."""

import json
import re
from pathlib import Path

import vaelab

ROOT = Path(__file__).resolve().parent.parent


def published_text():
    """The code and the text that readers see: notebooks, assignments, README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    paths = [*(ROOT / "notebooks").rglob("*.ipynb"), *(ROOT / "coursework/source").rglob("*.ipynb")]
    for path in paths:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            text += "".join(cell["source"]) + "\n"
    return text


def test_every_public_name_is_used_by_what_readers_see():
    used = set(re.findall(r"\bvaelab\.(\w+)", published_text()))
    unused = [name for name in vaelab.__all__ if name not in used and name != "__version__"]
    assert unused == []


def test_the_list_is_short_and_true():
    assert len(vaelab.__all__) <= 54
    assert all(hasattr(vaelab, name) for name in vaelab.__all__)


def test_the_core_does_not_import_the_clinic():
    for path in (ROOT / "vaelab").glob("*.py"):
        if path.name != "__init__.py":
            assert "clinic" not in re.findall(
                r"^\s*(?:from|import) \.?(\w+)", path.read_text(), re.M
            )
