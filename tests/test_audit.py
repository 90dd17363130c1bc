"""What `make check` says of known vulnerabilities; pip-audit is played by a shell script."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts import audit

SOUND: dict[str, Any] = {"name": "boto3", "version": "1.44.5", "vulns": []}
HOLE: dict[str, Any] = {
    "name": "urllib3",
    "version": "1.26.4",
    "vulns": [{"id": "PYSEC-2021-108", "fix_versions": ["1.26.5"]}],
}
UNKNOWN = {"name": "boto3", "skip_reason": "not found on PyPI"}


@pytest.fixture
def pip_audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(audit, "PIP_AUDIT", tmp_path / "pip-audit")
    return tmp_path / "pip-audit"


def answers(pip_audit: Path, ships: list[Any], tools: list[Any]) -> None:
    pip_audit.write_text(
        f"""#!/bin/sh
        case "$*" in
            */requirements.txt) echo '{json.dumps({"dependencies": ships})}' ;;
            *) echo '{json.dumps({"dependencies": tools})}' ;;
        esac
        """
    )
    pip_audit.chmod(0o755)


def test_nothing_is_known(pip_audit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers(pip_audit, ships=[SOUND], tools=[SOUND, UNKNOWN])
    assert audit.main() == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "requirements.txt: 1 of 1 packages audited"
    assert second == "requirements/dev.txt: 1 of 2 packages audited"


def test_a_hole_in_what_ships_fails(pip_audit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers(pip_audit, ships=[SOUND, HOLE], tools=[SOUND])
    assert audit.main() == 1
    assert "\n  urllib3 1.26.4: PYSEC-2021-108, fixed in 1.26.5\n" in capsys.readouterr().out


def test_a_hole_in_a_tool_is_shown(pip_audit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers(pip_audit, ships=[SOUND], tools=[HOLE])
    assert audit.main() == 0
    assert "PYSEC-2021-108" in capsys.readouterr().out


@pytest.mark.parametrize("script", ["echo no way to api.osv.dev >&2; exit 1", "exit 1"])
def test_without_the_database_it_says_so(
    pip_audit: Path, capsys: pytest.CaptureFixture[str], script: str
) -> None:
    pip_audit.write_text(f"#!/bin/sh\n{script}\n")
    pip_audit.chmod(0o755)
    assert audit.main() == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("Not audited: requirements.txt")


def test_a_database_that_knows_no_package_is_none(
    pip_audit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(pip_audit, ships=[UNKNOWN], tools=[UNKNOWN])
    assert audit.main() == 0
    assert capsys.readouterr().out.startswith("Not audited: requirements.txt")
