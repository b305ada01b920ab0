"""The benchmark of the check-up: what it is made of, and a part of it run again."""

import json
import re
from pathlib import Path

import pytest
import torch
from benchmark import case, report, run
from benchmark.second import recipe
from benchmark.second import run as _second  # noqa: F401  fills the registries

from vaelab.clinic import findings

run.load_all()
FOLDER = Path(run.__file__).parent
OWN = [name for name, subject in case.SUBJECTS.items() if not subject.package]
PLANNED = {"targets-shuffled"}  # an accepted cause that no finding names yet
MAY_DIFFER = 2  # other versions of torch train a little differently


def results():
    return json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))


def test_there_are_as_many_of_everything_as_promised():
    assert len(OWN) >= 6
    assert len(case.CONTROLS) >= 40
    assert len(case.FAULTS) >= 20
    assert {fault.group for fault in case.FAULTS.values()} == set(case.GROUPS)
    public = {result["control"] for result in results()["first use"] if result["package"]}
    assert len(public) >= 6


def test_every_accepted_cause_is_a_code_of_a_finding_or_a_planned_one():
    known = {check.code for check in findings.CHECKS}
    accepted = set().union(*(fault.accepts for fault in case.FAULTS.values()))
    assert all(fault.accepts for fault in case.FAULTS.values())
    assert accepted <= known | PLANNED, accepted - known - PLANNED


def test_a_fault_changes_one_thing():
    for fault in case.FAULTS.values():
        changes = (fault.loss, fault.training_data, fault.checked_data, fault.learning)
        given = sum(change is not None for change in changes) + (fault.wired is not case.Wired)
        assert given == 1, fault.name


def test_cases_are_few_enough_and_spread_over_the_subjects():
    pairs = run.plan_cases()
    assert len(pairs) == len(set(pairs)) <= run.MOST
    assert {name for name, _ in pairs} == set(case.SUBJECTS)


@pytest.mark.parametrize(
    "serious, notes, grade",
    [
        (["kl-sign", "sigma"], [], "first"),
        (["sigma", "kl-sign"], [], "somewhere"),
        ([], ["kl-sign"], "somewhere"),
        (["sigma"], [], "missed"),
        ([], ["sigma"], "silent"),
    ],
)
def test_grades(serious, notes, grade):
    found = {"serious": serious, "notes": notes, "refused": "", "crashed": ""}
    assert run.grade(found, {"kl-sign"}) == grade


def test_an_error_of_the_check_up_is_graded_by_its_kind():
    def refuses():
        raise ValueError("x must be a float tensor\nand more")

    def crashes():
        raise RuntimeError("mat1 and mat2")

    assert run.grade(run.said(refuses), set()) == "refused"
    assert run.said(refuses)["refused"] == "x must be a float tensor"
    assert run.grade(run.said(crashes), set()) == "crashed"


def test_the_page_is_made_from_the_results():
    page = (FOLDER / "results.md").read_text(encoding="utf-8")
    assert page == report.page(results())
    assert re.search(r"\| all \| \d+ \| \d+% \(\d+% to \d+%\)", page)


def graded(pair):
    torch.manual_seed(0)
    return run.run_case(pair).get("grade")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # models of strangers warn, and so do their faults
def test_a_part_of_the_cases_gets_the_grades_that_are_committed(monkeypatch, tmp_path):
    monkeypatch.setattr(run.training, "CACHE", tmp_path)
    committed = {(r["subject"], r["fault"]): r.get("grade") for r in results()["case"]}
    pairs = [pair for pair in run.plan_cases() if pair[0] in OWN and pair in committed][::4]
    differ = [pair for pair in pairs if graded(pair) != committed[pair]]
    assert len(pairs) >= 10
    assert len(differ) <= MAY_DIFFER, differ


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_part_of_the_healthy_models_gets_no_other_verdict_than_committed():
    committed = {result["control"]: result["serious"] for result in results()["control"]}
    names = list(case.CONTROLS)[::4]
    differ = [name for name in names if run.run_control(name)["serious"] != committed[name]]
    assert len(differ) <= MAY_DIFFER, differ


def test_the_second_set_accepts_codes_that_findings_have():
    known = {check.code for check in findings.CHECKS}
    accepted = set().union(*(fault.accepts for fault in recipe.FAULTS.values()))
    assert accepted <= known, accepted - known
    assert len(recipe.FAULTS) >= 50 and len(recipe.SUBJECTS) >= 8
