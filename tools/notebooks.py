"""Execute notebooks: `python tools/notebooks.py [01 02 ... | PATH ...]`.

`01` means notebook 01 and its companion in deeper/. A notebook whose every image set was the real
one is written back, cleaned and stamped, and its figures go to figures/. Any other result stays in
build/, as those of --check (two at a time) and --seeds always do.
"""

import argparse
import ast
import asyncio
import hashlib
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

import atomic

ROOT = Path(__file__).resolve().parent.parent
SECONDS = {"fifteen-minute": 60, "companion": 120}  # on real images, alone on 2 cores
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"file_extension": ".py", "name": "python", "pygments_lexer": "ipython3"}
# The embedded images: no network, and a data folder that does not exist.
OFFLINE = {"VAELAB_OFFLINE": "1", "VAELAB_DATA": str(ROOT / "build" / "no-data")}
WIDGET = "application/vnd.jupyter.widget-view+json"
SWITCHES = ("VAELAB_SEED", "VAELAB_DATASET", "VAELAB_STRICT", "VAELAB_FIGURES", "MPLBACKEND")
# Run in the kernel after the last cell: the peak memory, and the image sets that were loaded.
PROBE = """
import json as _json, sys as _sys
try:
    import resource as _resource
    _peak = _resource.getrusage(_resource.RUSAGE_SELF).ru_maxrss / 2**10
    _peak = _peak / 2**10 if _sys.platform == "darwin" else _peak
except ImportError:
    _peak = 0
_loaded = _sys.modules["vaelab.data"].LOADED if "vaelab.data" in _sys.modules else []
print(_json.dumps([_peak, [[name, bool(real)] for name, _source, real in _loaded]]))
"""


def kind(path):
    """What a notebook is: "companion" or "fifteen-minute"."""
    return "companion" if path.parent.name == "deeper" else "fifteen-minute"


def is_setup(cell):
    """Whether this is the setup cell."""
    return "setup" in cell["metadata"].get("tags", [])


