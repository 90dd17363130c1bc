"""Signing in with the emulator's Cognito, in a chat that lets nobody else in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import jwt
import pytest
import websocket
from playwright.sync_api import Browser

from emulator import user_pool
from emulator.emulator import BIN, ROOT, Emulator
from emulator.user_pool import UserPool
from scripts import Failure
from tests.e2e.actors import PATIENCE, Person, Terminal
from tests.e2e.conftest import Cloud, eventually, free_port
from tests.e2e.tabs import tabs
from tests.e2e.test_chat import TRANSCRIPT
from tests.e2e.test_make_run import script
from tests.issuers import rsa_key

STACK = "SignedIn"
PEOPLE = ("John", "Jenny", "JOHN.", "J\u043ehn")  # the last with a Cyrillic letter
CLIENTS = {"client-1": "John", "client-2": "Jenny"}
RENAMED = "Your nickname comes from your account."


@pytest.fixture(scope="module")
def pool(cloud: Cloud) -> UserPool:
    return UserPool(cloud.emulator, PEOPLE)


@pytest.fixture(scope="module")
def chat(cloud: Cloud, pool: UserPool) -> Iterator[str]:
    """The address of a chat in which people sign in."""
    yield deploy(cloud.emulator, *pool.parameters)
    cloud.emulator.delete(STACK)


def deploy(emulator: Emulator, *parameters: str) -> str:
    return emulator.deploy(stack=STACK, parameters=[f"TableName={STACK}", *parameters])


@pytest.fixture
def sign_in(chat: str, pool: UserPool) -> Iterator[Callable[[str], Person]]:
    with ExitStack() as people:
        yield lambda name: people.enter_context(Person(f"{chat}?token={token_of(pool, name)}"))


def token_of(pool: UserPool, name: str, *, kind: str = "IdToken", client: str | None = None) -> str:
    """A token such as a page gets when somebody signs in."""
    client = client or pool.client
    return user_pool.sign_in(pool.cognito, pool.id, client, name, pool.password)[kind]


def another_client(pool: UserPool) -> str:
    made = pool.cognito.create_user_pool_client(
        UserPoolId=pool.id, ClientName="another", ExplicitAuthFlows=user_pool.FLOWS
    )
    return str(made["UserPoolClient"]["ClientId"])


def refusal(url: str) -> int:
    """The status with which a handshake is refused."""
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        websocket.create_connection(url, timeout=PATIENCE)
    return int(refused.value.status_code)


def rows(cloud: Cloud) -> list[dict[str, Any]]:
    items = cloud.client("dynamodb").scan(TableName=STACK, ConsistentRead=True)["Items"]
    return [row for row in items if row["PK"]["S"] != "accounts"]


def test_two_who_signed_in_chat_by_the_transcript(
    sign_in: Callable[[str], Person], cloud: Cloud
) -> None:
    """From `/join` on: nobody has to log in."""
    people = {client: sign_in(name) for client, name in CLIENTS.items()}
    for step in TRANSCRIPT:
        if step["sends"] in CLIENTS.values():
            continue
        if step["sends"] == "/nick JennyJones":
            people["client-2"].says("/nick JennyJones")
            people["client-2"].hears(RENAMED)
            continue
        people[step["client"]].says(step["sends"])
        for client, person in people.items():
            received = step["receives"].get(client, [])
            person.hears(*(frame.replace("JennyJones", "Jenny") for frame in received))
    for person in people.values():
        person.hears_nothing()
        person.leaves()
    eventually(lambda: rows(cloud) == [])


def test_the_same_person_takes_over(sign_in: Callable[[str], Person], cloud: Cloud) -> None:
    john, jenny = sign_in("John"), sign_in("Jenny")
    for person in (john, jenny):
        person.says("/join moving")
        person.hears('Joined chat room "moving"')
    john.hears("Jenny joined room.")
    john_elsewhere = sign_in("John")
    john.hears("You have connected from elsewhere.")
    john.is_disconnected()
    jenny.hears("John left room.")
    john_elsewhere.says("/nick")
    john_elsewhere.hears("Current nickname: John")
    john_elsewhere.says("Hi")
    john_elsewhere.hears("Cannot send message if not in chatroom.")
    john_elsewhere.leaves()
    jenny.leaves()
    eventually(lambda: rows(cloud) == [])


def test_a_frame_that_meets_the_newer_connection(
    sign_in: Callable[[str], Person], cloud: Cloud
) -> None:
    """The table is as after the takeover, but the older one is not told yet.

    Jenny's connection stands for the newer one.
    """
    john, jenny = sign_in("John"), sign_in("Jenny")
    table = cloud.client("dynamodb")
    found = table.scan(TableName=STACK, ConsistentRead=True)["Items"]
    ids = {row["SK"]["S"]: row["PK"] for row in found}
    older, newer = ids["username_John"], ids["username_Jenny"]
    for row in found:
        key = {name: row[name] for name in ("PK", "SK")}
        if row["PK"] == older or key["SK"]["S"] == "taken_john":
            table.delete_item(TableName=STACK, Key=key)
        elif row.get("connection_id") == older:
            table.put_item(TableName=STACK, Item=row | {"connection_id": newer})
    john.says("/nick")
    john.hears("You have connected from elsewhere.")
    john.is_disconnected()
    jenny.leaves()
    eventually(lambda: rows(cloud) == [])


def test_of_two_accounts_that_look_the_same_the_second_is_refused(
    sign_in: Callable[[str], Person], chat: str, pool: UserPool, cloud: Cloud
) -> None:
    john = sign_in("John")
    assert refusal(f"{chat}?token={token_of(pool, PEOPLE[3])}") == 403
    john.says("/room")
    john.hears("Not currently in a room. Type /join {room_name} to do so.")
    john.leaves()
    eventually(lambda: rows(cloud) == [])
    sign_in(PEOPLE[3]).leaves()
    eventually(lambda: rows(cloud) == [])


def test_bad_tokens_are_refused_before_anything_else_runs(
    chat: str, pool: UserPool, cloud: Cloud
) -> None:
    good = token_of(pool, "John")
    header, fields = (jwt.get_unverified_header(good), decoded(good))
    bad = {
        "signature": jwt.encode(fields, rsa_key("forged"), "RS256", {"kid": header["kid"]}),
        "aud": token_of(pool, "John", client=another_client(pool)),
        "nickname": token_of(pool, "John", kind="AccessToken"),  # it has another field for the name
        "alg": f"{jwt.encode(fields, '', 'none', {'kid': header['kid']})}x",
        "format": "x",
        "kid": jwt.encode(fields, rsa_key("forged"), "RS256", {"kid": "forged"}),
    }
    before = len(cloud.functions_output.read_text())
    assert refusal(chat) == 401
    assert refusal(f"{chat}?token=") == 401
    for token in bad.values():
        assert refusal(f"{chat}?token={token}") == 403
    done = re.compile(rf"^{STACK}-Authorize-.* done ", re.MULTILINE)
    eventually(lambda: len(done.findall(logged(cloud, before))) == len(bad))
    output = logged(cloud, before)
    for check in bad:
        assert "a token was refused request_id=" in output
        assert f" check={check}\n" in output
    assert "Connect" not in output
    assert not [token for token in (good, *bad.values()) if len(token) > 1 and token in output]


def logged(cloud: Cloud, since: int) -> str:
    """The new lines of this stack; those of other tests' stacks may come late."""
    lines = cloud.functions_output.read_text()[since:].splitlines(keepends=True)
    return "".join(line for line in lines if line.startswith(f"{STACK}-"))


