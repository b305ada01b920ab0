"""The assignments: their structure, and student versions that are in step with the source."""

import ast
import json
import re
import shutil

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

import coursework
import links

NAMES = ["1_loss_scale", "2_collapse", "3_output_layers", "4_clinic", "5_training"]
LESSONS = coursework.COURSE / "lessons"
MARKERS = re.compile(r"### (?:BEGIN|END) (?:SOLUTION|HIDDEN TESTS)")


def read(kind, name):
    return nbformat.read(coursework.notebook_path(kind, name), as_version=4)


def nbgrader_cells(nb):
    return [cell for cell in nb.cells if "nbgrader" in cell.metadata]


def meta(cell):
    return cell.metadata.get("nbgrader", {})


def regions(cell, what):
    return re.findall(rf"(?ms)^ *### BEGIN {what}\n(.*?)^ *### END {what}", cell.source)


def is_written(cell):
    return meta(cell).get("grade") and meta(cell).get("solution")


def is_test(cell):
    return meta(cell).get("grade") and not meta(cell).get("solution")


def points(cells):
    return sum(meta(cell)["points"] for cell in cells)


def test_all_assignments_are_there():
    assert coursework.assignments() == NAMES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["source", "release"])
def test_the_notebook_is_clean(kind, name):
    nb = read(kind, name)
    nbformat.validate(nb)
    text = coursework.notebook_path(kind, name).read_text(encoding="utf-8")
    assert json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n" == text
    assert nb.metadata.kernelspec.name == "python3"
    for cell in nb.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None
            ast.parse(TransformerManager().transform_cell(cell.source))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["source", "release"])
def test_it_begins_as_all_do(kind, name):
    cells = read(kind, name).cells
    titles = [
        line for cell in cells if cell.cell_type == "markdown" for line in cell.source.split("\n")
    ]
    assert cells[0].source.startswith(f"# Assignment {name[0]}: ")
    assert sum(line.startswith("# ") for line in titles) == 1
    # The source's badge opens the student version too: nobody should land among the solutions.
    badge = links.badge(f"coursework/release/{name}/{name}.ipynb", *links.address())
    assert cells[1].source == f"<!-- colab-badge -->\n{badge}"
    assert "Practise on Colab, submit through your course." in badge
    assert "setup" in cells[2].metadata.tags
    assert cells[2].source == links.setup_cell(links.address()[0])
    assert all("nbgrader" not in cell.metadata for cell in cells[:3]), (
        "locked links could not be stamped"
    )


def test_the_tools_are_the_same_in_all():
    sources = {
        cell.source for name in NAMES for cell in read("source", name).cells if cell.id == "tools"
    }
    assert len(sources) == 1


@pytest.mark.parametrize("name", NAMES)
def test_metadata(name):
    cells = nbgrader_cells(read("source", name))
    ids = [meta(cell)["grade_id"] for cell in cells]
    assert len(set(ids)) == len(ids)
    for cell in cells:
        mine = meta(cell)
        assert mine["schema_version"] == 3 and mine["task"] is False
        kind = mine["grade"], mine["solution"], mine["locked"]
        allowed = {(True, False, True): "test", (True, True, False): "written",
                   (False, True, False): "answer", (False, False, True): "locked"}  # fmt: skip
        assert kind in allowed, mine
        assert ("points" in mine) == mine["grade"] and mine.get("points", 1) > 0
        assert (cell.cell_type == "markdown") == (allowed[kind] == "written")
        if allowed[kind] == "answer":
            assert regions(cell, "SOLUTION"), "keep the name and the docstring, clear the body"
        if MARKERS.search(cell.source):
            assert allowed[kind] in ("answer", "test")


