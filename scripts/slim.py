"""Makes deployment packages smaller, and quicker to import.

Most of Chalice's package is botocore's data on services that the chat does not call. Its Python
files would be compiled at every cold start, since Lambda's file system is read-only. Without that
data and with compiled files, the package is an eighth as large.
"""

from __future__ import annotations

import compileall
import json
import py_compile
import re
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

# Services that the functions call; botocore's data on all others is left out.
SERVICES = ("apigatewaymanagementapi", "dynamodb", "lambda")
ENDPOINTS = {"dynamodb", "execute-api", "lambda"}  # their names in endpoints.json
# AWS's certificates are of Amazon Trust Services, whose roots these are (amazontrust.com:
# "Repository"), or were of DigiCert. Each connection loads the list anew.
AUTHORITIES = ("Amazon", "Starfield", "DigiCert")
FOR_TOKENS = ("jwt", "pyjwt", "cryptography", "cffi", "_cffi_backend", "pycparser")
LAMBDA_TASK_ROOT = "/var/task"  # the path of the code in tracebacks


def slim(out: Path) -> None:
    """Rewrites the package in a directory that `chalice package` wrote, and the template beside it.

    The authorizer gets a package of its own, the only one with the library for tokens. The same
    package gives the same bytes.
    """
    template = json.loads((out / "sam.json").read_text())
    template["Resources"]["Authorize"]["Properties"]["CodeUri"] = "./authorizer.zip"
    with tempfile.TemporaryDirectory() as directory:
        files = Path(directory)
        with zipfile.ZipFile(out / "deployment.zip") as package:
            package.extractall(files, [name for name in package.namelist() if is_needed(name)])
        cut_endpoints(files / "botocore" / "data" / "endpoints.json")
        cut_authorities(files / "botocore" / "cacert.pem")
        compileall.compile_dir(
            files,
            ddir=LAMBDA_TASK_ROOT,
            quiet=2,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        write(out / "authorizer.zip", files, lambda name: True)
        write(out / "deployment.zip", files, lambda name: not name.lower().startswith(FOR_TOKENS))
    (out / "sam.json").write_text(json.dumps(template, indent=2))


def cut_endpoints(file: Path) -> None:
    """Leaves out the addresses of other services: 1.2 MB, parsed for the first client."""
    endpoints = json.loads(file.read_text())
    for partition in endpoints["partitions"]:
        services = partition["services"]
        partition["services"] = {name: services[name] for name in ENDPOINTS & services.keys()}
    file.write_text(json.dumps(endpoints, sort_keys=True))


def cut_authorities(bundle: Path) -> None:
    """Leaves out the authorities that issue no certificates of AWS."""
    certificates = re.split("(?=^# Issuer: )", bundle.read_text(), flags=re.MULTILINE)
    organisation = re.compile(f"^# Issuer: .*O=({'|'.join(AUTHORITIES)})")
    bundle.write_text("".join(filter(organisation.match, certificates)))


def write(archive: Path, files: Path, is_part: Callable[[str], bool]) -> None:
    with zipfile.ZipFile(archive, "w") as package:
        for file in sorted(files.rglob("*")):
            name = str(file.relative_to(files))
            if file.is_file() and is_part(name):
                add(package, name, file.read_bytes())


def is_needed(name: str) -> bool:
    package, *parts = name.split("/")
    if "__pycache__" in parts:  # from the packaging machine; `slim` compiles again
        return False
    if package in ("boto3", "botocore") and parts[0] == "data" and len(parts) > 2:
        return parts[1] in SERVICES
    return True


def add(package: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Adds a file without a timestamp, so that unchanged code is not deployed again."""
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o644 << 16
    package.writestr(entry, content, zipfile.ZIP_DEFLATED)
