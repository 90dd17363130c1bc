"""The lines stand still and are told apart; and what the page looks like to those who see it."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from chalicelib.page import TITLE
from tests.e2e.small_chat import SmallChat
from tests.e2e.tabs import HIDE, OpenTab, Tab

MINUTES = 60_000  # milliseconds


@pytest.fixture
def clocked(open_tab: OpenTab) -> Tab:
    """With a clock that the test moves on, besides the real time."""
    john = open_tab(locale="en-GB", timezone_id="UTC")
    john.page.clock.install(time="2026-01-01T22:12:00Z")
    return john.opens().enters("John", "tea")


# Nothing moves twice

WATCH_LINES = """() => {
    window.moves = [];
    const scroller = document.querySelector("#scroller");
    const seen = new Map();
    const watch = () => {
        for (const line of scroller.querySelectorAll(".line")) {
            const { top, height } = line.getBoundingClientRect();
            const id = line.querySelector(".text").textContent;
            const before = seen.get(id);
            if (before && Math.abs(before - top) > 0.5) window.moves.push([id, top - before]);
            seen.set(id, top);
        }
        requestAnimationFrame(watch);
    };
    watch();
}"""
FRAMES = (
    "() => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))"
)


@pytest.mark.parametrize("author", ["Rose", "John"])
def test_sending_moves_older_lines_once(john: Tab, chat: SmallChat, author: str) -> None:
    """Whether a line begins with a time, or stands with others under one."""
    for n in range(30):
        chat.sends(f"{author}: line {n}")
    john.reads(f"{author}: line 29")
    john.page.evaluate(FRAMES)
    john.page.evaluate(WATCH_LINES)
    chat.instead["Hi"] = [[]]
    john.says("Hi")
    expect(john.page.locator("#waiting .text")).to_have_text("Hi")
    john.awaits(lambda: "Hi" in chat.heard)
    john.page.evaluate(FRAMES)
    chat.sends("John: Hi")
    john.reads("John: Hi")
    john.page.evaluate(FRAMES)
    moves = john.page.evaluate("moves")
    assert {move for move, _ in moves} >= {"line 29", "line 28"}
    assert [moves.count(move) for move in moves] == [1] * len(moves)
    assert len({move for move, _ in moves}) == len(moves)
    assert all(distance < 0 for _, distance in moves)


def test_a_line_on_its_way_is_marked_and_becomes_the_delivered_one(
    john: Tab, chat: SmallChat
) -> None:
    chat.instead["Hi"] = [[]]
    john.says("Hi")
    line = john.page.locator("#waiting .line")
    dashed = "(line) => getComputedStyle(line.querySelector('.text')).borderStyle"
    assert line.evaluate(dashed) == "dashed"
    before = line.bounding_box()
    john.awaits(lambda: "Hi" in chat.heard)
    chat.sends("John: Hi")
    john.reads("John: Hi")
    delivered = john.page.locator("#log .own")
    assert delivered.evaluate(dashed) == "solid"
    assert delivered.bounding_box() == before


def test_a_reload_does_not_flash_the_form(john: Tab, chat: SmallChat) -> None:
    john.page.add_init_script(
        "window.flashes = 0; requestAnimationFrame(function watch() {"
        " if (document.getElementById('start')?.checkVisibility()) flashes++;"
        " requestAnimationFrame(watch); })"
    )
    chat.instead["John"] = [[]]
    chat.heard.clear()
    john.page.reload()
    john.awaits(lambda: "John" in chat.heard)
    expect(john.page.locator("#status")).to_have_text("Connecting …")
    expect(john.page.locator("#place")).to_have_text("tea")
    chat.sends("Using nickname: John\nType /help for list of commands.")
    john.shows("^You are John$")
    assert john.page.evaluate("flashes") == 0


def test_the_conversation_stands_at_the_input(john: Tab, chat: SmallChat) -> None:
    chat.sends("Rose: Hi")
    john.reads("Rose: Hi")
    john.page.evaluate(FRAMES)
    last, input = (
        john.page.locator(selector).last.bounding_box() for selector in ("#log .line", "#compose")
    )
    assert last
    assert input
    assert 0 <= input["y"] - (last["y"] + last["height"]) < 40


def test_page_up_and_page_down_move_the_lines(john: Tab, chat: SmallChat) -> None:
    for n in range(100):
        chat.sends(f"Rose: line {n}")
    john.reads("Rose: line 99")
    john.page.evaluate(FRAMES)
    top = john.page.locator("#scroller").evaluate_handle("(scroller) => scroller")
    end = top.evaluate("(scroller) => scroller.scrollTop")
    expect(john.page.get_by_label("Your message")).to_be_focused()
    john.page.keyboard.press("PageUp")
    john.awaits(lambda: top.evaluate("(scroller) => scroller.scrollTop") < end - 200)
    assert top.evaluate("(scroller) => scroller.scrollTop") < end - 200
    chat.sends("Rose: and on")
    expect(john.page.get_by_role("button", name="New lines")).to_be_visible()
    for _ in range(2):
        john.page.keyboard.press("PageDown")
    expect(john.page.get_by_role("button", name="New lines")).to_be_hidden()


# Lines that stand out


def dividers(tab: Tab) -> list[str]:
    return tab.page.get_by_role("separator").all_text_contents()


def test_a_line_stands_where_the_unread_begin(john: Tab, chat: SmallChat) -> None:
    chat.sends("Rose: read")
    john.reads("Rose: read")
    john.page.evaluate(HIDE, True)
    chat.sends("Rose: one", "Rose: two")
    john.reads("Rose: two")
    divider = john.page.locator("#log .line:has-text('read') + [role=separator]")
    expect(divider).to_have_text("New")
    john.page.evaluate(HIDE, False)
    expect(divider).to_have_count(1)
    chat.sends("Rose: three")
    john.reads("Rose: three")
    john.page.evaluate(HIDE, True)
    chat.sends("Rose: four")
    john.reads("Rose: four")
    assert dividers(john) == ["New"]
    expect(john.page.locator("#log .line:has-text('three') + [role=separator]")).to_have_count(1)
    john.page.evaluate(HIDE, False)


def test_a_new_day_has_a_line(clocked: Tab, chat: SmallChat) -> None:
    chat.sends("Rose: Good night")
    clocked.reads("Rose: Good night")
    clocked.page.clock.fast_forward(8 * 60 * MINUTES)
    clocked.shows("^You are John$")
    chat.sends("Rose: Good morning")
    clocked.reads("Rose: Good morning")
    assert dividers(clocked) == ["Friday 2 January"]


def test_one_person_who_writes_on_has_a_time_every_five_minutes(
    clocked: Tab, chat: SmallChat
) -> None:
    for n in range(6):
        chat.sends(f"Rose: line {n}")
        clocked.reads(f"Rose: line {n}")
        clocked.page.clock.fast_forward(80_000)
    heads = [
        line.text_content() for line in clocked.page.locator("#log .line:not(.more) > .head").all()
    ]
    assert [head for head in heads if head and head.startswith("Rose")] == [
        "Rose 22:12",
        "Rose 22:17",
    ]


def test_lines_with_ones_own_name_stand_out_and_the_title_says_so(
    john: Tab, chat: SmallChat
) -> None:
    for text, names in (
        ("Are you here, john?", ", your name"),
        ("@John: yes", ", your name"),
        ("Johnny and Elton-John2", ""),
        ("约翰John你好", ", your name"),
    ):
        john.page.evaluate(HIDE, True)
        chat.sends("Rose: Hi", f"Rose: {text}")
        john.reads(f"Rose: {text}")
        assert john.page.locator("#log .named:last-child").count() == bool(names)
        assert john.page.title() == f"(2{names}) tea · {TITLE}"
        john.page.evaluate(HIDE, False)
        assert john.page.title() == f"tea · {TITLE}"


def test_any_name_can_be_looked_for(john: Tab, chat: SmallChat) -> None:
    names = ["a+b", "[x]", "C\\d", "-", "日本"]
    for name in names:
        john.says(f"/nick {name}")
        john.reads(f"Nickname is: {name}")
        chat.sends("Rose: Hi", f"Rose: hey {name}!")
        john.reads(f"Rose: hey {name}!")
    named = john.page.locator("#log .named .text").all_text_contents()
    assert named == [f"hey {name}!" for name in names]


def test_ten_people_have_ten_colours_and_keep_them(john: Tab, chat: SmallChat) -> None:
    chat.sends("nobody is now known as p0.")
    names = [f"p{n}" for n in range(10)]
    for n, name in enumerate(names * 2):
        chat.sends(f"{name}: Hi", f"John: {n}")
        john.reads(f"John: {n}")
    colours = john.page.locator("#log .head .name").evaluate_all(
        "(names) => names.map((name) => [name.textContent, getComputedStyle(name).color])"
    )
    assert len({colour for _, colour in colours}) == 10
    assert len({tuple(pair) for pair in colours}) == 10
    chat.sends("p3 is now known as Rose.", "Rose: Hi")
    john.reads("Rose: Hi")
    renamed = john.page.locator("#log .head .name").last
    assert renamed.evaluate("(name) => getComputedStyle(name).color") == dict(colours)["p3"]


# Long words, and many lines


def test_a_long_word_fills_its_lines(john: Tab, chat: SmallChat) -> None:
    chat.sends(f"Rose: {'W' * 400}")
    john.reads(f"Rose: {'W' * 400}")
    *widths, _ = john.page.locator("#log .text").last.evaluate(
        """(text) => {
            const range = document.createRange();
            range.selectNodeContents(text);
            return [...range.getClientRects()].map(({ width }) => Math.round(width));
        }"""
    )
    assert len(widths) > 3
    assert len(set(widths)) == 1


def test_old_lines_leave_and_many_lines_take_no_more_memory(john: Tab, chat: SmallChat) -> None:
    """Six thousand lines: six minutes of a chat with a thousand a minute."""
    nodes, heap = [], []
    for hundreds in range(0, 6_000, 500):
        lines = [
            f"p{n % 40}: line {n}, see https://a.b/{n}" for n in range(hundreds, hundreds + 500)
        ]
        chat.sends(*lines)
        john.reads(lines[-1])
        measured = metrics(john)
        nodes.append(measured["Nodes"])
        heap.append(measured["JSHeapUsedSize"])
    assert john.page.locator("#log .line").count() == 1_000
    assert nodes[-1] < 1.1 * nodes[2]
    assert heap[-1] < 1.2 * heap[2]


def test_long_lines_leave_sooner(john: Tab, chat: SmallChat) -> None:
    """Since a message holds 32 KB, of which the page shows 4,000 characters and a button."""
    chat.sends(*(f"Rose: {n} {'x ' * 10_000}" for n in range(300)))
    john.awaits(lambda: john.lines[-1].startswith("Rose: 299 x"))
    assert 200 < john.page.locator("#log .line").count() < 250


def metrics(tab: Tab) -> dict[str, float]:
    """The browser's metrics of a tab, after a garbage collection."""
    session = tab.context.new_cdp_session(tab.page)
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    found = session.send("Performance.getMetrics")["metrics"]
    return {metric["name"]: metric["value"] for metric in found}
