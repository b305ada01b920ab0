"""Subjects of our own making, unlike each other, written as a stranger would write them."""

import math

import torch
import torch.nn.functional as F
from torch import nn

import vaelab

from . import sets
from .case import Subject, subject

ROWS = 300


def plainly(model, data, loss):
    """The call that a stranger tries first."""
    return vaelab.checkup(model, data.x_test[:ROWS], loss, batch_size=64)


def with_labels(model, data, loss):
    """The same for a model that also takes labels."""
    labels = data.labels_test[:ROWS]
    return vaelab.checkup(model, data.x_test[:ROWS], loss, inputs=labels, batch_size=64)


def encode(model, x, *labels):
    """Codes of a model whose `encode` gives them."""
    return model.encode(x, *labels)


def decode(model, z, *labels):
    """Outputs of a model whose `decode` gives them."""
    return model.decode(z, *labels)


def gaussian(reconstruction, x, sigma):
    """[B] nats of a normal distribution around each value."""
    squares = ((x - reconstruction) / sigma) ** 2
    constant = torch.log(torch.as_tensor(sigma)) + 0.5 * math.log(2 * math.pi)
    return (0.5 * squares + constant).flatten(1).sum(1)


def cross_entropy_of_logits(model, reconstruction, x):
    """[B] nats."""
    losses = F.binary_cross_entropy_with_logits(reconstruction, x, reduction="none")
    return losses.flatten(1).sum(1)


def cross_entropy(model, reconstruction, x):
    """[B] nats of outputs that are probabilities."""
    return F.binary_cross_entropy(reconstruction, x, reduction="none").flatten(1).sum(1)


class ResidualBlock(nn.Module):
    """x + f(x), with two convolutions."""

    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class ResidualVAE(nn.Module):
    """Residual blocks between strided convolutions. It gives logits."""

    def __init__(self, z_dim=12, width=8):
        super().__init__()
        self.width = width
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, 4, 2, 1),
            ResidualBlock(width),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            ResidualBlock(2 * width),
            nn.SiLU(),
            nn.Flatten(),
        )
        self.fc_mu = nn.Linear(2 * width * 49, z_dim)
        self.fc_var = nn.Linear(2 * width * 49, z_dim)
        self.decoder_input = nn.Linear(z_dim, 2 * width * 49)
        self.decoder = nn.Sequential(
            ResidualBlock(2 * width),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.SiLU(),
            nn.ConvTranspose2d(width, 1, 4, 2, 1),
        )

    def encode(self, x):
        h = self.encoder(x)
        return self.fc_mu(h), self.fc_var(h)

    def decode(self, z):
        h = self.decoder_input(z).view(-1, 2 * self.width, 7, 7)
        return self.decoder(h)

    def reparameterize(self, mu, logvar):
        std = torch.exp(0.5 * logvar)
        return mu + std * torch.randn_like(std)

    def forward(self, x):
        mu, logvar = self.encode(x)
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar


subject(
    Subject(
        name="residual",
        load=sets.digits28,
        build=ResidualVAE,
        encode=encode,
        decode=decode,
        error=cross_entropy_of_logits,
        attempts=(plainly,),
        traits=frozenset({"images", "logits"}),
        steps=200,
        rate=3e-3,
        batch=32,
    )
)


class BatchNormVAE(nn.Module):
    """Strided convolutions with BatchNorm, and a sigmoid at the end."""

    def __init__(self, nz=10, nf=8):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, nf, 4, 2, 1, bias=False),
            nn.BatchNorm2d(nf),
            nn.ReLU(inplace=True),
            nn.Conv2d(nf, nf * 2, 4, 2, 1, bias=False),
            nn.BatchNorm2d(nf * 2),
            nn.ReLU(inplace=True),
        )
        self.to_latent = nn.Linear(nf * 2 * 7 * 7, nz * 2)
        self.from_latent = nn.Linear(nz, nf * 2 * 7 * 7)
        self.generator = nn.Sequential(
            nn.BatchNorm2d(nf * 2),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(nf * 2, nf, 4, 2, 1, bias=False),
            nn.BatchNorm2d(nf),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(nf, 1, 4, 2, 1),
            nn.Sigmoid(),
        )

    def encode(self, images):
        flat = self.features(images).flatten(1)
        return self.to_latent(flat).chunk(2, dim=1)

    def decode(self, z):
        small = self.from_latent(z)
        return self.generator(small.unflatten(1, (-1, 7, 7)))

    def forward(self, images):
        mean, log_var = self.encode(images)
        z = torch.randn_like(mean) * log_var.mul(0.5).exp() + mean
        return self.decode(z), mean, log_var


