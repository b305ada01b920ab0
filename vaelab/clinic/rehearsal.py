"""`rehearse`: train a copy of a VAE for a few steps, and say what is coming.

The copy is observed before and after, by what `checkup` observes. Causes are found before. What is
coming is a prognosis: a function of a `Rehearsed` that yields a `Finding`.
"""

import contextlib
import io
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from ..adapt import sliced, takes_model, unwrap
from ..elbo import gaussian_kl
from ..untouched import measuring
from . import judging
from .checkup import check_arguments, check_training_rows, eager, patient_of, refuse_spread
from .film import watch
from .findings import diagnose
from .meter import first_line
from .numbers import numbers
from .observation import Limits, Observation
from .observe import observe
from .report import Finding, Report
from .twin import twin_of
from .weights import Drawn

FEWEST_STEPS = 30
RATE = 1e-3  # of the default optimizer
LOWER = (10, 100)  # by how much a rate is lowered to see whether that helps
MOST_UNITS = 0.97  # of a layer; on simple pictures 90% may die in a training that goes well
LAST = 10  # steps that tell where a training has got to
OVERFLOW = 88  # exp of more is infinite in single precision
TOO_EARLY = ("sigma", "train-eval-gap", "overfit", "decoder-ignores-z", "no-better-than-mean")
TOO_EARLY += ("poor-fit", "prior-mismatch")
AFTERWARDS = ("non-finite", "outside-support", "loss-raises", "out-of-reach", "logvar")
PAGE = "docs/rehearsal.md#"


@dataclass(frozen=True, repr=False)
class Rehearsal(Report):
    """A `Report` of what is coming. trained: what was trained, and how, in words."""

    trained: str = ""

    @property
    def verdict(self):
        """One line. It never says that a training will go well."""
        return f"{self.trained}: {super().verdict}"


@dataclass(frozen=True)
class Path:
    """What a training went through: a number for each step. error: what ended it, if anything.

    losses, kls (nats an image), logvars (the largest). alarm: the film's, or None. after: an
    `Observation`, or None where the copy could not be observed any more.
    """

    losses: list = field(default_factory=list)
    kls: list = field(default_factory=list)
    logvars: list = field(default_factory=list)
    error: str = ""
    alarm: object = None
    after: Observation | None = None

    @property
    def finite(self):
        """Whether all numbers were finite; a KL spike is no illness of its own."""
        spike = self.alarm is not None and self.alarm.kind == "kl-spike"
        return all(map(math.isfinite, self.losses)) and (self.alarm is None or spike)

    @property
    def went_well(self):
        return bool(self.losses) and self.finite and not self.error and not self.rises

    @property
    def rises(self):
        """Whether the loss was clearly above its first value in more than half of the steps."""
        start = self.losses[0]
        above = [loss > start + 0.5 * abs(start) for loss in self.losses]
        return sum(above) > len(above) / 2

    @property
    def mse(self):
        """The mean squared error after it; infinite where there is no picture any more."""
        lost = self.after is None or self.after.picture is None
        return math.inf if lost else self.after.picture.mse

    @property
    def dead(self):
        """The largest share of dead units among the hidden layers."""
        return _dead_share(self.after) if self.after is not None else 0.0


@dataclass(frozen=True)
class Rehearsed:
    """before: an `Observation`. path: of the training. slower: of the same at a lower rate.

    times: by how much the rate was lower. slower is None where there was no reason to try it.
    """

    before: Observation
    path: Path
    slower: Path | None = None
    times: int = 1

    @property
    def helped(self):
        """Whether the training went well at the lower rate."""
        slower, path = self.slower, self.path
        if slower is None or not slower.went_well:
            return False
        return not path.went_well or slower.dead < MOST_UNITS and slower.mse < path.mse


@dataclass(frozen=True)
class Plan:
    """How a copy is trained. optimizer: parameters -> a torch.optim.Optimizer. loss: as called."""

    loss: Callable
    optimizer: Callable
    steps: int
    batch_size: int


