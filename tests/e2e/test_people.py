"""`make people` and `make kick`, as an operator uses them and as a room hears of it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from emulator.emulator import ROOT
from tests.e2e.actors import Person, Terminal
from tests.e2e.conftest import Cloud, eventually
from tests.e2e.test_make_chat import ENCODINGS

Make = Callable[..., str]

ODD = [
    "'\"$(id)`id`${HOME}\\#;&|<>*?!~%",  # a shell's characters
    "$(",  # make's
    "--everybody=yes",
    "\u20ac\U0001f600",
]
ONLY_THE_STACK = {"Effect": "Allow", "Action": "cloudformation:DescribeStacks", "Resource": "*"}


@pytest.fixture
def environment(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell with the operator's credentials."""
    for name, value in cloud.emulator.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def make(environment: None) -> Make:
    """Runs make for the stack; returns all that it prints, without make's own line of an error."""

    def make(*arguments: str, answer: str = "") -> str:
        done = subprocess.run(
            command(*arguments),
            cwd=ROOT,
            input=answer,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert (done.returncode == 0) == ("make: ***" not in done.stdout)
        return re.sub(r"(?m)^make: \*\*\*.*\n", "", done.stdout)

    return make


def command(*arguments: str) -> list[str]:
    return ["make", "--silent", *arguments, "STACK=ChaliceChat"]


def test_the_people_are_listed_and_counted(
    make: Make, arrive: Callable[..., Person], connect: Callable[[], Person]
) -> None:
    connect()
    arrive("Jack")
    jenny = arrive("Jenny", "chalice")
    arrive("John", "chalice")
    jenny.hears("John joined room.")
    listed = re.sub(r"(?m)^\d\d:\d\d:\d\d", "12:00:00", make("people"))
    assert listed.splitlines() == [
        "since (UTC)  room       nickname",
        "12:00:00     chalice    Jenny",
        "12:00:00     chalice    John",
        "12:00:00     (no room)  (no nickname)",
        "12:00:00     (no room)  Jack",
        "",
        "people  room",
        "     2  chalice",
        "     2  (no room)",
        "     4  in all",
    ]


def test_a_kick_closes_a_connection_the_room_hears_it_and_the_person_may_return(
    make: Make, arrive: Callable[..., Person]
) -> None:
    john, jenny = arrive("John", "tea"), arrive("Jenny", "tea")
    john.hears("Jenny joined room.")
    assert make("kick", "NICKNAME=jenny") == "Disconnected: Jenny\n"
    jenny.is_disconnected()
    john.hears("Jenny left room.")
    jenny = arrive("Jenny", "tea")
    john.hears("Jenny joined room.")
    jenny.says("I am back")
    for person in (john, jenny):
        person.hears("Jenny: I am back")


def test_a_room_is_kicked_after_a_question_at_the_terminal(
    environment: None, arrive: Callable[..., Person]
) -> None:
    john, jenny, jack = arrive("John", "tea"), arrive("Jenny", "tea"), arrive("Jack", "coffee")
    john.hears("Jenny joined room.")
    question = "Disconnect everybody in tea (2)? [y/N] "
    with Terminal(*command("kick", "ROOM=tea"), cwd=ROOT) as terminal:
        terminal.sees(question)
        terminal.types("")
        eventually(lambda: "Nobody was disconnected, since the answer" in terminal.screen)
        assert terminal.ends() != 0
    john.says("Still here?")
    for person in (john, jenny):
        person.hears("John: Still here?")
    with Terminal(*command("kick", "ROOM=tea"), cwd=ROOT) as terminal:
        terminal.sees(question)
        terminal.types("y")
        terminal.sees(f"{question}y\nDisconnected: 2\n")
        assert terminal.ends() == 0
    for person in (john, jenny):
        hears_at_most(person, "John left room.", "Jenny left room.")
    jack.says("/ls")
    jack.hears("Jack")


def test_everybody_is_kicked_by_a_pipe_and_not_without_an_answer(
    make: Make, arrive: Callable[..., Person], connect: Callable[[], Person]
) -> None:
    people = [arrive("John", "tea"), arrive("Jenny", "coffee"), connect()]
    assert "Nobody was disconnected" in make("kick", "EVERYBODY=yes")
    for person in people:
        person.hears_nothing()
    assert make("kick", "EVERYBODY=yes", answer="y\n").endswith("Disconnected: 3\n")
    for person in people:
        person.is_disconnected()
    eventually(lambda: make("people") == "Nobody is connected.\n")


@pytest.mark.parametrize("nickname", ODD)
def test_no_nickname_protects_against_a_kick(
    make: Make, arrive: Callable[..., Person], nickname: str
) -> None:
    abuser, john = arrive(nickname, "tea"), arrive("John", "tea")
    abuser.hears("John joined room.")
    assert nickname in make("people")
    assert make("kick", f"NICKNAME={nickname}") == f"Disconnected: {nickname}\n"
    abuser.is_disconnected()
    john.hears(f"{nickname} left room.")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_terminal_can_show_them(
    make: Make,
    arrive: Callable[..., Person],
    monkeypatch: pytest.MonkeyPatch,
    encoding: dict[str, str],
) -> None:
    arrive("\u20acuro", "\U0001f600")
    for name, value in encoding.items():
        monkeypatch.setenv(name, value)
    assert re.search(r"(?m)^\d\d:\d\d:\d\d .*uro$", make("people"))


def test_without_permission_it_says_which_is_needed(
    make: Make, arrive: Callable[..., Person], cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrive("John", "tea")
    with guest(cloud) as credentials:
        for name, value in credentials.items():
            monkeypatch.setenv(name, value)
        for arguments in (["people"], ["kick", "NICKNAME=John"]):
            said, advice = make(*arguments).splitlines()
            assert "AccessDenied" in said
            assert advice.startswith("You need dynamodb:Scan, dynamodb:GetItem and")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["kick"], "Disconnect whom? Name one: NICKNAME=John, ROOM=chalice or EVERYBODY=yes."),
        (["kick", "NICKNAME=Jack"], "Nobody is called Jack; `make people` lists everybody."),
        (["kick", "ROOM=tea"], "Nobody is in tea; `make people` lists everybody."),
        (["people", "URL=ws://x"], "Name the stack, as in STACK=ChaliceChat: an address tells"),
    ],
)
def test_it_says_what_to_do(make: Make, empty_chat: str, arguments: list[str], said: str) -> None:
    (line,) = make(*arguments).splitlines()
    assert line.startswith(said)


def hears_at_most(person: Person, *lines: str) -> None:
    """These lines may come, in any order, before the connection is closed: departures race."""
    heard = list(iter(person.hears_a_line, ""))
    assert set(heard) <= set(lines)


@contextmanager
def guest(cloud: Cloud) -> Iterator[dict[str, str]]:
    """The credentials of a user who may look up the stack, and nothing else."""
    iam = cloud.client("iam")
    iam.create_user(UserName="guest")
    document = json.dumps({"Version": "2012-10-17", "Statement": [ONLY_THE_STACK]})
    iam.put_user_policy(UserName="guest", PolicyName="stack", PolicyDocument=document)
    key = iam.create_access_key(UserName="guest")["AccessKey"]
    try:
        yield {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }
    finally:
        iam.delete_access_key(UserName="guest", AccessKeyId=key["AccessKeyId"])
        iam.delete_user_policy(UserName="guest", PolicyName="stack")
        iam.delete_user(UserName="guest")
