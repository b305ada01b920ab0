"""`checkup`: run any PyTorch VAE on a few images, measure its loss, say by name what is wrong."""

import contextlib
import sys

import torch

from ..adapt import check_images, pieces, unwrap
from ..untouched import measuring
from .calling import AS_STD, adapter_line
from .doors import find_door
from .findings import diagnose
from .numbers import numbers
from .observation import Limits, Patient
from .observe import observe
from .report import Report

PURPOSES = ("generation", "autoencoding")


def checkup(
    model,
    x,
    loss=None,
    *,
    adapter=None,
    inputs=None,
    decode=None,
    x_train=None,
    inputs_train=None,
    purpose="generation",
    batch_size=None,
    beta_limits=(0.1, 10.0),
    sigma2_limits=(0.1, 200.0),
    seed=0,
):
    """Say what is wrong with a VAE, from its outputs on x and from its loss: a `Report`.

    model: an nn.Module with `reconstruction, mu, logvar = model(x)`. x: [N, ...], a few hundred
    images (or table rows) as the model gets them, on its device, in random order. loss: your own,
    as a callable (reconstruction, x, mu, logvar) -> scalar; without it a vaelab model is judged by
    the ELBO of its likelihood, and any other model by its outputs only.
    adapter: what the model returns -> (reconstruction, mu, logvar), or (model, x, ...) -> the same.
    inputs: labels or other tensors with a row for each image, sliced with x: a tensor or a tuple
    (given after x), or a dict (given by name). decode: codes [B, L] -> reconstruction, default
    model.decode or model.decoder. x_train, inputs_train: a few hundred rows as the model got them
    in training; with them x that went through another preprocessing, and a model that knows its
    training rows only, can be told. purpose: "autoencoding" for a model whose codes another model
    will learn, as in latent diffusion: then a light KL and codes far from N(0, 1) are no illness.
    batch_size: at which the loss is measured, default len(x).
    beta_limits: a cross-entropy's beta outside them is a loss-scale problem. sigma2_limits: the
    same for sigma^2 over the mean squared error.

    Nothing is trained. Afterwards x, the model (weights, modes, buffers, gradients, hooks,
    attributes), what the loss and the adapter hold, and all random states are as before. Not
    protected is what your code changes elsewhere: globals of a module, files, state that lies
    deeper than four levels in an object. What could not be measured is a line in the numbers.
    Raises ValueError for arguments that cannot be used, and shows how to adapt them.
    """
    limits = Limits(beta_limits, sigma2_limits)
    check_arguments(model, x, loss, adapter, decode, batch_size, limits)
    check_training_rows(model, x, x_train, inputs_train, purpose)
    model = unwrap(model)
    owners = (model, loss, adapter, decode)
    with measuring(*owners, seed=seed), eager(), torch.inference_mode(False), torch.enable_grad():
        options = {"purpose": purpose, "batch_size": batch_size or len(x), "seed": seed}
        patient = patient_of(
            model, x, loss, adapter, inputs, decode, x_train, inputs_train, **options
        )
        seen = observe(patient, limits)
        refuse_spread(seen)
        found, form = diagnose(seen), seen.form
        return Report(
            findings=found.findings,
            numbers=numbers(seen),
            looked_for=found.looked_for,
            unchecked=found.unchecked,
            beta=form and form.beta,
            sigma2=form and form.sigma2,
            loss_form=form and form.name,
        )


def patient_of(model, x, loss, adapter, inputs, decode, x_train, inputs_train, **options):
    """The `Patient` of what the reader handed in, with the way in which its model is called."""
    x = usable(x)
    next(pieces(x, inputs, 1))  # refuses inputs of another length
    door = find_door(model, x, adapter, inputs, decode)
    x = door.x
    return Patient(
        model=model,
        x=x,
        loss=loss,
        adapter=door.adapter,
        inputs=inputs,
        decode=door.decode,
        x_train=None if x_train is None else usable(x_train).reshape(-1, *x.shape[1:]),
        inputs_train=inputs_train,
        how=door.how,
        own_noise=door.own_noise,
        **options,
    )


def check_arguments(model, x, loss, adapter, decode, batch_size, limits):
    """Raise ValueError for what can be known to be wrong before the model runs."""
    check_images(unwrap(model), x)
    if not torch.isfinite(x).all():
        raise ValueError("x holds NaN or infinite values: clean the data first")
    for name, value in {"loss": loss, "adapter": adapter, "decode": decode}.items():
        if value is not None and not callable(value):
            raise ValueError(f"{name} must be a function, got {type(value).__name__}")
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
    for name, pair in limits._asdict().items():
        two = isinstance(pair, (tuple, list)) and len(pair) == 2
        if not two or not 0 <= pair[0] < pair[1]:
            wanted_pair = f"{name}_limits must be limits (low, high) with 0 <= low < high"
            raise ValueError(f"{wanted_pair}, got {pair!r}")


def usable(x):
    """x without a graph, in single precision at least."""
    # A copy is needed where x was made in inference mode: such a tensor refuses gradients.
    x = x.detach().clone() if x.is_inference() else x.detach()
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def check_training_rows(model, x, x_train, inputs_train, purpose):
    """Raise ValueError for training rows that cannot be compared with x, or an unknown purpose."""
    if purpose not in PURPOSES:
        raise ValueError(f"purpose must be one of {PURPOSES}, got {purpose!r}")
    if x_train is None and inputs_train is not None:
        raise ValueError("inputs_train belong to x_train: give x_train=, the rows of training")
    if x_train is None:
        return
    try:
        check_images(unwrap(model), x_train)
    except ValueError as error:
        raise ValueError(f"x_train must be rows like x: {error}") from None
    if not torch.isfinite(x_train).all():
        raise ValueError("x_train holds NaN or infinite values: clean the training data first")
    if x_train.shape[1:] != x.shape[1:]:
        got = f"{list(x_train.shape)} and {list(x.shape)}"
        raise ValueError(f"x_train and x must hold rows of one shape, got {got}")
    try:
        next(pieces(x_train, inputs_train, 1))
    except ValueError as error:
        raise ValueError(f"inputs_train do not fit x_train: {error}") from None


def eager():
    """Compiled parts of a model run as they are written: what is compiled cannot be watched."""
    if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
        return torch.compiler.set_stance("force_eager")
    return contextlib.nullcontext()


def refuse_spread(seen):
    """Raise ValueError where the third value is a standard deviation or a variance.

    The model's noise says so. If the loss reads it as a log-variance, the model is ill instead.
    """
    formula = seen.training.noise.formula if seen.training is not None else None
    names = {"logvar itself": "standard deviation", "sqrt(logvar)": "variance"}
    read_as_logvar = seen.form is not None and seen.loss.given and seen.form.kl.kind != "other"
    if formula not in names or seen.outputs.logvar.min() <= 0 or read_as_logvar:
        return
    log = "2 * out[2].log()" if formula == "logvar itself" else "out[2].log()"
    text = f"the third value that the model returns is a {names[formula]}, not a log-variance: "
    text += f"adapter=lambda out: (out[0], out[1], {log})"
    if seen.form is not None and seen.loss.given:
        line = adapter_line(f"reconstruction, x, mu, {AS_STD}")
        text += f". The loss then gets logvar: {line}"
    raise ValueError(text)
