"""A server on a port of its own, over models that count: the token after b is b + 1."""

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from counting import CountingSession, counting_model

from edgeq.engine.model import Model
from edgeq.serve.app import application
from edgeq.serve.engine import AT_ONCE
from edgeq.serve.guard import Rules
from edgeq.serve.listening import make_server, open_socket
from edgeq.serve.roster import Library, Roster


class SlowSession(CountingSession):
    """Takes 10 ms for a pass, or `pass_s`."""

    def __init__(self, pass_s=0.01, **session):
        super().__init__(**session)
        self.pass_s = pass_s

    def eval(self, tokens, all_logits=False):
        time.sleep(self.pass_s)
        return super().eval(tokens, all_logits)


def slow_model(**session) -> Model:
    model = counting_model()
    model.session = SlowSession(**session)
    return Model(model.file, model.session)


@dataclass
class Served:
    url: str
    roster: Roster
    http: httpx.Client

    def post(self, path: str, **fields):
        return self.http.post(path, json=fields)


@contextmanager
def serving(
    models: dict[str, Callable],
    rules: Rules | None = None,
    most_waiting: int = 64,
    at_once: int = AT_ONCE,
    budget: float = math.inf,
    keep_s: float = math.inf,
    library: Library | None = None,
) -> Iterator[Served]:
    """A server of these models (name -> loader), in a thread of its own, and a client."""
    roster = Roster(models, most_waiting, at_once, budget, keep_s, library)
    listening = open_socket("127.0.0.1", 0)
    server = make_server(application(roster, rules or Rules()), 5.0, access_log=False)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    roster.start_loading(lambda: None)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with httpx.Client(base_url=url, timeout=30) as http:
        try:
            yield Served(url, roster, http)
        finally:
            server.should_exit = True
            thread.join()
            listening.close()
            if roster.ready:
                roster.close()


def wait_until(true: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for something that other threads bring about."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.005)


def hello(**fields):
    """A request for a short answer to "a"."""
    return {"messages": [{"role": "user", "content": "a"}], "max_tokens": 3, "temperature": 0, **fields}


def events(text: str) -> list:
    """The data of server-sent events, decoded but for [DONE]."""
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [one if one == "[DONE]" else json.loads(one) for one in data]
