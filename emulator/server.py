"""Runs MiniStack, patched by `patches.py`, until its parent, `emulator.py`, ends.

Its arguments are the directory of its files, so that `ps` tells one emulator from another, and the
descriptor that holds the lock.
"""

import os
import signal
import subprocess
import sys
import threading

from ministack import app

from emulator import api_gateway, patches

# Waits 2 s at most: if nobody reaps the processes, their group never becomes empty.
CLEAR_UP = """
kill -s KILL -- "-$1"
for _ in $(seq 20); do kill -s 0 -- "-$1" 2>/dev/null || break; sleep 0.1; done
rm -rf -- "$2"
"""


def stop_with_parent(directory: str, lock: str) -> None:
    """Waits until `emulator.py` closes standard input, or has ended; both end this group.

    Connected clients get a close frame. Then a process outside of this group kills the group, and
    removes the directory once no process is left to write to it. It holds the lock until then.
    """
    os.read(0, 1)
    api_gateway.say_goodbye()
    command = ["/bin/sh", "-c", CLEAR_UP, "sh", str(os.getpgrp()), directory]
    subprocess.Popen(command, start_new_session=True, pass_fds=[int(lock)])


def be_in_the_background() -> None:
    """Unblocks the signals that `emulator.py` held, and allows writing to any terminal."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)


if __name__ == "__main__":
    be_in_the_background()
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # for the functions' processes
    # Standard output is for the functions' logs; MiniStack's own output goes to standard error.
    functions_output = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    os.dup2(2, 1)
    threading.Thread(target=stop_with_parent, args=sys.argv[1:], daemon=True).start()
    patches.apply(functions_output)
    os.environ["MINISTACK_EDITION"] = str(os.getpid())  # `emulator.py` reads it in the health check
    sys.argv = ["ministack"]
    app.main()
