"""Call a loss at random arguments of given shapes, and read its gradients.

At random arguments dL/dreconstruction is compared with the gradient of each form of reconstruction
error in `forms`, dL/dmu with mu, and dL/dlogvar with (exp(logvar) - 1) / 2.
"""

import contextlib
import itertools
import math
import random
import warnings
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from ..elbo import gaussian_kl
from .forms import FORMS, FORMULAS, HALVES, Form, categorical_forms

CODE_SCALES = (1.0, 20.0, 0.1)  # free bits cost nothing at small codes, a capacity turns its sign
NARROW = ((-20.0, -16.0), (-9.5, -8.0), (-5.8, -4.6))  # logvars; many losses clamp it, at -10 or -6
FINE, COARSE = 2e-4, 5e-2  # how far two gradients may differ, for float32 and for half precision
DRAWN_VALUES = 2e7  # in all draws of a loss that is random


class Shapes(NamedTuple):
    """The shape of one reconstruction, of one x and of one mu.

    kinds: x holds whole numbers below it, 0 where x is real-valued.
    """

    reconstruction: tuple
    x: tuple
    codes: tuple
    kinds: int = 0

    @property
    def two_heads(self):
        values = math.prod(self.reconstruction)
        return not self.kinds and values == 2 * math.prod(self.x)

    @property
    def largest(self):
        """How many values the largest of them has."""
        return max(map(math.prod, self[:3]))

    @property
    def sizes(self):
        """Every number that a batch size could be mistaken for."""
        return {n for shape in self[:3] for n in (*shape, math.prod(shape))}


class KL(NamedTuple):
    """What a loss's KL is, as its gradients on mu and logvar say.

    kind: "gaussian"; "prior", a KL to another prior than N(0, 1); "none"; or "other".
    b: its weight at the first batch size tried, None where that is not known or no constant.
    cosines: how well the gradients on mu and logvar fit a Gaussian KL, 1 is exactly.
    scale, narrow: the size of codes at which b was read, and their logvar if that was not random.
    free_bits: small codes cost nothing. capacity: small codes are pushed up.
    monte_carlo: it is estimated at random codes. mixes: the gradient of one row's mu turns when
    only other rows' mu change, so codes of different images are compared. formula: which wrong
    formula it is, in words, or None.
    """

    kind: str
    b: float | None
    cosines: tuple = (1.0, 1.0)
    scale: float = 1.0
    narrow: float | None = None
    free_bits: bool = False
    capacity: bool = False
    monte_carlo: bool = False
    mixes: bool = False
    formula: str | None = None


class Refused(Exception):
    """The loss raised, or did not return a finite scalar, at ordinary arguments."""


class Slope(NamedTuple):
    """The gradient on one argument, a mean over draws of the random states; its variance."""

    mean: torch.Tensor
    variance: torch.Tensor


class Fit(NamedTuple):
    """gradient = c * reference by least squares; good: whether that is all of the gradient.

    error: the standard error of c, 0 where nothing is random.
    """

    c: float
    cosine: float | tuple
    good: bool
    error: float = 0.0


class Look(NamedTuple):
    """Codes (mu, logvar), and the slopes of the loss there."""

    codes: tuple
    slopes: list

    @property
    def flat(self):
        return not any(slope.mean.any() for slope in self.slopes)

    @property
    def random(self):
        mean, variance = self.slopes[0]
        return bool(variance.sum() > (1e-6 * mean.norm()) ** 2)


class HalfPrecision(TorchFunctionMode):
    """While active, notes whether anything is computed in half precision."""

    seen = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        small = (torch.float16, torch.bfloat16)
        self.seen = self.seen or isinstance(output, torch.Tensor) and output.dtype in small
        return output


