"""How one model of the second set is made: a recipe, which a fault changes in one place."""

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from .. import case, training

FOLDER = Path(__file__).resolve().parent
CACHE = training.CACHE / "second"
SUBJECTS, FAULTS, CONTROLS = {}, {}, {}


@dataclass
class Recipe:
    """Everything that decides a model and its check. A fault or a control changes it.

    data: the training rows as the model gets them, the test rows as the check-up gets them.
    build: () -> nn.Module. wired: the order of its parts. loss: (reconstruction, x, mu, logvar) ->
    scalar, which is checked, default the right one. training_loss: the same, where another one is
    trained. prepare: (model, plan) -> None, before training. after: model -> None, after it.
    target: x -> what the right error compares with, where that is not x.
    """

    subject: case.Subject
    data: case.Data
    build: Callable
    plan: case.Plan
    wired: type = case.Wired
    loss: Callable | None = None
    training_loss: Callable | None = None
    prepare: Callable | None = None
    after: Callable | None = None
    target: Callable | None = None


class Made(NamedTuple):
    """What a recipe gives. judge: the subject whose error measures harm."""

    model: case.Wired
    data: case.Data
    loss: Callable
    judge: case.Subject
    batch: int


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with one subject. change: Recipe -> None.

    accepts: codes of the causes that would cure it.
    """

    name: str
    group: str
    subject: str
    accepts: frozenset
    change: Callable


@dataclass(frozen=True)
class Control:
    """A healthy oddity. change: Recipe -> None."""

    name: str
    subject: str
    change: Callable


def subject(name, **parts):
    """Register a subject."""
    SUBJECTS[name] = case.Subject(name=name, **parts)


def fault(group, on, accepts):
    """Register a fault of a subject: the decorated function changes its recipe."""

    def register(change):
        name = change.__name__.replace("_", " ")
        if name in FAULTS or on not in SUBJECTS or group not in case.GROUPS:
            raise ValueError(f"{name!r} is there already, or {on!r} or {group!r} is not")
        FAULTS[name] = Fault(name, group, on, frozenset(accepts.split()), change)
        return change

    return register


def control(on):
    """Register a healthy oddity of a subject: the decorated function changes its recipe."""

    def register(change):
        name = change.__name__.replace("_", " ")
        CONTROLS[name] = Control(name, on, change)
        return change

    return register


def recipe_of(name, change=None):
    """The recipe of a subject, healthy or changed."""
    found = SUBJECTS[name]
    plan = case.Plan(found.steps, found.rate, found.batch)
    recipe = Recipe(found, found.load(), found.build, plan)
    if change is not None:
        change(recipe)
    return recipe


def trained(name, change=None):
    """`Made` of a subject, healthy or changed; weights come from the cache."""
    torch.manual_seed(training.SEED)
    recipe = recipe_of(name, change)
    model = recipe.wired(recipe.subject, recipe.build())
    loss = recipe.loss or recipe.subject.loss(model.net)
    if recipe.prepare is not None:
        recipe.prepare(model, recipe.plan)
    path = path_of(name, None if trains_alike(recipe) else change)
    if path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
    else:
        training.fit(model, of_outputs(recipe.training_loss or loss), recipe.data, recipe.plan)
        CACHE.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), path)
    if recipe.after is not None:
        recipe.after(model)
    return Made(model.eval(), recipe.data, loss, judge_of(recipe), recipe.plan.batch)


def trains_alike(recipe):
    """Whether its training is the healthy one: then it uses the same weights."""
    healthy = recipe_of(recipe.subject.name)
    rows = recipe.data.x_train is healthy.data.x_train
    labels = recipe.data.labels_train is healthy.data.labels_train
    return rows and labels and replace(recipe, data=healthy.data, after=None) == healthy


def judge_of(recipe):
    """The subject with the error that harm is measured by."""
    if recipe.target is None:
        return recipe.subject
    error = recipe.subject.error

    def on_target(model, reconstruction, x):
        return error(model, reconstruction, recipe.target(x))

    return replace(recipe.subject, error=on_target)


def of_outputs(loss):
    """The same loss for (outputs, x)."""

    def whole(outputs, x):
        return loss(outputs[0], x, *outputs[1:])

    return whole


def path_of(name, change):
    """Where these weights are cached: a name, and a hash of the code that decides them."""
    changed_in = Path(inspect.getsourcefile(change)) if change is not None else None
    paths = [FOLDER / part for part in ("recipe.py", "drawn.py", "subjects.py")]
    paths += [training.FOLDER / part for part in ("case.py", "sets.py", "training.py")]
    if changed_in is not None:
        paths.append(changed_in)
    texts = [path.read_bytes() for path in paths]
    code = hashlib.sha256(b"".join(texts)).hexdigest()[:8]
    return CACHE / f"{name}_{change.__name__ if change else 'healthy'}_{code}.pt".replace(" ", "_")
