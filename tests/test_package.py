"""`make package` and the files it keeps, with a stand-in for `chalice package`."""

import json
import os
import zipfile
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import pytest

from scripts import Failure, slim
from scripts.package import KEPT, package

FILES = ("deployment.zip", "authorizer.zip", "sam.json")


class Project:
    """An app whose libraries consist of the text of its requirements."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.calls: list[str] = []  # the requirements at each call of Chalice
        self._outs = count()
        (directory / ".chalice").mkdir(parents=True)
        (directory / "chalicelib").mkdir()
        for name in ("app.py", "chalicelib/__init__.py", "resources.json"):
            (directory / name).write_text(f"# {name}\n")
        self.requires("1")

    def requires(self, version: str) -> None:
        (self.directory / "requirements.txt").write_text(f"VERSION = {version}\n")

    def vendors(self, text: str) -> None:
        (self.directory / "vendor").mkdir(exist_ok=True)
        (self.directory / "vendor" / "vendored.py").write_text(text)

    def packaged(self) -> dict[str, bytes]:
        """The content of the files to deploy, by name."""
        out = self.directory / f"out{next(self._outs)}"
        package(self.directory, out, self._chalice)
        assert {path.name for path in out.iterdir()} == set(FILES)
        return {name: (out / name).read_bytes() for name in FILES}

    def _chalice(self, command: Sequence[str], copy: Path, environment: dict[str, str]) -> None:
        requirements = (copy / "requirements.txt").read_text()
        self.calls.append(requirements)
        self.environment = environment
        out = Path(command[-1])
        (out / "sam.json").write_text('{"Resources": {"Authorize": {"Properties": {}}}}')
        with zipfile.ZipFile(out / "deployment.zip", "w") as archive:
            for name in ("app.py", "chalicelib/__init__.py"):
                archive.write(copy / name, name)
            if requirements:
                archive.writestr("library.py", requirements)
                archive.writestr("jwt/__init__.py", requirements)
            for file in copy.glob("vendor/*"):
                archive.write(file, file.name)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


def contents(directory: Path, packaged: bytes) -> dict[str, str]:
    """The source files of a package."""
    archive = directory / "any.zip"
    archive.write_bytes(packaged)
    with zipfile.ZipFile(archive) as files:
        return {name: files.read(name).decode() for name in files.namelist() if name[-3:] == ".py"}


def test_only_the_authorizer_gets_the_library_for_tokens(project: Project, tmp_path: Path) -> None:
    packaged = project.packaged()
    functions = contents(tmp_path, packaged["deployment.zip"])
    assert set(functions) == {"app.py", "chalicelib/__init__.py", "library.py"}
    assert contents(tmp_path, packaged["authorizer.zip"]) == {
        **functions,
        "jwt/__init__.py": "VERSION = 1\n",
    }
    (authorizer,) = json.loads(packaged["sam.json"])["Resources"].values()
    assert authorizer["Properties"] == {"CodeUri": "./authorizer.zip"}


def test_what_is_unchanged_is_not_packaged_again(project: Project) -> None:
    first = project.packaged()
    os.utime(project.directory / "app.py", (0, 0))
    assert project.packaged() == first
    assert len(project.calls) == 1


@pytest.mark.parametrize("name", ["app.py", "chalicelib/new.py", "resources.json", ".chalice/c"])
def test_a_change_is_packaged_with_the_libraries_that_were_kept(
    project: Project, tmp_path: Path, name: str
) -> None:
    first = project.packaged()
    (project.directory / name).write_text("# new\n")
    second = project.packaged()
    assert project.calls == ["VERSION = 1\n", ""]
    assert (second != first) == (name == "app.py")  # of these, the stand-in packages only app.py
    assert contents(tmp_path, second["authorizer.zip"])["jwt/__init__.py"] == "VERSION = 1\n"


def test_changed_requirements_are_installed(project: Project, tmp_path: Path) -> None:
    project.packaged()
    project.requires("2")
    packaged = project.packaged()
    assert contents(tmp_path, packaged["deployment.zip"])["library.py"] == "VERSION = 2\n"
    for text in ("# one\n", "# other\n"):
        project.vendors(text)
        packaged = project.packaged()
        assert contents(tmp_path, packaged["deployment.zip"])["vendored.py"] == text
    assert project.calls == ["VERSION = 1\n", *["VERSION = 2\n"] * 3]


def test_the_same_project_gives_the_same_bytes(project: Project, tmp_path: Path) -> None:
    """Whether or not its libraries were kept, and whenever its files were written."""
    first = project.packaged()
    app = project.directory / "app.py"
    before = app.read_text()
    app.write_text("# other\n")
    project.packaged()
    app.write_text(before)
    assert project.packaged() == first
    assert project.calls == ["VERSION = 1\n", "", ""]
    assert Project(tmp_path / "other").packaged() == first


@pytest.mark.parametrize("number", range(3))
def test_nothing_half_made_is_used_after_an_interruption(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """After the shared libraries, those for tokens, or the code."""
    interrupt(monkeypatch, slim.rewrite, number)
    with pytest.raises(KeyboardInterrupt):
        project.packaged()
    monkeypatch.undo()
    assert project.packaged() == Project(tmp_path / "other").packaged()
    kept = {path.name.partition("-")[0] for path in (project.directory / KEPT).iterdir()}
    assert kept == {"libraries", "package"}


def interrupt(monkeypatch: pytest.MonkeyPatch, rewrite: Callable[..., None], number: int) -> None:
    """Interrupts the call of `rewrite` with this number, at its end."""
    calls = count()

    def interrupted(*arguments: object) -> None:
        rewrite(*arguments)
        if next(calls) == number:
            raise KeyboardInterrupt

    monkeypatch.setattr(slim, "rewrite", interrupted)


PINNED = "Other_Name==1.0 ; python_version >= '3.11' \\\n    --hash=sha256:0\n    # via nothing\n"


def test_a_package_without_one_of_its_libraries_is_refused_and_not_kept(project: Project) -> None:
    """Chalice only warns of libraries that pip could not get."""
    (project.directory / "requirements.txt").write_text(f"{PINNED}jwt==2\n")
    project.vendors("# jwt")
    (project.directory / "vendor" / "jwt-2.dist-info").write_text("")
    for _ in range(2):
        with pytest.raises(Failure, match=r"^The package lacks Other_Name==1\.0: "):
            project.packaged()
    assert not (project.directory / KEPT).exists()
    (project.directory / "vendor" / "other_name-1.0.dist-info").write_text("")
    assert project.packaged()


def test_chalice_gets_only_pips_settings_of_the_registry(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nindex-url = https://packages.example\nrequire-hashes = true\n")
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    project.packaged()
    assert project.environment["PIP_INDEX_URL"] == "https://packages.example"
    assert project.environment["PIP_CONFIG_FILE"] == os.devnull
    assert "PIP_REQUIRE_HASHES" not in project.environment


def test_an_app_that_ends_chalice_is_not_replaced_by_an_older_package(
    project: Project, tmp_path: Path
) -> None:
    """With `sys.exit()` in app.py, `chalice package` ends with status 0 and writes nothing."""
    package(project.directory, tmp_path / "out", project._chalice)
    (project.directory / "app.py").write_text("# new\n")
    with pytest.raises(Failure, match="Chalice made no package"):
        package(project.directory, tmp_path / "out", lambda *_: None)


def test_an_app_may_have_no_authorizer(project: Project, tmp_path: Path) -> None:
    def chalice(command: Sequence[str], copy: Path, environment: dict[str, str]) -> None:
        project._chalice(command, copy, environment)
        (Path(command[-1]) / "sam.json").write_text('{"Resources": {}}')

    package(project.directory, tmp_path / "out", chalice)
    assert json.loads((tmp_path / "out" / "sam.json").read_text()) == {"Resources": {}}
