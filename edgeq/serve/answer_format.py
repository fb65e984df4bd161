"""The schema that an answer shall follow, as each API asks for it."""

from typing import Any

from edgeq.serve.failures import invalid
from edgeq.talk.grammar import check_there

OBJECT = {"type": "object"}


def response_format(raw: dict[str, Any]) -> Any:
    """The schema that OpenAI's `response_format` asks for; None for plain text. Raises Failure."""
    wanted = raw.get("response_format")
    if wanted is None:
        return None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "text":
        return None
    if kind not in ("json_object", "json_schema"):
        raise invalid(f"response_format.type is {kind!r:.40}: give text, json_object or json_schema", "response_format")
    check_there("response_format")
    if kind == "json_object":
        return OBJECT
    described = wanted.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    if not isinstance(schema, dict):
        raise invalid("response_format.json_schema.schema is missing: give a JSON schema", "response_format")
    return schema


def ollama_format(raw: dict[str, Any]) -> Any:
    """The schema that Ollama's `format` asks for; None for plain text. Raises Failure."""
    wanted = raw.get("format")
    if not wanted:
        return None
    check_there("format")
    if wanted == "json":
        return OBJECT
    if not isinstance(wanted, dict):
        raise invalid('format must be "json" or a JSON schema', "format")
    return wanted
