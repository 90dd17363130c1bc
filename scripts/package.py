"""`python -m scripts.package out`: a smaller package for AWS than `chalice package` makes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from botocore.session import get_session

from emulator.processes import locked
from scripts.slim import slim

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
KEPT = Path(".chalice/deployments")  # Chalice's own: git ignores it, `make clean` removes it

Run = Callable[[Sequence[str], Path], object]  # a command of .venv, in a directory


def package(project: Path, out: Path, run: Run) -> None:
    """Packages a project; at most one process packages it at a time.

    By itself, Chalice installs the requirements again after each change of the code. Here it
    installs them once, and later packages the code alone.
    """
    needed = [project / "requirements.txt", *sorted((project / "vendor").rglob("*"))]
    content = b"".join(file.read_bytes() for file in needed if file.is_file())
    digest = hashlib.sha256(content).hexdigest()[:32]
    kept = project / KEPT / f"requirements-{digest}-{sys.implementation.cache_tag}.zip"
    with locked(project / ".chalice"):
        if not kept.exists():
            chalice_package(project, out, run)
            kept.parent.mkdir(exist_ok=True)
            for older in kept.parent.glob("*.zip"):
                older.unlink()
            unfinished = kept.with_suffix(".unfinished")
            shutil.copyfile(out / "deployment.zip", unfinished)
            unfinished.rename(kept)
        else:
            chalice_package(project, out, run, only_code=True)
        slim(out, kept.parent, libraries=kept)


def chalice_package(project: Path, out: Path, run: Run, *, only_code: bool = False) -> None:
    """Runs `chalice package` on a copy, so that Chalice reuses no package, complete or not."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as directory:
        copy = Path(directory)
        shutil.copytree(project / ".chalice", copy / ".chalice", ignore=built)
        for name in ("chalicelib", *([] if only_code else ["vendor"])):
            if (project / name).exists():
                shutil.copytree(project / name, copy / name, ignore=built)
        for name in ("app.py", "resources.json", "requirements.txt"):
            shutil.copy(project / name, copy)
        if only_code:
            (copy / "requirements.txt").write_text("")
        run(("chalice", "package", "--merge-template", "resources.json", str(out)), copy)


built = shutil.ignore_patterns("deployments", "deployed", "venv", "__pycache__")


def main() -> int:
    # Chalice asks for a region, though the package is the same for all regions.
    region = get_session().get_config_variable("region") or "us-east-1"

    def run(command: Sequence[str], directory: Path) -> None:
        environment = os.environ | {"AWS_DEFAULT_REGION": region}
        subprocess.run([BIN / command[0], *command[1:]], cwd=directory, env=environment, check=True)

    try:
        package(ROOT, ROOT / sys.argv[1], run)
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
