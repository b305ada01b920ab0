"""Links: one string is replaced everywhere, and an unstamped copy leads nobody to a stranger."""

import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest

import atomic
import links

NOTEBOOKS = [path for path in links.files() if path.suffix == ".ipynb"]
BADGE = re.compile(
    r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)/blob/([\w.-]+)/([^)\s]+)"
)
README = """# vaelab

| [00](notebooks/00_a.ipynb)<!-- unstamped: <br>[![x](y)](https://z/OWNER/vaelab/blob/main/a) --> |

<!-- unstamped:
```sh
git clone https://github.com/OWNER/vaelab.git vaelab
```
-->

Thanks to https://github.com/pytorch/examples and OWNER/vaelab-fork. See OWNER/vaelab.
"""
PROJECT = """[project.urls]
# unstamped: Repository = "https://github.com/OWNER/vaelab"

[tool.vaelab]
repository = "OWNER/vaelab"
branch = "main"
"""


def notebook():
    """A notebook with a badge and a setup cell."""
    cells = [
        nbformat.v4.new_markdown_cell("# Très bien\n\n<!-- colab-badge -->"),
        nbformat.v4.new_code_cell("", metadata={"tags": ["setup"]}),
    ]
    return nbformat.v4.new_notebook(cells=cells)


@pytest.fixture
def copy(tmp_path):
    """A small repository, not stamped."""
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "README.md").write_text(README)
    for name in ("notebooks/deeper/00_a_more.ipynb", "coursework/source/one/one.ipynb"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        nbformat.write(notebook(), path)
        path.write_text(links.rendered(path, tmp_path), encoding="utf-8")
    return tmp_path


def everything(root):
    return {path: path.read_text(encoding="utf-8") for path in links.files(root)}


def test_a_line_below_the_mark_that_is_no_badge_stays():
    source = "# A\n\n<!-- colab-badge -->\n## In one minute\n\nText."
    nb = {"cells": [{"cell_type": "markdown", "metadata": {}, "source": [source]}]}
    for repository in (links.UNSTAMPED, "ann/vaes", links.UNSTAMPED):
        links.render(nb, "notebooks/00_a.ipynb", repository, "main")
        text = "".join(nb["cells"][0]["source"])
        assert text.endswith("\n## In one minute\n\nText.") and text.count("badge.svg") == 1


def test_stamping(copy):
    assert len(links.stamp("ann/vaes", root=copy)) == 4
    readme, course, notebook, project = everything(copy).values()
    assert "](notebooks/00_a.ipynb)<br>[![x](y)](https://z/ann/vaes/blob/main/a) |" in readme
    assert "\n```sh\ngit clone https://github.com/ann/vaes.git vaelab\n```\n" in readme
    assert "pytorch/examples and OWNER/vaelab-fork. See ann/vaes." in readme
    assert 'REPO = \\"ann/vaes\\"' in notebook and "Très bien" in notebook
    assert BADGE.findall(notebook) == [("ann/vaes", "main", "notebooks/deeper/00_a_more.ipynb")]
    assert BADGE.findall(course) == [("ann/vaes", "main", "coursework/release/one/one.ipynb")]
    assert "Practise on Colab" in course
    assert '\nRepository = "https://github.com/ann/vaes"\n' in project
    assert links.address(copy) == ("ann/vaes", "main")


def test_stamping_again(copy):
    links.stamp("ann/vaes", root=copy)
    assert links.stamp("ann/vaes", root=copy) == []
    links.stamp("bob-2/vae.lab", "trunk", copy)
    assert links.address(copy) == ("bob-2/vae.lab", "trunk")
    assert all(
        "ann/vaes" not in text and "blob/main" not in text for text in everything(copy).values()
    )
    links.stamp("cy/x", root=copy)
    assert all("vae.lab" not in text for text in everything(copy).values())
    with pytest.raises(SystemExit, match="not a branch"):
        links.stamp("cy/x", 'a"b', copy)


def test_a_stamp_is_what_render_writes(copy):
    links.stamp("ann/vaes", root=copy)
    for path, text in everything(copy).items():
        if path.suffix == ".ipynb":
            assert links.rendered(path, copy) == text
            nbformat.write(nbformat.read(path, as_version=4), path)
            assert path.read_text(encoding="utf-8") == text, "and it is laid out as nbformat does"


def test_a_file_that_changed_meanwhile_is_left_alone(copy, monkeypatch):
    readme = copy / "README.md"

    def slow(text, old, new):
        readme.write_text("the reader's own words")
        return "stamped"

    monkeypatch.setattr(links, "stamped", slow)
    with pytest.raises(SystemExit, match="README.md was changed by somebody else"):
        links.stamp("ann/vaes", root=copy)
    assert readme.read_text() == "the reader's own words"


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    assert atomic.write(path, "old") and atomic.write(path, b"new", before="old")
    assert not atomic.write(path, "mine", before="old") and path.read_text() == "new"

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        atomic.write(path, "half")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


# This repository


@pytest.fixture
def whole_copy(tmp_path):
    """A copy of every text file of this repository, whatever git knows of it."""
    skipped = (".*", "build", "my-notebooks", "*.egg-info", "__pycache__", "*.png", "*.db")
    skipped += tuple(links.NOT_OURS)
    shutil.copytree(links.ROOT, tmp_path / "copy", ignore=shutil.ignore_patterns(*skipped))
    return tmp_path / "copy"


def holding(root, text):
    """The files that hold a text, by their path in the repository."""
    found = [
        path for path in root.rglob("*") if path.is_file() and text.encode() in path.read_bytes()
    ]
    return {path.relative_to(root).as_posix() for path in found}


def test_no_old_address_stays_anywhere(whole_copy):
    first, second = (f"{name}-owner/its-vaes" for name in ("ann", "bob"))
    links.stamp(first, root=whole_copy)
    stamped = holding(whole_copy, first)
    assert stamped >= {"README.md", "pyproject.toml", "notebooks/00_start_here.ipynb"}
    left = holding(whole_copy, links.UNSTAMPED)
    assert {name for name in left if not name.startswith("tests/")} <= {"tools/links.py"}
    links.stamp(second, root=whole_copy)
    assert holding(whole_copy, first) == set()
    assert holding(whole_copy, second) == stamped


def test_an_unstamped_copy_leads_nobody_to_a_stranger():
    """Outside comments, OWNER/vaelab stands in setup cells and in pyproject.toml only."""
    if links.address()[0] != links.UNSTAMPED:
        pytest.skip("this copy is stamped")
    for path, text in everything(links.ROOT).items():
        seen = links.HIDDEN.sub("", text)
        seen = re.sub(r'REPO = \\"OWNER/vaelab\\"|repository = "OWNER/vaelab"', "", seen)
        assert "OWNER/" not in seen.replace('REPO.startswith(\\"OWNER/\\")', ""), path


def test_nobody_but_an_owner_is_told_to_stamp():
    """`make links` is for owners: no notebook mentions it."""
    for path in NOTEBOOKS:
        assert "make links" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_badge_and_setup_cell_are_as_rendered(path):
    name = path.relative_to(links.ROOT).as_posix().replace("/source/", "/release/")
    text = path.read_text(encoding="utf-8")
    assert BADGE.findall(text) == [(*links.address(), name)], "python tools/links.py --render"
    assert links.rendered(path) == text, "python tools/links.py --render"


def test_the_readme_has_the_badge_of_every_notebook():
    shown = BADGE.findall((links.ROOT / "README.md").read_text(encoding="utf-8"))
    notebooks = sorted((links.ROOT / "notebooks").glob("*.ipynb"))
    wanted = {(*links.address(), f"notebooks/{path.name}") for path in notebooks}
    assert set(shown) == wanted


# The address


@pytest.mark.parametrize(
    "address",
    [
        "ann/vaes",
        "https://github.com/ann/vaes",
        "https://github.com/ann/vaes.git",
        "https://github.com/ann/vaes/",
        "https://ann:secret@github.com/ann/vaes.git",
        "git@github.com:ann/vaes.git",
        "ssh://git@github.com/ann/vaes.git",
        "ssh://git@ssh.github.com:443/ann/vaes.git\n",
    ],
)
def test_addresses(address):
    assert links.parse(address) == "ann/vaes"


BAD = ["vaes", "ann/", "a/b/c", "-ann/vaes", "ann/va es", 'ann/v"', "ann/..", "/srv/git/vaes.git"]
BAD += ["https://u:secret@gitlab.com/ann/vaes", "OWNER/vaelab", "a--b/c", "a/b`cmd`", "a/b$(cmd)"]


@pytest.mark.parametrize("address", BAD)
def test_bad_addresses(address):
    with pytest.raises(SystemExit, match="owner/name") as error:
        links.parse(address)
    assert "secret" not in str(error.value)


def test_the_remote_of_the_checkout(tmp_path):
    git = ["git", "-C", tmp_path]
    with pytest.raises(SystemExit, match="no remote called origin"):
        links.remote(tmp_path)
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "remote", "add", "origin", "git@github.com:ann/vaes.git"], check=True)
    assert links.remote(tmp_path) == "ann/vaes"
    (tmp_path / "inside").mkdir()
    with pytest.raises(SystemExit, match="no remote called origin"):
        links.remote(tmp_path / "inside")


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize(
    "name", ["a/b`touch pwned`", "a/b$(touch pwned)", '$(shell touch pwned)/"b']
)
def test_make_never_gives_the_address_to_a_shell(copy, name):
    shutil.copy(links.ROOT / "Makefile", copy)
    shutil.copytree(links.ROOT / "tools", copy / "tools")
    before = everything(copy)
    command = ["make", "links", f"REPO={name}", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert done.returncode and f"not a GitHub repository: {name!r}" in done.stderr
    assert not (copy / "pwned").exists() and everything(copy) == before
    command[2] = "REPO=ann/vaes"
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=True)
    assert "ann/vaes: 4 files changed" in done.stdout
