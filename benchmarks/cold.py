"""Compares this app with Chalice's tutorial: a text to a function that has to start first.

Packages this app as `make package` does, and `tutorial.py` as `chalice package` does. Starts each
in a fresh process, as Lambda does (`bootstrap.py`), and sends it one text, then another, in a room
of 10, 100 or 1,000 members, over TLS. Prints Markdown tables.

    python -m benchmarks.cold --imports

prints the modules whose import takes longest.

    python -m benchmarks.cold --memory

prints what more memory would cost, and how much faster its CPU would make a text.
"""

import argparse
import json
import os
import re
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from benchmarks import REGION, tls_context
from benchmarks.bench import DELAY, ROOT, Target, certificates, describe_machine
from scripts.package import BIN, without_account

TABLE_DELAY = 0.004  # seconds: DynamoDB's time for a query
MEMBERS = [10, 100, 1_000]
GB_SECOND_PRICE = 16.7e-6  # dollars: Lambda's, on x86
WORK = ROOT / ".local" / "bench"
CGROUPS = Path("/sys/fs/cgroup")
PERIOD = 20_000  # µs: Lambda's, to judge by the steps in its CPU time

PHASES = ("interpreter", "import", "clients", "table reads", "connections", "posts")
SHARE = 512 / 1_769  # of a CPU: what Lambda gives a function of 512 MB


class Cpu(NamedTuple):
    """The CPU that a function gets, before and after its import."""

    name: str
    before: float
    after: float


CPUS = [
    Cpu("a whole CPU", 1, 1),
    Cpu("0.29 after the import", 1, SHARE),
    Cpu("0.29 throughout", SHARE, SHARE),
]


class Run(NamedTuple):
    """One process: seconds by phase of its first text, CPU seconds, and its second text."""

    phases: dict[str, float]
    import_cpu: float
    cpu: float  # from the start of the process to the end of the first text
    warm: float
    warm_cpu: float

    @property
    def cold(self) -> float:
        return sum(self.phases.values())


class Servers(NamedTuple):
    connections: int  # ports
    table: int
    authority: Path

    def environment(self) -> dict[str, str]:
        """The variables that Lambda sets, with addresses on this machine."""
        return {
            "AWS_LAMBDA_FUNCTION_NAME": "message",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_SESSION_TOKEN": "t" * 900,
            "AWS_ENDPOINT_URL_DYNAMODB": f"https://127.0.0.1:{self.table}",
            "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": self.address,
            "TABLE": "ChaliceChat",
        }

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.connections}/api"

    def counts(self) -> tuple[dict[str, float], dict[str, float]]:
        """The counts of the table and of the connections since the last call."""
        return count(self.table, self.tls), count(self.connections, self.tls)

    @property
    def tls(self) -> ssl.SSLContext | None:
        return tls_context(str(self.authority))


def count(port: int, tls: ssl.SSLContext | None) -> dict[str, float]:
    with urllib.request.urlopen(f"https://127.0.0.1:{port}/", context=tls) as answer:
        counts: dict[str, float] = json.load(answer)
        return counts


# Packages


