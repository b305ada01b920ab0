"""Training, short and plain, with a cache of weights."""

import copy
import functools
import hashlib
from pathlib import Path

import torch

from .case import Plan, Wired

FOLDER = Path(__file__).resolve().parent
CACHE = FOLDER / ".cache"
SEED = 0


def rows_of(data, rows):
    """(x, labels...) of these training rows."""
    x = data.x_train[rows]
    return (x,) if data.labels_train is None else (x, data.labels_train[rows])


def fit(model, loss, data, plan):
    """Train with Adam for plan.steps. It stops where the loss is not finite."""
    parameters = plan.parameters or list(model.parameters())
    trained = [p for p in parameters if p.requires_grad]
    if plan.steps == 0 or not trained:
        return model.eval()
    optimizer = torch.optim.Adam(trained, plan.rate, weight_decay=plan.weight_decay)
    order = torch.Generator().manual_seed(SEED)
    model.train()
    for _ in range(plan.steps):
        rows = torch.randint(len(data.x_train), (plan.batch,), generator=order)
        batch = rows_of(data, rows)
        value = loss(model(*batch), batch[0])
        if not torch.isfinite(value):
            break
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return model.eval()


def trained(subject, fault=None, seed=SEED, cache=True):
    """(wired model, data at check time, loss) of a subject with a fault, or healthy."""
    torch.manual_seed(seed)
    data = subject.load()
    kind = fault.wired if fault else Wired
    model = kind(subject, subject.build())
    loss = fault.loss_of(subject, model.net) if fault else subject.loss(model.net)
    plan = Plan(subject.steps, subject.rate, subject.batch)
    seen = data
    if fault and fault.training_data:
        seen = fault.training_data(data)
    if fault and fault.learning:
        seen = fault.learning(model, data, plan) or data
    path = _path(subject, fault, seed)
    if cache and path.exists():
        model.load_state_dict(torch.load(path, weights_only=True))
    else:
        fit(model, _on_outputs(loss), seen, plan)
        path.parent.mkdir(exist_ok=True)
        torch.save(copy.deepcopy(model.state_dict()), path)
    if fault and fault.checked_data:
        data = fault.checked_data(data)
    return model.eval(), data, loss


def _on_outputs(loss):
    def of_outputs(outputs, x):
        reconstruction, mu, logvar = outputs
        return loss(reconstruction, x, mu, logvar)

    return of_outputs


def _path(subject, fault, seed):
    """Where these weights are cached: a name, and a hash of the code that decides them."""
    name = f"{subject.name} {fault.name if fault else 'healthy'} {seed}"
    return CACHE / f"{name.replace(' ', '_')}_{code()}.pt"


@functools.cache
def code():
    """A hash of the subjects, the faults and the training: weights of other code are not used."""
    names = ["case.py", "sets.py", "own.py", "public.py", "training.py"]
    paths = [*(FOLDER / name for name in names), *sorted(FOLDER.glob("faults_*.py"))]
    texts = [path.read_bytes() for path in paths]
    return hashlib.sha256(b"".join(texts)).hexdigest()[:8]
