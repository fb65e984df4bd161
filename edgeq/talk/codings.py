"""How the arguments of a call are written: as JSON, between tags, or in a language of their own.

Each way reads them as they come (`read`, which says them as JSON), writes them, and says in llguidance's dialect of
Lark what may be written for a JSON schema (`rules`).
"""

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from edgeq.talk.incoming import Incoming, Say, Steps, Unreadable
from edgeq.talk.literals import GEMMA, PYTHON, Literals
from edgeq.talk.rules import Rules

Schema = Mapping[str, Any]


class Coding(Protocol):
    @property
    def opening(self) -> str:
        """What arguments begin with, where something else could stand in their place."""
        ...

    @property
    def marks(self) -> tuple[str, ...]:
        """The fixed texts around names and values."""
        ...

    def read(self, source: Incoming, say: Say, schema: Schema) -> Steps[None]: ...
    def write(self, arguments: Mapping[str, Any]) -> str: ...
    def rules(self, rules: Rules, schema: Schema) -> str: ...
    def unfollowed(self, schema: Schema) -> str | None:
        """A keyword of a schema that `rules` passes over, beside those that llguidance does; None if there is none."""
        ...


def dumps(value: Any) -> str:
    """JSON as models write it."""
    return json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class Json:
    """{"city": "Paris"}; also as a text that holds JSON, which some models write."""

    opening: str = "{"
    marks: tuple[str, ...] = ()

    def read(self, source: Incoming, say: Say, schema: Schema) -> Steps[None]:
        yield from source.space()
        if (yield from source.peek()) != '"':
            yield from source.value(say)
            return
        parts: list[str] = []
        yield from source.value(parts.append)
        try:
            say(str(json.loads("".join(parts))))
        except ValueError:
            raise Unreadable from None

    def write(self, arguments: Mapping[str, Any]) -> str:
        return dumps(arguments)

    def rules(self, rules: Rules, schema: Schema) -> str:
        return rules.json(schema)

    def unfollowed(self, schema: Schema) -> str | None:
        return None


@dataclass(frozen=True)
class Tagged:
    """<parameter=city>Paris</parameter>: texts as they are, other values as JSON.

    key      before a parameter's name
    value    between its name and its value
    close    after its value
    between  between parameters
    typed    what says in `value` whether it is a text: DeepSeek's string="true"
    """

    key: str
    value: str
    close: str
    between: str = ""
    typed: bool = False

    @property
    def opening(self) -> str:
        return self.key.strip()

    @property
    def marks(self) -> tuple[str, ...]:
        return self.key, self.value, self.close

    def read(self, source: Incoming, say: Say, schema: Schema) -> Steps[None]:
        count = 0
        while True:
            yield from source.space()
            if not (yield from source.accept(self.key.strip())):
                break
            first, *more = ('string="true">',) if self.typed else self.value.split()
            marks = (first, 'string="false">') if self.typed else (first,)
            name, mark = yield from source.collect(*marks)
            for part in more:
                yield from source.expect(part)
            raw, closed = yield from source.collect(self.close.strip())
            if mark is None or closed is None:
                raise Unreadable
            name = name.strip().rstrip('"')
            text = _trimmed(raw, self.value, self.close)
            kind = schema.get("properties", {}).get(name, {}) if isinstance(schema.get("properties"), Mapping) else {}
            is_text = mark == marks[0] if self.typed else _is_text(kind)
            say(f"{', ' if count else '{'}{dumps(name)}: {dumps(text if is_text else _read_value(text))}")
            count += 1
        say("}" if count else "{}")

    def write(self, arguments: Mapping[str, Any]) -> str:
        said = []
        for name, value in arguments.items():
            text = value if isinstance(value, str) else dumps(value)
            said.append(f"{self.key}{name}{self._middle(isinstance(value, str))}{text}{self.close}")
        return self.between.join(said)

    def _middle(self, is_text: bool) -> str:
        return self.value.replace("TYPED", "true" if is_text else "false")

    def rules(self, rules: Rules, schema: Schema) -> str:
        properties, required = object_of(schema)
        definitions = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
        parts = []
        for name, kind in properties.items():
            is_text = _is_text(kind)
            head = f"{self.key}{name}{self._middle(is_text)}"
            if not is_text:
                body = f"{rules.json({**kind, **definitions} if isinstance(kind, Mapping) else kind)} "
                body += rules.literal(self.close)
            elif (choices := kind.get("enum", [kind["const"]] if "const" in kind else None)) is not None:
                body = f"({' | '.join(rules.literal(choice) for choice in choices)}) {rules.literal(self.close)}"
            else:
                body = rules.text_until(self.close)
            parts.append((head, body, name in required))
        return rules.sequence(parts, self.between)

    def unfollowed(self, schema: Schema) -> str | None:
        texts = (kind for kind in object_of(schema)[0].values() if _is_text(kind))
        return next(
            (key for kind in texts for key in kind if key in ("pattern", "minLength", "maxLength", "format")), None
        )