def rehearse(
    model,
    x,
    loss=None,
    optimizer=None,
    steps=60,
    *,
    adapter=None,
    inputs=None,
    decode=None,
    x_train=None,
    inputs_train=None,
    purpose="generation",
    batch_size=64,
    seed=0,
):
    """Train a copy of a VAE for a few steps, and say what is coming: a `Rehearsal`, a `Report`.

    model, x, loss, adapter, inputs, decode, x_train, inputs_train, purpose: as in `checkup`. The
    copy is trained on random batches of x_train, or of x where that is not given.
    optimizer: a function from a list of parameters to an optimizer, default Adam with 1e-3. Your
    own optimizer holds the parameters of your model, so it cannot train the copy.
    steps: of training, at least 30. batch_size: rows of each step; the loss is measured at it too.

    Where the training goes wrong, a tenth of the rate is tried as well, and a hundredth.
    Your model, x, loss and random states are as before. Parameters of the loss are not trained.
    Raises ValueError for arguments that cannot be used, and shows how to adapt them.
    """
    check_arguments(model, x, loss, adapter, decode, batch_size, Limits())
    check_training_rows(model, x, x_train, inputs_train, purpose)
    optimizer = optimizer or _adam
    _check_plan(model, loss, optimizer, steps)
    owners = (model, loss, adapter, decode)
    with contextlib.ExitStack() as around:
        around.enter_context(measuring(*owners, seed=seed))
        around.enter_context(eager())
        around.enter_context(_without_denormals())
        around.enter_context(torch.inference_mode(False))
        around.enter_context(torch.enable_grad())
        twin, loss, adapter, decode = twin_of(unwrap(model), loss, adapter, decode)
        options = {"purpose": purpose, "batch_size": batch_size, "seed": seed}
        patient = patient_of(
            twin, x, loss, adapter, inputs, decode, x_train, inputs_train, **options
        )
        return _report(_rehearsed(patient, optimizer, steps), steps)


def _adam(parameters):
    return torch.optim.Adam(parameters, lr=RATE)


@contextlib.contextmanager
def _without_denormals():
    """Numbers below 1e-38 are 0 in the block: a saturated sigmoid's make a CPU ten times slower."""
    already = (torch.tensor(1e-40) * 1).item() == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)


def _check_plan(model, loss, optimizer, steps):
    """Raise ValueError for what no training can be made of."""
    if loss is None and not hasattr(model, "likelihood"):
        raise ValueError(
            "loss must be given, it is what a training minimises: rehearse(m, x, loss)"
        )
    if isinstance(optimizer, torch.optim.Optimizer):
        name, rate = type(optimizer).__name__, optimizer.param_groups[0].get("lr", RATE)
        raise ValueError(
            f"optimizer must be a function from parameters to an optimizer, got {name}, which "
            "holds the parameters of your model: "
            f"optimizer=lambda p: torch.optim.{name}(p, lr={float(rate):g})"
        )
    if not callable(optimizer):
        raise ValueError(
            "optimizer must be a function from parameters to an optimizer, got "
            f"{optimizer!r}: optimizer=lambda p: torch.optim.Adam(p, lr=1e-3)"
        )
    if not isinstance(steps, int) or steps < FEWEST_STEPS:
        raise ValueError(f"steps must be a whole number of at least {FEWEST_STEPS}, got {steps!r}")


# ---- the training


def _rehearsed(patient, optimizer, steps):
    """Observe the copy, train it, and train it more slowly if that went wrong: `Rehearsed`."""
    before = observe(patient, Limits())
    refuse_spread(before)
    form = before.form
    loss = form.call if form is not None and form.call is not None else patient.loss
    size = form.fixed_size if form is not None and form.fixed_size else patient.batch_size
    plan = Plan(loss, optimizer, steps, size)
    found = Rehearsed(before, _trained(patient, plan))
    if not _a_lower_rate_may_help(found):
        return found
    for times in LOWER:
        slower = _trained(patient, replace(plan, optimizer=_slowed(optimizer, times)))
        found = replace(found, slower=slower, times=times)
        if found.helped:
            break
    return found


def _slowed(optimizer, times):
    """The same function from parameters to an optimizer, with a learning rate lower by `times`."""

    def make(parameters):
        slower = optimizer(parameters)
        for group in slower.param_groups:
            group["lr"] = group["lr"] / times
        return slower

    return make


def _trained(patient, plan):
    """The `Path` of one training; afterwards the copy is as before."""
    model, path = patient.model, Path()
    parameters = [p for p in model.parameters() if p.requires_grad]
    with measuring(model, plan.loss, patient.adapter, seed=patient.seed):
        optimizer = _made_for(parameters, plan.optimizer)
        if optimizer is None:
            return path
        model.train()
        with contextlib.redirect_stdout(io.StringIO()):  # the film's alarm stands in the report
            with watch(model, adapter=_of_outputs(patient.adapter), stop=False) as film:
                error = _first_error(_train, patient, plan, optimizer, parameters, film, path)
        path = replace(path, error=error, alarm=film.alarm)
        try:
            return replace(path, after=observe(patient, Limits()))
        except Exception as broken:  # a copy that cannot run any more is no reason to stop
            return replace(path, error=path.error or first_line(broken))


def _of_outputs(adapter):
    """The adapter, if it reads what forward returns: a film needs no other."""
    return None if adapter is None or takes_model(adapter) else adapter


