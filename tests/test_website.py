"""How links change on their way to the web site."""

import pytest

import links
import website

KNOWN = {
    "docs/index.md": "index.md",
    "docs/findings.md": "findings.md",
    "docs/symptoms/nan.md": "symptoms/nan.md",
    "notebooks/08_nan_loss.ipynb": "notebooks/08_nan_loss.ipynb",
    "notebooks/deeper/08_nan_loss_more.ipynb": "notebooks/deeper/08_nan_loss_more.ipynb",
    "figures/a.png": "figures/a.png",
    "CONTRIBUTING.md": "contributing.md",
}
PAGE = ("docs/symptoms/nan.md", "symptoms/nan.md")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("[a](../findings.md#kl-form)", "[a](../findings.md#kl-form)"),
        ("[a](../../notebooks/08_nan_loss.ipynb)", "[a](../notebooks/08_nan_loss.ipynb)"),
        ("![a picture](../../figures/a.png)", "![a picture](../figures/a.png)"),
        ('<img src="../../figures/a.png">', '<img src="../figures/a.png">'),
        ("[a](../../CONTRIBUTING.md)", "[a](../contributing.md)"),
        ("[a](../../README.md#set-up)", "[a](../index.md)"),
        ("[a](https://x.org/y)", "[a](https://x.org/y)"),
        ("`[a](../../notebooks/08_nan_loss.ipynb)`", "`[a](../../notebooks/08_nan_loss.ipynb)`"),
    ],
)
def test_a_link_leads_to_the_same_page_on_the_site(text, expected):
    assert website.relinked(text, *PAGE, KNOWN) == expected


def test_what_is_not_on_the_site_is_on_github_or_plain_text(monkeypatch):
    text = "see [the patients](../../tests/ward/patients.py), please"
    monkeypatch.setattr(links, "address", lambda: (links.UNSTAMPED, "main"))
    assert website.relinked(text, *PAGE, KNOWN) == "see the patients, please"
    monkeypatch.setattr(links, "address", lambda: ("ann/vaes", "trunk"))
    address = "https://github.com/ann/vaes/blob/trunk/tests/ward/patients.py"
    assert website.relinked(text, *PAGE, KNOWN) == f"see [the patients]({address}), please"
    home = "[a](https://github.com/ann/vaes/blob/trunk/notebooks/08_nan_loss.ipynb)"
    assert website.relinked(home, *PAGE, KNOWN) == "[a](../notebooks/08_nan_loss.ipynb)"


def test_names_and_numbers_of_notebooks_become_links():
    place = "notebooks/deeper/08_nan_loss_more.ipynb"
    text = "As in notebook 08 and `notebooks/08_nan_loss.ipynb`, not `deeper/08_nan_loss_more`."
    assert website.with_notebook_links(text, place, KNOWN) == (
        "As in [notebook 08](../08_nan_loss.ipynb) and "
        "[`notebooks/08_nan_loss.ipynb`](../08_nan_loss.ipynb), not `deeper/08_nan_loss_more`."
    )


def test_a_fenced_block_stays_as_it_is():
    text = "```sh\njupyter lab notebook 08 `08_nan_loss`\n```"
    assert website.with_notebook_links(text, "notebooks/09_x.ipynb", KNOWN) == text
