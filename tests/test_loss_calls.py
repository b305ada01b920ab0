"""A loss is called as its parameter names ask, and the right part of what it returns is used."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vaelab import gaussian_kl, measure_loss
from vaelab.clinic.losses import recover, value_on
from vaelab.clinic.meter import Shapes


def kl(mu, logvar):
    return gaussian_kl(mu, logvar).sum(1).mean()


def error(r, x):
    return F.binary_cross_entropy(r, x, reduction="sum") / len(x)


def measured(loss, **options):
    return measure_loss(loss, **{"batch_size": 16, "shape": (30,), "latent_dim": 4, **options})


def line_of(loss):
    """The line of code that the error shows."""
    with pytest.raises(ValueError) as caught:
        measured(loss)
    return str(caught.value).split("loss=")[1]


# ---- a loss that reads what the model returns


def of_a_dictionary(out, x):
    return error(out["recon"], x) + kl(out["loc"], 2 * out["log_scale"])


def of_a_dictionary_with_std(out, x):
    return error(out["x_hat"], x) + kl(out["mean"], 2 * out["std"].log())


def of_a_dictionary_last(x, out):
    return error(out["reconstruction"], x) + kl(out["mu"], out["log_var"])


@pytest.mark.parametrize("loss", [of_a_dictionary, of_a_dictionary_with_std, of_a_dictionary_last])
def test_a_loss_reads_the_outputs_by_its_own_names(loss):
    assert measured(loss).beta == pytest.approx(1, rel=1e-3)


def test_a_name_that_says_nothing_is_an_error():
    def loss(out, x):
        return error(out["recon"], x) + out["extra"].sum()

    with pytest.raises(ValueError, match="loss is called as"):
        measured(loss)


# ---- in which order


def x_first(x, x_hat, mu, logvar):
    return error(x_hat, x) + kl(mu, logvar)


def codes_first(z_mean, z_log_var, decoded, inputs):
    return error(decoded, inputs) + kl(z_mean, z_log_var)


def torch_order(input, target, mu, logvar):
    return error(input, target) + kl(mu, logvar)


def with_more(y_true, y_pred, mean, lv, beta=2.0, **kwargs):
    return error(y_pred, y_true) + beta / 2 * kl(mean, lv)


def outputs_first(outputs, x):
    return x_first(x, *outputs)


def outputs_last(images, out):
    return x_first(images, *out)


class Module(nn.Module):
    """A loss that is a module, and one that is a method."""

    def forward(self, data, recon, mu, logvar):
        return error(recon, data) + kl(mu, logvar)

    def loss_function(self, recon_x, x, mu, logvar):
        return self(x, recon_x, mu, logvar)


def beta_between(recon, x, beta, mu, logvar):
    return error(recon, x) + beta * kl(mu, logvar)


def any_number(recon, x, *codes):
    return error(recon, x) + kl(*codes)


ORDERS = {
    any_number: "",
    x_first: "x, reconstruction, mu, logvar",
    codes_first: "mu, logvar, reconstruction, x",
    torch_order: "",
    with_more: "x, reconstruction, mu, logvar",
    outputs_first: "(reconstruction, mu, logvar), x",
    outputs_last: "x, (reconstruction, mu, logvar)",
    Module(): "x, reconstruction, mu, logvar",
    Module().loss_function: "",
    functools.partial(beta_between, beta=1.0): "",
    functools.partial(x_first): "x, reconstruction, mu, logvar",
}


@pytest.mark.parametrize("loss", ORDERS)
def test_a_loss_gets_its_arguments_in_the_order_that_it_asks_for(loss):
    found = measured(loss)
    assert found.name == "cross-entropy on probabilities" and found.order == ORDERS[loss]
    assert found.beta == pytest.approx(1, rel=1e-3)
    arguments = [torch.rand(16, 30), torch.rand(16, 30), torch.randn(16, 4), torch.randn(16, 4)]
    value, refusal = value_on(found.call, arguments, "cpu")
    assert refusal is None and value == pytest.approx(
        (error(*arguments[:2]) + kl(*arguments[2:])).item(), rel=1e-4
    )


def by_names_only(*, recon, x, mu, logvar):
    return error(recon, x) + kl(mu, logvar)


def test_parameters_that_only_have_names():
    assert measured(by_names_only).beta == pytest.approx(1, rel=1e-3)


def test_a_standard_deviation_at_random_codes_gets_the_lambda():
    def loss(x, x_hat, mu, sigma):
        z = mu + sigma * torch.randn_like(mu)
        return error(x_hat, x) + (0.5 * z**2 - sigma.abs().log()).sum(1).mean()

    assert "my_loss(x, reconstruction, mu, torch.exp(0.5 * logvar))" in line_of(loss)


def test_names_that_tell_nothing_leave_the_usual_order():
    found = measured(lambda a, b, c, d: error(b, a) + kl(c, d))
    assert found.name == "cross-entropy with its arguments swapped" and found.order == ""


def test_the_other_order_is_taken_where_only_that_works():
    def tokens(a, b, c, d):
        if a.is_floating_point():
            raise TypeError("whole numbers first")
        return F.cross_entropy(b.transpose(1, 2), a, reduction="sum") / len(a) + kl(c, d)

    shapes = {"shape": (6,), "output_shape": (6, 5), "kinds": 5}
    assert measured(tokens, **shapes).order == "x, reconstruction, mu, logvar"


def test_shapes_that_fit_in_the_other_order_only_are_no_order():
    def loss(a, b, c, d):
        return F.binary_cross_entropy(a, b.view(-1, 30)) + kl(c, d)

    shapes = Shapes((1, 5, 6), (30,), (4,))
    assert recover(loss, shapes, 16).broadcasts


# ---- further arguments


class AntixK(nn.Module):
    """The signature that many copies have."""

    def loss_function(self, *args, **kwargs):
        recons, input, mu, log_var = args[:4]
        kld_weight = kwargs["M_N"]
        recons_loss = F.mse_loss(recons, input)
        kld = kl(mu, log_var)
        return {
            "loss": recons_loss + kld_weight * kld,
            "Reconstruction_Loss": recons_loss.detach(),
            "KLD": -kld.detach(),
        }


def with_epoch(recon, x, mu, logvar, epoch):
    return error(recon, x) + min(1, epoch / 10) * kl(mu, logvar)


def epoch_first(epoch, recon, x, mu, logvar):
    return with_epoch(recon, x, mu, logvar, epoch)


def two_by_name(recon, x, mu, logvar, *, kld_weight, alpha):
    return alpha * error(recon, x) + kld_weight * kl(mu, logvar)


@pytest.mark.parametrize(
    "loss, further",
    [
        (AntixK().loss_function, "M_N"),
        (with_epoch, "epoch"),
        (epoch_first, "epoch"),
        (two_by_name, "kld_weight alpha"),
        (lambda outputs, target, beta: outputs_first(outputs, target), "beta"),
    ],
)
def test_further_arguments_are_named_and_the_line_works_once_filled_in(loss, further):
    line = line_of(loss)
    for name in further.split():
        assert f"{name}=..." in line
    filled = eval(line.replace("...", "1.0"), {"my_loss": loss})
    assert measured(filled).kl.kind == "gaussian"


def test_a_key_that_is_missing_elsewhere_is_no_argument():
    settings = {}
    assert "beta=..." not in line_of(lambda r, x, mu, logvar: settings["beta"] * kl(mu, logvar))


def test_a_loss_of_the_picture_alone_is_told_that_the_kl_is_missing():
    assert line_of(nn.MSELoss()).endswith("my_loss(reconstruction, x) + my_kl(mu, logvar)")


# ---- what it returns


def returning(choose):
    """A loss that returns what `choose` makes of (error, KL, their sum)."""

    def loss(recon, x, mu, logvar):
        r, k = error(recon, x), 3 * kl(mu, logvar)
        return choose(r, k, r + k)

    return loss


@pytest.mark.parametrize(
    "choose, part",
    [
        (lambda r, k, total: {"kl": k, "loss": total}, '["loss"]'),
        (lambda r, k, total: {"recon": r, "kl": k, "objective": total}, '["objective"]'),
        (lambda r, k, total: {"recon": r, "kl": k, "sum": total}, '["sum"]'),
        (lambda r, k, total: (total, r, k), "[0]"),
        (lambda r, k, total: [r, k, total], "[2]"),
        (lambda r, k, total: (total + 0 * r, r + k.detach(), total), "[0]"),
        (lambda r, k, total: (total, {"kl": k.item()}), "[0]"),
        (lambda r, k, total: total.reshape(1), ""),
    ],
)
def test_the_total_is_found_among_several_values(choose, part):
    found = measured(returning(choose))
    assert found.call.part == part and found.beta == pytest.approx(3, rel=1e-3)


@pytest.mark.parametrize(
    "choose",
    [
        lambda r, k, total: (r, k),
        lambda r, k, total: {"recon": r, "kl": k},
        lambda r, k, total: {"loss": r, "kl": k},
        lambda r, k, total: (r, k, r.detach()),
    ],
)
def test_a_term_is_never_dropped(choose):
    with pytest.raises(ValueError, match="depends on mu"):
        measured(returning(choose))
    filled = eval(line_of(returning(choose)), {"my_loss": returning(choose)})
    assert measured(filled).beta == pytest.approx(3, rel=1e-3)


def rows(recon, x, mu, logvar):
    return F.mse_loss(recon, x, reduction="none").sum(1) + gaussian_kl(mu, logvar).sum(1)


@pytest.mark.parametrize(
    "loss",
    [
        rows,
        lambda *args: rows(*args)[:, None],
        lambda *args: {"loss": rows(*args), "n": 3},
        lambda r, x, mu, logvar: ((r - x).square().sum(1), gaussian_kl(mu, logvar).sum(1)),
    ],
)
def test_a_loss_of_every_row_is_averaged_by_the_line(loss):
    filled = eval(line_of(loss), {"my_loss": loss})
    assert measured(filled).sigma2 == pytest.approx(0.5, rel=1e-3)


def test_a_number_is_no_loss():
    with pytest.raises(ValueError, match="got float: leave .item"):
        measured(lambda *args: x_first(*args).item())


def test_a_loss_without_any_kl_is_used_as_it_is():
    assert measured(lambda r, x, mu, logvar: {"loss": error(r, x)}).kl.kind == "none"
