"""`python -m scripts.audit`: looks for known vulnerabilities in all packages that are pinned.

Fails if a package that ships is vulnerable; vulnerable tools are only shown.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PIP_AUDIT = ROOT / ".venv-scan" / "bin" / "pip-audit"
SHIPS = "requirements.txt"
PINNED = (SHIPS, *(f"requirements/{name}.txt" for name in ("dev", "emulator", "scan")))


def main() -> int:
    failed = False
    for pinned in PINNED:
        packages = audit(ROOT / pinned)
        audited = [package for package in packages if "skip_reason" not in package]
        if not audited:
            print(
                f"Not audited: {pinned}, since PyPI's database of vulnerabilities is out of reach."
            )
            break
        print(f"{pinned}: {len(audited)} of {len(packages)} packages audited")
        for package in audited:
            for hole in package["vulns"]:
                failed |= pinned == SHIPS
                fixed = ", ".join(hole["fix_versions"]) or "no version yet"
                print(f"  {package['name']} {package['version']}: {hole['id']}, fixed in {fixed}")
    return int(failed)


def audit(pinned: Path) -> list[dict[str, Any]]:
    """pip-audit's report on each package; empty if it could not reach the database."""
    command = (PIP_AUDIT, "--disable-pip", "--progress-spinner", "off", "--format", "json")
    asked = subprocess.run([*command, "--requirement", pinned], capture_output=True, text=True)
    if not asked.stdout:
        print("".join(asked.stderr.splitlines(keepends=True)[-1:]), end="")
        return []
    packages: list[dict[str, Any]] = json.loads(asked.stdout)["dependencies"]
    return packages


if __name__ == "__main__":
    sys.exit(main())
