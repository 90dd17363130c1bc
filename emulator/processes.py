"""Starts processes without losing any, ends them, and keeps them out of each other's way."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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


def await_group(group: int) -> None:
    """Returns once all of a group that was killed have ended, so that none writes any more.

    Waits a second at most: where nobody collects the dead, their group never becomes empty.
    """
    with suppress(ProcessLookupError, PermissionError):
        for _ in range(50):
            os.killpg(group, 0)
            time.sleep(0.02)


def collect(process: int) -> None:
    """Waits until the process has ended.

    Popen.wait() would hang if a signal had interrupted Popen.poll(), which holds a lock.
    """
    with suppress(ChildProcessError):
        os.waitpid(process, 0)


def lock(path: Path, patience: float) -> int | None:
    """Locks a file or a directory that exists; None if another holds it for longer than that.

    It is free again when its descriptor is closed, here and in every process that inherited it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                return None
            time.sleep(0.05)
        else:
            return descriptor


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Waits, for as long as it takes, until no other process has this locked."""
    descriptor = lock(path, float("inf"))
    assert descriptor is not None
    try:
        yield
    finally:
        os.close(descriptor)
