"""`python -m scripts.package out`: a smaller package for AWS than `chalice package` makes."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from emulator.processes import locked
from scripts import Failure, registry, slim

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
APP = ("app.py", "chalicelib", "resources.json", ".chalice")
LIBRARIES = ("requirements.txt", "vendor")
OUTPUT = (*slim.PACKAGES, "sam.json")
KEPT = Path(".chalice/deployments/kept")  # git ignores it, and `make clean` removes it
NOT_PACKAGED = shutil.ignore_patterns("deployments", "deployed", "venv", "__pycache__")

# Replaces the caller's AWS settings. Chalice needs a region, but any gives the same package.
NO_ACCOUNT: dict[str, str] = {
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}

PINNED = re.compile(r"^[\w.-]+ *==[^\\#\n]*", re.MULTILINE)  # in requirements.txt
LAMBDA = {"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux"}

# Runs a program of .venv in a directory, with extra environment variables.
Run = Callable[[Sequence[str], Path, dict[str, str]], object]


def package(project: Path, out: Path, run: Run) -> None:
    """Packages a project; at most one process packages it at a time.

    By itself, Chalice reinstalls the requirements after each change of the code. Here the libraries
    are kept until the requirements or `vendor` change, and the package until anything changes.

    Raises a Failure if the package would lack a library: Chalice by itself only warns.
    """
    out.mkdir(parents=True, exist_ok=True)
    with locked(project / ".chalice"), tempfile.TemporaryDirectory(dir=out) as directory:
        copy = Path(directory)
        for name in (*APP, *LIBRARIES):
            copy_if_there(project / name, copy / name)
        libraries = project / KEPT / f"libraries-{digest(*(copy / name for name in LIBRARIES))}"
        packaged = project / KEPT / f"package-{digest(copy)}"
        if packaged.exists():
            shutil.copytree(packaged, out, dirs_exist_ok=True)
            return
        for name in OUTPUT:
            (out / name).unlink(missing_ok=True)
        settings: dict[str, str] = {}
        if libraries.exists():
            shutil.rmtree(copy / "vendor", ignore_errors=True)
            (copy / "requirements.txt").write_text("")
        else:
            settings = registry.for_pip(registry.settings())
        run(("chalice", "package", "--merge-template", "resources.json", str(out)), copy, settings)
        if not (out / slim.PACKAGE).exists():
            raise Failure("Chalice made no package. Does app.py call sys.exit()?")
        if not libraries.exists():
            require_libraries((copy / "requirements.txt").read_text(), out / slim.PACKAGE)
            keep(libraries, lambda new: slim.extract_libraries(out / slim.PACKAGE, new))
        slim.slim(out, libraries)
        keep(packaged, lambda new: [shutil.copy(out / name, new) for name in OUTPUT])


def copy_if_there(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=NOT_PACKAGED)
    elif source.exists():
        shutil.copy(source, target)


def digest(*places: Path) -> str:
    """A hash of files and directories, of these scripts, and of Chalice's and Python's versions."""
    files = [
        (number, str(file.relative_to(place)), hashlib.sha256(file.read_bytes()).digest())
        for number, place in enumerate((*places, Path(__file__), Path(slim.__file__)))
        for file in (place, *place.rglob("*"))
        if file.is_file()
    ]
    content = (sorted(files), version("chalice"), sys.implementation.cache_tag)
    return hashlib.sha256(repr(content).encode()).hexdigest()[:32]


def require_libraries(requirements: str, archive: Path) -> None:
    with zipfile.ZipFile(archive) as files:
        there = {
            canonicalize_name(name.partition("-")[0])
            for name in files.namelist()
            if ".dist-info" in name
        }
    for pinned in map(Requirement, PINNED.findall(requirements)):
        is_needed = pinned.marker is None or pinned.marker.evaluate(LAMBDA)
        if is_needed and canonicalize_name(pinned.name) not in there:
            raise Failure(
                f"The package lacks {pinned.name}{pinned.specifier}: pip found no build for "
                "Linux, which Lambda runs on. Retry, or check pip's settings."
            )


def keep(place: Path, make: Callable[[Path], object]) -> None:
    """Replaces the kept directory of this kind; after an interruption, none is kept."""
    kind = place.name.partition("-")[0]
    for older in place.parent.glob(f"{kind}-*"):
        shutil.rmtree(older)
    unfinished = place.with_suffix(".unfinished")
    unfinished.mkdir(parents=True)
    make(unfinished)
    unfinished.rename(place)


def without_account() -> dict[str, str]:
    """The caller's environment, with its AWS settings replaced by `NO_ACCOUNT`."""
    others = {name: os.environ[name] for name in os.environ if not name.startswith("AWS_")}
    return others | NO_ACCOUNT


def main() -> None:
    environment = {name: value for name, value in without_account().items() if name[:4] != "PIP_"}

    def run(command: Sequence[str], directory: Path, settings: dict[str, str]) -> None:
        subprocess.run(
            [BIN / command[0], *command[1:]], cwd=directory, env=environment | settings, check=True
        )

    try:
        package(ROOT, ROOT / sys.argv[1], run)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)


if __name__ == "__main__":
    from scripts.address import run as run_command

    run_command(main)
