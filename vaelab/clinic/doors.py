"""Find how somebody's VAE is called: through its forward, or through its parts by name."""

import contextlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from .. import adapt
from ..outputs import (
    LOGVAR,
    MEAN,
    STD,
    VARIANCE,
    Place,
    Posterior,
    kind_of,
    read,
    read_picture,
    read_posterior,
    spread_named,
    tensors_in,
)
from .activations import Watch

ENCODERS = ("encode", "encode_forward", "get_mu_logvar", "encoder", "inference", "recognition")
DECODERS = ("decode", "decode_forward", "decoder", "generate", "generator", "generative")
ROWS = 2  # on which every guess is tried
INPUTS = ", *inputs, **named"  # in the source of an adapter
CODEBOOK = "codebook|quanti[sz]"
OF_A_CODEBOOK = "perplexity|commit|codebook|vq_loss"


@dataclass(frozen=True)
class Door:
    """How a model is called.

    x: as the model wants it. adapter: None if the model returns the three tensors itself. decode:
    codes [B, L] (and inputs) -> reconstruction, None if none was found. how: the calls in words, ""
    for the model's own forward. own_noise: whether the noise is the model's, not drawn by us.
    """

    x: torch.Tensor
    adapter: Callable | None = None
    decode: Callable | None = None
    how: str = ""
    own_noise: bool = True


def find_door(model, x, adapter=None, inputs=None, decode=None):
    """The `Door` of a model; every guess is tried on two rows of x in evaluation mode.

    The arguments are those of `checkup`, and what the reader gives is never replaced.
    Raises ValueError, with the line to write, where the three tensors are not certain, and for
    models that are no VAEs.
    """
    model = adapt.unwrap(model)
    x = adapt.wanted(model, x, adapter, inputs)
    rows, others = next(adapt.pieces(x, inputs, ROWS))
    with adapt.evaluating(model, adapter, decode):
        door = Door(x, adapter) if adapter else _found(model, x, rows, others)
        outputs = adapt.call(model, door.x[:ROWS], door.adapter, others)
        found = door.decode or _decode_by(model, outputs.mu.shape[1:], rows, others)
    return replace(door, decode=decode or found)


def _found(model, x, rows, inputs):
    """The door of a model that came without an adapter."""
    try:
        outputs = adapt.forward(model, rows, None, inputs)
        again = adapt.forward(model, rows, None, inputs)
    except ValueError:
        if inputs is None and adapt.missing_inputs(model):
            raise
        _refuse_codebook(model, {})
        door = _composed(model, x, rows, inputs)
        if door is None:
            raise
        return door
    reading = read(outputs, again, rows)
    named = reading is not None and reading.posterior.spread.name
    if not named:
        _refuse_codebook(model, tensors_in(outputs))
    if not named and adapt.are_three(outputs, rows, model):
        return Door(x)
    if reading is not None:
        _refuse_unknown_spread(reading)
        decode = _decode_by(model, reading.posterior.shape, rows, inputs)
        return Door(x, reading, decode, f"adapter={reading}")
    door = _composed(model, x, rows, inputs)
    if door is None:
        raise ValueError(adapt.what_is_missing(model, rows, None, inputs, outputs))
    return door


def _refuse_unknown_spread(reading):
    """Raise ValueError with the lines to choose from where the second tensor can be several."""
    posterior = reading.posterior
    if posterior.kind is not None:
        return
    lines = []
    for kind in (LOGVAR, STD, VARIANCE):
        line = replace(reading, posterior=replace(posterior, kind=kind))
        lines.append(f"    adapter={line}  # for a {kind.name}")
    raise ValueError(
        f"{posterior.spread} of out = model(x) may be a log-variance, a standard deviation or a "
        "variance. Write the line that is true:\n" + "\n".join(lines)
    )


# ---- the parts of a model, by name


@dataclass(frozen=True)
class Part:
    """A method or a submodule of a model. with_inputs: it gets the inputs as well."""

    name: str
    with_inputs: bool = False

    def __call__(self, model, tensor, inputs):
        others, named = adapt.as_arguments(inputs) if self.with_inputs else ([], {})
        # A copy, because a model may work in place on what it gets.
        return getattr(model, self.name)(tensor.clone(), *others, **named)

    def source(self, argument):
        return f"model.{self.name}({argument}{INPUTS if self.with_inputs else ''})"


