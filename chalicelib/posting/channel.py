"""One HTTP connection, non-blocking, with or without TLS, and how it may fail."""

import errno
import os
import select
import selectors
import socket
import ssl
from typing import Any

from .http1 import MAX_ANSWER, Answer, parse

Address = tuple[Any, ...]  # as from getaddrinfo


class Failure(Exception):
    """A request got no answer; the text says why."""


class Unreachable(Failure):
    """No connection could be made, so nothing was sent."""


class NoAnswer(Failure):
    """The request may have been carried out all the same."""


class Stale(NoAnswer):
    """A kept connection was closed before any byte of the answer: probably before the request."""


class Channel:
    """A non-blocking connection to API Gateway that carries one request at a time."""

    def __init__(self, address: Address, host: str, tls: ssl.SSLContext | None) -> None:
        family, kind, protocol, _, target = address
        self._sock = socket.socket(family, kind, protocol)
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = select.poll()  # cheaper than `recv`, which would raise
        self._unread.register(self._sock, select.POLLIN)
        self._connecting = self._sock.connect_ex(target)
        self._host = host
        self._tls = tls
        self._incoming = self._outgoing = b""
        self._connected = self._kept = False
        self.fileno = self._sock.fileno()  # unchanged when TLS wraps the socket
        self.waits_for = selectors.EVENT_WRITE

    def has_unread(self) -> bool:
        """Whether bytes, or the connection's end, have arrived since the last answer. They answer
        no request, so the connection must not be used again (RFC 9112, section 9.2)."""
        return bool(self._unread.poll(0))

    def begin(self, request: bytes) -> None:
        self._outgoing = request
        self._incoming = b""

    def advance(self) -> Answer | None:
        """Proceed as far as possible without blocking; None if `waits_for` must happen first.

        :raises Failure: the connection can no longer be used.
        """
        try:
            if not self._connected:
                self._connect()
            if self._outgoing:
                self._send()
                return None
            return self._receive()
        except BlockingIOError:
            return None
        # TLS may have to read before it can write, and vice versa.
        except ssl.SSLWantReadError:
            self.waits_for = selectors.EVENT_READ
            return None
        except ssl.SSLWantWriteError:
            self.waits_for = selectors.EVENT_WRITE
            return None
        except OSError as error:
            stale = self._kept and not self._incoming
            raise (Stale if stale else NoAnswer)(f"no answer: {error}") from error

    def timed_out(self, seconds: float) -> Failure:
        if self._connected:
            return NoAnswer(f"no answer within {seconds:.2g} s")
        return Unreachable(f"no connection within {seconds:.2g} s")

    def close(self) -> None:
        self._sock.close()

    def _connect(self) -> None:
        try:
            self._check_connected()
            if self._tls:
                self._shake_hands(self._tls)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            raise Unreachable(f"no connection: {error}") from error
        self._connected = True

    def _check_connected(self) -> None:
        error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or self._connecting
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, os.strerror(error))

    def _shake_hands(self, tls: ssl.SSLContext) -> None:
        if not isinstance(self._sock, ssl.SSLSocket):
            self._sock = tls.wrap_socket(
                self._sock, server_hostname=self._host, do_handshake_on_connect=False
            )
        self._sock.do_handshake()

    def _send(self) -> None:
        self.waits_for = selectors.EVENT_WRITE
        while self._outgoing:
            self._outgoing = self._outgoing[self._sock.send(self._outgoing) :]
        self.waits_for = selectors.EVENT_READ

    def _receive(self) -> Answer | None:
        self.waits_for = selectors.EVENT_READ
        data = self._sock.recv(MAX_ANSWER)
        self._incoming += data
        answer = parse(self._incoming, ended=not data)
        if answer:
            self._kept = answer.reusable
        return answer
