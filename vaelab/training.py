"""`fit`: the one training loop. All images stay in memory; a batch is an index."""

import contextlib
import math
import numbers
import threading
import time
from dataclasses import KW_ONLY, dataclass, field

import torch

from . import settings, threads
from .adapt import measuring
from .diagnostics import active_units, evaluate, likelihood_of
from .elbo import gaussian_kl
from .progress import Progress
from .untouched import keeping_random_states

EVALUATION_IMAGES = 2000
BATCH_NORM = torch.nn.modules.batchnorm._BatchNorm
NUMBER = (numbers.Real, torch.Tensor)
LOSS = "loss(output, x, mu, logvar)"
FLAT = "x needs the shape that the model is built for, x_train.flatten(1) if it takes flat vectors"

_one_fit_at_a_time = threading.RLock()  # noise comes from torch's global random state


@dataclass
class History:
    """What a run did.

    epochs: one dict for each evaluation, with `train` and `test` measurements in nats. start: the
    same before the first step. steps: steps done. seconds: time spent training, evaluation not
    counted. interrupted: whether Ctrl-C (or the stop button) ended the run.
    A measurement has reconstruction, kl, negative_elbo and active_units. For a model without a
    likelihood it has `loss` too, the mean of the caller's loss over batches, and reconstruction and
    negative_elbo are NaN.
    """

    epochs: list = field(default_factory=list)
    start: dict = None
    steps: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    def column(self, measure, split="test"):
        """One value for each evaluation, e.g. `history.column("kl", "train")`."""
        return [row[split][measure] for row in self.epochs]

    @property
    def final(self):
        """The last measurements on held-out images, or on training images if there are no others.

        Raises ValueError if the run ended before its first evaluation.
        """
        if not self.epochs:
            raise ValueError("this run has no measurements: it ended before its first evaluation")
        return self.epochs[-1]["test"] or self.epochs[-1]["train"]

    def __repr__(self):
        measured = _in_words(self.final) if self.epochs else "not evaluated"
        return f"History({self.steps} steps: {measured})"


def fit(
    model,
    x_train,
    x_test=None,
    *,
    epochs=4,
    max_steps=None,
    batch_size=128,
    lr=4e-3,
    schedule="onecycle",
    beta=1.0,
    loss=None,
    optimizer=None,
    seed=None,
    on_step=None,
    progress=True,
    evaluate_on=EVALUATION_IMAGES,
):
    """Train a VAE and return its History; the model is in evaluation mode afterwards.

    model: returns (output, mu, logvar); logvar may be None. Without a `likelihood` it needs a loss.
    x_train, x_test: [N, ...], in memory, on the model's device, of its number type.
    max_steps: replaces epochs. batch_size: the last, smaller batch of an epoch is used as well. A
    last batch of a single image is left out for a model with BatchNorm, and a line says so.
    lr: with schedule "onecycle" the peak, with betas .9/.99, or "constant". optimizer: a function
    from parameters to an optimizer, in place of Adam; lr and schedule are not used then.
    beta: a number, or a function of training progress from 0 to 1: `lambda p: min(1, 2 * p)`.
    loss: a function (output, x, mu, logvar) -> scalar that replaces the negative ELBO and beta.
    seed: of batches and noise, default VAELAB_SEED. The weights are the same bit for bit if the
    number of CPU threads is (`vaelab.threads`). Fits in several Python threads wait for each other.
    on_step: called as on_step(step, model) after each step.
    evaluate_on: how many images of each split are measured, before training and after each epoch
    (with max_steps at most about ten times, since an epoch of a small set is only a few steps).

    Model and loss are tried once on the first batch before the first step; what they remember is
    put back, except in a module's globals. Ctrl-C at any moment ends the run and returns what there
    is. Raises ValueError for arguments that cannot work, and FloatingPointError when the loss is
    not finite. An error that ends the training has the history so far as its `history`.
    """
    counts = {"batch_size": batch_size, "epochs": epochs, "evaluate_on": evaluate_on}
    if max_steps is not None:
        counts["max_steps"] = max_steps
    _check_numbers(counts, lr, schedule, beta)
    _check_model(model, loss)
    images = {"x_train": x_train} if x_test is None else {"x_train": x_train, "x_test": x_test}
    for name, x in images.items():
        _check_images(name, x, model, like=x_train)

    splits = {
        "train": _evenly_spaced(x_train, evaluate_on),
        "test": _evenly_spaced(x_test, evaluate_on),
    }
    steps_per_epoch = _steps_per_epoch(model, len(x_train), int(batch_size))
    total = int(max_steps or epochs * steps_per_epoch)
    run = _Run(
        model,
        x_train.detach(),
        splits,
        batch_size=int(batch_size),
        steps_per_epoch=steps_per_epoch,
        total=total,
        measure_every=total // 10 if max_steps else 1,
        beta=beta,
        loss=loss,
        seed=settings.seed() if seed is None else int(seed),
        on_step=on_step,
        bar=Progress(total, "training", progress),
    )
    change = None
    try:
        with (
            _one_fit_at_a_time,
            _seeded(run.seed),
            threads.chosen(x_train.device) as change,
        ):
            for name, x in images.items():
                _check_values(name, x, run.likelihood if loss is None else None)
            run.try_once()
            run.train(*_optimizer(model, optimizer, lr, schedule, total))
    except KeyboardInterrupt:
        run.history.interrupted = True
        with contextlib.suppress(KeyboardInterrupt):
            run.measure_if_changed()
    except Exception as error:
        error.history = run.history
        run.bar.close(f"stopped after {run.history.steps} steps by {type(error).__name__}")
        raise
    model.eval()
    run.bar.close(_summary(run.history, change))
    return run.history


