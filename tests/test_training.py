import math
import signal
import threading

import pytest
import torch
from plain_models import ExamplesVAE, FlatVAE
from torch import nn

import vaelab
from vaelab import training


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """The number of threads stays as it is, so equal seeds give equal weights bit for bit."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


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


class Plain(nn.Module):
    """A VAE of a reader's own, without a likelihood; `returned` changes what forward returns."""

    def __init__(self, returned=lambda output, mu, logvar: (output, mu, logvar)):
        super().__init__()
        self.vae, self.returned = small_vae(), returned
        del self.vae.likelihood

    def forward(self, x):
        return self.returned(*self.vae(x))


def squared_error(output, x, mu, logvar):
    return (output - x).square().sum() / len(x) + vaelab.gaussian_kl(mu, logvar).sum(1).mean()


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


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
        runs.append(weights(model))
    assert torch.equal(*runs)
    other = small_vae()
    quiet(other, x, epochs=2, seed=4)
    assert not torch.equal(weights(other), runs[0])


def test_each_image_is_used_once_an_epoch(x):
    seen = []

    def loss(output, batch, mu, logvar):
        seen.append(batch)
        return output.square().mean()

    quiet(small_vae(), x, epochs=1, batch_size=128, loss=loss)
    assert [len(b) for b in seen] == [128, 128, 44]
    assert torch.equal(
        torch.cat(seen).flatten(1).sum(1).sort().values, x.flatten(1).sum(1).sort().values
    )


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
    with pytest.raises(
        FloatingPointError, match=r"logvar reached 1\d\d and exp\(logvar\) overflows"
    ):
        quiet(model, x, epochs=1, loss=lambda r, x, mu, logvar: logvar.exp().sum() ** 2)


def test_progress_leaves_one_line_in_a_script(x, capsys):
    vaelab.fit(small_vae(), x, epochs=3)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and "active units" in lines[0]


def test_bad_arguments_are_refused_at_the_door(x):
    model = small_vae()
    wrong_ones = [
        ({"batch_size": 0}, "batch_size"),
        ({"epochs": -1}, "epochs"),
        ({"schedule": "cosine"}, "schedule"),
        ({"beta": -1}, "beta"),
        ({"max_steps": 0}, "max_steps"),
    ]
    for wrong, message in wrong_ones:
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


# ---- what gets an error before the first step


def refused(match, model, x, **options):
    """fit refuses, and model, mode and random state are as before."""
    before, state = weights(model), torch.get_rng_state()
    model.train()
    with pytest.raises(ValueError, match=match):
        quiet(model, x, **options)
    assert torch.equal(weights(model), before) and model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_another_number_type_than_the_models_is_named(x):
    refused(r"x_train is torch.float64.*x_train.to\(torch.float32\)", small_vae(), x.double())
    with pytest.raises(ValueError, match="x_test is torch.float64"):
        quiet(small_vae(), x, x.double())
    assert quiet(small_vae().double(), x.double(), max_steps=2).steps == 2


def test_images_of_a_wrong_shape_are_named(x):
    refused(r"model\(x\) in .* mode for x \[128, 1, 3, 6\] raised.*shape", small_vae(), x[:, :, :3])
    with pytest.raises(ValueError, match="x_test is .*give both the same shape"):
        quiet(small_vae(), x, x[:, :, :3])
    flat = torch.rand(20, 1, 28, 28)
    refused(r"x_train.flatten\(1\)", FlatVAE(), flat, loss=squared_error)
    assert quiet(FlatVAE(), flat.flatten(1), max_steps=1, loss=squared_error).steps == 1


def test_a_model_without_likelihood_needs_a_loss_and_the_error_shows_both_ways(x):
    refused("no likelihood.*loss=my_loss.*model.likelihood = vaelab.Bernoulli", Plain(), x)


