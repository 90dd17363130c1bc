"""The delivery policy: which connections get a post, how often, and how long it takes."""

import itertools
import random
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from operator import add

import pytest
from botocore.credentials import Credentials
from botocore.exceptions import NoCredentialsError

from chalicelib.posting import BROADCAST_SECONDS, POOL_SIZE, Poster, Result, delivery, pool, sigv4
from chalicelib.posting.pool import FIRST_CHANNELS
from tests.connections import ODD_ANSWERS, Answer
from tests.simulation import Simulation

CREDENTIALS = Credentials("AKIDEXAMPLE", "secret", "token")


class Member(str):
    """An id of a connection that is its own target."""

    @property
    def id(self) -> str:
        return self


class IdPoster(Poster):
    """Posts to plain ids."""

    def post(  # type: ignore[override]
        self, ids: Iterable[str], message: str | bytes, seconds: float = BROADCAST_SECONDS
    ) -> Result[Member]:
        return super().post(map(Member, ids), message, seconds)


Connect = Callable[..., IdPoster]


@pytest.fixture
def connections() -> Iterator[Simulation]:
    with closing(Simulation()) as simulation:
        yield simulation


@pytest.fixture
def connect(connections: Simulation) -> Iterator[Connect]:
    with ExitStack() as stack:

        def make(url: str, credentials: sigv4.Credentials = CREDENTIALS) -> IdPoster:
            poster = IdPoster(url, "eu-west-1", credentials, clock=connections)
            return stack.enter_context(closing(poster))

        yield make


@pytest.fixture
def poster(connections: Simulation, connect: Connect) -> IdPoster:
    return connect(connections.url)


def members(count: int) -> list[str]:
    return [f"member{number}=" for number in range(count)]


def mixed(some: list[str], others: list[str]) -> list[str]:
    return random.Random(1).sample(some + others, len(some) + len(others))


def throttled_forever() -> Iterator[str]:
    return (f"throttled{number}" for number in itertools.count())


def test_everybody_gets_the_message_once(connections: Simulation, poster: IdPoster) -> None:
    result = poster.post(members(500), "hello ✓")
    assert (result.delivered, result.gone, result.failed, result.stopped) == (500, [], {}, "")
    assert connections.posts == {member: ["hello ✓"] for member in members(500)}


def test_nobody_to_post_to(connections: Simulation, poster: IdPoster) -> None:
    assert poster.post([], "hello").delivered == 0
    assert connections.opened == 0


def test_an_id_listed_twice_gets_the_message_twice(
    connections: Simulation, poster: IdPoster
) -> None:
    assert poster.post(["a", "a"], "hello").delivered == 2
    assert connections.received("a") == ["hello", "hello"]


@pytest.mark.parametrize("message", [b"", b"\x00\xff", b"x" * 131_072])
def test_any_message_arrives_whole(
    connections: Simulation, poster: IdPoster, message: bytes
) -> None:
    assert poster.post(members(20), message).delivered == 20
    assert {request.body for request in connections.requests} == {message}


def test_rotated_credentials_are_used(connect: Connect, connections: Simulation) -> None:
    class Rotating:
        serial = itertools.count(1)

        def get_frozen_credentials(self) -> sigv4.FrozenCredentials:
            credentials = Credentials(f"AKID{next(self.serial)}", "secret", "token")
            return credentials.get_frozen_credentials()

    poster = connect(connections.url, Rotating())
    for _ in range(2):
        poster.post(["a"], "hello")
    first, second = (request.headers["authorization"] for request in connections.requests)
    assert "=AKID1/" in first
    assert "=AKID2/" in second


def test_missing_credentials_are_raised(connect: Connect, connections: Simulation) -> None:
    class Missing:
        def get_frozen_credentials(self) -> sigv4.FrozenCredentials:
            raise NoCredentialsError()

    with pytest.raises(NoCredentialsError):
        connect(connections.url, Missing()).post(["a"], "hello")


# Answers