@dataclass
class _Run:
    """One training: what its steps and its measurements share."""

    model: torch.nn.Module
    x: torch.Tensor
    splits: dict
    _: KW_ONLY
    batch_size: int
    steps_per_epoch: int
    total: int
    measure_every: int
    beta: object
    loss: object
    seed: int
    on_step: object
    bar: Progress
    history: History = field(default_factory=History)
    weight: float = None  # of the KL, at the last step

    def __post_init__(self):
        self.likelihood = likelihood_of(self.model)

    def weight_at(self, progress):
        return self.beta(progress) if callable(self.beta) else self.beta

    def train(self, optimizer, scheduler):
        """Train to the end, with a row of the history before, and after each epoch."""
        order = torch.Generator().manual_seed(self.seed)
        self.history.start = self._row()
        while self.history.steps < self.total:
            self._epoch(torch.randperm(len(self.x), generator=order), optimizer, scheduler)
            steps = self.history.steps
            if steps == self.total or steps - self._last_measured_step() >= self.measure_every:
                self.history.epochs.append(self._row())

    def _epoch(self, order, optimizer, scheduler):
        batches = order.to(self.x.device).split(self.batch_size)[: self.steps_per_epoch]
        self.model.train()
        started = time.perf_counter()
        try:
            for batch in batches[: self.total - self.history.steps]:
                self._step(self.x.index_select(0, batch), optimizer, scheduler)
        finally:
            self.history.seconds += time.perf_counter() - started

    def _step(self, x, optimizer, scheduler):
        history = self.history
        self.weight = self.weight_at(history.steps / max(1, self.total - 1))
        outputs = self.model(x)
        value = self._objective(outputs, x, self.weight)
        if not math.isfinite(value.item()):
            raise FloatingPointError(
                f"the loss is {value.item()} at step {history.steps}: "
                + _cause(self.model, history.steps, *outputs)
            )
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        history.steps += 1
        self.bar.update(history.steps)
        if self.on_step is not None:
            self.on_step(history.steps, self.model)

    def _objective(self, outputs, x, weight):
        """The scalar to minimise: the caller's loss, or the negative ELBO at this weight."""
        output, mu, logvar = outputs
        if self.loss is not None:
            return self.loss(output, x, mu, logvar)
        if output.numel() == x.numel():
            output = output.reshape(x.shape)  # some networks return flat pictures
        reconstruction = self.likelihood.nll(output, x).mean()
        if logvar is None:
            return reconstruction
        return reconstruction + weight * gaussian_kl(mu, logvar).sum() / len(x)

    def try_once(self):
        """One forward pass in each mode and one loss; everything is as before afterwards."""
        with measuring(self.model, self.loss, self.beta):
            for mode in ("evaluation", "training"):
                x = self.x[: self.batch_size].clone()
                self.model.train(mode == "training")
                what = f"model(x) in {mode} mode"
                outputs = _tried(f"{what} for x {list(x.shape)}", FLAT, self.model, x)
                _check_outputs(what, outputs, x)
            weight = _tried("beta(progress)", "beta is a number or a function", self.weight_at, 0.0)
            if not isinstance(weight, NUMBER):
                raise ValueError(f"beta must return a number, got {_describe(weight)}")
            what = "likelihood.nll(output, x)" if self.loss is None else LOSS
            output, mu, logvar = map(_describe, outputs)
            cure = f"It got output {output}, x {_describe(x)}, mu {mu}, logvar {logvar}"
            _check_value(_tried(what, cure, self._objective, outputs, x, weight))

    def measure_if_changed(self):
        """A last row, unless no step was done since the one before."""
        if self.history.steps > self._last_measured_step():
            self.history.epochs.append(self._row())

    def _last_measured_step(self):
        return self.history.epochs[-1]["step"] if self.history.epochs else 0

    def _row(self):
        """One row of the history, on the images of each split."""
        history = self.history
        row = {"step": history.steps, "seconds": history.seconds, "beta": self.weight}
        measure = self._measure_loss if self.likelihood is None else self._measure
        for split, x in self.splits.items():
            row[split] = None if x is None else measure(x)
        return row

    def _measure(self, x):
        return evaluate(self.model, x, seed=self.seed)

    def _measure_loss(self, x):
        """What can be measured without a likelihood; the loss in batches of the training's size."""
        losses, mus, kls = [], [], []
        with measuring(self.model, self.loss, seed=self.seed):
            self.model.eval()
            for images in x.clone().split(self.batch_size):
                output, mu, logvar = self.model(images)
                mus.append(mu.detach().flatten(1))
                kls.append(torch.zeros(1) if logvar is None else gaussian_kl(mu, logvar).detach())
                if len(images) == self.batch_size or not losses:
                    losses.append(self.loss(output, images, mu, logvar).item())
        return {
            "reconstruction": math.nan,
            "kl": sum(kl.double().sum().item() for kl in kls) / len(x),
            "negative_elbo": math.nan,
            "active_units": active_units(torch.cat(mus)),
            "loss": sum(losses) / len(losses),
        }


