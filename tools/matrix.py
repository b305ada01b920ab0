"""Run notebooks on several Pythons and library versions: `python tools/matrix.py [NN ...]`.

uv makes an environment for each row under build/matrix/ROW, and that environment's own Python runs
`tools/notebooks.py --check --offline`. A row that cannot be installed here says why.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "matrix"
# What Colab brings, about; it has no JupyterLab. Update it from `!pip list` in a new Colab session.
COLAB = (
    "torch==2.11.*",
    "torchvision==0.26.*",
    "numpy==2.1.*",
    "scikit-learn==1.6.*",
    "scipy==1.16.*",
    "matplotlib==3.10.*",
    "ipython==7.34.*",
    "ipykernel==6.17.*",
)
NBCLIENT = "nbclient>=0.10"
LAB = ("--editable", ".[lab]", NBCLIENT)
# The Python of each row, and what uv is asked to install.
ROWS = {
    "py3.11": ("3.11", LAB),
    "py3.12": ("3.12", LAB),
    "py3.13": ("3.13", LAB),
    "oldest": ("3.11", ("--resolution", "lowest-direct", *LAB)),
    "colab": ("3.13", ("--editable", ".", NBCLIENT, *COLAB)),
}
SHOWN = ("torch==", "torchvision==", "numpy==", "scikit-learn==", "matplotlib==", "ipython==")


def environment():
    """This environment with pyenv's Pythons on PATH: uv cannot ask the shims that hide them."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    path = [*map(str, sorted(pyenv.glob("*/bin"))), os.environ["PATH"]]
    return os.environ | {"PATH": os.pathsep.join(path)}


def uv(*arguments):
    """Run uv; return its output, its last error, and whether it succeeded."""
    command = [sys.executable, "-m", "uv", "--quiet", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    return done.stdout + done.stderr, done.returncode == 0


def install(name):
    """Make the environment of a row; return its Python, or None after saying what went wrong."""
    version, wanted = ROWS[name]
    folder = BUILD / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = ("pip", "install", "--python", python)
    for command in (("venv", "--clear", "--python", version, folder), (*pip, *wanted)):
        said, succeeded = uv(*command)
        if not succeeded:
            print(f"{name}: could not be installed here\n{said.strip()}", flush=True)
            return None
    installed, _ = uv("pip", "freeze", "--python", python)
    versions = [line for line in installed.splitlines() if line.startswith(SHOWN)]
    print(f"{name}: Python {version}, {', '.join(versions)}", flush=True)
    return python


def run(name, notebooks):
    """Install one row and run the notebooks in it; return what became of it in a word or two."""
    print(f"\n---- {name} (the first time this takes minutes and 6 GB)", flush=True)
    python = install(name)
    if python is None:
        return "not installed"
    command = [python, ROOT / "tools" / "notebooks.py", "--check", "--offline", *notebooks]
    failed = subprocess.call([str(part) for part in command], cwd=ROOT)
    shutil.rmtree(BUILD / name)  # uv keeps what it downloaded, so the next time is quick
    return "FAILED" if failed else "passed"


def main():
    """Run the chosen rows one after another, and say at the end what became of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "notebooks", nargs="*", help="numbers or paths (default: all, coursework too)"
    )
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    args = parser.parse_args()
    course = sorted(str(path) for path in (ROOT / "coursework" / "source").glob("*/*.ipynb"))
    notebooks = args.notebooks or ["notebooks", *course]
    results = {name: run(name, notebooks) for name in args.only}
    print()
    for name, result in results.items():
        print(f"{result:14} {name}")
    return 1 if "FAILED" in results.values() or "passed" not in results.values() else 0


if __name__ == "__main__":
    sys.exit(main())
