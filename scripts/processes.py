"""Starts processes without losing any, and ends them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals_held() -> Iterator[None]:
    """Holds back signals, so that the handle of a process being started is not lost.

    The process inherits the blocked signals; only SIGKILL ends it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def kill_group(leader: int) -> None:
    """Ends a process and all others of its group."""
    with suppress(ProcessLookupError, PermissionError):  # macOS forbids killing a dead process
        os.killpg(leader, signal.SIGKILL)
    collect(leader)


def collect(process: int) -> None:
    """Waits until the process has ended.

    Popen.wait() would hang if a signal had interrupted Popen.poll(), which holds a lock.
    """
    with suppress(ChildProcessError):
        os.waitpid(process, 0)
