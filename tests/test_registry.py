"""The settings of the package registry: from pip's files and variables, for pip, uv and shells."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from scripts import Failure, registry


@pytest.fixture
def pip_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip's file of highest priority. No variable overrides it."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name in registry.UV.values():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    return tmp_path / "pip.conf"


def test_a_later_section_wins_and_a_variable_over_all(
    pip_conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip_conf.write_text(
        """[global]
quiet = 1
index-url = https://one.example
trusted-host = one.example
proxy = http://one.example
retries = 1
target = nowhere
[install]
index-url = https://two.example
trusted-host = two.example
retries =
[list]
trusted-host = three.example
"""
    )
    monkeypatch.setenv("PIP_INDEX_URL", "https://variable.example")
    monkeypatch.setenv("PIP_PROXY", "")
    monkeypatch.setenv("PIP_TARGET", "nowhere")
    found = registry.settings()
    assert found["index-url"] == "https://variable.example"
    assert found["trusted-host"] == "two.example"
    assert found["proxy"] == "http://one.example"
    assert found["retries"] == "1"
    assert "target" not in found


def test_several_places_are_separated_as_pip_and_uv_expect(pip_conf: Path) -> None:
    pip_conf.write_text(
        "[global]\nextra-index-url =\n  https://one.example\n  https://two.example\n"
        "find-links =\n  one\n  two\n"
    )
    found = registry.settings()
    both = "https://one.example https://two.example"
    assert registry.for_pip(found)["PIP_EXTRA_INDEX_URL"] == both
    assert registry.for_pip(found)["PIP_FIND_LINKS"] == "one two"
    assert registry.for_pip(found)["PIP_CONFIG_FILE"] == os.devnull
    assert registry.for_uv(found)["UV_INDEX"] == both
    assert registry.for_uv(found)["UV_FIND_LINKS"] == "one,two"


def test_a_python_without_pip_uses_the_variables(
    pip_conf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pip_conf.write_text("Asking pip would fail: this is no section\n")
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    monkeypatch.setenv("PIP_INDEX_URL", "https://variable.example")
    assert registry.for_uv(registry.settings()) == {"UV_INDEX_URL": "https://variable.example"}


def test_a_path_may_begin_at_home(pip_conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = pip_conf.with_name("John Doe")
    monkeypatch.setenv("HOME", str(home))
    pip_conf.write_text("[global]\ncert = ~/ca.pem\nfind-links =\n  ~/one\n  ~/two\n")
    found = registry.for_uv(registry.settings())
    assert found["SSL_CERT_FILE"] == f"{home}/ca.pem"
    assert found["UV_FIND_LINKS"] == f"{home}/one,{home}/two"


def test_a_variable_of_uv_has_priority(pip_conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_conf.write_text("[global]\nindex-url = https://pip.example\n")
    monkeypatch.setenv("UV_INDEX_URL", "https://uv.example")
    assert "UV_INDEX_URL" not in registry.for_uv(registry.settings())


def test_a_shell_gets_every_character(pip_conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proxy = "http://D\\u:it's\"$HOME`x`@proxy.example"
    pip_conf.write_text(f"[global]\nproxy = {proxy}\n")
    registry.main()
    script = f'{capsys.readouterr().out}\nprintf %s "$ALL_PROXY $PIP_PROXY"'
    assert subprocess.check_output(["sh", "-c", script], text=True) == f"{proxy} {proxy}"


def test_a_file_that_pip_cannot_read_is_named(pip_conf: Path) -> None:
    pip_conf.write_text("no section\n")
    with pytest.raises(Failure, match=r"pip\.conf"):
        registry.settings()
    with pytest.raises(SystemExit):
        registry.main()
