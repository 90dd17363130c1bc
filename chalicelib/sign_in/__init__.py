"""Sign-in: who may connect, decided by the token of an OpenID Connect issuer."""


class InvalidToken(Exception):
    """A token that nobody may connect with; the message names the check that failed."""
