"""Responses that may be gone on with, as long as there is room for them."""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import msgspec

from edgeq.serve.failures import Failure

MOST = 1000
LARGEST = 64 << 20  # bytes of all


@dataclass(frozen=True)
class Kept:
    """A response as it was told, and the conversation up to its end: items as clients give them, those of the request
    from `asked` on."""

    response: dict[str, Any]
    items: list[dict[str, Any]]
    asked: int


class ResponseStore:
    """The latest responses by their ids. What a conversation began with is counted with each of its responses."""

    def __init__(self, most: int = MOST, largest: int = LARGEST) -> None:
        self._most, self._largest = most, largest
        self._kept: OrderedDict[str, tuple[Kept, int]] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, kept: Kept) -> None:
        """Keep a response; the oldest go."""
        size = len(msgspec.json.encode((kept.response, kept.items)))
        with self._lock:
            self._kept[kept.response["id"]] = (kept, size)
            self._size += size
            while self._kept and (len(self._kept) > self._most or self._size > self._largest):
                _, (_, gone) = self._kept.popitem(last=False)
                self._size -= gone

    def get(self, name: str, param: str | None = None) -> Kept:
        """A response. Raises Failure: 404, or 400 where it is the value of the field `param`."""
        with self._lock:
            found = self._kept.get(name)
        if found is None:
            raise Failure(
                400 if param else 404,
                f"there is no response {name!r:.100}: it was not stored, or is gone for newer ones",
                code="previous_response_not_found" if param else "not_found",
                param=param,
            )
        return found[0]

    def drop(self, name: str) -> None:
        """Forget a response. Raises Failure where there is none."""
        self.get(name)
        with self._lock:
            _, size = self._kept.pop(name)
            self._size -= size
