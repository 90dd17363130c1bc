"""Runs MiniStack, patched by `patches.py`, until its parent, `emulator.py`, ends.

Its arguments are the directory of its files, so that `ps` tells one emulator from another, and the
descriptor that holds the lock.
"""

import os
import signal
import sys
import threading

from ministack import app

from emulator import api_gateway, patches
from emulator.processes import clear_up


def end_with_parent(directory: str, lock: str) -> None:
    """Waits until `emulator.py` closes standard input or ends, then ends this whole process group.

    Connected clients get a close frame first.
    """
    os.read(0, 1)
    try:
        api_gateway.say_goodbye()
    finally:
        clear_up(os.getpgrp(), directory, int(lock))


if __name__ == "__main__":
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # may write to any terminal, in the background
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # for the functions' processes
    # Standard output is for the functions' logs; MiniStack's own output goes to standard error.
    functions_output = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    os.dup2(2, 1)
    threading.Thread(target=end_with_parent, args=sys.argv[1:], daemon=True).start()
    patches.apply(functions_output)
    os.environ["MINISTACK_EDITION"] = str(os.getpid())  # `emulator.py` reads it in the health check
    sys.argv = ["ministack"]
    app.main()
