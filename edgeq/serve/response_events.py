"""A response of the Responses API as it comes about: its output items, and the typed events that tell of them."""

import secrets
import time
from collections.abc import Iterator
from typing import Any

from edgeq.serve.failures import Failure
from edgeq.serve.replies import sse
from edgeq.talk.said import CallArguments, CallBegun, Said, Text, Thought


class ResponseState:
    """One response. What comes of a text goes into `said` and at last `end`; each gives the events of a stream, which
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

    def said(self, one: Said, logprobs: list[Any]) -> Iterator[bytes]:
        """More of what the model says: `logprobs` of an answer's tokens."""
        if isinstance(one, CallBegun):
            names = {"call_id": one.id, "name": one.name, "arguments": ""}
            yield from self._open({"id": f"fc_{secrets.token_hex(12)}", "type": "function_call", **names})
        elif isinstance(one, CallArguments):
            assert self._item is not None
            self._item["arguments"] += one.text
            yield self._event_of_item("response.function_call_arguments.delta", delta=one.text)
        elif isinstance(one, Thought):
            if self._kind != "reasoning":
                item = {"id": f"rs_{secrets.token_hex(12)}", "type": "reasoning", "summary": [], "content": []}
                yield from self._open(item, {"type": "reasoning_text", "text": ""})
            self._part["text"] += one.text
            yield self._event_of_part("response.reasoning_text.delta", delta=one.text)
        else:
            if self._kind != "message":
                item = {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant", "content": []}
                yield from self._open(item, {"type": "output_text", "text": "", "annotations": [], "logprobs": []})
            self._part["text"] += one.text
            self._part["logprobs"] += logprobs
            yield self._event_of_part("response.output_text.delta", delta=one.text, logprobs=logprobs)

    def end(self, reason: str, usage: dict[str, Any]) -> Iterator[bytes]:
        """The answer has ended: "length" where it was cut."""
        complete = reason != "length"
        if self._item is None and not self.body["output"]:
            yield from self.said(Text(""), [])  # a model that says nothing says an empty text
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

    @property
    def thought(self) -> str:
        """What was thought."""
        items = [*self.body["output"], *([] if self._item is None else [self._item])]
        return "".join(item["content"][0]["text"] for item in items if item["type"] == "reasoning")

    @property
    def _kind(self) -> str | None:
        """The type of the item that is open."""
        return None if self._item is None else str(self._item["type"])

    @property
    def _part(self) -> dict[str, Any]:
        assert self._item is not None
        part: dict[str, Any] = self._item["content"][0]
        return part

    def _open(self, item: dict[str, Any], part: dict[str, Any] | None = None) -> Iterator[bytes]:
        """An item begins, and ends the one before."""
        yield from self._close("completed")
        self._item = {**item, "status": "in_progress"}
        yield self._event_of_output("response.output_item.added", item=self._item)
        if part is not None:
            yield self._event_of_part("response.content_part.added", part=part)
            self._item["content"].append(part)

    def _close(self, status: str) -> Iterator[bytes]:
        """The item that is open has ended."""
        if self._item is None:
            return
        if self._kind == "function_call":
            arguments = self._item["arguments"]
            name = self._item["name"]
            yield self._event_of_item("response.function_call_arguments.done", name=name, arguments=arguments)
        else:
            kind, part = ("reasoning" if self._kind == "reasoning" else "output"), self._part
            scores = {"logprobs": part["logprobs"]} if kind == "output" else {}
            yield self._event_of_part(f"response.{kind}_text.done", text=part["text"], **scores)
            yield self._event_of_part("response.content_part.done", part=part)
        self._item["status"] = status
        yield self._event_of_output("response.output_item.done", item=self._item)
        self.body["output"].append(self._item)
        self._item = None

    def _event(self, kind: str, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return sse(event, kind)

    def _event_of_output(self, kind: str, **fields: Any) -> bytes:
        return self._event(kind, output_index=len(self.body["output"]), **fields)

    def _event_of_item(self, kind: str, **fields: Any) -> bytes:
        assert self._item is not None
        return self._event_of_output(kind, item_id=self._item["id"], **fields)

    def _event_of_part(self, kind: str, **fields: Any) -> bytes:
        return self._event_of_item(kind, content_index=0, **fields)
