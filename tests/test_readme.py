"""The front door holds: pictures, alt text, links, anchors, commands, every number it quotes."""

import html
import json
import re

import nbformat
import pytest

import links

ROOT = links.ROOT
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "coursework/README.md",
    "tests/ward/README.md",
)
PAGES = [ROOT / page for page in PAGES if (ROOT / page).exists()]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def without_code(text):
    """Markdown without fenced blocks and code spans, where nothing is a link."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"(?ms)^```.*?^```$", "", text))


def pictures(text):
    """(path, alt) of every picture; an <img> without alt text has None."""
    found = [(path, alt) for alt, path in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", text)]
    for tag in re.findall(r"<img\b[^>]*>", text):
        path, alt = re.search(r'src="([^"]*)"', tag), re.search(r'alt="([^"]*)"', tag)
        found.append((path[1], html.unescape(alt[1]) if alt else None))
    return found


def targets(text):
    """Every link of a page: markdown, reference and HTML; pictures not counted."""
    text = without_code(text)
    inline = r"(?<!!)\[(?:!\[[^\]]*\]\([^)]*\)|[^\]])*\]\(\s*<?([^)\s>]+)"
    kinds = (inline, r'href="([^"]+)"', r"(?m)^\[[^\]]+\]:\s*(\S+)")
    return [target for kind in kinds for target in re.findall(kind, text)]


def anchors(text):
    """Every anchor of a page: GitHub's for its headings, and those written as id or name."""
    found = set(re.findall(r'(?:id|name)="([^"]+)"', text))
    for heading in re.findall(r"(?m)^#{1,6} +(.+?) *#*$", re.sub(r"(?ms)^```.*?^```$", "", text)):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        found.add(re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-"))
    return found


def broken(page, text):
    """What is wrong with the pictures and links of a page, in one sentence each."""
    for path, alt in pictures(text):
        if not path.startswith("https://"):
            if not (page.parent / path).is_file():
                yield f"no picture {path}"
            if alt is None or len(alt) <= 20:
                yield f"{path} has no alt text, or next to none"
    for target in targets(text):
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if path and not (there.is_relative_to(ROOT) and there.exists()):
            yield f"no file {path}"
        elif anchor and there.suffix == ".md":
            there_text = text if there == page else there.read_text(encoding="utf-8")
            if anchor not in anchors(there_text):
                yield f"no anchor {target}"


def rows(text, *header):
    """The cells of each row of the table whose header starts with these cells."""
    lines = text.splitlines()
    split = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    start = next(
        i for i, cells in enumerate(split) if len(cells) > 1 and cells[: len(header)] == [*header]
    )
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
    return split[start + 2 : end]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pictures_links_and_anchors(page):
    text = page.read_text(encoding="utf-8")
    assert list(broken(page, text)) == []
    assert targets(text)


NO_ALT = "figures/00_strip.png has no alt text, or next to none"


@pytest.mark.parametrize(
    "text, problem",
    [
        ("![a picture of nothing at all](figures/none.png)", "no picture figures/none.png"),
        ('<img src="figures/00_strip.png" alt="digits">', NO_ALT),
        ('<img src="figures/00_strip.png" width="9">', NO_ALT),
        ("[x](none.md)", "no file none.md"),
        ("[x](../other/none.md)", "no file ../other/none.md"),
        ("[x](#nowhere)\n\n# Somewhere", "no anchor #nowhere"),
        ("[x](README.md#nowhere)", "no anchor README.md#nowhere"),
        ('<a href="none.md">x</a>', "no file none.md"),
        ("[x]\n\n[x]: none.md", "no file none.md"),
        ("[![long enough alt text here](https://x/y.svg)](none.md)", "no file none.md"),
    ],
)
def test_what_is_broken_is_found(text, problem):
    assert list(broken(ROOT / "page.md", text)) == [problem]


def test_what_is_right_is_not_reported():
    text = "[a](#what-it-says-and-2) [b](README.md#set-up) [c](https://x.y) `[d](none)`"
    text += "\n\n## What it *says*, and 2"
    assert list(broken(ROOT / "page.md", text)) == []


def shown_symptoms():
    """Anchor -> text of each symptom that the README shows with its picture."""
    part = README.partition("<!-- symptoms: pictures -->")[2].partition("<!-- end: pictures -->")[0]
    found = re.split(r'(?m)^### <a id="([\w-]+)"></a>', part)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))


def test_every_notebook_is_shown_with_a_picture_and_its_own_badge():
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        link = f"](notebooks/{notebook.name})"
        texts = [text for text in shown_symptoms().values() if link in text]
        assert len(texts) == 1, notebook.name
        badge = f"/blob/{links.address()[1]}/notebooks/{notebook.name})"
        assert '<img src="figures/' in texts[0] and badge in texts[0]


