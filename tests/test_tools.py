"""The tools that maintain the notebooks: links, execution and stamps, and the rules on broken notebooks."""

import json
import shutil
import subprocess
import sys
import types

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import check
import links
import notebooks
import rules

PATH = links.ROOT / "notebooks" / "99_example.ipynb"
FIGURE = {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure size 640x480 with 1 Axes>"}


def good_notebook():
    """A notebook that breaks no rule."""
    badge = f"<!-- colab-badge -->\n{links.colab(links.current(), 'notebooks/99_example.ipynb')}"
    setup = new_code_cell(links.setup_cell(links.current()), metadata={"tags": ["setup"]})
    cells = [
        new_markdown_cell("# Everything is black"),
        new_markdown_cell(badge),
        setup,
        new_markdown_cell("## Predict\nWhat is $n!$, and is `a != b` so?"),
        new_code_cell("prediction = None"),
        new_markdown_cell("<details><summary>Answer</summary>\n\nIt is [b](https://example.org/x).\n</details>"),
        new_code_cell("draw()", outputs=[new_output("display_data", FIGURE)]),
        new_markdown_cell("Read it from left to right.\n\n## What we now know"),
        new_code_cell('vaelab.claim("it is black", True)', outputs=[new_output("stream", text="holds: 1\n")]),
        new_markdown_cell("## Exercises\n\n## Where this comes from\n\n![a black image](https://example.org/a.png)"),
    ]
    code = [cell for cell in cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, 1):
        cell.execution_count = count
    nb = new_notebook(cells=cells)
    notebooks.clean(nb)
    nb.metadata["vaelab"] = notebooks.hashes(nb) | {"sources": [{"name": "mnist", "real": True}]}
    return nb


def restamp(nb):
    nb.metadata["vaelab"] |= notebooks.hashes(nb)


def test_a_good_notebook_breaks_no_rule():
    assert rules.broken(good_notebook(), PATH) == []


def set_source(index, source):
    def change(nb):
        nb.cells[index].source = source
        restamp(nb)

    return change


def add_output(index, **output):
    return lambda nb: nb.cells[index].outputs.append(nbformat.from_dict(output))


def add_text(text):
    return add_output(8, output_type="stream", name="stdout", text=text)


def add_prose(text):
    return lambda nb: nb.cells.append(new_markdown_cell(text))


def add_code(source):
    def change(nb):
        nb.cells.append(new_code_cell(source, execution_count=5))
        restamp(nb)

    return change


TWENTY_ONE = "\n".join(f"a{i} = {i}" for i in range(21))
BROKEN = {
    "no title": ("title", set_source(0, "Everything is black")),
    "two titles": ("title", add_prose("# Another title")),
    "no badge": ("badge", set_source(1, "nothing")),
    "another file's badge": ("badge", set_source(1, "<!-- colab-badge -->\n[![x](https://y)](https://z)")),
    "badge far down": ("badge", lambda nb: nb.cells.append(nb.cells.pop(1))),
    "no setup tag": ("setup", lambda nb: nb.cells[2].metadata.pop("tags")),
    "own setup": ("setup", set_source(2, "import vaelab")),
    "no claim": ("claims", set_source(8, "print(1)")),
    "no prediction": ("predictions", set_source(4, "prediction = 'a'")),
    "no answer": ("predictions", set_source(5, "It is b.")),
    "no exercises": ("sections", set_source(9, "## Where this comes from")),
    "sections out of order": ("sections", set_source(9, "## Where this comes from\n\n## Exercises")),
    "long cell": ("cell_length", add_code(TWENTY_ONE)),
    "a loop that does not train": ("cell_length", add_code(f"for i in range(3):\n    pass\n{TWENTY_ONE}")),
    "two classes": ("cell_length", add_code(f"class A:\n    pass\nclass B:\n    pass\n{TWENTY_ONE}")),
    "counts": ("executed", lambda nb: nb.cells[6].update(execution_count=7)),
    "never run": ("executed", lambda nb: nb.cells[6].update(execution_count=None)),
    "error": ("executed", add_output(8, output_type="error", ename="E", evalue="v", traceback=[])),
    "stderr": ("executed", add_output(8, output_type="stream", name="stderr", text="warning")),
    "code changed": ("fresh", lambda nb: nb.cells[6].update(source="draw(2)")),
    "package changed": ("fresh", lambda nb: nb.metadata["vaelab"].update(package="0")),
    "never stamped": ("fresh", lambda nb: nb.metadata.pop("vaelab")),
    "stand-in": ("fresh", lambda nb: nb.metadata["vaelab"]["sources"][0].update(real=False)),
    "kernel": ("metadata", lambda nb: nb.metadata["kernelspec"].update(name="venv")),
    "widget state": ("metadata", lambda nb: nb.metadata.update(widgets={})),
    "execution times": ("metadata", lambda nb: nb.cells[2].metadata.update(execution={})),
    "colab": ("metadata", lambda nb: nb.metadata.update(colab={})),
    "home path": ("clean_outputs", add_text("read /home/ann/.cache/vaelab\n")),
    "temporary path": ("clean_outputs", add_text("in '/tmp/x'\n")),
    "windows path": ("clean_outputs", add_text("read C:\\Users\\ann\n")),
    "date": ("clean_outputs", add_text("on 2026-03-01\n")),
    "time": ("clean_outputs", add_text("at 12:03:04\n")),
    "tqdm": ("clean_outputs", add_text(" 40%|####      | 2/5\n")),
    "our progress": ("clean_outputs", add_text("training:  40%, about 3 s left\n")),
    "progress not begun": ("clean_outputs", add_output(
        8, output_type="display_data", metadata={}, data={"text/plain": "starting"}
    )),
    "address": ("clean_outputs", add_text("<function f at 0x7f00dead>\n")),
    "widget": ("clean_outputs", add_output(
        8, output_type="display_data", metadata={}, data={"application/vnd.jupyter.widget-view+json": {}}
    )),
    "relative link": ("links_are_absolute", add_prose("see [the next one](01_loss_scale.ipynb)")),
    "relative image": ("links_are_absolute", add_prose("![a](../figures/a.png)")),
    "relative html image": ("links_are_absolute", add_prose('<img alt="a" src="figures/a.png">')),
    "reference link": ("links_are_absolute", add_prose("see [it]\n\n[it]: ../README.md")),
    "unread figure": ("figures_are_read", lambda nb: nb.cells.pop(7)),
    "exclamation": ("calm", add_prose("It works! Now the next.")),
    "bold exclamation": ("calm", add_prose("**Never!**")),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_rule_finds_what_is_broken(case):
    rule, change = BROKEN[case]
    nb = good_notebook()
    change(nb)
    problems = rules.broken(nb, PATH)
    assert any(problem.startswith(f"{rule}: ") for problem in problems), problems


def test_size_and_median_rules(tmp_path):
    big = tmp_path / "99_example.ipynb"
    big.write_bytes(b" " * rules.MOST_BYTES)
    assert list(rules.size(None, big))
    nb = new_notebook(cells=[new_code_cell("\n".join("a" * 9)), new_code_cell("\n".join("b" * 9))])
    assert list(rules.cell_length(nb, PATH))


def test_failure_notebooks_follow_the_arc():
    path = PATH.with_name("04_example.ipynb")
    arc = "\n\n".join(f"## {name} and more" for name in rules.FAILURE_ARC)
    assert list(rules.sections(new_notebook(cells=[new_markdown_cell(arc)]), path)) == []
    for name in rules.FAILURE_ARC:
        nb = new_notebook(cells=[new_markdown_cell(arc.replace(f"## {name} and", "## And"))])
        assert list(rules.sections(nb, path)) == [f"section {name!r} is missing"]


def test_one_class_or_one_training_loop_may_be_long():
    loop = "for epoch in range(2):\n    for batch in data:\n        loss(batch).backward()\n"
    assert rules.is_one_class_or_loop("class A:\n    pass\n")
    assert rules.is_one_class_or_loop(loop)
    assert not rules.is_one_class_or_loop(loop + loop)
    assert not rules.is_one_class_or_loop("%env A=1\nfor i in range(3):\n    print(i)\n")


# Execution and stamps


def test_code_hash_ignores_the_repository_and_prose_only():
    nb = good_notebook()
    before = notebooks.code_hash(nb)
    nb.cells[2].source = links.setup_cell("ann/vaelab")
    nb.cells[3].source = "other words"
    assert notebooks.code_hash(nb) == before
    nb.cells[4].source = "prediction = 1"
    assert notebooks.code_hash(nb) != before


def test_package_hash_follows_meaning_not_layout(tmp_path):
    def hash_of(source):
        (tmp_path / "a.py").write_text(source)
        return notebooks.package_hash(tmp_path)

    first = hash_of('"""Doc."""\ndef f(x):\n    """Doc."""\n    return x + 1\n')
    assert hash_of('"""Other."""\n# comment\ndef f(x):\n\n    """Other."""\n    return (x + 1)\n') == first
    assert hash_of("def f(x):\n    return x + 1\n") == first
    assert hash_of("def f(x):\n    return x + 2\n") != first
    assert hash_of("def f(x, y=()):\n    return x + 1\n") != first


def run_tool(tmp_path, monkeypatch, *sources):
    """Execute a notebook of these cells in a folder that stands for the repository."""
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    path = tmp_path / "notebooks" / "99_example.ipynb"
    path.parent.mkdir()
    nb = new_notebook(cells=[new_markdown_cell("# A"), *(new_code_cell(source) for source in sources)])
    nbformat.write(nb, path)
    return path


LOADS = """
import sys, types
sys.modules["vaelab.data"] = types.ModuleType("vaelab.data")
sys.modules["vaelab.data"].LOADED = [("mnist", "a place", {real})]
"""
DRAWS = """
import os, pathlib
pathlib.Path(os.environ["VAELAB_FIGURES"], "a.png").write_text("x")
"""


def test_real_outputs_are_written_back_and_stamped(tmp_path, monkeypatch):
    path = run_tool(tmp_path, monkeypatch, LOADS.format(real=True), DRAWS)
    assert notebooks.write_back([path], {}) == 0
    nb = nbformat.read(path, as_version=4)
    assert [cell.get("execution_count") for cell in nb.cells] == [None, 1, 2]
    assert nb.metadata.vaelab == notebooks.hashes(nb) | {"sources": [{"name": "mnist", "real": True}]}
    assert rules.broken(nb, path, [rules.executed, rules.fresh, rules.metadata]) == []
    assert (tmp_path / "figures" / "a.png").exists()


def test_stand_ins_and_errors_are_not_written_back(tmp_path, monkeypatch, capsys):
    path = run_tool(tmp_path, monkeypatch, LOADS.format(real=False), DRAWS)
    before = path.read_text()
    assert notebooks.write_back([path], {}) == 0
    assert path.read_text() == before and not (tmp_path / "figures").exists()
    assert "stand-in for mnist, so not written back" in capsys.readouterr().out
    assert notebooks.check([path], {}) == 1
    assert notebooks.check([path], {"VAELAB_OFFLINE": "1"}) == 0
    nbformat.write(new_notebook(cells=[new_code_cell("1 / 0")]), path)
    assert notebooks.write_back([path], {}) == 1
    assert "1 / 0" in path.read_text() and '"outputs": []' in path.read_text()
    assert "cell 0: ZeroDivisionError" in capsys.readouterr().out


def test_claims_over_seeds(tmp_path, monkeypatch, capsys):
    cell = "import os\nprint('did not hold here: odd' if os.environ['VAELAB_SEED'] == '1' else 'holds')"
    path = run_tool(tmp_path, monkeypatch, cell)
    assert notebooks.over_seeds([path], notebooks.seed_range("0-1"), None, {}) == 1
    assert "1     did not hold here: odd" in capsys.readouterr().out


def test_time_limit(tmp_path, monkeypatch, capsys):
    path = run_tool(tmp_path, monkeypatch, "import time; time.sleep(0.5)")
    monkeypatch.setattr(notebooks, "SECONDS_LIMIT", 0.3)
    assert notebooks.check([path], {}) == 0 and "notice: over its" in capsys.readouterr().out
    monkeypatch.setattr(notebooks, "SECONDS_LIMIT", 0.1)
    assert notebooks.check([path], {}) == 1 and "more than twice" in capsys.readouterr().out


def test_seed_ranges_and_selection(tmp_path):
    assert notebooks.seed_range("0-2,7") == [0, 1, 2, 7]
    for name in ("00_a", "01_b"):
        (tmp_path / f"{name}.ipynb").touch()
    assert [path.stem for path in notebooks.selected(["01"], tmp_path)] == ["01_b"]
    with pytest.raises(SystemExit, match="no notebook starts with '05'"):
        notebooks.selected(["05"], tmp_path)


def test_tests_run_without_the_readers_switches(tmp_path, monkeypatch):
    monkeypatch.setenv("VAELAB_SEED", "3")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    env = check.clean_environment(tmp_path)
    assert "VAELAB_SEED" not in env and "MPLBACKEND" not in env
    assert env["VAELAB_STRICT"] == env["VAELAB_OFFLINE"] == "1"
    assert env["VAELAB_DATA"] == str(tmp_path / "build" / "no-data")


def test_no_notebooks_is_said_and_not_run(tmp_path, capsys):
    assert [name for name, _ in check.parts(False, tmp_path)] == ["ruff", "unit and structure tests"]
    assert "no notebooks yet" in capsys.readouterr().out


# Links


README = """# vaelab

<!-- binder: notebooks/00_a.ipynb --><!-- /binder -->

| <!-- file: notebooks/00_a.ipynb --><!-- /file --> | <!-- colab: notebooks/00_a.ipynb --><!-- /colab --> |

<!-- clone --><!-- /clone -->
<!-- pip --><!-- /pip -->

Thanks to https://github.com/pytorch/examples and
[![Open in Colab](https://x)](https://colab.research.google.com/github/phlippe/uvadlc_notebooks/blob/a.ipynb).
"""


@pytest.fixture
def copy(tmp_path):
    """A small repository with a README, a notebook, coursework, and a pyproject.toml, not stamped."""
    (tmp_path / "pyproject.toml").write_text('[project.urls]\n\n[tool.vaelab]\nrepository = "OWNER/vaelab"\n')
    (tmp_path / "README.md").write_text(README)
    for name in ("notebooks/00_a.ipynb", "coursework/source/one/one.ipynb"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        nb = good_notebook()
        nb.cells[3].source += "\nNext: <!-- file: notebooks/00_a.ipynb --><!-- /file -->. Très bien."
        nbformat.write(nb, path)
    links.stamp("OWNER/vaelab", tmp_path)
    return tmp_path


def everything(root):
    return {path: path.read_text(encoding="utf-8") for path in links.files(root)}


def test_unstamped_links_lead_nowhere(copy):
    for text in everything(copy).values():
        assert not list(links.strays(text))


def test_stamping(copy):
    unstamped = everything(copy)
    assert links.stamp("ann/vaes", copy)
    stamped = everything(copy)
    readme, notebook = stamped[copy / "README.md"], stamped[copy / "notebooks" / "00_a.ipynb"]
    for link in (
        "https://mybinder.org/v2/gh/ann/vaes/main?urlpath=lab/tree/notebooks/00_a.ipynb",
        "https://colab.research.google.com/github/ann/vaes/blob/main/notebooks/00_a.ipynb",
        "https://github.com/ann/vaes/blob/main/notebooks/00_a.ipynb",
        "git clone https://github.com/ann/vaes.git",
        'pip install "git+https://github.com/ann/vaes"',
    ):
        assert link in readme
    assert "https://github.com/pytorch/examples" in readme and "github/phlippe/uvadlc_notebooks" in readme
    assert "https://colab.research.google.com/github/ann/vaes/blob/main/notebooks/00_a.ipynb" in notebook
    assert 'REPO = \\"ann/vaes\\"' in notebook and "Très bien" in notebook
    course = stamped[copy / "coursework" / "source" / "one" / "one.ipynb"]
    assert "github/ann/vaes/blob/main/coursework/source/one/one.ipynb" in course
    assert 'Repository = "https://github.com/ann/vaes"' in stamped[copy / "pyproject.toml"]
    assert links.current(copy) == "ann/vaes"

    assert links.stamp("ann/vaes", copy) == [], "a second stamp changes nothing"
    links.stamp("bob-2/vae.lab", copy)
    assert all("ann/" not in text for text in everything(copy).values())
    links.stamp("OWNER/vaelab", copy)
    assert everything(copy) == unstamped


@pytest.fixture
def whole_copy(tmp_path):
    """A copy of every text file of this repository, whatever git knows of it."""
    skipped = (".*", "build", "*.egg-info", "__pycache__", "*.png", "*.db", *links.NOT_OURS)
    shutil.copytree(links.ROOT, tmp_path / "copy", ignore=shutil.ignore_patterns(*skipped))
    return tmp_path / "copy"


def holding(root, text):
    """The files that hold a text, by their path in the repository."""
    found = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix() for path in found if text.encode() in path.read_bytes()}


def test_no_old_link_stays_anywhere_in_this_repository(whole_copy):
    before, (first, second) = everything(whole_copy), (f"{name}-owner/its-vaes" for name in ("ann", "bob"))
    links.stamp(first, whole_copy)
    stamped = holding(whole_copy, first)
    assert stamped >= {"README.md", "pyproject.toml"}
    assert stamped >= {f"notebooks/{path.name}" for path in (whole_copy / "notebooks").glob("*.ipynb")}
    links.stamp(second, whole_copy)
    assert holding(whole_copy, first) == set()
    assert holding(whole_copy, second) == stamped
    unstamped = {name for name in holding(whole_copy, links.UNSTAMPED) if not name.startswith("tests/")}
    assert unstamped <= {"tools/links.py"}
    links.stamp(links.current(), whole_copy)
    assert everything(whole_copy) == before


def test_no_own_address_where_no_stamp_reaches(whole_copy):
    """Such as a docstring, a workflow or a figure's text: a link to a copy called vaelab, or to OWNER."""
    for path in whole_copy.rglob("*"):
        own = path.is_file() and path not in links.files(whole_copy) and path.suffix != ".pyc"
        if own and path.relative_to(whole_copy).parts[0] not in ("tests", "tools"):
            assert not list(links.strays(path.read_text(encoding="utf-8", errors="replace"))), path


def test_stamping_keeps_outputs_fresh_and_layout(copy):
    path = copy / "notebooks" / "00_a.ipynb"
    links.stamp("ann/vaes", copy)
    nb = nbformat.read(path, as_version=4)
    assert list(rules.fresh(nb, path)) == []
    text = path.read_text(encoding="utf-8")
    nbformat.write(nb, path)
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "link",
    [
        "https://github.com/ann/vaes/issues",
        "git@github.com:ann/vaes.git",
        "https://github.com/OWNER/anything",
        "https://mybinder.org/v2/gh/someone/vaelab/main",
        "See https://github.com/ann/vaes.",
    ],
)
def test_a_link_outside_markers_stops_the_stamp(copy, link):
    readme = copy / "README.md"
    readme.write_text(README + link)
    before = everything(copy)
    with pytest.raises(SystemExit, match="README.md"):
        links.stamp("ann/vaes", copy)
    assert everything(copy) == before


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
        "ssh://git@ssh.github.com:443/ann/vaes.git",
    ],
)
def test_addresses(address):
    assert links.parse(address) == "ann/vaes"


