import pytest
import torch
from torch import nn

import vaelab


@pytest.fixture(scope="module")
def x():
    """Two kinds of 6x6 image, left half or right half bright, with a little noise."""
    g = torch.Generator().manual_seed(0)
    images = 0.1 * torch.rand(300, 1, 6, 6, generator=g)
    images[::2, :, :, :3] += 0.8
    images[1::2, :, :, 3:] += 0.8
    return images


def small_vae():
    torch.manual_seed(0)
    return vaelab.mlp_vae((1, 6, 6), latent_dim=2, hidden=32)


def quiet(model, x, *arguments, **options):
    return vaelab.fit(model, x, *arguments, progress=False, **options)


def test_a_healthy_run_uses_its_latents(x):
    model = small_vae()
    before = vaelab.evaluate(model, x)["negative_elbo"]
    history = quiet(model, x[:200], x[200:], epochs=40, batch_size=32)
    assert history.final["negative_elbo"] < before - 5
    assert history.final["active_units"] >= 1
    assert history.steps == 40 * 7 and len(history.epochs) == 40
    assert not model.training


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_state_alone(x):
    state = torch.get_rng_state()
    runs = []
    for _ in range(2):
        model = small_vae()
        torch.set_rng_state(state)
        quiet(model, x, epochs=2, seed=3)
        assert torch.equal(torch.get_rng_state(), state)
        runs.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert torch.equal(*runs)
    other = small_vae()
    quiet(other, x, epochs=2, seed=4)
    assert not torch.equal(torch.cat([p.flatten() for p in other.parameters()]), runs[0])


def test_each_image_is_used_once_an_epoch(x):
    seen = []

    def loss(output, batch, mu, logvar):
        seen.append(batch)
        return output.square().mean()

    quiet(small_vae(), x, epochs=1, batch_size=128, loss=loss)
    assert [len(b) for b in seen] == [128, 128, 44]
    assert torch.equal(torch.cat(seen).flatten(1).sum(1).sort().values, x.flatten(1).sum(1).sort().values)


def test_beta_may_be_a_function_of_progress(x):
    asked = []
    history = quiet(small_vae(), x, max_steps=5, beta=lambda p: asked.append(p) or p)
    assert asked == [0, 0.25, 0.5, 0.75, 1.0]
    assert history.epochs[-1]["beta"] == 1.0


def test_a_huge_beta_collapses_the_model(x):
    history = quiet(small_vae(), x, epochs=60, batch_size=32, beta=1000.0)
    assert history.final["active_units"] == 0


def test_max_steps_constant_rate_and_own_optimizer(x):
    steps = []
    history = quiet(
        small_vae(), x, max_steps=7, on_step=lambda step, model: steps.append(step),
        optimizer=lambda p: torch.optim.SGD(p, lr=1e-3),
    )  # fmt: skip
    assert history.steps == 7 and steps == [1, 2, 3, 4, 5, 6, 7]
    assert quiet(small_vae(), x, max_steps=2, schedule="constant", lr=1e-3).steps == 2


def test_a_run_is_measured_after_each_epoch_and_about_ten_times_when_counted_in_steps(x):
    assert [row["step"] for row in quiet(small_vae(), x, epochs=12).epochs] == list(range(3, 37, 3))
    rows = quiet(small_vae(), x, x[:50], max_steps=100).epochs
    assert 5 <= len(rows) <= 11 and rows[-1]["step"] == 100
    few = quiet(small_vae(), x, x[:50], max_steps=2, evaluate_on=10)
    assert few.start["test"]["reconstruction"] > 0 and few.final["reconstruction"] > 0


def test_ctrl_c_leaves_a_usable_model_and_history(x):
    def stop(step, model):
        if step == 4:
            raise KeyboardInterrupt

    model = small_vae()
    history = quiet(model, x, x[:50], epochs=50, on_step=stop)
    assert history.interrupted and history.steps == 4
    assert history.final["reconstruction"] > 0
    assert not model.training and model.reconstruct(x[:3]).shape == (3, 1, 6, 6)


def test_a_loss_that_is_not_finite_stops_with_step_and_cause(x):
    def loss(output, batch, mu, logvar):
        return torch.log(output.sum() * 0)

    with pytest.raises(FloatingPointError, match=r"at step 0.*loss itself") as caught:
        quiet(small_vae(), x, epochs=1, loss=loss)
    assert caught.value.history.steps == 0

    model = small_vae()
    with torch.no_grad():
        model.encoder[-1].bias[2:] = 100.0
    with pytest.raises(FloatingPointError, match=r"logvar reached 1\d\d and exp\(logvar\) overflows"):
        quiet(model, x, epochs=1, loss=lambda r, x, mu, logvar: logvar.exp().sum() ** 2)


def test_progress_leaves_one_line_in_a_script(x, capsys):
    vaelab.fit(small_vae(), x, epochs=3)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and "active units" in lines[0]


def test_bad_arguments_are_refused_at_the_door(x):
    model = small_vae()
    for wrong, message in [
        ({"batch_size": 0}, "batch_size"), ({"epochs": -1}, "epochs"), ({"schedule": "cosine"}, "schedule"),
        ({"beta": -1}, "beta"), ({"max_steps": 0}, "max_steps"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            quiet(model, x, **wrong)
    with pytest.raises(ValueError, match="x_train must be a float tensor.*uint8"):
        quiet(model, (x * 255).to(torch.uint8))
    with pytest.raises(ValueError, match="spans.*Bernoulli"):
        quiet(model, 3 * x)


def test_tables_and_other_shapes_train_as_well():
    table = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    model = vaelab.mlp_vae((5,), latent_dim=2, hidden=16, likelihood=vaelab.Gaussian(0.5))
    assert quiet(model, table, epochs=2).final["reconstruction"] > 0
    assert vaelab.linear_vae((5,), 2, vaelab.Gaussian(0.5))(table)[0].shape == (100, 5)


def test_an_autoencoder_trains_without_kl(x):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    decoder = nn.Sequential(nn.Linear(2, 36), nn.Unflatten(1, (1, 6, 6)))
    history = quiet(vaelab.Autoencoder(encoder, decoder, 2), x, epochs=3)
    assert history.final["kl"] == 0


def test_evaluate_changes_neither_mode_nor_random_state(x):
    model = small_vae().train()
    state = torch.get_rng_state()
    first, second = vaelab.evaluate(model, x), vaelab.evaluate(model, x)
    assert first == second and model.training and torch.equal(torch.get_rng_state(), state)


def test_model_builders_name_a_bad_shape():
    with pytest.raises(ValueError, match="shape must be that of one x"):
        vaelab.mlp_vae(())
