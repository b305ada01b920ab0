"""The ward: small VAEs with one illness each, and healthy ones.

A patient is a function in this file. It returns (model, x, loss) or (model, x, loss, options of
checkup); its decorator names what must be found. Models are plain PyTorch, as strangers write
them. Train only where the illness needs it.
"""

import functools
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import vaelab

FOLDER = Path(__file__).resolve().parent
SICK, HEALTHY = {}, {}


def sick(code):
    """Register a patient whose first serious finding must be `code`."""

    def register(build):
        SICK[build.__name__] = (code, build)
        return build

    return register


def healthy(build):
    """Register a patient that must get no serious finding."""
    HEALTHY[build.__name__] = build
    return build


class Net(nn.Module):
    """A VAE as people write it, `reconstruction, mu, logvar = model(x)`, to make mistakes in."""

    def __init__(
        self,
        shape=(1, 28, 28),
        latents=10,
        hidden=200,
        end=nn.Sigmoid,
        mu_end=nn.Identity,
        logvar_end=nn.Identity,
        norm=False,
        dropout=0.0,
    ):
        super().__init__()
        d = math.prod(shape)
        inside = [nn.BatchNorm1d(hidden)] if norm else []
        inside += [nn.ReLU()] + ([nn.Dropout(dropout)] if dropout else [])
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(d, hidden), *inside)
        self.mu, self.logvar = nn.Linear(hidden, latents), nn.Linear(hidden, latents)
        self.mu_end, self.logvar_end = mu_end(), logvar_end()
        inside = [nn.BatchNorm1d(hidden), nn.ReLU()] if norm else [nn.ReLU()]
        out = [nn.Linear(hidden, d), nn.Unflatten(1, shape)] + ([end()] if end else [])
        self.decode = nn.Sequential(nn.Linear(latents, hidden), *inside, *out)

    def sample(self, mu, logvar):
        return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)

    def forward(self, x):
        h = self.encoder(x)
        mu, logvar = self.mu_end(self.mu(h)), self.logvar_end(self.logvar(h))
        return self.decode(self.sample(mu, logvar)), mu, logvar


class ConvNet(nn.Module):
    """Strided convolutions, the flat code in the middle."""

    def __init__(self, channels=1, side=28, latents=16, end=nn.Sigmoid):
        super().__init__()
        small = side // 4
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, 16, 4, 2, 1),
            nn.BatchNorm2d(16),
            nn.LeakyReLU(0.2),
            nn.Conv2d(16, 32, 4, 2, 1),
            nn.BatchNorm2d(32),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(32 * small**2, 2 * latents),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latents, 32 * small**2),
            nn.LeakyReLU(0.2),
            nn.Unflatten(1, (32, small, small)),
            nn.ConvTranspose2d(32, 16, 4, 2, 1),
            nn.BatchNorm2d(16),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(16, channels, 4, 2, 1),
            *([end()] if end else []),
        )

    def forward(self, x):
        mu, logvar = self.encoder(x).chunk(2, 1)
        return (
            self.decoder(torch.distributions.Normal(mu, torch.exp(0.5 * logvar)).rsample()),
            mu,
            logvar,
        )


def kl(mu, logvar):
    return -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp(), dim=1).mean()


def bce(r, x):
    return F.binary_cross_entropy(r, x, reduction="sum") / len(x)


def logits_bce(r, x):
    return F.binary_cross_entropy_with_logits(r, x, reduction="sum") / len(x)


def sse(r, x):
    return F.mse_loss(r, x, reduction="sum") / len(x)


def elbo(r, x, mu, logvar):
    return bce(r, x) + kl(mu, logvar)


def square(r, x, mu, logvar):
    return sse(r, x) + kl(mu, logvar)


