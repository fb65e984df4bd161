"""Files of requests, answered by a cluster."""

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

import ray

from edgeq.errors import EdgeqError
from edgeq.ray.answering import Answering, Workers
from edgeq.serve import offline
from edgeq.serve.batch_files import Outcome, Work

AHEAD = 8  # rows that a worker has beside those that it computes, so that it never waits for the next


class Rows(Answering):
    """Answers rows of batch files, each when it is asked."""

    async def ready(self) -> None:
        """Return once the model is loaded."""


def batch(
    workers: Workers,
    requests: str | os.PathLike[str],
    output: str | os.PathLike[str],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Answer a file of OpenAI's batch format: to the same bytes as `edgeq batch`, whatever the number of workers, and
    however often one is lost. What an earlier run has answered is kept in `output`.part, also one of `edgeq batch`.

    `progress` hears how many rows are answered, of how many. Raises what loading the model raises (where
    only a worker cannot load it ray.exceptions.RayActorError), UsageError for a file that cannot be read or holds no
    request, OutputError for one that cannot be written.
    """
    with closing(Work(Path(requests), Path(output), _identity(workers))) as work:
        done = work.kept
        progress(done, len(work.rows))
        with closing(_answers(workers, work.wanted)) as answers:
            for line, said, status in answers:
                work.add(line, said, status)
                done += 1
                progress(done, len(work.rows))
        return work.write()


def _answers(workers: Workers, lines: Sequence[bytes]) -> Generator[tuple[bytes, bytes, int], None, None]:
    """Rows, their answers and statuses, as they come. A row goes to whichever worker has room for it; those of one that
    is lost are asked again of the one that Ray starts in its place."""
    waiting, told = deque(lines), SimpleQueue[tuple[Any, bytes, Future[Any]]]()
    room = workers.at_once + AHEAD
    hired = ray.remote(num_cpus=workers.cpus, max_restarts=-1, max_task_retries=-1, max_concurrency=room + 1)(Rows)
    pool = [hired.remote(workers) for _ in range(min(workers.number, len(lines)))]
    share = min(room, -(-len(lines) // max(1, len(pool))))  # those who are ready first leave some to the others

    def ask(worker: Any, line: bytes) -> None:
        told_of = worker.answer.remote(line) if line else worker.ready.remote()
        told_of.future().add_done_callback(lambda future: told.put((worker, line, future)))

    try:
        for worker in pool:
            ask(worker, b"")
        left = len(lines)
        while left:
            worker, line, future = told.get()
            answer = future.result()
            for _ in range(min(len(waiting), 1 if line else share)):
                ask(worker, waiting.popleft())
            if line:
                left -= 1
                yield line, *answer
    finally:
        for worker in pool:
            ray.kill(worker)


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
