"""`python -m scripts.registry`: prints the settings of the package registry for a shell.

These are pip's settings, as variables of pip and uv. pip's files are then turned off, because their
other settings could add, move or leave out packages.
"""

import os
import re
import shlex
import subprocess
import sys
from ast import literal_eval
from collections.abc import Mapping
from importlib.util import find_spec

from scripts import Failure

SECTIONS = ("global", "install", "download")  # of pip's files; later ones win
UV = {  # uv's variables, by the name of pip's setting
    "index-url": "UV_INDEX_URL",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
}
NOT_FOR_UV = ("no-index", "keyring-provider", "cache-dir", "timeout", "default-timeout", "retries")
VARIABLES = {name: f"PIP_{name.upper().replace('-', '_')}" for name in (*UV, *NOT_FOR_UV)}
SETTING = re.compile(rf"^({'|'.join(SECTIONS)})\.({'|'.join(VARIABLES)})=(.+)$", re.MULTILINE)


def settings() -> dict[str, str]:
    """pip's settings of the registry, by name. Variables win over files.

    Without pip, only variables count. Raises a Failure if pip cannot read its files.
    """
    listed = ""
    if find_spec("pip"):
        command = [sys.executable, "-m", "pip", "config", "list"]
        environment = os.environ | {"PIP_QUIET": "0"}
        asked = subprocess.run(command, env=environment, capture_output=True, text=True)
        if asked.returncode != 0:
            raise Failure(f"{asked.stderr.strip()}\npip cannot read its settings, see above.")
        listed = asked.stdout
    found = sorted(SETTING.findall(listed), key=lambda each: SECTIONS.index(each[0]))
    values = [(name, literal_eval(value)) for _, name, value in found]
    values += [(name, os.environ.get(variable, "")) for name, variable in VARIABLES.items()]
    return {name: " ".join(value.split()) for name, value in values if value}


def for_pip(found: Mapping[str, str]) -> dict[str, str]:
    """pip's variables for these settings, and the one that turns its files off."""
    return {VARIABLES[name]: found[name] for name in found} | {"PIP_CONFIG_FILE": os.devnull}


def for_uv(found: Mapping[str, str]) -> dict[str, str]:
    """uv's variables for these settings, except those that are set already."""
    variables = {UV[name]: os.path.expanduser(found[name]) for name in found if name in UV}
    if links := found.get("find-links"):
        variables["UV_FIND_LINKS"] = ",".join(map(os.path.expanduser, links.split()))
    return {name: value for name, value in variables.items() if not os.environ.get(name)}


def main() -> None:
    try:
        found = settings()
    except Failure as failure:
        sys.exit(str(failure))
    for name, value in (for_pip(found) | for_uv(found)).items():
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()
