"""Watch somebody's VAE run, without changing it: its outputs, its last activations, the noise it uses."""

import contextlib
import copy
import inspect
import math
import random
import warnings

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from .diagnostics import active_units
from .elbo import gaussian_kl
from .probing import LINKS, first_line, probe_loss

MOST_IMAGES = 1000  # that the model is run on
FEWEST_IMAGES = 16  # for anything that compares images
BOUNDS = {
    "sigmoid": (0.0, 1.0),
    "expit": (0.0, 1.0),
    "hardsigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "hardtanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "relu": (0.0, math.inf),
    "relu6": (0.0, 6.0),
    "softplus": (0.0, math.inf),
    "exp": (0.0, math.inf),
}
OTHERS = ("elu", "gelu", "silu", "mish", "leaky_relu", "clamp", "clip")
NOISE = ("randn_like", "randn", "normal", "normal_")
RECTIFIERS = ("relu", "relu6", "threshold")


class _Rectifier:
    """dead: the units (dimension 1) that are zero for every image. depth: how far below zero, the dead
    units' median, their highest input in standard deviations of that input."""

    def __init__(self, before):
        before = before.movedim(1, 0).flatten(1)
        highest = before.amax(1)
        self.dead = highest <= 0
        below = (-highest / before.std(1, correction=0).clamp(min=1e-9))[self.dead]
        self.depth = below.median().item() if len(below) else 0.0


class Watch(TorchFunctionMode):
    """While active, keeps activations (name, input, output), Gaussian noise, and dead units per rectifier."""

    def __init__(self, differentiate_noise=False):
        super().__init__()
        self.calls, self.noise, self.rectified = [], [], []
        self.differentiate_noise = differentiate_noise

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        plain = name.removesuffix("_")
        if plain in RECTIFIERS and args and args[0].dim() >= 2:
            self.rectified.append(_Rectifier(args[0].detach()))  # before it, for it may work in place
        output = func(*args, **(kwargs or {}))
        if isinstance(output, torch.Tensor) and output.is_floating_point():
            if name in NOISE:
                self.noise.append(output)
                if self.differentiate_noise and output.is_leaf:
                    output.requires_grad_()
                    if torch.is_grad_enabled() and plain == name:
                        output = output * 1  # no leaf any more, so that the model may work on it in place
            elif plain in BOUNDS or plain in OTHERS:
                self.calls.append((plain, args[0] if args else None, output))
        return output

    def ending(self, tensor):
        """(name, input) of the activation whose output `tensor` is, past a final clamp, or (None, None)."""
        clamp = None, None
        for name, before, after in reversed(self.calls):
            if not _same(after, tensor):
                continue
            if name not in ("clamp", "clip"):
                return name, before
            clamp, tensor = (name, before), before
        return clamp