subject(
    Subject(
        name="batchnorm",
        load=sets.digits28,
        build=BatchNormVAE,
        encode=encode,
        decode=decode,
        error=cross_entropy,
        attempts=(plainly,),
        traits=frozenset({"images", "sigmoid", "relu", "batchnorm"}),
    )
)


class ConditionalVAE(nn.Module):
    """The digit's name goes into the encoder and the decoder."""

    def __init__(self, n_classes=10, latent_size=6):
        super().__init__()
        self.n_classes = n_classes
        self.enc = nn.Sequential(nn.Linear(784 + n_classes, 128), nn.ReLU())
        self.linear_means = nn.Linear(128, latent_size)
        self.linear_log_var = nn.Linear(128, latent_size)
        self.dec = nn.Sequential(
            nn.Linear(latent_size + n_classes, 128), nn.ReLU(), nn.Linear(128, 784)
        )

    def encode(self, x, c):
        c = F.one_hot(c, self.n_classes).to(x.dtype)
        h = self.enc(torch.cat((x.view(x.size(0), -1), c), dim=-1))
        return self.linear_means(h), self.linear_log_var(h)

    def decode(self, z, c):
        c = F.one_hot(c, self.n_classes).to(z.dtype)
        return self.dec(torch.cat((z, c), dim=-1)).view(-1, 1, 28, 28)

    def forward(self, x, c):
        means, log_var = self.encode(x, c)
        z = means + torch.exp(0.5 * log_var) * torch.randn_like(means)
        return self.decode(z, c), means, log_var


def labelled_digits():
    """Digits with their names."""
    return sets.digits28(labels=True)


subject(
    Subject(
        name="conditional",
        load=labelled_digits,
        build=ConditionalVAE,
        encode=encode,
        decode=decode,
        error=cross_entropy_of_logits,
        attempts=(with_labels,),
        traits=frozenset({"images", "logits", "relu", "labels"}),
        steps=500,
    )
)