@contextlib.contextmanager
def _seeded(seed):
    """Gradients are on and the global random state starts from the seed; both are put back."""
    with keeping_random_states(), torch.enable_grad():
        torch.manual_seed(seed)
        yield


def _optimizer(model, optimizer, lr, schedule, total):
    """The optimizer and its schedule; without a schedule the rate stays the same."""
    if optimizer is not None:
        made = optimizer(model.parameters()) if callable(optimizer) else optimizer
        if made is optimizer or not isinstance(made, torch.optim.Optimizer):
            raise ValueError(
                "optimizer must be a function from parameters to an optimizer, such as "
                f"lambda parameters: torch.optim.SGD(parameters, lr=0.1), got {optimizer!r}"
            )
        return made, None
    if schedule == "constant":
        return _adam(model, lr, betas=(0.9, 0.999)), None
    adam = _adam(model, lr, betas=(0.9, 0.99))
    one_cycle = torch.optim.lr_scheduler.OneCycleLR
    return adam, one_cycle(adam, lr, total_steps=max(total, 2), cycle_momentum=False)


def _adam(model, lr, betas):
    """Adam in one kernel, where the device has one."""
    try:
        return torch.optim.Adam(model.parameters(), lr=lr, betas=betas, fused=True)
    except RuntimeError:
        return torch.optim.Adam(model.parameters(), lr=lr, betas=betas)


def _steps_per_epoch(model, n, batch_size):
    """Batches in an epoch; a last one of a single image is left out if BatchNorm would need two."""
    batches = math.ceil(n / batch_size)
    normalised = any(isinstance(module, BATCH_NORM) for module in model.modules())
    if not normalised or batches == 1 or batch_size == 1 or n % batch_size != 1:
        return batches
    print(
        f"One of the {n} images is left out in each epoch. It would be a batch of one, and "
        f"BatchNorm needs two. Another batch_size than {batch_size} uses all images."
    )
    return batches - 1


def _evenly_spaced(x, n):
    """At most n images, evenly spread: MNIST's first test images are easier than its last."""
    if x is None or len(x) <= n:
        return x
    return x[torch.linspace(0, len(x) - 1, n, device=x.device).round().long()]


def _in_words(end):
    """A measurement as one line."""
    units = f"{end['active_units']} active units"
    if "loss" in end:
        return f"loss {end['loss']:.4g}, KL {end['kl']:.1f} nats, {units}"
    return (
        f"reconstruction {end['reconstruction']:.1f} + KL {end['kl']:.1f} "
        f"= {end['negative_elbo']:.1f} nats, {units}"
    )


def _summary(history, change):
    """The line that the progress leaves. change: the number of threads, if it was changed."""
    line = f"{history.steps} steps in {history.seconds:.0f} s"
    if history.epochs:
        line += f": {_in_words(history.final)}"
    if history.interrupted:
        line = f"interrupted: {line}"
    return line if change is None else f"{line}, on {change}"


# ---- what is wrong, as far as it can be known before the first step


def _check_numbers(counts, lr, schedule, beta):
    for name, value in counts.items():
        if not isinstance(value, numbers.Integral) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    if schedule not in ("onecycle", "constant"):
        raise ValueError(f"schedule must be 'onecycle' or 'constant', got {schedule!r}")
    if not isinstance(lr, numbers.Real) or not 0 < lr < math.inf:
        raise ValueError(f"lr must be a number above 0, got {lr!r}")
    if callable(beta):
        return
    if not isinstance(beta, NUMBER) or not 0 <= beta < math.inf:
        raise ValueError(
            f"beta must be a number of at least 0 or a function of progress, got {beta!r}"
        )


