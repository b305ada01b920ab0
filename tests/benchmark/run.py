"""Run the benchmark: `make clinic-bench`, or `python tests/benchmark/run.py --only NAME`.

Every fault is put into the subjects it fits, at most `EACH` of them, those with the fewest cases
first. What was found is written to results.json and results.md beside this file.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import subprocess
import sys
import time
import warnings
from importlib import metadata
from pathlib import Path

if __name__ == "__main__":  # two processes of one thread each are faster than two of two
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy
import torch

import vaelab
from benchmark import case, harm, training

FOLDER = Path(__file__).resolve().parent
EACH, MOST, ROWS = 3, 200, 300


def load_all():
    """Fill the registries."""
    from benchmark import controls, faults_data, faults_learning, faults_loss, faults_wiring  # noqa
    from benchmark import own, public  # noqa: F401


def version(subject):
    """Of the package that a subject comes from: a number, or "" where it is not installed."""
    try:
        return metadata.version(subject.package)
    except metadata.PackageNotFoundError:
        return ""


def is_there(name):
    """Whether a subject can be built here."""
    subject = case.SUBJECTS[name]
    return not subject.package or bool(version(subject))


def plan_cases():
    """(subject, fault) names: each fault in at most EACH subjects, evenly over the subjects."""
    load = dict.fromkeys(case.SUBJECTS, 0)
    pairs = []
    for fault in case.FAULTS.values():
        fitting = [name for name, subject in case.SUBJECTS.items() if fault.fits(subject)]
        fitting.sort(key=load.get)
        for name in fitting[:EACH]:
            load[name] += 1
            pairs.append((name, fault.name))
    if len(pairs) > MOST:
        raise ValueError(f"{len(pairs)} cases, more than {MOST}: lower EACH")
    return pairs


def check(model, data, loss, batch, learned=None):
    """What the check-up says of a wired model: a dict for results.json.

    learned: the data that it was trained on, for the rows that stand beside x.
    """
    options = {"batch_size": batch}
    if data.labels_test is not None:
        options["inputs"] = data.labels_test[:ROWS]
    if learned is not None:
        options["x_train"] = learned.x_train[:ROWS]
    if learned is not None and learned.labels_train is not None:
        options["inputs_train"] = learned.labels_train[:ROWS]
    before = fingerprint(model, data, loss)
    found = said(lambda: vaelab.checkup(model, data.x_test[:ROWS], loss, **options))
    return found | {"changed": fingerprint(model, data, loss) != before}


def fingerprint(model, data, loss):
    """A hash of all that a check-up must leave as it was: bit by bit."""
    digest = hashlib.sha256()
    named = [*model.state_dict().items(), *enumerate(t for t in data if t is not None)]
    for name, tensor in named:
        digest.update(str(name).encode() + tensor.detach().numpy().tobytes())
    modes = [module.training for module in model.modules()]
    parameters = [(p.requires_grad, p.grad is None) for p in model.parameters()]
    hooks = [len(module._forward_hooks) for module in model.modules()]
    held = sorted(map(str, getattr(loss, "__dict__", {})))
    digest.update(repr([modes, parameters, hooks, held]).encode())
    digest.update(torch.get_rng_state().numpy().tobytes())
    digest.update(repr(numpy.random.get_state()).encode() + repr(random.getstate()).encode())
    return digest.hexdigest()


def rows_learned(subject, fault):
    """`Data` with the training rows as a faulty model got them."""
    data = subject.load()
    if fault.training_data:
        return fault.training_data(data)
    if fault.learning:
        plan = case.Plan(subject.steps, subject.rate, subject.batch)
        return fault.learning(fault.wired(subject, subject.build()), data, plan) or data
    return data


def said(call):
    """The outcome of a check-up: codes, or how it failed, and its seconds."""
    start = time.perf_counter()
    found = {"serious": [], "notes": [], "refused": "", "crashed": ""}
    try:
        report = call()
    except ValueError as error:
        found["refused"] = first_line(error)
    except Exception as error:
        found["crashed"] = f"{type(error).__name__}: {first_line(error)}"
    else:
        found["serious"] = report.serious
        found["notes"] = [f.code for f in report.findings if f.severity == "note"]
    return found | {"seconds": round(time.perf_counter() - start, 2)}


def first_line(error):
    lines = str(error).splitlines() or [""]
    return lines[0][:200]


def grade(found, accepts):
    """One word: first, somewhere, missed, silent, refused or crashed."""
    for failed in ("crashed", "refused"):
        if found[failed]:
            return failed
    if found["serious"][:1] and found["serious"][0] in accepts:
        return "first"
    if accepts.intersection(found["serious"] + found["notes"]):
        return "somewhere"
    return "missed" if found["serious"] else "silent"


def run_case(pair):
    """One fault in one subject: trained, measured against its healthy twin, checked, graded."""
    subject, fault = case.SUBJECTS[pair[0]], case.FAULTS[pair[1]]
    result = {"subject": subject.name, "fault": fault.name, "group": fault.group}
    result["accepts"] = sorted(fault.accepts)
    healthy, clean, _ = training.trained(subject)
    twin = harm.measure(subject, healthy, clean)
    width = harm.span(subject, healthy, clean, twin)
    try:
        sick, data, loss = training.trained(subject, fault)
    except Exception as error:  # such a fault would not survive its author's first run
        text = f"training raises {type(error).__name__}: {first_line(error)}"
        return result | {"harm": "", "left out": text}
    try:
        result["harm"] = harm.reason(harm.measure(subject, sick, data), twin, width)
    except Exception as error:
        result["harm"] = f"the right loss raises {type(error).__name__}: {first_line(error)}"
    alone = check(sick, data, loss, subject.batch)
    result["grade without x_train"] = grade(alone, fault.accepts)
    result["serious without x_train"] = alone["serious"]
    result["changed without x_train"] = alone["changed"]
    found = check(sick, data, loss, subject.batch, rows_learned(subject, fault))
    return result | found | {"grade": grade(found, fault.accepts)}


def run_first_use(name):
    """A healthy subject as its package gives it: the calls that a stranger tries, in order."""
    subject = case.SUBJECTS[name]
    wired, data, loss = training.trained(subject)
    tried = []
    for attempt in subject.attempts:
        found = said(lambda attempt=attempt: attempt(wired.net, data, loss))
        tried.append(found)
        if not found["refused"] and not found["crashed"]:
            break
    package = f"{subject.package} {version(subject)}" if subject.package else ""
    result = {"control": name, "package": package, "attempts": len(tried)}
    return result | {"tried": tried} | tried[-1]


def run_control(name):
    return {"control": name} | said(case.CONTROLS[name].check)


def run_one(job):
    """(kind, argument) -> result. What fails outside of the check-up is "broken"."""
    kind, argument = job
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runs = {"case": run_case, "first use": run_first_use, "control": run_control}
        try:
            return kind, runs[kind](argument)
        except Exception as error:
            return "broken", {
                "what": str(argument),
                "why": f"{type(error).__name__}: {error}"[:300],
            }


def jobs(only=""):
    """Everything to run, of all subjects or of those whose name holds `only`."""
    there = [name for name in case.SUBJECTS if is_there(name)]
    found = [("first use", name) for name in there]
    found += [("case", pair) for pair in plan_cases() if pair[0] in there]
    found += [("control", name) for name in case.CONTROLS]
    return [(kind, what) for kind, what in found if only in str(what)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", default="", help="subjects, faults or controls with this in their names"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--fresh", action="store_true", help="train again what is in the cache")
    options = parser.parse_args()
    if options.fresh:
        for path in training.CACHE.glob("*.pt"):
            path.unlink()
    load_all()
    start, results = time.perf_counter(), {}
    todo = jobs(options.only)
    missing = [name for name in case.SUBJECTS if not is_there(name)]
    if missing:
        print(f"left out, because their packages are not installed: {', '.join(missing)}")
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.processes, initializer=load_all) as pool:
        for done, (kind, result) in enumerate(pool.imap_unordered(run_one, todo), start=1):
            results.setdefault(kind, []).append(result)
            print(f"{done}/{len(todo)}", kind, short(result), flush=True)
    print(f"{time.perf_counter() - start:.0f} s")
    if not options.only and not missing:
        write(results, time.perf_counter() - start)


def short(result):
    """One line of progress."""
    name = result.get("control") or f"{result.get('subject')}, {result.get('fault')}"
    told = result.get("grade") or result.get("left out") or result.get("serious")
    return f"{name}: {told} {result.get('why', '')}"


def commit():
    """The commit that holds the accepted causes, with a plus where this folder was changed."""
    git = ["git", "-C", str(FOLDER)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "."], capture_output=True)
    return head.stdout.strip() + ("+" if changed.returncode else "")


def write(results, seconds):
    from benchmark import report

    kinds = ("case", "first use", "control", "broken")
    kept = {kind: sorted(results.get(kind, []), key=str) for kind in kinds}
    kept["seconds"] = round(seconds)
    kept["made with"] = f"vaelab at {commit()}, torch {torch.__version__.partition('+')[0]}"
    (FOLDER / "results.json").write_text(json.dumps(kept, indent=1) + "\n")
    (FOLDER / "results.md").write_text(report.page(kept))


if __name__ == "__main__":
    main()