def test_gone_connections_are_listed_and_do_not_stop_the_others(
    connections: Simulation, poster: IdPoster
) -> None:
    connections.gone = {f"gone{number}" for number in range(50)}
    ids = itertools.chain(*zip(connections.gone, members(50), strict=True))
    result = poster.post(ids, "hello")
    assert (result.delivered, set(result.gone), result.failed) == (50, connections.gone, {})
    assert len(result.gone) == 50
    assert max(connections.attempts.values()) == 1


def test_a_connection_is_gone_by_the_status_alone(
    connections: Simulation, poster: IdPoster
) -> None:
    connections.names_errors = False
    connections.gone = {"a"}
    assert poster.post(["a"], "hello").gone == ["a"]


@pytest.mark.parametrize("answers", [[429] * 2, [500], [502] * 3, [503] * 2])
def test_transient_errors_are_retried(
    connections: Simulation, poster: IdPoster, answers: list[int]
) -> None:
    connections.will_answer("a", *answers)
    result = poster.post(["a", *members(100)], "hello")
    assert (result.delivered, result.failed) == (101, {})
    assert connections.attempts["a"] == len(answers) + 1


def test_a_lasting_server_error_is_given_up_after_some_attempts(
    connections: Simulation, poster: IdPoster
) -> None:
    connections.will_answer("a", *[500] * 100)
    result = poster.post(["a", *members(100)], "hello")
    assert result.failed == {"a": '500 {"message": "InternalServerError"}'}
    assert (result.delivered, result.stopped) == (100, "")
    assert connections.attempts["a"] == delivery.ATTEMPTS


@pytest.mark.parametrize("refused", [1, 10])
@pytest.mark.parametrize("others", [0, 1, 100])
def test_members_that_alone_are_refused_are_given_up_soon(
    connections: Simulation, poster: IdPoster, refused: int, others: int
) -> None:
    """The buffers of these clients are full."""
    full = [f"full{number}" for number in range(refused)]
    for member in full:
        connections.will_answer(member, *[429] * 100)
    result = poster.post([*full, *members(others)], "hello")
    assert result.failed == dict.fromkeys(full, '429 {"message": "LimitExceededException"}')
    assert (result.delivered, result.stopped) == (others, "")
    assert {connections.attempts[member] for member in full} == {delivery.ATTEMPTS}
    assert result.seconds < 2


@pytest.mark.parametrize(("count", "rate"), [(500, 200), (10, 3)])
def test_throttling_is_ridden_out(
    connections: Simulation,
    poster: IdPoster,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    rate: int,
) -> None:
    """An account's quota is used up: posts are refused at random until there is some again."""
    monkeypatch.setattr(connections, "answer", TokenBucket(connections, rate))
    result = poster.post(members(count), "hello")
    assert (result.delivered, result.failed, result.stopped) == (count, {}, "")
    assert max(connections.attempts.values()) > delivery.ATTEMPTS


class TokenBucket:
    """Passes `rate` requests a second on, and answers 429 to the others."""

    def __init__(self, connections: Simulation, rate: int) -> None:
        self.connections, self.answer = connections, connections.answer
        self.rate = rate
        self.passed = 0

    def __call__(self, method: str, connection_id: str, body: str) -> Answer:
        if self.passed < self.connections.now * self.rate:
            self.passed += 1
            return self.answer(method, connection_id, body)
        self.connections.attempts[connection_id] += 1
        return 429


def test_lasting_throttling_is_given_up_after_some_time(
    connections: Simulation, poster: IdPoster
) -> None:
    connections.otherwise = 429
    result = poster.post(members(300), "hello")
    assert set(result.failed.values()) == {'429 {"message": "LimitExceededException"}'}
    assert (len(result.failed), result.stopped) == (300, "")
    assert max(connections.attempts.values()) > delivery.ATTEMPTS
    assert result.seconds > delivery.POST_SECONDS - delivery.LONGEST_RETRY_SECONDS
    assert result.seconds < delivery.BROADCAST_SECONDS


