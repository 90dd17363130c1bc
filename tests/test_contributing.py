"""The examples of CONTRIBUTING.md, tried."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest
from chalice.test import Client

from tests.conftest import Chat, LogLines
from tests.test_app import connect

ROOT = Path(__file__).parent.parent


def example(section: str) -> str:
    """The Python code of a section."""
    text = (ROOT / "CONTRIBUTING.md").read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    ((_, code),) = re.findall(r"^( *)```python\n(.*?)^\1```", text, re.DOTALL | re.MULTILINE)
    return textwrap.dedent(code)


def test_a_test_of_ones_own(tmp_path: Path) -> None:
    """In a shell with a real account."""
    file = tmp_path / "test_own.py"
    file.write_text(example("Your own tests with moto"))
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


def test_a_route_of_ones_own(app: ModuleType, chat: Chat) -> None:
    exec(example("Add a route"), vars(app))
    chat.person("John", "tea")
    with Client(app.app) as client:
        answer = client.http.get("/rooms")
    assert (answer.status_code, answer.json_body) == (200, ["tea"])


@pytest.fixture
def renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of `app.py` whose app has another name, for the fixture `app` to import."""
    source = (ROOT / "app.py").read_text()
    (tmp_path / "app.py").write_text(source.replace("chalice-chat-example", "my-chat"))
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
