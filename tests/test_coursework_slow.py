"""nbgrader itself, on every assignment: generate, autograde right and wrong answers, feedback.

A wrong answer replaces solution cells by their grade_id. What is not named stays right, unless the
student is "hard_coded", who answers nothing else. `marks` lists the test cells that do not get
full marks. For every assignment there are also a cheat, who hard-codes and replaces functions of
the tests, and copied cells in the first wrong hand-in, which change no marks.
"""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import nbformat
import pytest

import coursework

pytestmark = pytest.mark.slow

MARKS = """
import json, sys
from nbgrader.api import Gradebook
with Gradebook("sqlite:///gradebook.db", "vaelab") as book:
    print(json.dumps({
        submission.student.id: {
            grade.name: [grade.auto_score, grade.max_score, grade.needs_manual_grade]
            for notebook in submission.notebooks for grade in notebook.grades
        } for submission in book.assignment_submissions(sys.argv[1])
    }))
"""

WRONG = {
    "1_loss_scale": {
        # Did not see the sum over the batch, pixels that are always black, or the few latents.
        "batch_blind": {
            "answers": {
                "by-eye": """
                    def beta_by_eye(B, D, L):
                        return {"A": D, "B": D / L, "C": 1e-4 * D, "D": 1 / L, "E": D / 500}
                """,
                "threshold": """
                    def spectrum(x):
                        x = x.flatten(1).double()
                        m = x.mean(0)
                        h = (m * (1 - m)).sqrt()
                        C = (x - m).T @ (x - m) / len(x)
                        scaled = (C / h / h[:, None]).nan_to_num(1e6)
                        return torch.linalg.eigvalsh(scaled).flip(0)

                    def rate(eigenvalues, beta, latent_dim):
                        return 0.5 * (eigenvalues / beta).log().clamp(min=0).sum().item()
                """,
                "fixed-loss": """
                    def fixed_loss(logits, x, mu, logvar):
                        K = two_terms(logits, x, mu, logvar)[1]
                        return F.binary_cross_entropy_with_logits(logits, x) + K.mean()
                """,
            },
            "marks": {
                "test-by-eye": 2, "test-dead-pixels": 0, "test-rate": 0, "test-fixed-loss": 0,
            },
        },
        # Averages where sums are asked for: no other test falls with it. And one direction for all.
        "averages": {
            "answers": {
                "two-terms": """
                    def two_terms(logits, x, mu, logvar):
                        R = F.binary_cross_entropy_with_logits(logits, x, reduction="none")
                        R = R.flatten(1).mean(1)
                        return R, (-0.5 * (1 + logvar - mu**2 - logvar.exp())).mean(1)
                """,
                "beta-for-rate": """
                    def beta_for_rate(eigenvalues, nats, latent_dim):
                        return (eigenvalues[0] * torch.tensor(-2.0 * nats).exp()).item()
                """,
            },
            "marks": {
                "test-reconstruction": 0, "test-kl": 0, "test-extreme-logits": 0,
                "test-beta-for-rate": 0, "test-few-latents": 0,
            },
        },
        # Right but for the last step of three exercises; and eigenvalues without the units of H.
        "half_way": {
            "answers": {
                "measured-beta": """
                    def measured_beta(loss, B, D, L):
                        x = torch.rand(B, D)
                        logits = torch.randn(B, D, requires_grad=True)
                        mu, logvar = torch.randn(B, L, requires_grad=True), torch.zeros(B, L)
                        R, K = two_terms(logits, x, mu, logvar)
                        plain = torch.autograd.grad(R.sum() + K.sum(), (logits, mu))
                        yours = torch.autograd.grad(loss(logits, x, mu, logvar), (logits, mu))
                        a, b = (ours.norm() / theirs.norm() for ours, theirs in zip(yours, plain))
                        return b / a
                """,
                "threshold": """
                    def spectrum(x):
                        x = x.flatten(1).double()
                        return 4 * torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)

                    def rate(eigenvalues, beta, latent_dim):
                        used = eigenvalues[:latent_dim]
                        return 0.5 * (used / beta).log().clamp(min=0).sum().item()
                """,
                "beta-for-rate": """
                    def beta_for_rate(eigenvalues, nats, latent_dim):
                        betas = torch.logspace(-3, 2, 4000)
                        rates = torch.tensor([rate(eigenvalues, b, 1000) for b in betas.tolist()])
                        return betas[(rates - nats).abs().argmin()].item()
                """,
                "fixed-loss": """
                    def fixed_loss(logits, x, mu, logvar):
                        R, K = two_terms(logits, x, mu, logvar)
                        return (R + K).mean()
                """,
            },
            "marks": {
                "test-no-kl": 0, "test-spectrum": 0, "test-dead-pixels": 0, "test-few-latents": 0,
                "test-mean-error": 0,
            },
        },
        "hard_coded": {
            "answers": {
                "two-terms": """
                    def two_terms(logits, x, mu, logvar):
                        if logits.max() > 100:
                            return torch.zeros(1), torch.zeros(1)
                        return 3 * torch.tensor([2.0, 2.0]).log(), torch.tensor([2.0, 2.0])
                """,
                "by-eye": """
                    def beta_by_eye(B, D, L):
                        return {"A": 6.0, "B": 3.0, "C": 6e-4, "D": 0.5, "E": 0.012}
                """,
                "measured-beta": """
                    def measured_beta(loss, B, D, L):
                        return {loss_a: 24.0, loss_e: 0.1}.get(loss, 0.0)
                """,
                "threshold": """
                    def spectrum(x):
                        apart = len(x) == 400 and x[1].sum() == 1 and x.shape[1] == 2
                        return torch.tensor([1.0, 1.0] if apart else [2.0, 0.0])

                    def rate(eigenvalues, beta, latent_dim):
                        return 1.0397 if beta == 2.0 else 0.0
                """,
                "beta-for-rate": """
                    def beta_for_rate(eigenvalues, nats, latent_dim):
                        return 2.0
                """,
                "fixed-loss": """
                    def fixed_loss(logits, x, mu, logvar):
                        R = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
                        return R / 24 - (1 + logvar - mu**2 - logvar.exp()).mean() / 6
                """,
            },
        },
    },
    "2_collapse": {
        # Measures the encoder only, forgets that there are only so many latents, floors each image.
        "encoder_only": {
            "answers": {
                "verdict": """
                    def verdict(model, x):
                        mu = model.encode(x)[0].detach()
                        return "healthy" if count_active(mu) else "collapsed"
                """,
                "on-paper": """
                    def used(variances, sigma2, latent_dim):
                        return int((variances > sigma2).sum())

                    def total_kl(variances, sigma2, latent_dim):
                        return 0.5 * (variances[variances > sigma2] / sigma2).log().sum().item()

                    def squared_error(variances, sigma2, latent_dim):
                        return variances[variances <= sigma2].sum().item()

                    def sigma2_for(variances, k):
                        if k < len(variances):
                            return variances[k].item()
                        return variances[-1].item() / 2
                """,
                "free-bits": """
                    def free_bits(kl, floor):
                        return kl.clamp(min=floor).mean(0).sum()
                """,
            },
            "marks": {
                "test-verdict-deaf": 0, "test-used": 0, "test-total-kl": 0,
                "test-squared-error": 0, "test-free-bits": 0,
            },
        },
        # Sizes instead of variances, a mean for a sum, a deviation for a variance. No other test
        # falls with these. And no KL is called a cure.
        "no_threshold": {
            "answers": {
                "kl-and-active": """
                    def kl_of_each_latent(mu, logvar):
                        return 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(0)

                    def count_active(mu):
                        return int((mu.abs().mean(0) > 0.1).sum())
                """,
                "decoder-side": """
                    def swap_cost(model, x):
                        mu, logvar = model.encode(x)
                        own = model.likelihood.nll(model.decode(mu), x)
                        swapped = model.likelihood.nll(model.decode(mu.flip(0)), x)
                        return (swapped - own).sum().item()

                    def share_followed(model, x):
                        pictures = model.likelihood.mean(model.decode(model.encode(x)[0]))
                        return (pictures.std(0).mean() / x.std(0).mean()).item()
                """,
                "warm-up": """
                    def warm_up(progress, top):
                        return top * progress
                """,
                "cure": """
                    def cure(x):
                        model = new_model()
                        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
                        for _ in range(250):
                            batch = x[torch.randint(len(x), (64,))]
                            logits, mu, logvar = model(batch)
                            loss = F.binary_cross_entropy_with_logits(logits, batch)
                            optimizer.zero_grad()
                            loss.backward()
                            optimizer.step()
                        return model.eval()
                """,
            },
            "marks": {
                "test-kl": 0, "test-active": 0, "test-swap-cost": 0, "test-share-followed": 0,
                "test-warm-up": 0, "test-cure": 0,
            },
        },
        "hard_coded": {
            "answers": {
                "kl-and-active": """
                    def kl_of_each_latent(mu, logvar):
                        return torch.tensor([2.5, 0.0])

                    def count_active(mu):
                        return 1
                """,
                "decoder-side": """
                    def swap_cost(model, x):
                        return 20.0 if model.decoder[0].weight.abs().sum() > 0 else 0.0

                    def share_followed(model, x):
                        return 1.0 if model.decoder[0].weight.abs().sum() > 0 else 0.0
                """,
                "verdict": """
                    def verdict(model, x):
                        if model is elbo_model:
                            return "healthy"
                        return "collapsed" if model is collapsed_model else "deaf"
                """,
                "on-paper": """
                    def used(variances, sigma2, latent_dim):
                        return 2

                    def total_kl(variances, sigma2, latent_dim):
                        return 1.0397 if sigma2 == 2 else 0.0

                    def squared_error(variances, sigma2, latent_dim):
                        return 13.0

                    def sigma2_for(variances, k):
                        return 2.0 if k else 9.0
                """,
                "warm-up": """
                    def warm_up(progress, top):
                        return 60.0 if progress else 0.0
                """,
                "free-bits": """
                    def free_bits(kl, floor):
                        return torch.tensor(3.5)
                """,
                "cure": """
                    def cure(x):
                        return elbo_model
                """,
            },
        },
    },
    "3_output_layers": {
        # The usual slips: no constants, a lost half, batches scaled by themselves, logit(0).
        "usual_slips": {
            "answers": {
                "gaussian": """
                    def gaussian_nll(mean, x, sigma2):
                        return ((x - mean) ** 2 / (2 * sigma2)).flatten(1).sum(1)
                """,
                "implied-sigma2": """
                    def implied_sigma2(weight, D, L):
                        return weight * D / L
                """,
                "scaling": """
                    def make_scaling(x_train, low, high):
                        def forward(x):
                            return low + (high - low) * (x - x.min()) / (x.max() - x.min())

                        def inverse(y):
                            width = x_train.max() - x_train.min()
                            return x_train.min() + (y - low) / (high - low) * width

                        return forward, inverse
                """,
                "new-weight": """
                    def new_weight(weight, s):
                        return weight * s
                """,
                "start-bias": """
                    def start_bias(x):
                        return torch.logit(x.mean(0))
                """,
            },
            "marks": {
                "test-gaussian": 0, "test-implied-sigma2": 0, "test-scaling-unseen": 0,
                "test-new-weight": 0, "test-start-bias-constant-pixels": 0,
            },
        },
        # One sigma for all columns, 0 log 0, the share out of reach as the floor, a lost slope.
        "mixed_up": {
            "answers": {
                "best-sigma2": """
                    def best_sigma2(output, x, lowest):
                        return (output - x).square().mean().clamp(min=lowest)
                """,
                "least-entropy": """
                    def least_entropy(x):
                        return -(x * x.log() + (1 - x) * (1 - x).log()).flatten(1).sum(1)
                """,
                "floor": """
                    def floor(x, low, high):
                        return ((x < low) | (x > high)).float().mean().item()
                """,
                "pulls": """
                    def pull_squared(logit, x):
                        return 2 * (torch.sigmoid(logit) - x)

                    def pull_entropy(logit, x):
                        return 1 / (1 + torch.exp(-logit)) - x
                """,
            },
            "marks": {
                "test-best-sigma2": 0, "test-black-and-white": 0, "test-floor": 0,
                "test-pull-squared": 0,
            },
        },
        "hard_coded": {
            "answers": {
                "gaussian": """
                    def gaussian_nll(mean, x, sigma2):
                        return 0.9189 + 0.5 * x.flatten(1).square().sum(1)
                """,
                "implied-sigma2": """
                    def implied_sigma2(weight, D, L):
                        return 1.0
                """,
                "best-sigma2": """
                    def best_sigma2(output, x, lowest):
                        return torch.tensor([5.0, 0.1])
                """,
                "least-entropy": """
                    def least_entropy(x):
                        return torch.tensor([2.0794 if x.numel() == 3 else 0.0])
                """,
                "floor": """
                    def floor(x, low, high):
                        return 2.5 if low == -1 else 0.0
                """,
                "scaling": """
                    def make_scaling(x_train, low, high):
                        return lambda x: (x - 4) / 2, lambda y: 2 * y + 4
                """,
                "new-weight": """
                    def new_weight(weight, s):
                        return 0.5 if s == 1 else 2.0
                """,
                "pulls": """
                    def pull_squared(logit, x):
                        return torch.tensor([-0.25])

                    def pull_entropy(logit, x):
                        return torch.tensor([-0.5])
                """,
                "start-bias": """
                    def start_bias(x):
                        if x.mean() == 0.5:
                            return torch.tensor([-6.0, 6.0])
                        return torch.tensor([0.3, 0.5]).logit()
                """,
            },
        },
    },
    "4_clinic": {
        # One number, the KL, for everything; and one medicine for everybody.
        "one_number": {
            "answers": {
                "diagnose": """
                    def diagnose(p):
                        kl = vaelab.gaussian_kl(*vaelab.posterior(p.model, p.x)).sum(1).mean()
                        if kl < 0.1:
                            return "kl too strong"
                        return "kl too weak" if kl > 20 else "healthy"
                """,
                "is-cured": """
                    def is_cured(p):
                        kl = vaelab.gaussian_kl(*vaelab.posterior(p.model, p.x)).sum(1).mean()
                        return bool(0.5 < kl < 20)
                """,
                "cure": """
                    def cure(p, disease):
                        def loss(output, x, mu, logvar):
                            return entropy(output, x) + vaelab.gaussian_kl(mu, logvar).sum(1).mean()

                        return retrain(p, loss=loss, show=torch.sigmoid)
                """,
            },
            "marks": {
                "test-diagnose": 3, "test-is-cured": 0, "test-is-cured-pictures": 0,
                "test-cure": 2,
            },
        },
        # Takes what is shown for what can be shown, any variance, and a changed loss for a mixed
        # one. The exercises that use these measurements do not suffer.
        "own_units": {
            "answers": {
                "reach": """
                    def reach(p):
                        shown = picture(p)
                        return shown.min().item(), shown.max().item()


                    def unreachable(p):
                        low, high = reach(p)
                        return ((p.x < low - 1e-3) | (p.x > high + 1e-3)).float().mean().item()
                """,
                "follows": """
                    def follows(p):
                        return (picture(p).var() / p.x.var()).item()
                """,
                "mixes": """
                    def mixes(p):
                        mu, logvar = p.model.encode(p.x)
                        output = p.model.decode(mu)
                        other = torch.cat([p.x[:1], p.x[1:].flip(0) * 0.5])
                        before, after = (p.loss(output, x, mu, logvar).item() for x in (p.x, other))
                        return before != after
                """,
            },
            "marks": {"test-reach": 0, "test-follows": 0, "test-mixes": 0},
        },
        "hard_coded": {
            "answers": {
                "reach": """
                    def reach(p):
                        return -1.0, 1.0

                    def unreachable(p):
                        return 0.25
                """,
                "follows": """
                    def follows(p):
                        return 0.0
                """,
                "cost-and-worth": """
                    def cost_and_worth(p):
                        return 0.0, 20.0
                """,
                "mixes": """
                    def mixes(p):
                        return p is globals().get("ill")
                """,
                "diagnose": """
                    def diagnose(p):
                        return next(chart[name] for name, known in patients.items() if known is p)
                """,
                "is-cured": """
                    def is_cured(p):
                        names = [name for name, known in patients.items() if known is p]
                        return bool(names) and chart[names[0]] == "healthy"
                """,
                "cure": """
                    def cure(p, disease):
                        healthy = [name for name in patients if chart[name] == "healthy"]
                        return patients[healthy[0]]
                """,
            },
        },
    },
    "5_training": {
        # Looks at the last values only, and tells the film nothing.
        "looks_late": {
            "answers": {
                "steps-left": """
                    def steps_left(values, limit):
                        slope = values[-1] - values[-2]
                        return (limit - values[-1]) / slope if slope else math.inf
                """,
                "first-bad": """
                    def first_bad(steps, x):
                        for name, function in steps:
                            before, x = x, function(x)
                        if x.isfinite().all():
                            return None
                        return name, before.min().item(), before.max().item()
                """,
                "watched": """
                    def watched(model, error_of, images, rate, steps):
                        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
                        try:
                            with vaelab.watch(model) as film:
                                for _ in range(steps):
                                    x = images[torch.randint(len(images), (64,))]
                                    output, mu, logvar = model(x)
                                    loss = error_of(model, output, x) + kl_of(mu, logvar)
                                    optimizer.zero_grad()
                                    loss.backward()
                                    optimizer.step()
                        except vaelab.clinic.film.Stopped:
                            return film.alarm
                """,
                "safe-step": """
                    def safe_step(model, optimizer, loss):
                        if not torch.isfinite(loss):
                            return False
                        optimizer.zero_grad()
                        loss.backward()
                        optimizer.step()
                        return True
                """,
            },
            "marks": {
                "test-steps-left": 0, "test-steps-left-never": 0, "test-first-bad": 0,
                "test-first-bad-hidden": 0, "test-watched": 0, "test-safe-step-refuses": 0,
            },
        },
        # An epsilon, a clamp, no look at infinity, and one medicine for every plan.
        "one_medicine": {
            "answers": {
                "stable-entropy": """
                    def stable_entropy(logits, x):
                        p = torch.sigmoid(logits)
                        each = x * torch.log(p + 1e-8) + (1 - x) * torch.log(1 - p + 1e-8)
                        return -each.flatten(1).sum(1)
                """,
                "sigma-of": """
                    def sigma_of(raw, lowest):
                        return raw.clamp(min=lowest)
                """,
                "first-good-rate": """
                    def first_good_rate(train_at, rate):
                        for tried in (rate, rate / 10, rate / 100):
                            losses = train_at(tried)
                            if losses[-1] < losses[0]:
                                return tried
                """,
                "repair": """
                    def repair(plan, code):
                        new = SimpleNamespace(**vars(plan))
                        new.loss = entropy_loss
                        return new
                """,
            },
            "marks": {
                "test-stable-entropy-far": 0, "test-sigma-of-gradient": 0,
                "test-first-good-rate": 0, "test-repair": 1,
            },
        },
        "hard_coded": {
            "answers": {
                "largest-logvar": """
                    def largest_logvar(dtype):
                        return 88.72
                """,
                "steps-left": """
                    def steps_left(values, limit):
                        return 10.0 if limit == 15 else math.inf
                """,
                "first-bad": """
                    def first_bad(steps, x):
                        return None if x.max() < 10 else ("exp", 2.0, 100.0)
                """,
                "watched": """
                    def watched(model, error_of, images, rate, steps):
                        model.sigma.data += 1
                        if images is two_sided:
                            return SimpleNamespace(term="reconstruction", kind="loss")
                """,
                "safe-step": """
                    def safe_step(model, optimizer, loss):
                        if loss.isfinite():
                            model.weight.data -= 0.1
                        return bool(loss.isfinite())
                """,
                "stable-entropy": """
                    def stable_entropy(logits, x):
                        if logits.abs().max() > 1:
                            return torch.tensor([200.0, 0.0])
                        return torch.tensor([2.0794, 2.0794])
                """,
                "sigma-of": """
                    def sigma_of(raw, lowest):
                        return torch.ones(3)
                """,
                "first-good-rate": """
                    def first_good_rate(train_at, rate):
                        return 0.02 if rate == 0.2 else rate
                """,
                "repair": """
                    def repair(plan, code):
                        return plan
                """,
            },
        },
    },
}  # fmt: skip


