"""Every notebook obeys every rule of tools/rules.py, and every link to this repository can be stamped."""

import nbformat
import pytest

import links
import rules

NOTEBOOKS = sorted((links.ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, rule):
    nb = nbformat.read(path, as_version=4)
    assert rules.broken(nb, path, [rule]) == []


@pytest.mark.parametrize("path", links.files(), ids=lambda path: str(path.relative_to(links.ROOT)))
def test_links_to_this_repository_are_rendered_and_marked(path):
    repository = links.current()
    text = path.read_text(encoding="utf-8")
    assert links.rendered(path, repository) == text, "python tools/links.py --render"
    assert links.unmarked(path, repository) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_valid(path):
    nbformat.validate(nbformat.read(path, as_version=nbformat.NO_CONVERT))
