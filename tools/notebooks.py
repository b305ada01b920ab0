"""Execute notebooks: `python tools/notebooks.py [00 01 ...]`. --check judges, --seeds runs claims over seeds.

Without an option, notebooks whose every image set was the real one are written back, outputs cleaned and
stamped, and their figures go to figures/. Any other run leaves its results in build/notebooks/.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

import links

ROOT = Path(__file__).resolve().parent.parent
SECONDS_LIMIT = 120
LANGUAGE_INFO = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
# Run in the kernel after the last cell: which image sets were loaded, and the peak memory of the process.
PROBE = """
import json as _json, sys as _sys
try:
    import resource as _resource
    _peak = _resource.getrusage(_resource.RUSAGE_SELF).ru_maxrss / 2**10
    _peak = _peak / 2**10 if _sys.platform == "darwin" else _peak
except ImportError:
    _peak = None
_loaded = _sys.modules["vaelab.data"].LOADED if "vaelab.data" in _sys.modules else []
print(_json.dumps({"peak": _peak, "sources": [[name, bool(real)] for name, _source, real in _loaded]}))
"""


def code_hash(nb):
    """Hash of the code cells, whatever repository the setup cell names."""
    sources = ["".join(cell["source"]) for cell in nb["cells"] if cell["cell_type"] == "code"]
    text = re.sub(r'(?m)^REPO = ".*?"', 'REPO = ""', "\n\0\n".join(sources))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def meaning(node):
    """A syntax tree as nested lists without positions and docstrings, the same in every Python version."""
    if isinstance(node, list):
        return [meaning(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: value for name, value in ast.iter_fields(node) if value not in (None, [])}
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
        fields["body"] = node.body[1:]
    return [type(node).__name__, {name: meaning(value) for name, value in fields.items() if name != "ctx"}]


def package_hash(folder=ROOT / "vaelab"):
    """Hash of what the package does: comments, docstrings and layout do not change it."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        tree = meaning(ast.parse(path.read_text(encoding="utf-8")))
        digest.update(f"{path.name}\0{json.dumps(tree)}\0".encode())
    for path in sorted(folder.glob("*.mplstyle")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def hashes(nb):
    """The two hashes that say whether outputs are stale."""
    return {"code": code_hash(nb), "package": package_hash()}


def clean(nb):
    """Remove what belongs to one machine or one run from an executed notebook."""
    nb.metadata = nbformat.from_dict({"kernelspec": KERNELSPEC, "language_info": LANGUAGE_INFO})
    for cell in nb.cells:
        for key in ("execution", "ExecuteTime", "collapsed", "scrolled", "colab", "id", "outputId"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            widget = "application/vnd.jupyter.widget-view+json"
            cell.outputs = [output for output in cell.outputs if widget not in output.get("data", {})]


@dataclass
class Run:
    """One execution of one notebook."""

    path: Path
    nb: dict
    seconds: float = 0.0
    peak: float | None = None
    sources: dict = field(default_factory=dict)
    error: str = ""
    figures: Path | None = None

    @property
    def stand_ins(self):
        """Names of the image sets that were not the real ones."""
        return [name for name, real in self.sources.items() if not real]


def kernel_environment(build, **switches):
    """This environment with the switches that a run must not inherit removed, and `switches` set."""
    dropped = ("VAELAB_SEED", "VAELAB_DATASET", "VAELAB_STRICT", "VAELAB_FIGURES", "MPLBACKEND")
    env = {name: value for name, value in os.environ.items() if name not in dropped}
    env |= {"IPYTHONDIR": str(ROOT / "build" / "ipython"), "VAELAB_FIGURES": str(build / "figures")}
    return env | switches


def execute(path, build, **switches):
    """Execute one notebook in a fresh kernel and return its Run; an error is recorded, not raised."""
    nb = nbformat.read(path, as_version=4)
    links.render_notebook(nb, path.relative_to(ROOT).as_posix(), links.current())
    run = Run(path, nb, figures=build / "figures")
    shutil.rmtree(run.figures, ignore_errors=True)
    run.figures.mkdir(parents=True)
    client = NotebookClient(
        nb,
        timeout=1800,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=40"],  # newer kernels warn about TCP each time they start
        resources={"metadata": {"path": str(path.parent)}},
    )
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    with client.setup_kernel(env=kernel_environment(build, **switches)):
        began = time.monotonic()
        try:
            for index, cell in enumerate(nb.cells):
                client.execute_cell(cell, index)
            run.seconds = time.monotonic() - began
            nb.cells.append(nbformat.v4.new_code_cell(PROBE))
            probe = json.loads(client.execute_cell(nb.cells[-1], len(nb.cells) - 1).outputs[0].text)
            nb.cells.pop()
            run.peak = probe["peak"]
            for name, real in probe["sources"]:
                run.sources[name] = run.sources.get(name, True) and real
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            run.seconds = time.monotonic() - began
            reason = f"{error.ename}: {error.evalue}" if isinstance(error, CellExecutionError) else str(error)
            run.error = f"cell {index}: {reason.strip()}"
    clean(nb)
    return run


def save(run, path):
    """Write an executed notebook, stamped with what it was made from."""
    sources = [{"name": name, "real": real} for name, real in sorted(run.sources.items())]
    run.nb.metadata["vaelab"] = hashes(run.nb) | {"sources": sources}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(run.nb, path)


def table(header, rows):
    """Print rows under a header in columns as wide as they need to be."""
    lines = [[str(item) for item in row] for row in [header, *rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        cells = [item.ljust(width) for item, width in zip(line, widths, strict=True)]
        print("  ".join(cells).rstrip(), flush=True)


def peak(run):
    """Peak memory for a table, blank where the system does not tell (Windows)."""
    return f"{run.peak:.0f}" if run.peak else ""


def write_back(paths, offline):
    """Execute and write back what came from the real images; return the number of failures."""
    rows, failures = [], 0
    for path in paths:
        print(f"running {path.name}", flush=True)
        build = ROOT / "build" / "notebooks" / path.stem
        run = execute(path, build, VAELAB_STRICT="1", **offline)
        if run.error or run.stand_ins:
            target = build / path.name
            failures += bool(run.error)
            why = run.error or f"stand-in for {', '.join(run.stand_ins)}, so not written back"
        else:
            target, why = path, "written"
            (ROOT / "figures").mkdir(exist_ok=True)
            for figure in run.figures.iterdir():
                shutil.copy(figure, ROOT / "figures" / figure.name)
        save(run, target)
        size = f"{target.stat().st_size / 1000:.0f}"
        rows.append((path.name, f"{run.seconds:.1f}", peak(run), size, target.relative_to(ROOT), why))
    table(("notebook", "seconds", "peak MB", "kB", "where", "result"), rows)
    return failures


def check(paths, offline):
    """Execute into build/ and print time and memory; return the number of failures."""
    rows, failures = [], 0
    for path in paths:
        print(f"running {path.name}", flush=True)
        build = ROOT / "build" / "check" / path.stem
        run = execute(path, build, VAELAB_STRICT="1", **offline)
        save(run, build / path.name)
        verdict, failed = "passed", True
        if run.error:
            verdict = f"FAILED: {run.error}"
        elif run.stand_ins and not offline:
            verdict = f"FAILED: no real images of {', '.join(run.stand_ins)}"
        elif run.seconds > 2 * SECONDS_LIMIT:
            verdict = f"FAILED: more than twice the {SECONDS_LIMIT} s it may take"
        else:
            failed = False
            if run.seconds > SECONDS_LIMIT:
                verdict = f"passed; notice: over its {SECONDS_LIMIT} s (a busy machine, or too slow)"
        failures += failed
        rows.append((path.name, f"{run.seconds:.1f}", peak(run), verdict))
    table(("notebook", "seconds", "peak MB", "result"), rows)
    return failures


def broken_claims(nb):
    """Lines of claims that did not hold, from an execution that was not strict."""
    texts = [text for cell in nb.cells for output in cell.get("outputs", []) for text in texts_of(output)]
    return [line.strip() for text in texts for line in text.splitlines() if "did not hold here" in line]


def texts_of(output):
    """The plain texts of one output."""
    return [text for text in (output.get("text"), output.get("data", {}).get("text/plain")) if text]


def over_seeds(paths, seeds, dataset, offline):
    """Execute with several seeds, not strict, and print every claim that failed; return their number."""
    failures, runs = [], []
    for path in paths:
        for seed in seeds:
            switches = {"VAELAB_STRICT": "0", "VAELAB_SEED": str(seed), **offline}
            if dataset:
                switches["VAELAB_DATASET"] = dataset
            run = execute(path, ROOT / "build" / "seeds" / path.stem, **switches)
            problems = broken_claims(run.nb) + ([run.error] if run.error else [])
            images = ", ".join(f"{name}{'' if real else ' (stand-in)'}" for name, real in run.sources.items())
            runs.append((path.name, seed, f"{run.seconds:.1f}", images, len(problems)))
            failures += [(path.name, seed, problem) for problem in problems]
            print(f"{path.name} seed {seed}: {len(problems)} failed, {run.seconds:.1f} s", flush=True)
    table(("notebook", "seed", "seconds", "images", "failed"), runs)
    if failures:
        print()
        table(("notebook", "seed", "what failed"), failures)
    print("every claim held" if not failures else f"{len(failures)} claims failed")
    return len(failures)


def status(paths):
    """Print which notebooks are stale; return their number."""
    rows = []
    for path in paths:
        nb = nbformat.read(path, as_version=4)
        found, now = nb.metadata.get("vaelab", {}), hashes(nb)
        changed = [name for name in now if found.get(name) != now[name]]
        rows.append((path.name, f"stale: {' and '.join(changed)} changed" if changed else "fresh"))
    table(("notebook", "outputs"), rows)
    return sum(row[1] != "fresh" for row in rows)


def seed_range(text):
    """Seeds from "0-4" or "0,3,7"."""
    parts = [part.partition("-") for part in text.split(",")]
    return [seed for low, _, high in parts for seed in range(int(low), int(high or low) + 1)]


def selected(names, folder=ROOT / "notebooks"):
    """The notebooks whose file names start with one of `names` (all without names)."""
    found = sorted(folder.glob("*.ipynb"))
    for name in names:
        if not any(path.name.startswith(name) for path in found):
            known = ", ".join(path.stem for path in found)
            raise SystemExit(f"no notebook starts with {name!r}; there are: {known}")
    return [path for path in found if not names or path.name.startswith(tuple(names))]


def main():
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NN", help="start of a notebook's name (default: all)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="execute into build/check/, judge time and claims")
    what.add_argument("--seeds", type=seed_range, help='run the claims over seeds, for example "0-4"')
    what.add_argument("--status", action="store_true", help="say which notebooks are stale")
    parser.add_argument("--dataset", help="VAELAB_DATASET for --seeds")
    parser.add_argument("--offline", action="store_true", help="embedded images: no network, no data folder")
    args = parser.parse_args()
    if args.dataset and args.seeds is None:
        parser.error("--dataset goes with --seeds")
    paths = selected([name for names in args.names for name in names.split()])
    if not paths:
        print("no notebooks yet")
        return 0
    offline = {}
    if args.offline:
        empty = ROOT / "build" / "no-data"
        empty.mkdir(parents=True, exist_ok=True)
        offline = {"VAELAB_OFFLINE": "1", "VAELAB_DATA": str(empty)}
    if args.status:
        failures = status(paths)
    elif args.check:
        failures = check(paths, offline)
    elif args.seeds is not None:
        failures = over_seeds(paths, args.seeds, args.dataset, offline)
    else:
        failures = write_back(paths, offline)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
