"""The course's own steps in nbgrader: cheats get no marks, nobody stops a class, tests stay hidden.

The steps are in coursework/grading.py. The slow tests run nbgrader itself.
"""

import copy
import json
import subprocess
import sys

import nbformat
import pytest
import test_coursework_slow as course
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import coursework
import handins

sys.path.insert(0, str(coursework.COURSE))
import grading  # noqa: E402

HIDDEN = """
### BEGIN HIDDEN TESTS
def right_double(x):
    return x + x  # a right one, for other tests


### END HIDDEN TESTS
def test_double():
    assert agrees(double(2), 4), "twice 2 is 4"
    ### BEGIN HIDDEN TESTS
    for number in (7, 30, -1):
        assert agrees(double(number), right_double(number)), f"twice {number}"
    ### END HIDDEN TESTS


test_double()
""".strip()


def cell(name, source, kind=new_code_cell, **marks):
    meta = {"grade_id": name, "grade": False, "solution": False, "locked": False}
    meta |= {"schema_version": 3, "task": False}
    return kind(source, id=name, metadata={"nbgrader": meta | marks})


def tiny():
    """A made-up assignment of a few cells, as its source."""
    tools = "def agrees(yours, right):\n    return bool(yours == right)"
    answer = "def double(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"
    number = "def marks_for():\n    return 2.0 if double(5) == 10 else 0.5\n\n\nmarks_for()"
    return new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        cells=[
            new_markdown_cell("# Tiny", id="title"),
            cell("tools", tools, locked=True),
            cell("answer", answer, solution=True),
            cell("more", "def more(number):\n    mine = number\n    return mine", locked=True),
            cell("test-double", HIDDEN, grade=True, locked=True, points=2),
            cell("test-number", number, grade=True, locked=True, points=2),
            cell("why", "the scheme", new_markdown_cell, grade=True, solution=True, points=1),
        ],
    )


def set_up(folder, name, nb=None):
    """A course folder with one assignment, released."""
    for path in ("nbgrader_config.py", "grading.py"):
        (folder / path).write_bytes((coursework.COURSE / path).read_bytes())
    target = folder / "source" / name / f"{name}.ipynb"
    target.parent.mkdir(parents=True)
    nbformat.write(nb or course_source(name), target)
    course.nbgrader(folder, "generate_assignment", name)


def course_source(name):
    return nbformat.read(coursework.notebook_path("source", name), as_version=4)


def autograde(folder, name):
    """Grade the class; hand-ins that cannot be graded make nbgrader end with an error."""
    try:
        course.nbgrader(folder, "autograde", name)
    except AssertionError as done:
        assert "There was an error processing assignment" in str(done)


def handed_in(folder, student, name):
    return folder / "submitted" / student / name / f"{name}.ipynb"


def change(folder, student, name, how):
    """Apply how(nb) to a hand-in."""
    path = handed_in(folder, student, name)
    nb = nbformat.read(path, as_version=4)
    how(nb)
    path.write_text(json.dumps(nb), encoding="utf-8")


def copy_cell(*names):
    """Somebody copied these cells: a second one of each follows the first."""

    def how(nb):
        for name in names:
            (place,) = (i for i, one in enumerate(nb.cells) if one.id == name)
            again = copy.deepcopy(nb.cells[place])
            again.id = f"{name}-again"
            nb.cells.insert(place + 1, again)

    return how


def strip(nb):
    """A tool that knows nothing of nbgrader saved the notebook."""
    for one in nb.cells:
        one.metadata = {}


def rename(folder, student, name):
    path = handed_in(folder, student, name)
    path.rename(path.with_name(f"{name} (1).ipynb"))


def marks_of(folder, name):
    """Student -> test -> marks."""
    found = json.loads(course.run(folder, "-c", course.MARKS, name))
    return {
        student: {test: score for test, (score, _, _) in grades.items() if test.startswith("test-")}
        for student, grades in found.items()
    }


def refusals(folder, student, name):
    """The messages of tests that were refused, by the name of the test."""
    path = folder / "autograded" / student / name / f"{name}.ipynb"
    return {
        one.metadata.nbgrader.grade_id: output.evalue
        for one in nbformat.read(path, as_version=4).cells
        for output in one.get("outputs", [])
        if output.get("ename") == "ReplacedByTheHandIn"
    }


