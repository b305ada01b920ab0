"""Write the README's symptoms anew from docs/symptoms/: `python tools/symptoms.py [--check]`.

A page of docs/symptoms/ is the one source of its title, picture, cause and number. The README and
the web site show them from there.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import atomic
import links

ROOT = links.ROOT
FOLDER = ROOT / "docs" / "symptoms"
# Every page, in the order in which the README and the site list them.
GROUPS = {
    "The pictures": [
        "all-black",
        "same-output",
        "flat",
        "blurry",
        "bad-samples",
        "strange-colours",
        "grey-background",
        "label-ignored",
        "overfit",
        "mu-or-sample",
    ],
    "The loss and the KL": [
        "nan",
        "kl-spike",
        "kl-zero",
        "strong-decoder",
        "kl-weight",
        "kl-goes-up",
        "negative-loss",
        "large-loss",
        "kl-formula",
        "not-learning",
        "best-checkpoint",
    ],
    "The latent space": ["perfect-gaussian", "active-units", "map"],
    "Data, outputs and sizes": [
        "sigmoid",
        "data-range",
        "unknown-scale",
        "tables",
        "image-size",
        "half-precision",
        "train-eval",
    ],
    "Where to begin": ["healthy", "own"],
    "Beyond the check-up: VQ, GAN, anomalies, diffusion": [
        "vq",
        "gan",
        "disentanglement",
        "anomalies",
        "latent-scale",
    ],
}
# Those that the README shows with their picture: one for each notebook.
IN_README = [
    "all-black",
    "same-output",
    "perfect-gaussian",
    "flat",
    "nan",
    "strong-decoder",
    "blurry",
    "sigmoid",
    "unknown-scale",
    "map",
    "healthy",
    "own",
]


@dataclass(frozen=True)
class Page:
    """What others show of one symptom page; picture and notebook are paths from the root."""

    name: str
    title: str
    picture: str
    alt: str
    cause: str
    number: str
    notebook: str
    words: str


def found(pattern, text):
    """The first group of a pattern, without line breaks, or an empty text."""
    match = re.search(pattern, text)
    return " ".join(match[1].split()) if match else ""


def read(name):
    """The Page of a short name."""
    text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    return Page(
        name,
        title=found(r"(?m)^# (.+)$", text),
        picture=found(r"!\[[^\]]*\]\(\.\./\.\./([^)]+)\)", text),
        alt=found(r"!\[([^\]]*)\]\(\.\./\.\./", text),
        cause=found(r"(?s)\*\*What it is\.\*\* (.+?)\n\n", text),
        number=found(r"(?s)\*\*One number\.\*\* (.+?)\n\n", text),
        notebook=found(r"\]\(\.\./\.\./(notebooks/\d\d_\w+\.ipynb)\)", text),
        words=found(r"(?s)\*\*Other words for it\.\*\* (.+?)\s*$", text),
    )


def names():
    """The short names of all pages, in order."""
    return [name for group in GROUPS.values() for name in group]


def from_root(markdown):
    """A text of docs/symptoms/ with its links as they are from the root of the repository."""

    def moved(match):
        path, _, anchor = match[1].partition("#")
        there = (FOLDER / path).resolve().relative_to(ROOT).as_posix()
        return f"]({there}#{anchor})" if anchor else f"]({there})"

    return re.sub(r"\]\((?!https?:)([^)]+)\)", moved, markdown)


def section(page):
    """One symptom as the README shows it: picture, cause, number, and where to go."""
    repository, branch = links.address()
    title = Path(page.notebook).stem.replace("_", " ")
    badge = links.badge(page.notebook, repository, branch)
    return f"""\
### <a id="{page.name}"></a>{page.title}

<img src="{page.picture}" width="640" alt="{page.alt}">

{from_root(page.cause)} {from_root(page.number)}

[The fix, and the check](docs/symptoms/{page.name}.md) · [{title}]({page.notebook})
{badge}
"""


def blocks():
    """Name -> text of each part of the README that is made from the pages."""
    shown = [read(name) for name in IN_README]
    listed = ""
    for title, group in GROUPS.items():
        pages = [read(name) for name in group]
        lines = [f"- [{page.title}](docs/symptoms/{page.name}.md)" for page in pages]
        listed += f"**{title}**\n\n" + "\n".join(lines) + "\n\n"
    return {
        "first": "\n".join(f"- [{page.title}](#{page.name})" for page in shown),
        "pictures": "\n".join(section(page) for page in shown).strip(),
        "all": listed.strip(),
    }


def rendered(text):
    """The README's text with each of its blocks as the pages ask for."""
    for name, block in blocks().items():
        begin, end = f"<!-- symptoms: {name} -->", f"<!-- end: {name} -->"
        before, found_begin, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found_begin and found_end):
            raise SystemExit(f"README.md must hold {begin} and {end}")
        text = f"{before}{begin}\n{block}\n{end}{after}"
    return text


def main():
    """Write the README, or with --check say whether it is in step."""
    readme = ROOT / "README.md"
    before = readme.read_text(encoding="utf-8")
    after = rendered(before)
    if sys.argv[1:] == ["--check"]:
        print("README.md is in step" if before == after else "README.md is out of step")
        return int(before != after)
    if before != after:
        atomic.write(readme, after, before)
    print(f"README.md: {len(IN_README)} symptoms shown, {len(names())} listed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
