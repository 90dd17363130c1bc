"""The messages of the Makefile's targets, and the installing of their tools."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from emulator.emulator import HOST, ROOT
from tests.e2e.actors import PATIENCE
from tests.e2e.conftest import Cloud, free_port
from tests.e2e.test_make_run import Script, one_line, script


def make(*arguments: str, cwd: Path = ROOT, **environment: str) -> tuple[int, str]:
    """The exit status of make, and its output without the line about that."""
    made = subprocess.run(
        ["make", "--silent", *arguments],
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = made.stdout.strip().splitlines()
    return made.returncode, "\n".join(line for line in lines if not line.startswith("make: ***"))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'pyenv: python3.14: command not found' >&2; exit 127", "pyenv: python3.14: command"),
        ("echo 3.10.12; exit 1", ""),
        (None, "not found"),
    ],
)
def test_a_python_that_will_not_do(tmp_path: Path, script: str | None, said: str) -> None:
    """The shell, or the shim of pyenv, says why."""
    python = tmp_path / "python3.14"
    if script is not None:
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
    status, printed = make("run", f"PYTHON={python}")
    assert status != 0
    assert said in printed
    assert printed.splitlines()[-1] == (
        f"{python} is not Python 3.11 or newer; install that, or name it: "
        "make PYTHON=python3.12 ..."
    )


@pytest.mark.parametrize("target", ["chat", "url", "people", "kick EVERYBODY=yes", "smoke", "load"])
def test_where_no_chat_runs_they_say_how_to_start_one(target: str) -> None:
    port = free_port()
    status, printed = make(*target.split(), PORT=str(port))
    assert status != 0
    assert one_line(printed).startswith(
        f"No chat runs here on port {port}: start it with `make run"
    )


def test_what_is_set_for_another_python_breaks_no_target(tmp_path: Path) -> None:
    for module in ("click", "six", "json"):
        (tmp_path / f"{module}.py").write_text("raise RuntimeError('the wrong module')\n")
    port = free_port()
    status, printed = make(
        "url",
        PORT=str(port),
        PYTHONHOME=str(tmp_path),
        PYTHONINSPECT="1",
        PYTHONOPTIMIZE="bogus",
        PYTHONPATH=str(tmp_path),
        PYTHONVERBOSE="1",
        PYTHONWARNINGS="error",
    )
    assert status != 0
    assert one_line(printed).startswith(f"No chat runs here on port {port}: ")


def test_a_stack_that_is_not_there(cloud: Cloud) -> None:
    for target in ("chat", "url", "people", "smoke", "logs"):
        status, printed = make(target, "STACK=Nope", cwd=ROOT, **cloud.emulator.environment)
        assert status != 0
        assert one_line(printed).startswith("There is no stack Nope in us-east-1")
    status, printed = make("delete", "STACK=Nope", cwd=ROOT, **cloud.emulator.environment)
    assert status != 0
    assert "Nope does not exist" in one_line(printed)


def test_without_a_region_it_is_packaged_and_asked_for_when_it_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    subprocess.run(
        [sys.executable, "-m", "scripts.package", str(tmp_path / "out")], cwd=ROOT, check=True
    )
    assert (tmp_path / "out" / "sam.json").exists()
    status, printed = make("url", "STACK=ChaliceChat")
    assert status != 0
    assert one_line(printed).startswith("Which region?")


OPTIONS = (
    *("STACK", "URL", "AS", "NICKNAME", "ROOM", "EVERYBODY", "EMAIL", "MINUTES", "PARAMETERS"),
    *("LOAD", "BENCH", "UPGRADE"),
)
TARGETS = ("chat", "url", "kick", "load", "bench", "deploy", "monitor", "logs", "delete", "lock")


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_counts_on_the_command_line_and_not_in_the_environment(option: str) -> None:
    def recipes(*arguments: str, **environment: str) -> list[str]:
        _, printed = make("--dry-run", *TARGETS, "BUCKET=mine", *arguments, cwd=ROOT, **environment)
        return [line for line in printed.splitlines() if " is ignored; " not in line]

    plain = recipes()
    assert recipes(**{option: "of-the-shell"}) == plain
    assert recipes(f"{option}=given", **{option: "of-the-shell"}) == recipes(f"{option}=given")
    assert recipes(f"{option}=given") != plain


def test_it_says_that_the_stack_of_the_environment_is_ignored() -> None:
    _, printed = make("--dry-run", "delete", STACK="Other")
    assert "STACK in the environment is ignored; use: make ... STACK=Other" in printed
    _, printed = make("--dry-run", "delete", STACK="$(shell echo Other)")
    assert "STACK=$(shell echo Other)" in printed


# Installing

SAID = "Installing Chalice and the AWS CLI into .venv: 225 MB.\n"
INSTALLERS = ("__init__.py", "install", "registry.py", "uv.sh")
INSTALLED_ONE = "Installed 1 package in "
WORKS = "works"  # what `make url` prints in the clones below


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A clone whose layers are one tiny package, in which `make url` has run, and its output."""
    clone = tmp_path_factory.mktemp("clones") / "it's $HOME and q\"uote"
    shutil.copytree(ROOT / "requirements", clone / "requirements")
    (clone / "scripts").mkdir()
    for name in ("Makefile", *(f"scripts/{each}" for each in INSTALLERS)):
        shutil.copy(ROOT / name, clone / name)
    (clone / "scripts" / "address.py").write_text("import tiny\nprint(tiny.WORD)\n")
    wheel = clone.with_name("tiny-1-py3-none-any.whl")
    with zipfile.ZipFile(wheel, "w") as files:
        files.writestr("tiny.py", f"WORD = {WORKS!r}\n")
        command = zipfile.ZipInfo("tiny-1.data/scripts/tiny")
        command.external_attr = 0o100755 << 16
        files.writestr(command, "#!python\nimport tiny\nprint(tiny.WORD)\n")
        metadata = "Metadata-Version: 2.1\nName: tiny\nVersion: 1\n"
        files.writestr("tiny-1.dist-info/METADATA", metadata)
        files.writestr("tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        files.writestr("tiny-1.dist-info/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    for layer in ("run", "dev"):
        pinned = clone / "requirements" / f"{layer}.txt"
        pinned.write_text(f"tiny @ {wheel.as_uri()} --hash=sha256:{digest}\n# {layer}\n")
    hostile = tmp_path_factory.mktemp("hostile")
    (hostile / "json.py").write_text("raise RuntimeError('the wrong module')\n")
    nowhere = str(hostile / "nowhere")
    (hostile / "pip.conf").write_text(
        f"[global]\nuser = true\ndry-run = true\n[install]\nroot = {nowhere}\nplatform = any\n"
    )
    (hostile / "uv").mkdir()
    (hostile / "uv" / "uv.toml").write_text(f'[pip]\ntarget = "{nowhere}"\n')
    (clone.parent / "pyproject.toml").write_text(f'[tool.uv.pip]\nprefix = "{nowhere}"\n')
    status, printed = make(
        *("url", f"PYTHON={sys.executable}"),
        cwd=clone,
        PATH=path_without_uv(),
        PIP_CONFIG_FILE=str(hostile / "pip.conf"),
        PIP_DRY_RUN="1",
        PIP_PREFIX=nowhere,
        PIP_TARGET=nowhere,
        PIP_USER="1",
        PYTHONHOME=nowhere,
        PYTHONOPTIMIZE="2",
        PYTHONPATH=str(hostile),
        PYTHONPYCACHEPREFIX=nowhere,
        PYTHONSAFEPATH="1",
        UV_CONFIG_FILE=str(hostile / "uv" / "uv.toml"),
        UV_DRY_RUN="1",
        UV_PYTHON="3.5",
        UV_TARGET=nowhere,
        VIRTUAL_ENV=nowhere,
        XDG_CONFIG_HOME=str(hostile),
    )
    assert status == 0, printed
    assert not Path(nowhere).exists()
    return clone, printed


def path_without_uv() -> str:
    directories = os.environ["PATH"].split(":")
    return ":".join(each for each in directories if not (Path(each) / "uv").exists())


@pytest.fixture
def clone(first: tuple[Path, str], tmp_path: Path) -> Path:
    """It, moved. Its environments move with it."""
    clone, _ = first
    return Path(shutil.copytree(clone, tmp_path / clone.name, symlinks=True))


def test_nothing_of_the_callers_python_pip_or_uv_changes_what_is_installed(
    first: tuple[Path, str],
) -> None:
    clone, printed = first
    assert printed.startswith(SAID)
    assert f"\n{INSTALLED_ONE}" in printed
    assert printed.endswith(f"\n{WORKS}")
    assert list(clone.glob(".venv/lib/*/site-packages/__pycache__/tiny.*-3*[0-9].pyc"))


ECHO = "import os, sys; print(*sys.argv, os.environ['PORT'], os.environ.get('SIGN_IN'))\n"
WITH_OPTIONS = [
    ("chat", "AS"),
    *((target, "URL") for target in ("chat", "url", "people", "smoke", "load")),
    *((target, "STACK") for target in ("chat", "deploy", "monitor", "logs", "delete")),
    *(("kick", option) for option in ("NICKNAME", "ROOM", "EVERYBODY")),
    ("deploy", "BUCKET"),
    ("monitor", "EMAIL"),
    ("logs", "MINUTES"),
    ("url", "PORT"),
    ("url", "SIGN_IN"),
]


@pytest.mark.parametrize(("target", "option"), WITH_OPTIONS)
def test_neither_make_nor_a_shell_expands_an_option(clone: Path, target: str, option: str) -> None:
    for module in ("address", "chat", "deploy", "load", "logs", "people", "smoke"):
        (clone / "scripts" / f"{module}.py").write_text(ECHO)
    aws = clone / ".venv" / "bin" / "aws"
    aws.write_text('#!/bin/sh\necho "$*" >&2\n')
    aws.chmod(0o755)
    value = 'it\'s "$HOME" `touch x` $(shell touch x) $$ # *'
    bucket = [] if option == "BUCKET" else ["BUCKET=mine"]
    status, printed = make(target, f"{option}={value}", *bucket, cwd=clone)
    assert status == 0
    assert value in printed
    assert not (clone / "x").exists()


def test_what_is_there_is_used_in_silence_and_after_a_move(clone: Path) -> None:
    assert make("url", cwd=clone, PATH=f"/nowhere:{path_without_uv()}") == (0, WORKS)
    assert subprocess.check_output([clone / ".venv" / "bin" / "tiny"], text=True) == f"{WORKS}\n"
    shown = ["sh", "-c", ". .venv/bin/activate && tiny"]
    assert subprocess.check_output(shown, cwd=clone, text=True) == f"{WORKS}\n"


def add_a_line(requirements: Path) -> None:
    requirements.write_text(f"{requirements.read_text()}# changed\n")


def test_changed_requirements_are_installed_with_those_of_the_tests_if_these_were_there(
    clone: Path,
) -> None:
    requirements = clone / "requirements"
    add_a_line(requirements / "run.txt")
    (clone / ".venv" / "left").touch()
    assert make("url", cwd=clone)[1].startswith(SAID)
    assert not (clone / ".venv" / "left").exists()

    make("format", cwd=clone)  # has no ruff, and fails
    (clone / ".venv" / "kept").touch()
    assert make("url", cwd=clone) == (0, WORKS)
    assert (clone / ".venv" / "kept").exists()
    for layer in ("run", "dev"):
        add_a_line(requirements / f"{layer}.txt")
    assert make("url", cwd=clone)[1].startswith("Installing all that tests and checks need")
    assert make("url", cwd=clone) == (0, WORKS)


def test_a_linked_environment_is_used_as_it_is_and_never_changed(clone: Path) -> None:
    link, linked = clone / ".venv", clone.with_name("linked")
    link.rename(linked)
    link.symlink_to(linked)
    assert make("url", cwd=clone) == (0, WORKS)
    assert link.is_symlink()
    before = sorted(linked.rglob("*"))
    add_a_line(clone / "requirements" / "run.txt")
    assert make("url", cwd=clone)[1].startswith(SAID)
    assert sorted(linked.rglob("*")) == before
    assert not link.is_symlink()


def test_another_python_gets_an_environment_of_its_own_if_it_is_named(clone: Path) -> None:
    settings = clone / ".venv" / "pyvenv.cfg"
    of_this = settings.read_text()
    settings.write_text(of_this.replace("\nversion_info = ", "\nversion_info = 2."))
    assert settings.read_text() != of_this
    assert make("url", cwd=clone) == (0, WORKS)
    assert make("url", f"PYTHON={sys.executable}", cwd=clone)[1].startswith(SAID)
    assert make("url", f"PYTHON={sys.executable}", cwd=clone) == (0, WORKS)

    python = clone / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/uninstalled/python")
    assert make("url", cwd=clone)[1].startswith(SAID)


def test_the_python_that_was_named_once_also_makes_later_environments(
    clone: Path, tmp_path: Path
) -> None:
    """Whatever python3 is on PATH."""
    python3 = tmp_path / "bin" / "python3"
    python3.parent.mkdir()
    python3.write_text("#!/bin/sh\nexit 1\n")
    python3.chmod(0o755)
    path = f"{python3.parent}:{os.environ['PATH']}"
    for layer, target in (("run", "url"), ("dev", "format")):
        add_a_line(clone / "requirements" / f"{layer}.txt")
        assert "is not Python 3.11" not in make(target, cwd=clone, PATH=path)[1]
        assert (clone / ".venv" / f"{layer}.txt").exists()
    assert make("url", cwd=clone, PATH=path) == (0, WORKS)


@pytest.fixture
def silent_index() -> Iterator[socket.socket]:
    with socket.create_server((HOST, 0)) as index:
        index.settimeout(PATIENCE)
        yield index


VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
IN_PIP_CONF = {"index-url": "{0}", "extra-index-url": "\n  {0}/one\n  {0}/other"}


@pytest.mark.parametrize("setting", [*VARIABLES, *IN_PIP_CONF])
def test_control_c_leaves_nothing_of_an_install_from_the_registry_of_this_machine(
    clone: Path,
    silent_index: socket.socket,
    setting: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"http://{HOST}:{silent_index.getsockname()[1]}/simple"
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", HOST)
    if setting in VARIABLES:
        monkeypatch.setenv(setting, url)
    else:
        value = IN_PIP_CONF[setting].format(url)
        (tmp_path / "pip.conf").write_text(f"[global]\n{setting} = {value}\n")
        monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    requirements = clone / "requirements" / "run.txt"
    tiny = requirements.read_text()
    requirements.write_text(f"nothing==1 --hash=sha256:{'0' * 64}\n")
    before = {path for path in clone.rglob("*") if "__pycache__" not in path.parts}
    with making(clone) as first:
        asking, _ = silent_index.accept()
        with asking:
            requirements.write_text(f"{tiny}# and no more\n")
            with making(clone) as second:  # does not wait for it
                assert second.ends() == 0
                assert second.printed.endswith(f"\n{WORKS}\n")
            first.gets(signal.SIGINT)
            assert first.ends() != 0
    assert WORKS not in first.printed
    assert {path for path in clone.rglob("*") if "__pycache__" not in path.parts} == before


def making(clone: Path) -> AbstractContextManager[Script]:
    return script("url", 0, command=["make", "--silent", "url"], cwd=clone)


def test_a_failed_install_says_what_uv_said(clone: Path) -> None:
    requirements = clone / "requirements" / "run.txt"
    digest = requirements.read_text().split("sha256:")[1][:64]
    requirements.write_text(requirements.read_text().replace(digest, "0" * 64))
    shutil.rmtree(clone / ".venv")
    status, printed = make("url", cwd=clone)
    assert status != 0
    assert "Hash mismatch" in printed
    assert printed.endswith("\nInstalling failed, see above.")
    assert not (clone / ".venv").exists()


def test_a_path_with_a_colon_is_refused_in_one_line(clone: Path) -> None:
    there = clone.rename(clone.with_name("10:30 \\code"))
    assert make("url", cwd=there) == (0, WORKS)
    shutil.rmtree(there / ".venv")
    status, printed = make("url", cwd=there)
    assert status != 0
    assert one_line(printed).startswith("An environment of Python cannot be in a path with a colon")
    assert f": move {there} elsewhere." in printed
    assert not (there / ".venv").exists()


@pytest.mark.parametrize("version", ["0.4.30", "0.5.0", "1.0.0"])
def test_an_installed_uv_is_used_if_it_is_new_enough(
    clone: Path, tmp_path: Path, version: str
) -> None:
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(f"#!/bin/sh\necho 'uv {version} (2024-11-07)'\n")
    uv.chmod(0o755)
    variables = os.environ | {"PYTHON": sys.executable, "PATH": f"{uv.parent}:{os.environ['PATH']}"}
    used = subprocess.check_output(
        ["sh", "-c", ". scripts/uv.sh; $uv --version"], cwd=clone, env=variables
    )
    assert used.decode().startswith(f"uv {version} ") == (version != "0.4.30")


def test_a_python_without_its_module_venv(clone: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    of_debian = 'mkdir -p "$3"; echo apt install python3.11-venv; exit 1'
    python.write_text(f'#!/bin/sh\ncase "$*" in *venv*) {of_debian} ;; *) exit 1 ;; esac\n')
    python.chmod(0o755)
    shutil.rmtree(clone / ".local")
    variables = os.environ | {"PYTHON": str(python), "PATH": path_without_uv()}
    asked = ["sh", "-c", ". scripts/uv.sh; $uv --version"]
    failed = subprocess.run(asked, cwd=clone, env=variables, capture_output=True, text=True)
    assert failed.returncode != 0
    assert failed.stdout == "apt install python3.11-venv\n"
    assert one_line(failed.stderr).startswith("uv, which installs the rest, could not be installed")
    assert not list((clone / ".local").iterdir())


def test_make_deploy_asks_for_the_bucket_before_it_installs_anything(clone: Path) -> None:
    shutil.rmtree(clone / ".venv")
    status, printed = make("deploy", cwd=clone)
    assert status != 0
    assert one_line(printed).startswith("Which bucket?")
    assert not (clone / ".venv").exists()
