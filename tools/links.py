"""Write this copy's address into every link: `REPO=owner/name BRANCH=main python tools/links.py`.

`[tool.vaelab]` in pyproject.toml is the one place that holds the address. Every link, every setup
cell and the README's commands hold the same owner/name, and this tool replaces it in all of them.
Without REPO it takes the GitHub remote of the checkout, without BRANCH it keeps the branch. With
`--render` it only writes badges and setup cells anew.

Before the first time the name is OWNER/vaelab, which could belong to a stranger. Nobody may follow
such a link, so it stands in a comment, and the first stamp takes the comment away:

    <!-- unstamped: [text](https://github.com/OWNER/vaelab) -->
    # unstamped: the same in pyproject.toml
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import atomic

ROOT = Path(__file__).resolve().parent.parent
UNSTAMPED = "OWNER/vaelab"
FOLDERS = ("notebooks", "coursework", "docs")
NOT_OURS = {".ipynb_checkpoints", "submitted", "autograded", "feedback"}  # a class's work
HIDDEN = re.compile(r"(?s)<!-- unstamped:\s*(.*?)\s*-->|(?m:^# unstamped: ([^\n]*)$)")
# the mark and, if there is one, the badge below it: any other line belongs to the text
BADGE = re.compile(r"<!-- colab-badge -->(?:\n(?:\[!\[|<!-- unstamped: *\[!\[)[^\n]*)?")
COLAB = "https://colab.research.google.com"
SETUP_METADATA = {
    "cellView": "form",
    "jupyter": {"source_hidden": True},
    "tags": ["setup", "hide-input"],
}
SETUP_CELL = """\
# @title Setup: run this cell first
# On Colab this cell installs vaelab. Anywhere else it installs nothing.
import importlib.util
import sys

REPO = "OWNER/vaelab"
found = importlib.util.find_spec("vaelab")
if found is None or found.origin is None:
    if REPO.startswith("OWNER/"):
        raise ModuleNotFoundError(
            "This notebook needs the package vaelab, and this copy does not know where it is "
            "published. Ask the person who gave you the notebook. Or put the project's folder "
            "vaelab beside the notebook (on Colab with the file browser), and run this cell again."
        )
    if "google.colab" not in sys.modules:
        raise ModuleNotFoundError(
            "This notebook needs the package vaelab: run the next line in a cell of its own, "
            "then run this cell again.\\n"
            f'%pip install "git+https://github.com/{REPO}"'
        )
    %pip install -q "git+https://github.com/{REPO}"

# Switches for Colab, which has no shell: remove a "#", restart the session, run all cells.
# %env VAELAB_SEED=1
# %env VAELAB_DATASET=fashion-mnist
# %env VAELAB_DOWNLOAD=1
import vaelab

device = vaelab.setup()"""


def setup_cell(repository):
    """The source of every notebook's first code cell."""
    return SETUP_CELL.replace(UNSTAMPED, repository)


def badge(path, repository, branch):
    """The line that opens a notebook on Colab: of the coursework, the version for students."""
    note = ""
    if path.startswith("coursework/"):
        path = path.replace("/source/", "/release/")
        note = " *Practise on Colab, submit through your course.*"
    address = f"{COLAB}/github/{repository}/blob/{branch}/{path}"
    link = f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({address}){note}"
    return f"<!-- unstamped: {link} -->" if repository == UNSTAMPED else link