@dataclass(frozen=True)
class Encoder:
    """x -> mu and logvar, both [B, L].

    flat: it wants x as [B, D]. halves: it returns mu and its spread in one tensor. heads: the names
    of two layers that make mu and its spread of what it returns.
    """

    part: Part
    flat: bool = False
    halves: bool = False
    heads: tuple = ()
    posterior: Posterior | None = None

    def output(self, model, x, inputs):
        """What mu and the spread are read from."""
        out = self.part(model, x.flatten(1) if self.flat else x, inputs)
        if self.heads:
            return [getattr(model, head)(out.flatten(1)) for head in self.heads]
        return out.chunk(2, dim=1) if self.halves else out

    def __call__(self, model, x, inputs):
        return self.posterior.of(self.output(model, x, inputs))

    def __str__(self):
        source = self.part.source("x.flatten(1)" if self.flat else "x")
        if self.heads:
            layers = ", ".join(f"model.{head}" for head in self.heads)
            return f"[head({source}.flatten(1)) for head in ({layers})]"
        return f"{source}.chunk(2, dim=1)" if self.halves else source


@dataclass(frozen=True)
class Decoder:
    """Codes -> reconstruction. shape: of one code as the part wants it."""

    part: Part
    place: Place
    shape: tuple

    def __call__(self, model, z, inputs):
        out = self.part(model, z.flatten(1).unflatten(1, self.shape), inputs)
        return self.place.of(out)

    def __str__(self):
        z = "z" if len(self.shape) == 1 else f"z.unflatten(1, {self.shape})"
        return self.place.after(self.part.source(z))


@dataclass(frozen=True)
class Composed:
    """An adapter that encodes, draws z and decodes; `source` is the function to write for it."""

    encode: Encoder
    decode: Decoder

    def __call__(self, model, x, *others, **named):
        inputs = named or others
        mu, logvar = self.encode(model, x, inputs)
        z = mu + torch.exp(logvar / 2) * torch.randn_like(mu)
        return self.decode(model, z, inputs), mu, logvar

    def source(self, remark=""):
        return (
            f"    def adapter(model, x{INPUTS}):\n"
            f"        out = {self.encode}\n"
            f"        mu, logvar = {self.encode.posterior}{remark}\n"
            "        z = mu + torch.exp(logvar / 2) * torch.randn_like(mu)\n"
            f"        return {self.decode}, mu, logvar"
        )


def _composed(model, x, rows, inputs):
    """The door of a model that is called by its parts, or None."""
    rows = rows.to(adapt.dtype_for(model, rows))
    for flat in (False, True) if x.dim() > 2 else (False,):
        for encode in _encoders(model, rows, inputs, flat):
            decode = _find_decoder(model, encode.posterior.shape, rows, inputs)
            if decode is not None:
                return _door_of_parts(model, x, rows, inputs, Composed(encode, decode))
        _refuse_autoencoder(model, rows.flatten(1) if flat else rows, inputs)
    return None


def _door_of_parts(model, x, rows, inputs, composed):
    """The door, or a ValueError where the encoder's second tensor can be several things."""
    encode, decode = composed.encode, composed.decode
    posterior, how = encode.posterior, f"{encode}, then {decode}"
    if posterior.kind is None:
        guess = replace(encode, posterior=replace(posterior, kind=STD))
        remark = f"  # {posterior.spread}.log() for a variance, {posterior.spread} for a logvar"
        raise ValueError(
            f"{posterior.spread} of out = {encode} may be a standard deviation, a variance or a "
            "log-variance. Write which one it is, and pass adapter=adapter:\n"
            + replace(composed, encode=guess).source(remark)
        )
    if posterior.kind is not LOGVAR:
        how += f", with a {posterior.kind.name} from the first"
    mu, _ = encode(model, rows, inputs)
    if encode.flat and decode(model, mu, inputs).dim() == 2:
        x = x.flatten(1)
    found = _decode_by(model, decode.shape, rows, inputs)
    return Door(x, composed, found, how, own_noise=False)


def _encoders(model, x, inputs, flat):
    """Every `Encoder` whose mu and spread can be told."""
    found, heads = [], _heads(model)
    for part, out in _calls(model, ENCODERS, x.flatten(1) if flat else x, inputs):
        encoders = [Encoder(part, flat)]
        if isinstance(out, torch.Tensor) and heads:
            encoders.append(Encoder(part, flat, heads=heads))
        elif isinstance(out, torch.Tensor) and not _find_decoder(model, out.shape[1:], x, inputs):
            encoders.append(Encoder(part, flat, halves=True))
        for encoder in encoders:
            with contextlib.suppress(Exception):
                found += _with_posterior(model, encoder, x, inputs)
    return found


