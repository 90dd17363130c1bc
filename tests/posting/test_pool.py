"""Connections: kept, replaced, timed out; over TLS: test_tls.py."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import pairwise

import pytest

from chalicelib.posting.channel import Failure, NoAnswer, Stale, Unreachable
from chalicelib.posting.http1 import Answer as HttpAnswer
from chalicelib.posting.http1 import Endpoint
from chalicelib.posting.pool import (
    FIRST_CHANNELS,
    IDLE_SECONDS,
    MAX_IN_FLIGHT,
    POOL_SIZE,
    SLOW_SECONDS,
    Pool,
)
from tests.connections import Answer, Connections
from tests.simulation import Simulation

Connect = Callable[..., Pool[str]]


@pytest.fixture
def connect() -> Iterator[Connect]:
    with ExitStack() as stack:

        def make(url: str, seconds: float = 3.0) -> Pool[str]:
            return stack.enter_context(closing(Pool[str](Endpoint.parse(url), None, seconds)))

        yield make


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with closing(Simulation()) as simulation:
        yield simulation


@pytest.fixture
def simulated(simulation: Simulation) -> Iterator[Pool[str]]:
    with closing(Pool[str](Endpoint.parse(simulation.url), None, 3.0, simulation)) as pool:
        yield pool


@pytest.fixture
def pool(connections: Connections, connect: Connect) -> Pool[str]:
    return connect(connections.url)


def start(pool: Pool[str], ticket: str, body: bytes = b"hello", fresh: bool = False) -> None:
    head = b"POST /@connections/%s HTTP/1.1\r\ncontent-length:%d\r\n\r\n"
    pool.start(ticket, head % (ticket.encode(), len(body)) + body, fresh)


def finish(pool: Pool[str]) -> dict[str, HttpAnswer | Failure]:
    outcomes: dict[str, HttpAnswer | Failure] = {}
    while pool.busy:
        outcomes |= pool.wait(None)
    return outcomes


def outcome(pool: Pool[str], ticket: str, fresh: bool = False) -> HttpAnswer | Failure:
    """The outcome of one request."""
    pool.refresh()
    try:
        start(pool, ticket, fresh=fresh)
    except Failure as failure:
        return failure
    return finish(pool)[ticket]


def test_a_connection_is_kept(connections: Connections, pool: Pool[str]) -> None:
    for _ in range(3):
        assert outcome(pool, "a") == (200, b"{}", True)
    assert connections.opened == 1
    assert connections.received("a") == ["hello"] * 3


def test_a_fresh_connection_is_opened_when_asked_for(
    connections: Connections, pool: Pool[str]
) -> None:
    outcome(pool, "a")
    outcome(pool, "a", fresh=True)
    assert connections.opened == 2


def test_outcomes_come_with_their_tickets(connections: Connections, pool: Pool[str]) -> None:
    connections.gone.add("b")
    connections.will_answer("c", "drop")
    for ticket in "abc":
        start(pool, ticket)
    a, b, c = (found for _, found in sorted(finish(pool).items()))
    assert isinstance(a, HttpAnswer)
    assert isinstance(b, HttpAnswer)
    assert (a.status, b.status, type(c)) == (200, 410, NoAnswer)


def fill(pool: Pool[str]) -> int:
    """Start requests while there is room; returns how many."""
    count = 0
    while pool.has_capacity:
        start(pool, str(count))
        count += 1
    return count


def test_each_answer_makes_room_for_more(pool: Pool[str]) -> None:
    sizes = []
    for _ in range(8):
        sizes.append(fill(pool))
        finish(pool)
    assert (sizes[0], sizes[-1]) == (FIRST_CHANNELS, POOL_SIZE)
    for size, larger in pairwise(sizes):
        assert size < larger <= 2 * size or size == larger == POOL_SIZE


def test_slow_requests_leave_room_for_others_but_the_pool_keeps_few_connections(
    simulation: Simulation, simulated: Pool[str]
) -> None:
    simulation.answer_seconds = 3.5 * SLOW_SECONDS
    in_flight = [0]
    while not simulated.answers:
        if started := fill(simulated):
            in_flight.append(in_flight[-1] + started)
        simulated.wait(None)
    first, second = FIRST_CHANNELS, POOL_SIZE + 2 * FIRST_CHANNELS
    assert in_flight[1:] == [first, second, POOL_SIZE + 2 * second, MAX_IN_FLIGHT]
    finish(simulated)
    simulation.answer_seconds = 0.01
    for _ in range(2):
        assert fill(simulated) == POOL_SIZE
        finish(simulated)
    assert simulation.opened == MAX_IN_FLIGHT


def test_a_connection_idle_for_too_long_is_not_used(
    simulation: Simulation, simulated: Pool[str]
) -> None:
    outcome(simulated, "a")
    simulation.now += IDLE_SECONDS - 1
    outcome(simulated, "a")
    assert simulation.opened == 1
    simulation.now += IDLE_SECONDS + 1
    outcome(simulated, "a")
    assert simulation.opened == 2


def test_an_answer_without_a_length_ends_its_connection(
    connections: Connections, pool: Pool[str]
) -> None:
    connections.says_length = False
    for _ in range(2):
        assert isinstance(outcome(pool, "a"), HttpAnswer)
    assert connections.opened == 2


@pytest.mark.parametrize("kind", ["half", "drop"])
def test_a_lost_answer_on_a_new_connection(
    connections: Connections, pool: Pool[str], kind: Answer
) -> None:
    connections.will_answer("a", kind)
    failure = outcome(pool, "a")
    assert type(failure) is NoAnswer
    assert str(failure) == "no answer: closed before the answer was complete"


def test_half_an_answer_on_a_kept_connection(connections: Connections, pool: Pool[str]) -> None:
    connections.will_answer("a", 200, "half")
    outcome(pool, "a")
    assert type(outcome(pool, "a")) is NoAnswer


def test_a_kept_connection_closed_without_an_answer_is_stale(
    connections: Connections, pool: Pool[str]
) -> None:
    connections.will_answer("a", 200, "drop")
    outcome(pool, "a")
    assert type(outcome(pool, "a")) is Stale


def test_a_slow_answer_times_out(simulation: Simulation, simulated: Pool[str]) -> None:
    simulation.will_answer("a", "slow")
    failure = outcome(simulated, "a")
    assert type(failure) is NoAnswer
    assert str(failure) == "no answer within 3 s"
    assert simulation.now == pytest.approx(3, abs=0.001)


def test_connecting_times_out(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as stack:
        url = "http://{}:{}".format(*full.getsockname())
        for _ in range(3):  # more than its queue holds: the last SYNs are not answered
            queued = stack.enter_context(socket.socket())
            queued.setblocking(False)
            queued.connect_ex(full.getsockname())
        failure = outcome(connect(url, seconds=0.2), "a")
    assert type(failure) is Unreachable
    assert str(failure) == "no connection within 0.2 s"


def test_abandoned_requests_do_not_come_back(connections: Connections, pool: Pool[str]) -> None:
    connections.will_answer("a", "slow")
    start(pool, "a")
    pool.abandon()
    assert not pool.busy
    assert isinstance(outcome(pool, "b"), HttpAnswer)


def test_a_closed_pool_can_be_used_again(connections: Connections, pool: Pool[str]) -> None:
    outcome(pool, "a")
    pool.close()
    outcome(pool, "a")
    assert connections.opened == 2


def test_a_server_that_reads_slowly(connect: Connect) -> None:
    body = b"x" * 4_000_000
    with Connections(receive_buffer=4096) as connections:
        pool = connect(connections.url)
        for _ in range(2):
            for ticket in "abcd":
                start(pool, ticket, body)
            assert {str(answer) for answer in finish(pool).values()} == {"200 {}"}
        assert {request.body for request in connections.requests} == {body}


def test_a_server_that_does_not_speak_tls(connect: Connect, connections: Connections) -> None:
    failure = outcome(connect(connections.url.replace("http:", "https:"), seconds=0.3), "a")
    assert isinstance(failure, Unreachable)
