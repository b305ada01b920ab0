"""`fit`: the one training loop. All images stay in memory; a batch is an index."""

import time
from dataclasses import dataclass, field

import torch

from . import settings
from .diagnostics import evaluate
from .elbo import gaussian_kl
from .progress import Progress

EVALUATION_IMAGES = 2000


@dataclass
class History:
    """What a run did. `epochs`: one dict an epoch, with `train` and `test` measurements in nats.

    `start`: the same before the first step. `steps`: steps done. `seconds`: time spent training,
    evaluation not counted. `interrupted`: whether Ctrl-C (or the stop button) ended the run.
    """

    epochs: list = field(default_factory=list)
    start: dict = None
    steps: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    def column(self, measure, split="test"):
        """One value an epoch, e.g. `history.column("kl", "train")`."""
        return [row[split][measure] for row in self.epochs]

    @property
    def final(self):
        """The last measurements on held-out images (on training images if there are no others)."""
        if not self.epochs:
            raise ValueError("this run has no measurements: it ended before its first evaluation")
        return self.epochs[-1]["test"] or self.epochs[-1]["train"]

    def __repr__(self):
        if not self.epochs:
            return f"History({self.steps} steps, not evaluated)"
        end = self.final
        return (
            f"History({self.steps} steps: reconstruction {end['reconstruction']:.1f} + KL {end['kl']:.1f} "
            f"= {end['negative_elbo']:.1f} nats, {end['active_units']} active units)"
        )


def fit(
    model, x_train, x_test=None, *, epochs=4, max_steps=None, batch_size=128, lr=4e-3,
    schedule="onecycle", beta=1.0, loss=None, optimizer=None, seed=None, on_step=None, progress=True,
    evaluate_on=EVALUATION_IMAGES,
):  # fmt: skip
    """Train a VAE and return its History.

    x_train, x_test: [N, ...], in memory, on the model's device. max_steps replaces epochs.
    lr with schedule "onecycle" (the peak, betas .9/.99) or "constant". beta: a number, or a function of
    training progress from 0 to 1, so that linear warm-up is `lambda p: min(1, 2 * p)`.
    loss: replaces the negative ELBO by your own callable (output, x, mu, logvar) -> scalar.
    optimizer: callable (parameters) -> optimizer, in place of Adam (then lr is not used).
    seed: of batches and noise, default VAELAB_SEED; the global random state is left alone.
    on_step: called as on_step(step, model) after each step.
    evaluate_on: how many images of each split are measured, before training and after each epoch
    (with max_steps at most about ten times, since an epoch of a small set is only a few steps).

    The last, smaller batch of an epoch is used as well. Ctrl-C ends the run and returns what there
    is. Raises FloatingPointError, with the history so far as its `history`, when the loss is not finite.
    """
    _check(model, x_train, x_test, batch_size, epochs, max_steps, schedule, beta, loss)
    n = len(x_train)
    steps_per_epoch = -(-n // batch_size)
    total = max_steps if max_steps is not None else epochs * steps_per_epoch
    seed = settings.seed() if seed is None else seed
    beta_at = beta if callable(beta) else lambda _: beta
    optimizer, scheduler = _optimizer(model, optimizer, lr, schedule, total)
    batches = torch.Generator().manual_seed(seed)
    history, bar = History(), Progress(total, "training", progress)
    splits = {"train": _spread(x_train, evaluate_on), "test": _spread(x_test, evaluate_on)}
    history.start = _measure(model, splits, history, None, seed)
    measure_every = 1 if max_steps is None else total // 10
    model.train()

    with torch.random.fork_rng(devices=_cuda_devices(x_train)):
        torch.manual_seed(seed)
        try:
            while history.steps < total:
                started = time.perf_counter()
                order = torch.randperm(n, generator=batches).to(x_train.device)
                for index in order.split(batch_size)[: total - history.steps]:
                    x = x_train[index]
                    weight = beta_at(history.steps / max(1, total - 1))
                    output, mu, logvar = model(x)
                    if loss is not None:
                        value = loss(output, x, mu, logvar)
                    else:
                        value = _negative_elbo(model, output, x, mu, logvar, weight)
                    optimizer.zero_grad()
                    value.backward()
                    if not torch.isfinite(value):
                        raise FloatingPointError(_explain(history.steps, value, output, mu, logvar))
                    optimizer.step()
                    scheduler.step()
                    history.steps += 1
                    bar.update(history.steps)
                    if on_step is not None:
                        on_step(history.steps, model)
                history.seconds += time.perf_counter() - started
                last = history.epochs[-1]["step"] if history.epochs else 0
                if history.steps == total or history.steps - last >= measure_every:
                    history.epochs.append(_measure(model, splits, history, weight, seed))
        except KeyboardInterrupt:
            history.interrupted = True
            history.epochs.append(_measure(model, splits, history, weight, seed))
        except FloatingPointError as error:
            error.history = history
            bar.close("stopped: the loss is not finite")
            raise
    model.eval()
    bar.close(("interrupted: " if history.interrupted else "") + _summary(history))
    return history


def _negative_elbo(model, output, x, mu, logvar, beta):
    reconstruction = model.likelihood.nll(output, x).mean()
    return reconstruction if logvar is None else reconstruction + beta * gaussian_kl(mu, logvar).sum(1).mean()


def _optimizer(model, optimizer, lr, schedule, total):
    """The optimiser and its rate schedule; an optimiser of the caller's keeps its own constant rate."""
    if optimizer is not None:
        optimizer = optimizer(model.parameters())
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    if schedule == "constant":
        optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, betas=(0.9, 0.99))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=max(total, 2), cycle_momentum=False
    )
    return optimizer, scheduler


