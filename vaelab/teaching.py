"""What the notebooks teach with: claims that run, predictions, and the loss log."""

import html
import os
from pathlib import Path

import torch

from . import settings

__version__ = "0.1.0"


def setup():
    """Begin a notebook: figure style, seed, and one line that says what it runs on. Returns the device."""
    import matplotlib.pyplot as plt

    plt.style.use("vaelab.vaelab")
    torch.manual_seed(settings.seed())
    device = settings.device()
    threads = torch.get_num_threads()
    print(
        f"vaelab {__version__}, torch {torch.__version__.split('+')[0]}, device {device}, "
        f"{threads} CPU thread{'s' if threads != 1 else ''}, seed {settings.seed()}"
    )
    return device


def claim(text, condition, measured=""):
    """Check a statement about training and print one line with what was measured.

    text: the statement. condition: whether it holds here. measured: the numbers behind it.
    Under VAELAB_STRICT=1 a claim that does not hold raises AssertionError; otherwise it prints
    "did not hold here" and the notebook goes on.
    """
    holds = bool(condition)
    line = f"{'holds' if holds else 'did not hold here'}: {text}" + (
        f" [{measured}]" if measured != "" else ""
    )
    if not holds and settings.strict():
        raise AssertionError(line)
    print(line)


def compare_prediction(prediction, answer, measured):
    """Put what the reader predicted beside what was measured; silent if nothing was predicted.

    prediction: None or a letter such as "a". answer: the right letter. measured: what was seen.
    """
    if prediction is None:
        return
    said = str(prediction).strip().lower()
    verdict = "as you said" if said == answer else "not what you said; the surprise is worth a minute"
    print(f"You said {said}. Measured: {measured}. The answer is {answer}: {verdict}.")


class LossLog:
    """The loss log: one row a change, growing down the notebook. Show it by ending a cell with it."""

    columns = ("what was changed", "beta", "reconstruction", "KL", "active units")

    def __init__(self, weight="beta", reconstruction="reconstruction", digits=1):
        self.columns = (self.columns[0], weight, reconstruction, *self.columns[3:])
        self.rows, self.digits = [], digits

    def add(self, what, beta, history):
        """Add a run by its History (or by a dict as `evaluate` returns) and return the log."""
        end = history if isinstance(history, dict) else history.final
        self.rows.append(
            (what, f"{beta:,.3g}" if beta < 1000 else f"{beta:,.0f}",
             f"{end['reconstruction']:.{self.digits}f}", f"{end['kl']:.2f}", str(end["active_units"]))
        )  # fmt: skip
        return self

    def __repr__(self):
        table = [self.columns, *self.rows]
        widths = [max(len(row[i]) for row in table) for i in range(len(self.columns))]
        cells = [
            [row[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
            for row in table
        ]
        return "\n".join("  ".join(row) for row in cells)

    def _repr_html_(self):
        return html_table(self.columns, self.rows)


def html_table(columns, rows, align="right"):
    """A small HTML table: first column left, the others as `align` says; every cell escaped."""

    def line(cells, tag):
        sides = ["left"] + [align] * (len(cells) - 1)
        inside = "".join(
            f'<{tag} style="text-align:{a}">{html.escape(str(c))}</{tag}>'
            for a, c in zip(sides, cells, strict=True)
        )
        return f"<tr>{inside}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(columns, 'th')}</thead><tbody>{body}</tbody></table>"


def save_figure(figure, name):
    """Write a figure to `$VAELAB_FIGURES`/name for the README; does nothing where that is not set."""
    folder = os.environ.get("VAELAB_FIGURES", "").strip()
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        figure.savefig(Path(folder) / name, dpi=100, facecolor="white", bbox_inches="tight")