def _with_posterior(model, encoder, x, inputs):
    """The encoder with the places of mu and the spread, in a list; an empty one without them."""
    with Watch() as watch:
        outputs = encoder.output(model, x, inputs)
    again = encoder.output(model, x, inputs)
    posterior = read_posterior(tensors_in(outputs), tensors_in(again), len(x))
    if posterior is None:
        return []
    spread = posterior.spread.of(outputs)
    names = [posterior.spread.name, *_names_in_source(model, encoder.part.name)]
    if encoder.heads:  # a layer that is called fc_var gives a log-variance, as the name is used
        name = encoder.heads[1]
        names = [f"log_{name}"] if spread_named(name) is VARIANCE else [name]
    kind = kind_of(spread, names, watch.last_before(spread).name)
    return [replace(encoder, posterior=replace(posterior, kind=kind))]


def _heads(model):
    """The two layers of the model that are named as mu and as its spread, or none."""
    layers = [name for name, _ in model.named_children()]
    means = [name for name in layers if re.search(MEAN, name.lower())]
    spreads = [name for name in layers if spread_named(name)]
    return (means[0], spreads[0]) if len(means) == len(spreads) == 1 else ()


def _find_decoder(model, shape, x, inputs):
    """A `Decoder` that makes something of x's size from codes of this shape, or None."""
    parameter = next(model.parameters(), torch.zeros(1, device=x.device))
    z = torch.randn(len(x), *shape, dtype=parameter.dtype, device=x.device)
    for part, out in _calls(model, DECODERS, z, inputs):
        place = read_picture(tensors_in(out), x)
        if place is not None:
            return Decoder(part, place, tuple(shape))
    return None


def _decode_by(model, shape, x, inputs):
    """decode as measurements call it, (z, and the inputs) -> reconstruction, or None."""
    decoder = _find_decoder(model, shape, x, inputs)
    if decoder is None:
        return None

    def decode(z, *others, **named):
        return decoder(model, z, named or others)

    return decode


def _calls(model, names, tensor, inputs):
    """(part, what it returned) for the parts of these names that take the tensor, one by one."""
    for name in names:
        ways = [Part(name)] if inputs is None else [Part(name, True), Part(name)]
        for part in ways:
            try:
                out = part(model, tensor, inputs)
            except Exception:  # this is no such part, or is called in another way
                continue
            yield part, out
            break


def _names_in_source(model, part):
    """What the code calls the second value of a part, where it is returned and where it is used."""
    module, names = getattr(model, part), []
    with contextlib.suppress(OSError, TypeError):  # there may be no source
        function = inspect.getsource(getattr(module, "forward", module))
        names += re.findall(r"return [(\[]?[\w.]+, ([\w.]+)", function)
        names += re.findall(rf"\w, (\w+) = self\.{part}\(", inspect.getsource(type(model)))
    return names


# ---- models without a KL


def _refuse_codebook(model, outputs):
    """Raise ValueError for a VQ-VAE: its class, a part, or the names of what it returned tell."""
    found = [f"model(x) returns {place.name}" for place in outputs]
    found = [text for text in found if re.search(OF_A_CODEBOOK, text)]
    for name, module in model.named_modules():
        kind = type(module).__name__
        embeds = isinstance(module, torch.nn.Embedding) and re.search(CODEBOOK, name.lower())
        if embeds or re.search("VQ|VectorQuanti|Codebook", kind):
            found.append(f"{name or 'the model'} is a {kind}")
    found += [f"it has {name}" for name in model.state_dict() if "codebook" in name.lower()]
    if found:
        raise ValueError(
            f"this looks like a VQ-VAE ({found[0]}). Its codes are rows of a codebook, so it has "
            "no logvar and no KL, and this check-up cannot judge it. Measure instead the "
            "codebook's perplexity, the share of rows that are never used (dead codes), and the "
            "reconstruction error against the mean image's. If it does have mu and logvar, say "
            "where they are with adapter=lambda out: (reconstruction, mu, logvar)"
        )


def _refuse_autoencoder(model, x, inputs):
    """Raise ValueError for a model whose decoder takes all that the encoder returns."""
    for part, out in _calls(model, ENCODERS, x, inputs):
        codes = tensors_in(out)
        if len(codes) != 1:
            continue
        place, code = codes.popitem()
        if not _find_decoder(model, code.shape[1:], x, inputs):
            continue
        text = f"{part.source('x')} returns one tensor, and it is all that the decoder takes"
        if not torch.equal(code, place.of(part(model, x, inputs))):
            raise ValueError(f"{text}. It is a sampled code: let it return mu and logvar as well")
        raise ValueError(
            f"{text}, so there is no logvar. An autoencoder without noise has no KL, so this is "
            "not a VAE: give (reconstruction, mu, logvar)"
        )
