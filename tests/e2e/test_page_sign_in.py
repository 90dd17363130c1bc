"""Signing in on the page, with the hosted login of the emulator's Cognito."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, Request, Route, expect

from emulator.user_pool import UserPool
from tests.e2e.actors import Person
from tests.e2e.conftest import Cloud, eventually
from tests.e2e.tabs import BACK, ColorScheme, OpenTab, Tab, is_accessible
from tests.e2e.test_page_connection import MINUTES, disconnect
from tests.e2e.test_sign_in import token_of

STACK = "PageSignIn"
FAILED = "Signing in did not work. Please try again."
TOO_LONG = "^The token of your account is too long. Ask the operator of this chat "


@pytest.fixture(scope="module")
def pool(cloud: Cloud) -> UserPool:
    return UserPool(cloud.emulator, ["John", "Jenny"])


@pytest.fixture(scope="module")
def chat(cloud: Cloud, pool: UserPool) -> Iterator[str]:
    """The address of a chat whose page signs people in."""
    url = cloud.emulator.deploy(stack=STACK, parameters=[f"TableName={STACK}", *pool.parameters])
    pool.allow_page(cloud.page_url(STACK))
    yield url
    cloud.emulator.delete(STACK)


@pytest.fixture
def page_url(cloud: Cloud, chat: str) -> Iterator[str]:
    yield cloud.page_url(STACK)
    table = cloud.client("dynamodb")
    eventually(lambda: not table.query(**CONNECTIONS)["Items"])


CONNECTIONS = {  # of John, Jenny and anybody else
    "TableName": STACK,
    "IndexName": "ReverseLookup",
    "KeyConditionExpression": "SK = :room",
    "ExpressionAttributeValues": {":room": {"S": "room_chalice"}},
}


@pytest.fixture
def john(open_tab: OpenTab, pool: UserPool) -> Tab:
    john = open_tab()
    john.page.clock.install()
    return signed_in(john, "John", pool)


def signed_in(tab: Tab, name: str, pool: UserPool) -> Tab:
    tab.url += "#chalice"
    tab.opens()
    tab.signs_in(name, pool.password)
    tab.sees('Joined chat room "chalice"')
    return tab


class Watch:
    """A tab's handshakes with the chat, and its requests for tokens."""

    def __init__(self, tab: Tab) -> None:
        self.handshakes: list[str] = []
        self.renewals: list[str] = []
        tab.page.on("websocket", lambda socket: self.handshakes.append(socket.url))
        tab.page.on("request", self._note)

    def _note(self, request: Request) -> None:
        if request.url.endswith("/oauth2/token"):
            self.renewals.append(request.url)


@pytest.fixture
def watch(john: Tab) -> Watch:
    return Watch(john)


def test_two_sign_in_and_chat(open_tab: OpenTab, pool: UserPool) -> None:
    john = signed_in(open_tab(), "John", pool)
    jenny = signed_in(open_tab(), "Jenny", pool)
    john.reads("Jenny joined room.")
    jenny.says("Hi")
    for person in (john, jenny):
        person.reads("Jenny: Hi")
    expect(jenny.page.locator("#log .own .text")).to_have_text("Hi")
    john.says("/nick Jenny")
    john.reads("Your nickname comes from your account.")
    expect(john.page.locator("#status")).to_have_text("You are John")


def test_no_token_is_in_an_address_or_outlives_the_tab(open_tab: OpenTab, pool: UserPool) -> None:
    john = open_tab()
    addresses: list[str] = []
    john.page.on("framenavigated", lambda frame: addresses.append(frame.url))
    signed_in(john, "John", pool)
    session = json.loads(john.page.evaluate("sessionStorage.session"))
    start, _, back, clean = addresses
    assert start == clean == john.page.url == john.url
    assert parse_qs(urlsplit(back).query).keys() == {"code", "state"}
    for token in (session["id"], session["refresh"]):
        assert not [address for address in addresses if token[:40] in address]
    assert john.page.evaluate("Object.keys(localStorage)") == []
    other = Tab(john.context, john.url).opens()
    expect(other.page.get_by_role("button", name="Sign in")).to_be_visible()
    expect(other.page.get_by_label("Nickname")).to_be_hidden()


