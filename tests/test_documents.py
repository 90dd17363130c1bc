"""The documents: links lead somewhere, no line is too long, and the changelog has the version."""

import json
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COLUMNS = 100
DOCUMENTS = sorted(
    file
    for folder in (".", "docs", "benchmarks", "emulator", "examples/echo-server")
    for file in (ROOT / folder).glob("*.md")
)
LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)|(?:src|srcset)=\"([^\"]+)\"", re.MULTILINE)


@pytest.fixture(params=DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def document(request: pytest.FixtureRequest) -> Path:
    file: Path = request.param
    return file


def prose(file: Path) -> str:
    """The text without blocks of code."""
    return re.sub(
        r"^( *)```.*?^\1```$", "", file.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE
    )


@cache
def anchors(file: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(file), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leads_somewhere(link: str, document: Path) -> bool:
    path, _, anchor = link.partition("#")
    target = (document.parent / path).resolve() if path else document
    return target.exists() and (not anchor or anchor in anchors(target))


def test_every_link_leads_somewhere(document: Path) -> None:
    links = [link for found in LINK.findall(prose(document)) for link in found if link]
    own = [link for link in links if not re.match(r"https?:", link)]
    assert [link for link in own if not leads_somewhere(link, document)] == []


def test_no_line_of_prose_is_too_long(document: Path) -> None:
    """Tables, pictures and addresses have lines that cannot be broken."""
    lines = [
        line for line in prose(document).splitlines() if not re.match(r"\||!\[|\[.*\]:| *<", line)
    ]
    assert [line for line in lines if len(line) > COLUMNS] == []


def test_the_newest_release_of_the_changelog_is_the_version_of_the_stack() -> None:
    """Changes that are not released yet stand above, under *Unreleased*."""
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    newest = next(heading for heading in headings if heading != "Unreleased")
    outputs = json.loads((ROOT / "resources.json").read_text())["Outputs"]
    assert outputs["Version"]["Value"] == newest