def _measure(model, splits, history, beta, seed):
    """One row of the history, on the images of each split."""
    row = {"step": history.steps, "seconds": history.seconds, "beta": beta}
    return row | {split: None if x is None else evaluate(model, x, seed=seed) for split, x in splits.items()}


def _spread(x, n):
    """At most n images, evenly spread: MNIST's first test images are easier than its last."""
    if x is None or len(x) <= n:
        return x
    return x[torch.linspace(0, len(x) - 1, n, device=x.device).round().long()]


def _explain(step, value, output, mu, logvar):
    """What was not finite first, and the likely cause."""
    if logvar is not None and logvar.max() > 80:
        cause = f"logvar reached {logvar.max().item():.0f} and exp(logvar) overflows: lower lr or keep a KL"
    elif not torch.isfinite(mu).all() or not torch.isfinite(output).all():
        cause = "the network's own outputs are not finite: the last steps were too large, lower the rate"
    else:
        cause = "the outputs are finite, so the loss itself overflows: look for log(0), 0/0 or a large exp"
    return f"the loss is {value.item()} at step {step}: {cause}"


def _summary(history):
    if not history.epochs:
        return f"{history.steps} steps"
    end = history.final
    return (
        f"{history.steps} steps in {history.seconds:.0f} s: reconstruction {end['reconstruction']:.1f}"
        f" + KL {end['kl']:.1f} = {end['negative_elbo']:.1f} nats, {end['active_units']} active units"
    )


def _cuda_devices(x):
    return [x.device] if x.device.type == "cuda" else []


def _check(model, x_train, x_test, batch_size, epochs, max_steps, schedule, beta, loss):
    """Everything that can be known to be wrong before the first step."""
    device = next(model.parameters()).device
    for name, x in {"x_train": x_train, "x_test": x_test}.items():
        if x is None and name == "x_test":
            continue
        if not isinstance(x, torch.Tensor) or not x.is_floating_point() or x.dim() < 2 or len(x) == 0:
            got = f"{x.dtype} {list(x.shape)}" if isinstance(x, torch.Tensor) else type(x).__name__
            raise ValueError(f"{name} must be a float tensor [N, ...] with at least one image, got {got}")
        if x.device != device:
            raise ValueError(f"{name} is on {x.device}, the model on {device}: move one with .to(...)")
        if loss is None:
            model.likelihood.check(x)
    for name, value in {"batch_size": batch_size, "epochs": epochs, "max_steps": max_steps}.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    if schedule not in ("onecycle", "constant"):
        raise ValueError(f"schedule must be 'onecycle' or 'constant', got {schedule!r}")
    if not callable(beta) and not beta >= 0:
        raise ValueError(f"beta must be a number of at least 0 or a function of progress, got {beta!r}")
