"""Scalings: exact inverses, limits, and what cannot be scaled."""

import pytest
import torch

from vaelab.data import load
from vaelab.scaling import Scaling


def scalings(x):
    return [
        Scaling.unit(),
        Scaling.symmetric(),
        Scaling.zscore(x),
        Scaling.zscore(x, per_channel=True),
    ]


@pytest.mark.parametrize("index", range(4))
def test_scalings_have_an_exact_inverse(index):
    x = torch.rand(50, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x = x * torch.tensor([1, 0.5, 0.1])[:, None, None]
    scaling = scalings(x)[index]
    assert (scaling.inverse(scaling(x)) - x).abs().max() < 1e-6
    assert torch.equal(scaling(x), (x - scaling.shift) / scaling.scale)
    ends = scaling(torch.zeros(1, 3, 1, 1)), scaling(torch.ones(1, 3, 1, 1))
    assert torch.equal(scaling.lo.expand(1, 3, 1, 1), ends[0])
    assert torch.equal(scaling.hi.expand(1, 3, 1, 1), ends[1])
    assert scaling.shift.shape == ((1, 3, 1, 1) if index == 3 else ()) and scaling.name in repr(
        scaling
    )


def test_the_limits_of_the_fixed_scalings():
    assert (Scaling.unit().lo, Scaling.unit().hi) == (0, 1)
    assert (Scaling.symmetric().lo, Scaling.symmetric().hi) == (-1, 1)


def test_zscore_uses_the_training_images_only():
    x_train, x_test = load("digits").x_train, load("digits").x_test + 5
    scaling = Scaling.zscore(x_train)
    assert scaling.shift.item() == pytest.approx(x_train.double().mean().item(), abs=1e-6)
    assert scaling.scale.item() == pytest.approx(
        x_train.double().std(correction=0).item(), abs=1e-6
    )
    assert scaling(x_train).mean().abs() < 1e-5 and scaling(x_test).mean() > 5


def test_zscore_of_a_table():
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(100, 4, generator=generator) * torch.tensor([1, 10, 0.1, 3])
    table += torch.tensor([0, 5, -2, 100])
    scaling = Scaling.zscore(table, per_channel=True)
    assert torch.allclose(scaling(table).mean(0), torch.zeros(4), atol=1e-4)
    assert torch.allclose(scaling(table).std(0, correction=0), torch.ones(4), atol=1e-4)
    # exact up to float32's rounding of a column whose values lie near 100
    assert torch.allclose(scaling.inverse(scaling(table)), table, rtol=1e-6, atol=1e-5)


def test_zscore_of_what_cannot_be_scaled():
    x = torch.rand(10, 3, 4, 4)
    x[:, 1] = 0.1
    Scaling.zscore(x)
    with pytest.raises(ValueError, match=r"constant or not finite in channels \[1\]"):
        Scaling.zscore(x, per_channel=True)
    with pytest.raises(ValueError, match="constant or not finite"):
        Scaling.zscore(torch.full((10, 1, 4, 4), 0.1))
    with pytest.raises(ValueError, match=r"x_train must be a tensor.*got \[4, 4, 4\]"):
        Scaling.zscore(torch.rand(4, 4, 4))
    with pytest.raises(ValueError, match="got ImageSet"):
        Scaling.zscore(load("digits"))
