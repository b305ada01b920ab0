"""The rows by themselves, x beside the training rows, and how many rows a model is run on."""

import pytest
import torch
from torch import nn

from vaelab.clinic import cost
from vaelab.clinic.cost import budget
from vaelab.clinic.rows import compare, compare_inputs, look_at


@pytest.fixture
def source():
    return torch.Generator().manual_seed(0)


def pictures(n, source, side=8):
    """[n, 1, side, side]: bright bars at random places on a dark ground, values in [0, 1]."""
    x = 0.1 * torch.rand(n, 1, side, side, generator=source)
    places = torch.randint(side, (n,), generator=source)
    x[torch.arange(n), 0, places] += 0.8
    return x


# ---- rows by themselves


def test_good_rows_have_nothing_odd(source):
    rows = look_at(pictures(100, source))
    assert rows.constant == 0 and rows.commonest == 0.01 and rows.mark is None


def test_blank_rows_and_repeated_rows_are_counted(source):
    x = pictures(100, source)
    x[::4] = 1.0
    rows = look_at(x)
    assert rows.constant == 0.25 and rows.commonest == 0.25
    assert look_at(x[1:2].repeat(50, 1, 1, 1)).commonest == 1


@pytest.mark.parametrize("mark", [-999.0, -9.0, 99.0])
def test_a_mark_for_missing_values_is_found(mark, source):
    table = torch.randn(300, 10, generator=source)
    absent = torch.rand(table.shape, generator=source) < 0.1
    rows = look_at(table.masked_fill(absent, mark))
    assert rows.mark == mark and rows.marked == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(
    "values",
    [
        lambda normal: (normal > 0).float(),  # binary
        lambda normal: normal.exp(),  # a long tail
        lambda normal: (3 * normal).exp().floor(),  # counts with a long tail
        lambda normal: normal.clamp(min=0),  # half of them zero
        lambda normal: normal.clamp(-2, 2),  # cut at both ends
        lambda normal: (100 * normal).long(),  # whole numbers
        lambda normal: torch.cat([normal[:150], normal[150:] + 9]),  # two groups
    ],
)
def test_values_that_are_only_unusual_are_no_marks(values, source):
    assert look_at(values(torch.randn(300, 10, generator=source))).mark is None


# ---- x beside the training rows


def test_rows_of_one_source_are_not_told_apart(source):
    found = compare(pictures(200, source), pictures(200, source), None, None)
    assert found.accuracy < 0.7 and found.p_value > 1e-3
    assert found.shift < 0.1 and found.ratio == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda x: 255 * x,
        lambda x: 1 - x,
        lambda x: 2 * x - 1,
        lambda x: (x - x.mean()) / x.std(),
    ],
)
def test_rows_of_another_preprocessing_are_told(change, source):
    found = compare(change(pictures(200, source)), pictures(200, source), None, None)
    assert found.accuracy > 0.9 and found.p_value < 1e-6 and found.shift > 0.2


def test_rows_that_lie_on_their_side_are_told_though_no_mean_has_moved(source):
    lying = pictures(200, source).transpose(2, 3)
    found = compare(lying, pictures(200, source), None, None)
    assert found.accuracy > 0.9 and found.shift < 0.1


def test_the_ratio_of_the_errors_is_that_of_their_means(source):
    errors = torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.0, 2.0])
    found = compare(pictures(30, source), pictures(30, source), *errors)
    assert found.ratio == 2


def test_a_few_rows_are_not_compared_and_constant_columns_do_no_harm(source):
    few = compare(pictures(5, source), pictures(100, source), None, None)
    assert few.accuracy == 0.5 and few.p_value == 1
    same = torch.ones(40, 3)
    assert compare(same, same, None, None).shift == 0


def test_labels_are_compared_with_those_of_training():
    even, all_of_them = 2 * (torch.arange(200) % 5), torch.arange(200) % 10
    assert compare_inputs(all_of_them, all_of_them) < 0.7
    assert compare_inputs(even + 20, all_of_them) == 1
    one_hot = nn.functional.one_hot
    assert compare_inputs(one_hot(even + 1, 11).float(), one_hot(even, 11).float()) > 0.9
    assert compare_inputs(None, None) == 0.5


def test_inputs_by_name_are_compared_by_name(source):
    noise, large = torch.randn(200, 3, generator=source), 9 + torch.randn(200, 3, generator=source)
    swapped = {"b": large, "a": noise}
    assert compare_inputs({"a": noise, "b": large}, swapped) < 0.7


# ---- the budget


def forward(model):
    return lambda x, inputs: model(x)


def test_a_light_model_gets_all_rows():
    assert budget(forward(nn.Linear(10, 5)), torch.zeros(2, 10), None) == cost.Budget()


def test_rows_follow_the_operations_of_one_row():
    model = nn.Sequential(nn.Linear(2000, 20_000), nn.Linear(20_000, 1000))
    operations = 2 * 2000 * 20_000 + 2 * 20_000 * 1000  # a multiplication and an addition each
    found = budget(forward(model), torch.zeros(2, 2000), None)
    assert found.rows == int(cost.OPERATIONS / operations) < cost.MOST_ROWS
    # The weights are there once, however many rows there are: they make no piece smaller.
    assert found.piece == cost.MOST_PIECE
    assert found.graded == found.chosen == found.rows // 4 < cost.MOST_WATCHED


def test_a_model_that_is_far_too_heavy_still_gets_enough_rows_to_compare(monkeypatch):
    monkeypatch.setattr(cost, "OPERATIONS", 10.0)
    found = budget(forward(nn.Linear(10, 5)), torch.zeros(2, 10), None)
    assert found.rows == cost.FEWEST_ROWS and found.graded == 2 and found.chosen == 8


def test_pieces_follow_the_memory_of_one_row(monkeypatch):
    model = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 1, 3))
    x = torch.zeros(2, 1, 32, 32)
    monkeypatch.setattr(cost, "MEMORY", 1e7)
    once = budget(forward(model), x, None)
    monkeypatch.setattr(cost, "MEMORY", 2e7)
    twice = budget(forward(model), x, None)
    assert 1 < once.piece < cost.MOST_PIECE
    assert twice.piece in (2 * once.piece, 2 * once.piece + 1)
    assert once.piece * 64 * 32 * 32 * 4 < 1e7  # the activations of the first layer alone


def test_a_model_that_cannot_be_counted_gets_the_usual_budget():
    def fails(x, inputs):
        raise RuntimeError("not now")

    assert budget(fails, torch.zeros(2, 10), None) == cost.Budget()
