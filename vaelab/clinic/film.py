"""The film: watch a training loop, and stop at the first value that is not finite."""

import functools
import html
import math
import statistics
from collections import deque
from dataclasses import dataclass, field

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from .. import adapt
from ..elbo import gaussian_kl
from ..outputs import spread_named, tensors_in
from . import origin
from .doors import find_door
from .origin import Pass, finite

PAGE = "08_nan_loss, docs/film.md"
OUTPUTS = ("reconstruction", "mu", "logvar")
MEASURED = ("kl", "error", "low", "high")
TERM_OF = {"reconstruction": "reconstruction", "mu": "kl", "logvar": "kl"}
QUIET_STEPS = 20  # without an alarm for a KL spike
MEDIAN_STEPS = 50
LEAST_SPIKE = 10.0  # nats
ERROR_IMAGES = 32  # of each batch; all of them would double the cost of the film
# Values of a gradient that is looked at in every step. A layer's bias tells of its weight, too.
SMALL = 10_000
CURES = {  # by the operation that a value stopped being finite in
    "exp": "Bound the log-variance before exp, as in logvar = logvar.clamp(-10, 10).",
    "log": "Give log a positive number, as in torch.log(value.clamp(min=1e-6)).",
    "log1p": "log1p needs values above -1. Clamp them, or find what made them smaller.",
    "div": "Add a small number to what you divide by, as in value / (std + 1e-6).",
    "sqrt": "The slope of sqrt is infinite at 0. Write torch.sqrt(value + 1e-8).",
    "acos": "acos needs values inside (-1, 1). Clamp them to [-0.999, 0.999] first.",
    "asin": "asin needs values inside (-1, 1). Clamp them to [-0.999, 0.999] first.",
    "pow": "Clamp the base to positive numbers first, as in value.clamp(min=1e-6).",
}
RATE = (
    "Start again with a tenth of the learning rate, or less. If the layer computes in half "
    "precision, let it compute in float32."
)
ODD_BATCH = (
    "Compare the batch of this step with others, as in print(x.min(), x.max(), x.mean()). If it is "
    "odd, repair its rows. If not, start again with a tenth of the learning rate, or less."
)
BAD_WEIGHTS = "Load or draw the weights again: no step was made since."
BAD_BATCH = (
    "Look for these rows in the data, as in torch.isfinite(x).flatten(1).all(1), and drop or "
    "repair them."
)
IN_THE_LOSS = {
    "reconstruction": "Look for log of 0 and for division by 0 in the reconstruction term. For "
    "cross-entropy use binary_cross_entropy_with_logits, without a sigmoid in the model. "
    "Bound a learned sigma from below.",
    "kl": "Bound logvar where the encoder returns it, as in logvar.clamp(-10, 10).",
}
ANY_TERM = "Look for log of 0, for division by 0 and for exp of a large number in this term."
NOT_READ = (
    "(reconstruction, mu, logvar) could not be read from what forward returns, so only finiteness "
    "is watched. Say where they are: adapter=lambda out: (out[0], out[1], out[2])."
)
NOTHING_SEEN = (
    "No forward in training mode was seen. Call the model itself, as in model(x), and watch the "
    "model that the loop calls."
)


@dataclass(frozen=True)
class Alarm:
    """What stopped a training.

    step: of the optimizer, the one under way, from 1. batch: the number of the forward in
    training, from 1. kind: "input", "weight", "forward", "backward", "loss", "gradient" or
    "kl-spike". layer: its name, "" for the model's own forward and for the loss. operation:
    the torch function, "" if it was not found. term: of the loss, "" if it was not found.
    text: what was seen. before: the last good values. remedy: what to do. see: where to read more.
    """

    step: int
    batch: int
    kind: str
    text: str
    before: str
    remedy: str
    layer: str = ""
    operation: str = ""
    term: str = ""
    see: str = PAGE

    def __str__(self):
        return (
            f"step {self.step}, batch {self.batch} ({self.kind}): {self.text}\n"
            f"  before: {self.before}\n  do:     {self.remedy}\n  see:    {self.see}"
        )


class Stopped(RuntimeError):
    """The film stopped a training; `alarm` says where and why."""

    def __init__(self, alarm):
        super().__init__(str(alarm))
        self.alarm = alarm


