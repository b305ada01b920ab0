"""results.md: the table of the benchmark, with intervals, and every miss."""

from collections import Counter

from scipy.stats import binomtest

from .case import GROUPS

GRADES = ("first", "somewhere", "missed", "silent", "refused", "crashed")


def page(results):
    """The whole page, as markdown."""
    counted = [result for result in results["case"] if result.get("harm")]
    parts = ["# How often the check-up is right", INTRODUCTION, faults(counted)]
    parts += ["## Without the training rows", WITHOUT, faults(counted, "grade without x_train")]
    parts += ["## Healthy models", healthy(results["first use"] + results["control"])]
    parts += ["## First use of public models", first_use(results["first use"])]
    parts += ["## Left as it was", untouched(results["case"])]
    parts += ["## Every fault whose cause was not named first", misses(counted)]
    parts += ["## Not counted", not_counted(results)]
    parts.append(f"Made with {results['made with']}, in {results['seconds']} s.")
    return "\n\n".join(parts) + "\n"


INTRODUCTION = """\
A fault is one change to a healthy VAE. Beside each fault stand the causes that would cure it. They
were committed before this run. A case counts only where the fault measurably harms. `make
clinic-bench` runs it again.

The check-up gets 300 held-out rows, the loss and its batch size, and 300 of the rows that the model
was trained on, as it got them (`x_train=`).

*first*: a cause is the first serious finding. *somewhere*: it is a later finding or a note.
*missed*: there are serious findings, and none is the cause. *silent*: nothing serious was found.
*refused*: the check-up raised an error that it wrote. In brackets: Wilson's 95% interval."""


WITHOUT = """\
The same check-ups without `x_train=`. What differs are rows at check time that went through another
preprocessing, and models that know their training rows only."""


def faults(counted, key="grade"):
    """Grades by group, and in all."""
    rows = []
    for group in (*GROUPS, "all"):
        chosen = [result for result in counted if group in ("all", result["group"])]
        found = Counter(result[key] for result in chosen)
        share = rate(found["first"], len(chosen))
        rows.append([group, len(chosen), share, *[found[grade] for grade in GRADES]])
    return table(("group", "cases", "cause first", *GRADES), rows)


def rate(hits, of):
    """A percentage with its interval, as text."""
    if of == 0:
        return "none"
    low, high = binomtest(hits, of).proportion_ci(method="wilson")
    return f"{hits / of:.0%} ({low:.0%} to {high:.0%})"


def healthy(controls):
    """False alarms, failures and notes."""
    alarms = [result for result in controls if result["serious"]]
    failed = [result for result in controls if result["refused"] or result["crashed"]]
    notes = Counter(code for result in controls for code in sorted(set(result["notes"])))
    lines = [f"{len(controls)} healthy models. False alarms: {rate(len(alarms), len(controls))}. "]
    lines[0] += f"Not checked at all: {len(failed)}."
    for result in alarms:
        lines.append(f"- {result['control']}: {', '.join(result['serious'])}")
    for result in failed:
        lines.append(f"- {result['control']}: {result['refused'] or result['crashed']}")
    told = ", ".join(f"{code} {count}" for code, count in notes.most_common())
    return "\n".join([*lines, "", f"Notes on healthy models: {told or 'none'}."])


def first_use(results):
    """How many calls it took until a public model was checked."""
    rows = []
    for result in results:
        if result["package"]:
            ran = not result["refused"] and not result["crashed"]
            last = "ran" if ran else result["refused"] or result["crashed"]
            rows.append([result["control"], result["package"], result["attempts"], last])
    return table(("model", "package", "calls", "the last one"), rows)


def untouched(cases):
    """How many check-ups changed the model, the rows, the loss or a random state."""
    keys = ("changed", "changed without x_train")
    changed = [result for result in cases for key in keys if result.get(key)]
    checked = sum(key in result for result in cases for key in keys)
    what = "weights, buffers, modes, flags, hooks, rows, loss and random states"
    return f"{checked} check-ups, {len(changed)} of which changed a bit of {what}."


def misses(counted):
    rows = []
    for result in counted:
        if result["grade"] != "first":
            said = (
                ", ".join(result["serious"]) or result["refused"] or result["crashed"] or "nothing"
            )
            accepts = ", ".join(result["accepts"])
            rows.append([result["fault"], result["subject"], accepts, result["grade"], said])
    return table(("fault", "model", "cause", "grade", "serious findings"), sorted(rows))


def not_counted(results):
    """Cases without harm, cases that cannot be trained, and jobs that failed."""
    lines = []
    for result in results["case"]:
        if not result.get("harm"):
            why = result.get("left out", f"no measurable harm (graded {result.get('grade')})")
            lines.append(f"- {result['fault']}, {result['subject']}: {why}")
    lines += [f"- broken: {result['what']}: {result['why']}" for result in results["broken"]]
    return "\n".join(lines) or "Nothing."


def table(columns, rows):
    """A markdown table; bars inside a cell are taken out."""
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        cells = [str(cell).replace("|", "/").replace("\n", " ") for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