BAD = ["vaes", "", "ann/", "a/b/c", "-ann/vaes", "ann/va es", 'ann/v"', "ann/..", "/srv/git/vaes.git"]


@pytest.mark.parametrize("address", [*BAD, "https://u:secret@gitlab.com/ann/vaes"])
def test_bad_addresses(address):
    with pytest.raises(SystemExit, match="owner/name") as error:
        links.parse(address)
    assert "secret" not in str(error.value)


def test_the_remote_of_the_checkout(tmp_path):
    with pytest.raises(SystemExit, match="no remote called origin"):
        links.remote(tmp_path)
    git = ["git", "-C", tmp_path]
    subprocess.run([*git, "init", "-q"], check=True)
    with pytest.raises(SystemExit, match="no remote called origin"):
        links.remote(tmp_path)
    subprocess.run([*git, "remote", "add", "origin", "git@github.com:ann/vaes.git"], check=True)
    assert links.remote(tmp_path) == "ann/vaes"
    (tmp_path / "inside").mkdir()
    with pytest.raises(SystemExit, match="no remote called origin"):
        links.remote(tmp_path / "inside")


# The setup cell


def run_setup_cell(monkeypatch, repository, colab):
    """Execute the setup cell; return what it installed, whether setup ran, and its error."""
    from IPython.core.interactiveshell import InteractiveShell

    installed, began = [], []
    fake = types.ModuleType("vaelab")
    fake.setup = lambda: began.append(True) or "cpu"
    monkeypatch.setitem(sys.modules, "vaelab", fake)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    if colab:
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    shell = InteractiveShell()
    try:
        shell.register_magic_function(installed.append, "line", "pip")
        error = shell.run_cell(links.setup_cell(repository)).error_in_exec
    finally:
        shell.history_manager.end_session()
        InteractiveShell.clear_instance()
    return installed, bool(began), error


def test_setup_cell_installs_on_colab_once_stamped(monkeypatch):
    command = 'install -q "git+https://github.com/ann/vaes"'
    assert run_setup_cell(monkeypatch, "ann/vaes", colab=True) == ([command], True, None)


def test_setup_cell_refuses_to_install_a_strangers_package(monkeypatch, capsys):
    installed, began, error = run_setup_cell(monkeypatch, "OWNER/vaelab", colab=True)
    assert not installed and not began and "make links REPO=owner/name" in str(error)


@pytest.mark.parametrize("repository", ["OWNER/vaelab", "ann/vaes"])
def test_setup_cell_installs_nothing_elsewhere(monkeypatch, repository):
    assert run_setup_cell(monkeypatch, repository, colab=False) == ([], True, None)


def test_committed_notebook_json_is_laid_out_as_nbformat_does(copy):
    path = copy / "notebooks" / "00_a.ipynb"
    assert json.dumps(json.loads(path.read_text()), indent=1, ensure_ascii=False) + "\n" == path.read_text()
