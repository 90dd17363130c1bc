"""docs/make-it-yours.md, deployed: all of its changes at once, in one chat."""

from __future__ import annotations

import json
import shutil
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from emulator.emulator import ROOT
from emulator.processes import locked
from scripts.package import KEPT
from tests.e2e.actors import Person
from tests.e2e.conftest import new_cloud
from tests.e2e.tabs import tabs
from tests.test_make_it_yours import changed_copy, pytest_in

RULES = "parameter or permission or table or role or sign_in or costs or authorizer"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The changed project with the libraries kept here, since the requirements are the same."""
    copy = changed_copy(tmp_path)
    with locked(ROOT / ".chalice"):
        if (ROOT / KEPT).exists():
            shutil.copytree(ROOT / KEPT, copy / KEPT)
    return copy


def test_the_changed_chat_works(copy: Path, tmp_path: Path, browser: Browser) -> None:
    config = copy / ".chalice" / "config.json"
    config.write_text(config.read_text().replace('_size": 512', '_size": 1024'))
    with new_cloud(tmp_path) as cloud:
        url = cloud.emulator.deploy(copy, parameters=["PageTitle=Tea time"])
        page = cloud.emulator.page_url()
        assert page
        with Person(url) as jenny, tabs(browser, page) as open_tab:
            jenny.says("Jenny")
            jenny.hears("Using nickname: Jenny\nType /help for list of commands.")
            jenny.says("/join tea")
            jenny.hears('Joined chat room "tea"')
            john = open_tab().opens()
            expect(john.page).to_have_title("Tea time")
            john.page.get_by_label("First words").fill("Hello!")
            john.asks_for("John", "tea")
            john.reads("John: Hello!")
            jenny.hears("John joined room.", "John: Hello!")
            john.says("/count")
            john.reads("People in this room: 2")
            with urllib.request.urlopen(f"{page}rooms") as answer:
                assert json.load(answer) == ["tea"]
        functions = cloud.client("lambda").list_functions()["Functions"]
        assert {function["MemorySize"] for function in functions} == {1024}


def test_the_changed_template_keeps_the_rules_and_the_page_its_new_one(copy: Path) -> None:
    files = ("tests/test_template.py", "tests/e2e/test_page_arrival.py")
    pytest_in(copy, "-m", "", *files, "-k", f"{RULES} or first_words")
