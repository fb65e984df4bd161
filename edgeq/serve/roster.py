"""The models that are served, by name: loaded when they are asked for, and kept while there is room and somebody asks.

All but the first loading happens in the event loop's thread, which hands what takes time to another one.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from edgeq.errors import EdgeqError, MemoryLimitError, NotFoundError, UnsupportedError
from edgeq.serve.engine import AT_ONCE, Engine, Job
from edgeq.serve.executor import Executor
from edgeq.serve.failures import Failure
from edgeq.serve.metrics import Metrics

if TYPE_CHECKING:
    from edgeq.engine.model import Model

LOG = logging.getLogger("edgeq.serve")
UNLOADED = "not loaded"

Say = Callable[[str], None]
Loader = Callable[[Say], "Model"]  # says how far it is


class Tell(Protocol):
    """Hears how far the fetching of a model is."""

    def __call__(self, status: str, done: int | None = None, total: int | None = None) -> None: ...


class Library(Protocol):
    """Where models come from by their names. Both may take long, and raise EdgeqError."""

    def fetch(self, name: str, tell: Tell) -> Loader:
        """Have a model here."""

    def remove(self, name: str) -> None:
        """Remove it again."""


@dataclass(frozen=True)
class Card:
    """What is told of a model also while it is not loaded. nbytes: of its file; memory: bytes that it takes when its
    context is full."""

    nbytes: int
    memory: int
    digest: str
    architecture: str
    recipe: str
    parameters: int
    context: int
    sees: bool


@dataclass(eq=False)
class Entry:
    """One model's state.

    keep_s   seconds that it stays after its last request
    since    when it was loaded; expires: when it will be unloaded: seconds of the epoch, None for never
    users    requests that hold it
    leaving  whether it shall be unloaded as soon as nobody does
    used     counts requests of all models: the model with the least was asked for longest ago
    own      whether it came from the library, which may remove it again
    """

    load: Loader
    keep_s: float = math.inf
    progress: str = UNLOADED
    engine: Engine | None = None
    card: Card | None = None
    since: float = field(default_factory=time.time)
    expires: float | None = None
    users: int = 0
    leaving: bool = False
    used: int = 0
    own: bool = False
    loading: "asyncio.Task[None] | None" = None
    timer: asyncio.TimerHandle | None = None


class Roster:
    """Names -> models.

    The first is loaded at the start, by `load`, each other one when it is first asked for. Those that nobody asks any
    more give way, the one asked for longest ago first, where all would take more than `budget` bytes, or one finds no
    memory; and each does so by itself `keep_s` seconds after its last request.
    """

    def __init__(
        self,
        loaders: Mapping[str, Loader],
        most_waiting: int = 64,
        at_once: int = AT_ONCE,
        budget: float = math.inf,
        keep_s: float = math.inf,
        library: Library | None = None,
        in_library: Mapping[str, Loader] | None = None,
    ) -> None:
        """`library`: where clients may have models fetched from; those that are there already are `in_library`."""
        self.entries = {name: Entry(load, keep_s) for name, load in loaders.items()}
        for name, load in (in_library or {}).items():
            self.entries.setdefault(name, Entry(load, keep_s, own=True))
        self.metrics = Metrics()
        self.failure: BaseException | None = None  # of loading the first
        self.at_once = at_once
        self.ready = False  # whether the first was loaded
        self._turns = Executor(at_once)
        self._loads = ThreadPoolExecutor(1, thread_name_prefix="edgeq-loading")
        self._most_waiting, self._budget, self._keep_s = most_waiting, budget, keep_s
        self._library, self._fetches = library, dict[str, asyncio.Future[Loader]]()
        self._asked = 0
        self._lent: ContextVar[list[Entry] | None] = ContextVar("lent", default=None)

    def load(self, done: Callable[[], None] = lambda: None) -> None:
        """Load the first, and call `done`, also where that failed: see `failure`."""
        name, entry = next(iter(self.entries.items()))
        try:
            entry.progress = "loading"
            self._take(name, entry, entry.load(partial(_say, entry)))
            self.ready = True
        except BaseException as error:
            self.failure = error
        done()

    def start_loading(self, done: Callable[[], None]) -> None:
        """As `load`, in a thread."""
        threading.Thread(target=self.load, args=(done,), name="edgeq-loading", daemon=True).start()

    def close(self) -> None:
        """Let what is computed end, and close the models."""
        self._turns.close()
        self._loads.shutdown(wait=True, cancel_futures=True)
        for entry in self.entries.values():
            if entry.engine is not None:
                entry.engine.model.close()

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """While it lasts, what `find` gives out stays loaded."""
        lent: list[Entry] = []
        token = self._lent.set(lent)
        try:
            yield
        finally:
            self._lent.reset(token)
            for entry in lent:
                entry.users -= 1
                self._rest(entry)

    def named(self, name: str | None) -> str:
        """The name of a model that is called so, with `:latest` or `.eqf` behind it if need be; the first where none is
        named. Raises Failure, 404, for one that there is not."""
        name = name or next(iter(self.entries))
        names = (name, name.removesuffix(":latest"), name.removesuffix(".eqf"))
        own = next((one for one in names if one in self.entries), None)
        if own is None:
            known = ", ".join(self.entries)
            what = f"there is no model {name!r:.100}: here are {known}"
            raise Failure(404, what, code="model_not_found", param="model")
        return own

    async def find(self, name: str | None) -> tuple[str, Engine]:
        """A model by its name, see `named`, loaded if it is not yet.

        Raises Failure, 404 for a name that there is not, 503 for one that is loaded at the start or finds no room.
        """
        own = self.named(name)
        entry = self.entries[own]
        if not self.ready:
            raise Failure(503, f"the model {own} is being loaded: try again", code="model_loading", retry_after=2)
        if (lent := self._lent.get()) is not None:
            lent.append(entry)
            entry.users += 1
        self._asked += 1
        entry.used = self._asked
        _stop_timer(entry)
        while entry.engine is None:
            if entry.loading is None:
                entry.loading = asyncio.ensure_future(self._load(own, entry))
            await asyncio.shield(entry.loading)
        return own, entry.engine

    def keep(self, name: str, keep_s: float | None) -> None:
        """From now on the model stays so many seconds after its last request; None is what the server was told."""
        entry = self.entries[name]
        entry.keep_s = self._keep_s if keep_s is None else keep_s
        self._rest(entry)

    async def unload(self, name: str) -> bool:
        """Unload a model, or as soon as nobody uses it: whether it is."""
        entry = self.entries[name]
        entry.leaving = entry.users > 0
        await self._unload(entry)
        return not entry.leaving

    async def fetch(self, name: str, tell: Tell) -> None:
        """Have a model of the library among the others, unless there is one of that name. Who asks for what is being
        fetched waits, and is told nothing. Raises Failure."""
        with contextlib.suppress(Failure):
            self.named(name)
            return
        if self._library is None:
            raise Failure(403, "this server fetches no models: start it with --allow-pull")
        work = self._fetches.get(name)
        if work is None:
            work = self._fetches[name] = _in_thread(partial(self._library.fetch, name, tell))
            work.add_done_callback(lambda _: self._fetches.pop(name, None))
        try:
            load = await asyncio.shield(work)
        except NotFoundError as error:
            raise Failure(404, f"there is no model {name!r:.100} to be fetched", code="model_not_found") from error
        except EdgeqError as error:
            LOG.error("%s: cannot be fetched: %s", name, error)
            raise Failure(500, f"the model {name} cannot be fetched: the server's log says why") from error
        self.entries.setdefault(name, Entry(load, self._keep_s, own=True))

    async def forget(self, name: str) -> None:
        """Serve a model of the library no more, and remove it there. Raises Failure."""
        own = self.named(name)
        entry = self.entries[own]
        if self._library is None or not entry.own:
            raise Failure(403, f"the model {own} is not this server's to delete: it did not fetch it")
        if entry.users or entry.loading is not None:
            raise Failure(409, f"the model {own} is in use: try again", retry_after=5)
        await self._unload(entry)
        self.entries.pop(own, None)
        try:
            await asyncio.shield(_in_thread(partial(self._library.remove, own)))
        except EdgeqError as error:
            LOG.error("%s: cannot be removed: %s", own, error)
            raise Failure(500, f"the model {own} cannot be removed: the server's log says why") from error

    def _rest(self, entry: Entry) -> None:
        """Where nobody uses a model any more, see when it goes."""
        _stop_timer(entry)
        if entry.users or entry.engine is None:
            return
        with contextlib.suppress(RuntimeError):  # no loop: nothing is unloaded any more
            loop = asyncio.get_running_loop()
            keep_s = 0.0 if entry.leaving else entry.keep_s
            if math.isfinite(keep_s):
                entry.expires = time.time() + keep_s
                entry.timer = loop.call_later(keep_s, lambda: _spawn(self._unload(entry)))
            elif self._too_many():
                _spawn(self._make_room(0))

    async def _load(self, name: str, entry: Entry) -> None:
        entry.progress = "loading"
        try:
            self._take(name, entry, await self._loaded(name, entry))
        except BaseException:
            entry.progress = UNLOADED
            raise
        finally:
            entry.loading = None
        await self._make_room(0)
        self._rest(entry)

    async def _loaded(self, name: str, entry: Entry) -> "Model":
        """The model; others that nobody uses give way to it. Raises Failure."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await loop.run_in_executor(self._loads, entry.load, partial(_say, entry))
            except MemoryLimitError as error:
                if not await self._make_room(1):
                    LOG.error("%s: %s", name, error)
                    busy = any(other.engine is not None for other in self.entries.values())
                    what = "the other models are in use: try again" if busy else "there is not enough memory"
                    raise Failure(
                        503,
                        f"the model {name} cannot be loaded: {what}",
                        code="no_memory",
                        retry_after=5 if busy else None,
                    ) from error
            except EdgeqError as error:
                LOG.error("%s: cannot be loaded: %s", name, error)
                what = f"the model {name} cannot be loaded: the server's log says why"
                raise Failure(500, what, code="model_not_loaded") from error

    def _take(self, name: str, entry: Entry, model: "Model") -> None:
        entry.engine = Engine(model, self._turns, self._most_waiting, partial(self._count, name))
        entry.card, entry.progress, entry.since = _card(model), "ready", time.time()

    def _too_many(self) -> bool:
        """Whether the models that are loaded take more than they may. A single one may take anything."""
        cards = [entry.card for entry in self.entries.values() if entry.engine is not None and entry.card]
        return len(cards) > 1 and sum(card.memory for card in cards) > self._budget

    async def _make_room(self, least: int) -> bool:
        """Unload models that nobody uses until all fit, but at least so many; whether there were so many. Of models
        that have just been loaded none is unused."""
        while least > 0 or self._too_many():
            idle = [one for one in self.entries.values() if one.engine is not None and not one.users]
            if not idle:
                break
            await self._unload(min(idle, key=lambda one: one.used))
            least -= 1
        return least <= 0

    async def _unload(self, entry: Entry) -> None:
        if entry.engine is not None and not entry.users:
            _stop_timer(entry)
            engine, entry.engine = entry.engine, None
            entry.progress, entry.leaving = UNLOADED, False
            await asyncio.get_running_loop().run_in_executor(self._loads, engine.model.close)

    def _count(self, name: str, job: Job, reason: str) -> None:
        took = job.timings
        first = job.queued_s + took.first_token_s if took.generated_tokens else None
        self.metrics.count(name, reason, took.computed_tokens, took.cached_tokens, took.generated_tokens, first)


