"""The tools that execute notebooks, the parts of `make test`, and the copy that is opened."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import check
import lab
import notebooks
import rules


def setup_and(*sources):
    """A notebook with a setup cell and cells of these sources."""
    setup = new_code_cell("import vaelab", metadata={"tags": ["setup"]})
    return new_notebook(cells=[new_markdown_cell("# A"), setup, *map(new_code_cell, sources)])


def test_code_hash_follows_the_code_cells_only():
    nb = setup_and("a = 1")
    before = notebooks.code_hash(nb)
    nb.cells[0].source = "other words"
    nb.cells[1].source = "another setup cell"
    assert notebooks.code_hash(nb) == before
    nb.cells[2].source = "a = 2"
    assert notebooks.code_hash(nb) != before


def test_core_hash_follows_meaning_and_not_layout_or_clinic(tmp_path):
    def hash_of(source, name="a.py"):
        (tmp_path / name).write_text(source)
        return notebooks.core_hash(tmp_path)

    (tmp_path / "clinic").mkdir()
    first = hash_of('"""Doc."""\ndef f(x):\n    """Doc."""\n    return x + 1\n')
    assert (
        hash_of('"""No."""\n# comment\ndef f(x):\n\n    """No."""\n    return (x + 1)\n') == first
    )
    assert hash_of("def f(x):\n    return x + 1\n") == first
    assert hash_of("def remedy(): pass\n", "clinic/checks.py") == first
    assert hash_of("def f(x):\n    return x + 2\n") != first
    assert hash_of("def f(x, y=()):\n    return x + 1\n") != first


def test_kinds(tmp_path):
    path = tmp_path / "01_a.ipynb"
    assert notebooks.kind(path) == "fifteen-minute"
    assert notebooks.kind(tmp_path / "deeper" / "01_a_more.ipynb") == "companion"


# Execution


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A function that makes a notebook of code cells in a folder that stands for the repository."""
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    monkeypatch.setattr(notebooks, "core_hash", lambda: "the core")

    def make(*sources, name="99_example.ipynb"):
        path = tmp_path / "notebooks" / name
        path.parent.mkdir(exist_ok=True)
        nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), path)
        return path

    return make


LOADS = """
import sys, types
sys.modules["vaelab.data"] = types.ModuleType("vaelab.data")
sys.modules["vaelab.data"].LOADED = [("mnist", "a place", {real})]
"""
DRAWS = """
import os, pathlib
pathlib.Path(os.environ["VAELAB_FIGURES"], "a.png").write_text("x")
"""


def test_real_outputs_are_written_back_and_stamped(repository, tmp_path):
    path = repository(LOADS.format(real=True), DRAWS)
    assert notebooks.write_back([path], {}) == 0
    nb = nbformat.read(path, as_version=4)
    assert [cell.execution_count for cell in nb.cells] == [1, 2]
    sources = [{"name": "mnist", "real": True}]
    assert nb.metadata.vaelab == notebooks.hashes(nb) | {"sources": sources}
    assert rules.broken(nb, path, [rules.executed, rules.fresh, rules.metadata]) == []
    assert (tmp_path / "figures" / "a.png").exists()


def test_stand_ins_and_errors_are_not_written_back(repository, tmp_path, capsys):
    path = repository(LOADS.format(real=False), DRAWS)
    before = path.read_text()
    assert notebooks.write_back([path], {}) == 0
    assert path.read_text() == before and not (tmp_path / "figures").exists()
    assert "stand-in for mnist, so not written back" in capsys.readouterr().out
    assert notebooks.check([path], {}) == 1
    assert notebooks.check([path], {"VAELAB_OFFLINE": "1"}) == 0
    path = repository("1 / 0")
    before = path.read_text()
    assert notebooks.write_back([path], {}) == 1 and path.read_text() == before
    assert "FAILED: cell 0: ZeroDivisionError" in capsys.readouterr().out


def test_a_notebook_that_was_edited_while_it_ran_is_left_alone(repository, tmp_path, capsys):
    path = repository("print('old')")
    path = repository(f"import pathlib\npathlib.Path({str(path)!r}).write_text('edited')")
    assert notebooks.write_back([path], {}) == 1
    assert path.read_text() == "edited"
    said = capsys.readouterr().out
    assert "edited while it ran" in said and "build/notebooks/99_example" in said
    kept = tmp_path / "build" / "notebooks" / "99_example" / "99_example.ipynb"
    assert nbformat.read(kept, as_version=4).cells[0].execution_count == 1


