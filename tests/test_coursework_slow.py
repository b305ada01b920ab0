"""nbgrader itself, on every assignment: generate, autograde right and wrong answers, feedback.

A wrong answer replaces solution cells by their grade_id. What is not named stays right, unless the
student is "hard_coded", who answers nothing else. `marks` lists the test cells that do not get
full marks.
"""

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
        # Did not see the sum over the batch, nor the pixels that are always black.
        "batch_blind": {
            "answers": {
                "by-eye": """
                    def beta_by_eye(B, D, L):
                        return {"A": D, "B": D / L, "C": 1e-4 * D, "D": 1 / L, "E": D / 500}
                """,
                "cliff": """
                    def threshold(x):
                        x = x.flatten(1).double()
                        m = x.mean(0)
                        h = (m * (1 - m)).sqrt()
                        C = (x - m).T @ (x - m) / len(x)
                        scaled = (C / h / h[:, None]).nan_to_num(1e6)
                        return torch.linalg.eigvalsh(scaled).max().item()
                """,
                "fixed-loss": """
                    def fixed_loss(logits, x, mu, logvar):
                        K = two_terms(logits, x, mu, logvar)[1]
                        return F.binary_cross_entropy_with_logits(logits, x) + K.mean()
                """,
            },
            # The digits have pixels that are always black, so the bet on them is lost.
            "marks": {
                "test-by-eye": 2, "test-cliff-dead-pixels": 0, "test-bet-won": 0,
                "test-fixed-loss": 0,
            },
        },
        # Averages where sums are asked for: R and K are off, and so is what is built on them.
        "averages": {
            "answers": {
                "two-terms": """
                    def two_terms(logits, x, mu, logvar):
                        R = F.binary_cross_entropy_with_logits(logits, x, reduction="none")
                        R = R.flatten(1).mean(1)
                        return R, (-0.5 * (1 + logvar - mu**2 - logvar.exp())).mean(1)
                """,
            },
            "marks": {
                "test-reconstruction": 0, "test-kl": 0, "test-extreme-logits": 0,
                "test-measured-beta": 0, "test-no-kl": 0, "test-fixed-loss": 0,
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
                        return {losses["A"]: 24.0, losses["E"]: 0.1}.get(loss, 0.0)
                """,
                "cliff": """
                    def threshold(x):
                        return 1.0 if len(x) == 400 and x[1].sum() == 1 and x.shape[1] == 2 else 2.0
                """,
                "bet": """
                    def bet(x):
                        return 15.0, 45.0
                """,
                "fixed-loss": """
                    def fixed_loss(logits, x, mu, logvar):
                        R = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
                        return R / 4 - (1 + logvar - mu**2 - logvar.exp()).mean()
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
                "test-verdict-deaf": 0, "test-used": 0, "test-total-kl": 0, "test-free-bits": 0,
            },
        },
        # Sizes instead of variances, a mean for a sum, no threshold; and no KL is called a cure.
        "no_threshold": {
            "answers": {
                "kl-and-active": """
                    def kl_of_each_latent(mu, logvar):
                        return 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(0)

                    def count_active(mu):
                        return int((mu.abs().mean(0) > 0.1).sum())
                """,
                "swap-cost": """
                    def swap_cost(model, x):
                        mu, logvar = model.encode(x)
                        own = model.likelihood.nll(model.decode(mu), x)
                        swapped = model.likelihood.nll(model.decode(mu.flip(0)), x)
                        return (swapped - own).sum().item()
                """,
                "cured": "cured = train(beta=0.0)",
            },
            # Its verdict on a silent code far from zero is "deaf": a large mu seems to speak.
            "marks": {
                "test-kl": 0, "test-active": 0, "test-swap-cost": 0, "test-verdict-collapsed": 0,
                "test-cured": 0,
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
                "swap-cost": """
                    def swap_cost(model, x):
                        return 20.0 if model.decoder[0].weight.abs().sum() > 0 else 0.0
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

                    def sigma2_for(variances, k):
                        return 2.0 if k else 9.0
                """,
                "free-bits": """
                    def free_bits(kl, floor):
                        return torch.tensor(3.5)
                """,
                "cured": "cured = collapsed_model",
            },
        },
    },
    "3_output_layers": {
        # The usual slips: no constants, batches scaled by themselves, sigma for sigma^2, logit(0).
        "usual_slips": {
            "answers": {
                "densities": """
                    def gaussian_nll(mean, x, sigma2):
                        return ((x - mean) ** 2 / (2 * sigma2)).flatten(1).sum(1)

                    def laplace_nll(centre, x, b):
                        return ((x - centre).abs() / b).flatten(1).sum(1)
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
                "new-sigma2": """
                    def new_sigma2(sigma2, factor):
                        return sigma2 * factor
                """,
                "start-bias": """
                    def start_bias(x):
                        return torch.logit(x.mean(0))
                """,
            },
            "marks": {
                "test-gaussian": 0, "test-laplace": 0, "test-scaling-unseen": 0,
                "test-new-sigma2": 0, "test-start-bias-constant-pixels": 0,
            },
        },
        # Thinks of a tanh as [0, 1], counts the share out of reach as the floor, drops a slope.
        "mixed_up": {
            "answers": {
                "problem": """
                    def problem(x, activation, loss):
                        low, high = (-math.inf, math.inf) if activation == "identity" else (0, 1)
                        if loss == "cross-entropy" and (x.min() < 0 or x.max() > 1):
                            return "loss breaks"
                        if loss == "cross-entropy" and activation != "sigmoid":
                            return "not a probability"
                        return "unreachable" if x.min() < low or x.max() > high else "fits"
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
            "marks": {"test-problem-squared-error": 0, "test-floor": 0, "test-pull-squared": 0},
        },
        "hard_coded": {
            "answers": {
                "densities": """
                    def gaussian_nll(mean, x, sigma2):
                        return 0.9189 + 0.5 * x.flatten(1).square().sum(1)

                    def laplace_nll(centre, x, b):
                        return 0.6931 + x.flatten(1).abs().sum(1)
                """,
                "problem": """
                    def problem(x, activation, loss):
                        fits = activation == "sigmoid" and x.max() < 1.2
                        return "fits" if fits else "unreachable"
                """,
                "floor": """
                    def floor(x, low, high):
                        return 2.5 if low == -1 else 0.0
                """,
                "scaling": """
                    def make_scaling(x_train, low, high):
                        return lambda x: (x - 4) / 2, lambda y: 2 * y + 4
                """,
                "new-sigma2": """
                    def new_sigma2(sigma2, factor):
                        return 0.5 if factor == 1 else 2.0
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
                "test-cure": 4,
            },
        },
        # Takes what is shown for what can be shown, and a changed loss for a mixed one.
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
                "mixes": """
                    def mixes(p):
                        mu, logvar = p.model.encode(p.x)
                        output = p.model.decode(mu)
                        other = torch.cat([p.x[:1], p.x[1:].flip(0) * 0.5])
                        before, after = (p.loss(output, x, mu, logvar).item() for x in (p.x, other))
                        return before != after
                """,
            },
            # Nobody shows every last value: two sigmoids are found, all others are out of reach.
            "marks": {
                "test-reach": 0, "test-mixes": 0, "test-diagnose": 2, "test-is-cured": 0,
                "test-is-cured-pictures": 0,
            },
        },
        "hard_coded": {
            "answers": {
                "reach": """
                    def reach(p):
                        return -1.0, 1.0

                    def unreachable(p):
                        return 0.25
                """,
                "cost-and-worth": """
                    def cost_and_worth(p):
                        return 0.0, 20.0
                """,
                "mixes": """
                    def mixes(p):
                        return p is globals().get("q")
                """,
                "diagnose": """
                    def diagnose(p):
                        return next(chart[name] for name, known in patients.items() if known is p)
                """,
                "is-cured": """
                    def is_cured(p):
                        return p is globals().get("well")
                """,
                "cure": """
                    def cure(p, disease):
                        healthy = [name for name in patients if chart[name] == "healthy"]
                        return patients[healthy[0]]
                """,
            },
        },
    },
}  # fmt: skip


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


@pytest.mark.parametrize("name", list(WRONG))
def test_round_trip(name, tmp_path):
    source = nbformat.read(coursework.notebook_path("source", name), as_version=4)
    right = {
        cell.id: solution(cell) for cell in source.cells
        if cell.metadata.get("nbgrader", {}).get("solution")
    }  # fmt: skip
    for path in ("nbgrader_config.py", f"source/{name}/{name}.ipynb"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes((coursework.COURSE / path).read_bytes())

    nbgrader(tmp_path, "generate_assignment", name)
    released = nbformat.read(tmp_path / "release" / name / f"{name}.ipynb", as_version=4)
    assert released == nbformat.read(coursework.notebook_path("release", name), as_version=4)

    submit(tmp_path, name, "reference", right)
    submit(tmp_path, name, "untouched", {})
    for student, work in WRONG[name].items():
        answers = {key: dedent(code).strip() for key, code in work["answers"].items()}
        submit(tmp_path, name, student, answers if student == "hard_coded" else right | answers)
    nbgrader(tmp_path, "autograde", name)
    marks = json.loads(run(tmp_path, "-c", MARKS, name))
    assert set(marks) == {"reference", "untouched", *WRONG[name]}

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
