"""Runs MiniStack, patched by `ministack_patches.py`, until its parent, `emulator.py`, ends.

Its argument is the directory of its files, so that `ps` tells one emulator from another.
"""

import os
import signal
import subprocess
import sys
import threading

from ministack import app

from scripts import ministack_patches

# Waits 2 s at most: if nobody reaps the processes, their group never becomes empty.
CLEAR_UP = """
kill -s KILL -- "-$1"
for _ in $(seq 20); do kill -s 0 -- "-$1" 2>/dev/null || break; sleep 0.1; done
rm -rf -- "$2"
"""


def stop_with_parent(directory: str) -> None:
    """Waits until the other end of standard input is closed, then ends this whole process group.

    A process outside of the group removes the directory, once no process is left to write to it.
    """
    sys.stdin.buffer.read()
    command = ["/bin/sh", "-c", CLEAR_UP, "sh", str(os.getpgrp()), directory]
    subprocess.Popen(command, start_new_session=True)


def be_in_the_background() -> None:
    """Unblocks the signals that `emulator.py` held, and allows writing to any terminal."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)


if __name__ == "__main__":
    be_in_the_background()
    # Standard output is for the functions' logs; MiniStack's own output goes to standard error.
    functions_output = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    os.dup2(2, 1)
    threading.Thread(target=stop_with_parent, args=sys.argv[1:], daemon=True).start()
    ministack_patches.apply(functions_output)
    os.environ["MINISTACK_EDITION"] = str(os.getpid())  # `emulator.py` reads it in the health check
    sys.argv = ["ministack"]
    app.main()
