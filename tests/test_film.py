"""The film: what it names, what it leaves alone, the loops it works in, and its traces."""

import contextlib
import copy
import io
import math
import statistics
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import optimizer as optimizers
from ways_to_nan import (
    SICK_STEP,
    WAYS,
    Small,
    alarm_of,
    fill,
    images,
    kl_of,
    nan_pixel,
    squared,
    train,
)

import vaelab
from vaelab.clinic.film import ERROR_IMAGES, QUIET_STEPS, Film, Stopped, watch


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def x():
    return images(0)


def loss_of(model, x):
    reconstruction, mu, logvar = model(x)
    return squared(model, reconstruction, x) + kl_of(mu, logvar)


def hooks_of(model):
    """All hooks in a model, and torch's global ones of optimizers."""
    hooks = [dict(optimizers._global_optimizer_pre_hooks)]
    for module in model.modules():
        hooks += [dict(module._forward_hooks), dict(module._forward_pre_hooks)]
    return hooks


# ---- what an alarm names


@pytest.mark.parametrize("name", WAYS)
def test_layer_operation_and_term_are_named(name):
    alarm = alarm_of(name, seed=0, terms=False)
    assert (alarm.kind, alarm.layer, alarm.operation, alarm.term) == WAYS[name][1]


def test_an_alarm_holds_step_batch_values_and_a_line_to_write(x):
    model = Small()
    with pytest.raises(Stopped) as stopped, watch(model) as film:
        train(model, x, spoil=fill("to_logvar.bias", 200.0))
    alarm = stopped.value.alarm
    assert alarm is film.alarm
    assert (alarm.step, alarm.batch) == (SICK_STEP, SICK_STEP)
    assert "after the layer to_logvar, which got [99" in alarm.text
    assert "the last good step on record is 1: kl" in alarm.before
    assert "clamp(-10, 10)" in str(stopped.value)


def test_a_bad_batch_names_its_rows(x):
    model = Small()
    with pytest.raises(Stopped, match=r"1 of its 64 rows \(3\)"), watch(model):
        train(model, x, spoil=nan_pixel)


def test_a_loaded_nan_weight_is_not_blamed_on_the_rate(x):
    model = Small()
    fill("up.weight", math.nan)(model, None)
    with pytest.raises(Stopped, match="Load or draw"), watch(model):
        train(model, x)


def test_a_buffer_of_minus_infinity_is_not_blamed(x):
    model = Small()
    model.register_buffer("mask", torch.full((3,), -math.inf))
    with pytest.raises(Stopped) as stopped, watch(model):
        train(model, x, spoil=fill("to_logvar.bias", 200.0))
    assert stopped.value.alarm.operation == "exp"


def test_step_names_the_term_before_backward(x):
    model = Small()
    with watch(model) as film:
        loss = loss_of(model, x)
        with pytest.raises(Stopped, match="the term texture of the loss") as stopped:
            film.step(loss, reconstruction=1.0, texture=torch.tensor(math.nan))
    assert stopped.value.alarm.term == "texture"


def test_a_parameter_of_the_loss_is_named(x):
    model = Small()
    model.temperature = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with pytest.raises(Stopped) as stopped, watch(model):
        (loss_of(model, x) + model.temperature.sqrt()).backward()
        optimizer.step()
    assert stopped.value.alarm.kind == "gradient"
    assert "parameter temperature" in stopped.value.alarm.text


def test_a_mask_of_minus_infinity_is_not_blamed(x):
    def masked(h):
        scores = h.masked_fill(h > 100, 0).masked_fill(torch.ones_like(h) > 0, -math.inf)
        return torch.softmax(torch.cat([h, scores], 1), 1)[:, :32] * 0 + torch.log(h - 1e3)

    model = Small(middle=masked)
    with pytest.raises(Stopped) as stopped, watch(model):
        train(model, x)
    assert stopped.value.alarm.operation == "log"


# ---- the KL spike


