"""Files of requests, answered by a cluster."""

import asyncio
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, cast

import ray

from edgeq.errors import EdgeqError
from edgeq.ray.answering import Answering, Workers
from edgeq.serve import offline
from edgeq.serve.batch_files import Outcome, Work

if TYPE_CHECKING:
    import pyarrow as pa


class Rows(Answering):
    """Answers rows of batch files: column `line`, to which `said` and `status` are added."""

    def __call__(self, batch: "pa.Table") -> "pa.Table":
        said = self.wait(self._all(batch.column("line").to_pylist()))
        return batch.append_column("said", [[line for line, _ in said]]).append_column("status", [[s for _, s in said]])

    async def _all(self, lines: list[bytes]) -> list[tuple[bytes, int]]:
        return await asyncio.gather(*map(self.answer, lines))


def batch(
    workers: Workers,
    requests: str | os.PathLike[str],
    output: str | os.PathLike[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Answer a file of OpenAI's batch format: to the same bytes as `edgeq batch`, whatever the number of workers, and
    however often one is lost. What an earlier run has answered is kept in `output`.part, also one of `edgeq batch`.

    `progress` hears how many rows are answered, of how many. Raises what loading the model raises, UsageError for a
    file that cannot be read or holds no request, OutputError for one that cannot be written.
    """
    with closing(Work(Path(requests), Path(output), _identity(workers))) as work:
        done = work.kept
        progress(done, len(work.rows))
        if work.wanted:
            blocks = -(-len(work.wanted) // workers.rows)
            lines = ray.data.from_items([{"line": line} for line in work.wanted], override_num_blocks=blocks)
            for row in workers.map(lines, Rows).iter_rows():
                work.add(row["line"], row["said"], row["status"])
                done += 1
                progress(done, len(work.rows))
        return work.write()


def _identity(workers: Workers) -> str:
    """What the answers depend on beside their rows, as a node with the model says it."""

    def told() -> str:
        with workers.load() as model:
            return offline.identity(model, workers.called, workers.loading)

    try:
        return cast(str, ray.get(ray.remote(num_cpus=workers.cpus, max_retries=0)(told).remote()))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, EdgeqError):
            raise error.cause from None
        raise
