"""Open JupyterLab at the first notebook; as root and without a display too (then it prints the address)."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIRST = "notebooks/00_start_here.ipynb"


def command():
    """The JupyterLab command line for this machine."""
    args = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={ROOT}"]
    args.append(f"--LabApp.default_url=/lab/tree/{FIRST}")
    if hasattr(os, "getuid") and os.getuid() == 0:
        args.append("--allow-root")
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        print("no display here: open the address that JupyterLab prints below", flush=True)
        args.append("--no-browser")
    return args + sys.argv[1:]


if __name__ == "__main__":
    try:
        sys.exit(subprocess.call(command(), cwd=ROOT))
    except KeyboardInterrupt:
        sys.exit(0)
