"""Thread 000's runs over several seeds, for notebook 04: `python tools/thread_000_runs.py [--seeds 0-4]`.

Measurements go to tools/thread_000_runs.json; runs already in there are kept, `--again` repeats them.
About 2 minutes of one CPU core a seed. The table that notebook 04 shows is printed at the end
(`--table` prints it and runs nothing).
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

import vaelab  # noqa: E402
from notebooks import seed_range  # noqa: E402

RESULTS = Path(__file__).with_suffix(".json")
BATCH, RATE = 8, 1e-3


def sgd(**options):
    """An optimiser builder for plain gradient descent."""
    return lambda parameters: torch.optim.SGD(parameters, **options)


def clipped(parameters):
    """Adam behind a gradient clipped to norm 1."""
    parameters = list(parameters)
    adam = torch.optim.Adam(parameters, lr=RATE)

    def clip(*_):
        nn.utils.clip_grad_norm_(parameters, 1.0)

    adam.register_step_pre_hook(clip)
    return adam


# What each run changes about the thread's own: sigmoid, summed squared error, 100 * averaged KL, Adam 1e-3.
RUNS = {
    "no sigmoid": {"likelihood": vaelab.Gaussian(0.5)},
    "sigmoid, as in the thread": {},
    "BatchNorm before the sigmoid": {"batchnorm": True},
    "KL coefficient 1": {"coefficient": 1, "steps": 100},
    "KL coefficient 256": {"coefficient": 256, "steps": 100},
    "KL summed over the latents": {"kl_sum": True, "steps": 100},
    "32 latents": {"latent_dim": 32, "steps": 100},
    "Adam without momentum": {"optimizer": lambda p: torch.optim.Adam(p, RATE, (0.0, 0.999)), "steps": 100},
    "RMSprop": {"optimizer": lambda p: torch.optim.RMSprop(p, RATE), "steps": 100},
    "SGD, rate 1e-3": {"optimizer": sgd(lr=1e-3), "steps": 100},
    "SGD, rate 1e-4": {"optimizer": sgd(lr=1e-4), "steps": 100},
    "SGD, rate 1e-4, momentum 0.9": {"optimizer": sgd(lr=1e-4, momentum=0.9), "steps": 100},
    "mean instead of sum": {"mean": True, "steps": 100},
    "gradient clipped to norm 1": {"optimizer": clipped, "steps": 100},
    "warm-up over 100 steps": {"warm_up": 100, "steps": 200},
    "a 10 times smaller rate": {"lr": 1e-4},
    "last bias at logit(mean pixel)": {"start_at_mean": True},
    "cross-entropy on logits": {"likelihood": vaelab.Bernoulli(), "loss": "logits"},
    "cross-entropy on probabilities": {"likelihood": vaelab.Bernoulli(), "loss": "probabilities"},
    "cross-entropy on logits, bias at logit(mean)": {
        "likelihood": vaelab.Bernoulli(), "loss": "logits", "start_at_mean": True
    },
    "continuous Bernoulli": {"likelihood": vaelab.ContinuousBernoulli(), "loss": "likelihood"},
}  # fmt: skip


def make_loss(likelihood, kind, coefficient, kl_sum, mean):
    """The thread's loss, or the same with another reconstruction term."""

    def loss(output, x, mu, logvar):
        kl = vaelab.gaussian_kl(mu, logvar)  # [B, L]
        if kind == "squared error":
            reconstruction = F.mse_loss(likelihood.mean(output), x, reduction="mean" if mean else "sum")
        elif kind == "logits":
            reconstruction = F.binary_cross_entropy_with_logits(output, x, reduction="sum")
        elif kind == "probabilities":
            reconstruction = F.binary_cross_entropy(torch.sigmoid(output), x, reduction="sum")
        else:
            reconstruction = likelihood.nll(output, x).sum()
        return reconstruction + coefficient * (kl.sum(1).mean() if kl_sum else kl.mean())

    return loss


def run(
    name, seed, data, likelihood=None, batchnorm=False, latent_dim=8, loss="squared error", coefficient=100,
    kl_sum=False, mean=False, optimizer=None, lr=RATE, warm_up=0, start_at_mean=False, steps=300,
):  # fmt: skip
    """One run: squared error, output variance, active units, levels and logits on held-out images."""
    likelihood = likelihood if likelihood is not None else vaelab.Gaussian(0.5, "sigmoid")
    torch.manual_seed(seed)
    model = vaelab.thread_000_vae(likelihood, batchnorm, latent_dim)
    if start_at_mean:
        with torch.no_grad():
            model.decoder[-1].bias.copy_(torch.logit(data.x_train.mean((0, 2, 3))))

    def on_step(step, model):
        for group in opt[0].param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / max(1, warm_up))

    opt = []

    def build(parameters):
        opt.append(optimizer(parameters) if optimizer else torch.optim.Adam(parameters, lr / max(1, warm_up)))
        return opt[0]

    vaelab.fit(
        model, data.x_train, max_steps=steps, batch_size=BATCH, seed=seed, optimizer=build, evaluate_on=16,
        loss=make_loss(likelihood, loss, coefficient, kl_sum, mean), on_step=on_step if warm_up else None,
        progress=False,
    )  # fmt: skip
    return measure(model, data.x_test)


def measure(model, x):
    """What the table says about a trained model. x: [N, 3, 64, 64]."""
    object_ = (x.amax(1, keepdim=True) > 0).expand_as(x)
    picture, everywhere = model.reconstruct(x), vaelab.saturation(model, x)
    return {
        "squared error": (picture - x).square().flatten(1).sum(1).mean().item(),
        "output variance": vaelab.output_variance(model, x),
        "active units": vaelab.active_units(vaelab.posterior(model, x)[0]),
        "object": picture[object_].mean().item(),
        "background": picture[~object_].mean().item(),
        "mean logit": everywhere.preactivation,
        "saturated": everywhere.saturated,
    }


def table(results):
    """The measurements as a Markdown table, lowest to highest over the seeds."""
    columns = {"squared error": ".0f", "output variance": ".4f", "active units": "d"}
    columns |= {"object": ".2f", "background": ".2f"}
    lines = ["| run | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    for name in RUNS:
        seeds = results.get(name, {}).values()
        if seeds:
            cells = [span([row[column] for row in seeds], form) for column, form in columns.items()]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def span(values, form):
    """"lowest to highest", or one number where both look the same."""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def main():
    """Do the runs that are missing, seed by seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=seed_range, default=seed_range("0-4"))
    parser.add_argument("--only", choices=RUNS, help="one run")
    parser.add_argument("--again", action="store_true", help="repeat runs that are in the results already")
    parser.add_argument("--table", action="store_true", help="print the table, run nothing")
    args = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not args.table:
        torch.set_num_threads(1)
        data = vaelab.load("shapes", n_train=2000, n_test=100)
        for seed in args.seeds:
            for name in [args.only] if args.only else RUNS:
                if args.again or str(seed) not in results.get(name, {}):
                    results.setdefault(name, {})[str(seed)] = run(name, seed, data, **RUNS[name])
                    print(seed, name, results[name][str(seed)], flush=True)
                    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