def test_pauses_grow(
    connections: Simulation, poster: IdPoster, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[tuple[float, float]] = []

    def shortest(low: float, high: float) -> float:
        pauses.append((low, high))
        return 0

    monkeypatch.setattr(random, "uniform", shortest)
    connections.otherwise = 500
    poster.post(["a"], "hello")
    assert [high for _, high in pauses] == pytest.approx([0.06, 0.12, 0.24, 0.48, 0.96, 1.6])
    assert [low for low, _ in pauses] == [high / 2 for _, high in pauses]
    assert connections.attempts["a"] == delivery.ATTEMPTS  # the last pause is not waited for


@pytest.mark.parametrize("status", [400, 403, 404, 413, 302, 204])
def test_other_answers_are_reported_and_not_retried(
    connections: Simulation, poster: IdPoster, status: int
) -> None:
    connections.will_answer("a", status)
    result = poster.post(["a", *members(100)], "hello")
    assert list(result.failed) == ["a"]
    assert result.failed["a"].startswith(str(status))
    assert result.delivered == 100
    assert connections.attempts["a"] == 1


# Odd servers

GONE = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("are_kept", [False, True])
def test_an_answer_that_is_not_http_ends_one_post(
    connections: Simulation, poster: IdPoster, are_kept: bool
) -> None:
    odd = {f"odd{n}": answer for n, answer in enumerate([*ODD_ANSWERS, b"HTTP/1.1 200 OK\n\n"])}
    if are_kept:
        poster.post([*odd, *members(100)], "hello")
    for member, answer in odd.items():
        connections.will_answer(member, (answer,))
    result = poster.post(mixed([*odd], members(100)), "hello")
    assert (result.delivered, result.gone, set(result.failed)) == (100, [], set(odd))
    assert {connections.attempts[member] for member in odd} == {1 + are_kept}
    assert {connections.attempts[member] for member in members(100)} == {1 + are_kept}


@pytest.mark.parametrize("extra", [GONE, GONE * 1_000, b"\0", b"\r\n", GONE[:5]])
def test_bytes_beyond_an_answer_are_nobodys(
    connections: Simulation, poster: IdPoster, extra: bytes
) -> None:
    ok, _ = connections.written(200)
    for member in members(100):
        connections.will_answer(member, (*ok, extra))
    for _ in range(2):
        result = poster.post(members(100), "hello")
        assert (result.delivered, result.gone, result.failed) == (100, [], {})


@pytest.mark.parametrize("extra", [GONE, GONE * 1_000, b"\0", b"\r\n", GONE[:5]])
def test_bytes_that_come_on_idle_connections_are_nobodys(
    connections: Simulation, poster: IdPoster, extra: bytes
) -> None:
    said = 0

    def ids() -> Iterator[str]:
        nonlocal said
        for member in members(200):
            said += connections.say_unasked(extra)
            yield member

    for _ in range(2):
        result = poster.post(ids(), "hello")
        assert (result.delivered, result.gone, result.failed) == (200, [], {})
    assert said


# Lost answers


def hang(connections: Simulation, count: int) -> list[str]:
    """Members whose posts are never answered."""
    hanging = [f"hanging{number}" for number in range(count)]
    for member in hanging:
        connections.will_answer(member, "slow")
    return hanging


@pytest.mark.parametrize("count", [1, 64, 200])
@pytest.mark.parametrize("order", [add, lambda some, others: others + some, mixed])
def test_posts_that_hang_hold_up_nobody_else(
    connections: Simulation,
    poster: IdPoster,
    count: int,
    order: Callable[[list[str], list[str]], list[str]],
) -> None:
    hanging = hang(connections, count)
    result = poster.post(order(members(100), hanging), "hello")
    assert (result.delivered, set(result.failed), result.stopped) == (100, set(hanging), "")
    assert connections.heard_at.keys() == set(members(100))
    assert max(connections.heard_at.values()) < 1
    assert {connections.attempts[member] for member in hanging} == {1}
    assert result.seconds < 2


def test_with_too_many_hanging_posts_the_others_wait_until_some_are_given_up(
    connections: Simulation, poster: IdPoster
) -> None:
    hanging = hang(connections, 2 * pool.MAX_IN_FLIGHT)
    result = poster.post(hanging + members(100), "hello")
    assert (result.delivered, set(result.failed)) == (100, set(hanging))
    assert min(connections.heard_at.values()) > delivery.ANSWER_SECONDS
    assert max(connections.heard_at.values()) < 2 * delivery.ANSWER_SECONDS + 1
    assert connections.most_open == pool.MAX_IN_FLIGHT


def test_nothing_is_given_up_while_the_api_is_slow(
    connections: Simulation, poster: IdPoster
) -> None:
    """It answers 100 posts a second, whoever asks: more connections would not help."""
    connections.one_at_a_time = True
    result = poster.post(members(300), "hello")
    assert (result.delivered, result.failed) == (300, {})
    assert connections.most_open <= POOL_SIZE
    assert result.seconds == pytest.approx(300 * connections.answer_seconds, rel=0.01)


def test_an_answer_lost_on_a_new_connection_is_not_retried(
    connections: Simulation, poster: IdPoster
) -> None:
    connections.will_answer("a", "drop")
    result = poster.post(["a"], "hello")
    assert result.failed == {"a": "no answer: closed before the answer was complete"}
    assert connections.attempts["a"] == 1


def test_a_post_on_a_stale_connection_is_retried_once(
    connections: Simulation, poster: IdPoster
) -> None:
    connections.will_answer("a", 200, "drop", "drop")
    poster.post(["a"], "hello")
    assert list(poster.post(["a"], "hello").failed) == ["a"]
    assert (connections.attempts["a"], connections.opened) == (3, 2)


def test_a_post_on_a_stale_connection_is_delivered_over_a_new_one(
    connections: Simulation, poster: IdPoster
) -> None:
    connections.will_answer("a", 200, "drop")
    for _ in range(2):
        assert poster.post(["a"], "hello").delivered == 1


# Connections


def test_calls_share_connections(connections: Simulation, poster: IdPoster) -> None:
    for _ in range(6):
        assert poster.post(members(500), "hello").delivered == 500
    assert connections.opened <= POOL_SIZE


def test_few_members_open_few_connections(connections: Simulation, poster: IdPoster) -> None:
    poster.post(members(3), "hello")
    assert connections.opened <= 3


def test_connections_that_were_closed_between_calls_are_replaced(
    connections: Simulation, poster: IdPoster
) -> None:
    poster.post(members(200), "hello")
    connections.close_connections()
    assert poster.post(members(200), "hello").delivered == 200
    assert connections.posts == {member: ["hello"] * 2 for member in members(200)}


def test_connections_that_close_during_a_broadcast_are_replaced(
    connections: Simulation, poster: IdPoster
) -> None:
    connections.answers_a_connection = 5
    assert poster.post(members(500), "hello").delivered == 500
    assert connections.posts == {member: ["hello"] for member in members(500)}


def test_connection_refused(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    ids = iter(members(1_000))
    result = connect(f"http://127.0.0.1:{port}/api").post(ids, "hello")
    assert result.delivered == 0
    assert result.stopped.startswith("no connection: [Errno ")
    assert set(result.failed.values()) == {result.stopped}
    assert len(result.failed) + len(list(ids)) == 1_000
    assert len(result.failed) <= 2 * FIRST_CHANNELS


def test_a_host_without_an_address(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    result = connect("http://unknown.invalid/api").post(members(1_000), "hello")
    assert result.stopped == "no connection: [Errno -2] Name or service not known"


def test_everybody_gets_the_message_although_one_address_refuses(
    connections: Simulation, poster: IdPoster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        refusing = unused.getsockname()
    (answering,) = socket.getaddrinfo("127.0.0.1", connections.port, type=socket.SOCK_STREAM)
    found = [(*answering[:4], refusing), answering]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert poster.post(members(1), "hello").delivered == 1
    assert poster.post(members(100), "hello").delivered == 100


# Time


def test_time_runs_out(connections: Simulation, poster: IdPoster) -> None:
    connections.otherwise = 429
    ids = throttled_forever()
    result = poster.post(ids, "hello", seconds=1)
    assert result.stopped == "not done within 1 s"
    assert set(result.failed.values()) == {'429 {"message": "LimitExceededException"}'}
    assert result.seconds == pytest.approx(1, abs=2 * connections.answer_seconds)
    assert int(next(ids).removeprefix("throttled")) == len(result.failed)


@pytest.mark.parametrize("seconds", [0, -1.0])
def test_without_time_nothing_is_posted(
    connections: Simulation, poster: IdPoster, seconds: float
) -> None:
    ids = iter(members(3))
    result = poster.post(ids, "hello", seconds)
    assert (result.delivered, result.failed) == (0, {})
    assert result.stopped == f"not done within {seconds:g} s"
    assert list(ids) == members(3)
    assert connections.opened == 0


def test_the_last_answers_are_waited_for_briefly(connections: Simulation, poster: IdPoster) -> None:
    """Every connection hangs, so posts that wait for a retry find no room in time."""
    for member in members(20):
        connections.will_answer(member, 429)
    connections.otherwise = "slow"
    ids = iter(members(1_000))
    result = poster.post(ids, "hello", seconds=0.7)
    assert result.stopped == "not done within 0.7 s"
    assert 0.7 < result.seconds < 2 * 0.7 + 0.001
    assert len(result.failed) + len(list(ids)) == 1_000


def test_answers_get_no_more_of_a_short_time_than_posts(
    connections: Simulation, poster: IdPoster
) -> None:
    connections.otherwise = "slow"
    result = poster.post(members(1), "hello", seconds=0.3)
    assert result.failed == {members(1)[0]: "no answer within 0.3 s"}
    assert result.seconds == pytest.approx(0.3, abs=0.001)


def test_a_stale_connection_is_not_replaced_when_time_is_up(
    connections: Simulation, poster: IdPoster
) -> None:
    connections.will_answer("a", 200, "drop")
    poster.post(["a"], "hello")
    connections.answer_seconds = 0.2
    result = poster.post(["a"], "hello", seconds=0.2)
    assert result.failed == {"a": "no answer: closed before the answer was complete"}
    assert connections.opened == 1


def test_an_id_that_comes_too_late_is_still_posted_to(
    connections: Simulation, poster: IdPoster
) -> None:
    def late() -> Iterator[str]:
        connections.now += 0.2
        yield from members(2)

    ids = late()
    result = poster.post(ids, "hello", seconds=0.1)
    assert (result.delivered, result.stopped) == (1, "not done within 0.1 s")
    assert list(ids) == members(2)[1:]


# Ids


@pytest.mark.parametrize("throttled", [False, True])
def test_ids_are_not_taken_ahead(
    connections: Simulation, poster: IdPoster, monkeypatch: pytest.MonkeyPatch, throttled: bool
) -> None:
    monkeypatch.setattr(random, "uniform", lambda *_: 0.2)
    ahead: list[int] = []

    def ids() -> Iterator[str]:
        for number, member in enumerate(members(2_000)):
            ahead.append(number - len(connections.posts))
            if throttled:
                connections.will_answer(member, 429)
            yield member

    assert poster.post(ids(), "hello").delivered == 2_000
    if throttled:
        assert POOL_SIZE < max(ahead) <= POOL_SIZE + delivery.MAX_WAITING
    else:
        assert max(ahead) <= POOL_SIZE


def test_posting_starts_before_the_last_page_is_read(
    connections: Simulation, poster: IdPoster
) -> None:
    def pages() -> Iterator[str]:
        yield from members(100)
        assert len(connections.posts) >= 100 - POOL_SIZE
        yield "the last page"

    assert poster.post(pages(), "hello").delivered == 101


def test_an_error_of_the_iterator_is_raised_once_the_others_have_the_message(
    connections: Simulation, poster: IdPoster
) -> None:
    connections.will_answer("member1=", 429, 500)

    def broken() -> Iterator[str]:
        yield from members(3)
        raise KeyError("page")

    with pytest.raises(KeyError, match="page"):
        poster.post(broken(), "hello")
    assert connections.posts == {member: ["hello"] for member in members(3)}
    assert poster.post(members(100), "again").delivered == 100


def test_calls_from_several_threads(connections: Simulation, poster: IdPoster) -> None:
    results: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: results.append(poster.post(members(100), "hello").delivered)
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [100] * 8