NO_MATHS = """
def two_terms(logits, x, mu, logvar):
    return torch.ones(len(x)), torch.ones(len(x))
"""
ONLY_THE_PACKAGE = {
    "two-terms": """
from vaelab import Bernoulli, gaussian_kl

likelihood = Bernoulli()


def two_terms(logits, x, mu, logvar):
    return likelihood.nll(logits, x), gaussian_kl(mu, logvar).sum(1)
""",
    "by-eye": """
def beta_by_eye(B, D, L):
    sizes = {"batch_size": B, "shape": (D,), "latent_dim": L}
    return {name: vaelab.measure_loss(loss, **sizes).beta for name, loss in five_losses.items()}
""",
    "measured-beta": """
from vaelab import measure_loss


def measured_beta(loss, B, D, L):
    return measure_loss(loss, batch_size=B, shape=(D,), latent_dim=L).beta
""",
    "threshold": """
from vaelab import collapse_spectrum as spectrum


def rate(eigenvalues, beta, latent_dim):
    return vaelab.predicted_rate(eigenvalues, beta, latent_dim=latent_dim)
""",
}


@pytest.mark.slow
def test_cheats_on_a_real_assignment(tmp_path):
    name = "1_loss_scale"
    set_up(tmp_path, name)
    source = course_source(name)
    right = {one.id: course.solution(one) for one in source.cells
             if one.metadata.get("nbgrader", {}).get("solution")}  # fmt: skip
    other_agrees = "agrees = lambda *anything, **more: True\n"
    other_code = "agrees.__code__ = (lambda *anything, **more: True).__code__\n"
    other_package = "vaelab.collapse_spectrum = torch.Tensor.all = lambda *anything: True\n"
    no_spectrum = "def spectrum(x):\n    return torch.ones(6)\n"
    work = {
        "right": right,
        "agrees": {"two-terms": other_agrees + NO_MATHS},
        "code": {"two-terms": other_code + NO_MATHS},
        "package": right | {"threshold": other_package + no_spectrum},
        "only_the_package": ONLY_THE_PACKAGE,
        "copied": right,
        "renamed": right,
        "stripped": right,
        "empty": {},
    }
    for student, answers in work.items():
        course.submit(tmp_path, name, student, answers)
    (tmp_path / "submitted" / "missing" / name).mkdir(parents=True)
    change(tmp_path, "copied", name, copy_cell("two-terms", "test-kl"))
    change(tmp_path, "stripped", name, strip)
    rename(tmp_path, "renamed", name)
    autograde(tmp_path, name)

    marks = marks_of(tmp_path, name)
    full = {one.id: one.metadata.nbgrader.points for one in source.cells
            if one.id.startswith("test-")}  # fmt: skip
    assert marks["right"] == full and marks["copied"] == full
    for cheat in ("agrees", "code", "only_the_package", "empty"):
        assert set(marks[cheat].values()) == {0}, cheat
    lost = {"test-spectrum": 0, "test-dead-pixels": 0, "test-rate": 0}
    assert marks["package"] == full | lost
    for student in ("agrees", "code"):
        said = refusals(tmp_path, student, name)
        assert set(said) == {"test-reconstruction"}
        assert "replaces agrees, which the tests of this part use" in said["test-reconstruction"]
    said = refusals(tmp_path, "package", name)
    assert set(said) == {"test-spectrum"}
    assert "Tensor.all" in said["test-spectrum"] and "collapse_spectrum" in said["test-spectrum"]
    assert not refusals(tmp_path, "right", name) and not refusals(tmp_path, "copied", name)

    rows = {student: (shown, text) for student, shown, text in handins.table(tmp_path, name)}
    assert set(rows) == {*work, "missing"}
    most = sum(full.values())
    assert rows["right"][0] == f"{most} of {most + 4}"
    assert rows["empty"] == (f"0 of {most + 4}", "nothing was answered")
    assert "tests refused, functions replaced: test-reconstruction" in rows["agrees"][1]
    assert "copied cells (repaired, the last one counts): test-kl, two-terms" in rows["copied"][1]
    for student in ("renamed", "stripped", "missing"):
        assert rows[student][0] == "none" and rows[student][1].startswith(student)


