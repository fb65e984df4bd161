"""The models that are served, by name, from before they are loaded until the server ends."""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from edgeq.serve.engine import AT_ONCE, Engine, Job
from edgeq.serve.failures import Failure
from edgeq.serve.metrics import Metrics

if TYPE_CHECKING:
    from edgeq.model import Model

Say = Callable[[str], None]
Loader = Callable[[Say], "Model"]  # says how far it is


@dataclass
class Entry:
    """One model's state."""

    load: Loader
    progress: str = "waiting"
    engine: Engine | None = None
    since: float = field(default_factory=time.time)  # seconds of the epoch


class Roster:
    """Names -> models; loads them one by one in a thread of its own."""

    def __init__(self, loaders: Mapping[str, Loader], most_waiting: int = 64, at_once: int = AT_ONCE) -> None:
        self.entries = {name: Entry(load) for name, load in loaders.items()}
        self.metrics = Metrics()
        self.failure: BaseException | None = None  # of loading
        self._turns = ThreadPoolExecutor(at_once, thread_name_prefix="edgeq-engine")
        self._most_waiting = most_waiting

    @property
    def ready(self) -> bool:
        """Whether all models are loaded."""
        return all(entry.engine is not None for entry in self.entries.values())

    def load(self, done: Callable[[], None] = lambda: None) -> None:
        """Load all, and call `done`, also where one failed: see `failure`."""
        try:
            for name, entry in self.entries.items():
                entry.progress = "loading"
                model = entry.load(partial(_say, entry))
                entry.engine = Engine(model, self._turns, self._most_waiting, partial(self._count, name))
                entry.progress, entry.since = "ready", time.time()
        except BaseException as error:
            self.failure = error
        done()

    def start_loading(self, done: Callable[[], None]) -> None:
        """As `load`, in a thread."""
        threading.Thread(target=self.load, args=(done,), name="edgeq-loading", daemon=True).start()

    def close(self) -> None:
        """Let what is computed end, and close the models."""
        self._turns.shutdown(wait=True, cancel_futures=True)
        for entry in self.entries.values():
            if entry.engine is not None:
                entry.engine.model.close()

    def _count(self, name: str, job: Job, reason: str) -> None:
        took = job.timings
        first = job.queued_s + took.first_token_s if took.generated_tokens else None
        self.metrics.count(name, reason, took.computed_tokens, took.cached_tokens, took.generated_tokens, first)

    def find(self, name: str | None) -> tuple[str, Engine]:
        """A model by its name, with `:latest` or `.eqf` behind it if need be; the first where none is named.

        Raises Failure, 404 for a name that there is not, 503 for one that is being loaded.
        """
        name = name or next(iter(self.entries))
        names = (name, name.removesuffix(":latest"), name.removesuffix(".eqf"))
        own = next((one for one in names if one in self.entries), None)
        if own is None:
            known = ", ".join(self.entries)
            what = f"there is no model {name!r:.100}: here are {known}"
            raise Failure(404, what, code="model_not_found", param="model")
        engine = self.entries[own].engine
        if engine is None:
            raise Failure(503, f"the model {own} is being loaded: try again", code="model_loading", retry_after=2)
        return own, engine


def _say(entry: Entry, line: str) -> None:
    entry.progress = line
