"""Renders a chat template: in the process that `template_process.py` starts for that, or where there can be none, here.

It runs in a sandbox with bounds (sandbox.py). The surroundings are those that Hugging Face's `apply_chat_template`
offers, and the prompts are the same, character for character.
"""

import functools
import json
import marshal
import struct
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

import jinja2

from edgeq.errors import TemplateError
from edgeq.text import sandbox

_MESSAGE = 300  # characters of a template's own words that an error repeats

TEXT, REFUSED, SPENT = 0, 1, 2  # answers: the prompt; an error's message; one after which the process has ended
HEAD = struct.Struct("<BQ")  # which of these, and how many bytes of UTF-8 follow


def render(source: str, surroundings: Mapping[str, Any], now: str, seconds: float) -> str:
    """The text of a template with these variables at the time `now`, in ISO 8601. TemplateError in all other cases, of
    memory that does not suffice a MemoryError."""
    time_now = datetime.fromisoformat(now)
    try:
        template = _compile(source)
        with sandbox.bounded(seconds):
            return template.render({"strftime_now": time_now.strftime, **surroundings})
    except jinja2.TemplateSyntaxError as error:
        why = f"is malformed: line {error.lineno}: {_one_line(error.message or 'syntax error')}"
    except SyntaxError as error:  # Python's, of what Jinja compiles to
        why = f"is malformed: {_one_line(error)}"
    except jinja2.exceptions.SecurityError as error:
        why = f"was stopped: {_one_line(error)}"
    except jinja2.TemplateError as error:
        why = f"refuses this conversation: {_one_line(error)}"
    except MemoryError:
        raise
    except Exception as error:  # whatever Python raises for what a template does
        why = f"fails on this conversation: {_one_line(error)}"
    raise TemplateError(f"the chat template {why}")


def serve(memory: int) -> None:
    """The process: renders what comes from stdin to stdout until stdin ends, in `memory` bytes of address space."""
    _limit_memory(memory)
    answers, requests = sys.stdout.buffer, sys.stdin.buffer
    while True:
        try:
            source, surroundings, now, seconds = marshal.load(requests)
        except EOFError:
            return
        try:
            _limit_time(seconds)
            kind, content = TEXT, render(source, surroundings, now, seconds).encode("utf-8", "surrogatepass")
        except TemplateError as error:
            kind, content = REFUSED, str(error).encode("utf-8", "surrogatepass")
        except MemoryError:
            kind, content = SPENT, f"the chat template was stopped: it takes more than {memory >> 20} MiB".encode()
        del source, surroundings
        answers.write(HEAD.pack(kind, len(content)))
        answers.write(content)
        answers.flush()
        if kind == SPENT:
            return


def _limit_memory(nbytes: int) -> None:
    import resource

    if sys.platform == "linux":  # elsewhere the system knows the limit and lets it be exceeded
        _limit(resource.RLIMIT_AS, nbytes)
    _limit(resource.RLIMIT_CORE, 0)


def _limit_time(seconds: float) -> None:
    """The system ends the process where a single step takes longer, in which the sandbox cannot look at the clock."""
    import resource

    _limit(resource.RLIMIT_CPU, int(time.process_time() + seconds) + 1)


def _limit(which: int, value: int) -> None:
    """The soft limit, which can be raised again, no higher than the user's own."""
    import resource

    _, most = resource.getrlimit(which)
    resource.setrlimit(which, (value if most == resource.RLIM_INFINITY else min(value, most), most))


def _one_line(error: Exception | str) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MESSAGE else f"{text[:_MESSAGE]}..."


@functools.lru_cache(128)
def _compile(source: str) -> jinja2.Template:
    """A template in the sandbox, with the filters and functions that templates rely on."""
    environment = sandbox.Sandbox()
    environment.add_filter("tojson", _tojson)
    environment.globals["raise_exception"] = _raise_exception
    return environment.from_string(source)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON. Jinja's own filter escapes HTML, which models were not trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
