"""Many people at once, and `make load`, which counts what they hear."""

from __future__ import annotations

import pytest

from scripts.load import load
from tests.e2e.conftest import Cloud
from tests.e2e.test_smoke import altered


def figures(printed: str) -> dict[str, str]:
    rows = printed.splitlines()[3:]
    return {row[:30].strip(): row[30:].strip() for row in rows}


def test_it_counts_the_lines_and_the_rows(
    cloud: Cloud, empty_chat: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load(empty_chat, emulator=cloud.emulator, people=6, rooms=2, seconds=4)
    seen = figures(capsys.readouterr().out)
    assert seen.pop("CPU of this client").endswith("% of a core")
    assert 0 < int(seen.pop("lines a second")) < 20
    assert seen.pop("median latency").endswith(" ms")
    assert seen.pop("99th percentile").endswith(" ms")
    assert seen == {
        "lines expected": "36",
        "heard": "36",
        "lost": "0",
        "duplicated": "0",
        "other lines": "0",
        "rows left in the table": "0",
    }


@pytest.mark.parametrize(
    ("arrives", "lost", "duplicated", "others"),
    [(b": dead 1", "8", "0", "8"), (b": text 0", "8", "8", "0")],
)
def test_it_notices_lines_that_are_lost_or_come_twice(
    empty_chat: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arrives: bytes,
    lost: str,
    duplicated: str,
    others: str,
) -> None:
    monkeypatch.setattr("scripts.load.PATIENCE", 4.0)
    with altered(empty_chat, b": text 1", arrives) as url:
        assert not load(url, people=4, rooms=2, seconds=4)
    seen = figures(capsys.readouterr().out)
    assert (seen["lines expected"], seen["lost"]) == ("16", lost)
    assert (seen["duplicated"], seen["other lines"]) == (duplicated, others)


def test_when_120_people_speak_at_once_all_are_heard(
    cloud: Cloud, empty_chat: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than functions can run at the same time."""
    monkeypatch.setattr("scripts.load.EVERY", 0.01)
    assert load(empty_chat, emulator=cloud.emulator, people=120, rooms=30, seconds=0.01)
