"""Models whose parts are connected wrongly in one place."""

import torch
import torch.nn.functional as F
from torch import nn

from ..case import Wired
from .recipe import fault
from .subjects import DialCVAE

# ---- noise


@fault("wiring", on="binary", accepts="noise logvar")
def laplace_noise(recipe):
    class Sick(Wired):
        def sample(self, mu, logvar):
            eps = torch.distributions.Laplace(0.0, 1.0).sample(mu.shape)
            return mu + torch.exp(0.5 * logvar) * eps

    recipe.wired = Sick


@fault("wiring", on="binary", accepts="noise logvar")
def noise_added_twice(recipe):
    """The encoder returns a sample where its mean belongs, and forward samples again."""

    class Sick(Wired):
        def encode(self, x):
            mu, logvar = super().encode(x)
            return self.sample(mu, logvar), logvar

    recipe.wired = Sick


@fault("wiring", on="two levels", accepts="noise train-eval-gap")
def dropout_of_nine_tenths_on_z(recipe):
    class Sick(Wired):
        def sample(self, mu, logvar):
            return F.dropout(super().sample(mu, logvar), 0.9, self.training)

    recipe.wired = Sick


@fault("wiring", on="binary", accepts="noise shared-noise")
def one_random_number_for_all_latents_of_a_row(recipe):
    class Sick(Wired):
        def sample(self, mu, logvar):
            return mu + torch.exp(0.5 * logvar) * torch.randn(len(mu), 1)

    recipe.wired = Sick


@fault("wiring", on="sensors", accepts="noise logvar")
def rand_for_randn(recipe):
    class Sick(Wired):
        def sample(self, mu, logvar):
            return mu + torch.exp(0.5 * logvar) * torch.rand_like(mu)

    recipe.wired = Sick


@fault("wiring", on="sensors", accepts="no-sampling noise train-eval-gap")
def sampling_in_eval_mode_only(recipe):
    class Sick(Wired):
        def sample(self, mu, logvar):
            return mu if self.training else super().sample(mu, logvar)

    recipe.wired = Sick


# ---- the log-variance


@fault("wiring", on="binary", accepts="logvar")
def softplus_on_logvar(recipe):
    class Sick(Wired):
        def encode(self, x):
            mu, logvar = super().encode(x)
            return mu, F.softplus(logvar)

    recipe.wired = Sick


# Cured in the head (return a log-variance), in the noise (exp(s / 2)), or in the loss.
@fault("wiring", on="dials", accepts="logvar noise kl-form")
def sigma_returned_as_logvar(recipe):
    class Sick(Wired):
        def encode(self, x, angle):
            return self.net.posterior(x, angle)

        def sample(self, mu, std):
            return mu + std * torch.randn_like(std)

    recipe.wired = Sick


# ---- gradients


@fault("wiring", on="dials", accepts="encoder-detached no-gradient")
def the_data_of_z(recipe):
    class Sick(Wired):
        def sample(self, mu, logvar):
            return super().sample(mu, logvar).data

    recipe.wired = Sick


@fault("wiring", on="pen", accepts="encoder-detached encoder-frozen no-gradient")
def features_without_gradients(recipe):
    class Sick(Wired):
        def encode(self, x):
            with torch.no_grad():
                states, _ = self.net.encoder(x)
            return self.net.fc21(states[:, -1]), self.net.fc22(states[:, -1])

    recipe.wired = Sick


# ---- rows of a batch


@fault("wiring", on="pen", accepts="rows-mixed")
def batch_first_forgotten_in_the_reader(recipe):
    def prepare(model, plan):
        model.net.encoder.batch_first = False

    recipe.prepare = prepare


@fault("wiring", on="pen", accepts="rows-mixed outputs-reordered")
def view_where_a_transpose_belongs(recipe):
    class Sick(Wired):
        def decode(self, z):
            points = super().decode(z)
            time_first = points.transpose(0, 1).contiguous()
            return time_first.view(points.shape)

    recipe.wired = Sick


