"""Notebooks in JupyterLab, run as a reader runs them."""

import pytest

import rules

pytestmark = pytest.mark.browser


def test_run_all_cells(lab):
    name = "00_start_here.ipynb"
    nb = lab.run_all(name)
    lab.screenshots("00_start_here")
    assert list(rules.executed(nb, lab.folder / name)) == []
    assert list(rules.DEBRIS.findall(lab.output_text())) == []
    assert (
        lab.page.locator(".jp-Notebook [data-mime-type='application/vnd.jupyter.stderr']").count()
        == 0
    )
    drawn = [output for _, output in rules.outputs(nb) if "image/png" in output.get("data", {})]
    assert drawn and len(lab.figures()) == len(drawn)
    assert min(lab.figures()) > 0