def _made_for(parameters, make):
    """The optimizer of these parameters, None without any; refuses one of other parameters."""
    if not parameters:
        return None
    optimizer = make(parameters)
    if not isinstance(optimizer, torch.optim.Optimizer):
        got = type(optimizer).__name__
        raise ValueError(f"optimizer must return a torch.optim.Optimizer, got {got}")
    own = set(map(id, parameters))
    held = [p for group in optimizer.param_groups for p in group["params"]]
    if not own.issuperset(map(id, held)):
        raise ValueError(
            "optimizer must give its argument to the optimizer, got one that holds other "
            "parameters: optimizer=lambda p: torch.optim.Adam(p, lr=1e-3)"
        )
    return optimizer


def _first_error(function, *arguments):
    """The error that a function raises, in a line; "" for none."""
    try:
        function(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {first_line(error)}"
    return ""


def _train(patient, plan, optimizer, parameters, film, path):
    """The usual loop; each step is written into the path. It ends where the loss is not finite."""
    x, inputs = patient.x, patient.inputs
    if patient.x_train is not None and (inputs is None or patient.inputs_train is not None):
        x, inputs = patient.x_train, patient.inputs_train
    for _ in range(plan.steps):
        rows = torch.randint(len(x), (plan.batch_size,), device="cpu").to(x.device)
        batch = x[rows]
        reconstruction, mu, logvar = patient.run(batch, sliced(inputs, rows.cpu()))
        target = batch.to(reconstruction.dtype) if batch.is_floating_point() else batch
        loss = plan.loss(reconstruction, target, mu, logvar)
        film.step(loss)
        path.losses.append(loss.item())
        path.kls.append(gaussian_kl(mu, logvar).flatten(1).sum(1).mean().item())
        path.logvars.append(logvar.max().item())
        if not math.isfinite(path.losses[-1]):
            return
        optimizer.zero_grad()
        loss.backward(inputs=parameters)
        optimizer.step()


def _a_lower_rate_may_help(found):
    return bool(found.path.losses) and (not found.path.went_well or _units_died(found))


def _dead_share(seen):
    return max((units.share for units in seen.units), default=0.0)


def _units_died(found):
    """Whether few units were dead before, and all but a few of a layer are after, to no good."""
    seen = found.path.after
    if seen is None or seen.picture is None or _dead_share(found.before) > 0.6:
        return False
    harmed = seen.comparable and seen.picture.mse > 0.8 * seen.picture.mean_image_mse
    return harmed and found.path.dead > MOST_UNITS


# ---- what is coming


def _report(found, steps):
    """The `Rehearsal` of what was rehearsed."""
    before, path = found.before, found.path
    # The symptoms of this moment are no business of a rehearsal.
    causes = diagnose(replace(before, drawn=Drawn(encoder=True, decoder=True)))
    findings = [f for f in causes.findings if f.code != "untrained"]
    known, unchecked = {f.code for f in findings}, {}
    for prognosis in PROGNOSES:
        try:
            findings += [f for f in prognosis(found) if f.code not in known]
            known |= {f.code for f in findings}
        except Exception as error:  # one prognosis must not take the others with it
            unchecked[prognosis.__name__] = f"{type(error).__name__}: {first_line(error)}"
    early = f"{steps} steps cannot show it"
    unchecked |= causes.unchecked | dict.fromkeys(TOO_EARLY, early)
    codes = {*causes.looked_for, *CODES} - {"untrained", *TOO_EARLY}
    form = before.form
    return Rehearsal(
        findings=findings,
        numbers=_numbers(found),
        looked_for=tuple(sorted(codes)),
        unchecked={code: why for code, why in unchecked.items() if code not in codes},
        beta=form and form.beta,
        sigma2=form and form.sigma2,
        loss_form=form and form.name,
        trained=f"{len(path.losses)} steps on a copy",
    )


def _coming(code, evidence, remedy):
    see = f"08_nan_loss, {PAGE}{code}" if code in ("non-finite", "rate") else PAGE + code
    return Finding(code, "serious", evidence, remedy, see)


def rate(found):
    """A rate that makes the loss rise, or that kills units, where a lower one does not."""
    path, slower = found.path, found.slower
    if not found.helped:
        return
    ends = f"the loss went from {_ends(path.losses)}"
    lower = f"at 1 / {found.times} of the rate"
    if not path.finite:
        text = f"the training broke, {ends}; {lower} it went from {_ends(slower.losses)}"
    elif path.rises:
        text = (
            f"the loss was above its start in most steps, {ends}; {lower}, {_ends(slower.losses)}"
        )
    elif path.error:
        text = f"the training stops in step {len(path.losses) + 1}, and not {lower}: {path.error}"
    else:
        shares = f"from {_dead_share(found.before):.0%} to {path.dead:.0%} of a layer"
        errors = f"mean squared error {path.mse:.3g}, {lower} {slower.mse:.3g}"
        text = f"dead units grew {shares}, where they pass no gradient; {errors}"
    remedy = f"Divide the learning rate by {found.times} or more: these steps went better there."
    yield _coming("rate", text, remedy)


def non_finite(found):
    """What the film saw, and a log-variance on its way to an overflow."""
    path = found.path
    tops = path.logvars
    remedy = "Bound logvar, as in logvar.clamp(-10, 10), and lower the learning rate."
    if not path.finite and path.alarm is not None:
        place = f"step {path.alarm.step}: {path.alarm.text}"
        yield _coming("non-finite", place, path.alarm.remedy)
    elif not path.finite:
        text = f"the loss is {path.losses[-1]} in step {len(path.losses)}"
        yield _coming("non-finite", text, remedy)
    elif len(tops) > 2 * LAST:
        last = statistics.fmean(tops[-LAST:])
        pace = (last - statistics.fmean(tops[-2 * LAST : -LAST])) / LAST
        if last > max(3, tops[0] + 2) and pace > 0.02:
            step = len(tops) + (OVERFLOW - last) / pace
            text = f"the largest logvar grew from {tops[0]:.3g} to {tops[-1]:.3g}"
            pace_text = f"at this pace exp(logvar) overflows about step {step:.0f}"
            yield _coming("non-finite", f"{text}; {pace_text}", remedy)


def seen_afterwards(found):
    """What `checkup` finds in the trained copy, of the codes that a few steps can show."""
    path = found.path
    if path.error and path.finite:
        step = f"step {len(path.losses) + 1}"
        remedy = (
            "Run this step by hand. If it is the loss that raises, bring outputs and data into the "
            "range that it is for."
        )
        yield _coming("loss-raises", f"the training stops in {step}: {path.error}", remedy)
    if path.after is None:
        return
    for one in diagnose(path.after).findings:
        if one.code in AFTERWARDS:
            evidence = f"after {len(path.losses)} steps {one.evidence}"
            yield replace(one, evidence=evidence)


def saturated_output(found):
    """An output layer that runs to an end of its range, and an error that does not fall."""
    before, after = found.before.picture, found.path.after and found.path.after.picture
    if not after or not found.before.comparable or after.mse < 0.9 * after.mean_image_mse:
        return
    x = found.path.after.x
    if not judging.is_saturated(x, after) or judging.is_saturated(x, before):
        return
    (_, stuck_before, _), (at_end, stuck, _) = judging.ends(x, before), judging.ends(x, after)
    text = (
        f"{at_end:.0%} of the outputs sit at an end of their range, and so do {stuck:.0%} of the "
        f"values that are far off, {stuck_before:.0%} before; mean squared error {after.mse:.3g}, "
        f"of the mean image {after.mean_image_mse:.3g}"
    )
    if before.preactivation is not None and after.preactivation is not None:
        moved = f"from {before.preactivation:.3g} to {after.preactivation:.3g}"
        text += f"; mean input of the last activation {moved}"
    remedy = "Start the last bias at logit(mean pixel), and train from new weights."
    yield _coming("saturated-output", text, remedy)


def posterior_collapse(found):
    """A KL above the collapse threshold that stays at zero."""
    seen, path = found.path.after, found.path
    if seen is None or seen.form is None or seen.form.stateful or seen.codes is None:
        return
    weight, threshold = judging.kl_weight(seen), seen.loss.threshold
    if weight is None or not threshold or weight.value < threshold:
        return
    unused = seen.codes.information < 0.1 and seen.picture.follows < 0.01
    if not unused or max(path.kls[-LAST:]) > 1:
        return
    text = (
        f"{weight.text}, beyond the collapse threshold {threshold:.3g} of these data; KL from "
        f"{_ends(path.kls)} nats; {judging.facts(seen)}"
    )
    yield _coming("posterior-collapse", text, judging.remedy_of_a_collapse(seen))


PROGNOSES = (rate, non_finite, seen_afterwards, saturated_output, posterior_collapse)
CODES = ("rate", "non-finite", "loss-raises", "saturated-output", "posterior-collapse")


# ---- the numbers


def _ends(values):
    """Where a series began and where it got to, in words."""
    return f"{values[0]:.3g} to {statistics.fmean(values[-LAST:]):.3g}"


def _numbers(found):
    """Name -> text: the way of the training, then what is known of the copy after it."""
    path, measured = found.path, {}
    if not path.losses:
        measured["training"] = path.error or "no parameter of the model requires a gradient"
    else:
        measured["loss on the way"] = f"from {_ends(path.losses)}"
        measured["KL on the way"] = f"from {_ends(path.kls)} nats"
        measured["largest logvar on the way"] = f"from {_ends(path.logvars)}"
    measured["dead units on the way"] = (
        f"from {_dead_share(found.before):.0%} to {path.dead:.0%} of a layer"
    )
    return measured | numbers(path.after or found.before)