def test_a_reload_stays_signed_in(john: Tab, watch: Watch) -> None:
    john.types("half a")
    john.page.reload()
    john.sees('Joined chat room "chalice"')
    expect(john.page.get_by_label("Your message")).to_have_value("half a")
    assert len(watch.handshakes) == 1
    assert watch.renewals == []


def test_leaving_forgets_the_tokens(john: Tab) -> None:
    john.page.get_by_role("button", name="Leave").click()
    john.page.reload()
    expect(john.page.get_by_role("button", name="Sign in")).to_be_visible()
    expect(john.page.get_by_label("Room")).to_have_value("chalice")
    assert "eyJ" not in john.page.evaluate("JSON.stringify(sessionStorage)")


# Reconnecting


def test_it_reconnects_with_its_token_until_that_is_about_to_expire(
    john: Tab, watch: Watch, cloud: Cloud, chat: str
) -> None:
    disconnect(cloud, chat, "John", STACK)
    john.page.clock.fast_forward(1_000)
    john.shows(BACK)
    assert watch.renewals == []
    john.page.clock.fast_forward(59 * MINUTES)
    disconnect(cloud, chat, "John", STACK)
    john.page.clock.fast_forward(1_000)
    john.awaits(lambda: len(watch.handshakes) == 2)
    john.says("Hi")
    john.reads("John: Hi")
    assert len(watch.renewals) == 1
    assert len(set(watch.handshakes)) == 2


def test_it_gets_a_new_token_for_one_that_is_refused(
    john: Tab, watch: Watch, cloud: Cloud, chat: str
) -> None:
    john.page.evaluate("session.id = 'x'")
    disconnect(cloud, chat, "John", STACK)
    john.page.clock.run_for(1_000)
    john.awaits(lambda: john.page.evaluate("phase") == "lost" and len(watch.handshakes) == 1)
    john.page.clock.run_for(1_000)
    john.shows(BACK)
    assert len(watch.renewals) == 1
    assert watch.handshakes[0].endswith("?token=x")


def test_an_issuer_that_cannot_be_reached_signs_nobody_out(
    john: Tab, watch: Watch, cloud: Cloud, chat: str
) -> None:
    john.page.route("**/oauth2/token", lambda route: route.abort())
    john.page.evaluate("session.until = 0")
    disconnect(cloud, chat, "John", STACK)
    john.page.clock.run_for(5_000)
    john.awaits(lambda: len(watch.renewals) > 1)
    expect(john.page.get_by_role("button", name="Sign in")).to_be_hidden()
    john.page.route("**/oauth2/token", lambda route: route.fulfill(status=503))
    john.page.clock.run_for(30_000)
    john.page.unroute("**/oauth2/token")
    john.page.clock.run_for(30_000)
    john.shows(BACK)


def test_a_refused_renewal_shows_a_button_and_keeps_what_was_typed(
    john: Tab, cloud: Cloud, chat: str, pool: UserPool
) -> None:
    cloud.client("cognito-idp").admin_user_global_sign_out(UserPoolId=pool.id, Username="John")
    john.page.evaluate("session.until = 0")
    john.types("half a")
    disconnect(cloud, chat, "John", STACK)
    john.page.clock.run_for(1_000)
    john.shows("^You are not signed in any more.$")
    john.page.get_by_label("Your message").press("Home")
    john.page.keyboard.type("one")
    john.page.keyboard.press("Enter")
    john.types("half a")
    expect(john.page.locator("#waiting")).to_contain_text("Waiting")
    is_accessible(john)
    john.signs_in("John", pool.password)
    john.sees('Joined chat room "chalice"')
    expect(john.page.get_by_label("Your message")).to_have_value("onehalf a\nhalf a")


def test_a_newer_connection_elsewhere_is_not_interrupted(
    john: Tab, watch: Watch, chat: str, pool: UserPool
) -> None:
    with Person(f"{chat}?token={token_of(pool, 'John')}") as elsewhere:
        john.awaits(lambda: "You have connected from elsewhere." in john.lines)
        is_accessible(john)
        for _ in range(3):
            john.page.clock.run_for(5 * MINUTES)
        john.page.evaluate("dispatchEvent(new Event('online'))")
        elsewhere.hears_nothing()
        assert watch.handshakes == []
        john.says("kept")
        john.page.get_by_role("button", name="Chat here").click()
        elsewhere.hears("You have connected from elsewhere.")
        elsewhere.is_disconnected()
        john.shows(BACK)
        john.page.clock.run_for(1_000)
        john.reads("John: kept")


