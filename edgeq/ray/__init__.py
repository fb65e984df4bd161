"""The same answers from many machines: files of requests and data sets answered by the workers of a Ray cluster, and a
server of many replicas.

Needs Ray: `pip install edgeq[ray]`. Nothing else of edgeq imports this.

    import ray
    from ray import serve
    from edgeq.ray import Workers, batch, chat, server

    workers = Workers("model.eqf", number=4, cpus=4)
    batch(workers, "requests.jsonl", "answers.jsonl")  # to the same bytes as edgeq batch, resumable as it is
    answers = chat(ray.data.read_json("talks.jsonl"), workers, max_tokens=200)  # a data set with a column more
    serve.run(server(workers, most=8))  # all that edgeq serve answers, at http://127.0.0.1:8000

A model is named as `edgeq serve` takes it; each node finds it by that name, on a disk that all of them have, or in a
cache of its own. Answers have the same bits on each node, whatever its CPU: what is computed again after a node is lost
is what was lost.
"""

from edgeq.errors import UnsupportedError

try:
    import ray as _ray  # noqa: F401
except ImportError:
    raise UnsupportedError("edgeq.ray needs Ray, which is not installed: pip install edgeq[ray]") from None

from edgeq.ray.answering import Workers
from edgeq.ray.batching import batch
from edgeq.ray.columns import chat, complete, embed, score
from edgeq.ray.replicas import build, server

__all__ = ["Workers", "batch", "build", "chat", "complete", "embed", "score", "server"]