@functools.cache
def data(name="digits"):
    """(training images, held-out images), the embedded sets, or a table of correlated columns."""
    if name == "table":
        generator = torch.Generator().manual_seed(5)
        x = torch.randn(2000, 3, generator=generator) @ torch.randn(3, 12, generator=generator)
        x = x + 0.3 * torch.randn(2000, 12, generator=generator)
        x = (x - x.mean(0)) / x.std(0)
        return x[:1500], x[1500:]
    images = vaelab.load(name, n_train=1497, n_test=300) if name == "shapes" else vaelab.load(name)
    return images.x_train, images.x_test


def train(model, x, loss, steps=400, lr=2e-3, batch=128, seed=0, optimizer=None):
    """The usual loop, on batches of one size; a NaN ends it."""
    torch.manual_seed(seed)
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=lr)
    model.train()
    for _ in range(steps):
        index = torch.randint(len(x), (batch,))
        value = loss(*(lambda r, mu, logvar: (r, x[index], mu, logvar))(*model(x[index])))
        if not torch.isfinite(value):
            break
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return model


def trained(build, loss, name="digits", seed=0, **options):
    """(model, held-out images, loss) after training."""
    torch.manual_seed(seed)
    x, held_out = data(name)
    return train(build(), x, loss, seed=seed, **options), held_out, loss


# ---- loss scale


@sick("loss-scale")
def thread_004_blob(seed=0):
    def loss(r, x, mu, logvar):
        return F.binary_cross_entropy(r, x) - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())

    return trained(Net, loss, seed=seed)


@sick("loss-scale")
def kl_times_ten_thousandth(seed=0):
    def loss(r, x, mu, logvar):
        return F.binary_cross_entropy(r, x) - 0.5e-4 * torch.sum(
            1 + logvar - mu.pow(2) - logvar.exp()
        )

    return trained(Net, loss, seed=seed)


@sick("loss-scale")
def mean_over_latents_too(seed=0):
    def loss(r, x, mu, logvar):
        return F.binary_cross_entropy(r, x) - 0.5 * torch.mean(
            1 + logvar - mu.pow(2) - logvar.exp()
        )

    return trained(Net, loss, seed=seed)


@sick("loss-scale")
def mean_squared_error_summed_kl(seed=0):
    def loss(r, x, mu, logvar):
        return F.mse_loss(r, x) + kl(mu, logvar)

    return trained(Net, loss, seed=seed)


@sick("loss-scale")
def summed_error_averaged_kl(seed=0):
    def loss(r, x, mu, logvar):
        per_latent = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp())
        return F.binary_cross_entropy(r, x, reduction="sum") + per_latent.mean()

    return trained(Net, loss, seed=seed, lr=5e-4)


@sick("loss-scale")
def forgot_the_kl(seed=0):
    return trained(Net, lambda r, x, mu, logvar: bce(r, x), seed=seed)


@sick("loss-scale")
def forgot_the_reconstruction(seed=0):
    return trained(Net, lambda r, x, mu, logvar: kl(mu, logvar), seed=seed, steps=100)


@sick("loss-scale")
def beta_of_fifty(seed=0):
    return trained(Net, lambda r, x, mu, logvar: bce(r, x) + 50 * kl(mu, logvar), seed=seed)


@sick("batch-dependent-beta")
def mean_against_sum_small(seed=0):
    def loss(r, x, mu, logvar):  # beta is batch / 100: near 1 at the usual 128
        per_value = F.binary_cross_entropy(r, x) * x[0].numel()
        return per_value - 0.005 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())

    return *trained(Net, loss, seed=seed), {"batch_size": 128}


# ---- the KL


@sick("kl-sign")
def kl_with_the_wrong_sign(seed=0):
    def loss(r, x, mu, logvar):
        return bce(r, x) - 1e-3 * kl(mu, logvar)

    return trained(Net, loss, seed=seed, steps=60, lr=1e-4)


@sick("loss-sign")
def elbo_minimised(seed=0):
    torch.manual_seed(seed)
    return Net(), data()[1], lambda r, x, mu, logvar: -bce(r, x) - kl(mu, logvar)