def tutorials_package() -> Path:
    """The baseline, packaged by Chalice alone."""
    project = WORK / "tutorial"
    (project / ".chalice").mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "benchmarks" / "tutorial.py", project / "app.py")
    config = {"version": "2.0", "app_name": "tutorial", "stages": {"dev": {}}}
    (project / ".chalice" / "config.json").write_text(json.dumps(config))
    requirements = (ROOT / "requirements" / "app.in").read_text()
    (project / "requirements.txt").write_text(*re.findall("^boto3==.*", requirements, re.M))
    subprocess.run(
        [BIN / "chalice", "package", project / "out"],
        cwd=project,
        env=without_account(),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return project / "out" / "deployment.zip"


def our_package() -> Path:
    out = WORK / "app"
    command = [sys.executable, "-m", "scripts.package", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return out / "deployment.zip"


# A share of a CPU


@contextmanager
def group(share: float) -> Iterator[Path | None]:
    """The file through which a process joins a new control group; None for a whole CPU."""
    if share == 1:
        yield None
        return
    quota = str(round(share * PERIOD))
    old = CGROUPS / "cpu"
    directory = (old if old.is_dir() else CGROUPS) / f"bench-{os.getpid()}"
    directory.mkdir()
    try:
        if old.is_dir():
            (directory / "cpu.cfs_period_us").write_text(str(PERIOD))
            (directory / "cpu.cfs_quota_us").write_text(quota)
        else:
            (directory / "cpu.max").write_text(f"{quota} {PERIOD}")
        yield directory / "cgroup.procs"
    finally:
        directory.rmdir()


@cache
def has_groups() -> bool:
    with suppress(OSError), group(SHARE):
        return True
    return False


# Runs


@contextmanager
def function(
    package: Path, members: int, cpu: Cpu, servers: Servers
) -> Iterator["subprocess.Popen[str]"]:
    """A fresh process that has imported the package, and waits for texts."""
    with group(cpu.after if has_groups() else 1) as processes:
        before = processes if cpu.before < 1 else None
        after = processes if cpu.before == 1 else None

        def join() -> None:
            if before:
                before.write_text("0")

        arguments = [str(package), str(members), servers.address]
        if after:
            arguments.append(str(after))
        with subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", ROOT / "benchmarks" / "bootstrap.py", *arguments],
            env=servers.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=join,
        ) as process:
            assert process.stdout
            process.stdout.readline()
            servers.counts()  # it may have read the table
            yield process
            assert process.stdin
            process.stdin.close()


def run(package: Path, members: int, cpu: Cpu, servers: Servers) -> Run:
    """Two texts in a fresh process. Without control groups, times are computed from CPU."""
    spawned = time.monotonic()
    with function(package, members, cpu, servers) as process:
        cold, (table, api) = text(process, members, servers)
        warm, (_, warm_api) = text(process, members, servers)
    early = [spawned, cold["ready"][0], cold["imported"][0]]
    late = [cold["started"][0], table["first"], table["last"], api["first"], api["last"]]
    seconds = [*map(float.__sub__, early[1:], early), *map(float.__sub__, late[1:], late)]
    phases = dict(zip(PHASES, seconds, strict=True))
    result = Run(
        phases,
        cold["imported"][1] - cold["ready"][1],
        cold["ended"][1],
        warm_api["last"] - warm["started"][0],
        warm["ended"][1] - warm["started"][1],
    )
    return result if cpu.after == 1 or has_groups() else slowed(result, cpu)


Times = dict[str, tuple[float, float]]  # seconds and CPU seconds
Counts = tuple[dict[str, float], dict[str, float]]  # of the table and of the connections


def text(process: "subprocess.Popen[str]", members: int, servers: Servers) -> tuple[Times, Counts]:
    times, _, counts = any_text(process, servers)
    if not counts[1]["delivered"] == counts[1]["reached"] == members:
        raise AssertionError(f"the server says {counts[1]} of {members} members")
    return times, counts


def any_text(process: "subprocess.Popen[str]", servers: Servers) -> tuple[Times, float, Counts]:
    """A text that may not reach everybody; also returns the process's peak memory in MB."""
    assert process.stdin
    assert process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    printed = json.loads(process.stdout.readline())
    return printed["times"], printed["peak"], servers.counts()


def slowed(run: Run, cpu: Cpu) -> Run:
    """The run, made on a whole CPU, with the times that it would take on a share of one."""
    early = run.phases["interpreter"] + run.phases["import"]
    late_cpu = max(0.0, run.cpu - early)
    phases = dict(run.phases)
    for phase in ("interpreter", "import"):
        phases[phase] /= cpu.before
    phases["posts"] += late_cpu * (1 / cpu.after - 1)
    return run._replace(phases=phases, warm=run.warm + run.warm_cpu * (1 / cpu.after - 1))


Runs = dict[tuple[str, int, str], list[Run]]  # by package, members, CPU


def median(runs: list[Run], figure: Callable[[Run], float]) -> float:
    return statistics.median(map(figure, runs))


@contextmanager
def servers(delay: float = DELAY) -> Iterator[Servers]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        directory = Path(name)
        authority, certificate = certificates(directory)
        ports = []
        for api, its_delay in (("connections", delay), ("table", TABLE_DELAY)):
            command = [sys.executable, "-m", "benchmarks.server", api, "--delay", str(its_delay)]
            process = subprocess.Popen(
                [*command, "--certificate", certificate],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
            assert process.stdout
            ports.append(int(process.stdout.readline()))
        yield Servers(ports[0], ports[1], authority)


@contextmanager
def unpacked(packages: dict[str, Path], authority: Path) -> Iterator[dict[str, Path]]:
    """The directories of the unpacked packages.

    The servers' authority is added to those that come with botocore. No compiled files are added:
    `bootstrap.py` is started with -B.
    """
    with tempfile.TemporaryDirectory() as name:
        directories = {package: Path(name) / package for package in packages}
        for package, archive in packages.items():
            with zipfile.ZipFile(archive) as content:
                content.extractall(directories[package])
            with open(directories[package] / "botocore" / "cacert.pem", "a") as bundle:
                bundle.write(authority.read_text())
        yield directories


def measure(packages: dict[str, Path], repeat: int, cpus: list[Cpu]) -> Runs:
    """The packages take turns.

    On each CPU, the tutorial posts to 1,000 members in one run only, since that takes 30 s.
    """
    runs: Runs = {}
    with servers() as where, unpacked(packages, where.authority) as directories:
        for turn in range(repeat):
            for cpu in cpus:
                for members in MEMBERS:
                    for package, directory in directories.items():
                        if package == "tutorial" and members == MEMBERS[-1] and turn:
                            continue
                        one = run(directory, members, cpu, where)
                        runs.setdefault((package, members, cpu.name), []).append(one)
    return runs


# Tables


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--repeat", type=int, default=5, metavar="N", help="runs, reported by their median (5)"
    )
    parser.add_argument(
        "--before", type=Path, metavar="ZIP", help="compare with this older package as well"
    )
    parser.add_argument("--memory", action="store_true", help="compare sizes of memory")
    parser.add_argument("--imports", action="store_true", help="print what the imports take")
    options = parser.parse_args()
    if options.imports:
        print_imports(our_package())
    elif options.memory:
        print_memory(options.repeat)
    else:
        sys.exit(not run_all(options.repeat, options.before))


def run_all(repeat: int, before: Path | None = None) -> bool:
    """Run and print all cases; returns whether all targets are met."""
    packages = {"tutorial": tutorials_package()}
    if before:
        packages["before"] = before
    packages["this app"] = our_package()
    how = "by control groups" if has_groups() else "computed from CPU time"
    print(f"{describe_machine()}\n{DELAY * 1000:g} ms a post, {TABLE_DELAY * 1000:g} ms a query, ")
    print(f"TLS, shares of a CPU {how}, median of {repeat}")
    runs = measure(packages, repeat, CPUS)
    print_times(runs, list(packages))
    print_phases(runs, list(packages))
    return print_targets(runs, packages["this app"].stat().st_size / 1e6)


def print_times(runs: Runs, packages: list[str]) -> None:
    print("\n| CPU | members | | cold | times faster | CPU | warm | times faster | CPU |")
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|")
    for cpu in CPUS:
        for members in MEMBERS:
            first = runs["tutorial", members, cpu.name]
            for package in packages:
                some = runs[package, members, cpu.name]
                cells = [cpu.name, f"{members:,}", package]
                for wall, used in (
                    (lambda run: run.cold, lambda run: run.cpu),
                    (lambda run: run.warm, lambda run: run.warm_cpu),
                ):
                    seconds = median(some, wall)
                    faster = median(first, wall) / seconds
                    cells += [f"{seconds:.3f} s", f"{faster:.1f}"]
                    cells += [f"{median(some, used) * 1000:.0f} ms"]
                print(f"| {' | '.join(cells)} |")


def print_phases(runs: Runs, packages: list[str]) -> None:
    print(f"\n| ms, cold, 100 members | | {' | '.join(PHASES)} |")
    print(f"|---|---|{'---:|' * len(PHASES)}")
    for cpu in CPUS:
        for package in packages:
            some = runs[package, 100, cpu.name]
            split = {name: [run.phases[name] for run in some] for name in PHASES}
            cells = [f"{statistics.median(split[name]) * 1000:.0f}" for name in PHASES]
            print(f"| {cpu.name} | {package} | {' | '.join(cells)} |")


def print_targets(runs: Runs, megabytes: float) -> bool:
    def cold(package: str, members: int, cpu: Cpu) -> float:
        return median(runs[package, members, cpu.name], lambda run: run.cold)

    def import_cpu(package: str) -> float:
        return min(run.import_cpu for key in runs if key[0] == package for run in runs[key])

    def warm(package: str) -> float:
        return median(runs[package, 1_000, CPUS[0].name], lambda run: run.warm)

    _, as_on_lambda, _ = CPUS
    ours, theirs = (cold(package, 100, as_on_lambda) for package in ("this app", "tutorial"))
    targets = [
        Target(
            "import: share of the tutorial's CPU",
            import_cpu("this app") / import_cpu("tutorial"),
            0.5,
        ),
        Target(
            "100 members, cold, 0.29 of a CPU after the import: share of the tutorial's time",
            ours / theirs,
            0.25,
        ),
        Target(
            "1,000 members, warm: times faster than the tutorial",
            warm("tutorial") / warm("this app"),
            45,
            at_least=True,
        ),
        Target("package, MB", megabytes, 3.5),
    ]
    print("\n| target | | measured | |\n|---|---:|---:|---|")
    for target in targets:
        print(target)
    return all(target.met for target in targets)


def print_memory(repeat: int) -> None:
    """Lambda bills the import and the invocation, in proportion to the memory."""
    cpus = {size: Cpu(f"{size:,} MB", 1, min(1, size / 1_769)) for size in (512, 1_024, 1_769)}
    runs = measure({"this app": our_package()}, repeat, list(cpus.values()))
    print("| memory | members | cold | a million cold | warm | a million warm |")
    print("|---|---:|---:|---:|---:|---:|")
    for size, cpu in cpus.items():
        for members in MEMBERS:
            some = runs["this app", members, cpu.name]
            cells = [cpu.name, f"{members:,}"]
            for seconds in (median(some, lambda run: run.cold), median(some, lambda run: run.warm)):
                cost = seconds * size / 1_024 * GB_SECOND_PRICE * 1e6
                cells += [f"{seconds:.3f} s", f"${cost:.2f}"]
            print(f"| {' | '.join(cells)} |")


def print_imports(package: Path) -> None:
    """Prints the modules that take more than 5 ms, with their own imports."""
    python = [sys.executable, "-I", "-S", "-B", "-X", "importtime", "-c"]
    code = "import sys; sys.path.insert(0, sys.argv[1]); import app"
    with servers() as where, unpacked({"app": package}, where.authority) as directories:
        printed = subprocess.run(
            [*python, code, directories["app"]],
            env=where.environment(),
            stderr=subprocess.PIPE,
            text=True,
            check=True,
        ).stderr
    print("| module | ms | ms with its imports |\n|---|---:|---:|")
    for own, cumulative, name in re.findall(r"import time: +(\d+) \| +(\d+) \| +(.+)", printed):
        if int(cumulative) > 5_000:
            print(f"| `{name}` | {int(own) / 1000:.1f} | {int(cumulative) / 1000:.1f} |")


if __name__ == "__main__":
    main()
