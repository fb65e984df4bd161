"""The process that renders chat templates, which come with a download: it may use so much time and memory, and no more.

One step of a template can take for ever or all memory there is (lists that hold one another twice, compared), where
nothing within the process can stop it. So another one renders, with the system's limits, and is ended where it exceeds
them. It is kept for the next rendering; threads that render at once have one each. When this process ends, however it
does, the system closes their stdin, and they end.
"""

import atexit
import contextlib
import marshal
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from edgeq.errors import TemplateError

SECONDS = 10.0  # of processor time for one rendering; templates of real models take milliseconds
PATIENCE_S = 60.0  # that a rendering takes by the clock, on a machine that has much else to do
MEMORY = 512 << 20  # bytes of address space, of which Python and Jinja take some 40 MB
_KEPT = 2  # processes that wait for the next rendering
_TICK_MS = 100
_PIPE = 1 << 20  # bytes that one process may be ahead of the other: fewer turns for long conversations
_START = """
import marshal, sys
sys.path[:], memory = marshal.load(sys.stdin.buffer)
from edgeq.text.rendering import serve
serve(memory)
"""
# Windows has no such limits, and a frozen program is no interpreter: there templates have the sandbox's bounds alone.
SUPPORTED = os.name == "posix" and not getattr(sys, "frozen", False) and bool(find_spec("resource"))

_idle: list["_Process"] = []


def render(source: str, surroundings: Mapping[str, Any], now: str) -> str:
    """The text of a template with these variables, plain data, at a time in ISO 8601. Raises TemplateError."""
    process = _take() if SUPPORTED and sys.executable else None
    if process is None:
        return _here(source, surroundings, now)
    try:
        kind, text = process.ask(marshal.dumps((source, dict(surroundings), now, SECONDS)))
    except ValueError:
        process.end()
        raise TemplateError("the conversation is nested too deeply for a chat template") from None
    except BaseException:  # Ctrl-C as well: its answer would be taken for the next one's
        process.end()
        raise
    if kind == 2 or len(_idle) >= _KEPT:
        process.end()
    else:
        _idle.append(process)
    if kind:
        raise TemplateError(text)
    return text


def begin() -> None:
    """Start a process now, so that it is there with the first rendering; it takes a tenth of a second of a core."""
    if SUPPORTED and sys.executable and not _idle:
        with contextlib.suppress(OSError):
            _idle.append(_Process())


def _take() -> "_Process | None":
    """A process that lives; None where none can be started."""
    while _idle:
        with contextlib.suppress(IndexError):  # another thread was first
            process = _idle.pop()
            if process.lives:
                return process
    try:
        return _Process()
    except OSError:
        return None


def _here(source: str, surroundings: Mapping[str, Any], now: str) -> str:
    from edgeq.text.rendering import render

    try:
        return render(source, surroundings, now, SECONDS)
    except MemoryError:
        raise TemplateError("the chat template was stopped: it takes more memory than there is") from None


class _Process:
    """A process that renders one template at a time. OSError where it cannot be started."""

    def __init__(self) -> None:
        # In a group of its own, so that Ctrl-C at the terminal does not reach it, and without the user's site:
        # what it imports is what this process would.
        import fcntl

        command = [sys.executable, "-I", "-S", "-c", _START]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            process_group=0,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout.fileno()
        for pipe in (self._requests.fileno(), self._answers):
            with contextlib.suppress(AttributeError, OSError):  # Linux, for those who have not made many pipes
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)
        self._write(marshal.dumps((sys.path, MEMORY)))

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: bytes) -> tuple[int, str]:
        """The kind of its answer, and the text. TemplateError where it ends without one."""
        until = time.monotonic() + PATIENCE_S
        try:
            self._write(request)
            head = self._read(9, until)
            return head[0], self._read(int.from_bytes(head[1:], "little"), until).decode("utf-8", "surrogatepass")
        except (OSError, EOFError):
            raise TemplateError(f"the chat template was stopped: {self._why()}") from None

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._requests.write(view) :]

    def _read(self, nbytes: int, until: float) -> bytes:
        parts, poll = [], select.poll()
        poll.register(self._answers, select.POLLIN)
        while nbytes:
            if not poll.poll(_TICK_MS):
                if time.monotonic() > until:
                    raise EOFError
                self._check_memory()
                continue
            part = os.read(self._answers, min(nbytes, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            nbytes -= len(part)
        return b"".join(parts)

    def _check_memory(self) -> None:
        """Where the system does not limit it: EOFError."""
        if sys.platform != "linux":
            import psutil

            if psutil.Process(self._process.pid).memory_info().rss > MEMORY:
                self._process.send_signal(signal.SIGKILL)
                raise EOFError

    def _why(self) -> str:
        """Why it does not answer."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(1)
            if code == -signal.SIGXCPU:
                return f"it takes longer than {SECONDS:g} seconds"
            if code == -signal.SIGKILL:
                return f"it takes more than {MEMORY >> 20} MiB, or something else ended it"
            import jinja2  # noqa: F401  (where it is missing, that is why, and is told so)

            return f"its process ended by itself ({code})"
        return f"it takes longer than {PATIENCE_S:g} seconds"


@atexit.register
def _end_all() -> None:
    while _idle:
        _idle.pop().end()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # they are the parent's
