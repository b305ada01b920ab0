"""Make the pictures of the symptom pages: `python docs/pictures/run.py [name ...]`.

Each script in this folder makes figures/page_<name>.png, and prints the numbers that its page
quotes. What it printed on the real images is kept in numbers.json.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import vaelab

FOLDER = Path(__file__).resolve().parent
NUMBERS = FOLDER / "numbers.json"


def names():
    """The names of all pictures."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if path != Path(__file__).resolve())


def printed(name):
    """Run the script of one picture; return what it printed."""
    command = [sys.executable, str(FOLDER / f"{name}.py")]
    env = os.environ | {"MPLBACKEND": "Agg"}
    return subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout


def main():
    """Run the named scripts, or all, and keep what they printed."""
    if not vaelab.load("mnist").real:
        raise SystemExit("the pages show real MNIST: VAELAB_DATA must name a folder that holds it")
    kept = json.loads(NUMBERS.read_text(encoding="utf-8")) if NUMBERS.exists() else {}
    for name in sys.argv[1:] or names():
        began = time.monotonic()
        kept[name] = printed(name)
        print(f"---- {name} ({time.monotonic() - began:.0f} s)\n{kept[name]}", flush=True)
    ordered = {name: kept[name] for name in names() if name in kept}
    NUMBERS.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