def test_a_model_without_likelihood_trains_on_a_loss_of_the_callers(x):
    model = Plain()
    history = quiet(model, x[:200], x[200:], epochs=20, batch_size=32, loss=squared_error)
    first, last = history.start["test"], history.final
    assert last["loss"] < first["loss"] and last["kl"] > 0 and last["active_units"] >= 1
    assert math.isnan(last["reconstruction"]) and math.isnan(last["negative_elbo"])
    assert repr(history).startswith("History(140 steps: loss ")
    assert not model.training

    with torch.no_grad():
        torch.manual_seed(0)
        (output, mu, logvar), images = model(x[200:232]), x[200:232]
        by_hand = squared_error(output, images, mu, logvar).item()
    assert last["loss"] == pytest.approx(by_hand, rel=0.2)
    assert last["kl"] == pytest.approx(vaelab.gaussian_kl(*model(x[200:])[1:]).sum().item() / 100)


def test_the_vae_of_the_pytorch_examples_trains_with_its_loss_and_with_a_likelihood():
    x = torch.rand(40, 1, 28, 28)

    def loss_function(recon_x, x, mu, logvar):
        bce = nn.functional.binary_cross_entropy(recon_x, x.view(-1, 784), reduction="sum")
        return bce - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())

    assert quiet(ExamplesVAE(), x, max_steps=2, loss=loss_function).final["loss"] > 0
    model = ExamplesVAE()
    model.likelihood = vaelab.Bernoulli(on="probabilities")
    assert quiet(model, x, max_steps=2).final["negative_elbo"] > 0


def test_frozen_parameters(x):
    refused("no parameter that can be trained.*requires_grad", small_vae().requires_grad_(False), x)
    model = small_vae()
    model.encoder.requires_grad_(False)
    encoder, decoder = weights(model.encoder), weights(model.decoder)
    quiet(model, x, max_steps=2)
    assert torch.equal(weights(model.encoder), encoder)
    assert not torch.equal(weights(model.decoder), decoder)


def one_number_an_image(output, x, mu, logvar):
    return (output - x).square().flatten(1).sum(1)


def a_dict(output, x, mu, logvar):
    return {"loss": output.mean(), "kl": mu.mean()}


def a_tuple(output, x, mu, logvar):
    return output.mean(), mu.mean()


def a_float(output, x, mu, logvar):
    return output.mean().item()


def nothing(output, x, mu, logvar):
    pass


def detached(output, x, mu, logvar):
    return output.detach().mean()


def two_arguments(output, x):
    return output.mean()


def wrong_shapes(output, x, mu, logvar):
    return (output.flatten(1) - x).mean()


WRONG_LOSSES = {
    one_number_an_image: r"float32 \[128\].*\.mean\(\)",
    a_dict: "a dict with 'loss', 'kl'.*total",
    a_tuple: "a tuple of 2 values.*total",
    a_float: r"a float.*\.item\(\)",
    nothing: "got None",
    detached: "does not depend on any trainable parameter",
    two_arguments: r"loss\(output, x, mu, logvar\) raised TypeError.*\[128, 2\]",
    wrong_shapes: r"loss\(.*\) raised RuntimeError.*\[128, 1, 6, 6\]",
}


@pytest.mark.parametrize("loss", WRONG_LOSSES, ids=lambda loss: loss.__name__)
def test_a_loss_that_is_no_scalar_is_named(x, loss):
    refused(WRONG_LOSSES[loss], small_vae(), x, loss=loss)


WRONG_RETURNS = {
    "output": r"three values, got torch.float32 \[128, 1, 6, 6\]",
    "(output, mu)": "three values, got a tuple of 2 values.*return output, mu, logvar",
    "(output, mu, logvar, mu)": "got a tuple of 4 values",
    "dict(a=output, b=mu, c=logvar)": "got a dict with 'a', 'b', 'c'",
    "(mu, logvar, output)": r"one shape \[128, L\]",
    "(output, 3, logvar)": "got a int",
}


@pytest.mark.parametrize("returned", WRONG_RETURNS)
def test_a_model_that_does_not_return_three_tensors_is_named(x, returned):
    model = Plain(eval(f"lambda output, mu, logvar: {returned}"))
    refused(WRONG_RETURNS[returned], model, x, loss=squared_error)


def test_data_that_are_not_finite_are_named_as_such(x):
    for value in (math.nan, math.inf):
        broken = x.clone()
        broken[17, 0, 2, 3] = value
        for loss in (None, squared_error):
            refused(
                r"x_train holds NaN.* 1 of 300 images.*x_train\[17\]",
                small_vae(),
                broken,
                loss=loss,
            )
        with pytest.raises(ValueError, match="x_test holds NaN"):
            quiet(small_vae(), x, broken)


