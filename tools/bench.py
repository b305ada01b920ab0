"""`make bench`: what `vaelab.fit` costs beside the usual training loop, on the same images in one run."""

import statistics
import sys
import time

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

import vaelab

BATCH = 128
EVALUATE_EVERY = 100  # steps; evaluation is never counted in the times
ROUNDS = 5  # repeats of each epoch time; medians count, and medians of the ratios within a round
SEEDS = 3  # runs to the target; the median counts


class Pictures(Dataset):
    """8-bit pictures turned into tensors one by one, as torchvision's MNIST does."""

    def __init__(self, x):
        self.bytes, self.transform = (x.cpu() * 255).round().to(torch.uint8), transforms.ToTensor()

    def __len__(self):
        return len(self.bytes)

    def __getitem__(self, i):
        return self.transform(to_pil_image(self.bytes[i]))


def new_model(data, seed=0):
    torch.manual_seed(seed)
    return vaelab.mlp_vae(data.x_train.shape[1:], latent_dim=20).to(data.x_train.device)


def usual_epoch(model, optimizer, batches, after_step=lambda: None):
    """Forward, backward and Adam on each batch; returns the seconds, those of `after_step` not counted."""
    device, seconds, started = next(model.parameters()).device, 0.0, time.perf_counter()
    for x in batches:
        terms = vaelab.elbo_terms(model, x.to(device))
        loss = terms.reconstruction.mean() + terms.kl.sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds += time.perf_counter() - started
        after_step()
        started = time.perf_counter()
    return seconds + time.perf_counter() - started


def adam(model):
    return torch.optim.Adam(model.parameters(), lr=1e-3)


def epoch_seconds(data, n):
    """Rounds of seconds for one epoch over n images: (fit, the DataLoader loop, bare steps on one batch)."""
    x, fixed = data.x_train[:n], [data.x_train[:BATCH]] * -(-n // BATCH)
    rows = []
    for _ in range(ROUNDS):  # side by side: a machine whose speed drifts slows all three
        model = new_model(data)
        bare = usual_epoch(model, adam(model), fixed)
        model = new_model(data)
        loader = usual_epoch(model, adam(model), DataLoader(Pictures(x), BATCH, shuffle=True))
        rows.append((vaelab.fit(new_model(data), x, epochs=1, progress=False).seconds, loader, bare))
    return rows


class TargetReached(Exception):
    pass


class Clock:
    """Stops a run when the test images' negative ELBO is at the target; evaluations are not counted."""

    def __init__(self, model, data, target):
        self.model, self.data, self.target = model, data, target
        self.steps, self.evaluating, self.started = 0, 0.0, time.perf_counter()

    def __call__(self, *_):
        self.steps += 1
        if self.steps % EVALUATE_EVERY:
            return
        began = time.perf_counter()
        reached = vaelab.evaluate(self.model, self.data.x_test)["negative_elbo"] <= self.target
        self.evaluating += time.perf_counter() - began
        if reached:
            raise TargetReached

    @property
    def seconds(self):
        return time.perf_counter() - self.started - self.evaluating


def fit_to_target(data, target, seed):
    """Seconds of `fit` with its defaults until the target, or None."""
    model = new_model(data, seed)
    clock = Clock(model, data, target)
    epochs = max(4, 90_000 // len(data.x_train))
    try:
        vaelab.fit(model, data.x_train, epochs=epochs, seed=seed, on_step=clock, progress=False)
    except TargetReached:
        return clock.seconds
    return None


def usual_to_target(data, target, seed, most_epochs=15):
    """Seconds of the usual recipe (DataLoader, Adam 1e-3, batch 128) until the target, or None."""
    model = new_model(data, seed)
    optimizer, loader = adam(model), DataLoader(Pictures(data.x_train), BATCH, shuffle=True)
    clock = Clock(model, data, target)
    rounds = most_epochs * max(1, 60_000 // len(data.x_train))
    try:
        for _ in range(rounds):
            usual_epoch(model, optimizer, loader, clock)
    except TargetReached:
        return clock.seconds
    return None


def peak_memory_mb():
    """The most memory this process has used, or None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if sys.platform == "darwin" else 2**10)


def verdict(ratio, limit):
    return f"{ratio:.2f} (target: at most {limit}) {'ok' if ratio <= limit else 'MISSED'}"


def main():
    data = vaelab.load("mnist").to(vaelab.settings.device())
    print(data)
    print(f"{torch.get_num_threads()} threads, {vaelab.settings.device()}, torch {torch.__version__}\n")

    print("seconds an epoch     fit   DataLoader loop   bare steps   fit/bare   fit/loader")
    for n in [n for n in (10_000, 20_000, 60_000) if n < len(data.x_train)] + [len(data.x_train)]:
        rounds = epoch_seconds(data, n)
        fit, loader, bare = (statistics.median(column) for column in zip(*rounds, strict=True))
        to_bare = statistics.median(row[0] / row[2] for row in rounds)
        to_loader = statistics.median(row[0] / row[1] for row in rounds)
        print(f"{n:9,} images {fit:8.2f} {loader:17.2f} {bare:12.2f} {to_bare:10.2f} {to_loader:12.2f}")
    print(f"fit against bare steps: {verdict(to_bare, 1.1)}")
    print(f"fit against the DataLoader loop: {verdict(to_loader, 0.55)}\n")

    marks = vaelab.landmarks(data.x_train, data.x_test)
    target = 107.0 if data.real else marks.mean_image - 0.6 * (marks.mean_image - marks.floor)
    mine = [fit_to_target(data, target, seed) for seed in range(SEEDS)]
    usual = [usual_to_target(data, target, seed) for seed in range(SEEDS)]
    print(f"seconds to a test negative ELBO of {target:.0f} nats, seeds 0 to {SEEDS - 1}")
    for name, times in {"fit": mine, "usual recipe": usual}.items():
        print(f"  {name:13}", "  ".join("not reached" if t is None else f"{t:.1f}" for t in times))
    if None not in mine + usual:
        ratio = statistics.median(mine) / statistics.median(usual)
        print(f"median against median: {verdict(ratio, 0.25)}")
    memory = peak_memory_mb()
    print(f"\npeak memory: {'not known on this system' if memory is None else f'{memory:,.0f} MB'}")


if __name__ == "__main__":
    main()
