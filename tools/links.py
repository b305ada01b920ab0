"""Stamp every link with this repository's address: `python tools/links.py [owner/name | --render]`.

pyproject.toml ([tool.vaelab] repository) is the one place that holds OWNER/REPO; everything else is rendered
from it. Until it is stamped no link leads anywhere, since OWNER/vaelab could belong to a stranger. Links to
our own repository stand between markers, and only what is between them is ever rewritten:

    <!-- file: notebooks/00_start_here.ipynb -->...<!-- /file -->     (kinds: see RENDER)

A notebook's badge is the line after `<!-- colab-badge -->`; its setup cell is the code cell tagged "setup".
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UNSTAMPED = "OWNER/vaelab"
FOLDERS = ("notebooks", "coursework")
NOT_OURS = {".ipynb_checkpoints", "submitted", "autograded", "feedback"}  # a class's work

SETUP_CELL = '''\
# Setup. On Colab this installs vaelab; anywhere else it installs nothing.
import sys

REPO = "{repository}"  # written by `make links`
if "google.colab" in sys.modules:
    if REPO.startswith("OWNER/"):
        raise RuntimeError("This copy has no published address yet: run `make links REPO=owner/name` in it.")
    %pip install -q "git+https://github.com/{{REPO}}"

# Switches for Colab, which has no shell: remove a "#", restart the session, run all cells.
# %env VAELAB_SEED=1
# %env VAELAB_DATASET=fashion-mnist
# %env VAELAB_DOWNLOAD=1
import vaelab

device = vaelab.setup()'''


def setup_cell(repository):
    """The source of every notebook's first code cell."""
    return SETUP_CELL.format(repository=repository)


def stamped(repository):
    """Whether the repository has a real address."""
    return not repository.startswith("OWNER/")


def colab(repository, path):
    """The Colab badge of the notebook at `path`, or a text that leads nowhere."""
    if not stamped(repository):
        return "*Colab: the link appears here once this copy is stamped with its own address (`make links`).*"
    picture = "https://colab.research.google.com/assets/colab-badge.svg"
    return f"[![Open in Colab]({picture})](https://colab.research.google.com/github/{repository}/blob/main/{path})"


def practise(repository, path):
    """The badge of an assignment's student version: Colab is for practice only."""
    return f"{colab(repository, path)}\n*Practise on Colab, submit through your course.*"


def binder(repository, path):
    """The Binder badge that opens `path`, or a text that leads nowhere."""
    if not stamped(repository):
        return "*Binder: once stamped (`make links`)*"
    address = f"https://mybinder.org/v2/gh/{repository}/main?urlpath=lab/tree/{path}"
    return f"[![Open on Binder](https://mybinder.org/badge_logo.svg)]({address})"


def file(repository, path):
    """A link to a file of this repository that also works inside a notebook, or its bare name."""
    if not stamped(repository):
        return f"`{path}`"
    return f"[`{path}`](https://github.com/{repository}/blob/main/{path})"


def clone(repository, _):
    """The commands that fetch this repository."""
    address = "<the address of this repository>"
    if stamped(repository):
        address = f"https://github.com/{repository}.git"
    return f"```sh\ngit clone {address} vaelab\ncd vaelab\n```"


def pip(repository, _):
    """The command that installs the package into an environment one already has."""
    source = f'"git+https://github.com/{repository}"' if stamped(repository) else "path/to/this/folder"
    return f"```sh\npip install {source}\n```"


# In a table there is room for a word, not for a sentence.
RENDER = {
    "colab": lambda repository, path: colab(repository, path) if stamped(repository) else "*once stamped*",
    "practise": practise,
    "binder": binder,
    "file": file,
    "clone": clone,
    "pip": pip,
}
MARKED = re.compile(
    rf"<!-- (?P<kind>{'|'.join(RENDER)})(?:: (?P<path>[^ ]+))? -->.*?<!-- /(?P=kind) -->", re.DOTALL
)
BADGE = re.compile(r"<!-- colab-badge -->\n?[^\n]*")
OWN_LINK = re.compile(
    r"(?:(?:github\.com|githubusercontent\.com|colab\.research\.google\.com/github|mybinder\.org/v2/gh)[/:])"
    r"(?P<name>[\w-]+/[\w.-]+?)(?=\.git\b|[.,;:]?(?:[^\w.,;:-]|$))"
)


def render_text(text, repository):
    """Markdown with everything between markers rendered for this repository."""

    def replace(match):
        content = RENDER[match["kind"]](repository, match["path"])
        # A comment at the start of a line makes that whole line HTML, where markdown is not read.
        alone = match.start() == 0 or text[match.start() - 1] == "\n"
        content = f"\n{content}\n" if alone else content
        path = f": {match['path']}" if match["path"] else ""
        return f"<!-- {match['kind']}{path} -->{content}<!-- /{match['kind']} -->"

    return MARKED.sub(replace, text)