def _check_model(model, loss):
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            "model has no parameter that can be trained. If all of them are frozen "
            "(requires_grad is False), call model.requires_grad_(True)"
        )
    if loss is None and likelihood_of(model) is None:
        raise ValueError(
            "model has no likelihood, so fit does not know what to minimise. Either pass a loss of "
            f"your own, loss=my_loss, with my_{LOSS} -> scalar. Or give the model a likelihood: "
            "model.likelihood = vaelab.Bernoulli() if it returns logits, or "
            'vaelab.Bernoulli(on="probabilities") if it ends in a sigmoid'
        )


def _check_images(name, x, model, like):
    images = isinstance(x, torch.Tensor) and x.is_floating_point() and x.dim() >= 2
    if not images or x.numel() == 0:
        raise ValueError(
            f"{name} must be a float tensor [N, ...] with at least one image, got {_describe(x)}: "
            f"bytes become floats in [0, 1] with {name}.float() / 255"
        )
    if x.shape[1:] != like.shape[1:]:
        raise ValueError(
            f"{name} is {list(x.shape)} and x_train {list(like.shape)}: give both the same shape"
        )
    for kind in ("device", "dtype"):
        ours, models = getattr(x, kind), {getattr(p, kind) for p in model.parameters()}
        if ours not in models:
            other = str(next(iter(models)))
            cure = f"{name}.to({other if kind == 'dtype' else repr(other)})"
            raise ValueError(f"{name} is {ours}, the model is {other}: give fit {cure}")


def _check_values(name, x, likelihood):
    low, high = x.detach().aminmax()
    if not math.isfinite(low) or not math.isfinite(high):
        bad = (~torch.isfinite(x)).flatten(1).any(1).nonzero()
        raise ValueError(
            f"{name} holds NaN or infinite values in {len(bad)} of {len(x)} images, "
            f"the first of them {name}[{int(bad[0])}]: clean the data before training"
        )
    if likelihood is not None:
        likelihood.check(x)


def _tried(what, cure, function, *arguments):
    """The function's result, or a ValueError that says what failed and what to do."""
    try:
        return function(*arguments)
    except Exception as error:
        raise ValueError(f"{what} raised {type(error).__name__}: {error}. {cure}") from error


def _check_outputs(what, outputs, x):
    """Raise ValueError unless the model returned (output, mu, logvar)."""
    if not isinstance(outputs, (tuple, list)) or len(outputs) != 3:
        raise ValueError(
            f"{what} must return three values, got {_describe(outputs)}: end its forward with "
            "`return output, mu, logvar`, with None as the logvar of an autoencoder"
        )
    _, mu, logvar = outputs
    codes = isinstance(mu, torch.Tensor) and mu.dim() >= 2 and len(mu) == len(x)
    if not codes or (logvar is not None and getattr(logvar, "shape", None) != mu.shape):
        raise ValueError(
            f"{what} must return (output, mu, logvar) with mu and logvar of one shape "
            f"[{len(x)}, L], got {_describe(mu)} and {_describe(logvar)}"
        )


def _check_value(value):
    """Raise ValueError unless the loss is one number that depends on what is trained."""
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        raise ValueError(
            f"loss must return one scalar tensor, got {_describe(value)}. Take the mean of several "
            "values, .mean(). Of a dict or a tuple return only the total. Leave out .item()"
        )
    if not value.requires_grad:
        raise ValueError(
            "loss does not depend on any trainable parameter: look for .detach(), .item() or "
            "torch.no_grad() in the loss and in the model's forward"
        )


def _describe(value):
    """A value in a few words: its type, and its shape or contents."""
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, dict):
        return f"a dict with {', '.join(map(repr, value))}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)} values"
    return "None" if value is None else f"a {type(value).__name__}"


def _cause(model, step, output, mu, logvar):
    """Why a loss is not finite, by what was not finite first."""
    if logvar is not None and logvar.max() > 80:
        highest = logvar.max().item()
        return f"logvar reached {highest:.0f} and exp(logvar) overflows: lower lr or keep a KL"
    tensors = [value for value in (mu, output) if isinstance(value, torch.Tensor)]
    if all(torch.isfinite(tensor).all() for tensor in tensors):
        return (
            "the outputs are finite, so the loss itself overflows: "
            "look for log(0), 0/0 or a large exp"
        )
    if step > 0:
        return "the network's own outputs are not finite: the last steps were too large, lower lr"
    if not all(torch.isfinite(p).all() for p in model.parameters()):
        return "the model's weights hold NaN before the first step: build the model anew"
    return "the network's own outputs are not finite: look for log, exp or a division in forward"