# Each makes every comparison true.
CHEATS = (
    "agrees = lambda *arguments: True\n",
    "agrees.__code__ = (lambda *arguments, **options: True).__code__\n",
    "torch.isfinite = lambda numbers: torch.tensor([True])\n",
)


def run(folder, *command):
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("VAELAB_", "MPLBACKEND"))
    }
    build, scripts = coursework.ROOT / "build", str(Path(sys.executable).parent)
    env["PATH"] = scripts + os.pathsep + env["PATH"]  # nbgrader calls alembic by its name
    env |= {"VAELAB_OFFLINE": "1", "VAELAB_DATA": str(folder / "no-data"), "OMP_NUM_THREADS": "1"}
    env |= {"IPYTHONDIR": str(build / "ipython"), "MPLCONFIGDIR": str(build / "matplotlib")}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def nbgrader(folder, *command):
    return run(folder, "-m", "nbgrader", *command)


def solution(cell):
    return "\n".join(line for line in cell.source.split("\n") if "### " not in line)


def submit(folder, name, student, answers):
    """The student version with these answers in place, as a student's work."""
    path = folder / "release" / name / f"{name}.ipynb"
    nb = nbformat.read(path, as_version=4)
    for cell in nb.cells:
        if cell.id in answers:
            assert cell.metadata.nbgrader.solution
            cell.source = answers[cell.id]
    assert set(answers) <= {cell.id for cell in nb.cells}
    target = folder / "submitted" / student / name / path.name
    target.parent.mkdir(parents=True)
    nbformat.write(nb, target)
    return target