@sick("kl-form")
def mu_not_squared(seed=0):
    def loss(r, x, mu, logvar):
        return bce(r, x) - 0.5 * torch.sum(1 + logvar - mu - logvar.exp(), dim=1).mean()

    return trained(Net, loss, seed=seed, steps=150, lr=5e-4)


@sick("kl-form")
def kl_without_exp(seed=0):
    def loss(r, x, mu, logvar):
        return bce(r, x) - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.pow(2), dim=1).mean()

    return trained(Net, loss, seed=seed, steps=150)


@sick("kl-form")
def kl_of_the_batch_mean(seed=0):
    def loss(r, x, mu, logvar):
        return bce(r, x) + kl(mu.mean(0, keepdim=True), logvar.mean(0, keepdim=True))

    return trained(Net, loss, seed=seed, steps=150)


# ---- shapes


@sick("shape-broadcast")
def blob_by_broadcast(seed=0):
    def loss(r, x, mu, logvar):
        return 784 * F.mse_loss(r, x.squeeze(1)) + kl(mu, logvar)

    torch.manual_seed(seed)
    return Net(), data()[1], loss


@sick("shape-broadcast")
def thread_002_broadcast(seed=0):
    def loss(r, x, mu, logvar):
        per_latent = 0.5 * (mu.pow(2) + logvar.exp() - 1 - logvar)
        return (F.mse_loss(r, x, reduction="none") + per_latent).mean()

    torch.manual_seed(seed)
    return Net((3, 32, 32), latents=32, end=nn.Tanh), data("photos")[1][:32], loss


@sick("shape-broadcast")
def sizes_that_never_fit(seed=0):
    def loss(r, x, mu, logvar):
        return (
            F.mse_loss(r, x, reduction="none") + 0.5 * (mu.pow(2) + logvar.exp() - 1 - logvar)
        ).mean()

    torch.manual_seed(seed)
    return Net(), data()[1], loss


@sick("swapped-arguments")
def prediction_as_target(seed=0):
    torch.manual_seed(seed)
    x = data()[1].clamp(0.01, 0.99)
    return Net(), x, lambda r, x, mu, logvar: F.binary_cross_entropy(x, r) + kl(mu, logvar)


# ---- log-variance and noise


@sick("logvar")
def relu_on_logvar(seed=0):
    return trained(lambda: Net(logvar_end=nn.ReLU), elbo, seed=seed)


@sick("logvar")
def tanh_on_mu(seed=0):
    return trained(lambda: Net(mu_end=nn.Tanh), elbo, seed=seed)


@sick("logvar")
def softplus_read_as_logvar(seed=0):
    return trained(lambda: Net(logvar_end=nn.Softplus), elbo, seed=seed)


class LogvarAsStd(Net):
    def sample(self, mu, logvar):
        return mu + logvar * torch.randn_like(mu)


@sick("logvar")
def logvar_used_as_std(seed=0):
    return trained(LogvarAsStd, elbo, seed=seed)


class VarianceAsStd(Net):
    def sample(self, mu, logvar):
        return mu + torch.exp(logvar) * torch.randn_like(mu)


@sick("logvar")
def variance_used_as_std(seed=0):
    return trained(VarianceAsStd, elbo, seed=seed)


@sick("logvar")
def logvar_out_of_hand(seed=0):
    torch.manual_seed(seed)
    model = Net()
    with torch.no_grad():
        model.logvar.bias += 60
    return model, data()[1], elbo


class NoSampling(Net):
    def sample(self, mu, logvar):
        return mu


@sick("no-sampling")
def mu_decoded_in_training(seed=0):
    return trained(NoSampling, elbo, seed=seed)


class Detached(Net):
    def sample(self, mu, logvar):
        return torch.distributions.Normal(mu, torch.exp(0.5 * logvar)).sample()


