"""`python -m scripts.registry`: prints pip's settings of the package registry, for a shell.

They are for pip and for uv. All other settings of pip could change what is installed, so its files
are turned off.
"""

import os
import re
import shlex
import subprocess
import sys
from ast import literal_eval
from collections.abc import Mapping

from scripts import Failure

SECTIONS = ("global", "install", "download", ":env:")  # of pip's configuration; the later one wins
UV = {  # its variables, by pip's setting
    "index-url": "UV_INDEX_URL",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
}
NOT_FOR_UV = ("no-index", "keyring-provider", "cache-dir", "timeout", "default-timeout", "retries")
SETTING = re.compile(
    rf"^({'|'.join(SECTIONS)})\.({'|'.join([*UV, *NOT_FOR_UV])})=(.+)$", re.MULTILINE
)


def settings() -> dict[str, str]:
    """pip's settings of the registry, by name. Raises a Failure if pip cannot read its files."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(
        command, env=os.environ | {"PIP_QUIET": "0"}, capture_output=True, text=True
    )
    if listed.returncode != 0:
        raise Failure(f"{listed.stderr.strip()}\npip cannot read its settings, see above.")
    found = sorted(SETTING.findall(listed.stdout), key=lambda each: SECTIONS.index(each[0]))
    parts = {name: literal_eval(value).split() for _, name, value in found if literal_eval(value)}
    return {name: " ".join(map(os.path.expanduser, each)) for name, each in parts.items()}


def for_pip(found: Mapping[str, str]) -> dict[str, str]:
    """Settings as variables, and one more variable that turns pip's files off."""
    variables = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in found.items()}
    return variables | {"PIP_CONFIG_FILE": os.devnull}


def for_uv(settings: Mapping[str, str]) -> dict[str, str]:
    """Settings as variables, except those that the environment has already."""
    found = {UV[name]: value for name, value in settings.items() if name in UV}
    if "UV_FIND_LINKS" in found:
        found["UV_FIND_LINKS"] = found["UV_FIND_LINKS"].replace(" ", ",")
    return {name: value for name, value in found.items() if not os.environ.get(name)}


def main() -> None:
    try:
        found = settings()
    except Failure as failure:
        sys.exit(str(failure))
    for name, value in (for_pip(found) | for_uv(found)).items():
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()