def spiking(model, x, value, step):
    """Forty steps; in one of them the means are large."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    for number in range(1, 41):
        if number == step:
            fill("to_mu.bias", value)(model, None)
        if number == step + 1:
            fill("to_mu.bias", 0.0)(model, None)
        optimizer.zero_grad()
        loss_of(model, x[:64]).backward()
        optimizer.step()


def test_a_kl_spike_is_an_alarm(x):
    model = Small()
    with pytest.raises(Stopped, match="the KL is") as stopped, watch(model):
        spiking(model, x, 10.0, step=30)
    assert (stopped.value.alarm.kind, stopped.value.alarm.step) == ("kl-spike", 30)
    remedy = stopped.value.alarm.remedy
    assert remedy.index("batch") < remedy.index("rate"), "one odd batch is the first suspect"


@pytest.mark.parametrize(("value", "step"), [(10.0, 12), (1.0, 30)], ids=["early", "below 10 nats"])
def test_early_and_small_spikes_are_none(x, value, step):
    model = Small()
    with watch(model) as film:
        spiking(model, x, value, step)
    assert film.alarm is None


def sharp(model, reconstruction, x):
    return 500 * squared(model, reconstruction, x)


def test_a_kl_that_buys_a_better_reconstruction_is_no_spike(x):
    model = Small()
    with watch(model, spike=1.5, every=1) as film:
        train(model, x, error=sharp, rate=1e-2, steps=60)
    kls = film.record.kl
    usual = [statistics.median(kls[:step]) for step in range(QUIET_STEPS, 50)]
    assert any(
        kl > max(10, 1.5 * kl_before) for kl, kl_before in zip(kls[20:], usual, strict=False)
    )
    assert film.alarm is None


# ---- the record


def test_the_record_has_a_value_for_each_step(x):
    model = Small()
    with watch(model, every=1) as film:
        train(model, x, steps=5, film=film, terms=True)
        gradients = [p.grad for p in model.parameters()]
    record = film.record
    assert record.step == [1, 2, 3, 4, 5]
    assert {len(values) for values in vars(record).values()} == {5}
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    assert record.gradient[-1] == pytest.approx(norm.item(), rel=1e-4)
    assert 0 < record.low[-1] < record.high[-1] < 1
    assert all(map(math.isfinite, record.kl + record.error + record.loss))


def test_the_record_has_a_row_for_every_tenth_step_and_the_film_counts_all(x):
    model = Small()
    with watch(model) as film:
        train(model, x, steps=25)
    assert film.record.step == [1, 11, 21] and film.steps == 25
    assert all(map(math.isfinite, film.record.kl + film.record.gradient))


def test_measured_values_are_those_of_the_forward(x):
    model = Small()
    with watch(model) as film:
        reconstruction, mu, logvar = model(x)
        loss = squared(model, reconstruction, x) + kl_of(mu, logvar)
        loss.backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        film.step(loss)
    record = film.record
    assert record.kl == [pytest.approx(kl_of(mu, logvar).item(), rel=1e-5)]
    error = F.mse_loss(reconstruction[:ERROR_IMAGES], x[:ERROR_IMAGES])
    assert record.error == [pytest.approx(error.item(), rel=1e-5)]
    assert record.loss == [pytest.approx(loss.item())]


def test_the_figure_has_four_panels_and_marks_the_alarm(x, capsys):
    import matplotlib.pyplot as plt

    model = Small()
    with watch(model, stop=False) as film:
        train(model, x, spoil=nan_pixel, steps=10)
    figure = film.figure()
    assert [len(axes.lines) for axes in figure.axes] == [2, 2, 2, 3]
    plt.close(figure)


def test_without_a_stop_the_first_alarm_is_printed_once(x, capsys):
    model = Small()
    with watch(model, stop=False) as film:
        train(model, x, spoil=nan_pixel, steps=10)
    assert capsys.readouterr().out.count("do:") == 1
    assert (film.alarm.kind, film.alarm.step) == ("input", SICK_STEP)
    assert film.steps == 10
    assert "before the first layer" in repr(film)
    assert film._repr_html_().startswith("<pre>")


# ---- what forward returns


class Named(Small):
    def forward(self, x):
        reconstruction, mu, logvar = super().forward(x)
        return {"recon": reconstruction, "mu": mu, "log_var": logvar}


def loss_of_named(model, x):
    out = model(x)
    return squared(model, out["recon"], x) + kl_of(out["mu"], out["log_var"])


def one_step(model, x, loss):
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    loss(model, x).backward()
    optimizer.step()


def test_a_dictionary_is_read_as_in_a_checkup(x):
    model = Named()
    with watch(model) as film:
        one_step(model, x, loss_of_named)
    assert film.note == ""
    assert math.isfinite(film.record.kl[0])


def test_an_adapter_says_where_the_three_are(x):
    model = Named()
    with watch(model, adapter=lambda out: (out["recon"], out["mu"], out["log_var"])) as film:
        one_step(model, x, loss_of_named)
    assert math.isfinite(film.record.kl[0])


class Alone(Small):
    """Only the reconstruction comes back."""

    def forward(self, x):
        return super().forward(x)[0]


def test_outputs_that_cannot_be_read_are_watched_for_finiteness_only(x):
    model = Alone()
    with watch(model) as film:
        one_step(model, x, lambda model, x: F.mse_loss(model(x), x))
        assert "only finiteness is watched" in film.note
        fill("out.bias", math.nan)(model, None)
        with pytest.raises(Stopped, match=r"parameter out.bias"):
            model(x)


def test_an_adapter_that_calls_the_model_is_not_used(x):
    model = Small()
    with watch(model, adapter=lambda model, x: model(x), every=1) as film:
        train(model, x, steps=2)
    assert "calls the model itself" in film.note
    assert film.record.step == [1, 2]


def test_a_failing_adapter_does_not_end_the_training(x):
    model = Small()
    with watch(model, adapter=lambda out: out["nothing"], every=1) as film:
        train(model, x, steps=3)
    assert "only finiteness is watched" in film.note
    assert film.record.step == [1, 2, 3]


def test_an_error_of_the_film_does_not_end_the_training(x, monkeypatch):
    monkeypatch.setattr("vaelab.clinic.film._norm", lambda *arguments: 1 / 0)
    model = Small()
    with watch(model) as film:
        train(model, x, steps=3)
    assert "ZeroDivisionError" in film.note


# ---- loops


def test_gradients_may_be_accumulated_over_several_forwards(x):
    model = Small()
    optimizer = torch.optim.Adam(model.parameters())
    with watch(model, every=1) as film:
        for _ in range(3):
            for rows in x[:96].split(32):
                loss_of(model, rows).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert film.record.step == [1, 2, 3]
    assert film.batches == 9


def test_the_guilty_one_of_several_forwards_is_named(x):
    model = Small()
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises(Stopped) as stopped, watch(model):
        for factor in (1.0, math.inf, 1.0):
            reconstruction, mu, logvar = model(x)
            (factor * squared(model, reconstruction, x) + kl_of(mu, logvar)).backward()
        optimizer.step()
    assert (stopped.value.alarm.term, stopped.value.alarm.batch) == ("reconstruction", 2)


def test_two_optimizers_after_one_forward_share_a_step(x):
    model = Small()
    inner = [p for name, p in model.named_parameters() if name.startswith("body")]
    outer = [p for name, p in model.named_parameters() if not name.startswith("body")]
    pair = [torch.optim.Adam(inner), torch.optim.SGD(outer, lr=1e-3)]
    with watch(model, every=1) as film:
        for _ in range(3):
            for optimizer in pair:
                optimizer.zero_grad()
            loss_of(model, x).backward()
            for optimizer in pair:
                optimizer.step()
    norm = torch.cat([p.grad.flatten() for p in inner + outer]).norm().item()
    assert film.record.step == [1, 2, 3]
    assert film.record.gradient[-1] == pytest.approx(norm, rel=1e-4)


def test_other_models_and_evaluation_are_no_steps(x):
    model, other = Small(), Small()
    with watch(model) as film:
        one_step(other, x, loss_of)
        with torch.no_grad():
            model(x * math.nan)
        model.eval()
        model(x * math.nan)
    assert film.record.step == []
    assert film.batches == 0
    assert "No forward in training mode" in film.note


def test_forward_and_backward_may_run_inside_the_step(x):
    model = Small()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)

    def closure():
        optimizer.zero_grad()
        loss = loss_of(model, x) * (1.0 if film.batches < 4 else math.nan)
        loss.backward()
        return loss

    with pytest.raises(Stopped, match="gradient that is not finite"), watch(model) as film:
        for _ in range(5):
            optimizer.step(closure)
    assert film.batches == 4


def test_a_step_that_a_scaler_skips_is_no_alarm(x):
    model = Small()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=1e38)
    with watch(model) as film:
        for _ in range(3):
            optimizer.zero_grad()
            scaler.scale(100 * loss_of(model, x)).backward()
            scaler.step(optimizer)
            scaler.update()
    assert film.alarm is None
    assert len(film.record.step) < 3


def test_a_fused_optimizer_that_is_told_to_skip_is_no_alarm(x):
    model = Small()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    with watch(model) as film:
        loss_of(model, x).backward()
        optimizer.found_inf = torch.tensor(1.0)
        optimizer.grad_scale = torch.tensor(2.0)
        fill_gradients(model, math.inf)
        optimizer.step()
        assert film.record.step == []
        fill_gradients(model, 2.0)
        optimizer.found_inf = torch.tensor(0.0)
        optimizer.step()
    values = sum(parameter.numel() for parameter in model.parameters())
    assert film.alarm is None
    assert film.record.gradient == [pytest.approx(values**0.5)]


def fill_gradients(model, value):
    for parameter in model.parameters():
        parameter.grad.fill_(value)


def test_it_works_in_fit(x):
    model = vaelab.mlp_vae((1, 8, 8), latent_dim=4, hidden=32)
    with watch(model, every=1) as film:
        vaelab.fit(model, x.reshape(-1, 1, 8, 8), max_steps=12, batch_size=64, progress=False)
    assert film.record.step == list(range(1, 13))
    assert film.alarm is None and film.note == ""


def test_it_works_under_data_parallel(x):
    model = nn.DataParallel(Small())
    with pytest.raises(Stopped) as stopped, watch(model):
        train(model, x, spoil=fill("module.to_logvar.bias", 200.0))
    assert stopped.value.alarm.operation == "exp"


def test_it_works_with_a_compiled_model(x):
    model = torch.compile(Small(), backend="eager")
    with pytest.raises(Stopped) as stopped, watch(model) as film:
        train(model, x, spoil=fill("to_logvar.bias", 200.0))
    assert stopped.value.alarm.operation == "exp"
    assert film.steps == SICK_STEP - 1


def test_it_works_under_autocast(x):
    model = Small(after=nn.Identity())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with watch(model) as film:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(model, x)
        loss.backward()
        optimizer.step()
        fill("out.weight", 6e4)(model, None)
        with pytest.raises(Stopped) as stopped, torch.autocast("cpu", dtype=torch.float16):
            model(x)
    assert film.alarm is stopped.value.alarm
    assert film.alarm.layer == "out"


@pytest.mark.filterwarnings("ignore")
def test_it_works_in_lightning(x, tmp_path):
    lightning = pytest.importorskip("lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.vae = Small()

        def forward(self, x):
            return self.vae(x)

        def training_step(self, batch, number):
            if number == 4:
                fill("vae.to_logvar.bias", 200.0)(self, None)
            return loss_of(self, batch)

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters())

    module = Module()
    before = hooks_of(module)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        **quiet,
    )
    loader = torch.utils.data.DataLoader(x, batch_size=64)
    with pytest.raises(Stopped) as stopped, watch(module) as film:
        trainer.fit(module, loader)
    assert (stopped.value.alarm.operation, stopped.value.alarm.step) == ("exp", 5)
    assert film.steps == 4
    assert all(gradient > 0 for gradient in film.record.gradient)
    assert hooks_of(module) == before


# ---- no trace


def trained(x, filmed):
    """Weights and random state after a training, watched or not."""
    torch.manual_seed(1)
    model = Small(middle=nn.BatchNorm1d(32))
    if filmed:
        with watch(model) as film:
            train(model, x, film=film, terms=True, steps=10)
    else:
        train(model, x, steps=10)
    return model.state_dict(), torch.get_rng_state()


def test_a_watched_training_is_the_same_bit_by_bit(x):
    (weights, random), (others, other) = trained(x, filmed=True), trained(x, filmed=False)
    assert torch.equal(random, other)
    assert all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, Stopped])
def test_nothing_is_left_behind(x, error):
    model = Small()
    before, attributes = hooks_of(model), set(vars(model))
    with pytest.raises(error) if error else contextlib.nullcontext(), watch(model):
        train(model, x, spoil=nan_pixel if error is Stopped else None, steps=8)
        if error:
            raise error
    assert hooks_of(model) == before
    assert set(vars(model)) == attributes
    assert all(p.requires_grad and not p._backward_hooks for p in model.parameters())


@pytest.mark.parametrize("terms", [False, True])
def test_an_alarm_leaves_weights_buffers_and_random_states(x, terms):
    model = Small(middle=nn.BatchNorm1d(32))
    fill("to_logvar.bias", 200.0)(model, None)
    with pytest.raises(Stopped), watch(model):
        torch.manual_seed(3)
        model(x)
    weights, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    torch.manual_seed(1)
    twin = Small(middle=nn.BatchNorm1d(32))
    twin.load_state_dict(weights | {"middle.function.running_mean": torch.zeros(32)})
    torch.manual_seed(3)
    twin(x)
    assert torch.equal(twin.middle.function.running_mean, weights["middle.function.running_mean"])
    assert torch.equal(random, torch.get_rng_state())


def test_a_healthy_step_runs_forward_once(x):
    calls = []
    model = Small(before=lambda x: calls.append(1) or x)
    with watch(model, adapter=tuple):
        train(model, x, steps=7)
    assert len(calls) == 7


def test_the_film_keeps_no_batch_after_the_block(x):
    model = Small()
    batch = x.clone()
    kept = weakref.ref(batch)
    with watch(model) as film:
        one_step(model, batch, loss_of)
    del batch
    assert kept() is None
    assert film.record.step == [1]


def test_a_watched_model_can_be_copied_and_saved(x):
    model = Small(after=nn.Sigmoid())
    with watch(model, every=1) as film:
        train(model, x, steps=2)
        twin = copy.deepcopy(model)
        torch.save(model, file := io.BytesIO())
        file.seek(0)
        for other in (twin, torch.load(file, weights_only=False)):
            one_step(other, x, loss_of)
    assert film.record.step == [1, 2]


# ---- the door


def test_a_model_is_watched_by_one_film(x):
    model = Small()
    with watch(model, every=1) as film:
        with pytest.raises(RuntimeError, match="watched already"):
            with watch(model):
                pass
        with pytest.raises(RuntimeError, match="for one block"):
            with film:
                pass
        train(model, x, steps=2)
    assert film.record.step == [1, 2]
    with pytest.raises(RuntimeError, match="start a new one"):
        with film:
            pass
    with watch(model):
        pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": 3}, "model must be a torch.nn.Module, got int"),
        ({"adapter": 3}, "adapter must be a function of what forward returns"),
        ({"spike": 0.5}, "spike must be a number above 1, got 0.5"),
        ({"spike": True}, "spike must be a number above 1, got True"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        watch(**{"model": Small(), **arguments})


def test_a_term_of_several_values_is_refused(x):
    model = Small()
    with watch(model) as film, pytest.raises(ValueError, match=r"kl must be one number.*kl.mean"):
        film.step(1.0, kl=torch.ones(3))


def test_a_film_says_in_words_what_it_saw(x):
    assert "no alarm" in repr(Film(Small()))


@pytest.mark.parametrize("seed", range(3))
def test_a_healthy_model_of_logits_gives_no_alarm(seed):
    """Its logits run far away from the images, and the pictures become better all the time."""
    torch.manual_seed(seed)
    images = vaelab.load("digits").x_train
    model = vaelab.mlp_vae((1, 28, 28), 10, 128)  # its forward gives logits
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with vaelab.watch(model) as film:
        for _ in range(120):
            x = images[torch.randint(len(images), (64,))]
            logits, mu, logvar = model(x)
            error = F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)
            loss = error + vaelab.gaussian_kl(mu, logvar).sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert film.alarm is None