@sick("encoder-detached")
def sample_instead_of_rsample(seed=0):
    return trained(Detached, elbo, seed=seed)


@sick("non-finite")
def nan_weights(seed=0):
    torch.manual_seed(seed)
    model = Net()
    with torch.no_grad():
        model.logvar.weight[0, 0] = math.nan
    return model, data()[1], elbo


@sick("non-finite")
def log_of_zero(seed=0):
    def loss(r, x, mu, logvar):
        return -(x * r.log() + (1 - x) * (1 - r).log()).flatten(1).sum(1).mean() + kl(mu, logvar)

    torch.manual_seed(seed)
    model = Net()
    with torch.no_grad():
        model.decode[-3].bias.fill_(-200.0)
    return model, data()[1], loss


# ---- ranges and supports


@sick("outside-support")
def cross_entropy_on_z_scores(seed=0):
    x = data()[1]
    torch.manual_seed(seed)
    return (
        Net(end=None),
        (x - x.mean()) / x.std(),
        lambda r, x, mu, logvar: logits_bce(r, x) + kl(mu, logvar),
    )


@sick("outside-support")
def probabilities_without_sigmoid(seed=0):
    def loss(r, x, mu, logvar):
        nats = -(x * torch.log(r + 1e-9) + (1 - x) * torch.log(1 - r + 1e-9))
        return nats.flatten(1).sum(1).mean() + kl(mu, logvar)

    torch.manual_seed(seed)
    return Net(end=None), data()[1], loss


@sick("out-of-reach")
def tanh_on_z_scores(seed=0):
    torch.manual_seed(seed)
    x, held_out = data()
    mean, std = x.mean(), x.std()
    return (
        train(Net(end=nn.Tanh), (x - mean) / std, square, seed=seed),
        (held_out - mean) / std,
        square,
    )


class Bytes(Net):
    def forward(self, x):
        return super().forward(x / 255)


@sick("out-of-reach")
def sigmoid_on_bytes(seed=0):
    torch.manual_seed(seed)
    x, held_out = (255 * part for part in data())

    def loss(r, x, mu, logvar):
        return sse(r, x) + 1e4 * kl(mu, logvar)

    return train(Bytes(), x, loss, steps=200, lr=1e-3), held_out, loss


@sick("activated-twice")
def sigmoid_twice(seed=0):
    return trained(Net, lambda r, x, mu, logvar: logits_bce(r, x) + kl(mu, logvar), seed=seed)


# ---- outputs


class Thread000(nn.Module):
    """The network of thread 000, with its sigmoid inside."""

    def __init__(self):
        super().__init__()
        net = vaelab.thread_000_vae()
        self.encoder, self.decode = net.encoder, nn.Sequential(net.decoder, nn.Sigmoid())

    def forward(self, x):
        mu, logvar = self.encoder(x).chunk(2, 1)
        return self.decode(mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)), mu, logvar


def thread_000_loss(r, x, mu, logvar):
    return (sse(r, x) + 6 * kl(mu, logvar)) * len(x)  # 100 at its batch size of 16


@sick("saturated-output")
def thread_000_black_images(seed=0):
    options = {"seed": seed, "steps": 80, "lr": 1e-3, "batch": 16}
    return trained(Thread000, thread_000_loss, "shapes", **options)


@sick("saturated-output")
def last_bias_far_down(seed=0):
    torch.manual_seed(seed)
    model = Net()
    with torch.no_grad():
        model.decode[-3].bias.fill_(-40.0)
    return train(model, data()[0], square, steps=100), data()[1], square


@sick("dead-units")
def dead_hidden_layer(seed=0):
    torch.manual_seed(seed)
    model = Net()
    with torch.no_grad():
        model.encoder[1].bias.fill_(-30.0)
    return train(model, data()[0], elbo, steps=100), data()[1], elbo


class IgnoresZ(Net):
    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(10))

    def forward(self, x):
        _, mu, logvar = super().forward(x)
        return self.decode(torch.zeros_like(mu) + self.unused), mu, logvar


