"""Run somebody's VAE on a few images and write down what it does: an `Observation`.

What is indispensable is the model's output in eval mode. Everything else is tried: what cannot be
measured is None, and `Observation.unmeasured` says why.
"""

import math
from dataclasses import replace

import torch
import torch.nn.functional as F

from ..adapt import Outputs, pieces
from ..diagnostics import active_units, code_swap
from ..elbo import gaussian_kl
from ..latents import two_sample_test
from ..threshold import collapse_threshold
from .activations import SQUASHERS, Linearised, Replaced, Watch, composed_range
from .cost import budget
from .forms import CATEGORICAL, LINKS
from .losses import recover, value_on
from .meter import Shapes, first_line
from .noise import read_noise
from .observation import (
    FEWEST_IMAGES,
    Codes,
    Decoding,
    Loss,
    Observation,
    Picture,
    PictureError,
    Training,
)
from .rows import MOST_ROWS, compare, compare_inputs, look_at
from .weights import drawn_parts
from .wiring import force, read_wiring

COMPARED = 200  # rows that pictures are looked for in
SMALLEST_SIDE = 16  # of a picture whose sharpness means something
LOSS_ROWS = 256  # on which the value of the loss is computed
THRESHOLD_IMAGES = 5000
FEWEST_CODES = 60  # for a test against the prior
FAR = 1e4  # standard deviations, where a unit that is dead wakes
FEW = 1  # rows that tell what a pass costs


def observe(patient, limits):
    """Run the model in both modes and measure its loss: an `Observation`."""
    model, attempts = patient.model, Attempts()
    model.eval()
    spent = budget(patient.run, *next(pieces(patient.x, patient.inputs, FEW)))
    x, inputs = next(pieces(patient.x, patient.inputs, spent.rows))
    with torch.no_grad():
        outputs, watch = _watched(patient, x, inputs, spent.piece)
        again = attempts.measure("a second pass", _run, patient, x, inputs, spent.piece)
    endings, inner = _endings(watch, outputs)
    broken = [name for name, t in outputs._asdict().items() if not _finite(t)]
    bad = [name for name, p in model.named_parameters() if not _finite(p)]
    target = _target(x, outputs.reconstruction)
    varies = target.double().var(0, correction=0).mean().item() > 0
    outputs = Outputs(*(tensor.detach() for tensor in outputs))
    seen = Observation(
        patient=patient,
        x=target,
        raw=x,
        x_all=patient.x,
        limits=limits,
        budget=spent,
        outputs=outputs,
        endings=endings,
        inner_ending=inner,
        units=_hidden_units(watch, endings),
        broken=tuple(broken),
        bad_parameters=tuple(bad),
        trainable=any(p.requires_grad for p in model.parameters()),
        comparable=len(x) >= FEWEST_IMAGES and varies,
        rows=look_at(patient.x),
    )
    seen = _with_loss(patient, attempts, seen)
    if not broken:
        seen = _with_behaviour(patient, inputs, again, attempts, seen)
    return replace(seen, unmeasured=attempts.failed)


def _finite(tensor):
    return bool(torch.isfinite(tensor.detach()).all())


class Attempts:
    """Measurements that may fail: `failed` says which did, and why."""

    def __init__(self):
        self.failed = {}

    def measure(self, name, function, *arguments, let_through=()):
        """The result, or None; errors of the kinds `let_through` are for the reader."""
        try:
            return function(*arguments)
        except let_through:
            raise
        except Exception as error:
            self.failed[name] = f"{type(error).__name__}: {first_line(error)}"
            return None


def _watched(patient, x, inputs, piece):
    """(outputs, watch): the model's outputs on x, in pieces of which the first is watched."""
    (first, first_inputs), *rest = pieces(x, inputs, piece)
    with Watch() as watch:
        parts = [patient.run(first, first_inputs)]
    watch.first = parts[0]
    parts += [patient.run(*some) for some in rest]
    return Outputs(*(torch.cat(tensors) for tensors in zip(*parts, strict=True))), watch


