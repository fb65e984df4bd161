"""Data sets with a column more: what a model says of each row.

A row that cannot be answered has null there, and why in a column beside it, of the same name with `_error`.
"""

import asyncio
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from edgeq.errors import EdgeqError
from edgeq.ray.answering import Answering, Workers
from edgeq.serve.replies import encode

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset

    from edgeq.engine.model import Model

Told = tuple[Any, str | None]  # what a row gets, and why it gets none


class _Column(Answering):
    """Adds a column that follows from other ones, and one of errors; a class for `map_batches`. Several threads may ask
    at once."""

    def __init__(self, workers: Workers, columns: tuple[str, ...], into: str, fields: Mapping[str, Any]) -> None:
        super().__init__(workers)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="edgeq-ray", daemon=True).start()
        self._columns, self._into, self._fields = columns, into, fields

    def __call__(self, batch: "pa.Table") -> "pa.Table":
        rows = zip(*(batch.column(name).to_pylist() for name in self._columns), strict=True)
        told = asyncio.run_coroutine_threadsafe(self._all(list(rows)), self._loop).result()
        batch = batch.append_column(self._into, [[value for value, _ in told]])
        return batch.append_column(f"{self._into}_error", [[error for _, error in told]])

    async def _all(self, rows: list[tuple[Any, ...]]) -> list[Told]:
        return await asyncio.gather(*(self.tell(*row) for row in rows))

    async def tell(self, *values: Any) -> Told:
        """What is said of a row."""
        raise NotImplementedError

    async def ask(self, url: str, body: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
        """The answer of an endpoint, or why there is none."""
        line = encode({"custom_id": "", "url": url, "body": {**body, **self._fields}})
        response = msgspec.json.decode((await self.answer(line))[0])["response"]
        return response["body"], None if response["status_code"] == 200 else response["body"]["error"]["message"]

    async def compute(self, work: Any) -> Told:
        try:
            return await self.engine.compute(work), None
        except EdgeqError as error:
            return None, str(error)


class _Completed(_Column):
    async def tell(self, *values: Any) -> Told:
        body, error = await self.ask("/v1/completions", {"prompt": values[0]})
        return None if error else body["choices"][0]["text"], error


class _Chatted(_Column):
    async def tell(self, *values: Any) -> Told:
        messages = [{"role": "user", "content": values[0]}] if isinstance(values[0], str) else values[0]
        body, error = await self.ask("/v1/chat/completions", {"messages": messages})
        return None if error else body["choices"][0]["message"]["content"], error


class _Embedded(_Column):
    async def tell(self, *values: Any) -> Told:
        body, error = await self.ask("/v1/embeddings", {"input": values[0]})
        return None if error else body["data"][0]["embedding"], error


class _Scored(_Column):
    async def tell(self, *values: Any) -> Told:
        def work(model: "Model") -> float:
            if len(values) == 1:
                return float(model.score(values[0]).sum())
            return model.score(values[0], [values[1]])[0].logprob

        return await self.compute(work)


def complete(
    data: "Dataset", workers: Workers, *, column: str = "prompt", into: str = "text", **fields: Any
) -> "Dataset":
    """What the model writes after the text of a column. `fields` are those of `/v1/completions` (`max_tokens`, ...);
    without a `seed` among them, each row gets one that follows from its text."""
    return workers.map(data, _Completed, (column,), into, fields)


def chat(
    data: "Dataset", workers: Workers, *, column: str = "messages", into: str = "answer", **fields: Any
) -> "Dataset":
    """What the model answers to the conversation in a column, a list of messages or the text of one. `fields` are those
    of `/v1/chat/completions`; seeds as by `complete`."""
    return workers.map(data, _Chatted, (column,), into, fields)


def embed(
    data: "Dataset", workers: Workers, *, column: str = "text", into: str = "embedding", **fields: Any
) -> "Dataset":
    """The vector of a column's text: a list of numbers. `fields` are those of `/v1/embeddings`."""
    return workers.map(data, _Embedded, (column,), into, fields)


def score(
    data: "Dataset", workers: Workers, *, column: str = "text", after: str | None = None, into: str = "logprob"
) -> "Dataset":
    """The natural logarithm of the probability of a column's text, given the text of the column `after` before it; of
    all its tokens but the first where there is none."""
    return workers.map(data, _Scored, (column,) if after is None else (after, column), into, {})