@sick("decoder-ignores-z")
def decoder_without_z(seed=0):
    torch.manual_seed(seed)
    model = IgnoresZ()
    with torch.no_grad():
        model.mu.weight *= 20
    return model, data()[1], elbo


class Skip(Net):
    def __init__(self):
        super().__init__()
        self.past = nn.Linear(784, 784)

    def forward(self, x):
        h = self.encoder(x)
        mu, logvar = self.mu(h), self.logvar(h)
        z = self.sample(mu, logvar)
        logits = self.decode[:-1](z) + self.past(x.flatten(1)).view_as(x)
        return torch.sigmoid(logits), mu, logvar


@sick("path-around-z")
def skip_connection(seed=0):
    return trained(
        Skip, lambda r, x, mu, logvar: bce(r, x) + 8 * kl(mu, logvar), seed=seed, steps=600
    )


@sick("posterior-collapse")
def collapsed_by_history(seed=0):
    """Trained under a huge beta, handed over with a right loss: only the model is ill."""
    model, x, _ = thread_004_blob(seed)
    return model, x, elbo


@sick("sigma")
def sigma_far_too_large(seed=0):
    def loss(r, x, mu, logvar):
        return sse(r, x) / (2 * 5.0**2) + kl(mu, logvar)

    return trained(lambda: Net(end=None), loss, seed=seed)


@sick("sigma")
def sigma_far_too_small(seed=0):
    def loss(r, x, mu, logvar):
        return sse(r, x) / (2 * 0.01**2) + kl(mu, logvar)

    return trained(lambda: Net(end=None), loss, seed=seed)


@sick("train-eval-gap")
def batchnorm_never_settled(seed=0):
    torch.manual_seed(seed)
    model = Net(norm=True)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = 0.0
    x, held_out = data()
    return train(model, x, elbo, steps=300), held_out, elbo


@sick("prior-mismatch")
def codes_far_outside(seed=0):
    """Trained as an autoencoder, handed over with a right loss."""
    model, x, _ = trained(
        Net, lambda r, x, mu, logvar: bce(r, x) + 1e-6 * kl(mu, logvar), seed=seed
    )
    return model, x, None


# ---- healthy


@healthy
def plain_mlp(seed=0):
    return trained(Net, elbo, seed=seed, steps=500)


@healthy
def plain_mlp_without_its_loss(seed=0):
    return *trained(Net, elbo, seed=seed, steps=500)[:2], None


@healthy
def everything_summed(seed=0):
    def loss(r, x, mu, logvar):
        per_latent = -0.5 * (1 + logvar - mu.pow(2) - logvar.exp())
        return F.binary_cross_entropy(r, x, reduction="sum") + per_latent.sum()

    return trained(Net, loss, seed=seed, steps=500)


@healthy
def deliberate_beta_of_four(seed=0):
    return trained(
        Net, lambda r, x, mu, logvar: bce(r, x) + 4 * kl(mu, logvar), seed=seed, steps=500
    )


@healthy
def convolutions_with_batchnorm(seed=0):
    return trained(
        lambda: ConvNet(end=None),
        lambda r, x, mu, logvar: logits_bce(r, x) + kl(mu, logvar),
        seed=seed,
        steps=400,
    )


@healthy
def batchnorm_and_dropout(seed=0):
    return trained(lambda: Net(norm=True, dropout=0.1), elbo, seed=seed, steps=500)


@healthy
def sixty_four_latents(seed=0):
    return trained(lambda: Net(latents=64), elbo, seed=seed, steps=500)


@healthy
def one_latent(seed=0):
    return trained(lambda: Net(latents=1), elbo, seed=seed, steps=500)


@healthy
def sum_of_squares(seed=0):
    return trained(Net, square, seed=seed, steps=500)