def _run(patient, x, inputs, piece):
    """`Outputs` of the model on x, in pieces."""
    parts = [patient.run(*some) for some in pieces(x, inputs, piece)]
    return Outputs(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _endings(watch, outputs):
    """(the last activation of each output, the one whose values go into the reconstruction's)."""
    endings = Outputs(*map(watch.last_before, watch.first))
    return endings, watch.one_before(endings.reconstruction)


def _hidden_units(watch, endings):
    """The watched `Units` without those of the output layer."""
    names = {ending.name for ending in endings}
    squashers = [units for units in watch.units if units.kind == "squasher"]
    last = squashers[-1:] if names.intersection(SQUASHERS) else []
    return tuple(units for units in watch.units if not any(units is other for other in last))


def _target(x, reconstruction):
    """The rows as a picture shows them: x, or tokens [B, T] as one-hot rows [B, T, kinds]."""
    if x.is_floating_point():
        return x
    return F.one_hot(x.long(), kinds_of(x, reconstruction)).float()


def kinds_of(x, reconstruction):
    """How many kinds of tokens there are: 0 where x holds real numbers."""
    if x.is_floating_point():
        return 0
    return max(reconstruction[0].numel() // x[0].numel(), int(x.max()) + 1)


def _with_behaviour(patient, inputs, again, attempts, seen):
    """The observation with what only a model with finite outputs shows."""
    measure = attempts.measure
    picture = measure("pictures", _picture, patient.likelihood, seen, again)
    seen = replace(seen, picture=picture)
    seen = replace(seen, codes=measure("codes", _codes, patient, inputs, seen, attempts))
    if picture is not None:
        seen = replace(seen, training=measure("train mode", _training, patient, inputs, seen))
        seen = _with_wiring(patient, inputs, attempts, seen)
    codes = seen.codes
    enough = seen.comparable and len(seen.x) >= FEWEST_CODES
    if codes is not None and enough and not codes.constant:
        prior = measure("codes against the prior", two_sample_test, codes.z, None, 0, 500)
        seen = replace(seen, prior=prior)
    if patient.x_train is not None:
        seen = replace(seen, beside=measure("x beside x_train", _beside, patient, seen))
    return seen


def _with_wiring(patient, inputs, attempts, seen):
    """The observation with how parts depend on one another, and what chosen codes do."""
    measure, picture = attempts.measure, seen.picture
    wiring = measure("wiring", read_wiring, patient, seen.raw, inputs)
    drawn = forced = decoding = None
    patient.model.eval()
    if wiring is not None:
        drawn = measure("weights", drawn_parts, patient.model, wiring)
    if seen.training is not None and seen.comparable:
        raw, others = next(pieces(seen.raw, inputs, seen.budget.chosen))
        target = seen.x[: len(raw)]
        noise = seen.training.noise
        forced = measure("chosen codes", force, patient, raw, others, picture, noise, target)
        patient.model.eval()
    if forced is not None:
        decoding = Decoding(forced.own, forced.swapped)
        attempts.failed.pop("chosen codes", None)
    elif seen.comparable:
        decoding = measure("code swap", _decoding, patient, seen.raw, inputs, picture)
    return replace(seen, wiring=wiring, drawn=drawn, forced=forced, decoding=decoding)


def _beside(patient, seen):
    """x beside x_train, with the model's errors on both where it can be run on both."""
    x_train = patient.x_train
    rows = min(MOST_ROWS, seen.budget.rows)
    error = train_error = None
    if patient.inputs is None or patient.inputs_train is not None:
        few, inputs = next(pieces(x_train, patient.inputs_train, rows))
        with torch.no_grad():
            outputs = _run(patient, few, inputs, seen.budget.piece)
        target = _target(few, outputs.reconstruction)
        train_error = seen.picture.error.nll(outputs.reconstruction, target)
        error = (seen.picture.shown - seen.x).double().square().flatten(1).mean(1)
    inputs_accuracy = compare_inputs(patient.inputs, patient.inputs_train, patient.seed)
    return compare(patient.x, x_train, error, train_error, inputs_accuracy, patient.seed)


# ---- the loss


def _with_loss(patient, attempts, seen):
    """The observation with the form of the loss and its value on the model's outputs, if any."""
    loss, likelihood, nll = patient.loss, patient.likelihood, None
    if loss is None and likelihood is not None:
        loss = _own_elbo(likelihood)
        nll = (likelihood.name, likelihood.nll) if likelihood.outputs_per_value > 1 else None
    if loss is None:
        return seen
    r, mu, logvar = (tensor[:LOSS_ROWS] for tensor in seen.outputs)
    x = seen.raw[:LOSS_ROWS]
    x = x.to(r.dtype) if x.is_floating_point() else x
    own = [r, x, mu.to(r.dtype), logvar.to(r.dtype)]
    shapes = Shapes(*(tuple(t.shape[1:]) for t in own[:3]), kinds_of(x, r))
    arguments = (loss, shapes, patient.batch_size, None if seen.broken else own, nll, patient.seed)
    form = attempts.measure("the loss", recover, *arguments, let_through=ValueError)
    if form is None:
        return seen
    threshold = attempts.measure("collapse threshold", _threshold, patient.x, form)
    impossible, value, error = 0.0, None, None
    if form.name == "cross-entropy on probabilities":
        impossible = ((r < 0) | (r > 1)).float().mean().item()
    if not seen.broken and not impossible:
        value, error = value_on(form.call or loss, _rows(own, form.fixed_size), r.device)
    detached = False
    if form.a == 0 and value is not None:
        other = [1 - r, *own[1:]]
        detached = value_on(form.call or loss, _rows(other, form.fixed_size), r.device)[0] != value
    found = Loss(patient.loss is not None, value, error, impossible, detached, threshold)
    return replace(seen, form=form, loss=found)


def _own_elbo(likelihood):
    """A vaelab model's own loss."""

    def loss(r, x, mu, logvar):
        return likelihood.nll(r, x).mean() + gaussian_kl(mu, logvar).flatten(1).sum(1).mean()

    return loss


def _rows(tensors, size):
    """As many rows as a loss wants that has its batch size written into it."""
    if size is None:
        return tensors
    rows = torch.arange(size, device=tensors[0].device) % len(tensors[0])
    return [t[rows] for t in tensors]


def _threshold(x, form):
    """The collapse threshold in the unit of the loss, or None where it is not defined."""
    x = x[:THRESHOLD_IMAGES]
    if len(x) < FEWEST_IMAGES or form.beta is None and form.sigma2 is None:
        return None
    if form.sigma2 is not None:
        return collapse_threshold(x, "squared_error")
    inside = x.min() >= 0 and x.max() <= 1
    return collapse_threshold(x, "cross_entropy") if inside else None


# ---- what the model shows


def _picture(likelihood, seen, again):
    """The `Picture` of the outputs in eval mode."""
    x, r, ending = seen.x, seen.outputs.reconstruction, seen.endings.reconstruction
    link = _link(seen, likelihood)
    low, high = composed_range(ending, seen.inner_ending)
    before = ending.before
    if link in ("continuous Bernoulli", "categorical"):
        low, high, before = 0.0, 1.0, r
    elif link in ("sigmoid", "tanh", "two sigmoids"):
        low, high = (LINKS[link](torch.tensor(end)).item() for end in (low, high))
        before = r
    elif link == "likelihood" and math.isinf(low):
        low, high = likelihood.support
    raw_shape, kinds = tuple(seen.raw.shape[1:]), kinds_of(seen.raw, r)
    error = PictureError(link, likelihood, tuple(x.shape[1:]), seen.form, raw_shape, kinds)
    picture = error.shown(r)
    residual = (picture - x).double()
    noise = math.nan
    if again is not None:
        noise = (picture - error.shown(again.reconstruction)).double().square().mean().item() / 2
    varies = picture.double().var(0, correction=0).mean().item() - (
        noise if again is not None else 0
    )
    mean_image_mse = x.double().var(0, correction=0).mean().item()
    return Picture(
        shown=picture,
        error=error,
        low=low,
        high=high,
        preactivation=None if before is None else before.float().mean().item(),
        mse=residual.square().mean().item(),
        mae=residual.abs().mean().item(),
        mean_image_mse=mean_image_mse,
        noise_variance=noise,
        follows=max(varies, 0.0) / mean_image_mse if seen.comparable else math.nan,
        misplaced=_misplaced(picture, x),
        sharpness=_sharpness(picture, x),
    )


def _sharpness(pictures, x):
    """How strongly neighbouring values differ, over that of x [B, C, H, W]; None for other rows."""
    if x.dim() != 4 or min(x.shape[2:]) < SMALLEST_SIDE:
        return None
    return _roughness(pictures) / max(_roughness(x), 1e-12)


def _roughness(pictures):
    down, across = pictures.double().diff(dim=2), pictures.double().diff(dim=3)
    return (down.square().mean() + across.square().mean()).item()


def _misplaced(picture, x):
    """The share of pictures that fit another row of x twice as well, and it fits no other one."""
    shown, rows = picture[:COMPARED].flatten(1).double(), x[:COMPARED].flatten(1).double()
    errors = torch.cdist(shown, rows).square()
    least, row = errors.min(1)
    mutual = errors.argmin(0)[row] == torch.arange(len(row), device=row.device)
    better = least < 0.5 * errors.diagonal()
    return (mutual & better).double().mean().item()


def _link(seen, likelihood):
    """What turns the output into the picture: see `PictureError`."""
    form = seen.form if seen.form is not None and seen.form.name else None
    if likelihood is not None and (form is None or not seen.loss.given):
        return "likelihood"
    if form is not None and form.name == CATEGORICAL:
        return "categorical"
    if form is not None and form.name.startswith("continuous Bernoulli"):
        return "continuous Bernoulli"
    if form is not None:
        return "mean" if form.two_heads else form.link
    r, x = seen.outputs.reconstruction.flatten(1), seen.x.flatten(1)
    if r.shape != x.shape:
        return "mean"
    # Without a loss: logits leave [0, 1] widely where the data fill it; their sigmoid is closer.
    wide = x.min() >= 0 and x.max() <= 1 and (r.min() < -1 or r.max() > 2)
    return "sigmoid" if wide and (r.sigmoid() - x).norm() < (r - x).norm() else "identity"


def _codes(patient, inputs, seen, attempts):
    """KL, active units, and how much the codes say about the images."""
    mu, logvar = (t.flatten(1).double() for t in (seen.outputs.mu, seen.outputs.logvar))
    noise = torch.randn(mu.shape, dtype=mu.dtype, device="cpu").to(mu.device)
    information = _information(mu, logvar)
    follows = math.nan if seen.picture is None else seen.picture.follows
    unused = information < 0.05 or information < 0.15 and follows < 0.01
    constant, revived = seen.comparable and unused, None
    if constant:
        name, rows = "codes without dead units", seen.budget.piece
        revived = attempts.measure(name, _revived, patient, *next(pieces(seen.raw, inputs, rows)))
    return Codes(
        kl=gaussian_kl(mu, logvar).mean(0),
        active=active_units(mu),
        z=mu + (0.5 * logvar).exp() * noise,
        information=information,
        constant=constant,
        revived=revived or 0.0,
    )


def _revived(patient, x, inputs):
    """The codes' information if rectifiers let everything pass; 0 where that gives no numbers."""
    with Linearised(), torch.no_grad():
        _, mu, logvar = patient.run(x, inputs)
    information = _information(mu, logvar)
    return information if math.isfinite(information) else 0.0


def _information(mu, logvar):
    """Nats that channels with this signal and this noise can carry, summed over latents."""
    mu, logvar = mu.flatten(1).double(), logvar.flatten(1).double()
    noise = logvar.exp().mean(0).clamp(min=1e-30)
    return 0.5 * torch.log1p(mu.var(0, correction=0) / noise).sum().item()


# ---- train mode, and other codes


def _training(patient, inputs, seen):
    """One pass in train mode, for its noise and for the error there against eval mode."""
    try:
        return _training_pass(patient, inputs, seen, differentiate_noise=True)
    except Exception:  # a model may work in place on its noise: only watch it then
        return _training_pass(patient, inputs, seen, differentiate_noise=False)
    finally:
        patient.model.eval()


def _training_pass(patient, inputs, seen, differentiate_noise):
    raw, others = next(pieces(seen.raw, inputs, seen.budget.graded))
    images = seen.x[: len(raw)]
    torch.manual_seed(patient.seed)
    patient.model.train()
    with Watch(differentiate_noise) as watch:
        outputs = patient.run(raw, others)
    r = outputs.reconstruction.detach()
    noise = read_noise(outputs, watch.noise, patient.seed)
    if noise.kind in ("blocked", "unknown") and noise.number is not None:
        follows = _follows_noise(patient, raw, others, noise)
        kind = "unknown" if noise.normal else "sampled"
        noise = replace(noise, kind=kind if follows else "blocked")
    with torch.no_grad():
        deterministic = torch.equal(patient.run(raw, others).reconstruction, r)
    return Training(
        noise=noise,
        has_gradient=outputs.reconstruction.requires_grad,
        deterministic=deterministic,
        mse=seen.picture.error.nll(r, images).mean().item(),
        eval_mse=(seen.picture.shown[: len(images)] - images).double().square().mean().item(),
    )


def _follows_noise(patient, x, inputs, noise):
    """Whether the output follows noise that is far too large, past units that are dead now."""
    found = []
    with torch.no_grad():
        for seed in (patient.seed, patient.seed + 1):
            torch.manual_seed(seed)
            far = FAR * torch.randn(noise.size, device="cpu").to(x.device)
            torch.manual_seed(patient.seed)
            with Replaced(noise.number, far):
                found.append(patient.run(x, inputs).reconstruction)
    return not torch.equal(*found)


def _decoding(patient, x, inputs, picture):
    """Errors with an image's own code and with another's, if `decode` gives the pictures."""
    own, swapped = code_swap(
        patient.model,
        x,
        likelihood=picture.error,
        decode=patient.decode,
        adapter=patient.adapter,
        inputs=inputs,
        seed=patient.seed,
    )
    if not own < 1.5 * picture.mse + 1e-9:
        raise ValueError("decode gives other pictures than the model")
    return Decoding(own, swapped)
