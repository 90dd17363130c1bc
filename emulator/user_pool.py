"""A user pool of the emulator's Cognito, for a chat with sign-in: see docs/sign-in.md."""

import secrets
from collections.abc import Sequence
from typing import Any

from emulator.emulator import REGION, Emulator
from scripts import Failure

FLOWS = ["ALLOW_ADMIN_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"]


class UserPool:
    """A new user pool with one client, and with people whose nicknames are their user names.

    Their password is in a file of the emulator, for `token_for`.
    """

    def __init__(self, emulator: Emulator, people: Sequence[str]) -> None:
        self.cognito = emulator.client("cognito-idp")
        self.id = self.cognito.create_user_pool(PoolName="chat")["UserPool"]["Id"]
        made = self.cognito.create_user_pool_client(
            UserPoolId=self.id, ClientName="chat", ExplicitAuthFlows=FLOWS
        )
        self.client = made["UserPoolClient"]["ClientId"]
        self.password = f"Aa1-{secrets.token_hex(6)}"  # everybody's
        (emulator.directory / self.id).write_text(self.password)
        for name in people:
            person = {"UserPoolId": self.id, "Username": name}
            self.cognito.admin_create_user(**person, MessageAction="SUPPRESS")
            self.cognito.admin_set_user_password(**person, Password=self.password, Permanent=True)

    @property
    def parameters(self) -> list[str]:
        """The parameters of a stack whose people are those of the pool."""
        return [
            f"TokenIssuer=https://cognito-idp.{REGION}.amazonaws.com/{self.id}",
            f"TokenAudience={self.client}",
            "NicknameClaim=cognito:username",
            f"SignInClient={self.client}",
        ]

    def allow_page(self, address: str) -> None:
        """Lets the page at this address sign people in."""
        self.cognito.update_user_pool_client(
            UserPoolId=self.id,
            ClientId=self.client,
            ExplicitAuthFlows=FLOWS,
            SupportedIdentityProviders=["COGNITO"],
            CallbackURLs=[address],
            AllowedOAuthFlows=["code"],
            AllowedOAuthScopes=["openid", "profile"],
            AllowedOAuthFlowsUserPoolClient=True,
        )


def token_for(emulator: Emulator, stack: str, name: str) -> str:
    """A token for a chat that `make run SIGN_IN=on` started."""
    (found,) = emulator.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    values = {each["ParameterKey"]: each["ParameterValue"] for each in found.get("Parameters", [])}
    pool = values.get("TokenIssuer", "").rpartition("/")[2]
    password = emulator.directory / pool
    if not pool or not password.exists():
        raise Failure("AS is for a chat of `make run SIGN_IN=on`; this one is not.")
    cognito = emulator.client("cognito-idp")
    try:
        tokens = sign_in(cognito, pool, values["TokenAudience"], name, password.read_text())
    except cognito.exceptions.UserNotFoundException:
        people = " and ".join(
            each["Username"] for each in cognito.list_users(UserPoolId=pool)["Users"]
        )
        raise Failure(f"{name} cannot sign in: only {people} have accounts.") from None
    return tokens["IdToken"]


def sign_in(cognito: Any, pool: str, client: str, name: str, password: str) -> dict[str, str]:
    answer = cognito.admin_initiate_auth(
        UserPoolId=pool,
        ClientId=client,
        AuthFlow="ADMIN_USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": name, "PASSWORD": password},
    )
    tokens: dict[str, str] = answer["AuthenticationResult"]
    return tokens
