"""Starting processes so that none is lost, and ending them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def signals_held() -> Iterator[None]:
    """Delays what would stop this, so that no process is started whose handle is then lost.

    The process inherits that; nothing but SIGKILL ends it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def kill_group(leader: int) -> None:
    """Ends a process and all others of its group."""
    with suppress(ProcessLookupError, PermissionError):  # macOS forbids to kill the dead
        os.killpg(leader, signal.SIGKILL)
    collect(leader)


def collect(process: int) -> None:
    """Returns once the process has ended.

    Popen.wait() would wait for ever when a signal had interrupted Popen.poll(), which has a lock.
    """
    with suppress(ChildProcessError):
        os.waitpid(process, 0)
