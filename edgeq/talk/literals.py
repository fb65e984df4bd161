"""Values as languages other than JSON write them, and what of a JSON schema can be said of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeq.talk.rules import Rules

DEEPEST = 24

_FOLLOWED = {"type", "enum", "const", "anyOf", "oneOf", "properties", "required", "items", "additionalProperties"}
_SAYS_NOTHING = {"title", "description", "default", "examples", "$schema", "$comment", "deprecated"}


@dataclass(frozen=True)
class Literals:
    """A language of literals: its quotes, its words for true, false and null, and whether names are quoted too."""

    quote: str
    true: str
    false: str
    null: str
    quoted_keys: bool

    def write(self, value: Any) -> str:
        if value is None or isinstance(value, bool):
            return self.null if value is None else self.true if value else self.false
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            pairs = (f"{self._key(k)}{self._colon}{self.write(v)}" for k, v in value.items())
            return "{" + self._comma.join(pairs) + "}"
        if isinstance(value, list | tuple):
            return "[" + self._comma.join(map(self.write, value)) + "]"
        return json.dumps(value)

    @property
    def _comma(self) -> str:
        return ", " if self.quoted_keys else ","

    @property
    def _colon(self) -> str:
        return ": " if self.quoted_keys else ":"

    def _text(self, text: str) -> str:
        # Python reads JSON's texts, but for the pairs of surrogates that are not written here
        return json.dumps(text, ensure_ascii=False) if self.quote == '"' else f"{self.quote}{text}{self.quote}"

    def _key(self, name: str) -> str:
        return self._text(name) if self.quoted_keys else name

    def rules(self, rules: Rules, schema: Any, depth: int = 0) -> str:
        """What may be written for a schema; keywords that narrow a value further say nothing here."""
        if not isinstance(schema, Mapping) or depth > DEEPEST:
            return rules.named(f"any_{depth}", lambda: self._any(rules))
        choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if isinstance(choices, list) and choices:
            return f"({' | '.join(rules.literal(self.write(choice)) for choice in choices)})"
        among = schema.get("anyOf") or schema.get("oneOf")
        if isinstance(among, list) and among:
            return f"({' | '.join(self.rules(rules, one, depth + 1) for one in among)})"
        kinds = schema.get("type", "object" if "properties" in schema else None)
        kinds = kinds if isinstance(kinds, list) else [kinds]
        return f"({' | '.join(self._kind(rules, kind, schema, depth) for kind in kinds)})"

    def unfollowed(self, schema: Any) -> str | None:
        """A keyword that `rules` passes over; None if there is none."""
        if not isinstance(schema, Mapping):
            return None
        other = next((key for key in schema if key not in _FOLLOWED and key not in _SAYS_NOTHING), None)
        if other is not None or "enum" in schema or "const" in schema:
            return other
        among = [*(schema.get("anyOf") or ()), *(schema.get("oneOf") or ()), schema.get("items")]
        properties = schema.get("properties")
        among += properties.values() if isinstance(properties, Mapping) else ()
        return next((found for one in among if (found := self.unfollowed(one)) is not None), None)

    def _kind(self, rules: Rules, kind: Any, schema: Mapping[str, Any], depth: int) -> str:
        if kind == "string":
            return self._string(rules)
        if kind == "integer":
            return r"/-?(0|[1-9][0-9]{0,17})/"
        if kind == "number":
            return r"/-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?([eE][+-]?[0-9]{1,2})?/"
        if kind == "boolean":
            return f"({rules.literal(self.true)} | {rules.literal(self.false)})"
        if kind == "null":
            return rules.literal(self.null)
        if kind == "array":
            item = self.rules(rules, schema.get("items"), depth + 1)
            least = schema.get("minItems")
            more = f"({rules.literal(self._comma)} {item})*"
            return f'"[" {item} {more} "]"' if least else f'"[" ({item} {more})? "]"'
        properties = schema.get("properties")
        closed = schema.get("additionalProperties") is False
        if kind == "object" and isinstance(properties, Mapping) and (properties or closed):
            required = schema.get("required") if isinstance(schema.get("required"), list) else []
            parts = [
                (self._key(str(name)) + self._colon, self.rules(rules, one, depth + 1), name in (required or ()))
                for name, one in properties.items()
            ]
            return f'"{{" {rules.sequence(parts, self._comma)} "}}"'
        if kind == "object":
            return rules.named("object", lambda: self._free_object(rules))
        return rules.named("any", lambda: self._any(rules))

    def _string(self, rules: Rules) -> str:
        if self.quote == '"':
            return r'/"([^"\\\n\r\x00-\x1f]|\\["\\nrt])*"/'
        return f"{rules.literal(self.quote)} {rules.text_until(self.quote)}"

    def _free_object(self, rules: Rules) -> str:
        value = rules.named("any", lambda: self._any(rules))
        name = self._string(rules) if self.quoted_keys else "/[A-Za-z_][A-Za-z0-9_]*/"
        pair = f"{name} {rules.literal(self._colon)} {value}"
        return f'"{{" ({pair} ({rules.literal(self._comma)} {pair})*)? "}}"'

    def _any(self, rules: Rules) -> str:
        plain = (self._kind(rules, kind, {}, 0) for kind in ("string", "number", "boolean", "null"))
        inner = rules.named("any", lambda: "")  # itself
        array = f'"[" ({inner} ({rules.literal(self._comma)} {inner})*)? "]"'
        return f"{' | '.join(plain)} | {array} | {rules.named('object', lambda: self._free_object(rules))}"


PYTHON = Literals('"', "True", "False", "None", quoted_keys=True)
GEMMA = Literals('<|"|>', "true", "false", "null", quoted_keys=False)
