"""Measures a text in rooms that are so large that it may miss the deadline.

One function posts to the whole room. Prints how many of 10,000 and of 50,000 members hear a text
before the function's deadline of 29 s, with a whole CPU and with the share that Lambda gives a
function of 512 MB, at two speeds of API Gateway. The memory shows that the room is not held in it.

    python -m benchmarks.large
"""

from benchmarks import cold
from benchmarks.bench import describe_machine

DELAYS = [0.008, 0.020]  # seconds: API Gateway's time for a post
MEMBERS = [100, 10_000, 50_000]


def main() -> None:
    cpus = [cpu for cpu in cold.CPUS if cpu.before == 1 and (cpu.after == 1 or cold.has_groups())]
    print(f"{describe_machine()}\nTLS, {cold.TABLE_DELAY * 1000:g} ms a query")
    print("\n| a post | members | CPU | heard | last after | CPU used | peak memory |")
    print("|---:|---:|---|---:|---:|---:|---:|")
    packages = {"this app": cold.our_package()}
    for delay in DELAYS:
        with (
            cold.servers(delay) as servers,
            cold.unpacked(packages, servers.authority) as directories,
        ):
            for members in MEMBERS:
                for cpu in cpus:
                    with cold.function(directories["this app"], members, cpu, servers) as process:
                        times, peak, (_, api) = cold.any_text(process, servers)
                    started, ended = times["started"], times["ended"]
                    cells = [
                        f"{delay * 1000:g} ms",
                        f"{members:,}",
                        cpu.name,
                        f"{api['reached']:,}",
                        f"{api['last'] - started[0]:.2f} s",
                        f"{ended[1] - started[1]:.2f} s",
                        f"{peak:.1f} MB",
                    ]
                    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
