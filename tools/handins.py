"""Every student's hand-in, for the teacher: `python tools/handins.py COURSE_FOLDER ASSIGNMENT`.

One line for each student who has a folder under submitted/ or is in the gradebook: the marks, and
what went wrong on the way. Marks are shown only where the tests have run on the student's work, so
that a file that was lost, renamed or damaged never looks like a 0.
"""

import argparse
import sys
import warnings
from pathlib import Path

import nbformat

NONE = "none"
REPLACED, TIME = "ReplacedByTheHandIn", "CellTimeoutError"


def students(course, known=()):
    """The names of all who handed something in, and of all whom the gradebook knows."""
    handed_in = [path.name for path in (course / "submitted").glob("*") if path.is_dir()]
    return sorted(name for name in {*handed_in, *known} if not name.startswith("."))


def marks_in_gradebook(course, assignment):
    """Student -> (marks, most, whether some are to be given by hand); None without a hand-in."""
    from nbgrader.api import Gradebook

    path = course / "gradebook.db"
    if not path.exists():
        return {}
    with Gradebook(f"sqlite:///{path}", "vaelab") as book:
        found = dict.fromkeys(student.id for student in book.students)
        if assignment not in {one.name for one in book.assignments}:
            return found
        for one in book.assignment_submissions(assignment):
            found[one.student.id] = (one.score, one.max_score, one.needs_manual_grade)
    return found


def read(path):
    """A notebook, or None if the file is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nb = nbformat.read(path, as_version=4)
        return nb if isinstance(nb.cells, list) else None
    except Exception:  # whatever the file holds
        return None


def grade_ids(nb):
    """The nbgrader names of a notebook's cells, in order."""
    found = (cell.metadata.get("nbgrader", {}).get("grade_id") for cell in nb.cells)
    return [name for name in found if name]


def cell_problems(nb, source):
    """What is wrong with the cells of a notebook that can be read, and whether it cannot count."""
    mine, expected = grade_ids(nb), grade_ids(source)
    if not set(mine) & set(expected):
        return ["stripped: no cell has its nbgrader metadata, so no test was found"], True
    lost = [name for name in expected if name not in mine]
    copied = sorted({name for name in mine if mine.count(name) > 1})
    found = [f"stripped: cells without their nbgrader metadata: {', '.join(lost)}"] if lost else []
    if copied:
        found.append(f"copied cells (repaired, the last one counts): {', '.join(copied)}")
    return found, bool(lost)


def file_problem(folder, name):
    """Why there is no notebook to grade, or "" if there is one."""
    files = sorted(path.name for path in folder.glob("*") if path.is_file())
    if f"{name}.ipynb" not in files:
        others = [file for file in files if file.endswith(".ipynb")]
        if others:
            return f"renamed: found {', '.join(others)}, expected {name}.ipynb"
        return f"missing: no notebook, only {', '.join(files)}" if files else "missing"
    if read(folder / f"{name}.ipynb") is None:
        return f"cannot be read: {name}.ipynb is no notebook"
    return ""


def is_untouched(nb, source):
    """Whether no answer was written: all of them are as they were handed out."""
    answers = [cell for cell in nb.cells if cell.metadata.get("nbgrader", {}).get("solution")]
    code = [cell.source for cell in answers if cell.cell_type == "code"]
    text = [cell.source.strip() for cell in answers if cell.cell_type == "markdown"]
    return all("raise NotImplementedError()" in source for source in code) and all(
        source == "YOUR ANSWER HERE" for source in text
    )


def refused(nb, error):
    """The test cells of a graded notebook that ended with this error."""
    return [
        cell.metadata.nbgrader.grade_id
        for cell in nb.cells
        if "nbgrader" in cell.metadata
        and any(output.get("ename") == error for output in cell.get("outputs", []))
    ]


def grading_problems(course, student, assignment, name):
    """What happened while this hand-in was graded, and whether it cannot count."""
    graded = course / "autograded"
    nb = read(graded / student / assignment / f"{name}.ipynb")
    if nb is None:
        if not list(graded.glob(f"*/{assignment}/*.ipynb")):
            return ["not graded yet: run nbgrader autograde"], True
        return ["autograde failed: see its messages, a cell may have ended the kernel"], True
    found = []
    if refused(nb, REPLACED):
        found.append(f"tests refused, functions replaced: {', '.join(refused(nb, REPLACED))}")
    if refused(nb, TIME):
        found.append(f"ran out of time: {', '.join(refused(nb, TIME))}")
    return found, False


def row(course, student, assignment, marks):
    """The line of one student: name, marks, and what went wrong."""
    folder = course / "submitted" / student / assignment
    (path,) = (course / "source" / assignment).glob("*.ipynb")
    problem = file_problem(folder, path.stem)
    if problem:
        return student, NONE, problem
    nb, source = read(folder / path.name), read(path)
    problems, lost = cell_problems(nb, source)
    more, failed = grading_problems(course, student, assignment, path.stem)
    if marks is None and not failed:
        more.append("no marks in the gradebook")
    if lost or failed or marks is None:
        return student, NONE, "; ".join(problems + more)
    score, most, by_hand = marks
    if score == 0 and is_untouched(nb, source):
        problems.append("nothing was answered")
    if by_hand:
        more.append("written answer to be marked")
    return student, f"{score:g} of {most:g}", "; ".join(problems + more)


def table(course, assignment):
    """The rows of all students."""
    marks = marks_in_gradebook(course, assignment)
    names = students(course, marks)
    return [row(course, student, assignment, marks.get(student)) for student in names]


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("course", type=Path, help="the folder with source/ and submitted/")
    parser.add_argument("assignment", help="for example 1_loss_scale")
    arguments = parser.parse_args()
    if not list((arguments.course / "source" / arguments.assignment).glob("*.ipynb")):
        print(f"no source/{arguments.assignment} in {arguments.course}", file=sys.stderr)
        return 1
    rows = [("student", "marks", "what happened"), *table(arguments.course, arguments.assignment)]
    first, second = (max(len(line[column]) for line in rows) for column in (0, 1))
    for student, marks, text in rows:
        print(f"{student:{first}}  {marks:>{second}}  {text}".rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
