"""`make bench`: what vaelab costs beside plain PyTorch, on real MNIST. Nothing else should run.

Times are compared within a round, one right after the other, because a machine's speed drifts.
"""

import json
import os
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

import vaelab
from vaelab import threads

BATCH = 128
EVALUATE_EVERY = 25  # steps; evaluation is never counted in the times
ROUNDS = 5
SEEDS = 3
WATCHED_STEPS = 200
SHORT_CYCLE = {"max_steps": 1100, "lr": 1e-2}  # of `fit`, on its way to TARGET
TARGET = 107.0  # nats on the test images


class Pictures(Dataset):
    """8-bit pictures turned into tensors one by one, as torchvision's MNIST does."""

    def __init__(self, x):
        self.bytes = (x.cpu() * 255).round().to(torch.uint8)
        self.transform = transforms.ToTensor()

    def __len__(self):
        return len(self.bytes)

    def __getitem__(self, i):
        return self.transform(to_pil_image(self.bytes[i]))


def new_model(seed=0):
    torch.manual_seed(seed)
    return vaelab.mlp_vae((1, 28, 28), latent_dim=20).to(vaelab.settings.device())


def negative_elbo(model, x):
    """The loss of both plain loops, in nats per image."""
    logits, mu, logvar = model(x)
    reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum()
    return (reconstruction + kl) / len(x)


def plain_seconds(model, batches, after_step=None, optimizer=None):
    """Seconds of forward, backward and torch's default Adam; `after_step` is not counted."""
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=1e-3)
    device = vaelab.settings.device()
    seconds, started = 0.0, time.perf_counter()
    for x in batches:
        loss = negative_elbo(model, x.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if after_step is not None:
            seconds += time.perf_counter() - started
            after_step(seconds)
            started = time.perf_counter()
    return seconds + time.perf_counter() - started


def epoch_ratios(data):
    """Median ratios of an epoch of fit to bare steps on one batch, and to the DataLoader loop."""
    x = data.x_train
    one_batch = [x[:BATCH]] * (len(x) // BATCH)
    rows = []
    for _ in range(ROUNDS):
        bare = plain_seconds(new_model(), one_batch)
        fit = vaelab.fit(new_model(), x, epochs=1, progress=False).seconds
        loader = plain_seconds(new_model(), DataLoader(Pictures(x), BATCH, shuffle=True))
        rows.append((fit / bare, fit / loader))
        print(f"an epoch: bare {bare:.2f} s, fit {fit:.2f} s, DataLoader loop {loader:.2f} s")
    return [statistics.median(column) for column in zip(*rows, strict=True)]


class TargetReached(Exception):
    """Raised after the step at which the test images' negative ELBO is at the target."""


def stop_at_target(model, data, steps):
    if steps % EVALUATE_EVERY == 0:
        if vaelab.evaluate(model, data.x_test)["negative_elbo"] <= TARGET:
            raise TargetReached


def fit_to_target(data, seed):
    """Seconds of `fit` until the target, evaluations not counted, or infinity."""
    model, watch = new_model(seed), {"seconds": 0.0, "started": time.perf_counter()}

    def on_step(steps, model):
        watch["seconds"] += time.perf_counter() - watch["started"]
        stop_at_target(model, data, steps)
        watch["started"] = time.perf_counter()

    try:
        vaelab.fit(
            model,
            data.x_train,
            seed=seed,
            on_step=on_step,
            progress=False,
            evaluate_on=1,
            **SHORT_CYCLE,
        )
    except TargetReached:
        return watch["seconds"]
    return float("inf")


def plain_to_target(data, seed, most_epochs=12):
    """Seconds of the usual recipe (DataLoader, Adam 1e-3, batch 128) until the target."""
    model = new_model(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = DataLoader(Pictures(data.x_train), BATCH, shuffle=True)
    before, steps, spent = 0.0, 0, 0.0

    def after_step(seconds):
        nonlocal steps, spent
        steps, spent = steps + 1, seconds
        stop_at_target(model, data, steps)

    for _ in range(most_epochs):
        try:
            before += plain_seconds(model, loader, after_step, optimizer)
        except TargetReached:
            return before + spent
    return float("inf")


def target_ratio(data):
    """Ratio of the median seconds to the target over seeds."""
    rows = []
    for seed in range(SEEDS):
        rows.append((fit_to_target(data, seed), plain_to_target(data, seed)))
        print(
            f"to {TARGET:.0f} nats, seed {seed}: fit {rows[-1][0]:.1f} s, usual {rows[-1][1]:.1f} s"
        )
    fit, usual = (statistics.median(column) for column in zip(*rows, strict=True))
    return fit / usual


def import_ratio():
    """Median ratio of `import vaelab` to `import torch`, each in a fresh process."""
    ratios = []
    for number in range(ROUNDS + 1):
        seconds = []
        for name in ("vaelab", "torch"):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {name}"], check=True)
            seconds.append(time.perf_counter() - started)
        if number > 0:  # the first round warms the disk's cache
            ratios.append(seconds[0] / seconds[1])
    print(f"import vaelab / import torch: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
    return statistics.median(ratios)


def copy():
    """One training as a notebook does it; prints its seconds, threads and peak memory as JSON."""
    data = vaelab.load("mnist").to(vaelab.settings.device())
    choice = threads.choose()
    started = time.perf_counter()
    vaelab.fit(new_model(), data.x_train, data.x_test, epochs=2, progress=False)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "threads": choice.number, "memory": peak_memory_mb()}))


def run_copies(number, **environment):
    """What each of `number` copies prints, all of them started at once."""
    inherited = {name: v for name, v in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, __file__, "--copy"]
    started = [
        subprocess.Popen(command, env=inherited | environment, stdout=subprocess.PIPE, text=True)
        for _ in range(number)
    ]
    outputs = [process.communicate()[0] for process in started]
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def two_copies():
    """The slower of two copies at once against one thread alone (median), and peak memory in MB."""
    ratios, memory = [], 0
    for _ in range(3):
        (alone,) = run_copies(1, OMP_NUM_THREADS="1")
        both = run_copies(2)
        memory = max(memory, *(one["memory"] for one in both))
        ratios.append(max(one["seconds"] for one in both) / alone["seconds"])
        said = ", ".join(f"{one['seconds']:.1f} s ({one['threads']} threads)" for one in both)
        print(f"one thread alone {alone['seconds']:.1f} s, two copies at once {said}")
    return statistics.median(ratios), memory


def peak_memory_mb():
    """The most memory that this process has used; 0 on Windows, which does not say."""
    try:
        import resource
    except ImportError:
        return 0
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if sys.platform == "darwin" else 2**10)


