"""`python -m scripts.package out`: a smaller package for AWS than `chalice package` makes."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from botocore.session import get_session

from scripts.processes import locked
from scripts.slim import slim

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
DEPLOYMENTS = Path(".chalice/deployments")  # packages that are kept, by Chalice and by `slim`
COMMAND = ("chalice", "package", "--merge-template", "resources.json")


@contextmanager
def packaging(project: Path) -> Iterator[Sequence[str]]:
    """The command that packages a project, which at most one process runs at a time.

    Chalice would reuse a package that another process is still writing, or left unfinished.
    """
    with locked(project / ".chalice"):
        for package in (project / DEPLOYMENTS).glob("*.zip"):
            if not zipfile.is_zipfile(package):
                package.unlink()
        yield COMMAND


def main() -> int:
    out = Path(sys.argv[1])
    # Chalice asks for a region, though the package is the same for all.
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
