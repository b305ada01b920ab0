"""Faults in the network: each class overrides exactly one method of `Wired`.

`accepts` is written from the remedy: a code counts where doing what it says would cure. A class is
named like a fault, in small letters.
"""

import torch
import torch.nn.functional as F

from .case import Wired, fault, has

# What both remedies say, z = mu + exp(logvar / 2) * eps with eps from randn_like(mu), cures.
OTHER_NOISE = "noise logvar"
# A second activation narrows the outputs: three names for it, and dropping it cures.
NARROWED = "out-of-reach range-mismatch"


# ---- which subjects


def not_tokens(subject):
    """Rows are numbers that outputs can be mixed with, not words."""
    known = {"sigmoid", "squares", "logits"}
    return "tokens" not in subject.traits and not subject.traits.isdisjoint(known)


def pictures(subject):
    """Rows are images [C, H, W]."""
    return "images" in subject.traits and not_tokens(subject)


def perfect(subject, x, reconstruction):
    """What a perfect decoder would return for x, in the shape of the reconstruction."""
    if "logits" in subject.traits:
        x = torch.logit(x.clamp(0.02, 0.98))
    return x.reshape(reconstruction.shape)


# ---- the noise


# OTHER_NOISE counts: who draws with exp(logvar / 2) does sample.
@fault("wiring", "no-sampling " + OTHER_NOISE)
class no_sampling(Wired):
    """The decoder gets mu."""

    def sample(self, mu, logvar):
        return mu


@fault("wiring", OTHER_NOISE)
class noise_three_times_too_large(Wired):
    """A factor that stayed from an experiment."""

    def sample(self, mu, logvar):
        return mu + 3 * torch.exp(0.5 * logvar) * torch.randn_like(mu)


# no-sampling counts: its remedy, to draw with exp(logvar / 2), is the one that is needed.
@fault("wiring", OTHER_NOISE + " no-sampling")
class noise_of_a_fixed_tenth(Wired):
    """The noise has a size of its own, and logvar is not used."""

    def sample(self, mu, logvar):
        return mu + 0.1 * torch.randn_like(mu)


@fault("wiring", OTHER_NOISE)
class uniform_noise(Wired):
    """rand_like instead of randn_like: only upwards, and too little."""

    def sample(self, mu, logvar):
        return mu + torch.exp(0.5 * logvar) * torch.rand_like(mu)


# "noise" counts: its remedy writes randn_like(mu), which has a draw for every row.
@fault("wiring", "shared-noise noise")
class one_draw_for_the_batch(Wired):
    """All rows of a batch get the same noise."""

    def sample(self, mu, logvar):
        return mu + torch.exp(0.5 * logvar) * torch.randn_like(mu[:1])


@fault("wiring", OTHER_NOISE)
class variance_used_as_standard_deviation(Wired):
    """exp(logvar) without the half."""

    def sample(self, mu, logvar):
        return mu + torch.exp(logvar) * torch.randn_like(mu)


@fault("wiring", OTHER_NOISE)
class logvar_used_as_standard_deviation(Wired):
    """logvar without the exponential."""

    def sample(self, mu, logvar):
        return mu + logvar * torch.randn_like(mu)


# ---- from z to the output


@fault("wiring", "decoder-ignores-z")
class decoder_gets_zeros(Wired):
    """z is multiplied with 0 on its way into the decoder."""

    def decode(self, z, *labels):
        return super().decode(z * 0, *labels)


# decoder-ignores-z counts: its remedy is to look for what else the output is made of.
@fault("wiring", "path-around-z decoder-ignores-z", not_tokens)
class skip_connection(Wired):
    """Half of the output is x itself."""

    def forward(self, x, *labels):
        reconstruction, mu, logvar = super().forward(x, *labels)
        shortcut = perfect(self.subject, x, reconstruction)
        return 0.5 * reconstruction + 0.5 * shortcut, mu, logvar


@fault("wiring", "path-around-z decoder-ignores-z", pictures)
class decoder_sees_a_blurred_picture(Wired):
    """Half of the output is x, averaged over squares of 4 x 4."""

    def forward(self, x, *labels):
        reconstruction, mu, logvar = super().forward(x, *labels)
        coarse = F.avg_pool2d(x, 4)
        blurred = F.interpolate(coarse, x.shape[2:])
        shortcut = perfect(self.subject, blurred, reconstruction)
        return 0.5 * reconstruction + 0.5 * shortcut, mu, logvar


@fault("wiring", "activated-twice " + NARROWED, has("sigmoid"))
class sigmoid_twice(Wired):
    """Outputs are in [0.5, 0.73]."""

    def decode(self, z, *labels):
        return torch.sigmoid(super().decode(z, *labels))


@fault("wiring", NARROWED, has("table", "squares"))
class tanh_on_standardised_values(Wired):
    """Outputs are in [-1, 1], a third of the data is not."""

    def decode(self, z, *labels):
        return torch.tanh(super().decode(z, *labels))


# ---- what forward returns


@fault("wiring", "outputs-swapped")
class mu_and_logvar_swapped(Wired):
    """Codes are drawn rightly, but the loss gets logvar as mu."""

    def forward(self, x, *labels):
        reconstruction, mu, logvar = super().forward(x, *labels)
        return reconstruction, logvar, mu


# targets-shuffled counts: in a loss, moved outputs and moved targets are the same.
@fault("wiring", "outputs-reordered targets-shuffled")
class rows_in_another_order(Wired):
    """Every reconstruction stands beside the row that follows."""

    def forward(self, x, *labels):
        reconstruction, mu, logvar = super().forward(x, *labels)
        return reconstruction.roll(1, 0), mu, logvar


# encoder-detached counts: its remedy is to look for the detach between the error and the encoder.
@fault("wiring", "no-gradient encoder-detached")
class reconstruction_detached(Wired):
    """The error has no gradient: the decoder stays as it was drawn, the KL empties the codes."""

    def forward(self, x, *labels):
        reconstruction, mu, logvar = super().forward(x, *labels)
        return reconstruction.detach(), mu, logvar


# ---- what the encoder returns


# outputs-swapped counts: its remedy is to look which head each of the outputs comes from.
@fault("wiring", "logvar outputs-swapped")
class logvar_taken_from_mu(Wired):
    """Both outputs come from the first head."""

    def encode(self, x, *labels):
        mu, _ = super().encode(x, *labels)
        return mu, mu


@fault("wiring", "logvar")
class relu_on_mu(Wired):
    """Codes of 0 and more only."""

    def encode(self, x, *labels):
        mu, logvar = super().encode(x, *labels)
        return mu.relu(), logvar


@fault("wiring", "logvar")
class softplus_on_logvar(Wired):
    """A variance that cannot be below 1."""

    def encode(self, x, *labels):
        mu, logvar = super().encode(x, *labels)
        return mu, F.softplus(logvar)


# logvar counts: its remedy, a logvar that is free to fall, is the one needed.
@fault("wiring", "logvar")
class logvar_stays_at_zero(Wired):
    """A variance that is always 1."""

    def encode(self, x, *labels):
        mu, logvar = super().encode(x, *labels)
        return mu, torch.zeros_like(logvar)


# ---- the condition


@fault("wiring", "condition-ignored", has("labels"))
class condition_dropped(Wired):
    """Labels are accepted and replaced by zeros."""

    def forward(self, x, *labels):
        nothing = [torch.zeros_like(label) for label in labels]
        return super().forward(x, *nothing)
