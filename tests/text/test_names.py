import unicodedata
from collections.abc import Callable
from contextlib import suppress
from functools import cache

import pytest

from chalicelib.text import names
from tests.conftest import Chat, Person


@pytest.mark.parametrize(
    "name", ["John", "a", "x" * 32, "Jürgen", "李雷", "🙂", "don't", "a/b", "_"]
)
def test_nicknames_that_are_valid(name: str) -> None:
    assert names.nickname(name) == name


def test_white_space_around_a_nickname_is_removed() -> None:
    assert names.nickname(" \tJohn\r\n\u3000") == "John"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "   ",
        "x" * 33,
        "John Smith",
        "John\nJenny",
        "a\u00a0b",
        "a\u2003b",
        "John:",
        "/John",
        "\x00",
        "a\x1bb",
        "\u202eJohn",  # right-to-left override
        "Jo\u200bhn",  # zero-width space
        "\u2066John",  # an isolate
        "\ufeffJohn",  # byte order mark
        "\u3164",  # a letter in Unicode that shows nothing
        "John\ufe00",  # a variation selector that no keyboard writes
        "🏴\U000e0067\U000e0062\U000e007f",  # tags
        "\u2800",
        "\ue000",  # private use
        "\ud800",  # half a character
        "\U0010ffff",  # not a character
    ],
)
def test_nicknames_that_are_not_valid(name: str) -> None:
    with pytest.raises(names.InvalidName, match=r"^Nicknames are 1 to 32 printable characters, "):
        names.nickname(name)


def test_names_are_kept_in_nfc() -> None:
    assert names.nickname("Ju\u0308rgen") == "J\u00fcrgen"
    assert names.room("cafe\u0301") == "caf\u00e9"


def test_the_length_counts_after_nfc() -> None:
    assert names.nickname("u\u0308" * 32) == "ü" * 32
    assert len(unicodedata.normalize("NFC", "\u0958" * 17)) == 34
    with pytest.raises(names.InvalidName):
        names.nickname("\u0958" * 17)


@pytest.mark.parametrize(
    "room", ["chalice", "#chalice", "x" * 64, "a:b", "/etc", "rooms", "öffentlich"]
)
def test_rooms_that_are_valid(room: str) -> None:
    assert names.room(room) == room


@pytest.mark.parametrize("room", ["", " ", "a b", "x" * 65, "\x07", "a\u202eb", "\u200b"])
def test_rooms_that_are_not_valid(room: str) -> None:
    with pytest.raises(names.InvalidName, match=r"^Room names are 1 to 64 printable characters, "):
        names.room(room)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("John", "JOHN"),
        ("Straße", "STRASSE"),
        ("ﬁn", "fin"),
        ("Ａnna", "anna"),
        ("Σίσυφος", "ΣΊΣΥΦΟΣ"),
    ],
)
def test_nicknames_that_count_as_the_same(name: str, other: str) -> None:
    assert names.claim(name) == names.claim(other)


def test_nicknames_that_differ() -> None:
    assert names.claim("John") != names.claim("Jöhn")


def test_a_claim_fits_a_sort_key_however_long_the_folding_makes_it() -> None:
    by_size = sorted(assigned(), key=lambda each: len(names.claim(each).encode()), reverse=True)
    longest = len(names.claim(next(filter(is_valid, by_size))).encode())
    assert longest == len("ミリバール".encode()) + len("\u3099".encode())  # U+334A, decomposed
    assert len("taken_") + longest * names.NICKNAME_LENGTH < 1_024  # Amazon DynamoDB quotas


# Length


def test_nfc_shortens_a_text_to_a_quarter_at_most() -> None:
    """A text is at most as long as its NFD, which is that of its NFC, character by character."""
    expansions = {len(unicodedata.normalize("NFD", chr(code))) for code in range(0x110000)}
    assert max(expansions) == names.DECOMPOSED


def test_the_longest_texts_that_are_names() -> None:
    decomposed = unicodedata.normalize("NFD", "\u1f82")  # alpha with three marks
    assert names.nickname(decomposed * 32) == "\u1f82" * 32
    assert names.room(decomposed * 64) == "\u1f82" * 64