@dataclass
class Record:
    """One value for each step on record; NaN where it was not known.

    step: of the optimizer, from 1. kl: nats for each image. error: mean squared error of the
    reconstruction against the first input, for the first 32 images of a batch. gradient: the norm
    over all parameters. low, high: the range of the reconstruction. loss: what `film.step` got.
    """

    step: list = field(default_factory=list)
    kl: list = field(default_factory=list)
    error: list = field(default_factory=list)
    gradient: list = field(default_factory=list)
    low: list = field(default_factory=list)
    high: list = field(default_factory=list)
    loss: list = field(default_factory=list)

    def add(self, **row):
        """Append the values of one step."""
        for name, value in row.items():
            getattr(self, name).append(value)

    def __str__(self):
        """The last row, in words."""
        if not self.step:
            return "no step was complete before"
        names = ("kl", "error", "gradient", "low", "high", "loss")
        last = {name: getattr(self, name)[-1] for name in names}
        known = [f"{name} {value:.4g}" for name, value in last.items() if not math.isnan(value)]
        return f"the last good step on record is {self.step[-1]}: {', '.join(known)}"


def watch(model, adapter=None, stop=True, spike=10.0, every=10):
    """The `Film` of a training loop, for `with vaelab.watch(model) as film:` around it.

    It watches forwards of the model in training mode with gradients, and the steps of every
    optimizer that holds a parameter of it. At the first value that is not finite it raises
    `Stopped`, which names step, layer and term, and also when the KL exceeds `spike` times the
    median of the last 50 steps and 10 nats, without a better reconstruction. stop: False prints the
    alarm once instead, and training goes on. adapter: from what forward returns to (reconstruction,
    mu, logvar); without it they are found as in `checkup`. One that calls the model itself is not
    used, and `film.note` says so. every: steps from one row of the record to the next. The KL, and
    whether values are finite, are watched in each step.
    Raises ValueError for arguments that cannot work, and RuntimeError for a model that is watched
    already.
    """
    if not isinstance(model, torch.nn.Module):
        raise ValueError(
            f"model must be a torch.nn.Module, got {type(model).__name__}: "
            "with vaelab.watch(model) as film:"
        )
    if adapter is not None and not callable(adapter):
        raise ValueError(
            "adapter must be a function of what forward returns, got "
            f"{adapter!r}: adapter=lambda out: (out[0], out[1], out[2])"
        )
    if isinstance(spike, bool) or not isinstance(spike, (int, float)) or not spike > 1:
        raise ValueError(f"spike must be a number above 1, got {spike!r}: spike=10")
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"every must be a whole number of at least 1, got {every!r}: every=10")
    film = Film(model, adapter, stop, spike, every)
    if adapter is not None and adapt.takes_model(adapter):
        film._cannot_read("The adapter that was given calls the model itself.")
    return film


def _harmless(hook):
    """The hook, which lets only `Stopped` out: an error of the film must not end a training."""

    @functools.wraps(hook)
    def guarded(film, *args):
        try:
            return hook(film, *args)
        except Stopped:
            raise
        except Exception as error:
            film.note = f"the film failed in a step: {type(error).__name__}: {error}"

    return guarded


