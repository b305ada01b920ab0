"""Every notebook obeys the rules of its kind (tools/rules.py), and is valid."""

import nbformat
import pytest

import notebooks
import rules


@pytest.mark.parametrize("path", notebooks.find(), ids=lambda path: path.stem)
def test_notebook(path):
    nb = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(nb)
    assert rules.broken(nb, path) == []


def test_names():
    """A companion belongs to a notebook, and says so by its name."""
    for path in notebooks.find():
        if path.parent.name == "deeper":
            assert "_more" in path.stem, path.name
            first = path.stem.partition("_more")[0]
            assert (path.parent.parent / f"{first}.ipynb").exists(), path.name