def code_hash(nb):
    """Hash of the code cells. The setup cell does not count: it follows tools/links.py."""
    cells = [cell for cell in nb["cells"] if cell["cell_type"] == "code" and not is_setup(cell)]
    text = "\n\0\n".join(cell["source"] for cell in cells)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def meaning(node):
    """A syntax tree as nested lists, without positions and docstrings, alike in every Python."""
    if isinstance(node, list):
        return [meaning(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {name: value for name, value in ast.iter_fields(node) if value not in (None, [])}
    documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
    if documented and ast.get_docstring(node) is not None:
        fields["body"] = node.body[1:]
    kept = {name: meaning(value) for name, value in fields.items() if name != "ctx"}
    return [type(node).__name__, kept]


def core_hash(folder=ROOT / "vaelab"):
    """Hash of what the core does. Comments, docstrings, layout and clinic/ do not change it.

    Neither does the list of public names: what a name stands for is hashed where it is written.
    """
    digest = hashlib.sha256()
    for path in sorted(set(folder.glob("*.py")) - {folder / "__init__.py"}):
        tree = meaning(ast.parse(path.read_text(encoding="utf-8")))
        digest.update(f"{path.name}\0{json.dumps(tree)}\0".encode())
    for path in sorted(folder.glob("*.mplstyle")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def hashes(nb):
    """The two hashes that say whether outputs are stale."""
    return {"code": code_hash(nb), "core": core_hash()}


def clean(nb):
    """Remove what belongs to one machine or one run from an executed notebook."""
    nb.metadata = nbformat.from_dict({"kernelspec": KERNELSPEC, "language_info": LANGUAGE})
    for cell in nb.cells:
        for key in ("execution", "ExecuteTime", "collapsed", "scrolled", "colab", "id", "outputId"):
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = [
                output for output in cell.outputs if WIDGET not in output.get("data", {})
            ]


@dataclass
class Run:
    """One execution of one notebook: the file as it was read, with its hashes, and what it gave."""

    path: Path
    build: Path
    before: str
    nb: dict
    stamp: dict
    seconds: float = 0.0
    peak: float = 0.0
    sources: dict = field(default_factory=dict)
    error: str = ""

    @property
    def stand_ins(self):
        """Names of the image sets that were not the real ones, as one text."""
        return ", ".join(name for name, real in self.sources.items() if not real)

    def text(self):
        """The executed notebook, stamped with what it was made from."""
        sources = [{"name": name, "real": real} for name, real in sorted(self.sources.items())]
        self.nb.metadata["vaelab"] = self.stamp | {"sources": sources}
        return nbformat.writes(self.nb) + "\n"


def environment(build, switches):
    """This environment without what a run must not inherit, with a figure folder and `switches`."""
    env = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    env |= {"IPYTHONDIR": str(ROOT / "build" / "ipython"), "VAELAB_FIGURES": str(build / "figures")}
    return env | switches


async def execute(path, where, **switches):
    """Execute a notebook in a kernel of its own; an error is recorded in the Run, not raised."""
    before = path.read_text(encoding="utf-8")
    build = ROOT / "build" / where / path.stem
    nb = nbformat.reads(before, as_version=4)
    run = Run(path, build, before, nb, hashes(nb))
    shutil.rmtree(build, ignore_errors=True)
    (build / "figures").mkdir(parents=True)
    client = NotebookClient(
        nb,
        timeout=1800,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=40"],  # newer kernels warn about TCP
        resources={"metadata": {"path": str(path.parent)}},
    )
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    async with client.async_setup_kernel(env=environment(build, switches)):
        await execute_cells(run, client)
    clean(nb)
    atomic.write(build / path.name, run.text())
    return run


async def execute_cells(run, client):
    """Execute all cells and the probe; what they took and what was found goes into the Run."""
    cells, began = run.nb.cells, time.monotonic()
    try:
        for index, cell in enumerate(cells):
            await client.async_execute_cell(cell, index)
        run.seconds = time.monotonic() - began
        cells.append(nbformat.v4.new_code_cell(PROBE))
        await client.async_execute_cell(cells[-1], len(cells) - 1)
        run.peak, sources = json.loads(cells.pop().outputs[0].text)
        for name, real in sources:
            run.sources[name] = run.sources.get(name, True) and real
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        run.seconds = time.monotonic() - began
        known = isinstance(error, CellExecutionError)
        reason = f"{error.ename}: {error.evalue}" if known else str(error)
        run.error = f"cell {index}: {reason.strip()}"


def table(header, rows):
    """Print rows under a header in columns as wide as they need to be."""
    lines = [[str(item) for item in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [item.ljust(width) for item, width in zip(line, widths, strict=True)]
        print("  ".join(cells).rstrip(), flush=True)


def execute_all(paths, where, judge, at_a_time, switches):
    """Execute notebooks, judge each one when it is done, and print a table; return the failures."""

    async def one(path, free):
        async with free:
            run = await execute(path, where, **switches)
        result = judge(run)
        print(f"{path.name}: {result}", flush=True)
        return path.name, f"{run.seconds:.1f}", f"{run.peak:.0f}", result

    async def every():
        free = asyncio.Semaphore(at_a_time)
        return await asyncio.gather(*[one(path, free) for path in paths])

    rows = asyncio.run(every())
    table(("notebook", "seconds", "peak MB", "result"), rows)
    return sum(result.startswith("FAILED") for *_, result in rows)


def write_back(paths, offline):
    """Execute one by one and write back what came from the real images; return the failures."""
    return execute_all(paths, "notebooks", kept, 1, {"VAELAB_STRICT": "1", **offline})


def kept(run):
    """Put a result where it belongs, and say where that is."""
    there = f"see {run.build.relative_to(ROOT).as_posix()}"
    if run.error:
        return f"FAILED: {run.error}, {there}"
    if run.stand_ins:
        return f"stand-in for {run.stand_ins}, so not written back: {there}"
    if not atomic.write(run.path, run.text(), run.before):
        return f"FAILED: the notebook was edited while it ran, so it was left alone: {there}"
    (ROOT / "figures").mkdir(exist_ok=True)
    for figure in (run.build / "figures").iterdir():
        atomic.write(ROOT / "figures" / figure.name, figure.read_bytes())
    return "written"


def check(paths, offline):
    """Execute two at a time, with one thread each, into build/check/; return the failures."""
    switches = {"VAELAB_STRICT": "1", **ONE_THREAD, **offline}
    return execute_all(paths, "check", lambda run: verdict(run, offline), 2, switches)


def verdict(run, offline):
    """What --check says about a run."""
    limit = SECONDS[kind(run.path)]
    if run.error:
        return f"FAILED: {run.error}"
    if run.stand_ins and not offline:
        return f"FAILED: no real images of {run.stand_ins}"
    if run.seconds > 2 * limit:
        return f"FAILED: more than twice the {limit} s it may take"
    if run.seconds > limit:
        return f"passed; notice: over its {limit} s (a busy machine, or too slow)"
    return "passed"


def broken_claims(nb):
    """Lines of claims that did not hold, from an execution that was not strict."""
    outputs = [output for cell in nb.cells for output in cell.get("outputs", [])]
    texts = [
        output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs
    ]
    lines = [line.strip() for text in texts for line in text.splitlines()]
    failed = ("did not hold here", "holds for its control as well")
    return [line for line in lines if any(words in line for words in failed)]


def over_seeds(paths, seeds, dataset, offline):
    """Execute one by one with each seed, and print every claim that failed; return their number."""
    switches = offline | {"VAELAB_STRICT": "0"} | ({"VAELAB_DATASET": dataset} if dataset else {})
    failures = []
    for path in paths:
        for seed in seeds:
            run = asyncio.run(execute(path, "seeds", VAELAB_SEED=str(seed), **switches))
            problems = broken_claims(run.nb) + ([run.error] if run.error else [])
            failures += [(path.name, seed, problem) for problem in problems]
            stand_in = f", stand-in for {run.stand_ins}" if run.stand_ins else ""
            told = f"{len(problems)} failed, {run.seconds:.1f} s{stand_in}"
            print(f"{path.name} seed {seed}: {told}", flush=True)
    table(("notebook", "seed", "what failed"), failures or [("", "", "nothing: every claim held")])
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
    return sum(outputs != "fresh" for _, outputs in rows)


def seed_range(text):
    """Seeds from "0-4" or "0,3,7"."""
    parts = [part.partition("-") for part in text.split(",")]
    return [seed for low, _, high in parts for seed in range(int(low), int(high or low) + 1)]


def find(folder=ROOT / "notebooks"):
    """Every notebook in a folder and the folders in it, in order of their names."""
    found = [path for path in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts]
    return sorted(found, key=lambda path: path.name)


def selected(names, folder=ROOT / "notebooks"):
    """The notebooks that are named by a path or by the start of their name (all without names)."""
    chosen = [] if names else find(folder)
    for name in names:
        path = Path(name).resolve()
        matching = [there for there in find(folder) if there.name.startswith(name)]
        found = [path] if path.is_file() else find(path) if path.is_dir() else matching
        if not found:
            known = ", ".join(there.stem for there in find(folder))
            raise SystemExit(f"no notebook starts with {name!r}; there are: {known}")
        chosen += found
    return chosen


def main():
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NN", help="numbers or paths (default: all)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--check", action="store_true", help="judge time and claims, write nothing back"
    )
    what.add_argument("--seeds", type=seed_range, help='run the claims over seeds, e.g. "0-4"')
    what.add_argument("--status", action="store_true", help="say which notebooks are stale")
    parser.add_argument("--dataset", help="VAELAB_DATASET for --seeds")
    parser.add_argument("--offline", action="store_true", help="embedded images, no network")
    args = parser.parse_args()
    if args.dataset and args.seeds is None:
        parser.error("--dataset goes with --seeds")
    paths = selected(args.names)
    offline = OFFLINE if args.offline else {}
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
