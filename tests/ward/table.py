"""Write the ward's table of results: `python tests/ward/table.py [seed]`, a few minutes."""

import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import vaelab  # noqa: E402
from ward.patients import FOLDER, HEALTHY, SICK  # noqa: E402


def main():
    """Train and check everyone."""
    warnings.filterwarnings("ignore", message="Using a target size")
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    columns = ("patient", "must find", "found serious", "notes", "beta", "sigma^2", "loss")
    rows = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    wards = [*SICK.items(), *((name, ("healthy", build)) for name, build in HEALTHY.items())]
    for name, (code, build) in wards:
        model, x, loss, *options = build(seed)
        report = vaelab.checkup(model, x, loss, **(options[0] if options else {}))
        notes = [f.code for f in report.findings if f.severity == "note"]
        numbers = [
            "-" if value is None else f"{value:.4g}" for value in (report.beta, report.sigma2)
        ]
        found = (", ".join(codes) or "-" for codes in (report.serious, notes))
        rows.append(
            "| " + " | ".join([name, code, *found, *numbers, report.loss_form or "-"]) + " |"
        )
        print(rows[-1], flush=True)
    target = FOLDER / "results.md" if seed == 0 else Path(f"build/ward_{seed}.md")
    target.write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
