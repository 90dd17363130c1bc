"""Texts of others: none blocks a tab, and links end where people end them."""

from __future__ import annotations

from playwright.sync_api import CDPSession, expect

from tests.e2e.small_chat import SmallChat
from tests.e2e.tabs import OpenTab, Tab
from tests.web_sockets import FRAME_BYTES

AUTHOR = "Rose: "


# Texts that have blocked a browser

PLAIN = "some plain words " * 230
LIMIT = 100 / 16
COSTLY = {
    "combining marks on one letter": "e" + "\u0301" * 40_000,
    "different marks": "e" + "\u0301\u0316\u0489\u20dd" * 10_000,
    "marks on each letter": ("e" + "\u0301" * 20) * 2_000,
    "Hebrew marks": "\u05d0" + "\u05b0\u05b1\u05c1" * 10_000,
    "directions letter by letter": "a\u05d0" * 20_000,
    "directions number by number": "1\u0627 " * 20_000,
    "directions mark by mark": "a\u200f" * 10_000,
    "directions of rare letters": "a\U00010800" * 8_000,
    "links": "http://a.b " * 5_000,
    "one long link": "http://a.b/" + "x" * 40_000,
    "links of brackets": "http://a.b/" + "(" * 20_000 + ")" * 20_000,
    "links of marks at the end": ("http://a.b/" + "." * 100) * 500,
    "beginnings of links": "http://" * 6_000,
    "breaks": "\n".join(["x"] * 4_000),
    "joined emoji": "\U0001f469\u200d" * 6_000,
    "variation selectors": "x" + "\ufe0f" * 12_000,
    "zero-width spaces": "\u200b" * 12_000,
    "one word": "x" * 40_000,
    "tabs": "\t" * 40_000,
    "Zalgo in Thai": "\u0e01" + "\u0e49" * 12_000,
    "conjuncts": "\u0915\u094d" * 6_000,
    "Arabic ligatures": "\ufdfd" * 12_000,
    "own name": "John " * 7_000,
}


def test_no_message_blocks_a_tab(john: Tab, chat: SmallChat) -> None:
    """It takes 100 ms of CPU time, on a machine that shows plain words in 16 ms."""
    john.page.set_viewport_size({"width": 360, "height": 740})
    thread = john.page.context.new_cdp_session(john.page)
    thread.send("Performance.enable", {"timeDomain": "threadTicks"})

    def blocks(text: str) -> float:
        before = used(thread)
        is_shown(john, chat, text)
        return used(thread) - before

    def slowness(text: str) -> float:
        """As against plain words; of three measurements, the first below the limit will do."""
        for _ in range(3):
            times = blocks(text) / max(16, blocks(PLAIN))
            if times < LIMIT:
                break
        return times

    measured = {kind: slowness(text) for kind, text in COSTLY.items()}
    assert {kind: times for kind, times in measured.items() if times >= LIMIT} == {}


def used(thread: CDPSession) -> float:
    """The milliseconds of CPU time that a tab's main thread has used."""
    metrics = thread.send("Performance.getMetrics")["metrics"]
    (seconds,) = (each["value"] for each in metrics if each["name"] == "TaskDuration")
    return 1000 * float(seconds)


def is_shown(tab: Tab, chat: SmallChat, text: str) -> None:
    """A text of Rose, in the tab's next frame."""
    text = whole(text)
    tab.page.evaluate("""() => {
        window.shown = new Promise((resolve) => {
            const receive = socket.onmessage;
            socket.onmessage = (event) => {
                socket.onmessage = receive;
                receive(event);
                requestAnimationFrame(() => setTimeout(resolve));
            };
        });
    }""")
    chat.sends(AUTHOR + text.replace("\n", f"\n{AUTHOR}"))
    tab.page.evaluate("window.shown")


def whole(text: str) -> str:
    """As much of a text as a message of Rose holds."""
    size = FRAME_BYTES - len(AUTHOR) - text[:FRAME_BYTES].count("\n") * len(AUTHOR)
    return text.encode()[:size].decode(errors="ignore")


