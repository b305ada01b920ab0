"""Run the second set: `cd tests && python -m benchmark.second.run`.

Every model is trained or taken from the cache, its harm is measured, and it is checked twice: on
held-out rows, and on these with the training rows beside them. Totals by group are printed. To
judge a check-up fairly, do not look at single cases before it is finished.
"""

import argparse
import inspect
import time
import warnings
from collections import Counter

import torch

import vaelab

from .. import harm, report, run
from . import controls, data, learning, loss, recipe, subjects, wiring  # noqa: F401

PASSES = ("held-out rows", "held-out and training rows")


def takes_training_rows():
    """Whether this check-up has the arguments of the second pass."""
    parameters = inspect.signature(vaelab.checkup).parameters
    return "x_train" in parameters and "inputs_train" in parameters


def check(model, made, with_training):
    """What the check-up says of a model: a dict, as run.said gives it."""
    x, labels = made.data.x_test[: run.ROWS], made.data.labels_test
    options = {"batch_size": made.batch}
    if labels is not None:
        options["inputs"] = labels[: run.ROWS]
    if with_training:
        options["x_train"] = made.data.x_train
    if with_training and labels is not None:
        options["inputs_train"] = made.data.labels_train
    return run.said(lambda: vaelab.checkup(model, x, made.loss, **options))


def measure_twins():
    """Subject -> (`Measured`, nats between it and outputs that ignore their rows)."""
    twins = {}
    for name in recipe.SUBJECTS:
        made = recipe.trained(name)
        twin = harm.measure(made.judge, made.model, made.data)
        twins[name] = twin, harm.span(made.judge, made.model, made.data, twin)
    return twins


def run_fault(fault, twins, passes):
    """A list of results, one for each pass."""
    made = recipe.trained(fault.subject, fault.change)
    measured = harm.measure(made.judge, made.model, made.data)
    result = {"subject": fault.subject, "fault": fault.name, "group": fault.group}
    result["accepts"] = sorted(fault.accepts)
    result["harm"] = harm.reason(measured, *twins[fault.subject])
    results = []
    for number in range(passes):
        found = check(made.model, made, with_training=number == 1)
        results.append(result | found | {"grade": run.grade(found, fault.accepts)})
    return results or [result]


def run_healthy(name, subject, change, passes):
    """The same for a healthy model, which is checked as its author wrote it."""
    made = recipe.trained(subject, change)
    results = []
    for number in range(passes):
        found = check(made.model.net, made, with_training=number == 1)
        results.append({"control": name} | found)
    return results


def healthy_models():
    """(name, subject, change) of the twins and of the oddities."""
    twins = [(f"{name}, untouched", name, None) for name in recipe.SUBJECTS]
    oddities = [(found.name, found.subject, found.change) for found in recipe.CONTROLS.values()]
    return twins + oddities


def totals(cases, healthy):
    """A table by group, and a few lines about the healthy models."""
    counted = [result for result in cases if result["harm"]]
    alarmed = [result for result in healthy if result["serious"]]
    failed = [result for result in healthy if result["refused"] or result["crashed"]]
    seconds = sum(result["seconds"] for result in cases + healthy)
    notes = Counter(code for result in healthy for code in set(result["notes"]))
    told = ", ".join(f"{code} {count}" for code, count in notes.most_common())
    lines = [report.faults(counted), ""]
    lines.append(f"{len(healthy)} healthy models.")
    lines.append(f"False alarms: {report.rate(len(alarmed), len(healthy))}.")
    lines.append(f"Not checked at all: {len(failed)}.")
    lines.append(f"Notes: {told or 'none'}.")
    lines.append(f"The check-ups took {seconds:.0f} s.")
    return "\n".join(lines) + "\n"


def single(result):
    """One line about one case or control."""
    name = result.get("control") or f"{result['fault']} ({result['subject']})"
    said = ", ".join(result["serious"]) or result["refused"] or result["crashed"] or "nothing"
    return f"{name}: {result.get('grade', '')} {said}"


def show_harm(cases):
    for result in cases:
        print(f"{result['group']}, {result['subject']}, {result['fault']}:", end=" ")
        print(result["harm"] or "NO HARM")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--harm", action="store_true", help="train and measure, check nothing")
    parser.add_argument("--each", action="store_true", help="print single cases as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    passes = 2 if takes_training_rows() else 1
    if options.harm:
        passes = 0
    twins = measure_twins()
    cases = [run_fault(fault, twins, passes) for fault in recipe.FAULTS.values()]
    healthy = [run_healthy(*model, passes) for model in healthy_models()]
    if options.harm:
        show_harm([results[0] for results in cases])
    for number in range(passes):
        chosen = [results[number] for results in cases]
        well = [results[number] for results in healthy]
        print(f"## {PASSES[number]}\n\n{totals(chosen, well)}")
        if options.each:
            print(*map(single, chosen + well), sep="\n")
    if passes == 1:
        print("The second pass was left out: this checkup has no x_train.")
    harmless = [results[0]["fault"] for results in cases if not results[0]["harm"]]
    print(f"Not counted, without harm: {', '.join(harmless) or 'none'}.")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
