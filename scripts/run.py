"""`make run` and `make redeploy`: the chat on this machine, in the foreground."""

import contextlib
import os
import select
import shlex
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from botocore.exceptions import BotoCoreError, ClientError

from emulator.emulator import BIN, HOST, Emulator, variable
from emulator.user_pool import UserPool
from scripts import Failure
from scripts.address import port as chosen_port
from scripts.address import run as run_command

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PROXIES = {"http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"}
REPEATED_AFTER = 0.5  # seconds; blocks usually end sooner
PEOPLE = ("John", "Jenny")  # with accounts, if people sign in


class Stopped(BaseException):
    """Ctrl-C, the end of the terminal, or a polite `kill`; boto3 must not catch it."""


def say(step: str) -> None:
    print(f"{step} ...", flush=True)


def run(port: int) -> None:
    """Starts the emulator, deploys the chat, and shows the functions' output until stopped."""
    people_sign_in = signs_in()
    make, terminal = os.getppid(), select.poll()
    if os.isatty(0):
        terminal.register(0, 0)  # its end may be told only to make, which does not pass it on
    with Emulator(port, say=say, functions_output=sys.stdout) as emulator, stoppable():
        pool = None
        if people_sign_in:
            say("Creating a user pool")
            pool = UserPool(emulator, PEOPLE)
        url = emulator.deploy(parameters=pool.parameters if pool else ())
        page = emulator.page_url()
        if pool and page:
            pool.allow_page(page)
        print(how_to_use(url, page, emulator, pool), flush=True)
        while os.getppid() == make and not terminal.poll(500):
            emulator.require_alive()


def redeploy(port: int) -> None:
    """Deploys the app, as it is now, onto the emulator that `run` started on this port."""
    emulator = Emulator(port, say=say)
    if not emulator.is_running():
        raise Failure(
            f"Nothing to redeploy to: no emulator runs on port {port}; use "
            f"`make run{variable(port)}`."
        )
    try:
        url = emulator.deploy()
    except (Failure, BotoCoreError, ClientError, OSError):
        if emulator.is_running():
            raise
        raise Failure("`make run` was stopped during the deployment; start it again.") from None
    print(f"Deployed: {url}")


def signs_in() -> bool:
    chosen = os.environ.get("SIGN_IN") or "off"
    if chosen not in ("on", "off"):
        raise Failure(f"SIGN_IN is on or off, not {chosen!r}, as in `make run SIGN_IN=on`.")
    return chosen == "on"


def how_to_use(url: str, page: str | None, emulator: Emulator, pool: UserPool | None) -> str:
    """`pool` has the people who may sign in; None lets anybody connect."""
    port = variable(emulator.port)
    exports = shlex.quote(os.path.relpath(emulator.exports))
    opening = f"Open {page} in two tabs." if page else "The chat is running."
    if pool is None:
        direct = f"no_proxy={HOST} " if PROXIES & set(os.environ) else ""
        wsdump = shlex.quote(os.path.relpath(BIN / "wsdump"))
        how_to_connect = f"""\
In as many other terminals as you like:

    make chat{port}

or any WebSocket client:

    {direct}{wsdump} {url}

The first line that you type is your nickname, /help lists the commands."""
    else:
        opening += f"\nSign in as {' and as '.join(PEOPLE)}. Their password: {pool.password}"
        commands = "\n".join(f"    make chat{port} AS={name}" for name in PEOPLE)
        how_to_connect = f"In other terminals:\n\n{commands}\n\n/help lists the commands."
    return f"""
{opening}

{how_to_connect}
To use the AWS CLI or Chalice on the emulator: . {exports}
After a change to the code: make redeploy{port}
The functions' output, errors above all, appears below. Ctrl-C stops everything.
"""


def stop(number: int, frame: FrameType | None) -> None:
    """Raises Stopped, and repeats that until the block of `stoppable` ends.

    Python drops exceptions that are raised while it frees a file, such as an HTTP response
    (`iobase_finalize` in CPython).
    """
    signal.setitimer(signal.ITIMER_REAL, REPEATED_AFTER)
    raise Stopped


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Lets `stop` end the block, but not interrupt the cleanup after it."""
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, {*STOPPING, signal.SIGALRM})


def main() -> None:
    signal.signal(signal.SIGALRM, stop)
    for number in STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, stop)
    command = {"run": run, "redeploy": redeploy}[sys.argv[1]]
    try:
        with stoppable():
            command(chosen_port())
    except Stopped:
        with contextlib.suppress(OSError):  # the terminal may be gone
            print("\nStopped.", flush=True)


if __name__ == "__main__":
    run_command(main)
