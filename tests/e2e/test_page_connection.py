"""The page stays connected, or says why it is not; nothing is lost without a word."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Dialog, WebSocketRoute, expect

from tests.e2e.actors import Person
from tests.e2e.conftest import Cloud
from tests.e2e.tabs import BACK, Network, OpenTab, Tab
from tests.e2e.test_stack import copy_project

MINUTES = 60_000  # milliseconds


@pytest.fixture
def page_url(cloud: Cloud, empty_chat: str) -> str:
    return cloud.page_url()


@pytest.fixture
def john(open_tab: OpenTab) -> Tab:
    john = open_tab()
    john.page.clock.install()
    return john


@pytest.fixture
def network(john: Tab) -> Network:
    network = Network(john)
    john.opens().enters("John", "chalice")
    return network


@pytest.fixture
def jenny(network: Network, john: Tab, arrive: Callable[..., Person]) -> Person:
    jenny = arrive("Jenny", "chalice")
    john.reads("Jenny joined room.")
    return jenny


@pytest.fixture
def pair(open_tab: OpenTab, arrive: Callable[..., Person]) -> tuple[Tab, Person]:
    """John on the page, with the real clock and network, and Jenny in his room."""
    john = open_tab().opens().enters("John", "chalice")
    jenny = arrive("Jenny", "chalice")
    john.reads("Jenny joined room.")
    return john, jenny


def test_a_frame_in_time_keeps_the_connection_open_and_is_not_shown(
    john: Tab, network: Network
) -> None:
    before = john.lines
    for _ in range(3):
        already = len(network.sent)
        advance_until_answered(john, network, 9 * MINUTES)
        assert network.sent[already:] == ["/room"]
    john.says("/room")
    john.sees(*before, "chalice")


def advance_until_answered(tab: Tab, network: Network, milliseconds: int) -> None:
    """Advances the page's clock, so that it sends a frame, and waits for the answer."""
    received = len(network.received)
    tab.page.clock.fast_forward(milliseconds)
    tab.awaits(lambda: len(network.received) > received)


def test_it_is_back_after_the_server_closed_the_connection(
    cloud: Cloud, pair: tuple[Tab, Person], empty_chat: str
) -> None:
    john, jenny = pair
    john.types("half a")
    disconnect(cloud, empty_chat, "John")
    jenny.hears("John left room.", "John joined room.")
    john.shows(BACK)
    expect(john.page.get_by_label("Your message")).to_have_value("half a")
    john.says("Hi")
    john.reads("John: Hi")
    jenny.hears("John: Hi")
    assert [line for line in john.lines if re.match(BACK, line)] == john.lines[-2:-1]


def disconnect(cloud: Cloud, url: str, name: str, table: str = "ChaliceChat") -> None:
    """Closes somebody's connection, as API Gateway does after two hours."""
    rows = cloud.client("dynamodb").scan(TableName=table, ConsistentRead=True)["Items"]
    (row,) = (row for row in rows if row["SK"]["S"] == f"username_{name}")
    api = cloud.client("apigatewaymanagementapi", f"http://{url.removeprefix('ws://')}")
    api.delete_connection(ConnectionId=row["PK"]["S"])


def test_it_is_back_after_the_network_was_gone(pair: tuple[Tab, Person]) -> None:
    john, jenny = pair
    john.context.set_offline(True)
    john.shows(r"^Connection lost at \d")
    for text in ("one", "two", "/nick Jonathan", "three"):
        john.says(text)
    assert john.page.locator("#waiting .line").count() == 4
    john.context.set_offline(False)
    jenny.hears("John left room.", "John joined room.", "John: one", "John: two")
    jenny.hears("John is now known as Jonathan.", "Jonathan: three")
    john.reads("Jonathan: three")
    assert john.page.locator("#waiting .line").count() == 0


def test_it_notices_a_dead_connection_and_waits_for_its_nickname(
    john: Tab, network: Network, jenny: Person
) -> None:
    network.is_up = False
    john.says("lost on the way?")
    john.awaits(lambda: network.sent[-1] == "lost on the way?")
    john.page.clock.fast_forward(1 * MINUTES)
    john.shows("^Perhaps not sent")
    john.says("kept")
    network.is_up = True
    john.page.clock.fast_forward(1 * MINUTES)
    john.shows("Waiting for the name John, which the old connection still has")
    advance_until_answered(john, network, 1 * MINUTES)
    jenny.hears_nothing()
    network.servers[0].close()  # API Gateway has noticed
    jenny.hears("John left room.")
    john.page.clock.fast_forward(1 * MINUTES)
    john.shows(BACK)
    john.reads("John: kept")
    jenny.hears("John joined room.", "John: kept")


