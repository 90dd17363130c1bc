"""Sign-in: people connect with a token of an OpenID Connect issuer.

Every function imports `authorizer.py`. Only the authorizer's function imports `tokens.py`, and
PyJWT with it; only that function and the page's import `issuer.py`.
"""


class InvalidToken(Exception):
    """A refused token; the message names the check that failed."""
