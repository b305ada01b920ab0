"""Run notebooks on several Pythons and library versions: `python tools/matrix.py [NN ...] [--only ROW ...]`.

Each row has its own environment under build/matrix/ROW, with libraries from the registry. The notebooks run
there strict, offline, on the embedded images, one thread each and two at a time. The table is printed and
written to build/matrix/table.md after every row. What cannot be installed here is a row that says why.
Only the standard library is needed to start it: the notebooks are executed by each environment's own Python.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "matrix"
FOLDERS = ("notebooks", "coursework/source")
PYTHONS = ("3.11", "3.12", "3.13")
TIMEOUT = 900
# About what Colab has (no JupyterLab). Update it from `!pip list` in a new Colab session.
COLAB_PYTHON = "3.13"
COLAB = {
    "torch": "2.11.*",
    "torchvision": "0.26.*",
    "numpy": "2.1.*",
    "scikit-learn": "1.6.*",
    "scipy": "1.16.*",
    "matplotlib": "3.10.*",
    "ipywidgets": "7.7.*",
    "ipython": "7.34.*",
    "ipykernel": "6.17.*",
}
COLUMNS = {
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "sklearn": "scikit-learn",
    "matplotlib": "matplotlib",
    "IPython": "ipython",
    "ipywidgets": "ipywidgets",
}
# Run in a new environment: its versions, and an import of what the notebooks import (fonts are cached here).
PROBE = """
import importlib.metadata, json, platform, sys
import matplotlib.pyplot, sklearn, torch, torchvision, vaelab
found = {"python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found[name] = "none"
print(json.dumps(found))
"""


@dataclass
class Row:
    """One environment: a Python, what pip is asked for, and the exact versions it is held to."""

    name: str
    python: str
    wanted: list
    pins: dict = field(default_factory=dict)

    def constraints(self):
        """The pins as lines of a constraints file."""
        return [f"{name}=={version}" for name, version in self.pins.items()]


@dataclass
class Result:
    """What became of one row. `notes` says what failed, or why there was nothing to run."""

    row: Row
    versions: dict = field(default_factory=dict)
    passed: int = 0
    total: int = 0
    seconds: float = 0.0
    notes: list = field(default_factory=list)


def floors(requirements):
    """{name: floor} of requirements written as name>=floor."""
    return dict(re.fullmatch(r"([\w-]+)>=([\d.]+)", requirement).groups() for requirement in requirements)


def plan(root=ROOT):
    """Every row of the matrix, from the floors in pyproject.toml."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    client = [requirement for requirement in extras["test"] if requirement.startswith("nbclient>=")]
    rows = [Row(f"py{python}", python, ["-e", ".[lab]", *client]) for python in PYTHONS]
    oldest = floors(project["dependencies"] + extras["lab"] + client)
    lowest_python = project["requires-python"].removeprefix(">=")
    rows.append(Row("oldest", lowest_python, ["-e", ".[lab]", *client], oldest))
    rows.append(Row("colab", COLAB_PYTHON, ["-e", ".", "ipykernel", "ipywidgets", *client], COLAB))
    return rows


def chosen(names, rows):
    """The rows of these names in the plan's order (without names all); SystemExit on another name."""
    known = [row.name for row in rows]
    for name in names or ():
        if name not in known:
            raise SystemExit(f"there is no row {name!r}; there are: {', '.join(known)}")
    return [row for row in rows if not names or row.name in names]


def version_of(python):
    """(major, minor) of a Python that can really be started, else None (a pyenv shim may be empty)."""
    code = "import sys; print(*sys.version_info[:2])"
    try:
        done = subprocess.run([*python, "-c", code], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.split() if done.returncode == 0 else None


def find_python(version):
    """The command of a Python of this minor version (PATH, pyenv, this one, Windows' launcher), or None."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    installed = [path for path in pyenv.glob(f"{version}.*") if re.fullmatch(r"[\d.]+", path.name)]
    installed.sort(key=lambda path: [int(part) for part in path.name.split(".")], reverse=True)
    candidates = [[f"python{version}"], *([str(path / "bin" / "python")] for path in installed)]
    for python in [*candidates, [sys.executable], ["py", f"-{version}"]]:
        if version_of(python) == version.split("."):
            return python
    return None


def interpreter(folder):
    """The Python of a virtual environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def reason(log):
    """The last error of pip's output, else its last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["no output"])[-1]


def logged(command, log):
    """Run a command with its output appended to a file; whether it succeeded."""
    with open(log, "a", encoding="utf-8") as out:
        print("$", *command, file=out, flush=True)
        return subprocess.call([str(part) for part in command], cwd=ROOT, stdout=out, stderr=out) == 0


def install(row, folder, keep):
    """Make the row's environment in `folder`; return what went wrong, or an empty string.

    With `keep` an environment that was made to the very same plan is used as it is.
    """
    stamp, log = folder / "installed.json", folder / "install.log"
    asked = json.dumps({"python": row.python, "wanted": row.wanted, "pins": row.pins})
    if keep and stamp.exists() and stamp.read_text(encoding="utf-8") == asked:
        print("  environment kept from an earlier run", flush=True)
        return ""
    shutil.rmtree(folder, ignore_errors=True)
    python = find_python(row.python)
    if python is None:
        return f"Python {row.python} was not found (python{row.python} on PATH, or in pyenv): nothing was run"
    folder.mkdir(parents=True)
    (folder / "constraints.txt").write_text("\n".join([*row.constraints(), ""]), encoding="utf-8")
    print(f"  installing, which takes minutes; pip's output goes to {log.relative_to(ROOT)}", flush=True)
    if not logged([*python, "-m", "venv", folder / "venv"], log):
        return f"no virtual environment could be made: {reason(log.read_text(encoding='utf-8'))}"
    venv = interpreter(folder / "venv")
    pip = [venv, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
    if not logged([*pip, "-c", folder / "constraints.txt", *row.wanted], log):
        return f"could not be installed here: {reason(log.read_text(encoding='utf-8', errors='replace'))}"
    stamp.write_text(asked, encoding="utf-8")
    return ""


def environment():
    """This environment without the reader's switches: offline, an empty data folder, one thread, the CPU."""
    empty = BUILD / "no-data"
    empty.mkdir(parents=True, exist_ok=True)
    dropped = ("VAELAB_", "MPLBACKEND", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    env = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    env |= {"VAELAB_OFFLINE": "1", "VAELAB_DATA": str(empty), "VAELAB_DEVICE": "cpu"}
    return env | {"OMP_NUM_THREADS": "1", "PYTHONNOUSERSITE": "1"}


def versions(python):
    """({name: version} of an environment, "") or ({}, why its libraries cannot be imported)."""
    command = [str(python), "-c", PROBE, *COLUMNS.values()]
    done = subprocess.run(command, capture_output=True, text=True, cwd=BUILD, env=environment())
    if done.returncode:
        return {}, f"installed, but does not import: {reason(done.stderr)}"
    return json.loads(done.stdout), ""


def work(notebook, folder):
    """In a row's own Python: execute one notebook and print a line of JSON about it."""
    import notebooks

    build = Path(folder) / "notebooks" / Path(notebook).stem
    switches = {"VAELAB_STRICT": "1", "IPYTHONDIR": str(Path(folder) / "ipython")}
    run = notebooks.execute(Path(notebook), build, **switches)
    notebooks.save(run, build / Path(notebook).name)
    told = [output.text for cell in run.nb.cells for output in cell.get("outputs", []) if output.get("name")
            == "stderr"]  # fmt: skip
    print(json.dumps({"error": run.error, "stderr": "".join(told), "seconds": run.seconds}))


def execute(python, folder, notebook, limit=TIMEOUT):
    """Execute one notebook with a row's Python; return {"error", "stderr"} about it."""
    command = [str(part) for part in (python, Path(__file__), "--work", notebook, folder)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(), text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {limit} s", "stderr": ""}
    finally:
        end(process)
    if process.returncode:
        return {"error": f"could not be executed: {reason(err)}", "stderr": ""}
    return json.loads(out.splitlines()[-1])


def end(process):
    """End a worker and its kernel, if they are still there."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
        process.communicate()


def find_notebooks(names=(), root=ROOT):
    """Notebooks that run from top to bottom and start with one of `names` (without names all of them)."""
    found = [path for folder in FOLDERS for path in (root / folder).rglob("*.ipynb")]
    found = sorted(path.relative_to(root) for path in found if ".ipynb_checkpoints" not in path.parts)
    for name in names:
        if not any(path.name.startswith(name) for path in found):
            known = ", ".join(path.stem for path in found)
            raise SystemExit(f"no notebook starts with {name!r}; there are: {known}")
    return [path for path in found if not names or path.name.startswith(tuple(names))]


def run(row, paths, keep):
    """Install one row's environment and execute the notebooks in it."""
    print(f"{row.name}: Python {row.python}", flush=True)
    folder, result = BUILD / row.name, Result(row, total=len(paths))
    python = interpreter(folder / "venv")
    problem = install(row, folder, keep)
    if not problem:
        result.versions, problem = versions(python)
    if problem:
        result.notes.append(problem)
        print(f"  {problem}", flush=True)
        return result
    with open(folder / "freeze.txt", "w", encoding="utf-8") as out:
        subprocess.call([python, "-m", "pip", "freeze", "--disable-pip-version-check"], stdout=out)
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        done = pool.map(lambda path: execute(python, folder, ROOT / path), paths)
        for path, found in zip(paths, done, strict=True):
            report(result, path.stem, found)
    result.seconds = time.monotonic() - began
    if not keep:
        shutil.rmtree(folder / "venv", ignore_errors=True)
        (folder / "installed.json").unlink()
    return result


def report(result, name, found):
    """Add what was found about one notebook to its row, and print it."""
    shown = " ".join(re.sub(r"\x1b\[[\d;]*m", "", found["error"]).split())
    print(f"  {'FAILED' if shown else 'passed'}  {name}  {shown}".rstrip(), flush=True)
    result.passed += not shown
    if shown:
        result.notes.append(f"{name}: {shown}")
    if found["stderr"].strip():
        line = re.sub(r"^\S*[/\\](?=\w+\.py:\d)", "", found["stderr"].strip().splitlines()[0].strip())
        result.notes.append(f"{name} writes to stderr: {line}")


def table(results):
    """The results as a markdown table, with a sentence that says what was run where."""
    header = ["row", "Python", *COLUMNS, "notebooks", "seconds", "notes"]
    lines = [header, ["---"] * len(header)]
    for result in results:
        found = [result.versions.get(name, "") for name in COLUMNS.values()]
        count = f"{result.passed} of {result.total} passed" if result.versions else "none run"
        seconds = f"{result.seconds:.0f}" if result.versions else ""
        python = result.versions.get("python", result.row.python)
        lines.append([result.row.name, python, *found, count, seconds, "; ".join(map(short, result.notes))])
    rows = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
    where = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return f"{rows}\n\nEmbedded images, strict, offline, one thread, two notebooks at a time, on {where}.\n"


def short(note, most=240):
    """A note that fits a table."""
    return note if len(note) <= most else f"{note[: most - 1]}…"


def failed(results):
    """Whether a notebook failed, or no row could run at all."""
    ran = [result for result in results if result.versions]
    return not ran or any(result.passed < result.total for result in ran)


def main():
    """Run the chosen rows, one after another, and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    rows = plan()
    parser.add_argument("names", nargs="*", metavar="NN", help="start of a notebook's name (default: all)")
    parser.add_argument("--only", nargs="+", metavar="ROW", help=", ".join(row.name for row in rows))
    parser.add_argument("--keep", action="store_true", help="keep environments, and use those kept before")
    parser.add_argument("--list", action="store_true", help="print the rows and run nothing")
    parser.add_argument("--work", nargs=2, metavar=("NOTEBOOK", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        return work(*args.work)
    rows, results = chosen(args.only, rows), []
    if args.list:
        for row in rows:
            print(f"{row.name}: Python {row.python}, {' '.join([*row.wanted, *row.constraints()])}")
        return 0
    paths = find_notebooks(args.names)
    BUILD.mkdir(parents=True, exist_ok=True)
    for row in rows:
        results.append(run(row, paths, args.keep))
        (BUILD / "table.md").write_text(table(results), encoding="utf-8")
    print(f"\n{table(results)}")
    return 1 if failed(results) else 0


if __name__ == "__main__":
    sys.exit(main())
