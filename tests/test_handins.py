"""The teacher's table of hand-ins: on small folders, each with one thing that goes wrong."""

import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import handins

TODO = "# YOUR CODE HERE\nraise NotImplementedError()"


def cell(name, source, kind=new_code_cell, **marks):
    meta = {"grade_id": name, "grade": False, "solution": False, "locked": False, **marks}
    return kind(source, metadata={"nbgrader": meta})


def notebook(answer="x = 1", text="I think so."):
    return new_notebook(cells=[
        new_markdown_cell("# Tiny"),
        cell("tools", "import math", locked=True),
        cell("answer", answer, solution=True),
        cell("test-answer", "assert x == 1", grade=True, locked=True, points=2),
        cell("why", text, new_markdown_cell, grade=True, solution=True, points=1),
    ])  # fmt: skip


def write(nb, *path):
    path[0].joinpath(*path[1:]).parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, path[0].joinpath(*path[1:]))


@pytest.fixture
def course(tmp_path):
    """A course folder in which a class has handed in `tiny`, and all has been graded."""
    write(notebook(), tmp_path, "source", "tiny", "tiny.ipynb")
    return tmp_path


def hand_in(course, nb, student="ann", graded=True):
    write(nb, course, "submitted", student, "tiny", "tiny.ipynb")
    if graded:
        write(nb, course, "autograded", student, "tiny", "tiny.ipynb")


def row(course, marks=(2.0, 3.0, False), student="ann"):
    name, shown, text = handins.row(course, student, "tiny", marks)
    assert name == student
    return shown, text


def test_a_plain_hand_in(course):
    hand_in(course, notebook())
    assert row(course) == ("2 of 3", "")
    assert row(course, (2.0, 3.0, True)) == ("2 of 3", "written answer to be marked")


def test_a_real_zero(course):
    hand_in(course, notebook("x = 2"))
    assert row(course, (0.0, 3.0, False)) == ("0 of 3", "")


def test_nothing_was_answered(course):
    hand_in(course, notebook(TODO, "YOUR ANSWER HERE"))
    assert row(course, (0.0, 3.0, False)) == ("0 of 3", "nothing was answered")


def test_one_answer_is_something(course):
    hand_in(course, notebook(TODO, "I do not know."))
    assert row(course, (0.0, 3.0, False)) == ("0 of 3", "")


def test_nothing_handed_in(course):
    hand_in(course, notebook(), "bob")
    assert row(course, None) == ("none", "missing")
    assert row(course, (0.0, 3.0, False)) == ("none", "missing"), "nbgrader's 0 is no mark"


def test_another_file_than_a_notebook(course):
    path = course / "submitted" / "ann" / "tiny" / "tiny.pdf"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"%PDF")
    assert row(course) == ("none", "missing: no notebook, only tiny.pdf")


def test_a_renamed_file(course):
    write(notebook(), course, "submitted", "ann", "tiny", "tiny (1).ipynb")
    assert row(course) == ("none", "renamed: found tiny (1).ipynb, expected tiny.ipynb")


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"cells": 3}', b"\xff\xfe"])
def test_a_file_that_is_no_notebook(course, content):
    hand_in(course, notebook())
    (course / "submitted" / "ann" / "tiny" / "tiny.ipynb").write_bytes(content)
    assert row(course) == ("none", "cannot be read: tiny.ipynb is no notebook")


def test_all_metadata_lost(course):
    nb = notebook()
    for one in nb.cells:
        one.metadata = {}
    hand_in(course, nb)
    shown, text = row(course, (0.0, 3.0, False))
    assert shown == "none" and text.startswith("stripped: no cell has its nbgrader metadata")


def test_some_metadata_lost(course):
    nb = notebook()
    del nb.cells[3].metadata["nbgrader"]
    hand_in(course, nb)
    shown, text = row(course, (0.0, 3.0, False))
    assert shown == "none"
    assert text == "stripped: cells without their nbgrader metadata: test-answer"


def test_a_copied_cell_is_repaired(course):
    nb = notebook()
    nb.cells.insert(3, cell("answer", "x = 2", solution=True))
    hand_in(course, nb)
    assert row(course) == ("2 of 3", "copied cells (repaired, the last one counts): answer")


def test_refused_tests(course):
    hand_in(course, notebook())
    nb = notebook()
    text = "This notebook replaces agrees, which the tests of this part use."
    nb.cells[3].outputs = [new_output("error", ename="ReplacedByTheHandIn", evalue=text)]
    write(nb, course, "autograded", "ann", "tiny", "tiny.ipynb")
    assert row(course) == ("2 of 3", "tests refused, functions replaced: test-answer")


def test_out_of_time(course):
    nb = notebook("while True: pass")
    nb.cells[2].outputs = [new_output("error", ename="CellTimeoutError", evalue="")]
    hand_in(course, nb)
    assert row(course, (0.0, 3.0, False)) == ("0 of 3", "ran out of time: answer")


def test_grading_failed_for_one(course):
    hand_in(course, notebook(), "bob")
    hand_in(course, notebook(), "ann", graded=False)
    shown, text = row(course, (0.0, 3.0, False))
    assert shown == "none" and text.startswith("autograde failed")
    assert row(course, student="bob") == ("2 of 3", "")


def test_nobody_is_graded_yet(course):
    hand_in(course, notebook(), graded=False)
    assert row(course, None) == ("none", "not graded yet: run nbgrader autograde")


def test_graded_and_not_in_the_gradebook(course):
    hand_in(course, notebook())
    assert row(course, None) == ("none", "no marks in the gradebook")
    assert handins.table(course, "tiny") == [("ann", "none", "no marks in the gradebook")]


def test_everybody_is_listed(course, monkeypatch):
    hand_in(course, notebook())
    (course / "submitted" / ".ipynb_checkpoints").mkdir()
    known = {"ann": (3.0, 3.0, False), "zoe": None}
    monkeypatch.setattr(handins, "marks_in_gradebook", lambda *folder: known)
    assert handins.table(course, "tiny") == [("ann", "3 of 3", ""), ("zoe", "none", "missing")]


def test_the_command(course, monkeypatch, capsys):
    hand_in(course, notebook())
    monkeypatch.setattr(handins, "marks_in_gradebook", lambda *folder: {"ann": (3.0, 3.0, False)})
    monkeypatch.setattr(sys, "argv", ["handins.py", str(course), "tiny"])
    assert not handins.main()
    assert capsys.readouterr().out == "student   marks  what happened\nann      3 of 3\n"
    monkeypatch.setattr(sys, "argv", ["handins.py", str(course), "huge"])
    assert handins.main() == 1
    assert "no source/huge" in capsys.readouterr().err