@pytest.mark.parametrize("check", [names.nickname, names.room])
def test_a_text_that_is_too_long_for_a_name_is_not_normalised(
    check: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chalicelib.text.names.unicodedata", None)
    for text in ("a" + "\u0301\u0323" * 128, "a" + "\u0301\u200d\u0323" * 128):
        with pytest.raises(names.InvalidName):
            check(text)


# What shows nothing by itself

DROPPED = "\u200c\u200d\ufe0e\ufe0f"

WRITTEN = {
    "علی\u200cرضا": "علیرضا",
    "ශ්\u200dරී": "ශ්රී",
    "സുനില്\u200d": "സുനില്",
    "র\u200d্যান্সি": "র্যান্সি",
    "Anna❤\ufe0f": "Anna❤",
    "Anna☺\ufe0e": "Anna☺",
    "👩\u200d👩\u200d👧\u200d👦": "👩👩👧👦",
    "🏳\ufe0f\u200d🌈": "🏳🌈",
    "1\ufe0f\u20e3": "1\u20e3",
    "🇩🇪": "🇩🇪",
    "👍🏽": "👍🏽",
}


@pytest.mark.parametrize("check", [names.nickname, names.room])
@pytest.mark.parametrize("written", WRITTEN, ids=ascii)
def test_names_that_keyboards_write(check: Callable[[str], str], written: str) -> None:
    assert check(written) == WRITTEN[written]


def test_a_name_is_shown_and_taken_without_what_shows_nothing(chat: Chat) -> None:
    anna, ali = chat.somebody(), chat.somebody()
    anna.says("Anna❤\ufe0f")
    anna.hears("Using nickname: Anna❤\nType /help for list of commands.")
    ali.says("Anna❤")
    ali.hears("Nickname Anna❤ is already in use.")
    ali.says("Anna\u200c❤")
    ali.hears("Nickname Anna❤ is already in use.")
    ali.says("علی\u200cرضا")
    ali.hears("Using nickname: علیرضا\nType /help for list of commands.")
    ali.says("/join چای\u200cخانه")
    ali.hears('Joined chat room "چایخانه"')
    anna.says("/join چایخانه")
    anna.hears('Joined chat room "چایخانه"')
    ali.hears("Anna❤ joined room.")


@pytest.mark.parametrize("dropped", DROPPED, ids=ascii)
def test_nicknames_that_differ_in_it_are_the_same(dropped: str) -> None:
    assert names.claim(f"Jo{dropped}hn{dropped}") == names.claim("John")


@pytest.mark.parametrize("check", [names.nickname, names.room])
@pytest.mark.parametrize(
    "shown",
    ["", "\u0301John", "John\u0336\u0336\u0336", "John Smith", '{"message"', "x" * 65, "\u200b"],
    ids=ascii,
)
@pytest.mark.parametrize("dropped", DROPPED, ids=ascii)
def test_it_hides_no_name_that_is_not_valid(
    check: Callable[[str], str], shown: str, dropped: str
) -> None:
    for text in (dropped.join(["", *shown, ""]), dropped + shown, shown + dropped):
        with pytest.raises(names.InvalidName):
            check(text)


@pytest.mark.parametrize("text", ["\u200d/John", "John\u200d:", " \u200d /John", "\ufe0f／John"])
def test_it_hides_no_syntax(text: str) -> None:
    with pytest.raises(names.InvalidName):
        names.nickname(text)


def test_white_space_beside_it_is_removed() -> None:
    assert names.nickname(" \u200d\n\ufe0f John \u200c\t\u200d") == "John"


@pytest.mark.parametrize("check", [names.nickname, names.room])
def test_it_does_not_count(check: Callable[[str], str]) -> None:
    name = "u\u0308" * 32
    assert check("\u200d".join(name)) == check(DROPPED * 1_000 + name) == "ü" * 32


# Frames of API Gateway


@pytest.mark.parametrize(
    "name",
    [
        '{"',
        '{"message"',
        '{"x',
        '\u200d{\ufe0f"message"',
        '｛"message"',
        "{＂message＂",
        "﹛＂message＂",
        '︷"message"',
        "{“message”",  # what people take for it
        "{''message''",
        "❴”message”",
    ],
)
def test_no_name_begins_like_a_frame_of_api_gateway(name: str) -> None:
    for check in (names.nickname, names.room):
        with pytest.raises(names.InvalidName):
            check(name)


@pytest.mark.parametrize("name", ["{John}", "{", '"John"', 'J{"', "{'John'}", '[{"'])
def test_braces_and_quotes_elsewhere_are_valid(name: str) -> None:
    assert names.nickname(name) == names.room(name) == name


# Marks


@pytest.mark.parametrize(
    "name",
    [
        "\u0301",  # alone
        "\u0301John",
        "\u20ddJohn",
        "\u0903John",  # a spacing mark
        "J\u0336\u0337\u0338ohn",
        "Jo\u20dd\u20dd\u20ddhn",
        "J" + "\u0336" * 31,
        "ก็็็",
        "ကိိိ",  # the same mark three times
        "ཀ\u0f71\u0f72\u0f74\u0f71",  # four
    ],
)
def test_loose_and_piled_marks(name: str) -> None:
    for check in (names.nickname, names.room):
        with pytest.raises(names.InvalidName):
            check(name)


# Real names

GIVEN = {
    "Cyrillic": (
        "Александр Алексей Анна Борис Вера Виктор Владимир Галина Дмитрий Евгений Екатерина "
        "Жанна Игорь Ирина Кирилл Любовь Мария Надежда Ольга Сергей Софія Юрій Ђорђе Његош "
        "Ќиро Ёлка"
    ),
    "Greek": (
        "Αθηνά Αλέξανδρος Βασίλης Γιώργος Δημήτρης Ελένη Ευαγγελία Ζωή Ηλίας Θεοδώρα Ιωάννης "
        "Κωνσταντίνος Λουκάς Μαρία Νίκος Ξένια Ουρανία Παναγιώτης Ραλλού Σοφία Τάσος Υπατία "
        "Φώτης Χρήστος Ψυχή Ὀδυσσεύς"
    ),
    "Armenian": (
        "Անահիտ Արամ Արմեն Բագրատ Գայանե Գարեգին Դավիթ Եղիշե Զարուհի Էդգար Թամար Լիլիթ "
        "Խաչատուր Հասմիկ Ղևոնդ Մարիամ Նարեկ Շուշան Ոսկան Պետրոս Ռուբեն Սոնա Վարդան Տիգրան "
        "Քրիստինե"
    ),
    "Arabic": (
        "أحمد محمد مُحَمَّد علي فاطمة خديجة عائشة يوسف إبراهيم مريم نور عمر عثمان زينب حسن "
        "حسين ليلى سارة خالد رضا شیرین پرویز گلناز ٹیپو ڈاکٹر"
    ),
    "Hebrew": (
        "אברהם שרה יצחק רבקה יעקב רחל לאה משה מֹשֶׁה אהרן מרים דוד שלמה אסתר נעמי רות יונתן "
        "נועה תמר אורי שַׁבְּתַי יהודית גיל טל חיים"
    ),
    "Devanagari": (
        "अमित अर्जुन आशा इन्दिरा ईशान उषा कृष्ण क्षितिज गणेश ज्योति तृप्ति दीपक नन्दिनी पूजा "
        "प्रिया मोहन राजेश लक्ष्मी विष्णु शांति श्रीधर सुनीता हज़ीं हृषीकेश ज़ीनत"
    ),
    "Thai": (
        "กนกวรรณ กิตติ กุ๊กกิ๊ก จิราพร ชัยวัฒน์ ณัฐพล ทองดี ธนพล นภา นิรันดร์ น้ำฝน บุญมี "
        "ปรีชา พิมพ์ใจ ภูมิพล มาลี ยิ่งลักษณ์ รัตนา วิชัย ศิริพร สมชาย สุภาพ หนึ่ง อำนวย "
        "เปิ้ล"
    ),
    "Vietnamese": (
        "Anh Ánh Bảo Bình Cường Đức Dũng Giang Hạnh Hiếu Hồng Hương Khuê Lan Linh Mỹ Nghĩa "
        "Ngọc Nguyệt Phượng Quỳnh Thảo Thủy Thùy Trang Tuấn Tuyết Việt Xuân Yến Ý"
    ),
    "Korean": (
        "가영 강민 건우 나래 다은 도윤 동현 민서 민준 보람 서연 서준 성민 소희 수빈 승우 아름 영수 예준 우진 은지 재현 정훈 지우 하늘 현우"
    ),
    "Japanese": (
        "太郎 花子 さくら サクラ ゆうき ユウキ がく かく パク バク ハク あい アイ ケンジ 健二 健司 美咲 陽菜 翔太 大輔 マリー まりえ ジョン ひろし ヒロシ "
        "々木"
    ),
    "Chinese": (
        "李雷 韓梅梅 韩梅梅 王芳 王方 张伟 張偉 刘洋 陈静 杨光 赵敏 黄丽 黃麗 周杰 吴刚 徐静 孙悟空 马云 朱莉 胡适 林黛玉 何平 高山 罗敏 郭靖 一一"
    ),
    "Georgian": ("გიორგი დავითი ნინო მარიამი თამარი ლუკა"),
    "Bengali": ("অমিত কৃষ্ণা রবীন্দ্র শ্রেয়া সৌরভ জ্যোৎস্না"),
    "Tamil": ("கார்த்திக் முருகன் லக்ஷ்மி ஸ்ரீ மீனாட்சி அருண்"),
    "Burmese": ("မို့မို့ ကျော် အောင် မြင့် ဖြိုး ရွှေ နွဲ့ စိုး"),
    "Tibetan": ("བསྟན་འཛིན སྒྲོལ་མ རྒྱ་མཚོ པདྨ ཚེ་རིང"),
    "Khmer": ("សុខា ស្រីមុំ ប៉ុំ ចាន់ថា វិច្ឆិកា ភ័ក្ត្រ"),
    "Ethiopic": ("ሀና አበበ ተስፋዬ ሰላም መኮንን ዳዊት"),
    "Cherokee": ("ᏎᏉᏯ ᏣᎳᎩ ᏌᎳᎵ ᎠᏂᏓ ᎤᎶᎩᎳ ᏗᎦᏚ"),
    "Latin": (
        "Adam Amélie Ania Björn Chloé Dalia Daniel Elena Emma Erin Eva Françoise Gëzim Göran "
        "Håkon Ivan Jenny Jesús John José Jürgen Kate Kurt Lucy Łukasz Mary May Nora Oğuz Ray "
        "Ryan Şule Søren Tom Tony Zoë Þóra Ruth Rory Yuri Vera Nina Sofia Noah Noam Jess Jeff "
        "Bess Bob"
    ),
}


@pytest.mark.parametrize("script", GIVEN)
def test_given_names_are_valid_and_no_two_are_the_same(script: str) -> None:
    given = unicodedata.normalize("NFC", GIVEN[script]).split()
    assert [names.nickname(name) for name in given] == given
    assert len({names.claim(name) for name in given}) == len(given)


@pytest.mark.parametrize("script", ["Cyrillic", "Greek", "Armenian", "Cherokee", "Latin"])
def test_given_names_are_the_same_in_capitals(script: str) -> None:
    for name in GIVEN[script].split():
        assert names.claim(name) == names.claim(name.upper()) == names.claim(name.lower())


# Lookalikes

IMITATIONS = {
    "John": [
        "J\u043ehn",  # Cyrillic o
        "J\u03bfhn",  # Greek omicron
        "J\u0585hn",  # Armenian oh
        "J\u03c3hn",  # Greek sigma
        "J\u1d0fhn",  # small capital O
        "J0hn",
        "\u0408ohn",  # Cyrillic je
        "\u0458ohn",
        "\u037fohn",  # Greek yot
        "\u13ab\u043ehn",  # Cherokee gu, Cyrillic o
        "\uab7bohn",  # its small letter
        "Jo\u04bbn",  # Cyrillic shha
        "Jo\u0570n",  # Armenian ho
        "Jo\u13c2n",  # Cherokee ni
        "JO\u041dN",  # Cyrillic en
        "JO\u0397N",  # Greek eta
        "JOH\u039d",  # Greek nu
        "Joh\u0578",  # Armenian vo
        "Joh\u057c",  # Armenian ra
        "\u0408\u043e\u04bb\u0578",  # no letter is Latin
        "Ｊｏｈｎ",
        "𝕵𝖔𝖍𝖓",
        "𝙹𝚘𝚑𝚗",
        "Ⓙⓞⓗⓝ",
        "ᴶᵒʰⁿ",
        "JOHN",
        "John\u2d7f",  # joiner of Tifinagh
        "Jo\u17d2hn",  # joiner of Khmer
        "John\u1039",  # joiner of Burmese
        "John\U0001d159",  # a note without a head
        "John\U00016fe4",  # filler of Khitan
        "John\U0001bc9d",  # selector of Duployan
        "John\U0001da9b",  # fill of SignWriting
        "John\u034f",
        "John\u115f",
        "John\u3164",
        "John\u2800",
        "John\ufe0f",
        "John\U000e0100",
        "John\u200b",
        "John\u200d",
        "John\u00ad",
        "\u202eJohn",
        "John\u2069",
        "John\u00a0",
        "John\U000e0020",
        "John：hi",
        "John︓hi",
        "John﹕hi",
        "John⩴hi",
        "John:hi",
        "／John",
        "John℀",
        "John\u00b4",  # NFKC makes a space of it, and a mark
        "\u0301",
        "\u0488John",
        "John" + "\u0336" * 3,
        "J" + "\u0335" * 31,
    ],
    "Ali": ["AIi", "A1i", "A|i", "AlI", "\u0410li", "\u0391li", "Al\u0456", "A\u04cfi"],
    "Marnie": ["Mamie", "\u041carnie", "\u039carnie", "Ma\u0433nie"],
    "Nina": ["\u039dina", "Ni\u0578a", "N\u03b9na", "\u039d\u0399\u039d\u0391"],
    "Eva": ["E\u03bda", "E\u0475a", "\u0395v\u03b1", "Ev\u0251", "\u0415v\u0430"],
    "Yuri": ["\u03a5uri", "Y\u03c5ri", "\u04aeuri", "Y\u057dri"],
    "Weiß": ["WEISS", "Wei\u03b2"],
    "Carl": ["\u0421arl", "\u03f9arl", "\u03f2arl", "\u13dfarl"],
    "Zo\u011b": ["Zo\u0115"],  # caron and breve
    "O'Neil": ["O’Neil", "O\u02bcNeil"],
    "Anna": ["\u0391\u039d\u039d\u0391", "\u0410\u057c\u057c\u0430"],
}


@pytest.mark.parametrize(
    ("name", "imitation"),
    [(name, imitation) for name in IMITATIONS for imitation in IMITATIONS[name]],
    ids=ascii,
)
def test_an_imitation_is_refused_or_taken(name: str, imitation: str) -> None:
    with suppress(names.InvalidName):
        assert names.claim(names.nickname(imitation)) == names.claim(name)


def test_the_name_of_somebody_else_is_taken_however_it_is_written(
    john: Person, jenny: Person
) -> None:
    jenny.says("/nick J\u043ehn")  # Cyrillic o
    jenny.hears("Nickname J\u043ehn is already in use.")
    john.says("/nick Jack")
    john.hears("Nickname is: Jack")
    jenny.hears("John is now known as Jack.")
    jenny.says("/nick J\u043ehn")
    jenny.hears("Nickname is: J\u043ehn")


def test_every_valid_character_leaves_something_to_compare() -> None:
    assert not [each for each in assigned() if not names.claim(each) and is_valid(each)]


def test_the_claim_of_a_claim_is_itself() -> None:
    for character in assigned():
        for text in (character, f"J{character}"):
            claim = names.claim(text)
            assert claim == text or names.claim(claim) == claim, ascii(text)


@cache
def assigned() -> list[str]:
    """All assigned characters, except those for private use."""
    return [
        character
        for character in map(chr, range(0x110000))
        if unicodedata.category(character) not in ("Cn", "Co", "Cs")
    ]


def is_valid(character: str) -> bool:
    with suppress(names.InvalidName):
        return bool(names.nickname(character))
    return False