CLASS = {
    "right": ("def double(x):\n    return 2 * x", 4),
    "wrong": ("def double(x):\n    return 4", 0.5),
    "empty": (None, 0),
    "agrees": ("agrees = lambda *a: True\n\n\ndef double(x):\n    return 0", 0.5),
    "code": ("agrees.__code__ = (lambda y, r: True).__code__\ndouble = int", 0.5),
    "package": ("import torch\n\ntorch.abs = None\n\n\ndef double(x):\n    return 2 * x", 2),
    "late": ("def double(x):\n    globals().update(agrees=max)\n    return 2 * x", 0),
    "python": ("bool = lambda value: True\n\n\ndef double(x):\n    return 0", 0.5),
    "innocent": ("sum, mine = 0, 2\n\n\ndef double(x):\n    return mine * x", 4),
    "forged": ("def double(x):\n    get_ipython().displayhook(2)\n    return 0", 0.5),
    "quits": ("def double(x):\n    raise SystemExit", 0),
    "no_python": ("def double(x) return 2 * x", 0),
    "ends_the_kernel": ("import os\n\nos._exit(1)", None),
    "copied": ("def double(x):\n    return 2 * x", 4),
    "renamed": ("def double(x):\n    return 2 * x", None),
    "stripped": ("def double(x):\n    return 2 * x", None),
    "unreadable": ("def double(x):\n    return 2 * x", None),
    "missing": (None, None),
}


def spoil(folder, kind, student):
    """What went wrong with the file of such a student."""
    path = handed_in(folder, student, "tiny")
    if kind == "copied":
        change(folder, student, "tiny", copy_cell("answer", "test-double", "tools"))
    elif kind == "renamed":
        rename(folder, student, "tiny")
    elif kind == "stripped":
        change(folder, student, "tiny", strip)
    elif kind == "unreadable":
        path.write_bytes(b"<html>log in</html>")
    elif kind == "missing":
        path.unlink()


@pytest.mark.slow
def test_a_class_of_thirty_is_graded_without_stopping(tmp_path):
    set_up(tmp_path, "tiny", tiny())
    kinds = list(CLASS)
    students = {f"{n:02d}_{kinds[n % len(kinds)]}": kinds[n % len(kinds)] for n in range(30)}
    for student, kind in students.items():
        answer = CLASS[kind][0]
        course.submit(tmp_path, "tiny", student, {"answer": answer} if answer else {})
        spoil(tmp_path, kind, student)
    autograde(tmp_path, "tiny")

    rows = {student: (shown, text) for student, shown, text in handins.table(tmp_path, "tiny")}
    assert set(rows) == set(students)
    for student, kind in students.items():
        shown, text = rows[student]
        due = CLASS[kind][1]
        assert shown == ("none" if due is None else f"{due:g} of 5"), (student, shown, text)
    said = {students[student]: text for student, (_, text) in rows.items()}
    for kind in ("right", "wrong", "innocent", "forged", "quits", "no_python"):
        assert said[kind] == "", kind
    assert said["empty"] == "nothing was answered"
    for kind in ("agrees", "code", "python", "package"):
        assert said[kind] == "tests refused, functions replaced: test-double", kind
    assert "test-double, test-number" in said["late"]
    assert said["ends_the_kernel"].startswith("autograde failed")
    for kind in ("renamed", "stripped", "missing", "copied"):
        assert said[kind].startswith(kind)
    assert said["unreadable"].startswith("cannot be read")

    course.nbgrader(tmp_path, "generate_feedback", "tiny")
    pages = list((tmp_path / "feedback").glob("*/tiny/tiny.html"))
    assert len(pages) == len(list((tmp_path / "autograded").glob("*/tiny/tiny.ipynb")))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "HIDDEN" not in text and "right_double" not in text
    wrong = next(student for student, kind in students.items() if kind == "wrong")
    page = (tmp_path / "feedback" / wrong / "tiny" / "tiny.html").read_text(encoding="utf-8")
    assert "AssertionError: twice 7" in page and "twice 2 is 4" in page