class Linearised(TorchFunctionMode):
    """While active, rectifiers let everything pass: what a network would say had it no dead units."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "").removesuffix("_") in RECTIFIERS:
            return args[0]
        return func(*args, **(kwargs or {}))


def _same(a, b):
    """Whether two tensors are views of one another, or equal."""
    if a is b or a.numel() != b.numel():
        return a is b or _shares(a, b)
    return _shares(a, b) or bool(torch.equal(a.detach().flatten(), b.detach().flatten()))


def _shares(a, b):
    try:
        return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr() and a.numel() >= b.numel()
    except (AttributeError, RuntimeError):
        return False


@contextlib.contextmanager
def untouched(*owners):
    """After the block random states are as before, and so are the owners: modules, a loss with a memory."""
    parts = []
    for owner in owners:
        if isinstance(owner, torch.nn.Module):
            parts += owner.modules()
        elif isinstance(getattr(owner, "__dict__", None), dict) and not inspect.ismodule(owner):
            parts.append(owner)
    saved = [_Snapshot(part) for part in parts]
    numpy_state, python_state = np.random.get_state(), random.getstate()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        for snapshot in saved:
            snapshot.restore()


class _Snapshot:
    """An object's attributes, its containers' contents, its tensors' values and its generators' states."""

    def __init__(self, owner):
        self.owner, self.attributes = owner, dict(owner.__dict__)
        values = list(self.attributes.values())
        self.containers = [(v, copy.copy(v)) for v in values if isinstance(v, (dict, list, set))]
        self.generators = [(v, v.get_state()) for v in values if isinstance(v, torch.Generator)]
        values += [*getattr(owner, "_parameters", {}).values(), *getattr(owner, "_buffers", {}).values()]
        own = [v for v in values if isinstance(v, torch.Tensor)]
        self.tensors = [(t, t.detach().clone(), t.grad if t.is_leaf else None) for t in own]

    @torch.no_grad()
    def restore(self):
        self.owner.__dict__.clear()
        self.owner.__dict__.update(self.attributes)
        for generator, state in self.generators:
            generator.set_state(state)
        for container, contents in self.containers:
            if isinstance(container, list):
                container[:] = contents
            else:
                container.clear()
                container.update(contents)
        for tensor, value, gradient in self.tensors:
            if not torch.equal(tensor, value):
                tensor.copy_(value)
            if tensor.is_leaf and tensor.grad is not gradient:
                tensor.grad = gradient


def run(model, x, adapter, names="model(x)"):
    """(reconstruction, mu, logvar) for x, or a ValueError that shows how to write the adapter."""
    try:
        if adapter is None:
            outputs = model(x)
        elif _takes_model(adapter):
            outputs = adapter(model, x)
        else:
            outputs = adapter(model(x))
    except Exception as error:
        line = (str(error).strip().splitlines() or [""])[0][:200]
        flat = f"checkup(model, x.flatten(1)) or adapter=lambda model, x: model(x.view(-1, {x[0].numel()}))"
        raise ValueError(
            f"{'the adapter on ' if adapter else ''}model(x) raised {type(error).__name__} for x of shape "
            f"{list(x.shape)}: {line}. If the model wants flat images: {flat}"
        ) from error
    heads = getattr(getattr(model, "likelihood", None), "outputs_per_value", 2)
    return _checked(outputs, x, adapter, {1, 2, heads})


def _takes_model(adapter):
    """Whether an adapter is written as (model, x); the other way is one argument, what the model returned."""
    try:
        parameters = inspect.signature(adapter).parameters.values()
    except (TypeError, ValueError):
        return False
    required = [
        p
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return len(required) == 2


def _checked(outputs, x, adapter, heads):
    """The three tensors, if that is what came back."""
    who = "adapter must return" if adapter else "model(x) must return"
    want = f"{who} (reconstruction, mu, logvar): x's shape {list(x.shape)} and two of shape [{len(x)}, L]"
    if not isinstance(outputs, (tuple, list)) or len(outputs) != 3 or not all(map(_tensor_or_none, outputs)):
        raise ValueError(f"{want}; it returned {_describe(outputs)}. {_suggest(outputs, x)}")
    reconstruction, mu, logvar = outputs
    if logvar is None:
        raise ValueError(
            f"{want}; logvar is None: an autoencoder without noise has no KL, so this is not a VAE"
        )
    fits = reconstruction is not None and len(reconstruction) == len(x)
    fits = fits and reconstruction[0].numel() in {n * x[0].numel() for n in heads}
    codes = mu is not None and mu.shape == logvar.shape and mu.dim() >= 2 and len(mu) == len(x)
    if not fits or not codes:
        raise ValueError(f"{want}; it returned {_describe(outputs)}. {_suggest(outputs, x)}")
    return reconstruction, mu, logvar


def _tensor_or_none(value):
    return value is None or isinstance(value, torch.Tensor)


def _describe(outputs):
    """What came back, in a few words."""
    if isinstance(outputs, torch.Tensor):
        return f"one tensor {list(outputs.shape)}"
    if isinstance(outputs, dict):
        return "a dictionary with " + ", ".join(f"{key!r} {_shape(value)}" for key, value in outputs.items())
    if isinstance(outputs, (tuple, list)):
        return f"{len(outputs)} values: " + ", ".join(map(_shape, outputs))
    return f"a {type(outputs).__name__}"


def _shape(value):
    return str(list(value.shape)) if isinstance(value, torch.Tensor) else type(value).__name__


def _suggest(outputs, x):
    """The adapter that would probably do, written out; names and shapes are the evidence."""
    if isinstance(outputs, dict):
        items, access = list(outputs.items()), "out[{!r}]"
    elif isinstance(outputs, (tuple, list)):
        items, access = list(enumerate(outputs)), "out[{!r}]"
    elif hasattr(outputs, "__dict__"):
        items, access = list(vars(outputs).items()), "out.{}"
    else:
        items, access = [], ""
    tensors = {
        key: v for key, v in items if isinstance(v, torch.Tensor) and v.dim() >= 2 and len(v) == len(x)
    }
    picture = [
        k
        for k, v in tensors.items()
        if v[0].numel() == x[0].numel() and not torch.equal(v.reshape(x.shape), x)
    ]
    codes = [k for k, v in tensors.items() if v.shape == x[0:0].shape or v[0].numel() != x[0].numel()]
    named = [k for k in codes if isinstance(k, str) and "z" != k.lower()]
    codes = (
        sorted(named, key=lambda k: any(w in k.lower() for w in ("var", "sig", "std"))) if named else codes
    )
    r, mu, logvar = "out[0]", "out[1]", "out[2]"
    if picture and len(codes) >= 2:
        r, mu, logvar = access.format(picture[0]), access.format(codes[0]), access.format(codes[1])
        name = str(codes[1]).lower()
        if "log" not in name and ("std" in name or "sig" in name or "scale" in name):
            logvar = f"2 * {logvar}.log()"
        elif "log" not in name and "var" in name:
            logvar = f"{logvar}.log()"
    return (
        f"Say where they are: adapter=lambda out: ({r}, {mu}, {logvar}), "
        "with 2 * std.log() for a standard deviation and variance.log() for a variance"
    )


def _reaches_encoder(reconstruction, mu, parameters):
    """Whether any parameter that mu depends on gets a gradient from the reconstruction."""
    parameters = [p for p in parameters if p.requires_grad]
    if not parameters:
        return True
    found = torch.autograd.grad(mu.sum(), parameters, retain_graph=True, allow_unused=True)
    encoder = [p for p, g in zip(parameters, found, strict=True) if g is not None]
    found = (
        torch.autograd.grad(reconstruction.sum(), encoder, retain_graph=True, allow_unused=True)
        if encoder
        else ()
    )
    return not encoder or any(g is not None for g in found)


def noise_scale(reconstruction, mu, watch, parameters, seed=0):
    """The noise that a model really adds to each code, read from gradients: ("kind", scale or None).

    z = mu + s * noise, so dL/dnoise is s times dL/dmu. Kinds: "sampled" with s shaped like mu,
    "none" (no noise was drawn), "detached" (noise is used, but no gradient reaches mu), "unknown".
    """
    noise = [n for n in watch.noise if n.numel() == mu.numel()]
    if not noise:
        return "none", None
    if not (mu.requires_grad and reconstruction.requires_grad):
        return "unknown", None
    if not _reaches_encoder(reconstruction, mu, parameters):
        return "detached", None
    if not noise[-1].requires_grad:
        return "unknown", None
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(reconstruction.shape, generator=generator).to(reconstruction)
    g_mu, g_noise = torch.autograd.grad((reconstruction * weights).sum(), (mu, noise[-1]), allow_unused=True)
    if g_noise is None or g_mu is None or not (g_noise.any() and g_mu.any()):
        return "unknown", None
    g_noise = g_noise.reshape(g_mu.shape)
    clear = g_mu.abs() > 1e-3 * g_mu.abs().max()
    return "sampled", torch.where(clear, g_noise / torch.where(clear, g_mu, 1.0), torch.nan)


# ---- the whole observation


class Case:
    """One model on one set of images: what `observe` saw, by name."""

    form = own_loss = own_error = None
    follows, information = math.nan, 0.0
    noise, noise_std, train_mse, deterministic = "unknown", None, None, False
    own = swapped = None


def observe(model, x, loss, adapter, decode, batch_size, seed):
    """Run the model in both modes and probe its loss: a Case. `broken` names outputs that are not finite."""
    case = Case()
    case.model, case.x_all, case.x, case.batch_size = model, x, x[:MOST_IMAGES], batch_size
    case.bad_parameters = [name for name, p in model.named_parameters() if not torch.isfinite(p).all()]
    torch.manual_seed(seed)
    model.eval()
    with torch.no_grad():
        case.r, case.mu, case.logvar, case.watch = _run(model, case.x, adapter)
        case.again = _run(model, case.x, adapter)[0]
        with Linearised():  # the codes if no rectifier cut anything off
            case.revived_codes = run(model, case.x[:256], adapter)[1:]
    outputs = {"reconstruction": case.r, "mu": case.mu, "logvar": case.logvar}
    case.broken = [name for name, t in outputs.items() if not torch.isfinite(t).all()]
    _probe(case, loss, seed)
    if not case.broken:
        _picture(case)
        _codes(case)
        _train_mode(case, adapter, seed)
        _decoding(case, decode)
    return case


def _run(model, x, adapter):
    """Outputs on all of x in pieces; activations are watched on the first."""
    first, *rest = x.split(256)
    with Watch() as watch:
        parts = [run(model, first, adapter)]
    watch.ends = [watch.ending(t) for t in parts[0]]
    watch.calls = []
    parts += [run(model, piece, adapter) for piece in rest]
    return *(torch.cat(t).detach() for t in zip(*parts, strict=True)), watch


def _probe(case, loss, seed):
    """The form of the reader's loss, or of a vaelab model's own ELBO, and its value on the outputs."""
    likelihood, nll = getattr(case.model, "likelihood", None), None
    case.likelihood = likelihood if hasattr(likelihood, "nll") and hasattr(likelihood, "mean") else None
    case.given = loss is not None
    if loss is None and case.likelihood is not None:

        def loss(r, x, mu, logvar):
            return likelihood.nll(r, x).mean() + gaussian_kl(mu, logvar).flatten(1).sum(1).mean()

        nll = (likelihood.name, likelihood.nll) if likelihood.outputs_per_value > 1 else None
    if loss is None:
        return
    own = [t[:256] for t in (case.r, case.x, case.mu, case.logvar)]
    case.form = probe_loss(
        loss, batch_size=case.batch_size, shape=case.x.shape[1:], output_shape=case.r.shape[1:],
        latent_shape=case.mu.shape[1:], own=None if case.broken else own, nll=nll, seed=seed,
    )  # fmt: skip
    if case.broken or not_probabilities(case):
        return
    # On the CPU first: there a value out of range is an error, on a GPU it is the end of the session.
    for device in dict.fromkeys(("cpu", case.x.device.type)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                case.own_loss, case.own_error = float(loss(*(t.to(device) for t in own))), None
            return
        except Exception as error:  # whatever the reader's loss raises is evidence
            case.own_error = case.own_error or f"{type(error).__name__}: {first_line(error)}"


def not_probabilities(case):
    """The share of outputs outside [0, 1] where the loss takes them for probabilities."""
    if case.form is None or case.form.name != "cross-entropy on probabilities":
        return 0.0
    return ((case.r < 0) | (case.r > 1)).float().mean().item()


def _picture(case):
    """What the model shows, shaped like x; the range its output can reach; how well it follows the images."""
    x, (case.output_end, before) = case.x, case.watch.ends[0]
    case.link = _link(case)
    case.low, case.high = BOUNDS.get(case.output_end, (-math.inf, math.inf))
    if case.link in ("sigmoid", "tanh"):
        case.low, case.high = (LINKS[case.link](torch.tensor(end)).item() for end in (case.low, case.high))
        before = case.r
    elif case.link == "likelihood" and math.isinf(case.low):
        case.low, case.high = case.likelihood.support
    case.preactivation = None if before is None else before.float().mean().item()
    case.picture, again = shown(case, case.r), shown(case, case.again)
    case.mse = (case.picture - x).double().square().mean().item()
    case.mean_image_mse = x.double().var(0, correction=0).mean().item()
    case.noise_variance = (case.picture - again).double().square().mean().item() / 2
    varies = case.picture.double().var(0, correction=0).mean().item() - case.noise_variance
    case.enough = len(x) >= FEWEST_IMAGES and case.mean_image_mse > 0
    case.follows = max(varies, 0.0) / case.mean_image_mse if case.enough else math.nan


def _link(case):
    """What turns the output into the picture: a name of LINKS, "mean" (of two heads), or "likelihood"."""
    form = case.form if case.form is not None and case.form.name else None
    if case.likelihood is not None and (form is None or not case.given):
        return "likelihood"
    if form is not None:
        return "mean" if form.two_heads else form.link
    r, x = case.r.flatten(1), case.x.flatten(1)
    if r.shape != x.shape:
        return "mean"
    # Without a loss: logits leave [0, 1] widely where the data fill it, and their sigmoid is closer.
    wide = x.min() >= 0 and x.max() <= 1 and (r.min() < -1 or r.max() > 2)
    return "sigmoid" if wide and (r.sigmoid() - x).norm() < (r - x).norm() else "identity"


def shown(case, r):
    """The picture, shaped like x, of a raw reconstruction."""
    if case.link == "likelihood":
        picture = case.likelihood.mean(r)
    else:
        picture = r.flatten(1).chunk(2, 1)[0] if case.link == "mean" else LINKS[case.link](r)
    return picture.reshape(len(r), *case.x.shape[1:])


def _codes(case):
    """KL, active units, and how much the codes say about the images."""
    mu, logvar = case.mu.flatten(1).double(), case.logvar.flatten(1).double()
    case.kl, case.latents, case.active = gaussian_kl(mu, logvar).mean(0), mu.shape[1], active_units(mu)
    case.z = mu + (0.5 * logvar).exp() * torch.randn(mu.shape, dtype=mu.dtype).to(mu.device)
    case.information = _information(mu, logvar)
    case.constant = case.enough and case.information < 0.05
    case.revived = _information(*case.revived_codes) if case.constant else 0.0


def _information(mu, logvar):
    """Nats that channels with this signal and this noise can carry, summed over latents."""
    mu, logvar = mu.flatten(1).double(), logvar.flatten(1).double()
    return 0.5 * torch.log1p(mu.var(0, correction=0) / logvar.exp().mean(0).clamp(min=1e-30)).sum().item()


def _train_mode(case, adapter, seed):
    """One differentiable pass in train mode, for the noise, and the error there against eval mode."""
    case.model.train()
    for differentiate in (True, False):  # a model may work in place on its noise: then it is only watched
        try:
            _train_pass(case, adapter, seed, differentiate)
            break
        except (ValueError, RuntimeError):  # e.g. BatchNorm refuses a single image in train mode
            pass
    case.model.eval()


def _train_pass(case, adapter, seed, differentiate):
    model, batch = case.model, case.x[:128]
    torch.manual_seed(seed)
    with Watch(differentiate_noise=differentiate) as watch:
        r, mu, logvar = run(model, batch, adapter)
    case.noise, case.noise_std = noise_scale(r, mu, watch, model.parameters(), seed)
    case.noise_logvar = logvar.detach()
    if case.enough:
        with torch.no_grad():
            case.deterministic = torch.equal(run(model, batch, adapter)[0], r.detach())
        case.train_mse = (shown(case, r.detach()) - batch).double().square().mean().item()
        case.eval_mse = (case.picture[: len(batch)] - batch).double().square().mean().item()


def _decoding(case, decode):
    """Mean squared error with an image's own code and with another image's, where the model can decode."""
    decode = decode or getattr(case.model, "decode", None) or getattr(case.model, "decoder", None)
    if decode is None or not case.enough:
        return
    z, errors = case.z.to(case.mu.dtype).reshape(case.mu.shape), []
    for codes in (z, z.roll(1, 0)):
        try:
            with torch.no_grad():
                r = torch.cat([decode(part) for part in codes.split(256)])
            errors.append((shown(case, r) - case.x).double().square().mean().item())
        except Exception:  # not a decoder of these codes: the other measures have to do
            return
    if errors[0] < 1.5 * case.mse + 1e-9:  # else it decodes something else
        case.own, case.swapped = errors