class Film:
    """What `watch` returns: a context manager, and afterwards what was seen.

    alarm: the first `Alarm`, or None. record: a `Record`. steps: of the optimizer. batches: the
    forwards in training. note: what could not be watched, or "".
    """

    def __init__(self, model, adapter=None, stop=True, spike=10.0, every=10):
        self.model, self.stop, self.spike, self.every = model, stop, spike, every
        self.record, self.alarm, self.note = Record(), None, ""
        self.steps, self.batches = 0, 0
        self._kls = deque(maxlen=MEDIAN_STEPS)
        self._adapter, self._adapter_known = adapter, adapter is not None
        self._handles, self._parameters, self._used = [], set(), False
        self._begin_step()

    def __reduce__(self):
        """A copy of a watched model holds an idle film, so that it can be copied and saved."""
        return Film, (None,)

    def _begin_step(self):
        self._pass, self._suspect = None, None
        self._terms, self._measured = {}, {}
        self._stepped = set()  # the optimizers that have stepped since the last forward

    # ---- the block

    def __enter__(self):
        if self._used:
            raise RuntimeError(
                "a film is for one block: start a new one, with vaelab.watch(model) as film:"
            )
        hooks = self.model._forward_hooks.values()
        if any(isinstance(getattr(hook, "__self__", None), Film) for hook in hooks):
            raise RuntimeError(
                "this model is watched already: keep one of the two vaelab.watch(model) only"
            )
        self._used = True
        self._parameters = {id(parameter) for parameter in self.model.parameters()}
        self._handles = [
            self.model.register_forward_pre_hook(self._before_forward, with_kwargs=True),
            self.model.register_forward_hook(self._after_forward, with_kwargs=True),
            register_optimizer_step_pre_hook(self._before_step),
        ]
        return self

    def __exit__(self, *error):
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._begin_step()
        if not self.batches:
            self.note = self.note or NOTHING_SEEN

    def step(self, loss, **terms):
        """Say which values the loss has, before backward, so that an alarm can name the term.

        loss: the loss. terms: by name, such as reconstruction=r, kl=k. All are numbers, or tensors
        of one value. Raises `Stopped` if one of them is not finite, and ValueError for others.
        """
        values = {name: _number(name, value) for name, value in terms.items()}
        values["loss"] = _number("loss", loss)
        called_after = self._stepped and self.record.step[-1:] == [self.steps]
        if called_after:  # after the optimizer's step, whose row is there already
            self.record.loss[-1] = values["loss"]
        self._terms = values
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            text = f"the term {bad[0]} of the loss is not finite ({shown}){self._ranges()}"
            self._alarm("loss", text, IN_THE_LOSS.get(bad[0], ANY_TERM), term=bad[0])

    # ---- forward

    def _watches(self, module):
        running = module is self.model and self._handles and module.training
        return running and torch.is_grad_enabled()

    @_harmless
    def _before_forward(self, module, args, kwargs):
        if not self._watches(module):
            return
        if self._stepped:
            self._begin_step()
        earlier = self._pass  # gradients are accumulated over several passes
        if earlier and self._suspect is None and not finite(earlier.gradients.values()):
            self._suspect = earlier
        self.batches += 1
        self._pass = Pass.begin(self.batches, module, args, kwargs)

    @_harmless
    def _after_forward(self, module, args, kwargs, outputs):
        if not self._watches(module) or self._pass is None:
            return
        self._find_adapter(outputs)
        named = self._named(outputs)
        self._measured = _measured(named, self._pass.tensors, whole=self._on_record)
        self._pass.follow(named)
        if not math.isfinite(self._measured["sum"]) and not finite(named.values()):
            self._explain_forward(self._pass)
        self._check_kl(self._measured["kl"])

    def _find_adapter(self, outputs):
        """Find out once how (reconstruction, mu, logvar) are read from what forward returns."""
        if self._adapter_known:
            return
        self._adapter_known = True
        try:
            x, _, _ = self._pass.x_and_inputs
            if type(outputs) is tuple and adapt.are_three(outputs, x, self.model):
                self._adapter = tuple
                return
            door = find_door(self.model, *self._pass.x_and_inputs)
            if door.adapter is not None and adapt.takes_model(door.adapter):
                raise ValueError("forward does not return all three")
            self._adapter = door.adapter or tuple
        except Exception as error:
            self._cannot_read(error)

    def _cannot_read(self, error):
        self._adapter = None
        self.note = f"{NOT_READ} {error}"

    def _named(self, outputs):
        """Name -> float tensor, for all that forward returned; mu and logvar are [B, L]."""
        if self._adapter is tuple and isinstance(outputs, tuple) and len(outputs) == 3:
            pairs = zip(OUTPUTS, outputs, strict=True)
            return {name: tensor for name, tensor in pairs if tensor is not None}
        named = {str(place): tensor for place, tensor in tensors_in(outputs).items()}
        if self._adapter is None:
            return named
        try:
            three = dict(zip(OUTPUTS, self._adapter(outputs), strict=True))
        except Exception as error:
            self._cannot_read(error)
            return named
        own = {id(tensor): name for name, tensor in three.items()}
        renamed = {own.get(id(tensor), name): tensor for name, tensor in named.items()}
        return renamed | {name: tensor for name, tensor in three.items() if tensor is not None}

    def _explain_forward(self, one):
        bad = [tensor for tensor in one.tensors if not finite([tensor])]
        if bad:
            text = f"the batch holds NaN or infinite values{_rows(bad[0])}, before the first layer"
            self._alarm("input", text, BAD_BATCH)
            return
        weights = origin.bad_weights(self.model)
        if weights:
            text = f"the parameter {weights[0]} is not finite"
            layer = weights[0].rpartition(".")[0]
            self._alarm("weight", text, RATE if self.steps else BAD_WEIGHTS, layer=layer)
            return
        found = origin.forward_origin(self.model, one)
        if found is None:
            text = "forward returned values that are not finite, but not when it was run again"
            self._alarm("forward", text, RATE)
            return
        text = f"the first value that is not finite came from {found}"
        self._alarm("forward", text, CURES.get(found.operation, RATE), found)

    def _check_kl(self, kl):
        """An alarm for a KL far above the last steps' that did not buy a better reconstruction."""
        if len(self._kls) < QUIET_STEPS or not math.isfinite(kl):
            return
        usual = statistics.median(self._kls)
        if kl <= max(LEAST_SPIKE, self.spike * usual):
            return
        errors = self.record.error[-math.ceil(MEDIAN_STEPS / self.every) :]
        error = _measured(self._pass.outputs, self._pass.tensors, whole=True)["error"]
        unknown = math.isnan(error) and len(self._kls) < MEDIAN_STEPS
        if unknown or error < statistics.median(errors):
            return
        text = f"the KL is {kl:.4g} nats, and its median over the last steps is {usual:.4g}"
        self._alarm("kl-spike", text + self._ranges(), ODD_BATCH, term="kl")

    # ---- backward and the step

    @_harmless
    def _before_step(self, optimizer, args, kwargs):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if not any(id(parameter) in self._parameters for parameter in parameters):
            return None
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._check_step(optimizer, parameters)
            return None

        def closed():  # forward and backward run inside the step, as in Lightning
            value = closure()
            self._check_step(optimizer, parameters)
            return value

        return args[:1], {**kwargs, "closure": closed}

    @_harmless
    def _check_step(self, optimizer, parameters):
        if _skipped(optimizer):
            return
        if id(optimizer) in self._stepped:
            self._begin_step()
        gradients = [p.grad for p in parameters if p.grad is not None and not p.grad.is_sparse]
        looked_at = gradients
        if not self._on_record:
            looked_at = [g for g in gradients if g.numel() <= SMALL] or gradients
        norm = _norm(looked_at, optimizer)
        if not math.isfinite(norm) and not finite(gradients):
            self._pass = self._suspect or self._pass
            self._explain_gradients(self._pass)
        self._write_down(norm)
        self._stepped.add(id(optimizer))

    @property
    def _on_record(self):
        """Whether the step that is under way gets a row in the record."""
        return (self._step_number - 1) % self.every == 0

    def _write_down(self, norm):
        """Count the step, and give it its row; a second optimizer adds its gradient to the row."""
        on_record = self._on_record
        if self._stepped:
            if on_record:
                self.record.gradient[-1] = math.hypot(self.record.gradient[-1], norm)
            return
        self.steps += 1
        self._kls.append(self._measured.get("kl", math.nan))
        if on_record:
            self.record.add(
                step=self.steps,
                **{name: self._measured.get(name, math.nan) for name in MEASURED},
                gradient=norm,
                loss=self._terms.get("loss", math.nan),
            )

    def _explain_gradients(self, one):
        sent = one.gradients if one else {}
        bad = [name for name, gradient in sent.items() if not finite([gradient])]
        good = [name for name in sent if name not in bad]
        term = TERM_OF.get(bad[0], "") if bad else ""
        if term != "reconstruction":
            found = origin.backward_origin(self.model, one, good, self._named) if good else None
            if found:
                text = f"the first gradient that is not finite came from {found}"
                self._alarm("backward", text, CURES.get(found.operation, RATE), found)
                return
        if bad:
            text = f"the loss sends a gradient that is not finite into {bad[0]}{self._ranges()}"
            self._alarm("loss", text, IN_THE_LOSS.get(term, ANY_TERM), term=term)
            return
        # All that went through the outputs is finite: the loss uses this parameter itself.
        name = (origin.bad_gradients(self.model) or ["of the optimizer"])[-1]
        term = "reconstruction" if spread_named(name) else ""
        text = f"the gradient of the parameter {name} is not finite{self._ranges()}"
        kind = "loss" if term else "gradient"
        layer = name.rpartition(".")[0]
        self._alarm(kind, text, IN_THE_LOSS.get(term, ANY_TERM), term=term, layer=layer)

    # ---- what is said

    @property
    def _step_number(self):
        return self.steps + (0 if self._stepped else 1)

    def _alarm(self, kind, text, remedy, found=None, term="", layer=""):
        """Keep the first alarm, and stop the training or print it."""
        if self.alarm is not None:
            return
        self.alarm = Alarm(
            step=self._step_number,
            batch=self._pass.number if self._pass else self.batches,
            kind=kind,
            text=text,
            before=str(self.record),
            remedy=remedy,
            layer=found.layer if found else layer,
            operation=found.operation if found else "",
            term=term,
        )
        if self.stop:
            raise Stopped(self.alarm)
        print(self.alarm)

    def _ranges(self):
        """The ranges of what the last forward returned, as text."""
        outputs = self._pass.outputs if self._pass else {}
        return "".join(f"; {name} {origin.span(t)}" for name, t in outputs.items())

    def __repr__(self):
        lines = [f"{self.steps} steps, {self.batches} batches", str(self.record)]
        lines += [self.note] if self.note else []
        lines.append(str(self.alarm) if self.alarm else "no alarm")
        return "\n".join(lines)

    def _repr_html_(self):
        return f"<pre>{html.escape(repr(self))}</pre>"

    def figure(self):
        """Four panels over the steps: KL, error, gradient, and the range of the output."""
        import matplotlib.pyplot as plt

        record = self.record
        panels = {
            "KL (nats per image)": {"": record.kl},
            "squared error": {"": record.error},
            "norm of the gradient": {"": record.gradient},
            "range of the output": {"lowest": record.low, "highest": record.high},
        }
        with plt.style.context("vaelab.vaelab"):
            figure, axes = plt.subplots(2, 2, figsize=(8, 4.8), sharex=True)
            for axis, (title, curves) in zip(axes.flat, panels.items(), strict=True):
                _panel(axis, title, record.step, curves)
                if self.alarm:
                    axis.axvline(self.alarm.step, color="0.2", ls="--", label="alarm")
            for axis in axes[1]:
                axis.set_xlabel("step")
            if self.alarm:
                axes[0, 0].legend(loc="lower right")
        return figure


