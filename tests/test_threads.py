import subprocess
import sys
import time

import pytest
import torch

from vaelab import threads


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    """Two threads, chosen by nobody; the number of the test process is put back."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "_most", None)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def timed(monkeypatch, with_one, with_all):
    """Timings as they would be; returns the numbers of threads that were timed."""
    asked = []

    def seconds(number):
        asked.append(number)
        return with_one if number == 1 else with_all

    monkeypatch.setattr(threads, "_seconds_a_step", seconds)
    return asked


@pytest.mark.parametrize(("with_all", "number"), [(0.6, 2), (0.84, 2), (0.9, 1), (5.0, 1)])
def test_all_threads_are_used_only_where_they_are_clearly_faster(monkeypatch, with_all, number):
    timed(monkeypatch, 1.0, with_all)
    choice = threads.choose()
    assert choice.number == torch.get_num_threads() == number


def test_a_choice_reads_as_words(monkeypatch):
    timed(monkeypatch, 1.0, 0.5)
    assert f"{threads.choose()}" == "2 CPU threads (nothing else is busy)"
    timed(monkeypatch, 1.0, 5.0)
    assert str(threads.choose()).startswith("1 CPU thread (2 are not faster")


def test_omp_num_threads_wins_and_nothing_is_measured(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    asked = timed(monkeypatch, 1.0, 5.0)
    assert threads.choose() == (2, "OMP_NUM_THREADS is set")
    with threads.chosen() as change:
        assert change is None and torch.get_num_threads() == 2
    assert asked == [] and torch.get_num_threads() == 2


def test_a_single_thread_is_not_measured(monkeypatch):
    torch.set_num_threads(1)
    asked = timed(monkeypatch, 1.0, 0.5)
    assert threads.choose().number == 1 and asked == []


def test_a_number_that_was_lowered_may_rise_again(monkeypatch):
    timed(monkeypatch, 1.0, 5.0)
    threads.choose()
    asked = timed(monkeypatch, 1.0, 0.5)
    with threads.chosen() as change:
        assert change.number == torch.get_num_threads() == 2 and asked == [1, 2]
    assert torch.get_num_threads() == 1
    assert threads.choose().number == 2


def test_the_block_restores_the_callers_number_on_exceptions_and_ctrl_c_too(monkeypatch):
    timed(monkeypatch, 1.0, 5.0)
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), threads.chosen() as change:
            assert change.number == torch.get_num_threads() == 1
            raise error
        assert torch.get_num_threads() == 2

    def interrupted(number):
        torch.set_num_threads(number)
        raise KeyboardInterrupt

    monkeypatch.setattr(threads, "_seconds_a_step", interrupted)
    with pytest.raises(KeyboardInterrupt), threads.chosen():
        pass
    assert torch.get_num_threads() == 2


def test_the_block_says_nothing_where_the_number_stays(monkeypatch):
    timed(monkeypatch, 1.0, 0.5)
    with threads.chosen() as change:
        assert change is None


def test_on_another_device_there_is_nothing_to_choose(monkeypatch):
    asked = timed(monkeypatch, 1.0, 5.0)
    with threads.chosen("cuda") as change:
        assert change is None and torch.get_num_threads() == 2
    assert asked == []


def test_measuring_is_short_and_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    started = time.perf_counter()
    threads.choose()
    assert time.perf_counter() - started < 2  # 0.05 s on a free machine
    assert torch.equal(torch.get_rng_state(), state)


def test_one_thread_wins_beside_busy_processes():
    cores = torch.get_num_threads()
    busy = "while True: pass"
    others = [subprocess.Popen([sys.executable, "-c", busy]) for _ in range(2 * cores)]
    try:
        time.sleep(1)
        choices = [threads.choose().number for _ in range(5)]
    finally:
        for process in others:
            process.kill()
            process.wait()
    assert choices.count(1) >= 4
