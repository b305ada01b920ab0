"""The pages in docs/symptoms/: their form, their numbers, and the README that is made of them."""

import ast
import json
import re

import pytest
import torch
from plain_models import ConditionalVAE, ExamplesVAE, loss_function
from test_findings_page import FENCE, MOST_WORDS, sentences
from test_readme import README, broken, numbers, printed

import links
import symptoms

PAGES = sorted(symptoms.FOLDER.glob("*.md"))
NAMES = [path.stem for path in PAGES]
OUTSIDE = symptoms.GROUPS["Beyond the check-up: VQ, GAN, anomalies, diffusion"]
NUMBERS = json.loads((links.ROOT / "docs" / "pictures" / "numbers.json").read_text("utf-8"))
TREATED = ("The fix", "Check your own model", "Not yours?", "Read on")
UNTREATED = ("What is known", "Where to look", "Not yours?", "Read on")
MOST_WORDS_OF_A_PAGE = 345
MOST_LINES_OF_A_FIX = 6


def text(name):
    return (symptoms.FOLDER / f"{name}.md").read_text(encoding="utf-8")


def test_every_page_is_listed_once():
    assert len(NAMES) >= 20
    assert sorted(symptoms.names()) == NAMES
    assert set(symptoms.IN_README) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_its_parts_in_order(name):
    page = symptoms.read(name)
    assert 2 <= len(page.title.split()) <= 14
    assert page.cause and len(page.words.split(",")) >= 6
    headings = tuple(re.findall(r"(?m)^## (.+)$", text(name)))
    assert headings == (UNTREATED if name in OUTSIDE else TREATED)
    if name != "gan":  # nothing of ours was measured there
        assert page.picture and page.number and len(page.alt) >= 40
    if name not in OUTSIDE:
        assert "vaelab.checkup(" in text(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_short_and_plain(name):
    body, _, _ = text(name).partition("**Other words for it.**")
    assert len(FENCE.sub("", body).split()) <= MOST_WORDS_OF_A_PAGE
    for sentence in sentences(body):
        assert len(sentence.split()) <= MOST_WORDS, sentence
        assert ";" not in sentence and not sentence.endswith("!"), sentence


@pytest.mark.parametrize("name", NAMES)
def test_links_and_pictures_are_there(name):
    assert list(broken(symptoms.FOLDER / f"{name}.md", text(name))) == []


@pytest.mark.parametrize("name", NAMES)
def test_code_compiles_and_the_fix_is_short(name):
    fix = text(name).partition("## The fix")[2].partition("\n## ")[0]
    for _, code in FENCE.findall(fix):
        assert len(code.strip().splitlines()) <= MOST_LINES_OF_A_FIX
    for language, code in FENCE.findall(text(name)):
        if language == "python":
            ast.parse(code)


@pytest.mark.parametrize("name", NAMES)
def test_the_number_was_measured(name):
    """It is printed by the page's notebook, or by the script of its picture."""
    page = symptoms.read(name)
    key = page.picture.removeprefix("figures/page_").removesuffix(".png")
    output = NUMBERS.get(key, "")
    if page.notebook:
        output += printed(re.search(r"notebooks/(\d\d)_", page.notebook)[1])
    quoted = numbers(re.sub(r"`[^`]*`|\]\([^)]*\)", " ", page.number))
    missing = quoted - numbers(output) - {"0", "1", "2"}
    assert not missing, f"nothing prints {sorted(missing)}"


def test_the_readme_is_in_step():
    assert symptoms.rendered(README) == README, "run python tools/symptoms.py"


def test_every_picture_has_its_script():
    made = {path.stem.removeprefix("page_") for path in links.ROOT.glob("figures/page_*.png")}
    scripts = {path.stem for path in (links.ROOT / "docs" / "pictures").glob("*.py")} - {"run"}
    assert made == scripts == set(NUMBERS)


def check_blocks():
    """Each different block of code under "Check your own model", with a page that has it."""
    found = {}
    for name in NAMES:
        part = text(name).partition("## Check your own model")[2].partition("\n## ")[0]
        for _, code in FENCE.findall(part):
            found.setdefault(code, name)
    return [pytest.param(code, id=name) for code, name in found.items()]


@pytest.mark.parametrize("code", check_blocks())
def test_the_check_runs_on_the_vae_of_pytorch_examples(code, capsys):
    """As it stands: a conditional one where the page has labels, and rows where it has a table."""
    torch.manual_seed(0)
    x, y = torch.rand(300, 1, 28, 28), torch.arange(300) % 10
    model = ConditionalVAE() if "inputs=y" in code else ExamplesVAE()
    if "x.std(0)" in code:
        x = x.flatten(1)
    names = {"model": model, "x": x, "y": y, "x_train": x, "my_loss": loss_function}
    exec(code, names | {"rows": torch.randn(300, 3), "new_rows": torch.randn(300, 3)})
    assert "serious" in capsys.readouterr().out
