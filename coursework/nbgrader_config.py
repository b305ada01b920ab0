"""What nbgrader needs to know about this course. See README.md beside this file."""

import os
import sys

from nbgrader.preprocessors import DeduplicateIds, Execute, GetGrades

c = get_config()  # noqa: F821

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from grading import DropCopies, GuardedExecute, HideTests  # noqa: E402
from nbgrader.converters import Autograde, GenerateFeedback  # noqa: E402


def steps(converter, name, *changes):
    """nbgrader's own list of steps, where each (old, *new) replaces one."""
    found = []
    for step in converter.class_traits()[name].default():
        new = [new for old, *new in changes if old is step]
        found += new[0] if new else [step]
    return found


c.CourseDirectory.course_id = "vaelab"
c.Execute.timeout = 300  # seconds for one cell; nbgrader's own default is 30
c.Autograde.sanitize_preprocessors = steps(
    Autograde, "sanitize_preprocessors", (DeduplicateIds, DeduplicateIds, DropCopies)
)
c.Autograde.autograde_preprocessors = steps(
    Autograde, "autograde_preprocessors", (Execute, GuardedExecute)
)
c.GenerateFeedback.preprocessors = steps(
    GenerateFeedback, "preprocessors", (GetGrades, GetGrades, HideTests)
)

# Notebooks that are graded inherit these. One thread each: the networks are small, and torch would
# otherwise take a thread for every core of the machine, for every notebook.
os.environ.setdefault("OMP_NUM_THREADS", "1")
