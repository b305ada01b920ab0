"""Every patient of the ward gets its finding, every healthy one none that is serious."""

import pytest
import torch
from ward.patients import HEALTHY, SICK

import vaelab

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Using a target size")]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", SICK)
def test_a_sick_model_gets_its_cause_first(name):
    code, build = SICK[name]
    model, x, loss, *options = build(0)
    report = vaelab.checkup(model, x, loss, **(options[0] if options else {}))
    assert report.serious[:1] == [code], report


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_model_gets_nothing_serious(name):
    model, x, loss, *options = HEALTHY[name](0)
    report = vaelab.checkup(model, x, loss, **(options[0] if options else {}))
    assert report.healthy, report
