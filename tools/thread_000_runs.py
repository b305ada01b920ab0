"""Thread 000's runs over several seeds: `python tools/thread_000_runs.py [--seeds 0-4]`.

Measurements go to tools/thread_000_runs.json, and runs that are in there already are kept. A seed
takes about 2 minutes of one CPU core. The table that notebook 04 shows is printed at the end.
"""

import argparse
import itertools
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
BATCH, RATE, WARM_UP = 8, 1e-3, 100
COLUMNS = {
    "squared error": ".0f",
    "output variance": ".4f",
    "active units": "d",
    "object": ".2f",
    "background": ".2f",
}


def optimizer(kind, **options):
    """A function from parameters to an optimizer."""
    return lambda parameters: kind(parameters, **options)


def clipped(parameters):
    """Adam behind a gradient clipped to norm 1."""
    parameters = list(parameters)
    adam = torch.optim.Adam(parameters, lr=RATE)
    adam.register_step_pre_hook(lambda *_: nn.utils.clip_grad_norm_(parameters, 1.0))
    return adam


def warming_up(parameters):
    """Adam whose rate grows over the first 100 steps."""
    adam, steps = torch.optim.Adam(parameters, lr=RATE), itertools.count(1)

    def set_rate(*_):
        adam.param_groups[0]["lr"] = RATE * min(1.0, next(steps) / WARM_UP)

    adam.register_step_pre_hook(set_rate)
    return adam


ADAM, SGD, RMSPROP = torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop
# What each run changes about the thread's own: a sigmoid, the summed squared error, 100 times the
# averaged KL, Adam at a rate of 1e-3, 300 steps.
RUNS = {
    "no sigmoid": {"likelihood": vaelab.Gaussian(0.5)},
    "sigmoid, as in the thread": {},
    "BatchNorm before the sigmoid": {"batchnorm": True},
    "KL coefficient 1": {"coefficient": 1, "steps": 100},
    "KL coefficient 256": {"coefficient": 256, "steps": 100},
    "KL summed over the latents": {"kl": "sum", "steps": 100},
    "32 latents": {"latent_dim": 32, "steps": 100},
    "Adam without momentum": {"by": optimizer(ADAM, lr=RATE, betas=(0.0, 0.999)), "steps": 100},
    "RMSprop": {"by": optimizer(RMSPROP, lr=RATE), "steps": 100},
    "SGD, rate 1e-3": {"by": optimizer(SGD, lr=1e-3), "steps": 100},
    "SGD, rate 1e-4": {"by": optimizer(SGD, lr=1e-4), "steps": 100},
    "SGD, rate 1e-4, momentum 0.9": {"by": optimizer(SGD, lr=1e-4, momentum=0.9), "steps": 100},
    "mean instead of sum": {"loss": "mean squared error", "steps": 100},
    "gradient clipped to norm 1": {"by": clipped, "steps": 100},
    "warm-up over 100 steps": {"by": warming_up, "steps": 200},
    "a 10 times smaller rate": {"by": optimizer(ADAM, lr=RATE / 10)},
    "last bias at logit(mean pixel)": {"start_at_mean": True},
    "cross-entropy on logits": {"loss": "logits"},
    "cross-entropy on probabilities": {"loss": "probabilities"},
    "cross-entropy on logits, bias at logit(mean)": {"loss": "logits", "start_at_mean": True},
    "continuous Bernoulli": {"loss": "continuous"},
}
SIGMOID = vaelab.Gaussian(0.5, "sigmoid")
LIKELIHOODS = {"continuous": vaelab.ContinuousBernoulli()}
LIKELIHOODS |= {"logits": vaelab.Bernoulli(), "probabilities": vaelab.Bernoulli()}


def reconstruction(kind, likelihood, output, x):
    """The thread's reconstruction term, or another one, summed over the batch."""
    if kind == "logits":
        return F.binary_cross_entropy_with_logits(output, x, reduction="sum")
    if kind == "probabilities":
        return F.binary_cross_entropy(torch.sigmoid(output), x, reduction="sum")
    if kind == "continuous":
        return likelihood.nll(output, x).sum()
    reduction = "mean" if kind == "mean squared error" else "sum"
    return F.mse_loss(likelihood.mean(output), x, reduction=reduction)


def run(
    name,
    seed,
    data,
    likelihood=None,
    batchnorm=False,
    latent_dim=8,
    loss="squared error",
    coefficient=100,
    kl="mean",
    by=None,
    start_at_mean=False,
    steps=300,
):
    """One run, and what `measure` says about it on held-out images."""
    likelihood = likelihood or LIKELIHOODS.get(loss, SIGMOID)
    torch.manual_seed(seed)
    model = vaelab.thread_000_vae(likelihood, batchnorm, latent_dim)
    if start_at_mean:
        with torch.no_grad():
            model.decoder[-1].bias.copy_(torch.logit(data.x_train.mean((0, 2, 3))))

    def total(output, x, mu, logvar):
        divergence = vaelab.gaussian_kl(mu, logvar)  # [B, L]
        rate = divergence.mean() if kl == "mean" else divergence.sum(1).mean()
        return reconstruction(loss, likelihood, output, x) + coefficient * rate

    vaelab.fit(
        model,
        data.x_train,
        max_steps=steps,
        batch_size=BATCH,
        seed=seed,
        optimizer=by or optimizer(ADAM, lr=RATE),
        evaluate_on=16,
        loss=total,
        progress=False,
    )
    return measure(model, data.x_test)


def measure(model, x):
    """What the table says about a trained model. x: [N, 3, 64, 64]."""
    inside = (x.amax(1, keepdim=True) > 0).expand_as(x)
    picture, everywhere = model.reconstruct(x), vaelab.saturation(model, x)
    return {
        "squared error": (picture - x).square().flatten(1).sum(1).mean().item(),
        "output variance": vaelab.output_variance(model, x),
        "active units": vaelab.active_units(model, x),
        "object": picture[inside].mean().item(),
        "background": picture[~inside].mean().item(),
        "mean logit": everywhere.preactivation,
        "saturated": everywhere.saturated,
    }


def table(results):
    """The measurements as a Markdown table, lowest to highest over the seeds."""
    lines = [f"| run | {' | '.join(COLUMNS)} |", "| --- |" + " ---: |" * len(COLUMNS)]
    for name in RUNS:
        rows = list(results[name].values())
        cells = [span([row[column] for row in rows], form) for column, form in COLUMNS.items()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def span(values, form):
    """ "lowest to highest", or one number where both look the same."""
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"


def main():
    """Do the runs that are missing, seed by seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=seed_range, default=seed_range("0-4"))
    seeds = parser.parse_args().seeds
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    torch.set_num_threads(1)
    data = vaelab.load("shapes", n_train=2000, n_test=100)
    for seed, name in itertools.product(seeds, RUNS):
        done = results.setdefault(name, {})
        if str(seed) not in done:
            done[str(seed)] = run(name, seed, data, **RUNS[name])
            print(seed, name, done[str(seed)], flush=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
