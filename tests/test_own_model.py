"""The lines "check your own model" of every rewritten notebook, run on models of strangers."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from plain_models import loss_function, plain_models

import vaelab

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
MODELS = plain_models()
# The conditional one needs `inputs=labels` in every line: tests/test_adapt.py has it.
NAMES = [name for name in MODELS if name != "conditional"]


def own_model_cells():
    """(notebook's name, number of the cell, source) of each cell with the tag own-model."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for number, cell in enumerate(cells):
            if "own-model" in cell["metadata"].get("tags", []):
                yield path.stem, number, "".join(cell["source"])


def image_loss(reconstruction, x, mu, logvar):
    """What goes with the convolutional model, whose outputs are shaped like its images."""
    error = F.binary_cross_entropy(reconstruction, x, reduction="sum")
    return error - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


@pytest.fixture(scope="module")
def images():
    return vaelab.load("digits").x_test[:200]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("notebook", "number", "source"), list(own_model_cells()))
def test_the_lines_for_ones_own_model_run(notebook, number, source, name, images, capsys):
    model, _ = MODELS[name]
    names = {
        "my_model": model,
        "my_images": images.clone(),
        "my_loss": image_loss if name == "convolutional" else loss_function,
        "vaelab": vaelab,
        "torch": torch,
    }
    exec(compile(source, f"{notebook}, cell {number}", "exec"), names)
    assert torch.equal(names["my_images"], images)