class TableVAE(nn.Module):
    """Two hidden layers on the columns of a table."""

    sigma = 0.5

    def __init__(self, columns=30, hidden=64, latent=6):
        super().__init__()
        self.encoder_net = nn.Sequential(
            nn.Linear(columns, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.mu_head = nn.Linear(hidden, latent)
        self.logvar_head = nn.Linear(hidden, latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, columns),
        )

    def forward(self, rows):
        h = self.encoder_net(rows)
        mu, logvar = self.mu_head(h), self.logvar_head(h)
        z = mu + (logvar / 2).exp() * torch.randn_like(mu)
        return self.decoder(z), mu, logvar


def encode_table(model, rows):
    """Codes of a TableVAE."""
    h = model.encoder_net(rows)
    return model.mu_head(h), model.logvar_head(h)


def decode_table(model, z):
    """Rows from codes, by a TableVAE."""
    return model.decoder(z)


def table_error(model, reconstruction, x):
    """[B] nats of a Gaussian with one sigma for all columns."""
    return gaussian(reconstruction, x, TableVAE.sigma)


subject(
    Subject(
        name="table",
        load=sets.table,
        build=TableVAE,
        encode=encode_table,
        decode=decode_table,
        error=table_error,
        attempts=(plainly,),
        traits=frozenset({"table", "squares", "relu"}),
        steps=600,
    )
)


class RecurrentVAE(nn.Module):
    """A GRU reads a wave in frames of four values, another one writes it."""

    def __init__(self, length=48, frame=4, hidden=48, latent=6):
        super().__init__()
        self.frame, self.frames = frame, length // frame
        self.reader = nn.GRU(frame, hidden, batch_first=True, bidirectional=True)
        self.hidden_to_mean = nn.Linear(2 * hidden, latent)
        self.hidden_to_logvar = nn.Linear(2 * hidden, latent)
        self.latent_to_hidden = nn.Linear(latent, hidden)
        self.writer = nn.GRU(latent, hidden, batch_first=True)
        self.to_values = nn.Linear(hidden, frame)

    def encode(self, sequence):
        frames = sequence.reshape(-1, self.frames, self.frame)
        _, last = self.reader(frames)
        both_ways = torch.cat([last[0], last[1]], dim=1)
        return self.hidden_to_mean(both_ways), self.hidden_to_logvar(both_ways)

    def decode(self, z):
        first = torch.tanh(self.latent_to_hidden(z)).unsqueeze(0)
        everywhere = z.unsqueeze(1).repeat(1, self.frames, 1)
        states, _ = self.writer(everywhere, first)
        return self.to_values(states).flatten(1)

    def forward(self, sequence):
        mean, logvar = self.encode(sequence)
        eps = torch.randn_like(logvar)
        return self.decode(mean + eps * torch.exp(logvar * 0.5)), mean, logvar


def wave_error(model, reconstruction, x):
    """[B] nats of a Gaussian with a sigma of 0.3."""
    return gaussian(reconstruction, x, 0.3)


subject(
    Subject(
        name="recurrent",
        load=sets.waves,
        build=RecurrentVAE,
        encode=encode,
        decode=decode,
        error=wave_error,
        attempts=(plainly,),
        traits=frozenset({"sequence", "squares"}),
        steps=400,
        rate=5e-3,
    )
)


class LearnedSigmaVAE(nn.Module):
    """Each column of the table has a sigma of its own, which is learned above a floor."""

    def __init__(self, n_features=30, n_latent=4):
        super().__init__()
        self.inference = nn.Sequential(
            nn.Linear(n_features, 80), nn.ELU(), nn.Linear(80, 2 * n_latent)
        )
        self.generative = nn.Sequential(
            nn.Linear(n_latent, 80), nn.ELU(), nn.Linear(80, n_features)
        )
        self.raw_sigma = nn.Parameter(torch.zeros(n_features))

    @property
    def sigma(self):
        return 0.1 + F.softplus(self.raw_sigma)

    def forward(self, x):
        qz_m, qz_logv = torch.chunk(self.inference(x), 2, dim=-1)
        qz = torch.distributions.Normal(qz_m, torch.exp(0.5 * qz_logv))
        return self.generative(qz.rsample()), qz_m, qz_logv


def infer(model, x):
    """Codes of a LearnedSigmaVAE."""
    return model.inference(x).chunk(2, dim=-1)


def generate(model, z):
    """Rows from codes, by a LearnedSigmaVAE."""
    return model.generative(z)


def error_by_learned_sigma(model, reconstruction, x):
    """[B] nats of a Gaussian with the model's own sigma for each column."""
    return gaussian(reconstruction, x, model.sigma)


subject(
    Subject(
        name="learned sigma",
        load=sets.table,
        build=LearnedSigmaVAE,
        encode=infer,
        decode=generate,
        error=error_by_learned_sigma,
        attempts=(plainly,),
        traits=frozenset({"table", "squares"}),
        steps=800,
        rate=5e-3,
    )
)


class DeepTanhVAE(nn.Module):
    """Four layers each way with LayerNorm and tanh, and a map of two latents in between."""

    def __init__(self, width=64, depth=4, latents=2):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), *self.layers(64, width, depth))
        self.mean = nn.Linear(width, latents)
        self.log_variance = nn.Linear(width, latents)
        self.decoder = nn.Sequential(*self.layers(latents, width, depth), nn.Linear(width, 64))

    @staticmethod
    def layers(inputs, width, depth):
        made = []
        for _ in range(depth):
            made += [nn.Linear(inputs, width), nn.LayerNorm(width), nn.Tanh()]
            inputs = width
        return made

    def encode(self, x):
        h = self.encoder(x)
        return self.mean(h), self.log_variance(h)

    def decode(self, z):
        return self.decoder(z).reshape(len(z), 1, 8, 8)

    def forward(self, x):
        m, v = self.encode(x)
        return self.decode(m + torch.exp(v / 2) * torch.randn_like(m)), m, v


def digit_error(model, reconstruction, x):
    """[B] nats of a Gaussian with a sigma of 0.2."""
    return gaussian(reconstruction, x, 0.2)


