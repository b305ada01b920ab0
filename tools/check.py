"""Run the tests, part by part: `python tools/check.py`, and the slower ones too with `--all`."""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUFF = [sys.executable, "-m", "ruff"]
PYTEST = [sys.executable, "-m", "pytest", "-q"]
TWO = ["-n", "2"]
NBVAL = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300", "-p", "no:python"]
NBVAL += [*TWO, "--dist", "loadscope"]


def clean_environment(root=ROOT):
    """This environment without the reader's switches: strict, offline, no data, one thread."""
    for folder in ("no-data", "ipython"):  # IPython warns about a folder that is not there
        (root / "build" / folder).mkdir(parents=True, exist_ok=True)
    dropped = ("VAELAB_", "MPLBACKEND", "PYTEST_ADDOPTS")
    env = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    env |= {"VAELAB_STRICT": "1", "VAELAB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    env |= {"VAELAB_DATA": str(root / "build" / "no-data")}
    return env | {"IPYTHONDIR": str(root / "build" / "ipython")}


def parts(everything, root=ROOT):
    """Name and command of each part, in order."""
    yield "ruff format", [*RUFF, "format", "--check", "--quiet", "."]
    yield "ruff check", [*RUFF, "check", "."]
    yield "unit and structure tests", [*PYTEST, *TWO, "-m", "not slow and not site and not browser"]
    first = sorted(str(path) for path in (root / "notebooks").glob("*.ipynb"))
    yield "notebooks", [*PYTEST, *NBVAL, *first, "coursework/source"]
    if not everything:
        return
    if (root / "notebooks" / "deeper").exists():
        yield "companions", [*PYTEST, *NBVAL, "notebooks/deeper"]
    yield "slow tests", [*PYTEST, *TWO, "-m", "slow"]
    yield "web site", [*PYTEST, "-m", "site"]
    yield "browser tests", [*PYTEST, "-m", "browser"]


def main():
    """Run every part even after one has failed, and end with one line that says how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--all", action="store_true", help="companions, slow tests, site and browser too"
    )
    everything = parser.parse_args().all
    start, env, results = time.monotonic(), clean_environment(), []
    for name, command in parts(everything):
        print(f"\n---- {name}", flush=True)
        began = time.monotonic()
        passed = subprocess.call(command, cwd=ROOT, env=env) == 0
        results.append(passed)
        verdict = "passed" if passed else "FAILED"
        print(f"{verdict}  {name}  ({time.monotonic() - began:.0f} s)", flush=True)
    failures = results.count(False)
    failed = f"{failures} failed, " if failures else ""
    seconds = time.monotonic() - start
    print(f"\n==== {failed}{results.count(True)} parts passed in {seconds:.0f}s ====")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
