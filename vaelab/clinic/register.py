"""The register of checks: a check is a pure function from parts of an `Observation` to evidence."""

import inspect
from collections.abc import Callable
from typing import NamedTuple

from .meter import first_line
from .report import Finding

CHECKS = []


class Check(NamedTuple):
    """A registered check and the names of its parameters."""

    code: str
    notebook: str
    remedy: str
    look: Callable
    needs: tuple
    symptom: bool


class Evidence(NamedTuple):
    """What a check saw. An empty remedy stands for the one in the decorator."""

    text: str
    severity: str = "serious"
    remedy: str = ""


def note(text, remedy=""):
    """Evidence for something that is worth knowing and no illness."""
    return Evidence(text, "note", remedy)


def finding(code, notebook, remedy, symptom=False):
    """Register a check. notebook: where it is taught, or "" for its section in docs/findings.md.

    symptom: it says nothing about a model whose weights are as they were drawn.
    """

    def register(look):
        needs = tuple(inspect.signature(look).parameters)
        CHECKS.append(Check(code, notebook, remedy, look, needs, symptom))
        return look

    return register


class Diagnosis(NamedTuple):
    """findings, in order. looked_for: codes. unchecked: code -> why it was left out or failed."""

    findings: list
    looked_for: tuple
    unchecked: dict


def diagnose(seen):
    """The `Diagnosis` of an `Observation`."""
    findings, made, left_out = [], {}, {}
    for check in CHECKS:
        if "condition" in check.needs and seen.patient.inputs is None:
            continue  # there is nothing to look for
        why = _why_not(check, seen)
        if why:
            left_out.setdefault(check.code, why)
            continue
        try:
            findings += [_finding(check, found) for found in check.look(*_parts(check, seen))]
            made[check.code] = True
        except Exception as error:  # one check must not take the others with it
            left_out.setdefault(check.code, f"{type(error).__name__}: {first_line(error)}")
    unchecked = {code: why for code, why in left_out.items() if code not in made}
    return Diagnosis(findings, tuple(made), unchecked)


def _parts(check, seen):
    return [seen if name == "seen" else getattr(seen, name) for name in check.needs]


def _why_not(check, seen):
    """Why a check cannot be made, "" if it can."""
    missing = [name for name in check.needs if name != "seen" and getattr(seen, name) is None]
    if missing:
        return f"{' and '.join(missing)} not known"
    return "the model is untrained" if check.symptom and seen.untrained else ""


def _finding(check, found):
    text, severity, remedy = Evidence(found) if isinstance(found, str) else found
    return Finding(check.code, severity, text, remedy or check.remedy, check.notebook)
