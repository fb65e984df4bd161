"""The server's life: its socket, what is told while models load, and an end that lets answers finish."""

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from edgeq.errors import UsageError
from edgeq.serve import executor, heap
from edgeq.serve.app import application
from edgeq.serve.connections import Connection
from edgeq.serve.guard import HEADERS, Rules
from edgeq.serve.roster import Roster
from edgeq.serve.systemd import notify


class _Server(uvicorn.Server):
    """Ends by itself where a signal asks for it, with whatever it still answers."""

    interrupted = False

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.interrupted = self.interrupted or sig == signal.SIGINT
        super().handle_exit(sig, frame)


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UsageError where it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, as asyncio has sockets send at once (without Nagle's delay) only where it is sure that they are
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(1024)
    except OSError as error:
        listening.close()
        raise UsageError(
            f"cannot listen on {host} port {port}: {error.strerror}: give another --port or --host"
        ) from error
    return listening


def _address(listening: socket.socket) -> str:
    if listening.family not in (socket.AF_INET, socket.AF_INET6):
        return str(listening.getsockname())
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def make_server(app: ASGIApp, patience_s: float, access_log: bool) -> _Server:
    """A server of an application, which ends with what it answers at the latest `patience_s` after it is told to."""
    config = uvicorn.Config(
        app,
        http=Connection,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_level="info" if access_log else "warning",
        access_log=access_log,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=HEADERS,
        timeout_graceful_shutdown=max(1, round(patience_s)),
    )
    return _Server(config)


def serve(
    roster: Roster,
    rules: Rules,
    listening: socket.socket,
    announce: Callable[[str], None],
    patience_s: float = 30.0,
    access_log: bool = False,
) -> None:
    """Serve until a signal ends it; models load meanwhile.

    Raises what loading a model raised, and KeyboardInterrupt where Ctrl-C ended it.
    """
    heap.share()
    logging.getLogger("edgeq.serve").addHandler(logging.StreamHandler())
    server = make_server(application(roster, rules), patience_s, access_log)

    def loaded() -> None:
        if roster.failure is not None:
            server.should_exit = True
        else:
            announce("ready")
            notify("READY=1")

    address = _address(listening)
    first, *others = roster.entries
    later = f", {', '.join(others)} when asked for" if others else ""
    announce(f"listening on {address}, loading {first}{later}")
    roster.start_loading(loaded)
    try:
        server.run(sockets=[listening])
    finally:
        notify("STOPPING=1")
        listening.close()
        executor.finish()  # what a client has asked for whom a draining server left may still read models
    if roster.failure is not None:
        raise roster.failure
    if roster.ready:
        roster.close()
    if server.interrupted:
        raise KeyboardInterrupt
