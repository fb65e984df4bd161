"""What a service of systemd is given, and tells: sockets that are open before it, and that it is ready (sd_notify)."""

import contextlib
import socket

from edgeq.system import environment

FIRST = 3  # the file descriptor of the first socket that is passed on


def passed_socket() -> socket.socket | None:
    """The socket that systemd listens on for this process; None where there is none."""
    return socket.socket(fileno=FIRST) if environment.passed_sockets() else None


def notify(state: str) -> None:
    """Tell systemd, where it waits for that: "READY=1", "STOPPING=1"."""
    address = environment.notify_socket()
    if address is None:
        return
    if address.startswith("@"):  # a name that is in no folder
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.sendto(state.encode(), address)
