"""docs/from-the-tutorial.md: what it says of this chat, and where its links lead."""

import re
import subprocess
from pathlib import Path

import pytest

from examples.from_the_tutorial import steps
from tests.conftest import Chat, Person

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "from-the-tutorial.md").read_text("utf-8")
ROWS = [re.split(r"(?<!\\)\|", line)[1:-1] for line in PAGE.splitlines() if line.startswith("| ")]
NAMED = re.findall(r"\[`([\w.]+)`\]\(\.\./([\w/]+\.py)\)", PAGE)  # names, and their files


def spans(cell: str) -> list[str]:
    return re.findall("`([^`]+)`", cell)


SCENES = {
    spans(row[1])[0]: spans(row[2]) for row in ROWS if re.match(r" `['\"]", row[1])
}  # with the lines that are heard here


def test_there_are_scenes_and_names() -> None:
    assert len(SCENES) > 10
    assert len(NAMED) > 50


@pytest.mark.parametrize("scene", SCENES)
def test_a_scene_is_heard_as_the_page_says(chat: Chat, scene: str) -> None:
    typed = subprocess.run(
        ["sh", "-c", rf"printf '%s\0' {scene}"], check=True, stdout=subprocess.PIPE, text=True
    )
    people: dict[str, Person] = {}
    heard: list[str] = []
    for name, text in steps(typed.stdout.rstrip("\0").split("\0")):
        person = people.setdefault(name, people.get(name) or chat.somebody())
        if text is None:
            person.disconnects()
        else:
            person.says(text)
        for each in people.values():
            frames = chat.connections.received(each.id)
            heard += [line for frame in frames for line in frame.split("\n")]
    assert SCENES[scene]
    assert not set(SCENES[scene]) - set(heard), heard


@pytest.mark.parametrize(("name", "file"), sorted(set(NAMED)))
def test_a_name_is_in_its_file(name: str, file: str) -> None:
    source = (DOCS.parent / file).read_text("utf-8")
    if not name.endswith(".py"):
        for part in name.split("."):
            assert re.search(rf"^ *(def|class) {part}\b", source, re.MULTILINE)


def test_every_file_and_section_exists() -> None:
    for target in re.findall(r"\]\((?!https:)([^)]+)\)", PAGE):
        path, _, section = target.partition("#")
        file = DOCS / path if path else DOCS / "from-the-tutorial.md"
        assert file.exists(), target
        headings = (
            re.findall(r"^#+ (.+)$", file.read_text("utf-8"), re.MULTILINE) if section else []
        )
        anchors = {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}
        assert not section or section in anchors, target
