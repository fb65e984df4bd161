"""An answer as blocks of content, and as the events of a stream that tell of them."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from edgeq.talk.said import CallArguments, CallBegun, Said, Text, Thought

_FIELDS = {"text": ("text_delta", "text"), "thinking": ("thinking_delta", "thinking")}


class Blocks:
    """The blocks as they come about. The events need not be used: `whole` has it all."""

    def __init__(self) -> None:
        self._blocks: list[dict[str, Any]] = []
        self._arguments: dict[int, str] = {}  # by the block's number
        self._open = False

    def tell(self, said: Sequence[Said]) -> Iterator[dict[str, Any]]:
        """The events of what was said."""
        for one in said:
            if isinstance(one, CallBegun):
                yield from self._begin({"type": "tool_use", "id": one.id, "name": one.name, "input": {}})
            elif isinstance(one, CallArguments):
                number = len(self._blocks) - 1
                self._arguments[number] = self._arguments.get(number, "") + one.text
                yield self._delta({"type": "input_json_delta", "partial_json": one.text})
            else:
                yield from self._text("text" if isinstance(one, Text) else "thinking", one)

    def end(self) -> Iterator[dict[str, Any]]:
        """The events at the end."""
        if not self._blocks:
            yield from self._begin({"type": "text", "text": ""})
        if self._open:
            self._open = False
            yield {"type": "content_block_stop", "index": len(self._blocks) - 1}

    def whole(self) -> list[dict[str, Any]]:
        """All blocks; arguments that were cut off are none."""
        for number, text in self._arguments.items():
            try:
                self._blocks[number]["input"] = json.loads(text)
            except ValueError:
                continue
        return self._blocks or [{"type": "text", "text": ""}]

    def _text(self, kind: str, one: Text | Thought) -> Iterator[dict[str, Any]]:
        delta, field = _FIELDS[kind]
        if not self._open or self._blocks[-1]["type"] != kind:
            more = {"signature": ""} if kind == "thinking" else {}
            yield from self._begin({"type": kind, field: "", **more})
        self._blocks[-1][field] += one.text
        yield self._delta({"type": delta, field: one.text})

    def _begin(self, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if self._open:
            yield {"type": "content_block_stop", "index": len(self._blocks) - 1}
        self._open = True
        self._blocks.append(block)
        yield {"type": "content_block_start", "index": len(self._blocks) - 1, "content_block": dict(block)}

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": len(self._blocks) - 1, "delta": delta}
