"""Open JupyterLab on a reader's own copy of the notebooks, in my-notebooks/, which git ignores.

JupyterLab saves by itself. In the copy it may: the committed outputs stay those of the real images.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MINE = ROOT / "my-notebooks"
FIRST = "00_start_here.ipynb"


def fingerprint(path):
    """A hash of a file, or None where there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def refresh(source=ROOT / "notebooks", mine=MINE):
    """Copy what is new and what the reader has not changed; return newer notebooks left alone.

    `mine/.copied.json` holds the hash of each notebook at the time when it was copied.
    """
    record = mine / ".copied.json"
    copied = json.loads(record.read_text()) if record.exists() else {}
    left_alone = []
    for path in sorted(source.rglob("[0-9]*.ipynb")):
        name = path.relative_to(source).as_posix()
        ours, theirs, before = fingerprint(path), fingerprint(mine / name), copied.get(name)
        if theirs is not None and theirs != before:
            left_alone += [name] if ours != before else []
        elif theirs != ours:
            (mine / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, mine / name)
            copied[name] = ours
    record.write_text(json.dumps(copied, indent=1))
    return left_alone


def command():
    """The JupyterLab command line for this machine: as root and without a display too."""
    args = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={MINE}"]
    args.append(f"--LabApp.default_url=/lab/tree/{FIRST}")
    if hasattr(os, "getuid") and os.getuid() == 0:
        args.append("--allow-root")
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform == "linux" and not display:
        print("no display here: open the address that JupyterLab prints below", flush=True)
        args.append("--no-browser")
    return args + sys.argv[1:]


def main():
    """Bring the copy up to date, and open it."""
    for name in refresh():
        print(f"my-notebooks/{name} was changed by you and is kept; delete it to get the new one")
    print(f"your own copies of the notebooks are in {MINE}", flush=True)
    return subprocess.call(command(), cwd=MINE)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(0)