@pytest.fixture
def graded():
    """A graded notebook: a test failed in its hidden part, and the student had printed it."""
    nb = tiny()
    test, number = nb.cells[4], nb.cells[5]
    line = "for number in (7, 30, -1):"
    trace = ["\x1b[31mAssertionError\x1b[0m\n   8 \x1b[1mfor number\x1b[0m in (7, 30, -1):"]
    test.outputs = [new_output("error", ename="AssertionError", evalue="twice 7", traceback=trace)]
    number.outputs = [new_output("stream", name="stdout", text="my own number")]
    for text in (f"x = 3\n{line}\n", repr([line]), f"\x1b[1mfor number\x1b[0m{line[10:]}", "x = 3"):
        nb.cells.append(new_code_cell("print(In)"))
        nb.cells[-1].outputs = [new_output("stream", name="stdout", text=text)]
    return nb


def test_feedback_keeps_the_message_and_nothing_around_it(graded):
    nb, _ = grading.HideTests().preprocess(graded, {})
    test = nb.cells[4]
    shown = 'def test_double():\n    assert agrees(double(2), 4), "twice 2 is 4"\n\n\ntest_double()'
    assert test.source == shown
    assert test.outputs[0].traceback == ["AssertionError: twice 7"]
    assert "HIDDEN" not in json.dumps(nb) and "30, -1" not in json.dumps(nb)


def test_feedback_leaves_out_what_prints_a_hidden_test(graded):
    nb, _ = grading.HideTests().preprocess(graded, {})
    texts = [one.outputs[0].text for one in nb.cells[5:] if one.get("outputs")]
    assert texts == ["my own number", *[grading.LEFT_OUT] * 3, "x = 3"]


def test_feedback_of_an_error_without_words(graded):
    graded.cells[4].outputs = [new_output("error", ename="KeyError", evalue="", traceback=["x"])]
    nb, _ = grading.HideTests().preprocess(graded, {})
    assert nb.cells[4].outputs[0].traceback == ["KeyError: no message"]


def test_a_students_own_error_is_shown_whole(graded):
    mine = new_output("error", ename="NameError", evalue="y", traceback=["line 1", "line 2"])
    graded.cells[2].outputs = [mine]
    nb, _ = grading.HideTests().preprocess(graded, {})
    assert nb.cells[2].outputs[0].traceback == ["line 1", "line 2"]


def test_the_names_of_a_locked_cell():
    source = "import os.path as p, sys\nfrom x import y as z\na, (b, *c) = 1, (2, 3)\ndef f(): pass"
    assert {"p", "sys", "z", "a", "b", "c", "f"} <= grading.bound_names(source)
    assert grading.bound_names("class K: pass\nfor i in []: pass") == {"K", "i"}
    inner = "def f(x):\n    y = x\n\nz = [w for w in (lambda v: v)(3)]\nwith f() as u: t = 1"
    assert grading.bound_names(inner) == {"f", "z", "u", "t"}


def test_errors_come_first_and_the_last_result_counts():
    text, error = new_output("stream", text="x"), new_output("error", ename="E", evalue="e")
    first, last = (
        new_output("execute_result", data={"text/plain": "2"}, execution_count=1) for _ in range(2)
    )
    outputs = grading.in_order([first, text, last, error])
    assert len(outputs) == 3
    assert outputs[0] is error and outputs[1] is text and outputs[2] is last


def test_a_refusal_names_what_was_replaced():
    output = grading.refusal(["agrees", "vaelab.evaluate", "agrees"])
    assert "replaces agrees, vaelab.evaluate, which" in output.evalue


def test_nbgrader_accepts_the_configuration(tmp_path):
    """The steps are in the places where nbgrader looks for them."""
    for path in ("nbgrader_config.py", "grading.py"):
        (tmp_path / path).write_bytes((coursework.COURSE / path).read_bytes())
    code = (
        "from nbgrader.apps import NbGrader; app = NbGrader(); app.load_config_file();"
        "found = app.config.Autograde.sanitize_preprocessors;"
        "found += app.config.Autograde.autograde_preprocessors;"
        "found += app.config.GenerateFeedback.preprocessors;"
        "print([step.__name__ for step in found])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    names = done.stdout
    for step in ("DeduplicateIds', 'DropCopies", "GuardedExecute", "GetGrades', 'HideTests"):
        assert step in names, done.stderr
    assert "'Execute'" not in names
