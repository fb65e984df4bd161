"""A response of the Responses API as it comes about: its output items, and the typed events that tell of them."""

import secrets
import time
from collections.abc import Iterator
from typing import Any

from edgeq.serve.failures import Failure
from edgeq.serve.replies import sse


class ResponseState:
    """One response. What comes of a text goes into `text` and at last `end`; each gives the events of a stream, which
    may be passed over: `body` is the whole."""

    def __init__(self, body: dict[str, Any]) -> None:
        """`body` holds what is told of the request."""
        self.body = {
            **body,
            "id": f"resp_{secrets.token_hex(12)}",
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "output": [],
            "usage": None,
        }
        self._number = 0
        self._item: dict[str, Any] | None = None  # the last one, while it is open

    def begin(self) -> Iterator[bytes]:
        """The events before any text."""
        yield self._event("response.created", response=self.body)
        yield self._event("response.in_progress", response=self.body)

    def text(self, text: str, logprobs: list[Any]) -> Iterator[bytes]:
        """The answer goes on."""
        if self._item is None:
            self._item = {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant"}
            self._item |= {"status": "in_progress", "content": []}
            yield self._of_item("response.output_item.added", item=self._item)
            part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            yield self._of_part("response.content_part.added", part=part)
            self._item["content"].append(part)
        part = self._item["content"][0]
        part["text"] += text
        part["logprobs"] += logprobs
        yield self._of_part("response.output_text.delta", delta=text, logprobs=logprobs)

    def end(self, reason: str, usage: dict[str, Any]) -> Iterator[bytes]:
        """The answer has ended: "stop", or "length" where it was cut."""
        complete = reason != "length"
        if self._item is None and not self.body["output"]:
            yield from self.text("", [])  # a model that says nothing says an empty text
        yield from self._close("completed" if complete else "incomplete")
        self.body["status"] = "completed" if complete else "incomplete"
        if complete:
            self.body["completed_at"] = int(time.time())
        else:
            self.body["incomplete_details"] = {"reason": "max_output_tokens"}
        self.body["usage"] = usage
        yield self._event(f"response.{self.body['status']}", response=self.body)

    def failed(self, failure: Failure) -> bytes:
        """The last events where something went wrong."""
        code = failure.code or "server_error"
        self.body |= {"status": "failed", "error": {"code": code, "message": failure.message}}
        said = self._event("error", code=code, message=failure.message, param=failure.param)
        return said + self._event("response.failed", response=self.body)

    def _close(self, status: str) -> Iterator[bytes]:
        """The item that is open has ended."""
        if self._item is None:
            return
        part = self._item["content"][0]
        yield self._of_part("response.output_text.done", text=part["text"], logprobs=part["logprobs"])
        yield self._of_part("response.content_part.done", part=part)
        self._item["status"] = status
        yield self._of_item("response.output_item.done", item=self._item)
        self.body["output"].append(self._item)
        self._item = None

    def _event(self, kind: str, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return sse(event, kind)

    def _of_item(self, kind: str, **fields: Any) -> bytes:
        return self._event(kind, output_index=len(self.body["output"]), **fields)

    def _of_part(self, kind: str, **fields: Any) -> bytes:
        assert self._item is not None
        return self._of_item(kind, item_id=self._item["id"], content_index=0, **fields)
