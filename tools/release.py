"""Build the package into dist/ and try it: `python tools/release.py`.

It builds a source archive and a wheel, lets twine check them, installs the wheel in a fresh
environment, and runs the check-up from there. It publishes nothing.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
CHECKUP = """
import torch
import vaelab

print(vaelab.__file__)
torch.manual_seed(0)
model = vaelab.mlp_vae((1, 8, 8), latent_dim=4)
print(vaelab.checkup(model, torch.rand(64, 1, 8, 8)))
"""


def run(*command, **options):
    """Run a command; SystemExit names the one that failed."""
    print("+", *command, flush=True)
    if subprocess.run([str(part) for part in command], **options).returncode:
        raise SystemExit(f"failed: {' '.join(map(str, command))}")


def version(root=ROOT):
    """The version of the package, as vaelab/__init__.py has it."""
    text = (root / "vaelab" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'(?m)^__version__ = "([^"]+)"', text)[1]


def check_version(tag, root=ROOT):
    """SystemExit where the tag, the change log or CITATION.cff names another version."""
    here = version(root)
    if tag and tag != f"v{here}":
        raise SystemExit(f"the tag is {tag}, and vaelab/__init__.py says {here}")
    for name, wanted in (("CHANGELOG.md", f"## {here}"), ("CITATION.cff", f"version: {here}")):
        if wanted not in (root / name).read_text(encoding="utf-8"):
            raise SystemExit(f"{name} must have a line {wanted!r}")


def build(target, *options, root=ROOT):
    """Build the source archive, and from it the wheel, which is returned. twine checks both."""
    shutil.rmtree(target, ignore_errors=True)
    run(sys.executable, "-m", "build", *options, "--outdir", target, root)
    run(sys.executable, "-m", "twine", "check", "--strict", *sorted(target.iterdir()))
    return next(target.glob("*.whl"))


def try_wheel(wheel, folder, *options, lent=()):
    """Install a wheel in a new environment in `folder`, and run the check-up from there.

    lent: folders of packages that the new environment may use, in place of installing them.
    """
    place = folder / "environment"
    venv.create(place, with_pip=True)
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    command = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.check_output(command, text=True).strip())
    (packages / "lent.pth").write_text("\n".join(map(str, lent)), encoding="utf-8")
    run(python, "-m", "pip", "install", "--quiet", *options, wheel)
    # -P: not from the folder where this runs
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-P", "-c", CHECKUP]
    printed = subprocess.check_output(command, cwd=folder, env=env, text=True)
    print(printed)
    if not printed.startswith(str(packages)):
        raise SystemExit(f"vaelab was not imported from {packages}")
    return printed


def main():
    """Check the version, build, and try the wheel."""
    check_version(os.environ.get("GITHUB_REF_NAME", "") if os.environ.get("CI") else "")
    wheel = build(DIST)
    with tempfile.TemporaryDirectory() as folder:
        try_wheel(wheel, Path(folder))
    print(f"vaelab {version()} is ready in {DIST}: python -m twine upload dist/*")


if __name__ == "__main__":
    sys.exit(main())