def watched_ratio(data):
    """Median ratio of a training step under `vaelab.watch` to one without it."""
    one_batch = [data.x_train[:BATCH]] * WATCHED_STEPS
    ratios = []
    for _ in range(ROUNDS):
        bare = plain_seconds(new_model(), one_batch)
        model = new_model()
        with vaelab.watch(model):
            watched = plain_seconds(model, one_batch)
        ratios.append(watched / bare)
    print(f"a watched step / a bare one: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
    return statistics.median(ratios)


def rehearsal_seconds(data):
    """Median seconds of `vaelab.rehearse` on the network of notebook 00."""
    x, seconds = data.x_train[:1000], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        vaelab.rehearse(new_model(), x)
        seconds.append(time.perf_counter() - started)
    print(f"rehearse: {', '.join(f'{one:.1f} s' for one in seconds)}")
    return statistics.median(seconds)


def main():
    data = vaelab.load("mnist").to(vaelab.settings.device())
    print(data)
    if not data.real:
        sys.exit("make bench needs the real MNIST: set VAELAB_DATA to the folder that holds it")
    print(f"{threads.choose()}, {vaelab.settings.device()}, torch {torch.__version__}\n")
    to_bare, to_loader = epoch_ratios(data)
    to_target = target_ratio(data)
    watched = watched_ratio(data)
    rehearsal = rehearsal_seconds(data)
    imports = import_ratio()
    copies, memory = two_copies()
    print(f"\npeak memory of a training: {memory:,.0f} MB\n")
    rows = [
        ("an epoch of fit / bare steps, torch's default Adam", to_bare, 0.95),
        ("an epoch of fit / the DataLoader loop", to_loader, 0.45),
        (f"time to {TARGET:.0f} nats: fit / usual recipe", to_target, 1 / 6),
        ("a step under vaelab.watch / without", watched, 1.1),
        ("rehearse, seconds", rehearsal, 10),
        ("import vaelab / import torch", imports, 1.3),
        ("the slower of two copies at once / one thread alone", copies, 1.2),
    ]
    for what, ratio, target in rows:
        verdict = "ok" if ratio <= target else "MISSED"
        print(f"{what:52} {ratio:5.2f}   at most {target:.2f}   {verdict}")


if __name__ == "__main__":
    copy() if "--copy" in sys.argv else main()