class Meter:
    """Calls a loss at random arguments of given shapes and reads its gradients.

    random: whether the loss follows the random states of torch, numpy or Python.
    """

    def __init__(self, call, shapes, seed=0, nll=None):
        self.call, self.shapes, self.seed = call, shapes, seed
        self.dtype, self.device, self.coarse, self.random = torch.float64, "cpu", False, False
        self.forms = [Form(nll[0], "identity", nll[1])] if nll else []
        if shapes.two_heads:
            self.forms += HALVES
        elif math.prod(shapes.reconstruction) == math.prod(shapes.x):
            self.forms += FORMS

    # ---- calls

    def draw(self, n, scale=1.0, number=0):
        """r and x inside (0, 1), mu and logvar around 0, for n images; the same on every call."""
        seed = self.seed + 7919 * n + 104729 * number
        generator = torch.Generator("cpu").manual_seed(seed)
        about = {"generator": generator, "dtype": torch.float64, "device": "cpu"}
        r = 0.05 + 0.9 * torch.rand(n, *self.shapes.reconstruction, **about)
        x = 0.05 + 0.9 * torch.rand(n, *self.shapes.x, **about)
        kinds = self.shapes.kinds
        if kinds > 3:  # the first and the last kind often stand for padding
            x = 1 + (x * (kinds - 2)).long()
        elif kinds:
            x = (x * kinds).long()
        mu = scale * torch.randn(n, *self.shapes.codes, **about)
        logvar = 0.5 * min(scale, 3.0) * torch.randn(n, *self.shapes.codes, **about)
        return r, x, mu, logvar

    def leaves(self, arguments):
        """The arguments as the loss can take them, with gradients where they are real-valued."""
        return [
            t.detach().to(self.dtype).requires_grad_() if t.is_floating_point() else t
            for t in arguments
        ]

    def returned(self, arguments, draw=0):
        """What the loss returns for copies that are no leaves; Refused says why it does not.

        draw: a number that stands for the random states.
        """
        set_random_states(self.seed + draw)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self.call.parts(*(t.to(self.device).clone() for t in arguments))
        except Exception as error:  # whatever the reader's loss raises is evidence
            raise Refused(f"{type(error).__name__}: {first_line(error)}") from error

    def value(self, arguments, draw=0):
        """The loss as a tensor."""
        return self.returned(arguments, draw)[self.call.part].reshape(())

    def refusal(self, n):
        """Find a number type, a device and a returned part that work: None, or why none does."""
        first = None
        places = [(torch.float64, "cpu"), (torch.float32, "cpu")]
        places += [(torch.float32, "cuda")] if torch.cuda.is_available() else []
        for dtype, device in places:
            self.dtype, self.device = dtype, device
            leaves = self.leaves(self.draw(n))
            try:
                with HalfPrecision() as precision:
                    returned = self.returned(leaves)
                self.call = self.call.reading(returned, leaves[0], leaves[2])
                self.coarse = precision.seen
                value = returned[self.call.part].item()
                if math.isfinite(value):
                    return None
                first = first or f"it is {value} at ordinary arguments"
            except Refused as error:
                first = first or str(error)
        return first

    def memory(self, n):
        """(stateful, random): whether equal calls differ, whether other random states matter."""
        leaves = self.leaves(self.draw(n, scale=5.0))  # smaller codes may be free
        first, second, other = (self.value(leaves, draw).item() for draw in (0, 0, 1))
        step = abs(first - second)  # a warm-up goes on by small steps
        return step > 1e-6 * abs(first), abs(other - second) > 1e-9 * abs(first) + 10 * step

    def gradients(self, arguments, draw=0):
        """dL/d(reconstruction, mu, logvar), zeros where the loss does not depend on one."""
        leaves = self.leaves(arguments)
        value = self.value(leaves, draw)
        r, _, mu, logvar = leaves
        if not value.requires_grad:
            return [torch.zeros_like(leaf) for leaf in (r, mu, logvar)]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = torch.autograd.grad(
                    value, (r, mu, logvar), allow_unused=True, materialize_grads=True
                )
        except Exception as error:
            raise Refused(f"{type(error).__name__}: {first_line(error)}") from error
        return [gradient.detach().double().cpu() for gradient in found]

    def draws(self, wanted, arguments):
        """How many random states to average over: `wanted`, fewer where arguments are large."""
        affordable = int(DRAWN_VALUES / arguments[0].numel())
        return max(1, min(wanted, affordable)) if self.random else 1

    def slopes(self, arguments, wanted, draws=64):
        """The `Slope` on each of `wanted`, a slice of (reconstruction, mu, logvar)."""
        draws = self.draws(draws, arguments)
        drawn = [self.gradients(arguments, draw)[wanted] for draw in range(draws)]
        if draws == 1:
            return [Slope(gradient, torch.zeros_like(gradient)) for gradient in drawn[0]]
        every = [torch.stack(gradients) for gradients in zip(*drawn, strict=True)]
        return [Slope(gradients.mean(0), gradients.var(0) / draws) for gradients in every]

    @property
    def tolerance(self):
        return COARSE if self.coarse else FINE

    def fit(self, gradient, reference, variance=0.0, tolerance=None):
        """`Fit` of a gradient, of this variance, to a reference."""
        gradient, reference = gradient.double(), reference.double()
        size, norm = gradient.norm().item(), reference.norm().item()
        if size == 0 or norm == 0 or not math.isfinite(size + norm):
            return Fit(0.0, 0.0, size == 0)
        inner = (gradient * reference).sum().item()
        c = inner / norm**2
        rest = (gradient - c * reference).norm().item()
        variance = torch.as_tensor(variance).expand_as(gradient)
        chance = variance.sum().item() ** 0.5
        error = (reference.square() * variance).sum().item() ** 0.5 / norm**2
        enough = math.hypot((tolerance or self.tolerance) * size, 3 * chance)
        return Fit(c, inner / (size * norm), rest < enough and abs(c) > 5 * error, error)

    # ---- the reconstruction error

    def form(self, n):
        """The form whose gradient is the loss's on the values that it sees, or None."""
        r, x, *codes = self.draw(n)
        ((gradient, variance),) = self.slopes((r, x, *codes), slice(0, 1))
        if gradient.norm() == 0:
            return None
        seen = self.seen_values(n, gradient)
        mask = None if seen.all() else seen.double()
        for form in itertools.chain(self.forms, categorical_forms(self.shapes, gradient)):
            form = replace(form, weights=mask)
            if self.fit(gradient, form.gradient(r, x), variance).good:
                return form
        for form in self.forms if n > 1 else ():
            if form.name == "squared error":
                form = form.weighted(gradient, r, x)
                if form is not None and self.fit(gradient, form.gradient(r, x), variance).good:
                    return form
        return None

    def seen_values(self, n, gradient):
        """Which values of a reconstruction have a gradient in any row, of this or another draw."""
        seen = (gradient != 0).any(0)
        for number in range(1, 5):
            if not seen.all():
                other = self.gradients(self.draw(n, number=number), draw=number)[0]
                seen |= (other != 0).any(0)
        return seen

    def name(self, n, form):
        """(name, grows) of the loss once a form is known: some look like a squared error nearby."""
        if form is None or form.name != "squared error":
            return form and form.name, 0.0
        if form.link == "identity" and or_false(self.is_huber, n):
            return "Huber", 0.0
        grows = or_false(self.growth, n, form) or 0.0
        if grows >= -0.5:
            return "Gaussian NLL" if form.uneven else form.name, grows
        return "Gaussian NLL" if grows < -1.5 else None, grows

    def is_huber(self, n):
        """Whether a squared error stops being one at large residuals."""
        r, x, *codes = self.draw(n)
        far = self.gradients((x + 40 * (r - x), x, *codes))[0]
        return not self.fit(far, self.gradients((r, x, *codes))[0]).good

    def growth(self, n, form):
        """The power of the residual with which a goes: 0, or -2 for a loss like log(MSE)."""
        r, x, *codes = self.draw(n)
        near = x + 0.5 * (r - x)
        c, c_near = (self.weight_of(form, (p, x, *codes)) for p in (r, near))
        return round(-math.log2(c_near / c), 3) if c * c_near > 0 else 0.0

    def weight_of(self, form, arguments):
        """a over the number of rows, at these arguments."""
        gradient = self.gradients(arguments)[0]
        return self.fit(gradient, form.gradient(*arguments[:2])).c

    def own_a(self, form, own):
        """a at the model's own reconstructions."""
        own = [t.detach().cpu() for t in own]
        return len(own[0]) * self.weight_of(form, own)

    def weights(self, n, form, kl):
        """(a, b) at batch size n; None for what was not recognised."""
        r, x, mu, logvar = self.draw(n, kl.scale)
        if kl.narrow is not None:
            logvar = torch.full_like(logvar, kl.narrow)
        slopes = self.slopes((r, x, mu, logvar), slice(0, 3), draws=256 // mu.numel())
        gradient, on_mu, on_logvar = (slope.mean for slope in slopes)
        a = 0.0 if gradient.norm() == 0 else None
        if form is not None:
            a = n * self.fit(gradient, form.gradient(r, x)).c
        if kl.b is None or kl.kind == "none":
            return a, kl.b
        if kl.narrow is not None:
            return a, -2 * n * on_logvar.median().item()
        return a, n * self.fit(on_mu, mu * (on_mu != 0)).c

    def mixes(self, n, argument):
        """Whether the gradient of the first image turns when only the other images change.

        argument: "x", seen in the reconstruction's gradient, or "mu", seen in its own.
        """
        arguments = self.draw(n)
        place = {"x": 1, "mu": 2}[argument]
        first, others = arguments[place][:1], arguments[place][1:]
        # -mu is as far from 0, so that free bits and capacities do the same.
        opposite = -others if argument == "mu" else max(self.shapes.kinds - 1, 1) - others
        changed = [*arguments[:place], torch.cat([first, opposite]), *arguments[place + 1 :]]
        before = self.gradients(arguments)[place - 1][:1]
        after = self.gradients(changed)[place - 1][:1]
        return not self.fit(after, before).good

    def moves_rows(self, n):
        """Whether the first image's gradient follows the x of one other image, and not its own."""
        arguments = self.draw(n)
        before = self.gradients(arguments)[0][:1]
        followed = []
        for row in range(n):
            x = arguments[1].clone()
            x[row] = max(self.shapes.kinds - 1, 1) - x[row]
            after = self.gradients([arguments[0], x, *arguments[2:]])[0][:1]
            if not torch.allclose(after, before, rtol=1e-6, atol=1e-12):
                followed.append(row)
        return len(followed) == 1 and followed != [0]

    # ---- the KL

    def kl(self, n):
        """Which KL it is, and what it does to small codes."""
        looks = self._looks(n)
        steep = [look for look in looks.values() if not look.flat]
        if not steep:
            return KL("none", 0.0)
        fits = {scale: self.kl_fit(look, gaussian_kl) for scale, look in looks.items()}
        least = 1e-3 * max(abs(fit.c) for fit in fits.values())
        good = {scale: fit.c for scale, fit in fits.items() if fit.good and abs(fit.c) > least}
        first = next(iter(fits.values()))
        chance, free = steep[0].random, len(steep) < len(looks)
        mixes = (chance or 1.0 not in good) and n > 1 and or_false(self.mixes, n, "mu")
        found = KL("other", None, first.cosine, free_bits=free, monte_carlo=chance, mixes=mixes)
        if good and not chance:
            return self._gaussian(n, found, good, len(good) < len(fits))
        return self._unusual(n, found, steep[0], first.c)

    def _looks(self, n):
        """Code scale -> `Look` at codes of that size."""
        looks = {}
        for scale in CODE_SCALES:
            r, x, *codes = self.draw(n, scale)
            with contextlib.suppress(Refused):
                looks[scale] = Look(codes, self.slopes((r, x, *codes), slice(1, 3)))
                if looks[scale].random:
                    break  # chance would hide what the others show
        return looks

    def _gaussian(self, n, found, good, partly):
        """The Gaussian KL. good: its weight over n at those sizes of codes at which it is one."""
        sizes = [abs(c) for c in good.values()]
        capacity = min(good.values()) < 0 < max(good.values())
        scale = max(good) if capacity or found.free_bits or partly else 1.0
        return found._replace(
            kind="gaussian",
            b=n * good[scale] if max(sizes) < 1.1 * min(sizes) else None,
            cosines=(1.0, 1.0),
            scale=scale,
            capacity=capacity,
        )

    def _unusual(self, n, found, look, c):
        """An estimate at random codes, another prior, codes that are compared, or a wrong formula.

        c: the weight of a Gaussian KL that is nearest at ordinary codes.
        """
        # An average over draws is near to more than one formula.
        formula = None if found.monte_carlo else self.formula(look)
        b, narrow, standard = (None, None, False) if formula else self.narrow(n)
        if b is not None:
            known = found._replace(b=b, narrow=narrow, capacity=standard and b * c < 0)
            scale = 5.0 if n * c / b < 0.3 else 1.0  # free bits, or a capacity
            if found.mixes:
                return known
            if or_false(self.has_prior, n, b, scale):
                return known._replace(kind="gaussian" if standard else "prior")
        if found.monte_carlo and not found.mixes:
            formula = self.formula(look)
        return found._replace(formula=formula, mixes=found.mixes and not formula)

    def formula(self, look):
        """Which wrong formula gives these slopes, or None."""
        fits = {words: self.kl_fit(look, wrong, COARSE) for words, wrong in FORMULAS.items()}
        good = [words for words, fit in fits.items() if fit.good]
        return good[0] if len(good) == 1 else None

    def kl_fit(self, look, formula, tolerance=None):
        """How the slopes agree with those of a KL, where it is not switched off."""
        leaves = [code.requires_grad_() for code in look.codes]
        right = torch.autograd.grad(
            formula(*leaves).sum(), leaves, allow_unused=True, materialize_grads=True
        )
        on = (look.slopes[0].mean != 0) | (look.slopes[1].mean != 0)
        mu, logvar = (
            self.fit(slope.mean, reference * on, slope.variance, tolerance)
            for slope, reference in zip(look.slopes, right, strict=True)
        )
        slack = max(1e-3, tolerance or self.tolerance) * max(abs(mu.c), abs(logvar.c))
        apart = abs(mu.c - logvar.c) > slack + 4 * math.hypot(mu.error, logvar.error)
        one_sided = not all(reference.any() for reference in right)
        everywhere = on.double().mean() > 0.6 and bool(on.any(0).all())
        good = everywhere and mu.good and logvar.good and (one_sided or not apart)
        return Fit(mu.c, (mu.cosine, logvar.cosine), good)

    def narrow(self, n):
        """(b, logvar, standard) of codes so narrow that logvar acts by their entropy only.

        A KL to any prior is -b / 2 * logvar there, whatever mu is. standard: the prior is N(0, 1).
        b and logvar are None where that is not so.
        """
        r, x, mu, logvar = self.draw(n)
        for pair in NARROW:
            with contextlib.suppress(Refused):
                at = [(r, x, mu, torch.full_like(logvar, value)) for value in pair]
                on_mu, on_logvar = zip(*(self.slopes(a, slice(1, 3)) for a in at), strict=True)
                means, variances = (torch.stack(parts) for parts in zip(*on_logvar, strict=True))
                middle = means.median()
                chance = 4 * variances.sqrt()
                near = (means - middle).abs() < 0.03 * middle.abs() + chance
                near &= chance < 0.2 * middle.abs()
                # Where images are compared, two of them may lie close together in one latent.
                if middle and near.double().mean() > 0.9:
                    fit = self.fit(on_mu[0].mean, mu, on_mu[0].variance, 0.02)
                    standard = fit.good and abs(fit.c + 2 * middle) < 0.04 * abs(fit.c)
                    return -2 * n * middle.item(), pair[0], standard
        return None, None, False

    def has_prior(self, n, b, scale):
        """Whether the term is b times a KL to some prior: minus entropy, plus a mean over N(mu, v).

        The slope of such a mean in v is half its curvature in mu (Price's theorem).
        """
        r, x, mu, _ = self.draw(n)
        draws, off = self.draws(max(64, 256 // mu[0].numel()), (r,)), []
        for draw in range(max(16, draws)):
            # Not the seed of the loss's own noise: codes that are equal to it would mislead.
            generator = torch.Generator("cpu").manual_seed(self.seed + 104729 + draw)
            about = {"generator": generator, "device": "cpu"}
            mu, logvar = (
                scale * torch.randn(mu.shape, **about),
                0.5 * torch.randn(mu.shape, **about),
            )
            step = torch.randint(2, mu.shape, **about) - 0.5
            up, down = (self.gradients((r, x, mu + s, logvar), draw)[1] for s in (step, -step))
            curvature = (up - down) / (2 * step)
            slope = self.gradients((r, x, mu, logvar), draw)[2] + b / (2 * n)
            off.append(n * (slope - 0.5 * logvar.exp() * curvature).mean())
        off = torch.stack(off)
        error = off.std() / len(off) ** 0.5
        return bool(off.mean().abs() < 0.1 * abs(b) + 4 * error)


def set_random_states(seed):
    """Set the random states of torch, numpy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def first_line(error):
    """The first line of an error's text, at most 160 characters."""
    line = (str(error).strip().splitlines() or [""])[0]
    return line if len(line) <= 160 else line[:157] + "..."


def or_false(measure, *arguments):
    """A measurement that a loss may refuse: then the answer is no."""
    try:
        return measure(*arguments)
    except Refused:
        return False
