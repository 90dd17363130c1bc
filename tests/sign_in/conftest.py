"""An OpenID Connect issuer whose certificate is trusted."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.issuers import Issuer


@pytest.fixture
def issuer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Issuer]:
    with Issuer(tmp_path) as issuer:
        monkeypatch.setenv("SSL_CERT_FILE", str(issuer.certificates))
        yield issuer