def test_a_model_on_another_device_is_named(x):
    with pytest.raises(
        ValueError, match=r"x_train is cpu, the model is meta.*x_train.to\('meta'\)"
    ):
        quiet(small_vae().to("meta"), x)


def test_other_arguments_that_cannot_work_are_named(x):
    refused(
        "evaluate_on must be a whole number of at least 1, got 0", small_vae(), x, evaluate_on=0
    )
    refused("lr must be a number above 0", small_vae(), x, lr=0)
    refused("lr must be a number above 0", small_vae(), x, lr="1e-3")
    refused("beta must be a number", small_vae(), x, beta="1")
    refused("beta must return a number", small_vae(), x, beta=lambda p: None)
    refused(
        "optimizer must be a function",
        small_vae(),
        x,
        optimizer=torch.optim.SGD(small_vae().parameters(), 1),
    )
    refused("optimizer must be a function", small_vae(), x, optimizer="adam")
    refused("x_train must be a float tensor.*a list", small_vae(), [1, 2])
    refused("x_train must be a float tensor", small_vae(), x[:0])
    with pytest.raises(ValueError, match="model must be a torch.nn.Module"):
        quiet(lambda x: x, x)


def test_the_trial_before_the_first_step_leaves_no_trace(x):
    calls, hooked, betas = [], [], []

    def loss(output, batch, mu, logvar):
        calls.append(len(batch))
        return squared_error(output, batch, mu, logvar)

    model = small_vae()
    model.register_forward_hook(lambda module, inputs, output: hooked.append(module.training))
    quiet(model, x, max_steps=5, loss=loss, beta=lambda p: betas.append(p) or 1.0)
    assert calls == [128, 128, 44, 128, 128] and len(betas) == 5 and hooked.count(True) == 5


def test_the_readers_images_are_never_written_to(x):
    class InPlace(Plain):
        def forward(self, x):
            return super().forward(x.mul_(0.5))

    def in_place(output, batch, mu, logvar):
        return mu.square().mean() + logvar.square().mean() + 0 * batch.add_(1).sum()

    class Constant(Plain):
        def forward(self, x):
            return super().forward(torch.zeros_like(x))

    before = x.clone()
    quiet(InPlace(), x, x[:50], max_steps=4, loss=squared_error)
    quiet(Constant(), x, x[:50], max_steps=4, loss=in_place)
    assert torch.equal(x, before)


def test_fit_works_where_gradients_are_off_and_on_images_that_require_them(x):
    with torch.no_grad():
        assert quiet(small_vae(), x, max_steps=2).steps == 2
        assert not torch.is_grad_enabled()
    leaf = x.clone().requires_grad_()
    assert quiet(small_vae(), leaf, max_steps=2).steps == 2 and leaf.grad is None


# ---- the last batch, Ctrl-C, threads, the optimizer


def with_batch_norm():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    decoder = nn.Sequential(nn.Linear(2, 36), nn.Unflatten(1, (1, 6, 6)))
    return vaelab.VAE(encoder, decoder, 2)


def test_a_last_batch_of_one_is_left_out_for_batch_norm_and_said_once(x, capsys):
    history = quiet(with_batch_norm(), x[:129], epochs=3)
    said = capsys.readouterr().out
    assert history.steps == 3
    assert said.count("left out") == 1 and "129 images" in said and "BatchNorm needs two" in said
    assert quiet(with_batch_norm(), x[:130], epochs=1).steps == 2
    assert quiet(small_vae(), x[:129], epochs=1).steps == 2
    assert quiet(with_batch_norm(), x[:129], max_steps=5).steps == 5
    refused("Expected more than 1 value per channel", with_batch_norm(), x, batch_size=1)


def interrupting(monkeypatch, *calls):
    """`evaluate` raises KeyboardInterrupt at these calls, counted from 1."""
    counted = []

    def evaluate(model, x, **options):
        counted.append(model.training)
        if len(counted) in calls:
            raise KeyboardInterrupt
        return vaelab.evaluate(model, x, **options)

    monkeypatch.setattr(training, "evaluate", evaluate)
    return counted