def decoded(token: str) -> dict[str, Any]:
    fields: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return fields


def test_an_expired_token_is_refused(
    chat: str, pool: UserPool, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed with the pool's own key, which the emulator keeps in a file."""
    directory = cloud.emulator.directory / "tmp" / "state" / "cognito-pool-keys"
    key = (directory / f"{pool.id}-id.pem").read_bytes()
    token = token_of(pool, "John")
    header, fields = jwt.get_unverified_header(token), decoded(token)
    fields["exp"] = fields["iat"] - 61
    expired = jwt.encode(fields, key, "RS256", {"kid": header["kid"]})
    before = len(cloud.functions_output.read_text())
    assert refusal(f"{chat}?token={expired}") == 403
    eventually(lambda: " check=exp\n" in logged(cloud, before))


def test_the_authorizer_may_only_log(cloud: Cloud, chat: str) -> None:
    function = cloud.client("lambda").list_functions()["Functions"]
    (role,) = {each["Role"] for each in function if f"{STACK}-Authorize" in each["FunctionName"]}
    name = role.rpartition("/")[2]
    iam = cloud.client("iam")
    assert iam.list_role_policies(RoleName=name)["PolicyNames"] == []
    (attached,) = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
    assert "LogAndTrace" in attached["PolicyName"]


def resources(cloud: Cloud, stack: str) -> set[str]:
    listed = cloud.client("cloudformation").describe_stack_resources(StackName=stack)
    return {each["LogicalResourceId"] for each in listed["StackResources"]}


def test_an_issuer_without_an_audience_is_refused_before_anything_is_created(
    cloud: Cloud, pool: UserPool, capfd: pytest.CaptureFixture[str]
) -> None:
    template = cloud.emulator.directory / "out" / "template.yml"
    with pytest.raises(Failure):
        cloud.emulator.deploy_template(
            template, stack="NoAudience", parameters=["TableName=None", pool.parameters[0]]
        )
    assert "TokenIssuer needs a TokenAudience" in capfd.readouterr().err
    listed = cloud.client("cloudformation").list_stacks()["StackSummaries"]
    assert not [each for each in listed if each["StackName"] == "NoAudience"]


def test_sign_in_is_turned_off_and_on_again(cloud: Cloud, chat: str, pool: UserPool) -> None:
    sign_in = {"Authorize", "Authorizer", "AuthorizePermission", "AuthorizeRole"}
    assert resources(cloud, STACK) >= sign_in
    assert deploy(cloud.emulator, "TokenIssuer=", "TokenAudience=", "SignInClient=") == chat
    assert resources(cloud, STACK).isdisjoint(sign_in)
    with Person(chat) as anybody:
        anybody.says("Anybody")
        anybody.hears("Using nickname: Anybody\nType /help for list of commands.")
    assert deploy(cloud.emulator, *pool.parameters) == chat
    assert refusal(chat) == 401
    with Person(f"{chat}?token={token_of(pool, 'John')}") as john:
        john.says("/nick")
        john.hears("Current nickname: John")


def test_make_run_prints_how_each_of_two_people_signs_in(
    monkeypatch: pytest.MonkeyPatch, browser: Browser
) -> None:
    """On the page, and in a terminal."""
    monkeypatch.setenv("SIGN_IN", "on")
    port = free_port()
    monkeypatch.setenv("PORT", str(port))
    with script("run", port) as run:
        run.prints("Ctrl-C stops everything")
        page = run.prints(r"(?<=\n\nOpen )http://\S+(?= in two tabs\.\n)")
        password = run.prints(r"(?<=Sign in as John and as Jenny\. Their password: )\S+(?=\n)")
        with tabs(browser, page) as open_tab:
            jenny = open_tab().opens()
            jenny.signs_in("Jenny", password)
            jenny.sees('Joined chat room "lobby"')
        assert "token=" not in run.printed
        commands = re.findall(rf"make chat PORT={port} AS=(\w+)", run.printed)
        assert commands == ["John", "Jenny"]
        for name in commands:
            with Terminal(sys.executable, "-m", "scripts.chat", "--as", name) as person:
                person.sees("Press Ctrl+C to quit\n> ")
                person.types("/nick")
                person.sees(f"Press Ctrl+C to quit\n> /nick\n< Current nickname: {name}\n> ")
                person.presses_control_d()
        for command, advice in SIGNED_OUT.items():
            ended = subprocess.run(
                [sys.executable, "-m", f"scripts.{command}"], capture_output=True, text=True
            )
            assert ended.returncode == 1
            said = (ended.stdout + ended.stderr).splitlines()[-1]
            assert said.endswith(f": people sign in to this chat, and you have not{advice}")
        nobody = [sys.executable, "-m", "scripts.chat", "--as", "Nobody"]
        said = subprocess.run(nobody, capture_output=True, text=True).stderr
        assert said == "Nobody cannot sign in: only John and Jenny have accounts.\n"
        run.prints("ChaliceChat-Authorize\\S*: ")


SIGNED_OUT = {
    "chat": "; with `make run SIGN_IN=on`: make chat AS=John",
    "smoke": "",
    "load": "",
}


def test_sign_in_is_on_or_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGN_IN", "yes")
    with script("run", free_port()) as run:
        assert run.ends() == 1
    assert run.printed.strip().startswith("SIGN_IN is on or off, not 'yes'")


def test_the_commands_of_the_documentation_make_a_chat_with_sign_in(
    cloud: Cloud, browser: Browser
) -> None:
    """They run in sh, but `Emulator` deploys instead of `make`, and a `Person` replaces wsdump."""
    text = (ROOT / "docs" / "sign-in.md").read_text()
    create, deploy_it, use, allow_page = (
        block
        for block in re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        if "$POOL" in block
    )
    issuer = deploy_it.splitlines()[0]
    (parameters,) = re.findall('PARAMETERS="(.*)"', deploy_it, re.DOTALL)
    environment = cloud.emulator.environment | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PASSWORD": "Correct-horse-1",
    }

    def shell(commands: str) -> list[str]:
        command = ["sh", "-e", "-c", commands]
        ran = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return ran.stdout.splitlines()

    *_, pool, client, chosen, token = shell(
        f"{create}\n{issuer}\necho $POOL\necho $CLIENT\necho {parameters}\n"
        f"{use.partition('wsdump')[0]}\necho $TOKEN"
    )
    url = cloud.emulator.deploy(
        stack="Documented", parameters=["TableName=Documented", *chosen.split()]
    )
    with Person(f"{url}?token={token}") as john:
        john.says("/nick")
        john.hears("Current nickname: John")
    page = cloud.emulator.page_url("Documented")
    assert page
    environment |= {"POOL": pool, "CLIENT": client, "PAGE": page}
    shell(allow_page.partition("\n")[2])
    with tabs(browser, page) as open_tab:
        tab = open_tab().opens()
        tab.signs_in("John", environment["PASSWORD"])
        tab.sees('Joined chat room "lobby"')
    cloud.emulator.delete("Documented")
