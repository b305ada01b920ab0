"""The film names layer and term of every way to NaN, on seeds 0 to 4, and leaves the well alone."""

import pytest
import torch
from ways_to_nan import WAYS, Small, alarm_of, images, train

from vaelab.clinic.film import watch

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("terms", [False, True], ids=["unnamed", "named"])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", WAYS)
def test_each_way_is_named_on_every_seed(name, seed, terms):
    alarm = alarm_of(name, seed, terms)
    assert (alarm.kind, alarm.layer, alarm.operation, alarm.term) == WAYS[name][1]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rate", [1e-3, 4e-3, 1e-2])
def test_healthy_trainings_give_no_alarm(rate, seed):
    torch.manual_seed(seed)
    model = Small()
    with watch(model) as film:
        train(model, images(seed), film=film, terms=True, rate=rate, steps=400)
    assert film.alarm is None
    assert film.note == ""
    assert film.steps == 400
