"""The output layer is a likelihood: activation, loss and support kept in one object.

A decoder ends in plain numbers. A likelihood says what they mean: `nll` is the loss, `mean` is the
picture to show, `support` is the range of data it is made for. Add one of your own by writing a
class with those three and a `name`.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

LOG_2PI = math.log(2 * math.pi)


class Likelihood(nn.Module):
    """Base class: p(x | output) of each value of x, independent given the decoder's output.

    `support` is the closed range of x. `outputs_per_value` is how many numbers the decoder gives
    for one value of x; they lie side by side in dimension 1 (`[B, k * C, H, W]` or `[B, k * F]`).
    """

    name = "likelihood"
    support = (-math.inf, math.inf)
    outputs_per_value = 1

    def nll(self, output, x):
        """Negative log-likelihood in nats, summed over the values of each image, [B]."""
        raise NotImplementedError

    def mean(self, output):
        """E[x | output], the picture to show, shaped like x."""
        raise NotImplementedError

    def sample(self, output, generator=None):
        """One draw of x given the output, shaped like x."""
        raise NotImplementedError

    def check(self, x):
        """Raise ValueError if x has values that are not numbers or lie outside the support."""
        if not torch.isfinite(x).all():
            raise ValueError("x holds NaN or infinite values: clean the data before training")
        low, high = x.min().item(), x.max().item()
        if low < self.support[0] or high > self.support[1]:
            lowest, highest = self.support
            raise ValueError(
                f"x spans [{low:.3g}, {high:.3g}], but {self.name} is for values in "
                f"[{lowest:g}, {highest:g}]: rescale x (vaelab.Scaling.unit keeps images in "
                "[0, 1]), or use a likelihood whose support is wide enough (vaelab.Gaussian)"
            )

    def extra_repr(self):
        return f"support={self.support}"


class Bernoulli(Likelihood):
    """Sigmoid + binary cross-entropy, on logits. For x in [0, 1].

    on: "logits" (the default), or "probabilities" for a network that ends in a sigmoid of its own.
    For grey values the cross-entropy is the expected negative log-likelihood of the image with its
    pixels set to 0 or 1 at random (Loaiza-Ganem & Cunningham 2019, arXiv 1907.06845, compare it
    with a density of the grey values themselves). Threads 001, 003 and 004.
    """

    name = "Bernoulli"
    support = (0.0, 1.0)

    def __init__(self, on="logits"):
        super().__init__()
        if on not in ("logits", "probabilities"):
            raise ValueError(f"on must be 'logits' or 'probabilities', got {on!r}")
        self.on = on

    def nll(self, output, x):
        if self.on == "logits":
            loss = F.binary_cross_entropy_with_logits(output, x, reduction="none")
        else:
            loss = F.binary_cross_entropy(output, x, reduction="none")
        return loss.flatten(1).sum(1)

    def mean(self, output):
        return torch.sigmoid(output) if self.on == "logits" else output

    def sample(self, output, generator=None):
        return torch.bernoulli(self.mean(output), generator=generator)


class ContinuousBernoulli(Likelihood):
    """The Bernoulli's formula turned into a density on [0, 1], on logits. For grey values.

    At logit l the density is exp(l x) l / (exp(l) - 1). Its parameter sigmoid(l) is not its mean:
    0.1 has mean 0.33. Written by hand because `torch.distributions` clamps the parameter, so that
    its mean never leaves [0.063, 0.937]. Loaiza-Ganem & Cunningham 2019, arXiv 1907.06845.
    """

    name = "continuous Bernoulli"
    support = (0.0, 1.0)
    near_half = 0.25  # logits closer to 0 than this use a series: the formulas are 0/0 there

    def nll(self, output, x):
        away = self._away(output)
        log_norm = torch.log(-torch.expm1(-away)) - away.log()
        far = away * torch.where(output < 0, x, 1 - x) + log_norm
        logit = output.clamp(-1, 1)
        near = logit * (0.5 - x) + logit**2 / 24 - logit**4 / 2880 + logit**6 / 181440
        loss = torch.where(output.abs() < self.near_half, near, far)
        return loss.flatten(1).sum(1)

    def mean(self, output):
        away = self._away(output)
        below = 1 / away + torch.exp(-away) / torch.expm1(-away)  # the mean at -|logit|
        far = torch.where(output < 0, below, 1 - below)
        logit = output.clamp(-1, 1)
        near = 0.5 + logit / 12 - logit**3 / 720 + logit**5 / 30240
        return torch.where(output.abs() < self.near_half, near, far)

    def sample(self, output, generator=None):
        u = torch.rand(output.shape, generator=generator, device=output.device, dtype=output.dtype)
        away = output.abs().clamp(min=1e-6)
        below = -torch.log1p(u * torch.expm1(-away)) / away
        return torch.where(output < 0, below, 1 - below)

    def _away(self, output):
        """|logit|, and 1 where the series is used, so that no gradient there is 0/0."""
        return torch.where(output.abs() < self.near_half, torch.ones_like(output), output.abs())


class Gaussian(Likelihood):
    """A mean, with or without an activation, and one variance: squared error with its scale said.

    sigma2: the variance of one value, in squared units of x. A number keeps it fixed; the plain sum
    of squares is 1/2. "learned" makes its logarithm a parameter that trains with the model.
    "optimal" sets it to the mean squared error, which minimises the nll (Rybkin et al. 2020, arXiv
    2006.13202): of the batch in train mode, and a running average of those in eval mode, so that an
    evaluation does not depend on how images are batched. Both begin at 1.
    activation: None, "tanh" or "sigmoid", applied to the output to give the mean.
    """

    name = "Gaussian"
    memory = 0.95  # of the running average, about twenty batches

    def __init__(self, sigma2=0.5, activation=None):
        super().__init__()
        number = isinstance(sigma2, (int, float)) and 0 < sigma2 < math.inf
        if not number and sigma2 not in ("learned", "optimal"):
            raise ValueError(
                f"sigma2 must be a positive number, 'learned' or 'optimal', got {sigma2!r}"
            )
        if activation not in (None, "tanh", "sigmoid"):
            raise ValueError(f"activation must be None, 'tanh' or 'sigmoid', got {activation!r}")
        self.kind = "fixed" if number else sigma2
        self.activation = activation
        if sigma2 == "learned":
            self.log_sigma2 = nn.Parameter(torch.zeros(()))
        else:
            start = math.log(sigma2) if number else 0.0
            self.register_buffer("log_sigma2", torch.tensor(start))

    @property
    def sigma2(self):
        """The variance as a number: fixed, learned so far, or the running mean squared error."""
        return self.log_sigma2.exp().item()

    def nll(self, output, x):
        squares = (self.mean(output) - x).flatten(1).square()  # [B, D]
        n_values = squares.shape[1]
        log_sigma2 = self.log_sigma2
        if self.kind == "optimal" and self.training:
            log_sigma2 = self._update_log_sigma2(squares.detach())
        error = squares.sum(1) * torch.exp(-log_sigma2)
        return 0.5 * (error + n_values * (log_sigma2 + LOG_2PI))

    def _update_log_sigma2(self, squares):
        """The batch's best log variance; the running average is brought up to date."""
        # A constant: at the best sigma2 the nll does not change with it, nor does the gradient.
        mse = squares.mean().clamp(min=1e-12)
        average = self.memory * self.log_sigma2.exp() + (1 - self.memory) * mse
        self.log_sigma2.copy_(average.log())
        return mse.log()

    def mean(self, output):
        if self.activation == "tanh":
            return torch.tanh(output)
        return torch.sigmoid(output) if self.activation == "sigmoid" else output

    def sample(self, output, generator=None):
        mean = self.mean(output)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return mean + math.sqrt(self.sigma2) * noise

    def extra_repr(self):
        return f"sigma2={self.sigma2:.4g} ({self.kind}), activation={self.activation!r}"


