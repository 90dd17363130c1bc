"""The commands: nicknames, rooms, lists."""

import pytest

from tests.conftest import Chat, Person, requests

INVALID_NICKNAME = (
    'Nicknames are 1 to 32 printable characters, without spaces or ":", and do not start with "/".'
)


# Nicknames


def test_a_new_nickname_is_announced(john: Person, jenny: Person) -> None:
    jenny.says("/nick JennyJones")
    jenny.hears("Nickname is: JennyJones")
    john.hears("Jenny is now known as JennyJones.")


def test_a_new_nickname_outside_of_a_room_is_not_announced(chat: Chat, john: Person) -> None:
    jack = chat.person("Jack")
    jack.says("/nick Jim")
    jack.hears("Nickname is: Jim")
    john.hears_nothing()


def test_a_nickname_is_free_after_a_rename(john: Person, jenny: Person) -> None:
    john.says("/nick Jack")
    john.hears("Nickname is: Jack")
    jenny.hears("John is now known as Jack.")
    jenny.says("/nick john")
    jenny.hears("Nickname is: john")


def test_the_old_nickname_stays_if_the_new_one_is_taken(john: Person, jenny: Person) -> None:
    jenny.says("/nick john")
    jenny.hears("Nickname john is already in use.")
    john.hears_nothing()
    jenny.says("/nick")
    jenny.hears("Current nickname: Jenny")


def test_the_holder_may_change_the_case(john: Person, jenny: Person) -> None:
    john.says("/nick JOHN")
    john.hears("Nickname is: JOHN")
    jenny.hears("John is now known as JOHN.")
    jenny.says("/nick John")
    jenny.hears("Nickname John is already in use.")


def test_the_same_nickname_again(john: Person, jenny: Person) -> None:
    john.says("/nick John")
    john.hears("Nickname is: John")
    jenny.hears("John is now known as John.")


@pytest.mark.parametrize("name", ["a:b", "/x", "x" * 33, "\u202ex"])
def test_a_bad_nickname_changes_nothing(john: Person, jenny: Person, name: str) -> None:
    john.says(f"/nick {name}")
    john.hears(INVALID_NICKNAME)
    jenny.hears_nothing()
    john.says("/nick")
    john.hears("Current nickname: John")


def test_the_nickname_of_a_vanished_person_is_free(chat: Chat, john: Person, jenny: Person) -> None:
    john.vanishes()
    jack = chat.person("Jack")
    jack.says("/nick John")
    jack.hears("Nickname is: John")
    jenny.hears("John left room.")


# Rooms


def test_join_without_a_name(john: Person) -> None:
    john.says("/join")
    john.hears("Usage: /join {chat_room_name}")


def test_moving_to_another_room(chat: Chat, john: Person, jenny: Person) -> None:
    jack = chat.person("Jack", "tea")
    john.says("/join tea")
    john.hears('Left chat room "chalice"', 'Joined chat room "tea"')
    jenny.hears("John left room.")
    jack.hears("John joined room.")


def test_joining_the_same_room_again_moves_to_the_end_of_its_list(
    john: Person, jenny: Person
) -> None:
    john.says("/join chalice")
    john.hears('Left chat room "chalice"', 'Joined chat room "chalice"')
    jenny.hears("John left room.", "John joined room.")
    john.says("/ls")
    john.hears("Jenny\nJohn")


@pytest.mark.parametrize("room", ["x" * 65, "a\u200bb", "\x07"])
def test_a_bad_room_changes_nothing(john: Person, jenny: Person, room: str) -> None:
    john.says(f"/join {room}")
    john.hears("Room names are 1 to 64 printable characters, without spaces.")
    jenny.hears_nothing()
    john.says("/room")
    john.hears("chalice")


def test_room_outside_of_one(chat: Chat) -> None:
    john = chat.person("John")
    john.says("/room")
    john.hears("Not currently in a room. Type /join {room_name} to do so.")


def test_quit_outside_of_a_room_says_nothing(chat: Chat) -> None:
    john = chat.person("John")
    john.says("/quit")
    john.hears_nothing()


