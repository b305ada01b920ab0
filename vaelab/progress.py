"""Live progress that leaves one line behind: in JupyterLab, in a saved notebook and in a plain script."""

import sys
import time


class Progress:
    """One line, updated in place at most three times a second.

    In a notebook one display is updated, so a saved notebook holds the last line only. In a
    terminal the line is rewritten; where output goes to a file, only the last line is written.
    """

    def __init__(self, total, label, show=True):
        self.total, self.label, self.show = total, label, show
        self.started = self.shown = time.perf_counter()
        self.handle = _display_handle() if show else None

    def update(self, done, note=""):
        now = time.perf_counter()
        if not self.show or now - self.shown < 0.33:
            return
        self.shown = now
        left = (now - self.started) / done * (self.total - done)
        self._write(
            f"{self.label}: {100 * done // self.total:3d}%, about {left:.0f} s left {note}", last=False
        )

    def close(self, line):
        if self.show:
            self._write(line, last=True)

    def _write(self, line, last):
        if self.handle is not None:
            self.handle.update(_Text(line))
        elif sys.stdout.isatty():
            print("\r" + line.ljust(79), end="\n" if last else "", flush=True)
        elif last:
            print(line)


class _Text:
    """Plain text for a display: without this the line would be shown in quotes."""

    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return self.text


def _display_handle():
    """A display that can be updated in place, or None outside a notebook."""
    if "ipykernel" not in sys.modules:
        return None
    from IPython import get_ipython
    from IPython.display import display

    if get_ipython() is None:
        return None
    return display(_Text("starting"), display_id=True)
