"""What nbgrader needs to know about this course. See README.md beside this file."""

import os

c = get_config()  # noqa: F821

c.CourseDirectory.course_id = "vaelab"
c.Execute.timeout = 300  # seconds for one cell; nbgrader's own default is 30

# Notebooks that are graded inherit these. One thread each: the networks are small, and torch would
# otherwise take a thread for every core of the machine, for every notebook.
os.environ.setdefault("OMP_NUM_THREADS", "1")
