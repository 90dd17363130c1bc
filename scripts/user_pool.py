"""A user pool of the emulator's Cognito, for a chat in which people sign in.

The commands are those of docs/sign-in.md.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from scripts.emulator import REGION, Emulator


class UserPool:
    """A new user pool with one client, and with people whose nicknames are their user names."""

    def __init__(self, emulator: Emulator, people: Sequence[str]) -> None:
        self._emulator = emulator
        self.id = self._cognito(
            *("create-user-pool", "--pool-name", "chat", "--query", "UserPool.Id")
        )
        self._pool = ("--user-pool-id", self.id)
        self.client = self.new_client()
        self._password = f"Aa1-{secrets.token_hex(16)}"
        for name in people:
            user = (*self._pool, "--username", name)
            self._cognito("admin-create-user", *user, "--message-action", "SUPPRESS")
            self._cognito(
                *("admin-set-user-password", *user, "--password", self._password, "--permanent")
            )

    @property
    def parameters(self) -> list[str]:
        """The parameters of a stack whose people are those of the pool."""
        return [
            f"TokenIssuer=https://cognito-idp.{REGION}.amazonaws.com/{self.id}",
            f"TokenAudience={self.client}",
            "NicknameClaim=cognito:username",
        ]

    def new_client(self) -> str:
        return self._cognito(
            *("create-user-pool-client", *self._pool, "--client-name", "chat"),
            *("--explicit-auth-flows", "ALLOW_ADMIN_USER_PASSWORD_AUTH"),
            *("--query", "UserPoolClient.ClientId"),
        )

    def token(self, name: str, *, kind: str = "IdToken", client: str | None = None) -> str:
        """What a page gets when somebody signs in."""
        return self._cognito(
            *("admin-initiate-auth", *self._pool, "--client-id", client or self.client),
            *("--auth-flow", "ADMIN_USER_PASSWORD_AUTH"),
            *("--auth-parameters", f"USERNAME={name},PASSWORD={self._password}"),
            *("--query", f"AuthenticationResult.{kind}"),
        )

    def _cognito(self, *command: str) -> str:
        return self._emulator.aws("cognito-idp", *command, "--output", "text").strip()
