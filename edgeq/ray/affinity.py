"""Which replica a request goes to: what begins alike goes to one, as that one has its beginning computed already."""

import hashlib
from typing import Any

import msgspec
from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

TEXTS = ("messages", "input", "prompt", "query", "content")
BEGINNING = 1024  # characters or tokens of a text by which it is known


def beginning(body: bytes) -> str:
    """What a conversation is known by, from its first request to its last: its model, its instructions and its messages
    up to the user's first. Another text's beginning stands for it. Empty where there is neither."""
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ""
    if not isinstance(fields, dict):
        return ""
    known = [fields.get(name) for name in ("model", "system", "instructions")]
    talk = next((fields[name] for name in TEXTS if fields.get(name)), None)
    if not isinstance(talk, str | list):
        return ""
    users = (i for i, one in enumerate(talk) if isinstance(one, dict) and one.get("role") == "user")
    talk = talk[: next(users, BEGINNING) + 1]
    return hashlib.sha256(msgspec.json.encode([*known, talk])).hexdigest()


def order(key: str, names: list[str]) -> list[str]:
    """Names in the order in which they are preferred for a key: where one comes or goes, the others keep theirs
    (rendezvous hashing)."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{key} {name}".encode()).digest())


class Affine(RequestRouter):
    """Sends a request, whose first argument is its key, to the replica preferred for that; to the next where that one
    has as much as it takes. One without a key goes to the replica that is asked for the least of it."""

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        key = pending_request.args[0] if pending_request is not None and pending_request.args else ""
        if not key:
            return [candidate_replicas]
        by_name: dict[str, Any] = {str(one.replica_id): one for one in candidate_replicas}
        return [[by_name[name]] for name in order(key, [*by_name])]
