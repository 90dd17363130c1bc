"""The same posts over other HTTP clients, to show why none of them is used.

Each keeps `POOL_SIZE` connections, all opened at once. asyncio and http.client get their requests
from this app's signer; libcurl signs its own.
"""

import asyncio
import http.client
import importlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3

from benchmarks import MESSAGE, REGION, Broadcast, tls_context
from chalicelib.posting import POOL_SIZE
from chalicelib.posting.http1 import Endpoint, parse
from chalicelib.posting.sigv4 import Signer


def signer(session: boto3.Session, endpoint: Endpoint) -> Signer:
    credentials = session.get_credentials().get_frozen_credentials()
    return Signer(endpoint, REGION, credentials, MESSAGE.encode())


class _Posts(asyncio.Protocol):
    """One connection, which takes ids until there are none left."""

    transport: asyncio.Transport

    def __init__(self, ids: Iterator[str], request: Callable[[str], bytes]) -> None:
        self.ids = ids
        self.request = request
        self.delivered = 0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.post()

    def post(self) -> None:
        self.data = b""
        if connection_id := next(self.ids, None):
            self.transport.write(self.request(connection_id))
        else:
            self.transport.close()
            self.done.set_result(self.delivered)

    def data_received(self, data: bytes) -> None:
        self.data += data
        if answer := parse(self.data, ended=False):
            self.delivered += answer.status == 200
            self.post()


def over_asyncio(session: boto3.Session, endpoint: str, authority: str | None) -> Broadcast:
    """Over protocols, which cost less than streams."""
    target, tls = Endpoint.parse(endpoint), tls_context(authority)

    async def one(ids: Iterator[str], request: Callable[[str], bytes]) -> int:
        _, posts = await asyncio.get_running_loop().create_connection(
            lambda: _Posts(ids, request), target.host, target.port, ssl=tls
        )
        return int(await posts.done)

    async def broadcast(ids: Iterator[str]) -> int:
        request = signer(session, target).request
        return sum(await asyncio.gather(*(one(ids, request) for _ in range(POOL_SIZE))))

    return lambda ids: asyncio.run(broadcast(ids))


def over_http_client(session: boto3.Session, endpoint: str, authority: str | None) -> Broadcast:
    """http.client connects and reads answers; letting it write the requests would cost more."""
    target, tls = Endpoint.parse(endpoint), tls_context(authority)
    local = threading.local()

    def connect() -> http.client.HTTPConnection:
        if tls:
            return http.client.HTTPSConnection(target.host, target.port, context=tls)
        return http.client.HTTPConnection(target.host, target.port)

    def post(request: bytes) -> bool:
        if not hasattr(local, "connection"):
            local.connection = connect()
            local.connection.connect()
        local.connection.sock.sendall(request)
        with http.client.HTTPResponse(local.connection.sock, method="POST") as answer:
            answer.begin()
            answer.read()
            return answer.status == 200

    def broadcast(ids: Iterator[str]) -> int:
        request = signer(session, target).request
        with ThreadPoolExecutor(POOL_SIZE) as executor:
            return sum(executor.map(lambda connection_id: post(request(connection_id)), ids))

    return broadcast


def over_libcurl(session: boto3.Session, endpoint: str, authority: str | None) -> Broadcast:
    pycurl: Any = importlib.import_module("pycurl")  # optional
    credentials = session.get_credentials().get_frozen_credentials()
    multi = pycurl.CurlMulti()

    def handle() -> Any:
        easy = pycurl.Curl()
        easy.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        easy.setopt(pycurl.AWS_SIGV4, f"aws:amz:{REGION}:execute-api")
        easy.setopt(pycurl.USERPWD, f"{credentials.access_key}:{credentials.secret_key}")
        easy.setopt(pycurl.HTTPHEADER, [f"x-amz-security-token: {credentials.token}"])
        easy.setopt(pycurl.POSTFIELDS, MESSAGE)
        easy.setopt(pycurl.WRITEFUNCTION, len)
        easy.setopt(pycurl.NOSIGNAL, 1)
        if authority:
            easy.setopt(pycurl.CAINFO, authority)
        return easy

    handles = [handle() for _ in range(POOL_SIZE)]

    def post(easy: Any, connection_id: str) -> None:
        easy.setopt(pycurl.URL, f"{endpoint}/@connections/{connection_id}")
        multi.add_handle(easy)

    def broadcast(ids: Iterator[str]) -> int:
        delivered = busy = 0
        for easy, connection_id in zip(handles, ids, strict=False):
            post(easy, connection_id)
            busy += 1
        while busy:
            multi.perform()
            _, done, failed = multi.info_read()
            assert not failed, failed
            for easy in done:
                delivered += easy.getinfo(pycurl.RESPONSE_CODE) == 200
                multi.remove_handle(easy)
                if (following := next(ids, None)) is not None:
                    post(easy, following)
                else:
                    busy -= 1
            if not done:
                multi.select(1.0)
        return delivered

    return broadcast