@pytest.mark.parametrize("name", NAMES)
def test_there_is_a_mix_of_work(name):
    cells = nbgrader_cells(read("source", name))
    tests = [cell for cell in cells if is_test(cell)]
    hidden = [cell for cell in tests if regions(cell, "HIDDEN TESTS")]
    predictions = [
        cell for cell in tests if re.match("test-(prediction|first-impressions)", cell.id)
    ]
    assert len(hidden) >= 8 and len(predictions) >= 1
    assert all(cell not in hidden for cell in predictions), "a prediction counts when it is made"
    assert [cell for cell in cells if is_written(cell)]
    for cell in hidden:
        body = "".join(regions(cell, "HIDDEN TESTS"))
        assert "dice()" in body, f"{cell.id}: numbers that one could know"


def top_level_names(source):
    """The names that a cell defines or assigns outside of functions."""
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        else:
            stored = (part for part in ast.walk(node) if isinstance(part, ast.Name))
            names |= {part.id for part in stored if isinstance(part.ctx, ast.Store)}
    return names


@pytest.mark.parametrize("name", NAMES)
def test_no_test_takes_a_name_from_a_student(name):
    cells = read("source", name).cells
    others = [cell for cell in cells if cell.cell_type == "code" and not is_test(cell)]
    taken = [top_level_names(TransformerManager().transform_cell(cell.source)) for cell in others]
    for cell in filter(is_test, cells):
        body = ast.parse(cell.source).body
        assert all(isinstance(node, ast.FunctionDef) for node in body[:-1]), cell.id
        assert isinstance(body[-1], ast.Expr), f"{cell.id}: call the test in the last line"
        assert isinstance(body[-1].value, ast.Call), f"{cell.id}: call the test in the last line"
        assert body[-1].value.func.id == body[-2].name == cell.id.replace("-", "_"), cell.id
        assert not top_level_names(cell.source) & set().union(*taken), cell.id


@pytest.mark.parametrize("name", NAMES)
def test_words_of_the_second_edition(name):
    nb = read("source", name)
    text = "\n".join(cell.source for cell in nb.cells)
    assert "This is an estimate." in text, "the minutes"
    assert not re.search(r"(?i)cliff|try_it", text)
    (rubric,) = [cell.source for cell in nb.cells if is_written(cell)]
    for level in ("Full", "Half", "No"):
        assert f"**{level} marks (" in rubric, "sample answers at three levels"


@pytest.mark.parametrize("name", NAMES)
def test_marks_add_up_as_announced(name):
    nb = read("source", name)
    graded = [cell for cell in nbgrader_cells(nb) if meta(cell)["grade"]]
    written = [cell for cell in graded if is_written(cell)]
    auto = points(graded) - points(written)
    text = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    assert f"{auto} marks by tests, {points(written)} for a written" in text
    section, announced, found = None, {}, {}
    for cell in nb.cells:
        heading = re.search(r"(?m)^## (\d+)\. .*\((\d+) marks?\)$", cell.source)
        if heading:
            section, announced[heading[1]] = heading[1], int(heading[2])
        if meta(cell).get("grade"):
            found[section] = found.get(section, 0) + meta(cell)["points"]
    assert announced == found


def test_student_versions_are_in_step():
    assert list(coursework.out_of_step()) == [], "run `python tools/coursework.py`"


def test_out_of_step_is_noticed(tmp_path):
    for kind in ("source", "release"):
        path = coursework.notebook_path(kind, NAMES[0], tmp_path)
        path.parent.mkdir(parents=True)
        shutil.copy(coursework.notebook_path(kind, NAMES[0]), path)
    assert list(coursework.out_of_step(tmp_path)) == []
    path.write_bytes(path.read_bytes().replace(b"Assignment 1", b"Assignment One"))
    assert list(coursework.out_of_step(tmp_path)) == [NAMES[0]]
    shutil.rmtree(tmp_path / "source")
    assert list(coursework.out_of_step(tmp_path)) == [NAMES[0]]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_given_away(name):
    source, student = read("source", name), read("release", name)
    text = coursework.notebook_path("release", name).read_text(encoding="utf-8")
    assert not MARKERS.search(text) and "HIDDEN" not in text
    for cell, given in zip(source.cells, student.cells, strict=True):
        for what in ("SOLUTION", "HIDDEN TESTS"):
            for region in regions(cell, what):
                assert region.strip() not in given.source
                lines = [line.strip() for line in region.split("\n") if len(line.strip()) > 25]
                assert not [line for line in lines if line in given.source]
        if is_written(cell):
            assert given.source == "YOUR ANSWER HERE"
        elif meta(cell).get("solution"):
            assert (
                "# YOUR CODE HERE\n" in given.source
                and "raise NotImplementedError()" in given.source
            )
        elif is_test(cell):
            assert "assert" in given.source, "a test that a student can run"
        elif "setup" not in cell.metadata.get("tags", []):
            assert given.source == cell.source