subject(
    Subject(
        name="deep tanh",
        load=sets.digits8,
        build=DeepTanhVAE,
        encode=encode,
        decode=decode,
        error=digit_error,
        attempts=(plainly,),
        traits=frozenset({"images", "squares"}),
        steps=500,
    )
)


class PatchVAE(nn.Module):
    """Colour patches: convolutions down, upsampling back, a sigmoid at the end."""

    def __init__(self, ch=12, latent_dim=16):
        super().__init__()
        self.conv1 = nn.Conv2d(3, ch, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(ch, 2 * ch, 3, stride=2, padding=1)
        self.fc_mean = nn.Linear(2 * ch * 16, latent_dim)
        self.fc_logvar = nn.Linear(2 * ch * 16, latent_dim)
        self.fc_up = nn.Linear(latent_dim, 2 * ch * 16)
        self.up1 = nn.Conv2d(2 * ch, ch, 3, padding=1)
        self.up2 = nn.Conv2d(ch, 3, 3, padding=1)

    def encoder(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x)).flatten(1)
        return self.fc_mean(x), self.fc_logvar(x)

    def decoder(self, z):
        h = F.relu(self.fc_up(z)).view(z.size(0), -1, 4, 4)
        h = F.relu(self.up1(F.interpolate(h, scale_factor=2)))
        return torch.sigmoid(self.up2(F.interpolate(h, scale_factor=2)))

    def forward(self, x):
        mu, log_sigma2 = self.encoder(x)
        noise = torch.randn(mu.shape, device=mu.device, dtype=mu.dtype)
        return self.decoder(mu + log_sigma2.exp().sqrt() * noise), mu, log_sigma2


def encode_patch(model, x):
    """Codes of a PatchVAE."""
    return model.encoder(x)


def decode_patch(model, z):
    """Patches from codes, by a PatchVAE."""
    return model.decoder(z)


def patch_error(model, reconstruction, x):
    """[B] nats of a Gaussian with a sigma^2 of 0.02."""
    return gaussian(reconstruction, x, 0.02**0.5)


subject(
    Subject(
        name="patches",
        load=sets.patches,
        build=PatchVAE,
        encode=encode_patch,
        decode=decode_patch,
        error=patch_error,
        attempts=(plainly,),
        traits=frozenset({"images", "squares", "sigmoid", "relu"}),
        steps=400,
    )
)


class TokenVAE(nn.Module):
    """A small transformer on twelve tokens of eight kinds, which come and go as one-hot rows."""

    def __init__(self, length=12, kinds=8, d_model=32, latent=6):
        super().__init__()
        self.length, self.kinds = length, kinds
        self.embed = nn.Linear(kinds, d_model)
        self.places = nn.Parameter(0.1 * torch.randn(length, d_model))
        self.attend = nn.TransformerEncoderLayer(
            d_model, 2, 64, dropout=0.0, activation="gelu", batch_first=True
        )
        self.to_stats = nn.Linear(length * d_model, 2 * latent)
        self.memory = nn.Linear(latent, d_model)
        self.writer = nn.TransformerEncoderLayer(
            d_model, 2, 64, dropout=0.0, activation="gelu", batch_first=True
        )
        self.to_kinds = nn.Linear(d_model, kinds)

    def encode(self, rows):
        tokens = rows.view(-1, self.length, self.kinds)
        h = self.attend(self.embed(tokens) + self.places)
        return self.to_stats(h.flatten(1)).chunk(2, dim=1)

    def decode(self, z):
        h = self.writer(self.memory(z).unsqueeze(1) + self.places)
        return self.to_kinds(h).flatten(1)

    def forward(self, rows):
        mu, logvar = self.encode(rows)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.decode(z), mu, logvar


def token_error(model, reconstruction, x):
    """[B] nats of twelve softmaxes over eight kinds."""
    chances = F.log_softmax(reconstruction.unflatten(1, (12, 8)), dim=2)
    return -(x.unflatten(1, (12, 8)) * chances).sum((1, 2))


subject(
    Subject(
        name="tokens",
        load=sets.tokens_one_hot,
        build=TokenVAE,
        encode=encode,
        decode=decode,
        error=token_error,
        attempts=(plainly,),
        traits=frozenset({"tokens"}),
        steps=400,
        rate=5e-3,
    )
)
