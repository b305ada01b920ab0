"""Subjects from installed packages, with the networks as those packages build them, small.

`attempts` get the package's own module, not the wired one. A run leaves out
the subjects whose package is not installed. Imports wait until `build`, because some take long.
Errors leave out the constants of a Gaussian that no parameter changes.
"""

import torch
import torch.nn.functional as F
from torch import nn

import vaelab

from . import sets
from .case import Subject, kl, subject


def public(distribution, **parts):
    """Register a subject of a package, whether it is installed or not: cases are dealt to all."""
    parts["traits"] = frozenset(parts["traits"].split())
    subject(Subject(package=distribution, **parts))


def attempt(adapter=None, decode=None):
    """One call of the check-up by a stranger. decode: (model, z) -> what the decoder returns."""

    def try_it(model, data, loss):
        def decode_codes(z):
            return decode(model, z)

        options = {"decode": decode_codes} if decode else {}
        x = data.x_test[:300]
        return vaelab.checkup(model, x, loss, adapter=adapter, batch_size=64, **options)

    return try_it


naive = attempt()


def sampled(mu, logvar):
    """A code drawn from N(mu, exp(logvar))."""
    return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)


def cross_entropy(model, reconstruction, x):
    """[B] nats of x under outputs in [0, 1]."""
    each = F.binary_cross_entropy(reconstruction, x, reduction="none")
    return each.flatten(1).sum(1)


def cross_entropy_of_logits(model, reconstruction, x):
    """[B] nats of x under logits."""
    each = F.binary_cross_entropy_with_logits(reconstruction, x, reduction="none")
    return each.flatten(1).sum(1)


def squares(model, reconstruction, x):
    """[B] nats of x under a Gaussian of variance 1."""
    return 0.5 * ((reconstruction - x) ** 2).flatten(1).sum(1)


# ---- pythae: forward takes {"data": x} and returns an output without mu and logvar


def pythae_encode(model, x):
    codes = model.encoder(x)
    return codes.embedding, codes.log_covariance


def pythae_decode(model, z):
    return model.decoder(z)["reconstruction"]


def pythae_adapter(model, x):
    output = model({"data": x})
    return output.recon_x, *pythae_encode(model, x)


def pythae_own_sample(model, x):
    mu, logvar = pythae_encode(model, x)
    return pythae_decode(model, sampled(mu, logvar)), mu, logvar


PYTHAE_ATTEMPTS = (
    naive,
    attempt(lambda model, x: model({"data": x})),
    attempt(pythae_adapter),
    attempt(pythae_adapter, pythae_decode),
    attempt(pythae_own_sample, pythae_decode),
)


def strided(channels):
    """Convolutions with BatchNorm that halve the sides of a picture twice, then a flat row."""
    return nn.Sequential(
        nn.Conv2d(channels, 12, 4, 2, 1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 24, 4, 2, 1),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.Flatten(),
    )


def pythae_mlp():
    from pythae.models import VAE, VAEConfig

    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=8, reconstruction_loss="bce")
    return VAE(config)


def pythae_conv():
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self, latents):
            super().__init__()
            self.layers = strided(3)
            self.embedding = nn.Linear(24 * 16, latents)
            self.log_var = nn.Linear(24 * 16, latents)

        def forward(self, x):
            h = self.layers(x)
            return ModelOutput(embedding=self.embedding(h), log_covariance=self.log_var(h))

    class Decoder(BaseDecoder):
        def __init__(self, latents):
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(latents, 24 * 16),
                nn.Unflatten(1, (24, 4, 4)),
                nn.ReLU(),
                nn.ConvTranspose2d(24, 12, 4, 2, 1),
                nn.BatchNorm2d(12),
                nn.ReLU(),
                nn.ConvTranspose2d(12, 3, 4, 2, 1),
                nn.Sigmoid(),
            )

        def forward(self, z):
            return ModelOutput(reconstruction=self.layers(z))

    config = VAEConfig(input_dim=(3, 16, 16), latent_dim=12, reconstruction_loss="mse")
    return VAE(config, encoder=Encoder(12), decoder=Decoder(12))


