"""/livez, /readyz and /metrics on one port: what they answer, and the server, bounded in time and connections."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Callable

from prometheus_client import MetricsHandler

from zccr_stream.metrics.registry import REGISTRY, gauge

_REQUEST_MAX_S = 10.0
_CONNECTIONS_MAX = 16  # a scraper and two probes need three

_ready = gauge("zccr_ready", "1 when the consumer is ready, else 0.")
_heartbeat = gauge("zccr_heartbeat_timestamp_seconds", "When the poll loop last went round; 0 before.")


class ServeError(Exception):
    """The port of the metrics cannot be served; the message says why and what to do."""


class Health:
    """What the probes answer.

    Alive: the poll loop went round within `heartbeat_max_age_s`; before its first round the process starts
    and is alive. Ready: `set_ready` was called, and `set_unready` not since.
    """

    def __init__(self, heartbeat_max_age_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._heartbeat_max_age_s = heartbeat_max_age_s
        self._monotonic = monotonic
        self._beat_s: float | None = None
        self._unready: str | None = "starting"
        _ready.set(0)

    def beat(self) -> None:
        """The poll loop went round."""
        self._beat_s = self._monotonic()
        _heartbeat.set_to_current_time()

    def set_ready(self) -> None:
        """From now on there is nothing that work has to wait for."""
        self._unready = None
        _ready.set(1)

    def set_unready(self, reason: str) -> None:
        """Not ready, and why; the text is what /readyz answers."""
        self._unready = reason
        _ready.set(0)

    def livez(self) -> tuple[int, str]:
        """HTTP status and text of /livez."""
        if self._beat_s is None:
            return 200, "starting"
        age_s = self._monotonic() - self._beat_s
        if age_s > self._heartbeat_max_age_s:
            return 503, f"no heartbeat for {age_s:.1f} s, at most {self._heartbeat_max_age_s:g} s are allowed"
        return 200, "ok"

    def readyz(self) -> tuple[int, str]:
        """HTTP status and text of /readyz."""
        unready = self._unready
        return (200, "ok") if unready is None else (503, unready)


class Server(socketserver.ThreadingTCPServer):
    """/metrics, /livez and /readyz, in threads of its own until `close`."""

    daemon_threads = True
    allow_reuse_address = True  # a restart need not wait for old connections
    allow_reuse_port = False  # two consumers on one port would answer each other's probes

    def __init__(self, address: str, port: int, health: Health) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._started_s: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__((address, port), _handler(health))
        self._thread = threading.Thread(target=self.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is served, also where 0 was asked for."""
        return int(self.server_address[1])

    def close(self) -> None:
        """Stop serving and free the port."""
        self.shutdown()
        self._thread.join()
        self.server_close()

    def verify_request(self, request: object, client_address: object) -> bool:
        """Refuse a connection beyond the most that may be open."""
        assert isinstance(request, socket.socket)
        with self._lock:
            if len(self._started_s) >= _CONNECTIONS_MAX:
                return False
            self._started_s[request] = time.monotonic()
            return True

    def service_actions(self) -> None:
        """Cut connections that took too long, however busily they trickle."""
        with self._lock:
            for request, started_s in self._started_s.items():
                if time.monotonic() - started_s > _REQUEST_MAX_S:
                    with contextlib.suppress(OSError):
                        request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: object) -> None:
        """Forget a connection and close it."""
        assert isinstance(request, socket.socket)
        with self._lock:
            self._started_s.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away or sent nonsense is no event of ours."""


def _handler(health: Health) -> type[MetricsHandler]:
    class Handler(MetricsHandler):
        registry = REGISTRY
        timeout = _REQUEST_MAX_S  # of one read or write

        def do_GET(self) -> None:  # noqa: N802 - http.server's name
            path = self.path.partition("?")[0]
            if path == "/metrics":
                super().do_GET()
            elif path == "/livez":
                self._answer(*health.livez())
            elif path == "/readyz":
                self._answer(*health.readyz())
            else:
                self._answer(404, "there are /metrics, /livez and /readyz")

        def _answer(self, status: int, text: str) -> None:
            body = f"{text}\n".encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def serve(port: int, health: Health, address: str) -> Server:
    """Serve /metrics, /livez and /readyz.

    Args:
        port: 0 takes a free one, see `Server.port`.
        health: what the probes answer.
        address: the local address to listen on; `0.0.0.0` is every one.

    Raises:
        ServeError: the port is taken or may not be had.
    """
    try:
        return Server(address, port, health)
    except OSError as error:
        raise ServeError(
            f"cannot serve metrics on {address}:{port}: {error.strerror or error}; "
            f"free the port or set ZCCR_METRICS_PORT to another one (0: any that is free)"
        ) from error
