"""Each figure is drawn and holds what it promises; how it looks is for eyes."""

import matplotlib.pyplot as plt
import pytest
import torch

import vaelab
from vaelab import plots
from vaelab.diagnostics import Landmarks


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def trained():
    x = torch.rand(120, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model = vaelab.mlp_vae((1, 6, 6), latent_dim=3, hidden=8)
    return model, x, vaelab.fit(model, x, x[:50], epochs=2, progress=False)


def texts(figure):
    return " ".join(text.get_text() for text in figure.findobj(plt.Text))


def test_ruler_shows_landmarks_and_runs(trained):
    _, x, history = trained
    figure = plots.ruler(Landmarks(1.0, 2.0, 3.0), {"mine": history})
    shown = texts(figure)
    assert "floor" in shown and "mean image" in shown and "mine" in shown
    assert f"{history.final['negative_elbo']:.1f}" in shown


def test_strip_keeps_a_fixed_scale_and_marks_values_outside_it():
    dim = torch.full((2, 1, 4, 4), 0.2)
    outside = torch.tensor([-0.5, 1.5]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    figure = plots.strip({"dim": dim, "outside": outside})
    pictures = [image for ax in figure.axes for image in ax.get_images()]
    assert all(image.get_clim() == (0.0, 1.0) for image in pictures)
    below, above = pictures[2], pictures[3]
    assert below.to_rgba(below.get_array())[0, 0].tolist() == list(
        plt.matplotlib.colors.to_rgba(plots.UNDER)
    )
    assert above.to_rgba(above.get_array())[0, 0].tolist() == list(
        plt.matplotlib.colors.to_rgba(plots.OVER)
    )


def test_kl_is_drawn():
    assert plots.kl_per_latent(torch.rand(10, 3)).axes[0].patches


def test_strip_does_not_mark_what_leaves_the_scale_by_a_hair():
    image = torch.tensor([-0.01, 0.5, 1.015, -0.2]).view(1, 1, 2, 2)
    shown = plots.strip({"near": image}).axes[0].get_images()[0].get_array()
    assert shown.min() == pytest.approx(-0.2) and shown.max() == 1.0 and shown[0, 0] == 0.0