@pytest.mark.parametrize("name", NAMES)
def test_students_cannot_edit_tests_by_accident(name):
    for cell in read("release", name).cells:
        if meta(cell).get("locked"):
            assert cell.metadata.editable is False and cell.metadata.deletable is False
            assert len(meta(cell)["checksum"]) == 32


@pytest.fixture
def stamped(tmp_path):
    """A copy of the course, stamped as ann/vaes."""
    shutil.copytree(coursework.COURSE, tmp_path / "coursework", ignore=shutil.ignore_patterns(".*"))
    shutil.copy(coursework.ROOT / "pyproject.toml", tmp_path)
    links.stamp("ann/vaes", root=tmp_path)
    return tmp_path


def test_stamping_reaches_the_student_versions(stamped):
    for name in NAMES:
        path = f"coursework/release/{name}/{name}.ipynb"
        badge = f"(https://colab.research.google.com/github/ann/vaes/blob/main/{path})"
        for kind in ("source", "release"):
            text = coursework.notebook_path(kind, name, stamped / "coursework").read_text(
                encoding="utf-8"
            )
            assert badge in text and text.count("colab.research.google.com/github") == 1
            assert 'REPO = \\"ann/vaes\\"' in text and "OWNER/vaelab" not in text
    assert list(coursework.out_of_step(stamped / "coursework")) == []


def test_a_class_of_students_is_never_stamped(stamped):
    work = stamped / "coursework" / "submitted" / "ann" / NAMES[0] / f"{NAMES[0]}.ipynb"
    work.parent.mkdir(parents=True)
    shutil.copy(coursework.notebook_path("release", NAMES[0]), work)
    before = work.read_bytes()
    links.stamp("bob/vaes", root=stamped)
    assert work.read_bytes() == before


def test_the_guide_knows_every_assignment():
    guide = (coursework.COURSE / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        graded = [cell for cell in nbgrader_cells(read("source", name)) if meta(cell)["grade"]]
        written = points([cell for cell in graded if is_written(cell)])
        (row,) = re.findall(rf"(?m)^\| `{name}` \|.*$", guide)
        assert f"| {points(graded) - written} + {written} |" in row


@pytest.mark.parametrize("name", NAMES)
def test_there_is_a_lesson_for_every_assignment(name):
    lesson = (LESSONS / f"{name}.md").read_text(encoding="utf-8")
    assert "90 minutes" in lesson and f"`{name}`" in lesson
    assert "**Ask aloud.**" in lesson and "**The answer.**" in lesson
    notebooks = re.findall(r"`(\d\d_[a-z0-9_]+)`", lesson)
    assert notebooks
    for notebook in notebooks:
        assert (coursework.ROOT / "notebooks" / f"{notebook}.ipynb").exists(), notebook


def test_the_pictures_of_the_slides_exist():
    slides = (LESSONS / "slides.md").read_text(encoding="utf-8")
    pictures = re.findall(r"figures/(\w+\.png)", slides)
    assert len(pictures) >= 10
    for picture in pictures:
        assert (coursework.ROOT / "figures" / picture).exists(), picture