def _in_thread(work: Callable[[], Any]) -> "asyncio.Future[Any]":
    """As asyncio.to_thread, but the process does not wait for it at its end: fetching may take hours."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if not future.done():
            future.set_result(result) if error is None else future.set_exception(error)

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as one:
            error = one
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="edgeq-fetching", daemon=True).start()
    return future


_TASKS = set[asyncio.Task[Any]]()  # which the event loop alone would drop


def _spawn(work: Coroutine[Any, Any, object]) -> None:
    task = asyncio.ensure_future(work)
    _TASKS.add(task)
    task.add_done_callback(_TASKS.discard)


def _stop_timer(entry: Entry) -> None:
    entry.expires = None
    if entry.timer is not None:
        entry.timer.cancel()
        entry.timer = None


def _say(entry: Entry, line: str) -> None:
    entry.progress = line


def _card(model: "Model") -> Card:
    file = model.file
    identity = json.dumps([file.nbytes, file.metadata], sort_keys=True, default=str).encode()
    return Card(
        nbytes=file.nbytes,
        memory=sum(model.session.memory().values()),
        digest=hashlib.sha256(identity).hexdigest(),
        architecture=str(file.metadata.get("architecture", "unknown")),
        recipe=file.recipe,
        parameters=model.parameters,
        context=model.context,
        sees=_sees(model),
    )


def _sees(model: "Model") -> bool:
    try:
        return model.sees
    except UnsupportedError:  # which requests with images are told
        return False
