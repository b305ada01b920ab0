"""Build the web site into build/site/: `python tools/website.py`. Nothing is executed.

The pages lie in docs/, the notebooks and pictures where they always lie. They are copied into one
folder, with links as they are there, and Sphinx makes HTML of it. A warning is an error.
"""

import html
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import links
import symptoms
import vaelab

ROOT = links.ROOT
SOURCE = ROOT / "build" / "site-source"
SITE = ROOT / "build" / "site"
# Pages that do not lie in docs/, and where they stand on the site.
ELSEWHERE = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "coursework/README.md": "teaching.md",
    "tests/benchmark/results.md": "benchmark.md",
    "tests/benchmark/second/results.md": "benchmark-second.md",
}
LINK = re.compile(r"(\]\()([^)\s]+)(\))|((?:href|src)=\")([^\"]+)(\")")
NOTEBOOK = re.compile(r"`(?:notebooks/)?((?:deeper/)?\d\d_\w+)(?:\.ipynb)?`")
NUMBERED = re.compile(r"(?<![\w\[`/])([Nn]otebook (\d\d))\b(?![^\[]*\]\()")
CODE = re.compile(r"(?ms)(^ *```.*?^ *```|`[^`\n]+`)")


def places():
    """Path from the root -> path on the site, of everything that is shown there."""
    found = {path: place for path, place in ELSEWHERE.items() if (ROOT / path).exists()}
    for path in (ROOT / "docs").rglob("*.md"):
        place = path.relative_to(ROOT / "docs").as_posix()
        found[f"docs/{place}"] = place
    for path in (ROOT / "coursework" / "lessons").glob("*.md"):
        found[f"coursework/lessons/{path.name}"] = f"lessons/{path.name}"
    for folder, kind in (("notebooks", "*.ipynb"), ("figures", "*.png")):
        for path in (ROOT / folder).rglob(kind):
            place = path.relative_to(ROOT).as_posix()
            found[place] = place
    return found


def linked(target, source, place, known):
    """A link of the file `source` as it has to be at `place`, or None if it leads off the site."""
    repository, branch = links.address()
    ours = f"https://github.com/{repository}/blob/{branch}/"
    if target.startswith(("http:", "https:", "mailto:", "#")) and not target.startswith(ours):
        return target
    path, _, anchor = target.partition("#")
    if target.startswith(ours):
        there = path.removeprefix(ours)
    else:
        there = os.path.normpath(Path(source).parent / path).replace(os.sep, "/")
    ending = f"#{anchor}" if anchor else ""
    if there == "README.md":  # the site has a front page of its own
        there, ending = "docs/index.md", ""
    if there in known:
        return os.path.relpath(known[there], Path(place).parent).replace(os.sep, "/") + ending
    return f"{ours}{there}{ending}" if repository != links.UNSTAMPED else None


def relinked(text, source, place, known):
    """A text with its links as they have to be at `place`; one that leads nowhere becomes text."""

    def one(match):
        before, target, after = match.groups()[:3] if match[1] else match.groups()[3:]
        new = linked(html.unescape(target), source, place, known)
        return f"{before}{new}{after}" if new else f"{before}#{after}"

    parts = CODE.split(text)
    parts[::2] = [LINK.sub(one, part) for part in parts[::2]]
    return re.sub(r"(?<!!)\[([^\]]*)\]\(#\)", r"\1", "".join(parts))


def with_notebook_links(text, place, known):
    """A notebook's text where the names and numbers of other notebooks are links."""
    here = Path(place).parent
    by_number = {Path(path).name[:2]: path for path in known if re.match(r"notebooks/\d\d_", path)}

    def to(path, shown):
        if path not in known or path == place:
            return shown
        return f"[{shown}]({os.path.relpath(path, here).replace(os.sep, '/')})"

    def by_name(match):
        return to(f"notebooks/{match[1]}.ipynb", match[0])

    def numbered(match):
        return to(by_number.get(match[2], ""), match[0])

    parts = re.split(r"(?ms)(^ *```.*?^ *```)", text)
    parts[::2] = [NUMBERED.sub(numbered, NOTEBOOK.sub(by_name, part)) for part in parts[::2]]
    return "".join(parts)


def notebook(text, source, place, known):
    """The text of a notebook file as the site shows it."""
    nb = json.loads(text)
    for cell in nb["cells"]:
        if cell["cell_type"] == "markdown":
            shown = with_notebook_links("".join(cell["source"]), place, known)
            cell["source"] = relinked(shown, source, place, known).splitlines(keepends=True)
    nb["metadata"].pop("vaelab", None)
    return json.dumps(nb, ensure_ascii=False)


def described(page, text):
    """A symptom page with what search engines read."""
    cause = re.sub(r"[`*\[\]]|\([^)]*\)", "", page.cause)
    meta = {"description": cause, "keywords": page.words}
    check = "## Check your own model\n"
    text = text.replace(check, f"{check}\n[Install vaelab](../install.md), then:\n")
    lines = "".join(f"    {name}: {json.dumps(value)}\n" for name, value in meta.items())
    return f"---\nmyst:\n  html_meta:\n{lines}---\n\n{text}"