class GaussianWithVariance(Likelihood):
    """A mean and a log-variance for each value, the latter kept within bounds (thread 003).

    sigma_range: the least and the largest standard deviation, in units of x, so standardise x
    first. The bounds are soft: the gradient fades, it never jumps, and a narrow range is exceeded a
    little. None takes the guard away: then a value that is always the same drives its variance to 0
    and the likelihood to infinity.
    """

    name = "Gaussian with variance"
    outputs_per_value = 2

    def __init__(self, sigma_range=(0.1, 10.0)):
        super().__init__()
        if sigma_range is not None and not 0 < sigma_range[0] < sigma_range[1] < math.inf:
            raise ValueError(
                f"sigma_range must be (least, largest), both above 0, got {sigma_range}"
            )
        self.sigma_range = sigma_range

    def nll(self, output, x):
        mean, logvar = self.mean(output), self.logvar(output)
        loss = 0.5 * ((x - mean).square() * torch.exp(-logvar) + logvar + LOG_2PI)
        return loss.flatten(1).sum(1)

    def mean(self, output):
        return output.unflatten(1, (2, -1))[:, 0]

    def logvar(self, output):
        """The bounded log-variance of each value, shaped like x."""
        logvar = output.unflatten(1, (2, -1))[:, 1]
        if self.sigma_range is None:
            return logvar
        low, high = (2 * math.log(sigma) for sigma in self.sigma_range)
        logvar = high - F.softplus(high - logvar)
        return low + F.softplus(logvar - low)

    def sample(self, output, generator=None):
        mean = self.mean(output)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return mean + torch.exp(0.5 * self.logvar(output)) * noise

    def extra_repr(self):
        return f"sigma_range={self.sigma_range}"


class Categorical(Likelihood):
    """Softmax + cross-entropy over quantised levels (van den Oord et al. 2016, arXiv 1601.06759).

    x in [0, 1] is rounded to the nearest of `levels` values 0, 1/(levels - 1), ..., 1, and the nll
    is that of the level. The decoder's last layer grows `levels`-fold: on thread 001's network 16
    levels make 5 million parameters and 256 would make 80 million. Thread 003.
    """

    name = "categorical"
    support = (0.0, 1.0)

    def __init__(self, levels=16):
        super().__init__()
        if not (isinstance(levels, int) and levels >= 2):
            raise ValueError(f"levels must be a whole number of at least 2, got {levels!r}")
        self.levels = self.outputs_per_value = levels

    def nll(self, output, x):
        logits = output.unflatten(1, (self.levels, -1))
        level = (x * (self.levels - 1)).round().long()
        return F.cross_entropy(logits, level, reduction="none").flatten(1).sum(1)

    def mean(self, output):
        p = output.unflatten(1, (self.levels, -1)).softmax(1)
        values = torch.linspace(0, 1, self.levels, device=p.device, dtype=p.dtype)
        return torch.einsum("bk...,k->b...", p, values)

    def sample(self, output, generator=None):
        p = output.unflatten(1, (self.levels, -1)).softmax(1).movedim(1, -1)
        level = torch.multinomial(p.flatten(0, -2), 1, generator=generator).view(p.shape[:-1])
        return level.to(p.dtype) / (self.levels - 1)

    def extra_repr(self):
        return f"levels={self.levels}"
