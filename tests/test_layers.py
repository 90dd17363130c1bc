"""What imports what: seven layers at most, and no circle. docs/design.md shows the layers.

    python -m tests.test_layers

prints it.
"""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("posting", "sign_in", "storage", "text")
LAYERS = 7

Imports = dict[str, set[str]]  # by importer


def imported(file: Path) -> Iterator[str]:
    """The app's modules that a file imports, anywhere in it, as `chalicelib.storage.rows`."""
    package = ".".join(file.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = f"{package}.{node.module}" if node.level else str(node.module)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def rooms() -> Imports:
    """The imports of the app's modules and packages; those by way of `chalicelib` are followed."""
    found: Imports = {}
    for file in [ROOT / "app.py", *(ROOT / "chalicelib").rglob("*.py")]:
        if file.parent.name == "chalicelib" and file.name == "__init__.py":
            continue
        names = set(imported(file))
        if "chalicelib" in names and file.name == "app.py":
            names |= set(imported(ROOT / "chalicelib" / "__init__.py"))
        room = file.relative_to(ROOT).with_suffix("").parts[1 if file.name != "app.py" else 0]
        parts = (name.split(".") for name in names)
        others = {part[1] for part in parts if part[0] == "chalicelib" and len(part) > 1}
        found.setdefault(room, set()).update(others - {room})
    return {room: others & found.keys() for room, others in found.items()}


def modules(package: str) -> Imports:
    """The imports among the modules of one package."""
    directory = ROOT / "chalicelib" / package
    names = {file.stem for file in directory.glob("*.py")} - {"__init__"}
    return {
        name: {
            other
            for other in names - {name}
            if f"chalicelib.{package}.{other}" in set(imported(directory / f"{name}.py"))
        }
        for name in names
    }


def layers(imports: Imports) -> dict[str, int]:
    """The lowest are 1. Raises `CycleError` for a circle."""
    height: dict[str, int] = {}
    for room in TopologicalSorter(imports).static_order():
        height[room] = 1 + max((height[other] for other in imports[room]), default=0)
    return height


def picture() -> str:
    imports = rooms()
    height = layers(imports)
    return "\n".join(
        f"{height[room]} {room}: {', '.join(sorted(imports[room]))}"
        for room in sorted(imports, key=lambda room: (-height[room], room))
    )


def test_the_app_has_few_layers_and_no_circle() -> None:
    height = layers(rooms())
    assert max(height.values()) <= LAYERS
    assert max(height, key=lambda room: height[room]) == "app"


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_no_circle(package: str) -> None:
    height = layers(modules(package))
    assert len(height) > 1
    assert max(height.values()) <= LAYERS


def test_modules_import_only_from_layers_below_in_the_documents() -> None:
    """A new module need not be there."""
    document = (ROOT / "docs" / "design.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d) \| (`.*`) \|$", document, re.MULTILINE)
    shown = {room: int(layer) for layer, names in rows for room in re.findall(r"`(\w+)`", names)}
    imports = rooms()
    assert shown.keys() <= imports.keys()
    known = {room: others & shown.keys() for room, others in imports.items() if room in shown}
    for room, others in known.items():
        assert max((shown[other] for other in others), default=0) < shown[room], room
    assert len(shown) > LAYERS


if __name__ == "__main__":
    print(picture())
