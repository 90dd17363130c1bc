"""A user pool of the emulator's Cognito, for a chat in which people sign in.

The commands are those of docs/sign-in.md.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from emulator.emulator import REGION, Emulator

FLOWS = ("--explicit-auth-flows", "ALLOW_ADMIN_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH")


class UserPool:
    """A new user pool with one client, and with people whose nicknames are their user names."""

    def __init__(self, emulator: Emulator, people: Sequence[str]) -> None:
        self._emulator = emulator
        self.id = self._cognito(
            *("create-user-pool", "--pool-name", "chat", "--query", "UserPool.Id")
        )
        self._pool = ("--user-pool-id", self.id)
        self.client = self.new_client()
        self.password = f"Aa1-{secrets.token_hex(6)}"  # everybody's
        for name in people:
            user = (*self._pool, "--username", name)
            self._cognito("admin-create-user", *user, "--message-action", "SUPPRESS")
            self._cognito(
                *("admin-set-user-password", *user, "--password", self.password, "--permanent")
            )

    @property
    def parameters(self) -> list[str]:
        """The parameters of a stack whose people are those of the pool."""
        return [
            f"TokenIssuer=https://cognito-idp.{REGION}.amazonaws.com/{self.id}",
            f"TokenAudience={self.client}",
            "NicknameClaim=cognito:username",
            f"SignInClient={self.client}",
        ]

    def new_client(self) -> str:
        return self._cognito(
            *("create-user-pool-client", *self._pool, "--client-name", "chat", *FLOWS),
            *("--query", "UserPoolClient.ClientId"),
        )

    def allow_page(self, address: str, *options: str) -> None:
        """Lets the page at this address sign people in; `options` are more of the client's."""
        self._cognito(
            *("update-user-pool-client", *self._pool, "--client-id", self.client, *FLOWS),
            # As JSON, since the AWS CLI would load a bare URL to get the value.
            *("--supported-identity-providers", "COGNITO", "--callback-urls", f'["{address}"]'),
            *("--allowed-o-auth-flows", "code", "--allowed-o-auth-scopes", "openid", "profile"),
            *("--allowed-o-auth-flows-user-pool-client", *options),
        )

    def token(self, name: str, *, kind: str = "IdToken", client: str | None = None) -> str:
        """A token such as a page gets when somebody signs in."""
        return self._cognito(
            *("admin-initiate-auth", *self._pool, "--client-id", client or self.client),
            *("--auth-flow", "ADMIN_USER_PASSWORD_AUTH"),
            *("--auth-parameters", f"USERNAME={name},PASSWORD={self.password}"),
            *("--query", f"AuthenticationResult.{kind}"),
        )

    def _cognito(self, *command: str) -> str:
        return self._emulator.aws("cognito-idp", *command, "--output", "text").strip()