def test_a_command_that_was_lost_on_the_way_is_sent_again(john: Tab, network: Network) -> None:
    network.is_up = False
    john.says("/nick Jonathan")
    john.awaits(lambda: network.sent[-1] == "/nick Jonathan")
    john.page.evaluate("dispatchEvent(new Event('offline'))")
    network.is_up = True
    network.servers[0].close()
    john.page.clock.fast_forward(1 * MINUTES)
    john.reads("Nickname is: Jonathan")


def test_a_text_that_met_an_expired_session_is_sent_again(open_tab: OpenTab) -> None:
    john = open_tab()
    sockets: list[WebSocketRoute] = []

    def answer(socket: WebSocketRoute) -> None:
        sockets.append(socket)
        greeting = f"Using nickname: John\nType /help. {len(sockets)}"
        answers = ["Your session has expired. Please reconnect.", "John: Hi"]
        replies = {"John": greeting, "Hi": answers[len(sockets) - 1]}
        socket.on_message(lambda frame: socket.send(replies[str(frame)]))

    john.page.route_web_socket(re.compile("."), answer)
    john.opens().asks_for("John")
    john.says("Hi")
    john.reads("John: Hi")
    assert john.page.locator(".failed").count() == 0


def test_a_text_that_the_server_refuses_is_shown_as_not_sent(
    open_tab: OpenTab, arrive: Callable[..., Person]
) -> None:
    john = open_tab().opens().enters("John")
    john.says("Hi")
    john.reads("Cannot send message if not in chatroom.")
    assert john.page.locator(".failed").all_inner_texts() == ["Not sent\nHi"]


def test_texts_that_are_typed_faster_than_the_pace_arrive_in_order(
    pair: tuple[Tab, Person],
) -> None:
    john, jenny = pair
    texts = [f"text {n}" for n in range(24)]  # 20 may come at once
    for text in texts:
        john.says(text)
    jenny.hears(*(f"John: {text}" for text in texts))
    john.reads("John: text 23")
    assert john.page.locator(".failed").count() == 0


def test_leaving_with_unsent_texts_has_to_be_confirmed(john: Tab, network: Network) -> None:
    network.is_up = False
    john.page.evaluate("dispatchEvent(new Event('offline'))")
    john.says("Hi")
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.dismiss()

    john.page.once("dialog", stay)
    john.page.get_by_role("button", name="Leave").click()
    assert asked == ["Some lines are not sent yet. Leave without sending them?"]
    assert john.page.locator("#waiting .line").count() == 1
    john.page.once("dialog", lambda dialog: dialog.accept())
    john.page.get_by_role("button", name="Leave").click()
    expect(john.page.get_by_label("Nickname")).to_be_focused()
    network.servers[0].close()


def test_the_browser_asks_before_unsent_texts_are_lost(john: Tab, network: Network) -> None:
    """Chrome before 119 does not know that `preventDefault` asks."""
    john.page.evaluate("BeforeUnloadEvent.prototype.preventDefault = () => {}")
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    john.page.on("dialog", stay)
    john.page.evaluate("dispatchEvent(new Event('offline'))")
    john.says("Hi")
    john.page.close(run_before_unload=True)
    john.awaits(lambda: asked == ["beforeunload"])
    assert asked == ["beforeunload"]
    assert john.page.locator("#waiting .line").count() == 1


def test_a_server_that_does_not_answer(open_tab: OpenTab) -> None:
    john = open_tab()
    Network(john).is_up = False
    john.opens().asks_for("John", "chalice")
    john.shows("^The chat does not answer. Check your connection, and try again.$")


def test_a_redeployment_meanwhile(cloud: Cloud, pair: tuple[Tab, Person], tmp_path: Path) -> None:
    john, jenny = pair
    project = copy_project(tmp_path / "project")
    before = Path(shutil.copy(cloud.emulator.directory / "out" / "template.yml", tmp_path))
    commands = project / "chalicelib" / "commands.py"
    commands.write_text(commands.read_text().replace("Unknown command: ", "New and unknown: "))
    try:
        cloud.emulator.deploy(project)
        john.says("Hi")
        john.reads("John: Hi")
        jenny.hears("John: Hi")
        john.says("/new")
        john.reads("New and unknown: new")
    finally:
        cloud.emulator.deploy_template(before)


def test_lines_of_api_gateway_itself(john: Tab, network: Network) -> None:
    """It sends these when a function fails, and when the stage throttles."""
    network.is_up = False
    john.says("Hi")
    john.awaits(lambda: network.sent[-1] == "Hi")
    frame = '{"message": "Internal server error", "connectionId":"a=", "requestId":"b="}'
    network.clients[0].send(frame)
    john.reads("The server could not answer. Please try again.")
    assert john.page.locator(".failed").all_inner_texts() == ["Not sent\nHi"]
    network.is_up = True
