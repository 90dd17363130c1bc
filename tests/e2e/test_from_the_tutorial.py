"""`examples/from_the_tutorial.py`, on this chat."""

from __future__ import annotations

import re
import subprocess
import sys

from emulator.emulator import ROOT
from tests.e2e.conftest import Cloud
from tests.tables import create_table


def see(cloud: Cloud, *arguments: str) -> list[str]:
    """The lines that it prints."""
    ran = subprocess.run(
        [sys.executable, "examples/from_the_tutorial.py", *arguments],
        cwd=ROOT,
        env=cloud.emulator.environment | {"TABLE": "Tutorial", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_scene(cloud: Cloud, empty_chat: str) -> None:
    assert see(cloud, "scene", empty_chat, "A Sam", "B Sam") == [
        "A Sam",
        r"    A hears 'Using nickname: Sam\nType /help for list of commands.'",
        "B Sam",
        "    B hears 'Nickname Sam is already in use.'",
    ]


def test_crowd(cloud: Cloud, empty_chat: str) -> None:
    (line,) = see(cloud, "crowd", empty_chat, "3")
    assert re.fullmatch("The first hears the line after .+ s, the last after .+ s.", line)


def test_calls(cloud: Cloud) -> None:
    create_table(cloud.client("dynamodb"), "Tutorial")
    assert see(cloud, "calls") == [
        "/ls in a room of 40: {'Query': 2}",
        "/ls outside: {'Query': 2}",
        "After two /join at once, 0 of 10 people are in two rooms.",
        "Of 3000 members, 3000 are found.",
        "Of 3 posts, 3 are made; raises nothing",
        "A stranger hears: ['Your session has expired. Please reconnect.'] raises nothing",
    ]