@fault("wiring", on="binary", accepts="rows-mixed")
def softmax_over_the_batch(recipe):
    class Sick(Wired):
        def encode(self, x):
            h = self.net.encoder[:3](x)
            gate = torch.softmax(h, dim=0)
            return self.net.encoder[3](20 * gate * h).chunk(2, dim=1)

    recipe.wired = Sick


# It is trained without the fault: with it nothing could be learned, and nothing be seen.
@fault("wiring", on="two levels", accepts="outputs-reordered rows-mixed")
def parts_of_a_batch_gathered_in_reverse(recipe):
    class Sick(Wired):
        parallel = False

        def forward(self, x):
            reconstruction, mu, logvar = super().forward(x)
            if self.parallel:
                reconstruction = torch.cat(reconstruction.chunk(4)[::-1])
            return reconstruction, mu, logvar

    def after(model):
        model.parallel = True

    recipe.wired, recipe.after = Sick, after


# ---- around z, or not through it


@fault("wiring", on="ellipses", accepts="path-around-z")
def features_concatenated_at_one_level(recipe):
    class Sick(Wired):
        def __init__(self, subject, net):
            super().__init__(subject, net)
            self.merge = nn.Conv2d(2 * net.ch, net.ch, 1)

        def paint(self, z, features):
            h = self.net.post_quant(z).view(len(z), -1, 6, 6)
            h = self.merge(torch.cat([self.net.up1(h), features], dim=1))
            return torch.sigmoid(self.net.up2(h))

        def decode(self, z):
            return self.paint(z, z.new_zeros(len(z), self.net.ch, 12, 12))

        def forward(self, x):
            mu, logvar = self.encode(x)
            z = self.sample(mu, logvar)
            return self.paint(z, self.net.down1(x)), mu, logvar

    recipe.wired = Sick


# the finding for autoregressive decoders had the code path-around-z when this set was first run
@fault("wiring", on="pen", accepts="path-around-z strong-decoder")
def teacher_forcing(recipe):
    class Sick(Wired):
        def forward(self, x):
            mu, logvar = self.encode(x)
            z = self.sample(mu, logvar)
            before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
            return self.net.decode(z, before), mu, logvar

    recipe.wired = Sick


@fault("wiring", on="dials", accepts="decoder-ignores-z")
def condition_concatenated_with_itself(recipe):
    class Sick(Wired):
        def decode(self, z, angle):
            c = torch.tanh(self.net.embed(angle))
            both = torch.cat([c[:, : z.shape[1]], c], dim=1)
            return self.net.dec(both).view(-1, 1, 16, 16)

    recipe.wired = Sick


# ---- the condition


@fault("wiring", on="dials", accepts="condition-ignored")
def angle_cast_to_whole_numbers(recipe):
    """Sines and cosines become 0."""

    class Sick(Wired):
        def encode(self, x, angle):
            return super().encode(x, angle.long().float())

        def decode(self, z, angle):
            return super().decode(z, angle.long().float())

    recipe.wired = Sick


@fault("wiring", on="dials", accepts="condition-leaks path-around-z")
def thumbnail_beside_the_angle(recipe):
    data = recipe.data

    def with_thumbnail(x, angle):
        small = F.avg_pool2d(x, 2).flatten(1)
        return torch.cat([angle, small], dim=1)

    recipe.data = data._replace(
        labels_train=with_thumbnail(data.x_train, data.labels_train),
        labels_test=with_thumbnail(data.x_test, data.labels_test),
    )
    recipe.build = lambda: DialCVAE(condition=2 + 64)


# ---- the last layer


@fault("wiring", on="spatial", accepts="activated-twice out-of-reach range-mismatch")
def relu_before_the_last_tanh(recipe):
    def prepare(model, plan):
        model.net.dec.insert(5, nn.ReLU())

    recipe.prepare = prepare


@fault("wiring", on="pulses", accepts="out-of-reach range-mismatch saturated-output")
def tanh_around_standardised_signals(recipe):
    class Sick(Wired):
        def decode(self, z):
            return torch.tanh(super().decode(z))

    recipe.wired = Sick
