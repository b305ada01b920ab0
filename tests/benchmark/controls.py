"""Healthy models of every kind: the check-up must not find anything serious.

Each control trains a small VAE for one to three seconds and checks it on held-out rows. Where a
user would have to give `checkup` an argument, so does the control.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

import vaelab

from . import sets
from .case import Plan, control, kl
from .training import fit

ROWS = 300
CAPACITY = 15.0  # nats


# ---- a small VAE in many forms


def as_it_is(layer):
    return layer


def with_weight_norm(layer):
    return nn.utils.parametrizations.weight_norm(layer)


def block(n_in, n_out, activation, norm, dropout, wrap):
    """One hidden layer."""
    parts = [wrap(nn.Linear(n_in, n_out))]
    if norm is not None:
        parts.append(norm(n_out))
    parts.append(activation())
    if dropout:
        parts.append(nn.Dropout(dropout))
    return parts


class SmallVAE(nn.Module):
    """Fully connected layers around a flat code, with the usual forward."""

    def __init__(
        self,
        shape,
        latents=8,
        hidden=128,
        depth=1,
        end=nn.Sigmoid,
        activation=nn.ReLU,
        norm=None,
        dropout=0.0,
        wrap=as_it_is,
    ):
        super().__init__()
        d = math.prod(shape)
        layers = [nn.Flatten()]
        width = d
        for _ in range(depth):
            layers += block(width, hidden, activation, norm, dropout, wrap)
            width = hidden
        self.encoder = nn.Sequential(*layers, nn.Linear(hidden, 2 * latents))
        layers = []
        width = latents
        for _ in range(depth):
            layers += block(width, hidden, activation, norm, dropout, wrap)
            width = hidden
        self.decoder = nn.Sequential(
            *layers, nn.Linear(hidden, d), nn.Unflatten(1, shape), *([end()] if end else [])
        )

    def encode(self, x):
        return self.encoder(x).chunk(2, 1)

    def decode(self, z):
        return self.decoder(z)

    def forward(self, x):
        mu, logvar = self.encode(x)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.decode(z), mu, logvar


def small_vae(x, **options):
    """A SmallVAE for rows like x [N, ...]."""
    torch.manual_seed(0)
    return SmallVAE(tuple(x.shape[1:]), **options)


def train_small(model, loss, data, steps=300, rate=2e-3, batch=64):
    """Train with Adam; loss is (reconstruction, x, mu, logvar) -> scalar."""
    torch.manual_seed(0)

    def of_outputs(outputs, x):
        return loss(outputs[0], x, *outputs[1:])

    return fit(model, of_outputs, data, Plan(steps, rate, batch))


def examine(model, loss, data, inputs=None, **options):
    """The report on held-out rows."""
    if data.labels_test is not None:
        inputs = data.labels_test[:ROWS]
    return vaelab.checkup(model, data.x_test[:ROWS], loss, inputs=inputs, **options)


def trained_and_examined(model, loss, data, steps=300, rate=2e-3, batch=64, **options):
    """Train with a loss and check with the same."""
    train_small(model, loss, data, steps, rate, batch)
    return examine(model, loss, data, **options)


# ---- errors and losses


def cross_entropy(reconstruction, x):
    """[B] nats for probabilities."""
    return F.binary_cross_entropy(reconstruction, x, reduction="none").flatten(1).sum(1)


def logits_cross_entropy(reconstruction, x):
    """[B] nats for logits."""
    every = F.binary_cross_entropy_with_logits(reconstruction, x, reduction="none")
    return every.flatten(1).sum(1)


def gaussian(sigma):
    """An error [B] in nats for a normal distribution of this standard deviation."""

    def error(reconstruction, x):
        squares = ((reconstruction - x) / sigma) ** 2
        return 0.5 * squares.flatten(1).sum(1)

    return error


def elbo(error=cross_entropy, beta=1.0):
    """The usual loss with a weight of the KL."""

    def loss(reconstruction, x, mu, logvar):
        return (error(reconstruction, x) + beta * kl(mu, logvar)).mean()

    return loss


def monte_carlo_kl(mu, logvar, log_prior=None):
    """[B] log q(z) - log p(z) at one draw. log_prior: [B, L] -> [B], default standard normal."""
    posterior = torch.distributions.Normal(mu, torch.exp(0.5 * logvar))
    z = posterior.rsample()
    log_q = posterior.log_prob(z).sum(1)
    if log_prior is not None:
        return log_q - log_prior(z)
    return log_q + 0.5 * (z**2 + math.log(2 * math.pi)).sum(1)


# ---- weights of the KL


def register_beta(beta):
    @control(f"beta {beta}")
    def check():
        data = sets.digits28()
        return trained_and_examined(small_vae(data.x_train), elbo(beta=beta), data)


for beta in (0.5, 2.0, 4.0):
    register_beta(beta)


@control("free bits")
def free_bits():
    """At least a quarter of a nat for each latent, on average over the batch, is free."""

    def loss(reconstruction, x, mu, logvar):
        each = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).mean(0)
        return cross_entropy(reconstruction, x).mean() + each.clamp(min=0.25).sum()

    data = sets.digits28()
    return trained_and_examined(small_vae(data.x_train), loss, data)


@control("weights after a warm-up")
def warmed_up():
    """Half of the training raises beta from 0 to 1; the loss that is checked has beta 1."""
    data = sets.digits28()
    model = small_vae(data.x_train)
    steps = 0

    def rising(reconstruction, x, mu, logvar):
        nonlocal steps
        steps += 1
        return elbo(beta=min(1.0, steps / 200))(reconstruction, x, mu, logvar)

    train_small(model, rising, data, steps=400)
    return examine(model, elbo(), data)


@control("KL weight of a millionth on purpose")
def latent_diffusion():
    """The first stage of latent diffusion: a second model will learn where the codes lie."""

    def loss(reconstruction, x, mu, logvar):
        error = (reconstruction - x).abs().flatten(1).sum(1)
        return (error + 1e-6 * kl(mu, logvar)).mean()

    data = sets.shapes16()
    model = small_vae(data.x_train, latents=16)
    # A user who means it says so.
    train_small(model, loss, data, steps=800)
    return examine(model, loss, data, beta_limits=(0, 10), sigma2_limits=(0, 200))


@control("capacity")
def capacity():
    """Burgess and others: the KL is held at a number of nats."""

    def loss(reconstruction, x, mu, logvar):
        off = (kl(mu, logvar).mean() - CAPACITY).abs()
        return cross_entropy(reconstruction, x).mean() + 5 * off

    data = sets.digits28()
    return trained_and_examined(small_vae(data.x_train), loss, data)


# ---- other regularisers


@control("Monte-Carlo KL")
def one_draw():
    def loss(reconstruction, x, mu, logvar):
        return (cross_entropy(reconstruction, x) + monte_carlo_kl(mu, logvar)).mean()

    data = sets.digits28()
    return trained_and_examined(small_vae(data.x_train), loss, data)


@control("total correlation")
def beta_tc():
    """BetaTCVAE with beta 2, densities of the aggregate estimated inside the minibatch."""

    def loss(reconstruction, x, mu, logvar):
        posterior = torch.distributions.Normal(mu, torch.exp(0.5 * logvar))
        z = posterior.rsample()
        across = torch.distributions.Normal(mu[None], torch.exp(0.5 * logvar)[None])
        pairs = across.log_prob(z[:, None])  # [B, B, L]
        joint = pairs.sum(2).logsumexp(1)
        product = (pairs.logsumexp(1) - math.log(len(x))).sum(1)
        correlation = joint - math.log(len(x)) - product
        return (cross_entropy(reconstruction, x) + monte_carlo_kl(mu, logvar) + correlation).mean()

    data = sets.digits28()
    return trained_and_examined(small_vae(data.x_train), loss, data)


def likeness(a, b):
    """Mean of a radial kernel over all pairs of rows."""
    distance = (a[:, None] - b[None]).pow(2).sum(2) / a.shape[1]
    return torch.exp(-distance).mean()


@control("maximum mean discrepancy")
def info_vae():
    """InfoVAE with alpha 0: the KL stays, and the codes as a crowd are pulled to the prior."""

    def loss(reconstruction, x, mu, logvar):
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        prior = torch.randn_like(z)
        discrepancy = likeness(z, z) + likeness(prior, prior) - 2 * likeness(z, prior)
        return (cross_entropy(reconstruction, x) + kl(mu, logvar)).mean() + 50 * discrepancy

    data = sets.digits28()
    return trained_and_examined(small_vae(data.x_train), loss, data)


class WithPrior(SmallVAE):
    """Its prior is a mixture; subclasses say of what."""

    def log_prior(self, z):
        """[B, L] -> [B]."""
        mean, logvar = self.components()
        each = torch.distributions.Normal(mean, torch.exp(0.5 * logvar))
        pairs = each.log_prob(z[:, None]).sum(2)  # [B, K]
        return pairs.logsumexp(1) - math.log(len(mean))


class Mixture(WithPrior):
    """Ten normal distributions with means and widths that are learned."""

    def __init__(self, shape):
        super().__init__(shape)
        self.means = nn.Parameter(torch.randn(10, 8))
        self.logvars = nn.Parameter(torch.zeros(10, 8))

    def components(self):
        return self.means, self.logvars


class VampPrior(WithPrior):
    """The posteriors of twenty learned pseudo-inputs."""

    def __init__(self, shape, first):
        super().__init__(shape)
        self.pseudo = nn.Parameter(torch.logit(first.clamp(0.02, 0.98)))

    def components(self):
        return self.encode(torch.sigmoid(self.pseudo))


def with_learned_prior(model, data):
    def loss(reconstruction, x, mu, logvar):
        price = monte_carlo_kl(mu, logvar, model.log_prior)
        return (cross_entropy(reconstruction, x) + price).mean()

    return trained_and_examined(model, loss, data)


@control("mixture prior")
def mixture_prior():
    torch.manual_seed(0)
    return with_learned_prior(Mixture((1, 28, 28)), sets.digits28())


@control("VampPrior")
def vamp_prior():
    torch.manual_seed(0)
    data = sets.digits28()
    return with_learned_prior(VampPrior((1, 28, 28), data.x_train[:20]), data)


# ---- other likelihoods


@control("learned sigma")
def learned_sigma():
    """One sigma for all values, learned with the weights, the logarithm in the loss."""
    data = sets.waves()
    model = small_vae(data.x_train, end=None)
    model.log_sigma = nn.Parameter(torch.tensor(-1.0))

    def error(reconstruction, x):
        sigma = model.log_sigma.exp()
        return gaussian(sigma)(reconstruction, x) + x[0].numel() * model.log_sigma

    return trained_and_examined(model, elbo(error), data, steps=800, rate=4e-3)


@control("learned sigma per column")
def learned_sigma_per_column():
    data = sets.table()
    model = small_vae(data.x_train, end=None)
    model.log_sigma = nn.Parameter(torch.zeros(data.x_train.shape[1]))

    def error(reconstruction, x):
        return gaussian(model.log_sigma.exp())(reconstruction, x) + model.log_sigma.sum()

    return trained_and_examined(model, elbo(error), data, steps=800, rate=4e-3)


@control("Laplace")
def laplace():
    """Absolute errors with a named scale b: |x - m| / b and log(2 b) for each value."""
    b = 0.1

    def error(reconstruction, x):
        distance = (reconstruction - x).abs().flatten(1).sum(1)
        return distance / b + x[0].numel() * math.log(2 * b)

    data = sets.shapes16()
    return trained_and_examined(small_vae(data.x_train), elbo(error), data, steps=800)


@control("continuous Bernoulli")
def continuous_bernoulli():
    def error(reconstruction, x):
        spread = torch.distributions.ContinuousBernoulli(logits=reconstruction)
        return -spread.log_prob(x).flatten(1).sum(1)

    data = sets.digits28()
    return trained_and_examined(small_vae(data.x_train, end=None), elbo(error), data)


@control("discretised Gaussian")
def discretised_gaussian():
    """The probability of the one of 256 grey steps that a value lies in."""
    sigma, half = 0.1, 0.5 / 255

    def error(reconstruction, x):
        spread = torch.distributions.Normal(reconstruction, sigma)
        share = spread.cdf(x + half) - spread.cdf(x - half)
        return -share.clamp(min=1e-7).log().flatten(1).sum(1)

    data = sets.shapes16()
    return trained_and_examined(small_vae(data.x_train), elbo(error), data)


# ---- other scales of the data


def scaled(data, change):
    """The same rows on another scale."""
    return data._replace(x_train=change(data.x_train), x_test=change(data.x_test))


@control("z-scored images")
def z_scored():
    plain = sets.digits28()
    mean, spread = plain.x_train.mean(), plain.x_train.std()
    data = scaled(plain, lambda x: (x - mean) / spread)
    model = small_vae(data.x_train, end=None)
    return trained_and_examined(model, elbo(gaussian(0.5)), data)


@control("images from -1 to 1 with tanh")
def symmetric():
    data = scaled(sets.shapes16(), lambda x: 2 * x - 1)
    model = small_vae(data.x_train, end=nn.Tanh)
    return trained_and_examined(model, elbo(gaussian(0.2)), data)


# ---- sizes of the code


def register_latents(latents):
    @control(f"{latents} latents")
    def check():
        data = sets.digits28()
        model = small_vae(data.x_train, latents=latents)
        return trained_and_examined(model, elbo(), data, steps=600)


for latents in (1, 2, 64, 256):
    register_latents(latents)


# ---- number types and layers


@control("float64")
def double_precision():
    data = scaled(sets.digits28(), torch.Tensor.double)
    return trained_and_examined(small_vae(data.x_train).double(), elbo(), data)


@control("bfloat16 weights")
def half_precision():
    """Trained in float32, handed over in bfloat16; the loss counts in float32."""
    data = sets.digits28()
    model = train_small(small_vae(data.x_train, end=None), elbo(logits_cross_entropy), data)

    def loss(reconstruction, x, mu, logvar):
        numbers = (part.float() for part in (reconstruction, x, mu, logvar))
        return elbo(logits_cross_entropy)(*numbers)

    return examine(model.bfloat16(), loss, data)


FORMS = {
    "dropout": dict(dropout=0.2),
    "LayerNorm": dict(norm=nn.LayerNorm),
    "GroupNorm": dict(norm=lambda width: nn.GroupNorm(8, width)),
    "BatchNorm": dict(norm=nn.BatchNorm1d),
    "SELU": dict(activation=nn.SELU),
    "softplus between layers": dict(activation=nn.Softplus),
    "four layers on each side": dict(depth=4, norm=nn.BatchNorm1d),
    "weight norm": dict(wrap=with_weight_norm),
}


def register_form(name, options):
    @control(name)
    def check():
        data = sets.digits28()
        model = small_vae(data.x_train, **options)
        return trained_and_examined(model, elbo(), data, steps=400)


for name, options in FORMS.items():
    register_form(name, options)


class Residual(nn.Module):
    """x plus a small network of x."""

    def __init__(self, width):
        super().__init__()
        self.inside = nn.Sequential(nn.Linear(width, 64), nn.SiLU(), nn.Linear(64, width))

    def forward(self, x):
        return x + self.inside(x)


@control("residual decoder")
def residual_decoder():
    data = sets.digits28()
    model = small_vae(data.x_train)
    model.decoder.insert(2, Residual(128))
    model.decoder.insert(3, Residual(128))
    return trained_and_examined(model, elbo(), data)


class Labelled(SmallVAE):
    """The label, one of ten, goes into the encoder and into the decoder."""

    def __init__(self):
        super().__init__((1, 28, 28))
        self.encoder[1] = nn.Linear(784 + 10, 128)
        self.decoder[0] = nn.Linear(8 + 10, 128)

    def decode(self, z, labels):
        return self.decoder(torch.cat([z, F.one_hot(labels, 10)], 1))

    def forward(self, x, labels):
        seen = torch.cat([x.flatten(1), F.one_hot(labels, 10)], 1)
        mu, logvar = self.encode(seen)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.decode(z, labels), mu, logvar


@control("labels in encoder and decoder")
def conditional():
    torch.manual_seed(0)
    return trained_and_examined(Labelled(), elbo(), sets.digits28(labels=True))


class Draw(nn.Module):
    """[B, 2 L] -> codes [B, L]; it keeps what it drew from."""

    def forward(self, both):
        self.mu, self.logvar = both.chunk(2, 1)
        return self.mu + torch.exp(0.5 * self.logvar) * torch.randn_like(self.mu)


@control("one nn.Sequential")
def sequential():
    """The model returns pictures only, so the user gives an adapter and a decoder."""
    data = sets.digits28()
    parts = small_vae(data.x_train)
    model = nn.Sequential(parts.encoder, Draw(), parts.decoder)

    def whole(model, x):
        return model(x), model[1].mu, model[1].logvar

    def of_reconstruction(reconstruction, x):
        return elbo()(reconstruction, x, model[1].mu, model[1].logvar)

    torch.manual_seed(0)
    fit(model, of_reconstruction, data, Plan(300, 2e-3, 64))
    return examine(model, elbo(), data, adapter=whole, decode=parts.decode)


class Convolutions(nn.Module):
    """Two strided convolutions on each side, for pictures of 16x16."""

    def __init__(self, channels=3, latents=16):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, 16, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(16, 32, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
        )
        self.to_mu, self.to_logvar = nn.Linear(512, latents), nn.Linear(512, latents)
        self.decoder = nn.Sequential(
            nn.Linear(latents, 512),
            nn.Unflatten(1, (32, 4, 4)),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(32, 16, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(16, channels, 4, 2, 1),
            nn.Sigmoid(),
        )

    def forward(self, x):
        features = self.encoder(x)
        posterior = torch.distributions.Normal(
            self.to_mu(features), torch.exp(0.5 * self.to_logvar(features))
        )
        logvar = 2 * posterior.stddev.log()
        return self.decoder(posterior.rsample()), posterior.mean, logvar


@control("convolutions on photographs")
def convolutions():
    torch.manual_seed(0)
    return trained_and_examined(Convolutions(), elbo(gaussian(0.1)), sets.patches(16))


@control("torch.compile")
def compiled():
    """Trained as written, handed over compiled."""
    data = sets.digits28()
    model = train_small(small_vae(data.x_train), elbo(), data)
    return examine(torch.compile(model, backend="eager"), elbo(), data)


# ---- other data


@control("digits of 8x8")
def small_digits():
    data = sets.digits8()
    return trained_and_examined(small_vae(data.x_train), elbo(), data, steps=800, rate=4e-3)


@control("photographs")
def photographs():
    data = sets.patches(16)
    model = small_vae(data.x_train, latents=16)
    return trained_and_examined(model, elbo(gaussian(0.1)), data)


@control("coloured shapes")
def coloured_shapes():
    data = sets.shapes16()
    return trained_and_examined(small_vae(data.x_train), elbo(gaussian(0.1)), data)


@control("table")
def table():
    data = sets.table()
    model = small_vae(data.x_train, end=None, hidden=64, latents=5)
    return trained_and_examined(model, elbo(gaussian(0.5)), data)


@control("waves")
def waves():
    data = sets.waves()
    return trained_and_examined(small_vae(data.x_train, end=None), elbo(gaussian(0.2)), data)


@control("one-hot tokens")
def one_hot_tokens():
    """Twelve places of eight tokens each; the error is a cross-entropy at every place."""

    def error(reconstruction, x):
        logits = reconstruction.unflatten(1, (12, 8)).log_softmax(2)
        return -(x.unflatten(1, (12, 8)) * logits).sum((1, 2))

    data = sets.tokens_one_hot()
    return trained_and_examined(small_vae(data.x_train, end=None), elbo(error), data, steps=500)


# ---- how it is called


@control("in train mode")
def in_train_mode():
    data = sets.digits28()
    model = small_vae(data.x_train, norm=nn.BatchNorm1d, dropout=0.1)
    train_small(model, elbo(), data, steps=400)
    return examine(model.train(), elbo(), data)


def register_rows(rows):
    @control(f"{rows} rows")
    def check():
        data = sets.digits28()
        model = train_small(small_vae(data.x_train), elbo(), data)
        x = torch.cat([data.x_test, data.x_train])[:rows]  # the held-out rows come first
        return vaelab.checkup(model, x, elbo())


for rows in (40, 1000):
    register_rows(rows)


def register_batch(batch):
    @control(f"batches of {batch}")
    def check():
        """The user names the batch size of training."""
        data = sets.digits28()
        model = small_vae(data.x_train)
        steps = 600 if batch < 64 else 200
        train_small(model, elbo(), data, steps, batch=batch)
        return examine(model, elbo(), data, batch_size=batch)


for batch in (8, 512):
    register_batch(batch)


@control("without its loss")
def no_loss():
    data = sets.digits28()
    return examine(train_small(small_vae(data.x_train), elbo(), data), None, data)


# ---- other ways to write the same loss


@control("mean over pixels with the KL over their number")
def means_scaled_right():
    def loss(reconstruction, x, mu, logvar):
        price = kl(mu, logvar).mean() / x[0].numel()
        return F.binary_cross_entropy(reconstruction, x) + price

    data = sets.digits28()
    return trained_and_examined(small_vae(data.x_train), loss, data)


@control("summed over the batch")
def summed():
    def loss(reconstruction, x, mu, logvar):
        error = F.binary_cross_entropy(reconstruction, x, reduction="sum")
        return error + kl(mu, logvar).sum()

    data = sets.digits28()
    return trained_and_examined(small_vae(data.x_train), loss, data)


@control("logits")
def logits():
    data = sets.digits28()
    model = small_vae(data.x_train, end=None)
    return trained_and_examined(model, elbo(logits_cross_entropy), data)


@control("torch.distributions")
def distributions():
    """Both terms as torch.distributions computes them."""

    def loss(reconstruction, x, mu, logvar):
        likelihood = torch.distributions.Normal(reconstruction, 0.15)
        posterior = torch.distributions.Normal(mu, torch.exp(0.5 * logvar))
        prior = torch.distributions.Normal(torch.zeros_like(mu), torch.ones_like(mu))
        price = torch.distributions.kl_divergence(posterior, prior).sum(1)
        return (price - likelihood.log_prob(x).flatten(1).sum(1)).mean()

    data = sets.shapes16()
    return trained_and_examined(small_vae(data.x_train), loss, data)
