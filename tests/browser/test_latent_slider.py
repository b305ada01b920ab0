"""The slider of notebook 07, moved by keyboard as a reader moves it."""

import pytest

import rules

pytestmark = pytest.mark.browser


def test_the_slider_moves_the_picture(lab):
    name = "07_latent_maps.ipynb"
    nb = lab.run_all(name)
    assert list(rules.executed(nb, lab.folder / name)) == []
    assert list(rules.DEBRIS.findall(lab.output_text())) == []
    handle = lab.page.locator(".jp-Notebook .widget-slider .noUi-handle")
    picture = lab.page.locator(".jp-Notebook img.widget-image")
    assert handle.count() == picture.count() == 1
    drawn = [output for _, output in rules.outputs(nb) if "image/png" in output.get("data", {})]
    assert len(lab.figures()) == len(drawn) + 1 and min(lab.figures()) > 0

    handle.scroll_into_view_if_needed()
    lab.screenshot("latent_slider_start.png")
    seen = [picture.get_attribute("src")]
    for key in ("ArrowRight", "End"):
        handle.focus()
        handle.press(key)
        lab.page.wait_for_function(
            "before => document.querySelector('.jp-Notebook img.widget-image').src !== before",
            arg=seen[-1],
        )
        seen.append(picture.get_attribute("src"))
    assert len(set(seen)) == 3
    lab.page.wait_for_function(
        "document.querySelector('.jp-Notebook img.widget-image').naturalWidth > 0"
    )
    assert "1.00" in lab.page.locator(".jp-Notebook .widget-readout").inner_text()
    lab.screenshot("latent_slider_end.png")
