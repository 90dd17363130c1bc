"""Runs one case in a separate process, so that its CPU and peak memory are its own.

Started by `benchmarks/bench.py`. The time runs from the first id to the last answer: it includes
opening connections, but not imports and the creation of clients. The credentials carry a session
token, as in a Lambda function.
"""

import argparse
import json
import resource
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import boto3
from botocore.config import Config

from benchmarks import MESSAGE, REGION, Broadcast, tls_context
from chalicelib.posting import POOL_SIZE, Poster


def botocore_post(
    session: boto3.Session, endpoint: str, authority: str | None, **config: Any
) -> Callable[[str], bool]:
    client = session.client(
        "apigatewaymanagementapi",
        endpoint_url=endpoint,
        verify=authority,
        config=Config(**config),
    )

    def post(connection_id: str) -> bool:
        try:
            client.post_to_connection(ConnectionId=connection_id, Data=MESSAGE)
        except client.exceptions.GoneException:
            return False
        return True

    return post


def one_after_another(session: boto3.Session, endpoint: str, authority: str | None) -> Broadcast:
    post = botocore_post(session, endpoint, authority)
    return lambda ids: sum(map(post, ids))


def threads(session: boto3.Session, endpoint: str, authority: str | None) -> Broadcast:
    post = botocore_post(session, endpoint, authority, max_pool_connections=POOL_SIZE)

    def broadcast(ids: Iterator[str]) -> int:
        with ThreadPoolExecutor(POOL_SIZE) as executor:
            return sum(executor.map(post, ids))

    return broadcast


def poster(session: boto3.Session, endpoint: str, authority: str | None) -> Broadcast:
    ours = Poster(endpoint, REGION, session.get_credentials(), tls_context(authority))
    return lambda ids: ours.post(map(Member, ids), MESSAGE).delivered


class Member(NamedTuple):
    id: str


CASES = {"one": one_after_another, "threads": threads, "ours": poster}
ENGINES = {
    "asyncio": "over_asyncio",
    "http.client": "over_http_client",
    "libcurl": "over_libcurl",
}


def maker(case: str) -> Callable[[boto3.Session, str, str | None], Broadcast]:
    if case in CASES:
        return CASES[case]
    from benchmarks import engines  # here, since it would add to the memory of the other cases

    return getattr(engines, ENGINES[case])


def run(case: str, members: int, endpoint: str, authority: str | None) -> dict[str, float]:
    session = boto3.Session("AKIDEXAMPLE", "secret", "t" * 900, region_name=REGION)
    broadcast = maker(case)(session, endpoint, authority)
    ids = (f"L0SM9cOF{number:06d}c=" for number in range(members))
    wall, cpu = time.perf_counter(), time.process_time()
    delivered = broadcast(ids)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = peak_memory()
    check(endpoint, authority, members, delivered)
    return {"seconds": wall, "cpu": cpu / members * 1e6, "peak": peak}


def peak_memory() -> float:
    """In MB; from /proc if it exists: getrusage may count the process that started this one."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


def check(endpoint: str, authority: str | None, members: int, delivered: int) -> None:
    """Guards against a benchmark that is fast because it delivers nothing."""
    with urllib.request.urlopen(endpoint, context=tls_context(authority)) as answer:
        seen = json.load(answer)
    if not seen["delivered"] == seen["reached"] == delivered == members - seen["gone"]:
        raise AssertionError(f"{delivered} of {members} delivered, but the server says {seen}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Runs one case, and prints its figures as JSON.")
    parser.add_argument("case", choices=[*CASES, *ENGINES])
    parser.add_argument("members", type=int)
    parser.add_argument("endpoint")
    parser.add_argument("authority", nargs="?", help="for TLS: the authority's PEM file")
    print(json.dumps(run(**vars(parser.parse_args()))))


if __name__ == "__main__":
    main()
