"""Run the tests, part by part: `python tools/check.py`, and the slower tiers too with `--all`."""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK_FOLDERS = ("notebooks", "coursework/source")
PYTEST = [sys.executable, "-m", "pytest", "-q"]


def clean_environment(root=ROOT):
    """This environment without the reader's switches: strict, offline, an empty data folder, one thread."""
    empty = root / "build" / "no-data"
    shutil.rmtree(empty, ignore_errors=True)
    empty.mkdir(parents=True)
    dropped = ("VAELAB_", "MPLBACKEND", "PYTEST_ADDOPTS")
    env = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    env |= {"VAELAB_STRICT": "1", "VAELAB_OFFLINE": "1", "VAELAB_DATA": str(empty), "OMP_NUM_THREADS": "1"}
    return env | {"IPYTHONDIR": str(root / "build" / "ipython")}


def parts(everything, root=ROOT):
    """Name and command of each part, in order."""
    yield "ruff", [sys.executable, "-m", "ruff", "check", "."]
    yield "unit and structure tests", [*PYTEST, "-n", "2", "-m", "not slow and not browser"]
    folders = [name for name in NOTEBOOK_FOLDERS if any((root / name).rglob("*.ipynb"))]
    if folders:
        nbval = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=300", "-p", "no:python"]
        yield "notebooks (nbval)", [*PYTEST, *nbval, "-n", "2", "--dist", "loadscope", *folders]
    else:
        print("no notebooks yet: nothing for nbval to run", flush=True)
    if everything:
        yield "slow tests", [*PYTEST, "-n", "2", "-m", "slow"]
        yield "browser tests", [*PYTEST, "-m", "browser"]


def main():
    """Run every part even after one has failed, and end with one line that says how it went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="the slow tests and the browser tests as well")
    everything = parser.parse_args().all
    start, env, results = time.monotonic(), clean_environment(), []
    for name, command in parts(everything):
        print(f"\n---- {name}", flush=True)
        began = time.monotonic()
        failed = subprocess.call(command, cwd=ROOT, env=env) != 0
        results.append((name, failed, time.monotonic() - began))
    print()
    for name, failed, seconds in results:
        print(f"{'FAILED' if failed else 'passed'}  {name}  ({seconds:.0f} s)")
    failures = sum(failed for _, failed, _ in results)
    verdict = f"{failures} failed, " if failures else ""
    print(f"==== {verdict}{len(results) - failures} parts passed in {time.monotonic() - start:.0f}s ====")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
