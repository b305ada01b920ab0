"""The pages in docs/: links lead somewhere, code compiles, sentences are short."""

import ast
from pathlib import Path

import pytest
from test_findings_page import FENCE, LINK, MOST_WORDS, sentences
from test_readme import anchors

from vaelab.clinic import rehearsal

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = sorted(DOCS.glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for _, target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_compiles(page):
    for language, code in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            ast.parse(code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sentences_are_short(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("|"))
    for sentence in sentences(text):
        assert len(sentence.split()) <= MOST_WORDS, sentence
        assert ";" not in sentence, sentence


def test_every_prognosis_has_a_section():
    page = (DOCS / "rehearsal.md").read_text(encoding="utf-8")
    assert set(rehearsal.CODES) <= anchors(page)