# Failures


@pytest.mark.parametrize("query", ["code=x&state=y", "error=access_denied&state=y"])
def test_an_answer_that_this_tab_did_not_ask_for_is_ignored(open_tab: OpenTab, query: str) -> None:
    """As in a link that would sign somebody in as somebody else."""
    john = open_tab()
    watch = Watch(john)
    page = john.url
    john.url += f"?{query}"
    john.opens().shows(f"^{FAILED}$")
    expect(john.page.get_by_role("button", name="Sign in")).to_be_enabled()
    assert john.page.url == page
    assert watch.renewals == []


@pytest.mark.parametrize("answer", ["error=access_denied", "code=wrong"])
def test_a_sign_in_that_fails_can_be_tried_again(
    open_tab: OpenTab, pool: UserPool, answer: str
) -> None:
    john = open_tab()
    page = john.url
    john.url += "#chalice"
    john.opens().page.get_by_role("button", name="Sign in").click()
    john.page.wait_for_url("**/oauth2/authorize?*")
    (state,) = parse_qs(urlsplit(john.page.url).query)["state"]
    john.page.goto(f"{page}?{answer}&state={state}")
    john.shows(f"^{FAILED}$")
    assert john.page.url == john.url
    john.signs_in("John", pool.password)
    john.sees('Joined chat room "chalice"')


def gets_tokens_for_an_address_of(characters: int, page: Page, chat: str) -> None:
    """The issuer's tokens become so long that the address of the handshake has this length."""

    def with_longer_token(route: Route) -> None:
        response = route.fetch()
        answer = response.json()
        answer["id_token"] = answer["id_token"].ljust(characters - len(f"{chat}?token="), "x")
        route.fulfill(response=response, json=answer)

    page.route("**/oauth2/token", with_longer_token)


@pytest.mark.parametrize(
    ("characters", "handshakes", "problem"),
    [(4_096, [4_096], "^The chat does not answer, or refuses your account"), (4_097, [], TOO_LONG)],
)
def test_a_token_that_is_too_long_for_an_address(
    open_tab: OpenTab,
    pool: UserPool,
    chat: str,
    characters: int,
    handshakes: list[int],
    problem: str,
) -> None:
    john = open_tab()
    watch = Watch(john)
    gets_tokens_for_an_address_of(characters, john.page, chat)
    john.opens().signs_in("John", pool.password)
    john.shows(problem)
    assert [len(address) for address in watch.handshakes] == handshakes
    is_accessible(john)
    john.page.unroute("**/oauth2/token")
    if not handshakes:  # a new token, without a reload
        john.signs_in("John", pool.password)
        john.shows("^You are John$")


def test_a_renewed_token_that_is_too_long_does_not_reconnect_for_ever(
    john: Tab, watch: Watch, cloud: Cloud, chat: str
) -> None:
    gets_tokens_for_an_address_of(4_097, john.page, chat)
    john.page.evaluate("session.until = 0")
    disconnect(cloud, chat, "John", STACK)
    john.page.clock.run_for(1_000)
    john.shows(TOO_LONG)
    for _ in range(3):
        john.page.clock.run_for(5 * MINUTES)
    assert (len(watch.renewals), watch.handshakes) == (1, [])
    expect(john.page.get_by_role("button", name="Sign in")).to_be_visible()


def test_a_page_that_cannot_sign_anybody_in_says_so(open_tab: OpenTab) -> None:
    john = open_tab()

    def with_problem(route: Route) -> None:
        response = route.fetch()
        body = response.text().replace("data-client=", 'data-problem="Not now." data-client=')
        route.fulfill(response=response, body=body)

    john.page.route(john.url, with_problem)
    john.opens().shows("^Not now.$")
    expect(john.page.get_by_role("button")).to_have_count(0)
    is_accessible(john)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_on_the_start(open_tab: OpenTab, scheme: ColorScheme) -> None:
    john = open_tab(color_scheme=scheme).opens()
    is_accessible(john)
