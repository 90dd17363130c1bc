"""docs/make-it-yours.md, tried: its changes are made to a copy, and the tests there still pass."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from chalicelib.page import TITLE
from tests.conftest import LogLines
from tests.test_app import connect

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "make-it-yours.md"
NOT_COPIED = shutil.ignore_patterns(
    *(".git", ".*_cache", "__pycache__", ".venv*", ".hypothesis", ".local", "out", "images"),
    "deployments",
)

# The page leaves these tests to its readers.
TESTS = {
    "Add a command": {
        "tests/test_commands.py": """

def test_people_are_counted(chat: Chat, john: Person, jenny: Person) -> None:
    john.says("/count")
    john.hears("People in this room: 2")
    jenny.hears_nothing()
    zoe = chat.person("Zoe")
    zoe.says("/count")
    zoe.hears("Not currently in a room. Type /join {room_name} to do so.")
"""
    },
    "Add a route": {
        "tests/test_app.py": """

def test_the_open_rooms(app: ModuleType, storage: Any) -> None:
    from chalice.test import Client

    storage.create_connection("c1")
    storage.set_room("c1", "tea")
    with Client(app.app) as client:
        assert client.http.get("/rooms").json_body == ["tea"]
"""
    },
    "Add a row": {
        "tests/storage/test_storage.py": """

def test_a_topic_lasts_as_long_as_a_connection(storage: Storage, chat: Chat) -> None:
    storage.set_topic("tea", "Oolong")
    assert storage.topic("tea") == "Oolong"
    chat.clock.advance(LIFETIME_SECONDS + 1)
    assert storage.topic("tea") == ""
    assert storage.list_rooms() == set()
"""
    },
    "Add a field on the page": {
        "tests/e2e/test_page_arrival.py": """

def test_the_first_words(open_tab: OpenTab, chat: SmallChat) -> None:
    john = open_tab().opens()
    john.page.get_by_label("First words").fill("Hello!")
    john.asks_for("John", "tea")
    john.reads("John: Hello!")
"""
    },
}
AFFECTED = (
    *("test_app.py::test_the_open_rooms", "test_app.py::test_the_page", "test_commands.py"),
    *("test_imitation.py", "test_layers.py", "test_page.py", "storage/test_storage.py"),
)


def sections() -> dict[str, str]:
    """The texts of the page's sections, by heading."""
    _, *parts = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    return {heading: text for heading, _, text in (part.partition("\n") for part in parts)}


def changes(section: str) -> Iterator[tuple[str, str, str]]:
    """The hunks of a section's diffs: the file, the lines to be found there, and the new ones."""
    for diff in re.findall(r"^```diff\n(.*?)^```", sections()[section], re.DOTALL | re.M):
        for of_file in re.split(r"^\+\+\+ ", diff, flags=re.M)[1:]:
            file, _, hunks = of_file.partition("\n")
            for hunk in re.split(r"^@@\n", hunks, flags=re.M):
                lines = [(line[:1], line[1:]) for line in hunk.splitlines(keepends=True)]
                old = "".join(text for sign, text in lines if sign in " -")
                yield file, old, "".join(text for sign, text in lines if sign in " +")


def changed_copy(directory: Path) -> Path:
    """A copy of the project with all changes of the page, and with the tests for them."""
    copy = Path(shutil.copytree(ROOT, directory / "copy", ignore=NOT_COPIED))
    for section in sections():
        for name, old, new in changes(section):
            file = copy / name
            code = file.read_text()
            assert not old or code.count(old) == 1, f"{section}, {name}: {old}"
            file.write_text(code.replace(old, new) if old else code + new)
        for name, test in TESTS.get(section, {}).items():
            with (copy / name).open("a") as file_of_tests:
                file_of_tests.write(test)
    return copy


def pytest_in(copy: Path, *arguments: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=copy,
        env={name: os.environ[name] for name in os.environ if "PY" not in name},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr  # 5 if none is selected


def test_no_other_file_needs_a_change(tmp_path: Path) -> None:
    """The field of the page may exceed its size, as the page says."""
    files = [f"tests/{name}" for name in AFFECTED]
    pytest_in(changed_copy(tmp_path), "-k", "not is_small", *files)


def test_the_numbers_of_files_are_those_of_the_changes() -> None:
    rows = re.findall(r"^\| \[(.*?)\]\(#.*?\) \| (\d) \|", PAGE.read_text(), re.MULTILINE)
    assert [task.lower() for task in sections()] == [task for task, _ in rows]
    numbers = {task.lower(): int(number) for task, number in rows}
    counted = 0
    for section in sections():
        files = {name for name, _, _ in changes(section)} | TESTS.get(section, {}).keys()
        assert len(files) in (0, numbers[section.lower()]), section
        counted += bool(files)
    assert counted == 5


def test_a_test_of_ones_own(tmp_path: Path) -> None:
    """In a shell with a real account."""
    (code,) = re.findall(
        r"^```python\n(.*?)^```", sections()["Your own tests with moto"], re.DOTALL | re.M
    )
    file = tmp_path / "test_own.py"
    file.write_text(code)
    shell = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", file],
        cwd=tmp_path,
        env=shell,
        capture_output=True,
        text=True,
    )
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr


# Names


@pytest.fixture
def renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of `app.py` whose app has another name, for the fixture `app` to import."""
    source, names = re.subn(r'app_name=".*?"', 'app_name="my-chat"', (ROOT / "app.py").read_text())
    assert names == 1
    (tmp_path / "app.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)


def test_a_renamed_app_logs_and_counts_as_before(
    renamed: None, app: ModuleType, log_lines: LogLines
) -> None:
    assert app.app.app_name == "my-chat"
    connect(app, "c1")
    app.app.log.warning("from Chalice")
    done, chalices = log_lines()
    assert (done["message"], done["ConnectionsOpened"]) == ("done", 1)
    assert (chalices["level"], chalices["message"]) == ("WARNING", "from Chalice")


def test_the_pages_name_is_in_one_place() -> None:
    files = [file for file in (ROOT / "chalicelib" / "page").iterdir() if file.is_file()]
    assert sum(file.read_text("utf-8").count(TITLE) for file in files) == 1
