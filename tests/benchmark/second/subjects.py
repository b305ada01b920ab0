"""Eight healthy VAEs of other kinds than those in own.py, each as a stranger would write it."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal
from torch.nn.utils.parametrizations import weight_norm

from .. import sets
from . import drawn
from .recipe import subject


def encode(model, x, *labels):
    """Codes of a model whose `encode` gives them."""
    return model.encode(x, *labels)


def decode(model, z, *labels):
    """Outputs of a model whose `decode` gives them."""
    return model.decode(z, *labels)


def squares(sigma):
    """An error in nats, [B], of a normal distribution of this width around each value."""
    constant = math.log(sigma) + 0.5 * math.log(2 * math.pi)

    def error(model, reconstruction, x):
        distance = (reconstruction - x) / sigma
        return (0.5 * distance**2 + constant).flatten(1).sum(1)

    return error


# ---- residual blocks with GroupNorm


class ResnetBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm1 = nn.GroupNorm(4, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.norm2 = nn.GroupNorm(4, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return x + h


class ResnetVAE(nn.Module):
    def __init__(self, ch=8, z_dim=8):
        super().__init__()
        self.ch = ch
        self.down1 = nn.Sequential(nn.Conv2d(3, ch, 4, 2, 1), ResnetBlock(ch))
        self.down2 = nn.Sequential(nn.Conv2d(ch, 2 * ch, 4, 2, 1), ResnetBlock(2 * ch))
        self.quant = nn.Linear(2 * ch * 36, 2 * z_dim)
        self.post_quant = nn.Linear(z_dim, 2 * ch * 36)
        self.up1 = nn.Sequential(
            ResnetBlock(2 * ch), nn.Upsample(scale_factor=2), nn.Conv2d(2 * ch, ch, 3, 1, 1)
        )
        self.up2 = nn.Sequential(
            ResnetBlock(ch), nn.Upsample(scale_factor=2), nn.Conv2d(ch, 3, 3, 1, 1)
        )

    def encode(self, x):
        h = self.down2(self.down1(x))
        return torch.chunk(self.quant(h.flatten(1)), 2, dim=1)

    def decode(self, z):
        h = self.post_quant(z).view(-1, 2 * self.ch, 6, 6)
        return torch.sigmoid(self.up2(self.up1(h)))

    def forward(self, x):
        mean, logvar = self.encode(x)
        posterior = Normal(mean, torch.exp(0.5 * logvar))
        return self.decode(posterior.rsample()), mean, logvar


subject(
    "ellipses",
    load=drawn.ellipses,
    build=ResnetVAE,
    encode=encode,
    decode=decode,
    error=squares(0.1),
    steps=200,
    rate=4e-3,
    batch=32,
)


# ---- a code with places, flattened for the output


class SpatialVAE(nn.Module):
    """The code is a picture of 4x4 with four channels."""

    def __init__(self, code_channels=4):
        super().__init__()
        self.shape = (code_channels, 4, 4)
        self.enc = nn.Sequential(
            nn.Conv2d(1, 16, 4, stride=2, padding=1),
            nn.ELU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.ELU(),
        )
        self.conv_mu = nn.Conv2d(32, code_channels, 1)
        self.conv_logvar = nn.Conv2d(32, code_channels, 1)
        self.dec = nn.Sequential(
            nn.Conv2d(code_channels, 32, 3, padding=1),
            nn.ELU(),
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),
            nn.ELU(),
            nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1),
            nn.Tanh(),
        )

    def encode(self, x):
        h = self.enc(x)
        return self.conv_mu(h).flatten(1), self.conv_logvar(h).flatten(1)

    def decode(self, z):
        return self.dec(z.unflatten(1, self.shape))

    def forward(self, x):
        mu, logvar = self.encode(x)
        std = torch.exp(logvar / 2)
        eps = torch.normal(torch.zeros_like(std), torch.ones_like(std))
        return self.decode(mu + eps * std), mu, logvar


subject(
    "spatial",
    load=drawn.grey_patches,
    build=SpatialVAE,
    encode=encode,
    decode=decode,
    error=squares(0.15),
    steps=400,
    rate=3e-3,
    batch=32,
)


# ---- a recurrent network


class PenLSTM(nn.Module):
    """Reads a line point by point, and writes it again."""

    def __init__(self, steps=24, hidden=48, latent=8):
        super().__init__()
        self.steps = steps
        self.encoder = nn.LSTM(2, hidden, batch_first=True)
        self.fc21 = nn.Linear(hidden, latent)
        self.fc22 = nn.Linear(hidden, latent)
        self.decoder_lstm = nn.LSTM(latent + 2, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 2)
        self.reset_parameters()

    def reset_parameters(self):
        for name, p in self.named_parameters():
            if "weight_hh" in name:
                nn.init.orthogonal_(p)
            elif p.dim() == 2:
                nn.init.xavier_uniform_(p)
            else:
                nn.init.zeros_(p)

    def encode(self, seq):
        out, _ = self.encoder(seq)
        last = out[:, -1]
        return self.fc21(last), self.fc22(last)

    def decode(self, z, before=None):
        """before: the points [B, T, 2] before each one, where the writer may see them."""
        if before is None:
            before = z.new_zeros(len(z), self.steps, 2)
        every_step = z[:, None, :].expand(-1, self.steps, -1)
        hs, _ = self.decoder_lstm(torch.cat([every_step, before], dim=-1))
        return self.out(hs)

    def forward(self, seq):
        mu, logvar = self.encode(seq)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        return self.decode(z), mu, logvar


subject(
    "pen",
    load=drawn.pen,
    build=PenLSTM,
    encode=encode,
    decode=decode,
    error=squares(0.2),
    steps=500,
    rate=1e-2,
    batch=64,
)


# ---- convolutions in one dimension, with weight normalisation


def wn_conv(*sizes, **options):
    return weight_norm(nn.Conv1d(*sizes, **options))


def lecun_normal(module):
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features**-0.5)
        nn.init.zeros_(module.bias)


class PulseVAE(nn.Module):
    def __init__(self, latent_dims=8):
        super().__init__()
        self.encoder = nn.Sequential(
            wn_conv(1, 12, 5, stride=2, padding=2),
            nn.SELU(),
            wn_conv(12, 24, 5, stride=2, padding=2),
            nn.SELU(),
            nn.Flatten(),
        )
        self.mean_layer = nn.Linear(24 * 16, latent_dims)
        self.log_variance_layer = nn.Linear(24 * 16, latent_dims)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dims, 24 * 16),
            nn.Unflatten(1, (24, 16)),
            nn.SELU(),
            nn.Upsample(scale_factor=2, mode="linear"),
            wn_conv(24, 12, 5, padding=2),
            nn.SELU(),
            nn.Upsample(scale_factor=2, mode="linear"),
            wn_conv(12, 1, 5, padding=2),
        )
        self.apply(lecun_normal)

    def encode(self, signal):
        features = self.encoder(signal)
        return self.mean_layer(features), self.log_variance_layer(features)

    def decode(self, z):
        return self.decoder(z)

    def forward(self, signal):
        mean, log_variance = self.encode(signal)
        sigma = log_variance.exp().sqrt()
        z = torch.randn(sigma.shape).mul(sigma).add(mean)
        return self.decoder(z), mean, log_variance


subject(
    "pulses",
    load=drawn.pulses,
    build=PulseVAE,
    encode=encode,
    decode=decode,
    error=squares(0.25),
    steps=400,
    rate=4e-3,
    batch=64,
)


# ---- a decoder with two heads: mean and log-variance of x, side by side


class SensorVAE(nn.Module):
    def __init__(self, n_sensors=16, n_hidden=64, n_latent=5):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(n_sensors, n_hidden), nn.ReLU(), nn.Linear(n_hidden, n_hidden), nn.ReLU()
        )
        self.enc_mean = nn.Linear(n_hidden, n_latent)
        self.enc_logvar = nn.Linear(n_hidden, n_latent)
        self.decoder = nn.Sequential(
            nn.Linear(n_latent, n_hidden), nn.ReLU(), nn.Linear(n_hidden, n_hidden), nn.ReLU()
        )
        self.dec_mean = nn.Linear(n_hidden, n_sensors)
        self.dec_logvar = nn.Linear(n_hidden, n_sensors)

    def encode(self, x):
        h = self.encoder(x)
        return self.enc_mean(h), self.enc_logvar(h)

    def decode(self, z):
        h = self.decoder(z)
        return torch.cat([self.dec_mean(h), self.dec_logvar(h).clamp(-6, 3)], dim=1)

    def forward(self, x):
        q_mean, q_logvar = self.encode(x)
        z = q_mean + torch.exp(q_logvar * 0.5) * torch.randn_like(q_mean)
        return self.decode(z), q_mean, q_logvar


def two_headed_error(model, reconstruction, x):
    """[B] nats of a normal distribution whose mean and log-variance are the two halves."""
    mean, logvar = reconstruction.chunk(2, dim=1)
    each = (x - mean) ** 2 / logvar.exp() + logvar + math.log(2 * math.pi)
    return 0.5 * each.sum(1)


subject(
    "sensors",
    load=drawn.sensors,
    build=SensorVAE,
    encode=encode,
    decode=decode,
    error=two_headed_error,
    steps=700,
    rate=3e-3,
    batch=64,
)


# ---- a condition that is a measured number, and a softplus for the width


class DialCVAE(nn.Module):
    """The hand's angle, as sine and cosine, goes into both halves."""

    def __init__(self, condition=2, latent=6, hidden=128):
        super().__init__()
        self.embed = nn.Linear(condition, 16)
        self.enc = nn.Sequential(
            nn.Linear(256 + 16, hidden), nn.LeakyReLU(), nn.Linear(hidden, hidden), nn.LeakyReLU()
        )
        self.loc = nn.Linear(hidden, latent)
        self.scale = nn.Linear(hidden, latent)
        self.dec = nn.Sequential(
            nn.Linear(latent + 16, hidden),
            nn.LeakyReLU(),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(),
            nn.Linear(hidden, 256),
            nn.Sigmoid(),
        )

    def posterior(self, x, angle):
        """Mean and standard deviation."""
        h = self.enc(torch.cat([x.flatten(1), torch.tanh(self.embed(angle))], dim=1))
        return self.loc(h), F.softplus(self.scale(h)) + 1e-4

    def encode(self, x, angle):
        loc, scale = self.posterior(x, angle)
        return loc, 2 * torch.log(scale)

    def decode(self, z, angle):
        c = torch.tanh(self.embed(angle))
        return self.dec(torch.cat([z, c], dim=1)).view(-1, 1, 16, 16)

    def forward(self, x, angle):
        loc, scale = self.posterior(x, angle)
        z = loc + scale * torch.randn_like(scale)
        return self.decode(z, angle), loc, 2 * scale.log()