def _panel(axis, title, steps, curves):
    """Curves over the steps; on a logarithmic scale if the values span a factor of 100."""
    axis.set_title(title)
    for label, values in curves.items():
        axis.plot(steps, values, label=label)
    (only, *others) = curves.values()
    positive = [value for value in only if 0 < value < math.inf]
    if not others and positive and max(positive) > 100 * min(positive):
        axis.set_yscale("log")
    if others:
        axis.legend()


def _measured(named, given, whole):
    """Name -> number of one forward; "sum" is not finite where one of the outputs is not.

    whole: all of MEASURED, for a row of the record, and not the KL only.
    """
    with torch.no_grad():
        if "reconstruction" in named:
            values = _of_the_three(*(named.get(name) for name in OUTPUTS), given, whole)
        else:
            values = {name: tensor.detach().float().sum() for name, tensor in named.items()}
        found = list(values.values())
        device = found[0].device
        known = torch.stack([value.to(device) for value in found]).tolist()
    unknown = dict.fromkeys(MEASURED, math.nan)
    return unknown | dict(zip(values, known, strict=True)) | {"sum": sum(known)}


def _of_the_three(reconstruction, mu, logvar, given, whole):
    """Name -> scalar tensor. Neither a sum nor an extreme is finite where one value is not."""
    reconstruction = reconstruction.float()
    values = {}
    if logvar is not None:
        kl = gaussian_kl(mu.float(), logvar.float())
        values["kl"] = kl.sum() / len(mu)
    if not whole:
        return values | {"outputs": reconstruction.sum()}
    values["low"], values["high"] = reconstruction.aminmax()
    if given and given[0].numel() == reconstruction.numel():
        x = given[0].reshape(reconstruction.shape)
        values["error"] = _error(reconstruction[:ERROR_IMAGES], x[:ERROR_IMAGES])
    return values