def _trimmed(raw: str, before: str, after: str) -> str:
    """A value without the line breaks that belong to the tags around it."""
    lead = before[len(before.rstrip("\n")) :]
    tail = after[: len(after) - len(after.lstrip("\n"))]
    return raw.removeprefix(lead).removesuffix(tail)


def _is_text(kind: Any) -> bool:
    """Whether a schema allows nothing but texts."""
    if not isinstance(kind, Mapping):
        return False
    said = kind.get("type")
    if said is not None:
        return said in ("string", ["string"])
    choices = kind.get("enum", [kind["const"]] if "const" in kind else [])
    return bool(choices) and all(isinstance(choice, str) for choice in choices)


def _read_value(text: str) -> Any:
    """A value that is no text by its schema: JSON, or as Python writes it; else a text all the same."""
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text.strip())
            json.dumps(value)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        return value
    return text


def object_of(schema: Schema) -> tuple[dict[str, Any], set[str]]:
    """The properties of an object's schema, and the names of those that it must have."""
    properties, required = schema.get("properties"), schema.get("required")
    found = {str(name): kind for name, kind in properties.items()} if isinstance(properties, Mapping) else {}
    return found, {str(name) for name in required} if isinstance(required, list) else set()


@dataclass(frozen=True)
class Python:
    """(city="Paris", days=2), as Python's calls are written."""

    opening: str = "("
    marks: tuple[str, ...] = ()
    literals: Literals = PYTHON

    def read(self, source: Incoming, say: Say, schema: Schema) -> Steps[None]:
        yield from source.space()
        text = yield from source.enclosed("([{", ")]}", ('"', "'"))
        try:
            call = ast.parse("f" + text, mode="eval").body
            assert isinstance(call, ast.Call) and not call.args
            found = {str(one.arg): _python_value(one.value) for one in call.keywords if one.arg}
            say(dumps(found))
        except (SyntaxError, ValueError, AssertionError, RecursionError, MemoryError, TypeError):
            raise Unreadable from None

    def write(self, arguments: Mapping[str, Any]) -> str:
        return f"({', '.join(f'{name}={self.literals.write(value)}' for name, value in arguments.items())})"

    def rules(self, rules: Rules, schema: Schema) -> str:
        properties, required = object_of(schema)
        parts = [(f"{name}=", self.literals.rules(rules, kind), name in required) for name, kind in properties.items()]
        return f'"(" {rules.sequence(parts, ", ")} ")"'

    def unfollowed(self, schema: Schema) -> str | None:
        return self.literals.unfollowed(schema)


def _python_value(node: ast.expr) -> Any:
    """A literal's value; the words of JSON are known too."""
    for one in ast.walk(node):
        if isinstance(one, ast.Name) and one.id not in _WORDS:
            raise ValueError(one.id)
    return ast.literal_eval(_Words().visit(node))


_WORDS = {"true": True, "false": False, "null": None}


class _Words(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.copy_location(ast.Constant(_WORDS[node.id]), node)


@dataclass(frozen=True)
class Gemma:
    """{city:<|"|>Paris<|"|>,days:2}: Gemma 4's own, with names bare and texts between marks."""

    opening: str = "{"
    marks: tuple[str, ...] = (GEMMA.quote,)
    literals: Literals = GEMMA

    def read(self, source: Incoming, say: Say, schema: Schema) -> Steps[None]:
        yield from source.space()
        text = yield from source.enclosed("{[", "}]", (self.literals.quote,), escapes=False)
        try:
            say(dumps(json.loads(self._as_json(text))))
        except ValueError:
            raise Unreadable from None

    def _as_json(self, text: str) -> str:
        pieces = text.split(self.literals.quote)
        for i, piece in enumerate(pieces):
            if i % 2:
                pieces[i] = dumps(piece)
            else:
                named = re.sub(r'([{,]\s*)([^\s{}\[\],:"]+)(\s*:)', r'\1"\2"\3', piece)
                pieces[i] = re.sub(r"\b(None|True|False)\b", lambda word: _JSON_WORDS[word[1]], named)
        return "".join(pieces)

    def write(self, arguments: Mapping[str, Any]) -> str:
        return self.literals.write(arguments)

    def rules(self, rules: Rules, schema: Schema) -> str:
        return self.literals.rules(rules, {**schema, "type": "object"})

    def unfollowed(self, schema: Schema) -> str | None:
        return self.literals.unfollowed(schema)


_JSON_WORDS = {"None": "null", "True": "true", "False": "false"}

JSON = Json()
