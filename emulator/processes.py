"""Locks, and the end of an emulator: its processes, then its files."""

import fcntl
import math
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Waits 2 s at most: if nobody reaps the processes, their group never becomes empty.
CLEAR_UP = """
kill -s KILL -- "-$1"
for _ in $(seq 20); do kill -s 0 -- "-$1" || break; sleep 0.1; done
rm -rf -- "$2"
"""


def clear_up(group: int, directory: str | Path, lock: int) -> subprocess.Popen[bytes]:
    """Starts a process that ends the group, then removes the directory that the group writes to.

    The process holds the lock until then, whatever happens to its parent.
    """
    return subprocess.Popen(
        ["/bin/sh", "-c", CLEAR_UP, "sh", str(group), directory],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=[lock],
    )


@contextmanager
def locked(path: Path, patience: float = math.inf, kind: int = fcntl.LOCK_EX) -> Iterator[int]:
    """Locks a file or a directory that exists, and yields its descriptor.

    The lock is free again when the block has ended, here and in all processes that inherited the
    descriptor. Raises BlockingIOError if another process holds it for more than `patience` seconds.
    """
    descriptor = os.open(path, os.O_RDONLY)
    deadline = time.monotonic() + patience
    try:
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield descriptor
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a process holds an exclusive lock on a file or a directory."""
    try:
        with locked(path, 0, fcntl.LOCK_SH):
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