def test_the_first_screen_has_a_picture_the_lines_and_every_symptom():
    first = README.partition("## Find your symptom")[0]
    wanted = re.findall(r"(?m)^- \[.*\]\(#([\w-]+)\)$", first)
    assert sorted(wanted) == sorted(shown_symptoms())
    assert first.count("\n") < 35, "the first screen is longer than a screen"
    above = first.partition("Or find the sentence")[0]
    assert pictures(above) and "vaelab.checkup(model, x, loss)" in above
    code = re.search(r"(?ms)^```python\n(.*?)^```", above)[1]
    assert max(map(len, code.splitlines())) <= 40, "cut off on a phone"


def printed(number):
    """Everything that the notebook of this number and its companion printed, as one text."""
    texts, cells = [], []
    for path in (ROOT / "notebooks").rglob(f"{number}_*.ipynb"):
        cells += nbformat.read(path, as_version=4).cells
    for cell in cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            texts += [output.get("text", ""), data.get("text/plain", "")]
            texts.append(html.unescape(re.sub(r"<[^>]+>", " ", data.get("text/html", ""))))
    return "\n".join(texts)


def numbers(text):
    """Every number of a text as it is written, without sign and thousands separators."""
    return {number.replace(",", "") for number in re.findall(r"\d[\d,]*(?:\.\d+)?", text)}


QUOTED = [(row[1], row[2], row[3]) for row in rows(README, "thread", "what it says")]


@pytest.mark.parametrize("what, quoted, where", QUOTED, ids=[what[:40] for what, _, _ in QUOTED])
def test_every_quoted_number_is_printed_by_its_notebook(what, quoted, where):
    """Settings (batch 128) are printed as well. After new outputs, the README gets new numbers."""
    number = re.search(r"notebooks/(\d\d)_", where)[1]
    plain = re.sub(r"<[^>]+>|`[^`]*`", " ", quoted)
    missing = numbers(plain) - numbers(printed(number)) - {"0", "1", "2"}
    assert not missing, f"notebook {number} does not print {sorted(missing)}"


def test_the_quoted_benchmark_is_the_one_that_was_run():
    """The README's table, and the same numbers in the clinic's notebook."""
    results = json.loads((ROOT / "tests" / "benchmark" / "results.json").read_text("utf-8"))
    cases = [case for case in results["case"] if case["harm"]]
    healthy = results["first use"] + results["control"]
    alarms = sum(bool(model["serious"]) for model in healthy)

    def of_all(key, grade):
        return f"{sum(case[key] == grade for case in cases)} of {len(cases)}"

    keys = ("grade", "grade without x_train")
    quoted = [
        ["the cause is the first serious finding", *(of_all(key, "first") for key in keys)],
        ["silent on a sick model", *(of_all(key, "silent") for key in keys)],
        ["a false alarm on a healthy model", "", f"{alarms} of {len(healthy)}"],
    ]
    assert rows(README, "", "with `x_train=`") == quoted
    clinic = (ROOT / "notebooks" / "11_clinic.ipynb").read_text("utf-8")
    assert of_all("grade", "first") in clinic and f"{len(healthy)} healthy" in clinic


def test_only_known_thread_addresses_are_linked():
    known = {f"stats.stackexchange.com/questions/{number}" for number in (580436, 625388, 577384)}
    known.add("stackoverflow.com/questions/65307833")
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        linked = re.findall(
            r"https?://([\w.]*(?:stackexchange|stackoverflow)\.com[^\s)>\"]*)", text
        )
        assert set(linked) <= known


def make_targets():
    """Every target of the Makefile that is a word to say."""
    return re.search(r"(?m)^\.PHONY: (.+)$", MAKEFILE)[1].split()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page):
    """Every `make X` is a target, and every tool that is called is there."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"(?ms)^```(?:sh|bat)\n(.*?)^```$", text) + re.findall(
        r"`(make [^`\n]+)`", text
    )
    call = r"(?m)^(?:VAELAB_\w+=\S+ )*make(?: [A-Z]+=\S+)* ([a-z][\w-]*)"
    for target in re.findall(call, "\n".join(blocks)):
        assert target in make_targets(), target
    for tool in re.findall(r"\btools[/\\](\w+)\.py", text):
        assert (ROOT / "tools" / f"{tool}.py").exists(), tool


def test_help_names_every_target():
    for target in make_targets():
        assert re.search(rf"(?m)^{target}:", MAKEFILE), target
        assert target == "help" or f'@echo "make {target} ' in MAKEFILE, target