public(
    "pythae",
    name="pythae mlp",
    load=sets.digits28,
    build=pythae_mlp,
    encode=pythae_encode,
    decode=pythae_decode,
    error=cross_entropy,
    attempts=PYTHAE_ATTEMPTS,
    traits="images sigmoid relu",
)
public(
    "pythae",
    name="pythae conv",
    load=sets.patches,
    build=pythae_conv,
    encode=pythae_encode,
    decode=pythae_decode,
    error=squares,
    attempts=PYTHAE_ATTEMPTS,
    traits="images squares sigmoid relu batchnorm",
    steps=250,
)


# ---- PyOD: the network inside its detector; dropout as it comes


def pyod_model():
    from pyod.models.vae import VAEModel

    return VAEModel(30, latent_dim=6, output_activation_name="identity")


def pyod_error(model, reconstruction, x):
    """[B] nats of x under a Gaussian of standard deviation 0.5, near the model's own error."""
    return squares(model, reconstruction, x) / 0.5**2


public(
    "pyod",
    name="pyod",
    load=sets.table,
    build=pyod_model,
    encode=lambda model, x: model.encode(x),
    decode=lambda model, z: model.decode(z),
    error=pyod_error,
    attempts=(naive, attempt(decode=lambda model, z: model.decode(z))),
    traits="table squares relu",
    steps=500,
)


# ---- ctgan: TVAE keeps only its decoder, so the parts are joined as its `fit` joins them


class JoinedTVAE(nn.Module):
    """What happens between the lines of `TVAE.fit`: its loss applies the tanh and takes sigma."""

    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, real):
        mu, std, logvar = self.encoder(real)
        eps = torch.randn_like(std)
        rec, sigmas = self.decoder(eps * std + mu)
        return rec, sigmas, mu, logvar


def ctgan_parts():
    from ctgan.synthesizers.tvae import Decoder, Encoder

    return JoinedTVAE(Encoder(30, (128, 128), 8), Decoder(8, (128, 128), 30))


def ctgan_data():
    """The table as ctgan's transformer scales a column: by four standard deviations."""
    data = sets.table()
    train = (data.x_train / 4).clamp(-0.99, 0.99)
    test = (data.x_test / 4).clamp(-0.99, 0.99)
    return data._replace(x_train=train, x_test=test)


def ctgan_encode(model, x):
    mu, _, logvar = model.encoder(x)
    return mu, logvar


def ctgan_decode(model, z):
    return torch.tanh(model.decoder(z)[0])


def ctgan_error(model, reconstruction, x):
    """[B] nats with the learned sigma of each column, kept in the limits that `fit` sets."""
    sigma = model.decoder.sigma.clamp(0.01, 1.0)
    each = (x - reconstruction) ** 2 / 2 / sigma**2 + torch.log(sigma)
    return each.sum(1)


def ctgan_adapter(out):
    return torch.tanh(out[0]), out[2], out[3]


public(
    "ctgan",
    name="ctgan",
    load=ctgan_data,
    build=ctgan_parts,
    encode=ctgan_encode,
    decode=ctgan_decode,
    error=ctgan_error,
    attempts=(
        naive,
        attempt(lambda out: (out[0], out[2], out[3])),
        attempt(ctgan_adapter),
        attempt(ctgan_adapter, ctgan_decode),
    ),
    traits="table squares relu",
    steps=500,
)


# ---- Pyro's tutorial "Variational Autoencoders": two nets, a model and a guide, no forward


class PyroEncoder(nn.Module):
    def __init__(self, pixels, z_dim, hidden_dim):
        super().__init__()
        self.fc1 = nn.Linear(pixels, hidden_dim)
        self.fc21 = nn.Linear(hidden_dim, z_dim)
        self.fc22 = nn.Linear(hidden_dim, z_dim)
        self.softplus = nn.Softplus()

    def forward(self, x):
        hidden = self.softplus(self.fc1(x.flatten(1)))
        return self.fc21(hidden), torch.exp(self.fc22(hidden))


