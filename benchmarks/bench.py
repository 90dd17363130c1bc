"""Measures how long a message takes to reach the last of many members, and its cost.

Starts a local @connections server that answers after 8 ms, and posts one message to 10, 100, 1,000
and 10,000 members: one after another, over a thread pool, and with this app's poster; then to 1,000
with some gone or throttled. Then measures texts to functions that have to start first (`cold.py`),
and to rooms of 10,000 and more (`large.py`). Prints Markdown tables. Takes about 10 minutes on an
idle machine. The exit status is 1 when a target
is missed.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import trustme

from chalicelib.posting import POOL_SIZE
from scripts.package import without_account

DELAY = 0.008  # seconds: API Gateway's time for a post, at the low end
MEMBERS = [10, 100, 1_000, 10_000]
ROOT = Path(__file__).resolve().parent.parent

CASES = {
    "one": "one after another (boto3)",
    "threads": f"{POOL_SIZE} threads (boto3)",
    "ours": "this app",
}
ENGINES = {
    "ours": "`selectors`: this app",
    "asyncio": "`asyncio`",
    "http.client": f"`http.client`, {POOL_SIZE} threads",
    "libcurl": "libcurl (`pycurl`)",
}
TROUBLE = {
    "1% gone": ["--gone", "0.01"],
    "10% gone": ["--gone", "0.1"],
    "1% throttled": ["--throttled", "0.01"],
}

Figures = dict[str, float]  # seconds, CPU in µs a post, peak memory in MB
Runs = dict[str, list[Figures]]  # by case
Ask = Callable[[str, int], Figures]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="leave out 10,000 members one after another, which takes 100 s",
    )
    parser.add_argument("--tls", action="store_true", help="over TLS with handshakes, as on AWS")
    parser.add_argument(
        "--repeat", type=int, default=3, metavar="N", help="runs, reported by their median (3)"
    )
    parser.add_argument(
        "--svg",
        type=Path,
        metavar="FILE",
        help="draw the times into this file",
    )
    parser.add_argument(
        "--engines",
        action="store_true",
        help="compare other HTTP clients instead: 1,000 members, over TLS",
    )
    options = parser.parse_args()
    if options.engines:
        compare_engines(options)
        return
    from benchmarks import cold, large  # here, since they import this module

    met = [run_all(options), cold.run_all(options.repeat)]
    large.main()
    sys.exit(not all(met))


def run_all(options: argparse.Namespace) -> bool:
    """Run and print all cases; returns whether all targets are met."""
    machine = describe_machine()
    setting = f"{DELAY * 1000:g} ms an answer, {'TLS' if options.tls else 'HTTP'}, new connections"
    print(f"{machine}\n{setting}, median of {options.repeat}")
    with tempfile.TemporaryDirectory() as directory:
        tls = certificates(Path(directory)) if options.tls else None
        print_header("")
        results = {}
        with server(tls, []) as ask:
            for members in MEMBERS:
                results[members] = measure(members, ask, options)
                print_rows(f"{members:,} members", results[members])
        print_header("1,000 members")
        for name, arguments in TROUBLE.items():
            with server(tls, arguments) as ask:
                print_rows(name, measure(1_000, ask, options))
    if options.svg:
        draw(results, f"{machine}; {setting}", options.svg)
    return print_targets(results)


def compare_engines(options: argparse.Namespace) -> None:
    engines = dict(ENGINES)
    if not find_spec("pycurl"):
        print("pycurl is not installed: leaving out libcurl")
        del engines["libcurl"]
    runs: Runs = {}
    with (
        tempfile.TemporaryDirectory() as directory,
        server(certificates(Path(directory)), []) as ask,
    ):
        for _ in range(options.repeat):
            for case in engines:
                runs.setdefault(case, []).append(ask(case, 1_000))
    print(f"{describe_machine()}\n{DELAY * 1000:g} ms an answer, TLS, new connections\n")
    print("| 1,000 members | last member after | CPU a post | times ours | peak memory | package |")
    print("|---|---:|---:|---:|---:|---:|")
    for case, name in engines.items():
        seconds, cpu, peak = (median(runs[case], key) for key in ("seconds", "cpu", "peak"))
        times = cpu / median(runs["ours"], "cpu")
        package = f"+{size('pycurl'):.1f} MB" if case == "libcurl" else ""
        figures = f"{seconds:.3f} s | {cpu:.0f} µs | {times:.1f} | {peak:.1f} MB"
        print(f"| {name} | {figures} | {package} |")


def size(distribution: str) -> float:
    """The size of an installed package, in MB."""
    files = metadata.files(distribution) or []
    paths = (Path(str(file.locate())) for file in files if file.suffix != ".pyc")
    return sum(path.stat().st_size for path in paths if path.exists()) / 1e6


def certificates(directory: Path) -> tuple[Path, Path]:
    """PEM files of an authority, and of a server on 127.0.0.1 with its key; RSA, as on AWS."""
    authority = trustme.CA(key_type=trustme.KeyType.RSA)
    certificate = authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.RSA)
    paths = directory / "ca.pem", directory / "server.pem"
    authority.cert_pem.write_to_path(str(paths[0]))
    certificate.private_key_and_cert_chain_pem.write_to_path(str(paths[1]))
    return paths


@contextmanager
def server(tls: tuple[Path, Path] | None, arguments: list[str]) -> Iterator[Ask]:
    """Start a server; yields a function that runs one case against it."""
    python = [sys.executable, "-m"]
    command = [*python, "benchmarks.server", "connections", "--delay", str(DELAY), *arguments]
    if tls:
        command += ["--certificate", str(tls[1])]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        port = int(process.stdout.readline())
        where = (
            [f"https://127.0.0.1:{port}/api", str(tls[0])]
            if tls
            else [f"http://127.0.0.1:{port}/api"]
        )

        def ask(case: str, members: int) -> Figures:
            command = [*python, "benchmarks.cases", case, str(members), *where]
            figures: Figures = json.loads(
                subprocess.check_output(command, cwd=ROOT, env=without_account())
            )
            return figures

        try:
            yield ask
        finally:
            process.terminate()


def measure(members: int, ask: Ask, options: argparse.Namespace) -> Runs:
    """The cases take turns, so that a busy moment of the machine affects them all."""
    runs: Runs = {}
    for turn in range(options.repeat):
        for case in CASES:
            long = case == "one" and members == MEMBERS[-1]
            if not long or (turn == 0 and not options.quick):
                runs.setdefault(case, []).append(ask(case, members))
    return runs


def median(runs: list[Figures], figure: str) -> float:
    return statistics.median(run[figure] for run in runs)


def print_header(what: str) -> None:
    print(f"\n| {what} | how | last member after | times faster | CPU a post | peak memory |")
    print("|---|---|---:|---:|---:|---:|", flush=True)


def print_rows(name: str, runs: Runs) -> None:
    for case in runs:
        seconds, cpu, peak = (median(runs[case], key) for key in ("seconds", "cpu", "peak"))
        faster = f"{median(runs['one'], 'seconds') / seconds:.1f}" if "one" in runs else ""
        figures = f"{seconds:.3f} s | {faster} | {cpu:.0f} µs | {peak:.1f} MB"
        print(f"| {name} | {CASES[case]} | {figures} |", flush=True)
        name = ""


class Target(NamedTuple):
    name: str
    value: float
    bound: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        bound = f"at {'least' if self.at_least else 'most'} {self.bound:.3g}"
        return f"| {self.name} | {bound} | {self.value:.3g} | {'met' if self.met else 'MISSED'} |"


def targets(results: dict[int, Runs]) -> list[Target]:
    ten, hundred, thousand, most = (results[members] for members in MEMBERS)
    seconds = median(thousand["ours"], "seconds")
    botocore_cpu = min(median(thousand[case], "cpu") for case in ("one", "threads"))
    slowest = max(run["seconds"] for run in ten["ours"])
    quickest = min(run["seconds"] for run in ten["one"])
    growth = median(most["ours"], "peak") - median(hundred["ours"], "peak")
    return [
        Target(
            "1,000 members: times faster than one after another",
            median(thousand["one"], "seconds") / seconds,
            40,
            at_least=True,
        ),
        Target(f"1,000 members: times the limit of {POOL_SIZE}", seconds / limit(1_000), 2),
        Target(
            "1,000 members: share of boto3's CPU a post (the lower of the two)",
            median(thousand["ours"], "cpu") / botocore_cpu,
            1 / 6,
        ),
        Target("10 members: our slowest run / their quickest", slowest / quickest, 1),
        Target("10,000 members: peak memory above 100 members, MB", growth, 30),
    ]


def limit(members: int) -> float:
    """Seconds, if only the answers took time."""
    return max(1, members / POOL_SIZE) * DELAY


def print_targets(results: dict[int, Runs]) -> bool:
    print("\n| target | | measured | |\n|---|---:|---:|---|")
    all_targets = targets(results)
    for target in all_targets:
        print(target)
    return all(target.met for target in all_targets)


def draw(results: dict[int, Runs], note: str, file: Path) -> None:
    from benchmarks import plot  # matplotlib takes a second to import

    measured = {
        name: {n: median(runs[case], "seconds") for n, runs in results.items() if case in runs}
        for case, name in CASES.items()
    }
    limits = {f"the limit: {POOL_SIZE} answers at once": {n: limit(n) for n in MEMBERS}}
    plot.draw(measured, limits, note, file)


def describe_machine() -> str:
    """CPU, cores, system and Python; no names of hosts or people."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        model = next(names, model)
    version = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, {version}"


if __name__ == "__main__":
    main()