def render_notebook(nb, path, repository):
    """Render a notebook's badge, links and setup cell in place; `path` is relative to the repository."""
    badge = f"<!-- colab-badge -->\n{colab(repository, path)}"
    for cell in nb["cells"]:
        old = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            new = BADGE.sub(lambda _: badge, render_text(old, repository))
        elif "setup" in cell["metadata"].get("tags", []):
            new = setup_cell(repository)
        else:
            continue
        if new != old:
            cell["source"] = new.splitlines(keepends=True) if isinstance(cell["source"], list) else new


def render_pyproject(text, repository):
    """pyproject.toml with the repository and, once it is stamped, the project's address."""
    text = re.sub(r'(?m)^repository = ".*"$', f'repository = "{repository}"', text)
    urls = f'Repository = "https://github.com/{repository}"\n' if stamped(repository) else ""
    return re.sub(r'(?m)^(\[project\.urls\]\n)(?:Repository = ".*"\n)?', lambda match: match[1] + urls, text)


def current(root=ROOT):
    """OWNER/REPO as pyproject.toml has it."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    return re.search(r'(?m)^repository = "(.*)"$', text)[1]


def files(root=ROOT):
    """Every file that may hold a link to this repository."""
    found = [root / "pyproject.toml", *root.glob("*.md")]
    for folder in FOLDERS:
        found += [path for kind in ("*.ipynb", "*.md") for path in (root / folder).rglob(kind)]
    return sorted(path for path in found if not NOT_OURS & set(path.relative_to(root).parts))


def rendered(path, repository, root=ROOT):
    """The text of a file with every link rendered for this repository."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return render_text(text, repository)
    if path.suffix == ".toml":
        return render_pyproject(text, repository)
    nb = json.loads(text)
    render_notebook(nb, path.relative_to(root).as_posix(), repository)
    return text if nb == json.loads(text) else json.dumps(nb, indent=1, ensure_ascii=False) + "\n"


def strays(text, *own):
    """Addresses of our own repository in a text: of the named ones, of OWNER, of any called vaelab."""
    names = {name.lower() for name in own}
    for match in OWN_LINK.finditer(text):
        owner, name = match["name"].lower().split("/")
        if f"{owner}/{name}" in names or owner == "owner" or name == "vaelab":
            yield match[0]


def unmarked(path, *own):
    """Links to our own repository that stand outside markers, where no stamp would reach them."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        nb = json.loads(text)
        kept = [cell for cell in nb["cells"] if "setup" not in cell["metadata"].get("tags", [])]
        text = "\n".join("".join(cell["source"]) for cell in kept)
    elif path.suffix == ".toml":
        text = render_pyproject(text, UNSTAMPED)
    return list(strays(BADGE.sub("", MARKED.sub("", text)), *own))


def stamp(repository, root=ROOT):
    """Write `repository` into every link and return the changed files; an unmarked link stops it first."""
    old = current(root)
    found = [(path, link) for path in files(root) for link in unmarked(path, old, repository)]
    if found:
        lines = [f"{path.relative_to(root)}: {link}" for path, link in found]
        raise SystemExit("\n".join(["own links outside markers (see tools/links.py):", *lines]))
    new = {path: rendered(path, repository, root) for path in files(root)}
    changed = [path for path, text in new.items() if text != path.read_text(encoding="utf-8")]
    for path in changed:
        path.write_text(new[path], encoding="utf-8", newline="\n")
    return changed


def parse(text):
    """owner/name from a name or a GitHub address, https or ssh; raises SystemExit with what is wrong."""
    host = r"^(?:(?:https?|ssh|git)://)?(?:[^@/]*@)?(?:www\.|ssh\.)?github\.com(?::\d+(?=/))?[:/]"
    name = re.sub(host, "", text.strip()).rstrip("/").removesuffix(".git")
    owner, slash, repo = name.partition("/")
    good_owner = re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,37}[A-Za-z0-9])?", owner)
    if not (good_owner and slash and re.fullmatch(r"[\w.-]{1,100}", repo, re.A) and repo not in (".", "..")):
        shown = re.sub(r"//[^@/]*@", "//", text)
        raise SystemExit(f"not a GitHub repository: {shown!r}. Name it: make links REPO=owner/name")
    return name


def remote(root=ROOT):
    """owner/name of the checkout's remote `origin`."""

    def git(*args):
        done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    top = git("rev-parse", "--show-toplevel")
    address = git("remote", "get-url", "origin") if top and Path(top).resolve() == root.resolve() else ""
    if not address:
        raise SystemExit("this checkout has no remote called origin. Name it: make links REPO=owner/name")
    return parse(address)


def main():
    """Stamp, and say what was written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", nargs="?", help="owner/name (default: this checkout's remote)")
    parser.add_argument("--render", action="store_true", help="keep the address, render new markers")
    args = parser.parse_args()
    repository = current() if args.render else parse(args.repository) if args.repository else remote()
    changed = stamp(repository)
    for path in changed:
        print(f"wrote {path.relative_to(ROOT)}")
    print(f"{repository}: {len(changed)} files changed")


if __name__ == "__main__":
    sys.exit(main())