class PyroDecoder(nn.Module):
    def __init__(self, pixels, z_dim, hidden_dim):
        super().__init__()
        self.fc1 = nn.Linear(z_dim, hidden_dim)
        self.fc21 = nn.Linear(hidden_dim, pixels)
        self.softplus = nn.Softplus()

    def forward(self, z):
        hidden = self.softplus(self.fc1(z))
        return torch.sigmoid(self.fc21(hidden))


class PyroVAE(nn.Module):
    """The tutorial's class; z_scale is a standard deviation."""

    def __init__(self, pixels=784, z_dim=10, hidden_dim=200):
        super().__init__()
        self.encoder = PyroEncoder(pixels, z_dim, hidden_dim)
        self.decoder = PyroDecoder(pixels, z_dim, hidden_dim)
        self.z_dim = z_dim

    def model(self, x):
        import pyro
        import pyro.distributions as dist

        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z_loc, z_scale = x.new_zeros(len(x), self.z_dim), x.new_ones(len(x), self.z_dim)
            z = pyro.sample("latent", dist.Normal(z_loc, z_scale).to_event(1))
            pixels = dist.Bernoulli(self.decoder(z), validate_args=False).to_event(1)
            pyro.sample("obs", pixels, obs=x.flatten(1))

    def guide(self, x):
        import pyro
        import pyro.distributions as dist

        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(x)):
            z_loc, z_scale = self.encoder(x)
            pyro.sample("latent", dist.Normal(z_loc, z_scale).to_event(1))

    def reconstruct_img(self, x):
        import pyro.distributions as dist

        z_loc, z_scale = self.encoder(x)
        z = dist.Normal(z_loc, z_scale).sample()
        return self.decoder(z)


def pyro_encode(model, x):
    loc, scale = model.encoder(x)
    return loc, 2 * scale.log()


def pyro_decode(model, z):
    return model.decoder(z).unflatten(1, (1, 28, 28))


def pyro_error(model, reconstruction, x):
    """[B] nats, flat as in the tutorial's model: its decoder returns [B, 784]."""
    return cross_entropy(model, reconstruction.flatten(1), x.flatten(1))


def pyro_tutorial(model, x):
    """The tutorial's own line: the reconstruction, and what the encoder returns."""
    return model.reconstruct_img(x), *model.encoder(x)


def pyro_logvar(model, x):
    return model.reconstruct_img(x), *pyro_encode(model, x)


def pyro_own_sample(model, x):
    """The same with a sample that lets gradients through."""
    mu, logvar = pyro_encode(model, x)
    return model.decoder(sampled(mu, logvar)), mu, logvar


public(
    "pyro-ppl",
    name="pyro",
    load=sets.digits28,
    build=PyroVAE,
    encode=pyro_encode,
    decode=pyro_decode,
    error=pyro_error,
    attempts=(
        naive,
        attempt(pyro_tutorial),
        attempt(pyro_logvar),
        attempt(pyro_own_sample),
        attempt(pyro_own_sample, lambda model, z: model.decoder(z)),
    ),
    traits="images sigmoid",
)


# ---- Lightning: forward returns the reconstruction only, as in its examples