def test_members_are_listed_in_the_order_in_which_they_joined(chat: Chat) -> None:
    names = ["Zoe", "Adam", "Mia", "Bert"]
    people = [chat.person(name, "chalice") for name in names]
    people[1].says("/ls")
    people[1].hears("Zoe\nAdam\nMia\nBert")
    people[0].says("/nick Aaron")
    people[1].hears("Zoe is now known as Aaron.")
    people[1].says("/ls")
    people[1].hears("Aaron\nAdam\nMia\nBert")


def test_rooms_are_listed_sorted(chat: Chat) -> None:
    for name, room in [("Zoe", "tea"), ("Adam", "chalice"), ("Mia", "Tea"), ("Bert", "tea")]:
        chat.person(name, room)
    john = chat.person("John")
    john.says("/ls")
    john.hears("Tea\nchalice\ntea")


def test_a_room_is_not_listed_after_its_last_member_left(
    chat: Chat, john: Person, jenny: Person
) -> None:
    for person in (john, jenny):
        person.says("/quit")
    chat.connections.posts.clear()
    john.says("/ls")
    john.hears("No chat rooms open. Type /join {room_name} to open one.")


@pytest.mark.parametrize("rooms", [10, 11, 30])
def test_ls_outside_lists_only_so_many_rooms(
    chat: Chat, rooms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chalicelib.commands.MOST_ROOMS", 10)
    john = chat.person("John")
    expires_at = int(chat.clock()) + 100
    names = [f"room{n:04}" for n in range(rooms)]
    chat.write(
        {"PK": "rooms", "SK": f"open_{name}", "members": 1, "expires_at": expires_at}
        for name in names
    )
    with requests(chat.storage) as sent:
        john.says("/ls")
    more = ["... and more rooms."] if rooms > 10 else []
    john.hears("\n".join(names[:10] + more))
    assert sent.total() <= 2


def test_a_list_that_is_too_long_for_one_message_comes_in_several(chat: Chat) -> None:
    john = chat.person("John", "chalice")
    chat.write(
        {
            "PK": f"c{n}",
            "SK": "room_chalice",
            "username": f"{n:04}" + "𝄞" * 28,
            "joined_at": n,
            "expires_at": int(chat.clock()) + 100,
        }
        for n in range(500)
    )
    john.says("/ls")
    messages = chat.connections.received(john.id)
    assert len(messages) == 2
    assert all(len(message.encode()) <= 32_768 for message in messages)
    lines = "\n".join(messages).split("\n")
    assert [line[:4] for line in lines] == [f"{n:04}" for n in range(500)] + ["John"]


# Commands


@pytest.mark.parametrize(
    ("frame", "reply"),
    [
        ("/foo", "Unknown command: foo"),
        ("/FOO bar", "Unknown command: foo"),
        ("/", "Unknown command: "),
        ("/ help", "Unknown command: "),
        ("//", "Unknown command: /"),
        ("/help\u0000", "Unknown command: help\ufffd"),
        ("/" + "x" * 32_768, "Message too long: 32785 bytes, the limit is 32768."),
        ("/" + "x" * 131_071, "Message too long: 131088 bytes, the limit is 32768."),
    ],
)
def test_unknown_commands(john: Person, jenny: Person, frame: str, reply: str) -> None:
    john.says(frame)
    john.hears(reply)
    jenny.hears_nothing()


@pytest.mark.parametrize(
    "frame", ["/JOIN tea", "/join  tea", "/join\ttea ", "/Join\u3000tea cups", "/join\n tea"]
)
def test_case_and_white_space_do_not_matter(chat: Chat, frame: str) -> None:
    john = chat.person("John")
    john.says(frame)
    john.hears('Joined chat room "tea"')


@pytest.mark.parametrize("command", ["/help me", "/room 7", "/ls -la", "/quit now"])
def test_superfluous_arguments_are_ignored(john: Person, command: str) -> None:
    john.says(command)
    with_arguments = john.chat.connections.received(john.id)
    john.says("/join chalice")
    john.chat.connections.posts.clear()
    john.says(command.split()[0])
    john.hears(*with_arguments)
