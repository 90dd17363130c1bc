"""Makes deployment packages smaller, and quicker to import.

Most of Chalice's package is botocore's data on services that the chat does not call with boto3.
Without that data, the package is a seventh as large. Its Python files are compiled here: Lambda's
file system is read-only, so they would be compiled at every cold start.
"""

from __future__ import annotations

import compileall
import hashlib
import json
import py_compile
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

# Services that the functions call with boto3; botocore's data on all others is left out.
SERVICES = ("apigatewaymanagementapi", "dynamodb")
PREFIXES = ("execute-api", "dynamodb")  # of their endpoints: `endpointPrefix` in the data
ENDPOINTS = Path("botocore", "data", "endpoints.json")
FOR_TOKENS = ("jwt", "pyjwt", "cryptography", "cffi", "_cffi_backend", "pycparser")
LAMBDA_TASK_ROOT = "/var/task"  # the path of the code in tracebacks


def slim(out: Path, kept: Path, libraries: Path | None = None) -> None:
    """Rewrites the package and the template that `chalice package` wrote to a directory.

    The authorizer gets a package of its own, the only one with the library for tokens. The same
    package gives the same bytes. The directory `kept` keeps the rewritten libraries for the next
    call: rewriting them takes most of the time, and they seldom change. `libraries` is the package
    with the libraries, if they are in another one.
    """
    template = json.loads((out / "sam.json").read_text())
    template["Resources"]["Authorize"]["Properties"]["CodeUri"] = "./authorizer.zip"
    original = (out / "deployment.zip").rename(out / "original.zip")
    with zipfile.ZipFile(original) as package, zipfile.ZipFile(libraries or original) as other:
        code = [
            entry
            for entry in package.infolist()
            if is_needed(entry.filename) and is_code(entry.filename)
        ]
        entries = [
            entry
            for entry in other.infolist()
            if is_needed(entry.filename) and not is_code(entry.filename)
        ]
        shared = [entry for entry in entries if not is_for_tokens(entry.filename)]
        for_tokens = [entry for entry in entries if is_for_tokens(entry.filename)]
        archive = kept / f"libraries-{digest(shared)}.zip"
        with_tokens = kept / f"libraries-{digest(entries)}.zip"
        if not (archive.exists() and with_tokens.exists()):
            archive.unlink(missing_ok=True)  # of an interrupted call
            rewrite(other, shared, archive)
            unfinished = with_tokens.with_suffix(".unfinished")
            shutil.copyfile(archive, unfinished)
            rewrite(other, for_tokens, unfinished)
            unfinished.rename(with_tokens)
        for name, libraries_of in (("authorizer.zip", with_tokens), ("deployment.zip", archive)):
            shutil.copyfile(libraries_of, out / name)
            rewrite(package, code, out / name)
    original.unlink()
    (out / "sam.json").write_text(json.dumps(template, indent=2))


def digest(entries: Sequence[zipfile.ZipInfo]) -> str:
    """A hash that differs if rewriting the entries would give different bytes."""
    contents = [(entry.filename, entry.CRC) for entry in entries]
    rewriting = (Path(__file__).read_text(), sys.implementation.cache_tag)
    return hashlib.sha256(repr((sorted(contents), rewriting)).encode()).hexdigest()[:32]


def rewrite(package: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo], archive: Path) -> None:
    """Adds files of a package to an archive, with their compiled versions.

    The copies have no timestamps, so that unchanged code is not deployed again.
    """
    with tempfile.TemporaryDirectory() as directory, zipfile.ZipFile(archive, "a") as target:
        files = Path(directory)
        package.extractall(files, [entry.filename for entry in entries])
        if (files / ENDPOINTS).exists():
            shorten(files / ENDPOINTS)
        sys.pycache_prefix = None  # whatever the caller's shell says
        compileall.compile_dir(
            files,
            ddir=LAMBDA_TASK_ROOT,
            quiet=2,
            optimize=0,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        for file in sorted(files.rglob("*")):
            if file.is_file():
                entry = zipfile.ZipInfo(str(file.relative_to(files)))
                entry.external_attr = 0o644 << 16
                target.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)


def shorten(endpoints: Path) -> None:
    """Leaves only the endpoints of `SERVICES`; parsing the others takes 4% of an import."""
    content = json.loads(endpoints.read_text())
    for partition in content["partitions"]:
        services = partition["services"]
        partition["services"] = {name: services[name] for name in PREFIXES if name in services}
    endpoints.write_text(json.dumps(content))


def is_for_tokens(name: str) -> bool:
    return name.lower().startswith(FOR_TOKENS)


def is_code(name: str) -> bool:
    return name.startswith(("app.py", "chalicelib/"))


def is_needed(name: str) -> bool:
    package, *parts = name.split("/")
    if "__pycache__" in parts:  # from the packaging machine; `rewrite` makes new ones
        return False
    if package in ("boto3", "botocore") and parts[0] == "data" and len(parts) > 2:
        return parts[1] in SERVICES
    return True