def test_two_notebooks_are_checked_at_a_time_with_one_thread_each(repository):
    """Each waits until the other has begun."""
    cell = """
import os, pathlib, time
assert os.environ["OMP_NUM_THREADS"] == os.environ["VAELAB_STRICT"] == "1"
pathlib.Path("began_{mine}").touch()
while not pathlib.Path("began_{other}").exists():
    time.sleep(0.05)
"""
    first = repository(cell.format(mine="one", other="two"), name="01_a.ipynb")
    second = repository(cell.format(mine="two", other="one"), name="02_b.ipynb")
    assert notebooks.check([first, second], {}) == 0


def test_time_limits(repository, capsys, monkeypatch):
    path = repository("import time; time.sleep(0.5)")
    monkeypatch.setitem(notebooks.SECONDS, "fifteen-minute", 0.4)
    assert notebooks.check([path], {}) == 0 and "notice: over its" in capsys.readouterr().out
    monkeypatch.setitem(notebooks.SECONDS, "fifteen-minute", 0.1)
    assert notebooks.check([path], {}) == 1 and "more than twice" in capsys.readouterr().out


def test_claims_over_seeds(repository, capsys):
    told = "print('did not hold here: odd' if os.environ['VAELAB_SEED'] == '1' else 'holds')"
    path = repository(f"import os\n{told}")
    assert notebooks.over_seeds([path], notebooks.seed_range("0-1"), "photos", {}) == 1
    assert "1     did not hold here: odd" in capsys.readouterr().out
    assert notebooks.seed_range("0-2,7") == [0, 1, 2, 7]


def test_status(repository, capsys):
    path = repository("1")
    assert notebooks.status([path]) == 1
    assert "stale: code and core changed" in capsys.readouterr().out


def test_selection(tmp_path):
    for name in ("00_a", "01_b", "deeper/01_b_more", ".ipynb_checkpoints/01_b"):
        path = tmp_path / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        path.touch()

    def stems(*names):
        return [path.stem for path in notebooks.selected(names, tmp_path)]

    assert stems() == ["00_a", "01_b", "01_b_more"]
    assert stems("01") == ["01_b", "01_b_more"]
    assert stems(str(tmp_path / "deeper" / "01_b_more.ipynb"), "00") == ["01_b_more", "00_a"]
    assert stems(str(tmp_path / "deeper")) == ["01_b_more"]
    with pytest.raises(SystemExit, match="no notebook starts with '05'; there are: 00_a, 01_b, "):
        notebooks.selected(["05"], tmp_path)


# The parts of `make test`


def test_tests_run_without_the_readers_switches(tmp_path, monkeypatch):
    monkeypatch.setenv("VAELAB_SEED", "3")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    env = check.clean_environment(tmp_path)
    assert "VAELAB_SEED" not in env and "MPLBACKEND" not in env
    assert env["VAELAB_STRICT"] == env["VAELAB_OFFLINE"] == "1"
    assert env["VAELAB_DATA"] == str(tmp_path / "build" / "no-data")


def test_parts_of_the_tests(tmp_path):
    """Companions run in test-all only."""
    for name in ("00_a", "deeper/00_a_more"):
        (tmp_path / "notebooks" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "notebooks" / f"{name}.ipynb").touch()
    short, long = dict(check.parts(False, tmp_path)), dict(check.parts(True, tmp_path))
    assert list(short) == ["ruff format", "ruff check", "unit and structure tests", "notebooks"]
    assert list(long)[4:] == ["companions", "slow tests", "web site", "browser tests"]
    first = str(tmp_path / "notebooks" / "00_a.ipynb")
    assert short["notebooks"][-2:] == [first, "coursework/source"]
    assert long["companions"][-1] == "notebooks/deeper"


# `make lab`


def test_lab_refreshes_what_the_reader_did_not_change(tmp_path):
    source, mine = tmp_path / "notebooks", tmp_path / "mine"
    (source / "deeper").mkdir(parents=True)
    names = ["00_a.ipynb", "01_b.ipynb", "deeper/01_b_more.ipynb"]
    for name in names:
        (source / name).write_text("first")
    assert lab.refresh(source, mine) == []
    assert [(mine / name).read_text() for name in names] == ["first"] * 3

    (mine / names[0]).write_text("run by the reader")
    assert lab.refresh(source, mine) == [], "there is no newer one"
    for name in names:
        (source / name).write_text("second")
    assert lab.refresh(source, mine) == [names[0]]
    assert [(mine / name).read_text() for name in names] == [
        "run by the reader",
        "second",
        "second",
    ]

    (mine / names[0]).unlink()
    assert lab.refresh(source, mine) == []
    assert (mine / names[0]).read_text() == "second"
