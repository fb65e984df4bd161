"""A model in a process of Ray's, and what is asked of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeq.errors import UsageError
from edgeq.loading import load
from edgeq.serve import offline
from edgeq.serve.app import application
from edgeq.serve.engine import Engine
from edgeq.serve.guard import Rules
from edgeq.serve.replies import encode
from edgeq.serve.roster import Roster
from edgeq.store import model_names

if TYPE_CHECKING:
    from ray.data import Dataset

    from edgeq.engine.model import Model


@dataclass(frozen=True)
class Workers:
    """Who answers.

    model    an .eqf or .gguf file, a checkpoint's folder or a Hub repository, as each node finds it
    number   of processes that have it loaded
    cpus     that each of them takes: threads, and what Ray counts
    at_once  requests that one computes together
    rows     of a data set that one takes at a time: with two times of them under way, so that none waits for rows
    name     what requests call the model; by default as its file is called
    loading  options of `edgeq.load`
    """

    model: str
    number: int = 1
    cpus: int = 1
    at_once: int = 32
    rows: int = 64
    name: str = ""
    loading: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, value in (("number", self.number), ("cpus", self.cpus), ("at_once", self.at_once)):
            if value < 1:
                raise UsageError(f"Workers: {what} is {value}: give at least 1")

    @property
    def called(self) -> str:
        return self.name or model_names.called(self.model)

    def load(self) -> "Model":
        return load(self.model, **{"threads": self.cpus, **self.loading})

    def map(self, data: "Dataset", answering: type["Answering"], *arguments: Any) -> "Dataset":
        """The data set that `answering(workers, *arguments)` makes of each batch, in the same order."""
        from ray.data import ActorPoolStrategy

        data.context.execution_options.preserve_order = True
        pool = ActorPoolStrategy(size=self.number, max_concurrent_calls_per_actor=2, enable_true_multi_threading=True)
        return data.map_batches(
            answering,
            fn_constructor_args=(self, *arguments),
            batch_size=self.rows,
            batch_format="pyarrow",
            compute=pool,
            num_cpus=self.cpus,
        )


class Answering:
    """A model that is loaded, and asked in an event loop: what workers are made of."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self.roster = Roster({workers.called: lambda say: workers.load()}, offline.EVERY, workers.at_once)
        self.roster.load()
        if self.roster.failure is not None:
            raise self.roster.failure
        self.app = application(self.roster, Rules())

    @property
    def engine(self) -> Engine:
        engine = self.roster.entries[self.workers.called].engine
        assert engine is not None
        return engine

    async def answer(self, line: bytes) -> tuple[bytes, int]:
        """The answer to a row of a batch file: its line, and the status."""
        said = await offline.answer(self.app, line, offline.read(line))
        return encode(said), said["response"]["status_code"]
