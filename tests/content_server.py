"""An HTTP server on loopback that misbehaves on request, for the tests of content."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

Answer = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request: what it asks for, and ways to answer it."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers.items()), self.client_address[1]))
        path = self.path.partition("?")[0]
        try:
            self.server.answers.get(path, Request.missing)(self)
        except OSError:
            self.close_connection = True  # the client had enough, which is what some tests are about

    def missing(self) -> None:
        self.answer(404, b"nothing here")

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a whole answer; `content_type="…"` is a header."""
        self.head(status, content_length=str(len(body)), **headers)
        self.wfile.write(body)

    def head(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.flush()

    def drip(self, data: bytes, every_s: float = 0.02) -> None:
        """Send the data again and again, byte by byte, until the client or the server goes away."""
        while True:
            for start in range(len(data)):
                self.wfile.write(data[start : start + 1])
                self.wfile.flush()
                if self.server.stopping.wait(every_s):
                    return

    def hang(self) -> None:
        """Never answer."""
        self.server.stopping.wait()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Keep the tests' output clean."""


class Server(ThreadingHTTPServer):
    """Answers by path; `seen` lists (path, headers, client's port) of every request."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        super().__init__((address, 0), Request)
        self.address = address
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.scheme = "http" if tls is None else "https"
        self.answers: dict[str, Answer] = {}
        self.seen: list[tuple[str, dict[str, str], int]] = []
        self.stopping = threading.Event()

    def url(self, path: str, host: str | None = None) -> str:
        return f"{self.scheme}://{host or self.address}:{self.server_port}{path}"

    @contextmanager
    def serving(self) -> Iterator[Self]:
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stopping.set()
            self.shutdown()
            thread.join()
            self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that refuses this server's certificate ends the handshake: nothing to report."""