def lightning_vae():
    import lightning

    class LitVAE(lightning.LightningModule):
        def __init__(self, latents=10):
            super().__init__()
            self.down = strided(1)
            self.fc_mu = nn.Linear(24 * 49, latents)
            self.fc_var = nn.Linear(24 * 49, latents)
            self.up = nn.Sequential(
                nn.Linear(latents, 24 * 49),
                nn.ReLU(),
                nn.Unflatten(1, (24, 7, 7)),
                nn.ConvTranspose2d(24, 12, 4, 2, 1),
                nn.BatchNorm2d(12),
                nn.ReLU(),
                nn.ConvTranspose2d(12, 1, 4, 2, 1),
            )

        def encode(self, x):
            h = self.down(x)
            return self.fc_mu(h), self.fc_var(h)

        def decode(self, z):
            return self.up(z)

        def forward(self, x):
            return torch.sigmoid(self.decode(sampled(*self.encode(x))))

        def training_step(self, batch, batch_idx):
            x, _ = batch
            mu, logvar = self.encode(x)
            logits = self.decode(sampled(mu, logvar))
            loss = (cross_entropy_of_logits(self, logits, x) + kl(mu, logvar)).mean()
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=2e-3)

    return LitVAE()


def lightning_adapter(model, x):
    """What the training step does."""
    mu, logvar = model.encode(x)
    return model.decode(sampled(mu, logvar)), mu, logvar


public(
    "lightning",
    name="lightning",
    load=sets.digits28,
    build=lightning_vae,
    encode=lambda model, x: model.encode(x),
    decode=lambda model, z: model.decode(z),
    error=cross_entropy_of_logits,
    attempts=(
        naive,
        attempt(lambda model, x: (model(x), *model.encode(x))),
        attempt(lightning_adapter),
        attempt(lightning_adapter, lambda model, z: model.decode(z)),
    ),
    traits="images logits relu batchnorm",
    steps=200,
)


# ---- diffusers: a spatial code, outputs in a class, the mode instead of a sample


def diffusers_tiny():
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 16, 16),
        latent_channels=2,
        norm_num_groups=4,
        sample_size=16,
    )


def diffusers_encode(model, x):
    posterior = model.encode(x).latent_dist
    return posterior.mean.flatten(1), posterior.logvar.flatten(1)


def diffusers_decode(model, z):
    return model.decode(z.unflatten(1, (2, 4, 4))).sample


def diffusers_error(model, reconstruction, x):
    """[B] nats of x under a Gaussian of standard deviation 0.2."""
    return squares(model, reconstruction, x) / 0.2**2


def diffusers_forward(model, x):
    """The model's own forward, told to sample."""
    posterior = model.encode(x).latent_dist
    return model(x, sample_posterior=True).sample, posterior.mean, posterior.logvar


def diffusers_flat(model, x):
    reconstruction, mean, logvar = diffusers_forward(model, x)
    return reconstruction, mean.flatten(1), logvar.flatten(1)


public(
    "diffusers",
    name="diffusers",
    load=sets.shapes16,
    build=diffusers_tiny,
    encode=diffusers_encode,
    decode=diffusers_decode,
    error=diffusers_error,
    attempts=(
        naive,
        attempt(lambda model, x: (model(x).sample, *diffusers_encode(model, x))),
        attempt(diffusers_forward),
        attempt(diffusers_flat),
        attempt(diffusers_flat, diffusers_decode),
    ),
    traits="images squares",
    steps=150,
    batch=32,
)


# ---- MONAI: forward returns z as well, and in eval mode z is mu + std, without chance


def monai_model():
    from monai.networks.nets import VarAutoEncoder

    return VarAutoEncoder(
        spatial_dims=2,
        in_shape=(1, 28, 28),
        out_channels=1,
        latent_size=8,
        channels=(8, 16),
        strides=(2, 2),
    )


def monai_decode(model, z):
    return model.decode_forward(z)


def monai_own_sample(model, x):
    mu, logvar = model.encode_forward(x)
    return model.decode_forward(sampled(mu, logvar)), mu, logvar


public(
    "monai",
    name="monai",
    load=sets.digits28,
    build=monai_model,
    encode=lambda model, x: model.encode_forward(x),
    decode=monai_decode,
    error=cross_entropy,
    attempts=(
        naive,
        attempt(lambda out: out[:3]),
        attempt(lambda out: out[:3], monai_decode),
        attempt(monai_own_sample, monai_decode),
    ),
    traits="images sigmoid",
    steps=200,
)
