"""`make browsers` installs browsers where it can, and names those that are left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import browser

LEFT_OUT = (
    "Left out: Firefox and WebKit. On Debian: apt-get install firefox-esr webkit2gtk-driver xvfb\n"
)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What apt-get was asked for. No browser is installed."""
    asked = tmp_path / "asked"
    apt_get = tmp_path / "apt-get"
    apt_get.write_text(APT_GET)
    apt_get.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return asked


APT_GET = """#!/bin/sh
cd "${0%/*}" && echo "$*" >>asked || exit
[ "$1" = install ] || exit 0
for command in firefox-esr WebKitWebDriver Xvfb; do
    : >$command
    /bin/chmod +x $command
done
"""


def test_root_on_debian_gets_the_browsers(
    asked: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(browser, "IS_ROOT_ON_DEBIAN", True)
    browser.install_others()
    update, install = asked.read_text().splitlines()
    assert update == "update"
    assert install.endswith(" firefox-esr webkit2gtk-driver xvfb")
    browser.install_others()
    assert asked.read_text().count("\n") == 2  # once is enough
    assert capfd.readouterr().out == ""


def test_elsewhere_the_missing_browsers_are_named(
    asked: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(browser, "IS_ROOT_ON_DEBIAN", False)
    browser.install_others()
    assert capfd.readouterr().out == LEFT_OUT
    assert not asked.exists()
    firefox = asked.with_name("firefox")
    firefox.touch(0o755)
    browser.install_others()
    assert capfd.readouterr().out.startswith("Left out: WebKit. ")