def test_a_long_text_is_shown_bit_by_bit(john: Tab, chat: SmallChat) -> None:
    words = "".join(f"word {n} " for n in range(1_500))
    chat.sends(f"Rose: {words}")
    line = john.page.locator("#log .line").last
    button = line.get_by_role("button", name="Show more")
    shown: list[str] = []
    for presses in range(4):
        expect(line.locator(".text")).to_have_count(presses + 1)
        shown = [text or "" for text in line.locator(".text").all_text_contents()]
        assert len(shown[-1]) <= 4_000
        if presses < 3:
            button.click()
    assert button.count() == 0
    assert "".join(shown) == words


def test_half_a_character_is_never_shown(john: Tab, chat: SmallChat) -> None:
    chat.sends("Rose: x" + "\U0001f642" * 3_000)
    line = john.page.locator("#log .line").last
    expect(line).to_contain_text("Show more")
    assert line.locator(".text").text_content() == "x" + "\U0001f642" * 1_999


def test_marks_that_words_need_stay(john: Tab, chat: SmallChat) -> None:
    for text in ("Tiếng Việt", "e\u0323\u0302", "בְּרֵאשִׁ֖ית", "བརྒྱུད་", "ที่นี่", "हिन्दी", "👩‍🚀"):
        chat.sends(f"Rose: {text}")
        john.reads(f"Rose: {text}")


def test_no_character_is_broken_apart(john: Tab, chat: SmallChat) -> None:
    """Though the page breaks texts of two directions into runs."""
    kinds = ["ที่นี่", "क्षत्रिय ", "我们👩‍🚀", "🇩🇪日", "👍🏽é", "e\u0301", "בְּרֵאשִׁ֖ית "]
    texts = ["é" * shift + kind * 60 for kind in kinds for shift in range(5)]
    chat.sends(*(f"Rose: {text}" for text in texts))
    john.reads(f"Rose: {texts[-1]}")
    assert john.page.locator("#log .text").evaluate_all(BROKEN) == []


BROKEN = """(texts) => texts.flatMap((text) => {
    const nodes = [...text.childNodes].map((node) => node.textContent).filter((text) => text);
    const segments = [...new Intl.Segmenter().segment(text.textContent)].map((it) => it.index);
    let index = 0;
    return nodes.filter((node) => {
        const isBroken = !segments.includes(index);
        index += node.length;
        return isBroken;
    });
})"""


# Links


LINKS = {
    "https://example.com/a_(b)": ["https://example.com/a_(b)"],
    "(see https://example.com/a_(b)).": ["https://example.com/a_(b)"],
    "[x](https://example.com/x)": ["https://example.com/x"],
    "(https://example.com/(a)(b)), https://b.example": [
        "https://example.com/(a)(b)",
        "https://b.example",
    ],
    "看 https://example.com/x（这里）。": ["https://example.com/x"],
    "https://example.com/x。https://example.com/y、": [
        "https://example.com/x",
        "https://example.com/y",
    ],
    "“https://example.com/x”": ["https://example.com/x"],
    "https://example.com/?q=a&b=[c]!": ["https://example.com/?q=a&b=[c]"],
    "http:// https://. HTTPS://EXAMPLE.COM/A": ["HTTPS://EXAMPLE.COM/A"],
    "https://example.com/日本": ["https://example.com/日本"],
    "<https://example.com/x>": ["https://example.com/x"],
}


def test_links_end_where_people_end_them(john: Tab, chat: SmallChat) -> None:
    chat.sends(*(f"Rose: {text}" for text in LINKS))
    john.reads(f"Rose: {[*LINKS][-1]}")
    found = {
        line.text_content(): line.locator("a").all_text_contents()
        for line in john.page.locator("#log .line:not(.aside) .text").all()
    }
    assert found == LINKS


def test_an_invitation_opens_its_room(open_tab: OpenTab, john: Tab, chat: SmallChat) -> None:
    """When it is sent in the chat, with a full stop after it."""
    guest = open_tab()
    for room in ("dev!", "a(b)", "a'b'", "v1.", "~x~", "C#", "100%", "日本", "a/b?c"):
        john.says(f"/join {room}")
        john.awaits(lambda room=room: f'Joined chat room "{room}"' in john.lines)  # type: ignore[misc]
        invitation = john.page.url
        chat.sends(f"Rose: come to {invitation}.")
        link = john.page.locator("#log a").last
        expect(link).to_have_text(invitation)
        guest.page.goto("about:blank")
        guest.url = str(link.get_attribute("href"))
        expect(guest.opens().page.get_by_label("Room")).to_have_value(room)