def install_page(known):
    """How to set it up: a part of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    part = text.partition("\n## Set up\n")[2].partition("\n## Take part\n")[0]
    part = re.sub(r"(?m)^### ", "## ", part)
    return "# Set it up\n\n" + relinked(part, "README.md", "install.md", known)


def cards(title, names):
    """One group of symptoms as cards: picture and title."""
    lines = [f"## {title}", "", "::::{grid} 2 2 3 3", ":gutter: 2", ""]
    for name in names:
        page = symptoms.read(name)
        lines += [f":::{{grid-item-card}} {page.title}", f":link: symptoms/{name}"]
        lines += [":link-type: doc"]
        if page.picture:
            lines += [f":img-top: {page.picture}", f":img-alt: {html.unescape(page.alt)}"]
        lines += [":::", ""]
    return "\n".join([*lines, "::::", ""])


def toctree(caption, documents):
    """A part of the site's menu."""
    names = "\n".join(documents)
    return f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{names}\n```\n"


def front_page(text, known):
    """docs/index.md with its cards and its menu."""
    groups = "\n".join(cards(title, group) for title, group in symptoms.GROUPS.items())
    pages = [f"symptoms/{name}" for name in symptoms.names()]
    numbered = sorted(path for path in known if path.startswith("notebooks/"))
    first = [path.removesuffix(".ipynb") for path in numbered if "/deeper/" not in path]
    deeper = [path.removesuffix(".ipynb") for path in numbered if "/deeper/" in path]
    rest = [place.removesuffix(".md") for place in known.values() if place.endswith(".md")]
    rest = sorted({*rest, "api", "install"} - set(pages) - {"index", "normal"})
    menu = toctree("Symptoms", [*pages, "normal"])
    menu += toctree("Notebooks", first) + toctree("Going deeper", deeper)
    menu += toctree("Reference", rest)
    return text.replace("<!-- the symptoms -->", groups) + "\n" + menu


def documented(name):
    """The part of the page of the package about one public name, from its docstring."""
    if name in ("plots", "settings"):
        directive, options = f".. automodule:: vaelab.{name}", "   :members:\n"
    elif name[0].isupper():
        directive, options = f".. autoclass:: vaelab.{name}", "   :members:\n"
    else:
        directive, options = f".. autofunction:: vaelab.{name}", ""
    return f"## {name}\n\n```{{eval-rst}}\n{directive}\n{options}```\n"


def api_page():
    """The page of the package."""
    intro = "# The package\n\nEvery public name of `vaelab`, from its docstring.\n"
    names = [name for name in vaelab.__all__ if name != "__version__"]
    return "\n".join([intro, *map(documented, names)])


def shown_text(source, place, known):
    """The text of a page or a notebook as the site shows it."""
    text = (ROOT / source).read_text(encoding="utf-8")
    if source.endswith(".ipynb"):
        return notebook(text, source, place, known)
    text = relinked(text, source, place, known)
    if place.startswith("symptoms/"):
        return described(symptoms.read(Path(place).stem), text)
    if place == "index.md":
        return front_page(text, known)
    return text


def settings():
    """What docs/conf.py has to know of this copy."""
    repository, branch = links.address()
    return {
        "root": str(ROOT),
        "version": vaelab.__version__,
        "repository": "" if repository == links.UNSTAMPED else repository,
        "branch": branch,
    }


def lay_out():
    """Copy everything that the site shows into SOURCE."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    known = places()
    for source, place in known.items():
        target = SOURCE / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.endswith(".png"):
            shutil.copy(ROOT / source, target)
        else:
            target.write_text(shown_text(source, place, known), encoding="utf-8")
    (SOURCE / "api.md").write_text(api_page(), encoding="utf-8")
    (SOURCE / "install.md").write_text(install_page(known), encoding="utf-8")
    (SOURCE / "settings.json").write_text(json.dumps(settings()), encoding="utf-8")
    shutil.copytree(ROOT / "docs" / "_static", SOURCE / "_static")
    shutil.copy(ROOT / "docs" / "conf.py", SOURCE)


def build(builder="html", target=SITE):
    """Run Sphinx; return its exit status. A warning is an error."""
    options = ["-W", "--keep-going", "-q", "-b", builder]
    command = [sys.executable, "-m", "sphinx", *options, str(SOURCE), str(target)]
    return subprocess.call(command)


def main():
    """Lay the site out, build it, and say where it is. With --links, ask every other site."""
    began = time.monotonic()
    lay_out()
    if sys.argv[1:] == ["--links"]:
        return build("linkcheck", ROOT / "build" / "links")
    shutil.rmtree(SITE, ignore_errors=True)
    failed = build()
    if not failed:
        pages = len(list(SITE.rglob("*.html")))
        print(f"{pages} pages in {time.monotonic() - began:.0f} s: open {SITE / 'index.html'}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
