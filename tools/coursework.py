"""Make the students' versions of the assignments: `python tools/coursework.py [--check]`.

coursework/source holds the assignments with solutions and all tests. coursework/release is
generated from it, with nbgrader's own steps but without its gradebook, so the same source always
gives the same file.
"""

import argparse
import logging
import sys
from pathlib import Path

import nbformat

import atomic

ROOT = Path(__file__).resolve().parent.parent
COURSE = ROOT / "coursework"
STEPS = (
    "LockCells", "ClearSolutions", "ClearOutput", "CheckCellMetadata", "ComputeChecksums",
    "ClearHiddenTests", "ClearMarkScheme", "ComputeChecksums", "CheckCellMetadata",
)  # fmt: skip


def assignments(course=COURSE):
    """The names of all assignments, in order."""
    found = (course / "source").glob("*/*.ipynb")
    return sorted(path.stem for path in found if path.stem == path.parent.name)


def notebook_path(kind, name, course=COURSE):
    """The notebook of an assignment; kind is "source" or "release"."""
    return course / kind / name / f"{name}.ipynb"


def student_version(nb):
    """A copy of an assignment as a student gets it: no solutions, no hidden tests, no outputs."""
    from nbgrader import preprocessors

    log = logging.getLogger("coursework")
    log.setLevel(logging.ERROR)
    nb, resources = nbformat.from_dict(nb), {}
    for step in STEPS:
        nb, resources = getattr(preprocessors, step)(log=log).preprocess(nb, resources)
    return nb


def rendered(name, course=COURSE):
    """The text of the student version that the source asks for."""
    source = notebook_path("source", name, course)
    return nbformat.writes(student_version(nbformat.read(source, as_version=4))) + "\n"


def out_of_step(course=COURSE):
    """The names of student versions that are not what the source asks for, or have no source."""
    names = assignments(course)
    for name in names:
        path = notebook_path("release", name, course)
        if not path.exists() or path.read_text(encoding="utf-8") != rendered(name, course):
            yield name
    yield from sorted(
        path.stem for path in (course / "release").glob("*/*.ipynb") if path.stem not in names
    )


def main():
    """Write every student version, or with --check say which are out of step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing, fail if one is out of step"
    )
    if parser.parse_args().check:
        stale = list(out_of_step())
        print(f"out of step: {', '.join(stale)}" if stale else "all student versions are in step")
        return 1 if stale else 0
    for name in assignments():
        path = notebook_path("release", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, rendered(name))
        print(f"wrote {path.relative_to(ROOT).as_posix()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
