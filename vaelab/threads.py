"""How many CPU threads torch uses: all of them on a free machine, one beside other busy programs.

The threads of torch's OpenMP wait for each other by spinning. Two programs that both use all cores
therefore slow each other down several times over, and each of them is faster with one thread.
"""

import contextlib
import os
import time
from typing import NamedTuple

import torch

STEPS = 30
LONGEST = 0.05  # seconds of measuring with one number of threads
CLEARLY = 0.85  # all threads must take less than this share of one thread's time

_most = None  # the number of threads before `choose` lowered it


class Choice(NamedTuple):
    """A number of threads, and why this number, in words."""

    number: int
    reason: str

    def __str__(self):
        return f"{self.number} CPU thread{'s' if self.number > 1 else ''} ({self.reason})"


def choose():
    """Set torch's number of threads to the one that is faster at this moment; returns a `Choice`.

    Matrix products of a training step's size are timed with all threads and with one, which takes
    less than 0.1 seconds on a free machine. Nothing is measured or changed where OMP_NUM_THREADS is
    set in the environment, or where torch has one thread.
    """
    global _most
    most = _number_before_lowering()
    choice = _choice(most)
    _set(choice.number)
    _most = most if choice.number < most else None
    return choice


@contextlib.contextmanager
def chosen(device="cpu"):
    """A block with the faster number of threads; the caller's number is set again after it.

    Yields the `Choice` if it differs from the caller's number, else None. Does nothing for a device
    that is not a CPU.
    """
    callers = torch.get_num_threads()
    if torch.device(device).type != "cpu":
        yield None
        return
    try:
        choice = _choice(_number_before_lowering())
        _set(choice.number)
        yield choice if choice.number != callers else None
    finally:
        _set(callers)


def _number_before_lowering():
    """The caller's number of threads, or the one before `choose` set it to one."""
    now = torch.get_num_threads()
    return _most if now == 1 and _most else now


def _set(number):
    if number != torch.get_num_threads():
        torch.set_num_threads(number)


def _choice(most):
    """The faster of `most` threads and one."""
    if os.environ.get("OMP_NUM_THREADS", "").strip():
        return Choice(torch.get_num_threads(), "OMP_NUM_THREADS is set")
    if most == 1:
        return Choice(1, "torch has no more")
    with_one, with_all = _seconds_a_step(1), _seconds_a_step(most)
    if with_all < CLEARLY * with_one:
        return Choice(most, "nothing else is busy")
    return Choice(1, f"{most} are not faster beside other busy programs")


def _seconds_a_step(number):
    """Mean seconds of a layer's matrix product with this number of threads."""
    _set(number)
    x, weight = torch.ones(128, 784), torch.ones(784, 400)
    torch.relu(x @ weight)  # the first one with this number starts the threads
    steps, started = 0, time.perf_counter()
    while steps < STEPS and time.perf_counter() - started < LONGEST:
        torch.relu(x @ weight)
        steps += 1
    return (time.perf_counter() - started) / steps