def render(nb, path, repository, branch):
    """Write badge and setup cell of a notebook anew; `path` is relative to the repository."""
    line = f"<!-- colab-badge -->\n{badge(path, repository, branch)}"
    for cell in nb["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            source = BADGE.sub(lambda _: line, source)
        elif "setup" in cell["metadata"].get("tags", []):
            source = setup_cell(repository)
            cell["metadata"] |= SETUP_METADATA
        if source != "".join(cell["source"]):
            cell["source"] = source.splitlines(keepends=True)


def rendered(path, root=ROOT):
    """The text of a notebook file with its badge and its setup cell as they should be."""
    nb = json.loads(path.read_text(encoding="utf-8"))
    render(nb, path.relative_to(root).as_posix(), *address(root))
    return json.dumps(nb, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def mentions(repository):
    """A pattern of owner/name wherever it is not a part of a longer name."""
    return re.compile(rf"(?<![\w.-]){re.escape(repository)}(?![\w-]|\.(?!git\b)\w)")


def stamped(text, old, new):
    """A text with (repository, branch) replaced by the new ones, and its links out of comments."""
    text = HIDDEN.sub(lambda match: match[1] or match[2], text)
    for form in (f"{old[0]}/blob/{{}}/", 'branch = "{}"'):
        text = text.replace(form.format(old[1]), form.format(new[1]))
    return mentions(old[0]).sub(new[0], text)


def address(root=ROOT):
    """(owner/name, branch) as pyproject.toml has them."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return project["tool"]["vaelab"]["repository"], project["tool"]["vaelab"]["branch"]


def files(root=ROOT):
    """All files that may hold the address. pyproject.toml is last: a broken run can be repeated."""
    found = list(root.glob("*.md"))
    for folder in FOLDERS:
        found += [path for kind in ("*.ipynb", "*.md") for path in (root / folder).rglob(kind)]
    ours = [path for path in found if not NOT_OURS & set(path.relative_to(root).parts)]
    return [*sorted(ours), root / "pyproject.toml"]


def stamp(repository, branch=None, root=ROOT):
    """Write `repository` (and `branch`) into every file; return the files that changed."""
    old = address(root)
    new = (repository, branch or old[1])
    if not re.fullmatch(r"[\w./-]+", new[1]):
        raise SystemExit(f"not a branch: {new[1]!r}")
    texts = {path: path.read_text(encoding="utf-8") for path in files(root)}
    return [path for path, text in texts.items() if update(path, text, stamped(text, old, new))]


def update(path, before, after):
    """Write a file if it has to change; return whether it did."""
    if before != after and not atomic.write(path, after, before):
        raise SystemExit(f"{path} was changed by somebody else meanwhile: repeat the command")
    return before != after


def parse(text):
    """owner/name from a name or a GitHub address, https or ssh; SystemExit says what is wrong."""
    host = r"^(?:(?:https?|ssh|git)://)?(?:[^@/]*@)?(?:www\.|ssh\.)?github\.com(?::\d+(?=/))?[:/]"
    name = re.sub(host, "", text.strip()).rstrip("/").removesuffix(".git")
    owner, _, repository = name.partition("/")
    good_owner = re.fullmatch(r"[A-Za-z0-9](-?[A-Za-z0-9]){0,38}", owner) and owner != "OWNER"
    if not good_owner or not re.fullmatch(r"(?!\.\.?$)[A-Za-z0-9._-]+", repository):
        shown = re.sub(r"//[^@/]*@", "//", text)
        raise SystemExit(f"not a GitHub repository: {shown!r}. Name it: make links REPO=owner/name")
    return name


def remote(root=ROOT):
    """owner/name of the checkout's remote `origin`."""
    command = ["git", "-C", str(root), "remote", "get-url", "origin"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not (root / ".git").exists():
        raise SystemExit("this checkout has no remote called origin: make links REPO=owner/name")
    return parse(done.stdout)


def main():
    """Stamp or render, and say what was written."""
    if sys.argv[1:] == ["--render"]:
        paths = [path for path in files() if path.suffix == ".ipynb"]
        texts = {path: path.read_text(encoding="utf-8") for path in paths}
        changed = [path for path in paths if update(path, texts[path], rendered(path))]
    else:
        name, branch = os.environ.get("REPO"), os.environ.get("BRANCH")
        changed = stamp(parse(name) if name else remote(), branch)
    for path in changed:
        print(f"wrote {path.relative_to(ROOT)}")
    print(f"{address()[0]}: {len(changed)} files changed")


if __name__ == "__main__":
    sys.exit(main())
