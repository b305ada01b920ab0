"""docs/findings.md has a section for each finding, and its pointers lead somewhere."""

import ast
import json
import re
from pathlib import Path

import pytest

from vaelab.clinic.findings import CHECKS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "findings.md"
TEXT = PAGE.read_text(encoding="utf-8")
CODES = sorted({check.code for check in CHECKS})
PARTS = ("What was seen", "Why it matters", "What to do", "When it is no illness")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[([^]]+)\]\(([^)]+)\)")
MOST_WORDS = 28  # in a sentence
MOST_WORDS_OF_A_SECTION = 170


def sections():
    """Heading -> text of each section after the table of contents."""
    _, *found = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    titled = [part.split("\n", 1) for part in found]
    assert titled[0][0] == "Contents"
    return [(title, text) for title, text in titled[1:]]


SECTIONS = dict(sections())


def prose(text):
    """The text without code blocks, each piece of inline code as one word."""
    return re.sub(r"`[^`]*`", "code", FENCE.sub("", text))


def sentences(text):
    """The sentences of a text in Markdown."""
    for paragraph in re.split(r"\n\s*\n|\n- ", prose(text)):
        plain = LINK.sub(r"\1", paragraph).replace("*", "")
        yield from re.split(r"(?<=[.?!])\s+", plain.strip())


def headings(notebook):
    """The headings of a notebook."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    return re.findall(r"^#+ (.+)$", "\n".join(texts), flags=re.MULTILINE)


def taught(text):
    """(name, path, sections) of each notebook that a section says it is taught in."""
    line = re.search(r"^\*\*Taught in\*\*: (.+)$", text, flags=re.MULTILINE)
    if line is None:
        return []
    found = re.split(r"(?=\[\w+\]\()", line[1])[1:]
    return [(*LINK.match(part).groups(), re.findall(r'"([^"]+)"', part)) for part in found]


def test_every_finding_has_one_section_and_every_section_is_a_finding():
    assert sorted(title for title, _ in sections()) == CODES


def test_the_table_of_contents_names_every_finding_once():
    contents = TEXT[TEXT.index("## Contents") : TEXT.index(f"\n## {sections()[0][0]}\n")]
    links = re.findall(r"^- \[([\w-]+)\]\(#([\w-]+)\): ", contents, flags=re.MULTILINE)
    assert [name for name, _ in links] == [anchor for _, anchor in links]
    assert [name for name, _ in links] == [title for title, _ in sections()]


@pytest.mark.parametrize("code", CODES)
def test_a_section_has_its_parts_in_order_and_is_short(code):
    text = SECTIONS[code]
    labels = re.findall(r"^\*\*([^*]+)\*\*:", text, flags=re.MULTILINE)
    assert tuple(labels) in (PARTS, (*PARTS, "Taught in"))
    assert len(prose(text).split()) < MOST_WORDS_OF_A_SECTION


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.look.__name__)
def test_a_notebook_that_a_finding_names_is_one_that_its_section_names(check):
    if not check.notebook:
        return
    assert (ROOT / "notebooks" / f"{check.notebook}.ipynb").is_file()
    named = [name.removesuffix("_more") for name, *_ in taught(SECTIONS[check.code])]
    assert check.notebook in named


@pytest.mark.parametrize("code", CODES)
def test_what_teaches_a_finding_exists(code):
    assert ("**Taught in**" in SECTIONS[code]) == bool(taught(SECTIONS[code]))
    for name, path, titles in taught(SECTIONS[code]):
        notebook = PAGE.parent / path
        assert notebook.stem == name
        assert titles and set(titles) <= set(headings(notebook)), name


def test_links_exist():
    for _, target in LINK.findall(FENCE.sub("", TEXT)):
        if target.startswith("#"):
            assert target[1:] in SECTIONS
        else:
            assert (PAGE.parent / target).is_file(), target


def test_code_compiles_and_fits_the_page():
    for language, code in FENCE.findall(TEXT):
        assert language == "python"
        ast.parse(code)
        assert max(map(len, code.splitlines())) <= 100


def test_sentences_are_short_and_plain():
    for sentence in sentences(TEXT):
        assert len(sentence.split()) <= MOST_WORDS, sentence
    assert ";" not in prose(TEXT)
    assert "!" not in prose(TEXT)