@pytest.mark.parametrize(
    ("calls", "steps", "rows"), [((1,), 0, 0), ((2,), 0, 0), ((3,), 3, 1), ((3, 4), 3, 0)]
)
def test_ctrl_c_in_any_evaluation_and_twice_returns_model_and_history(
    x, monkeypatch, capsys, calls, steps, rows
):
    interrupting(monkeypatch, *calls)
    model, state, grads = small_vae(), torch.get_rng_state(), torch.is_grad_enabled()
    history = vaelab.fit(model, x, x[:50], epochs=5)
    assert history.interrupted and history.steps == steps and len(history.epochs) == rows
    assert not model.training and model.reconstruct(x[:3]).shape == (3, 1, 6, 6)
    assert torch.equal(torch.get_rng_state(), state) and torch.is_grad_enabled() == grads
    assert capsys.readouterr().out.startswith("interrupted: ")
    assert "steps" in repr(history)


def test_ctrl_c_in_the_trial_in_a_step_and_after_a_measured_epoch(x):
    def first_call(output, batch, mu, logvar):
        raise KeyboardInterrupt

    model = small_vae()
    history = quiet(model, x, loss=first_call)
    assert history.interrupted and history.steps == 0 and not model.training

    def at_step_3(step, model):
        if step == 3:
            raise KeyboardInterrupt

    history = quiet(small_vae(), x, max_steps=6, on_step=at_step_3)
    assert [row["step"] for row in history.epochs] == [3]


def test_a_real_interrupt_ends_the_run(x):
    signals = []

    def press(step, model):
        if step == 5:
            signals.append(signal.raise_signal(signal.SIGINT))

    history = quiet(small_vae(), x, epochs=100, on_step=press)
    assert history.interrupted and history.steps == 5 and history.final["kl"] >= 0


def test_three_fits_in_threads_are_reproducible(x):
    alone = small_vae()
    quiet(alone, x, epochs=3)
    models = [small_vae() for _ in range(3)]
    fits = [threading.Thread(target=quiet, args=(m, x), kwargs={"epochs": 3}) for m in models]
    for thread in fits:
        thread.start()
    for thread in fits:
        thread.join()
    assert all(torch.equal(weights(model), weights(alone)) for model in models)


def test_a_fit_inside_a_fit_works(x):
    inner = small_vae()
    history = quiet(small_vae(), x, max_steps=2, on_step=lambda *_: quiet(inner, x, max_steps=1))
    assert history.steps == 2


def test_adam_is_fused_and_falls_back_where_it_cannot_be(x, monkeypatch):
    made, adam = [], torch.optim.Adam

    def recording(parameters, fused=None, **options):
        made.append(fused)
        if fused and len(made) > 1:
            raise RuntimeError("`fused=True` requires all the params to be floating point Tensors")
        return adam(parameters, fused=fused, **options)

    monkeypatch.setattr(torch.optim, "Adam", recording)
    first, second = small_vae(), small_vae()
    quiet(first, x, max_steps=20)
    assert made == [True]
    quiet(second, x, max_steps=20)
    assert made == [True, True, None]
    assert torch.allclose(weights(first), weights(second), atol=1e-4)


def test_the_callers_number_of_threads_is_put_back_and_a_change_is_in_the_last_line(
    x, monkeypatch, capsys
):
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(vaelab.threads, "_seconds_a_step", lambda number: float(number))
    before, during = torch.get_num_threads(), []
    try:
        torch.set_num_threads(2)
        options = {"on_step": lambda *_: during.append(torch.get_num_threads())}
        vaelab.fit(small_vae(), x, max_steps=1, **options)
        assert during == [1] and torch.get_num_threads() == 2
        (line,) = capsys.readouterr().out.splitlines()
        assert ", on 1 CPU thread (" in line
        quiet(small_vae(), x, max_steps=1, **options)
        assert capsys.readouterr().out == ""
    finally:
        torch.set_num_threads(before)


def test_weights_that_are_broken_before_training_are_named_as_such(x):
    model = small_vae()
    with torch.no_grad():
        model.encoder[1].weight[0, 0] = math.nan
    with pytest.raises(FloatingPointError, match="step 0: the model's weights hold NaN"):
        quiet(model, x, max_steps=3)
    with pytest.raises(FloatingPointError, match="lower lr"):
        quiet(small_vae(), x, epochs=20, lr=1e12, schedule="constant", loss=squared_error)