def _error(reconstruction, x):
    """The mean squared error; for images in [0, 1] that of a sigmoid, if it fits better."""
    as_it_is = (reconstruction - x).square().mean()
    through_sigmoid = (torch.sigmoid(reconstruction) - x).square().mean()
    low, high = x.aminmax()
    may_be_logits = (low >= 0) & (high <= 1)
    return torch.where(may_be_logits, torch.minimum(as_it_is, through_sigmoid), as_it_is)


def _norm(gradients, optimizer):
    """The norm of all gradients, a number; without the factor of a GradScaler."""
    if not gradients:
        return 0.0
    norms = torch._foreach_norm(gradients)
    if len({(norm.dtype, norm.device) for norm in norms}) > 1:
        norms = [norm.float().to(gradients[0].device) for norm in norms]
    norm = math.hypot(*torch.stack(norms).tolist())
    scale = getattr(optimizer, "grad_scale", None)
    return norm if scale is None else norm / float(scale)


def _skipped(optimizer):
    """Whether a GradScaler has told a fused optimizer to leave this step out."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and float(found) > 0


def _number(name, value):
    try:
        return float(value.detach() if isinstance(value, torch.Tensor) else value)
    except (TypeError, ValueError, RuntimeError):
        got = f"shape {list(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)
        raise ValueError(
            f"{name} must be one number, got {got}: film.step(loss, {name}={name}.mean())"
        ) from None


def _rows(tensor):
    """Which rows of a batch are not finite, as text."""
    if tensor.dim() < 2:
        return ""
    bad = (~torch.isfinite(tensor).flatten(1).all(1)).nonzero().flatten().tolist()
    shown = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
    return f" in {len(bad)} of its {len(tensor)} rows ({shown})"
