"""Connections for fetching from places that strangers name: a host comes in, a bounded stream goes out.

A name is resolved once, and the addresses that were checked are the ones connected to, so no second answer
of a name server can lead inside. One deadline bounds lookup, connection, TLS and every read. Knows no HTTP.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

import httpcore

from zccr_stream.content.addresses import Network, refusal
from zccr_stream.events import BadInputError

_ADDRESSES_MAX = 4
_LOOKUPS_MAX = 64  # a lookup that outlives its fetch goes on until the resolver gives up


class Deadline(threading.local):
    """When this thread's fetch must end: a connection serves one fetch at a time, in that fetch's thread."""

    end_s = 0.0

    def start(self, timeout_s: float) -> None:
        """Begin a fetch of at most `timeout_s`."""
        self.end_s = time.monotonic() + timeout_s

    def left_s(self, timeout_s: float | None, late: type[httpcore.TimeoutException]) -> float:
        """What is left, and at most `timeout_s`; raises `late` if nothing is."""
        left_s = self.end_s - time.monotonic()
        if left_s <= 0:
            raise late("the deadline has passed")
        return left_s if timeout_s is None else min(left_s, timeout_s)


class CheckedNetwork(httpcore.NetworkBackend):
    """Connects to checked addresses only; TLS, above it, goes on to verify the host name."""

    def __init__(self, allowed: Sequence[Network], deadline: Deadline) -> None:
        self._allowed = allowed
        self._deadline = deadline
        self._network = httpcore.SyncBackend()
        self._lookups = threading.BoundedSemaphore(_LOOKUPS_MAX)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Resolve, check, connect.

        Raises:
            BadInputError: an address of this host may not be connected to.
        """
        addresses = self._look_up(host, port)
        for address in addresses:
            # One bad address refuses the name: a public host has no business pointing inside as well.
            if (reason := refusal(address, self._allowed)) is not None:
                leads = address if host == address else f"{host} leads to {address}, which"
                message = f"{leads} is {reason}; expected a host on the public internet"
                raise BadInputError("fetch", message)
        failure: httpcore.NetworkError | httpcore.TimeoutException = httpcore.ConnectError(f"{host} has no address")
        for address in addresses[:_ADDRESSES_MAX]:
            try:
                left_s = self._deadline.left_s(timeout, httpcore.ConnectTimeout)
                stream = self._network.connect_tcp(address, port, left_s, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _BoundedStream(stream, self._deadline)
        raise failure

    def _look_up(self, host: str, port: int) -> list[str]:
        """Resolve within the deadline: in a thread that can be left, as the resolver cannot be stopped."""
        left_s = self._deadline.left_s(None, httpcore.ConnectTimeout)
        if not self._lookups.acquire(timeout=left_s):
            raise httpcore.ConnectTimeout("too many name lookups are under way")
        found: queue.SimpleQueue[list[str] | OSError] = queue.SimpleQueue()

        def look_up() -> None:
            try:
                found.put(resolve(host, port))
            except OSError as error:
                found.put(error)
            finally:
                self._lookups.release()

        threading.Thread(target=look_up, name="zccr-lookup", daemon=True).start()
        try:
            answer = found.get(timeout=self._deadline.left_s(None, httpcore.ConnectTimeout))
        except queue.Empty:
            raise httpcore.ConnectTimeout(f"{host} could not be resolved in time") from None
        if isinstance(answer, OSError):
            # A name that is unknown now may be known in a while (a new record, a resolver that lost its
            # uplink and says so in the same words), so it is retried like an outage.
            raise httpcore.ConnectError(f"{host} could not be resolved: {answer.strerror or answer}") from answer
        return answer


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, best first, each once."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class _BoundedStream(httpcore.NetworkStream):
    """Every operation ends by the fetch's deadline: with a timeout per read a dripping server could go on."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left_s(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.left_s(timeout, httpcore.WriteTimeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left_s = self._deadline.left_s(timeout, httpcore.ConnectTimeout)
        return _BoundedStream(self._stream.start_tls(ssl_context, server_hostname, left_s), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def close(self) -> None:
        self._stream.close()
