"""What the notebooks teach with: claims that run, predictions, tables and the loss log."""

import html
import os
from pathlib import Path

import torch

from . import __version__, settings, threads


def setup():
    """Begin a notebook: figure style, seed, number of threads, and one line that says so.

    Returns the device. Raises ValueError for a switch that cannot be obeyed.
    """
    import matplotlib.pyplot as plt

    plt.style.use("vaelab.vaelab")
    seed, device = settings.seed(), settings.device()
    torch.manual_seed(seed)
    choice = threads.choose()
    version = torch.__version__.split("+")[0]
    print(f"vaelab {__version__}, torch {version}, device {device}, {choice}, seed {seed}")
    return device


def claim(text, holds, control=None, measured=""):
    """Check a statement about what was measured, and print one line.

    text: the statement. holds: whether it holds here. control: the same condition evaluated on the
    control, where it must not hold; None where there is none. measured: the numbers behind it.
    A claim fails when `holds` is false or `control` is true. Under VAELAB_STRICT=1 a claim that
    fails raises AssertionError; otherwise the line says so and the notebook goes on.
    """
    if not holds:
        verdict = "did not hold here"
    elif control:
        verdict = "holds for its control as well, so it shows nothing"
    else:
        verdict = "holds"
    line = f"{verdict}: {text}"
    if str(measured):
        line += f" [{measured}]"
    if verdict != "holds" and settings.strict():
        raise AssertionError(line)
    print(line)


def compare_prediction(prediction, answer, measured):
    """Put what the reader predicted beside what was measured; silent if nothing was predicted.

    prediction: None or a letter such as "a". answer: the right letter. measured: what was seen.
    """
    if prediction is None:
        return
    said = str(prediction).strip().lower()
    verdict = "as you said" if said == answer else "not what you said"
    print(f"You said {said}. Measured: {measured}. The answer is {answer}: {verdict}.")


def table(columns, rows, align="right"):
    """A small table: end a cell with it, in a notebook or a plain script.

    columns: headings. rows: lists of as many values. The first column is set left, the others as
    `align` says ("right" or "left").
    """
    return Table(columns, rows, align)


class Table:
    """What `table` returns: HTML in a notebook, aligned text elsewhere."""

    def __init__(self, columns, rows, align):
        self.columns = [str(column) for column in columns]
        self.rows = [[str(value) for value in row] for row in rows]
        self.align = align

    def __repr__(self):
        lines = [self.columns, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = []
        for line in lines:
            first, *others = line
            cells = [first.ljust(widths[0])]
            for value, width in zip(others, widths[1:], strict=True):
                cells.append(value.rjust(width) if self.align == "right" else value.ljust(width))
            text.append("  ".join(cells).rstrip())
        return "\n".join(text)

    def _repr_html_(self):
        head = self._html_row(self.columns, "th")
        body = "".join(self._html_row(row, "td") for row in self.rows)
        return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"

    def _html_row(self, values, tag):
        cells = []
        for number, value in enumerate(values):
            side = "left" if number == 0 else self.align
            cells.append(f'<{tag} style="text-align:{side}">{html.escape(value)}</{tag}>')
        return f"<tr>{''.join(cells)}</tr>"


class LossLog:
    """The loss log: one row a change, growing down the notebook. Show it by ending a cell with it.

    weight, reconstruction: headings of those columns. digits: of the reconstruction.
    """

    def __init__(self, weight="beta", reconstruction="reconstruction", digits=1):
        self.columns = ("what was changed", weight, reconstruction, "KL", "active units")
        self.rows, self.digits = [], digits

    def add(self, what, beta, history):
        """Add a run by its History (or by a dict as `evaluate` returns) and return the log."""
        end = history if isinstance(history, dict) else history.final
        weight = f"{beta:,.3g}" if beta < 1000 else f"{beta:,.0f}"
        error = f"{end['reconstruction']:.{self.digits}f}"
        self.rows.append((what, weight, error, f"{end['kl']:.2f}", str(end["active_units"])))
        return self

    def __repr__(self):
        return repr(table(self.columns, self.rows))

    def _repr_html_(self):
        return table(self.columns, self.rows)._repr_html_()


def save_figure(figure, name):
    """Write a figure to `$VAELAB_FIGURES`/name for the README; nothing where that is not set."""
    folder = os.environ.get("VAELAB_FIGURES", "").strip()
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        figure.savefig(Path(folder) / name, dpi=100, facecolor="white", bbox_inches="tight")