subject(
    "dials",
    load=drawn.dials,
    build=DialCVAE,
    encode=encode,
    decode=decode,
    error=squares(0.1),
    steps=700,
    rate=2e-3,
    batch=64,
)


# ---- GELU and LayerNorm


class GeluVAE(nn.Module):
    def __init__(self, width=96, z_size=12):
        super().__init__()
        self.z_size = z_size
        self.encoder = nn.Sequential(
            nn.Linear(64, width),
            nn.LayerNorm(width),
            nn.GELU(),
            nn.Linear(width, 2 * z_size),
        )
        self.decoder = nn.Sequential(
            nn.Linear(z_size, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, 64)
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)

    def encode(self, x):
        stats = self.encoder(x)
        return stats[:, : self.z_size], stats[:, self.z_size :]

    def decode(self, z):
        return self.decoder(z)

    def forward(self, x):
        mu, logvar = self.encode(x)
        z = Normal(mu, logvar.mul(0.5).exp()).rsample()
        return self.decode(z), mu, logvar


def logits_error(model, reconstruction, x):
    """[B] nats of Bernoulli variables given as logits."""
    return F.binary_cross_entropy_with_logits(reconstruction, x, reduction="none").sum(1)


subject(
    "binary",
    load=drawn.binary_digits,
    build=GeluVAE,
    encode=encode,
    decode=decode,
    error=logits_error,
    steps=500,
    rate=3e-3,
    batch=64,
)


