"""`python -m scripts.package out`: a smaller package for AWS than `chalice package` makes."""

from __future__ import annotations

import compileall
import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from botocore.session import get_session
from chalice.deploy.packager import DependencyBuilder, LambdaDeploymentPackager
from chalice.utils import UI, OSUtils

from emulator.processes import locked
from scripts.slim import slim

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
DEPLOYMENTS = Path(".chalice/deployments")  # packages that are kept, by Chalice and by `slim`
COMMAND = ("chalice", "package", "--merge-template", "resources.json")


@contextmanager
def packaging(project: Path) -> Iterator[Sequence[str]]:
    """The command that packages a project; at most one process runs it at a time.

    Chalice would reuse a package that another process is still writing, or left unfinished.
    """
    with locked(project / ".chalice"):
        for package in (project / DEPLOYMENTS).glob("*.zip"):
            if not zipfile.is_zipfile(package):
                package.unlink()
        with requirements_kept(project):
            yield COMMAND


@contextmanager
def requirements_kept(project: Path) -> Iterator[None]:
    """Spares Chalice from installing the requirements again when only the code has changed.

    Chalice reuses a package that has the name of the one it is about to make. So this copies the
    package kept for these requirements, lets Chalice's own `inject_latest_app` put the code into
    the copy, and gives the copy that name. It removes older packages, of 20 MB each.
    """
    compileall.compile_dir(project / "chalicelib", quiet=2)  # the name depends on these files too
    osutils = OSUtils()
    packager = LambdaDeploymentPackager(osutils, DependencyBuilder(osutils), UI(io.StringIO()))
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    package = Path(packager.deployment_package_filename(str(project), python))
    requirements = hashlib.sha256((project / "requirements.txt").read_bytes()).hexdigest()
    kept = package.with_name(f"requirements-{requirements[:32]}-{python}.zip")
    if kept.exists() and not package.exists():
        unfinished = package.with_name("unfinished.zip")
        shutil.copyfile(kept, unfinished)
        packager.inject_latest_app(str(unfinished), str(project))
        unfinished.rename(package)
    yield
    if package.exists():
        if not kept.exists():
            kept.hardlink_to(package)
        for older in set(package.parent.glob(f"*-{python}.zip")) - {package, kept}:
            older.unlink()


def main() -> int:
    out = Path(sys.argv[1])
    # Chalice asks for a region, though the package is the same for all regions.
    region = get_session().get_config_variable("region") or "us-east-1"
    with packaging(ROOT) as (chalice, *arguments):
        packaged = subprocess.run(
            [BIN / chalice, *arguments, out],
            cwd=ROOT,
            env=os.environ | {"AWS_DEFAULT_REGION": region},
        )
        if packaged.returncode == 0:
            slim(out, ROOT / DEPLOYMENTS)
    return packaged.returncode


if __name__ == "__main__":
    sys.exit(main())