@healthy
def squares_averaged_with_the_kl_to_match(seed=0):
    def loss(r, x, mu, logvar):
        return F.mse_loss(r, x) + kl(mu, logvar) / 784

    return trained(lambda: Net(end=None), loss, seed=seed, steps=500)


@healthy
def learned_sigma_negative_loss(seed=0):
    torch.manual_seed(seed)
    log_sigma = nn.Parameter(torch.zeros(()))
    model = Net(end=None)
    model.log_sigma = log_sigma

    def loss(r, x, mu, logvar):
        return sse(r, x) * torch.exp(-2 * log_sigma) / 2 + 784 * log_sigma + kl(mu, logvar)

    x, held_out = data()
    return train(model, x, loss, steps=500, seed=seed), held_out, loss


@healthy
def optimal_sigma(seed=0):
    def loss(r, x, mu, logvar):
        return 784 / 2 * torch.log(F.mse_loss(r, x)) + kl(mu, logvar)

    return trained(lambda: Net(end=None), loss, seed=seed, steps=500)


@healthy
def table_of_numbers(seed=0):
    return trained(
        lambda: Net((12,), latents=3, hidden=64, end=None), square, "table", seed=seed, steps=1500
    )


@healthy
def z_scores_without_a_tanh(seed=0):
    torch.manual_seed(seed)
    x, held_out = data()
    mean, std = x.mean(), x.std()
    model = train(Net(end=None), (x - mean) / std, square, steps=500, seed=seed)
    return model, (held_out - mean) / std, square


@healthy
def photographs_between_minus_one_and_one(seed=0):
    torch.manual_seed(seed)
    x, held_out = data("photos")
    model = ConvNet(3, 32, 32, end=nn.Tanh)
    return train(model, 2 * x - 1, square, steps=250, lr=1e-3, seed=seed), 2 * held_out - 1, square


@healthy
def absolute_error(seed=0):
    def loss(r, x, mu, logvar):
        return 5 * F.l1_loss(r, x, reduction="sum") / len(x) + kl(mu, logvar)

    return trained(Net, loss, seed=seed, steps=500)


@healthy
def free_bits(seed=0):
    def loss(r, x, mu, logvar):
        return bce(r, x) + vaelab.free_bits(vaelab.gaussian_kl(mu, logvar), 0.5)

    return trained(Net, loss, seed=seed, steps=500)


@healthy
def vaelab_continuous_bernoulli(seed=0):
    torch.manual_seed(seed)
    x, held_out = data()
    model = vaelab.mlp_vae((1, 28, 28), 10, likelihood=vaelab.ContinuousBernoulli())
    vaelab.fit(model, x, epochs=40, seed=seed, progress=False)
    return model, held_out, None


@healthy
def vaelab_variance_per_value(seed=0):
    torch.manual_seed(seed)
    x, held_out = data("table")
    model = vaelab.mlp_vae((12,), 3, 64, likelihood=vaelab.GaussianWithVariance())
    vaelab.fit(model, x, epochs=60, seed=seed, progress=False)
    return model, held_out, None


@healthy
def dictionary_with_standard_deviations(seed=0):
    class Named(Net):
        def forward(self, x):
            r, mu, logvar = super().forward(x)
            return {"mean": mu, "std": (0.5 * logvar).exp(), "picture": r}

    def adapter(out):
        return out["picture"], out["mean"], 2 * out["std"].log()

    torch.manual_seed(seed)
    x, held_out = data()
    model = Named()
    forward, model.forward = model.forward, lambda x: adapter(forward(x))
    train(model, x, elbo, steps=500, seed=seed)
    del model.forward
    return model, held_out, elbo, {"adapter": adapter}


@healthy
def flat_images(seed=0):
    model, x, loss = plain_mlp(seed)

    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, flat):
            r, mu, logvar = self.inner(flat.view(-1, 1, 28, 28))
            return r.flatten(1), mu, logvar

    return Flat(), x.flatten(1), loss