# ---- an encoder with two heads at two depths


def weights_init(m):
    """As DCGAN does."""
    if isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(m.weight, 0.0, 0.02)
    elif isinstance(m, nn.BatchNorm2d):
        nn.init.normal_(m.weight, 1.0, 0.02)
        nn.init.zeros_(m.bias)


class TwoLevelVAE(nn.Module):
    """Details come from the first features, the whole from the second; the code is both."""

    def __init__(self, nf=8, n_detail=6, n_whole=6):
        super().__init__()
        self.nf = nf
        self.level1 = nn.Sequential(
            nn.Conv2d(1, nf, 4, 2, 1, bias=False), nn.BatchNorm2d(nf), nn.LeakyReLU(0.2)
        )
        self.level2 = nn.Sequential(
            nn.Conv2d(nf, 2 * nf, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * nf), nn.LeakyReLU(0.2)
        )
        self.detail = nn.Linear(nf * 14 * 14, 2 * n_detail)
        self.whole = nn.Linear(2 * nf * 7 * 7, 2 * n_whole)
        self.project = nn.Linear(n_detail + n_whole, 2 * nf * 7 * 7)
        self.main = nn.Sequential(
            nn.BatchNorm2d(2 * nf),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(2 * nf, nf, 4, 2, 1, bias=False),
            nn.BatchNorm2d(nf),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(nf, 1, 4, 2, 1),
            nn.Sigmoid(),
        )
        self.apply(weights_init)

    def encode(self, img):
        h1 = self.level1(img)
        h2 = self.level2(h1)
        mu1, logvar1 = self.detail(h1.flatten(1)).chunk(2, 1)
        mu2, logvar2 = self.whole(h2.flatten(1)).chunk(2, 1)
        return torch.cat([mu1, mu2], 1), torch.cat([logvar1, logvar2], 1)

    def decode(self, z):
        return self.main(self.project(z).view(-1, 2 * self.nf, 7, 7))

    def forward(self, img):
        mu, logvar = self.encode(img)
        noise = torch.randn_like(logvar)
        return self.decode(mu + noise * torch.exp(0.5 * logvar)), mu, logvar


def sigmoid_error(model, reconstruction, x):
    """[B] nats of outputs that are probabilities."""
    return F.binary_cross_entropy(reconstruction, x, reduction="none").flatten(1).sum(1)


subject(
    "two levels",
    load=sets.digits28,
    build=TwoLevelVAE,
    encode=encode,
    decode=decode,
    error=sigmoid_error,
    steps=250,
    rate=3e-3,
    batch=48,
)
