"""Live progress that leaves one line behind: in JupyterLab, in a saved notebook and in a script."""

import sys
import time

SECONDS_BETWEEN_UPDATES = 0.33


class Progress:
    """One line, updated in place at most three times a second.

    `total` is the number of steps, or None where it is not known: then the line has no percentage.
    In a notebook one display is updated, so a saved notebook holds the last line only. In a
    terminal the line is rewritten; where output goes to a file, only the last line is written.
    """

    def __init__(self, total, label, show=True):
        self.total = total
        self.label = label
        self.show = show
        self.started = self.shown = time.perf_counter()
        self.handle = _display_handle() if show else None

    def update(self, done, note=""):
        """Show that `done` of `total` steps are over, with a note behind them."""
        now = time.perf_counter()
        if not self.show or now - self.shown < SECONDS_BETWEEN_UPDATES:
            return
        self.shown = now
        self._write(f"{self.label}: {self._state(done, now)}{note}", last=False)

    def close(self, line=""):
        """Leave `line` behind, or nothing where there is no line."""
        if self.show:
            self._write(line, last=True)

    def _state(self, done, now):
        if not (self.total and done):
            return ""
        left = (now - self.started) / done * (self.total - done)
        return f"{100 * done // self.total:3d}%, about {left:.0f} s left "

    def _write(self, line, last):
        if self.handle is not None:
            self.handle.update(_Text(line))
        elif sys.stdout.isatty():
            end = "\n" if last and line else "\r"
            print("\r" + line.ljust(79), end=end, flush=True)
        elif last and line:
            print(line, flush=True)


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