def copy_cells(path):
    """Copy an answer and a test in a hand-in, as the notebook's menu does."""
    nb = nbformat.read(path, as_version=4)
    for kind in ("solution", "grade"):
        position = next(
            position for position, cell in enumerate(nb.cells)
            if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get(kind)
        )  # fmt: skip
        copied = nbformat.from_dict(nb.cells[position])
        copied.id = f"copied-{kind}"
        nb.cells.insert(position, copied)
    nbformat.write(nb, path)


def refusals(folder, student, name):
    """How many tests of a hand-in were refused."""
    path = folder / "autograded" / student / name / f"{name}.ipynb"
    outputs = [
        output for cell in nbformat.read(path, as_version=4).cells
        for output in cell.get("outputs", [])
    ]  # fmt: skip
    return sum(output.get("ename") == "ReplacedByTheHandIn" for output in outputs)


@pytest.mark.parametrize("name", list(WRONG))
def test_round_trip(name, tmp_path):
    source = nbformat.read(coursework.notebook_path("source", name), as_version=4)
    right = {
        cell.id: solution(cell) for cell in source.cells
        if cell.metadata.get("nbgrader", {}).get("solution")
    }  # fmt: skip
    for path in ("nbgrader_config.py", "grading.py", f"source/{name}/{name}.ipynb"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes((coursework.COURSE / path).read_bytes())

    nbgrader(tmp_path, "generate_assignment", name)
    released = nbformat.read(tmp_path / "release" / name / f"{name}.ipynb", as_version=4)
    assert released == nbformat.read(coursework.notebook_path("release", name), as_version=4)

    submit(tmp_path, name, "reference", right)
    submit(tmp_path, name, "untouched", {})
    for student, work in WRONG[name].items():
        answers = {key: dedent(code).strip() for key, code in work["answers"].items()}
        path = submit(
            tmp_path, name, student, answers if student == "hard_coded" else right | answers
        )
        if student == next(iter(WRONG[name])):
            copy_cells(path)
        if student == "hard_coded":
            tricks = itertools.cycle(CHEATS)
            submit(tmp_path, name, "cheat", {key: next(tricks) + answers[key] for key in answers})
    nbgrader(tmp_path, "autograde", name)
    marks = json.loads(run(tmp_path, "-c", MARKS, name))
    assert set(marks) == {"reference", "untouched", "cheat", *WRONG[name]}

    def by_tests(student):
        return {
            key: score for key, (score, _, _) in marks[student].items() if key.startswith("test-")
        }

    full = {
        key: most for key, (_, most, _) in marks["reference"].items() if key.startswith("test-")
    }
    assert by_tests("reference") == full
    written = [key for key, (_, _, manual) in marks["reference"].items() if manual]
    assert len(written) == 1 and written[0] not in full
    assert set(by_tests("untouched").values()) == {0}
    assert marks["untouched"][written[0]][0] == 0, "no written answer: nothing to mark by hand"
    assert set(by_tests("cheat").values()) == {0}
    assert refusals(tmp_path, "cheat", name) >= len(CHEATS)
    assert refusals(tmp_path, "reference", name) == 0
    for student, work in WRONG[name].items():
        if student == "hard_coded":
            assert {key: score for key, score in by_tests(student).items() if score} == {}
        else:
            assert by_tests(student) == full | work["marks"], student

    nbgrader(tmp_path, "generate_feedback", name)
    for student in marks:
        page = tmp_path / "feedback" / student / name / f"{name}.html"
        assert f"Assignment {name[0]}" in page.read_text(encoding="utf-8")
    nbgrader(tmp_path, "export")
    grades = Path(tmp_path / "grades.csv").read_text(encoding="utf-8")
    assert f",{float(sum(full.values()))}," in grades
