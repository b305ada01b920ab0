"""Faults in the loss: the network is right, what it is trained on is not.

`accepts` is written from the remedy: a code counts where doing what it says would cure. Where the
KL weighs too much, a collapse is a symptom, but "lower beta" cures it. Where it weighs too little,
the same holds for prior-mismatch and "raise the KL's weight".
"""

import torch.nn.functional as F

from .case import fault, has, kl

TOO_HEAVY = "loss-scale sigma posterior-collapse"
TOO_LIGHT = "loss-scale sigma prior-mismatch"
FEW_VALUES = 100  # 300 rows against 300 rows are 36 MB then


def values_of(x):
    """How many numbers one row holds."""
    return x[0].numel()


# ---- which subjects


def knows_probabilities(subject):
    """Outputs are probabilities, and the error is a cross-entropy."""
    return "sigmoid" in subject.traits and "squares" not in subject.traits


def looks_like_its_rows(subject):
    """Outputs are in the range of the data, so that they can be subtracted."""
    return not subject.traits.isdisjoint({"sigmoid", "squares"}) and not_tokens(subject)


def not_tokens(subject):
    """Rows are numbers, not words."""
    return "tokens" not in subject.traits


def small_squares(subject):
    """A Gaussian's error on rows that are short enough for every pair of rows."""
    return "squares" in subject.traits and values_of(subject.load().x_test) <= FEW_VALUES


# ---- one side of the sum is averaged, the other is not


@fault("loss", TOO_HEAVY)
def error_averaged_over_values_and_rows(subject, model, reconstruction, x, mu, logvar):
    """The KL is summed over latents, the error is a mean: beta is the number of values."""
    error = subject.error(model, reconstruction, x).mean() / values_of(x)
    return error + kl(mu, logvar).mean()


@fault("loss", TOO_LIGHT)
def kl_averaged_over_latents(subject, model, reconstruction, x, mu, logvar):
    """The error is summed over values, the KL is a mean: beta is 1 / the number of latents."""
    error = subject.error(model, reconstruction, x).mean()
    return error + kl(mu, logvar).mean() / mu.shape[1]


@fault("loss", TOO_HEAVY)
def both_averaged(subject, model, reconstruction, x, mu, logvar):
    """Two means look alike, yet beta is the number of values over that of latents."""
    error = subject.error(model, reconstruction, x).mean() / values_of(x)
    return error + kl(mu, logvar).mean() / mu.shape[1]


@fault("loss", TOO_HEAVY + " batch-dependent-beta")
def kl_summed_over_the_batch(subject, model, reconstruction, x, mu, logvar):
    """The error is averaged over rows, the KL is summed over them: beta is the batch size."""
    error = subject.error(model, reconstruction, x).mean()
    return error + kl(mu, logvar).sum()


# ---- the weight


@fault("loss", TOO_LIGHT)
def no_kl(subject, model, reconstruction, x, mu, logvar):
    """The KL was forgotten."""
    return subject.error(model, reconstruction, x).mean()


@fault("loss", TOO_LIGHT)
def kl_weight_of_a_ten_thousandth(subject, model, reconstruction, x, mu, logvar):
    """A weight copied from code that averages, beside an error that is summed."""
    error = subject.error(model, reconstruction, x).mean()
    return error + 1e-4 * kl(mu, logvar).mean()


@fault("loss", TOO_HEAVY)
def kl_weight_of_fifty(subject, model, reconstruction, x, mu, logvar):
    """Beta is 50."""
    error = subject.error(model, reconstruction, x).mean()
    return error + 50 * kl(mu, logvar).mean()


@fault("loss", TOO_HEAVY, looks_like_its_rows)
def absolute_error_with_a_heavy_kl(subject, model, reconstruction, x, mu, logvar):
    """The absolute error, which is healthy by itself, and a KL that weighs 20 times too much."""
    distance = reconstruction.flatten(1) - x.flatten(1)
    error = distance.abs().sum(1).mean()
    return error + 20 * kl(mu, logvar).mean()


# ---- signs and formulas


@fault("loss", "kl-sign")
def kl_with_the_wrong_sign(subject, model, reconstruction, x, mu, logvar):
    """The KL is made as large as possible."""
    return (subject.error(model, reconstruction, x) - kl(mu, logvar)).mean()


# Only where outputs pass a sigmoid: elsewhere this loss has no lower end, and training blows up.
@fault("loss", "loss-sign", has("sigmoid"))
def error_with_the_wrong_sign(subject, model, reconstruction, x, mu, logvar):
    """The log-likelihood is minimised."""
    return (kl(mu, logvar) - subject.error(model, reconstruction, x)).mean()


# "logvar" counts too: a network that reads its own output as a standard deviation is right again.
@fault("loss", "kl-form logvar")
def kl_reads_logvar_as_a_standard_deviation(subject, model, reconstruction, x, mu, logvar):
    """The KL of N(mu, logvar^2), while codes are drawn from N(mu, exp(logvar))."""
    variance = logvar**2 + 1e-8
    wrong_kl = kl(mu, variance.log())
    return (subject.error(model, reconstruction, x) + wrong_kl).mean()


# ---- what the error compares


@fault("loss", "shape-broadcast", small_squares)
def targets_that_broadcast(subject, model, reconstruction, x, mu, logvar):
    """[B, 1, D] minus [B, D] is [B, B, D]: every output is drawn to every row."""
    target = x.flatten(1)
    output = reconstruction.flatten(1)[:, None]
    squares = ((output - target) ** 2).sum(-1).mean()
    # What a square costs in this subject's own error, so that nothing but the shape is wrong.
    # (Columns with learned sigmas share their average.)
    exact = x.reshape(reconstruction.shape)
    least = subject.error(model, exact, x).mean()
    weight = (subject.error(model, exact + 1, x).mean() - least) / values_of(x)
    return least + weight * squares + kl(mu, logvar).mean()


# The outputs are probabilities in [0, 1], read as logits: only 0.5 to 0.73 can be reached. So
# "out of reach" and "another range" say the same, and dropping one of the sigmoids cures.
@fault("loss", "activated-twice out-of-reach range-mismatch", knows_probabilities)
def logits_loss_on_probabilities(subject, model, reconstruction, x, mu, logvar):
    """The cross-entropy applies its own sigmoid to outputs that have passed one."""
    target = x.reshape(reconstruction.shape)
    error = F.binary_cross_entropy_with_logits(reconstruction, target, reduction="sum") / len(x)
    return error + kl(mu, logvar).mean()


@fault("loss", "partial-error", not_tokens)
def half_of_the_values_left_out(subject, model, reconstruction, x, mu, logvar):
    """The lower half of a picture, or the last half of the values, is not in the error."""
    kept = first_half(x)
    # Zeros against zeros cost a constant. (Only a learned sigma of theirs goes to its floor.)
    seen = reconstruction * kept.reshape(reconstruction.shape)
    return (subject.error(model, seen, x * kept) + kl(mu, logvar)).mean()


def first_half(x):
    """Ones in the upper half of pictures [B, C, H, W] or the first half of rows, else zeros."""
    kept = x.new_ones(x.shape)
    if x.dim() == 4:
        kept[:, :, x.shape[2] // 2 :] = 0
    else:
        kept[:, x.shape[1] // 2 :] = 0
    return kept
