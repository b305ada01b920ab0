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
    """A companion belongs to the one notebook that has its number."""
    for path in notebooks.find():
        if path.parent.name == "deeper":
            number = path.stem[:3]
            assert len(list(path.parent.parent.glob(f"{number}*.ipynb"))) == 1, path.name
