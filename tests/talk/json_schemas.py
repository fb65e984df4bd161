"""JSON schemas of the kinds that are met in the wild, made by rules from seeds: functions of assistants, events,
configurations, resources of Kubernetes, articles. Each name gives the same schemas everywhere."""

import random
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any]

WORDS = [
    *(
        "name",
        "id",
        "title",
        "version",
        "description",
        "status",
        "owner",
        "email",
        "count",
        "price",
        "limit",
        "created",
    ),
    *("tags", "items", "path", "host", "port", "enabled", "level", "score", "region", "language", "url", "parent"),
    *("notes", "mode", "timeout", "retries", "labels", "author", "body", "section", "kind", "spec"),
]
FORMATS = ("date", "date-time", "time", "email", "uuid", "ipv4", "ipv6", "uri", "hostname", "duration")
PATTERNS = (
    "^[a-z][a-z0-9_-]{0,30}$",
    "^v?\\d+\\.\\d+\\.\\d+$",
    "^(GET|POST|PUT)$",
    "^#[0-9a-fA-F]{6}$",
    "[A-Z]{3}",
    "^\\$\\{[^}]+\\}$",
    "^.+\\.json$",
    "^\\S{1,8}(\\s\\S+)?$",
)


class Maker:
    """Draws the parts of one schema."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def some(self, *choices: Any) -> Any:
        return self._random.choice(choices)

    def few(self, least: int, most: int) -> int:
        return self._random.randint(least, most)

    def maybe(self, share: float) -> bool:
        return self._random.random() < share

    def words(self, count: int) -> list[str]:
        return self._random.sample(WORDS, count)

    def text(self) -> Schema:
        least = self.few(0, 5)
        return {
            "type": "string",
            **self.some(
                {},
                {},
                {"minLength": least},
                {"maxLength": self.few(5, 60)},
                {"minLength": least, "maxLength": least + self.few(0, 20)},
                {"pattern": self.some(*PATTERNS)},
                {"format": self.some(*FORMATS)},
                {"default": "x", "examples": ["x", "y"]},
                {"description": "What it's called"},
            ),
        }

    def number(self) -> Schema:
        low = self.few(-1000, 1000)
        return self.some(
            {"type": "integer"},
            {"type": "number"},
            {"type": "integer", "minimum": low, "maximum": low + self.few(0, 5000)},
            {"type": "integer", "exclusiveMinimum": low},
            {"type": "number", "minimum": low / 10, "maximum": low / 10 + 7},
            {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            {"type": "integer", "minimum": 0, "multipleOf": self.some(2, 5, 7, 100)},
            {"type": "integer", "format": self.some("int32", "int64")},
        )

    def leaf(self) -> Schema:
        return self.some(
            self.text(),
            self.text(),
            self.number(),
            {"type": "boolean"},
            {"enum": self.words(self.few(1, 6))},
            {"type": "string", "enum": [*self.words(3), 'with "quotes" and ü']},
            {"const": self.some("v1", 3, None, True, ["a", {"b": 1}])},
            {"type": ["string", "null"], "maxLength": 20},
            {"type": ["integer", "null"]},
            {"enum": [1, "two", None, 3.5, False]},
        )

    def array(self, items: Schema) -> Schema:
        least = self.few(0, 3)
        return {
            "type": "array",
            "items": items,
            **self.some({}, {"minItems": least}, {"minItems": least, "maxItems": least + 2}, {"maxItems": 4}),
        }

    def object(self, properties: dict[str, Schema], closed: float = 0.6) -> Schema:
        names = [*properties]
        found: Schema = {"type": "object", "properties": properties}
        if self.maybe(0.8):
            found["required"] = names[: self.few(0, len(names))]
        if self.maybe(closed):
            found["additionalProperties"] = False
        elif self.maybe(0.4):
            found["additionalProperties"] = self.leaf()
        return found

    def flat(self, count: int, closed: float = 0.6) -> Schema:
        return self.object({name: self.leaf() for name in self.words(count)}, closed)

    def nested(self, depth: int, width: int = 3) -> Schema:
        if depth == 0:
            return self.leaf()
        kind = self.few(0, 9)
        if kind < 6:
            return self.object({name: self.nested(depth - 1, width) for name in self.words(self.few(1, width))})
        if kind < 8:
            return self.array(self.nested(depth - 1, width))
        if kind == 8:
            return {"anyOf": [self.nested(depth - 1, width), self.leaf()]}
        return {"type": "object", "additionalProperties": self.nested(depth - 1, width), "maxProperties": 3}

    def rare(self) -> Schema:
        """What few schemas hold, and not all of which can be followed."""
        return self.some(
            {"type": "object", "patternProperties": {"^x-": self.leaf(), "^[a-z]{1,5}$": {"type": "integer"}}},
            {"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}, "additionalProperties": {"type": "boolean"}},
            {"type": "object", "minProperties": 1, "maxProperties": 2, "additionalProperties": {"type": "null"}},
            {"type": "array", "prefixItems": [self.leaf(), self.leaf()], "items": False, "minItems": 2},
            {"type": "array", "items": self.leaf(), "uniqueItems": True},
            {"type": "array", "contains": {"const": 1}},
            {"type": "string", "not": {"const": "no"}},
            {"allOf": [self.flat(2, 0), {"required": ["other"], "properties": {"other": self.leaf()}}]},
            {"oneOf": [{"type": "string", "maxLength": 5}, {"type": "integer"}, {"type": "null"}]},
            {
                "oneOf": [
                    {
                        **self.flat(2),
                        "properties": {"kind": {"const": kind}, "value": self.leaf()},
                        "required": ["kind"],
                    }
                    for kind in ("first", "second")
                ]
            },
            {
                "type": "object",
                "properties": {"mode": {"enum": ["fast", "slow"]}, "limit": {"type": "integer"}},
                "if": {"properties": {"mode": {"const": "fast"}}},
                "then": {"required": ["limit"]},
            },
            {"type": "object", "properties": {"a": {}, "b": {}}, "dependentRequired": {"a": ["b"]}},
            {"type": "object", "properties": {"a": {}, "b": {}}, "dependencies": {"a": ["b"]}},
            {"type": "number", "multipleOf": 0.01, "minimum": 0, "maximum": 10},
            {"type": "string", "pattern": "^(?!admin).*$"},
            {"type": "string", "format": "idn-hostname"},
            {"type": "string", "contentEncoding": "base64"},
        )


def function(make: Maker) -> Schema:
    """The arguments of a function that an assistant calls."""
    names = make.words(make.few(1, 5))
    kinds = [
        {
            **make.some({"type": "string"}, {"type": "number"}, {"type": "integer"}, {"type": "boolean"}),
            "description": n,
        }
        for n in names
    ]
    found: Schema = {"type": "object", "properties": dict(zip(names, kinds, strict=True)), "required": names[:1]}
    if make.maybe(0.3):
        found["properties"]["list"] = {"type": "array", "items": make.flat(2)}
    return found


def trivial(make: Maker) -> Schema:
    return make.some(make.leaf(), {"type": "object"}, {"type": "array"}, {}, make.array(make.leaf()), make.flat(1))


def easy(make: Maker) -> Schema:
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Easy", **make.flat(make.few(2, 6))}


def medium(make: Maker) -> Schema:
    found = make.object({name: make.nested(2) for name in make.words(3)})
    found["properties"]["place"] = {"$ref": "#/definitions/place"}
    return {**found, "definitions": {"place": make.flat(2)}}


def hard(make: Maker) -> Schema:
    found = make.object({name: make.nested(3) for name in make.words(3)}, 0.8)
    found["properties"]["special"] = make.rare()
    return found


def ultra(make: Maker) -> Schema:
    """Trees, and much else."""
    tree = {"type": "object", "properties": {"value": make.leaf(), "children": make.array({"$ref": "#/$defs/tree"})}}
    tree["properties"]["children"].pop("minItems", None)
    tree |= {"required": ["value"], "additionalProperties": False}
    more = {name: make.nested(3, 4) for name in make.words(6)}
    found = make.object({"tree": {"$ref": "#/$defs/tree"}, "rare": make.rare(), **more}, 0.8)
    return {**found, "$defs": {"tree": tree}}


def event(make: Maker) -> Schema:
    """An event of an analytics pipeline: flat, closed, with bounds, and nothing that may not be null."""
    properties: dict[str, Schema] = {}
    for name in make.words(make.few(3, 8)):
        properties[name] = make.some(
            {"type": ["string", "null"], "maxLength": make.some(36, 255, 1024)},
            {"type": "string", "maxLength": 64, "description": "Which"},
            {"type": ["integer", "null"], "minimum": 0, "maximum": make.some(9999, 2147483647)},
            {"type": "string", "format": make.some("date-time", "uuid", "ipv4", "uri")},
            {"type": ["boolean", "null"]},
            {"type": "string", "enum": make.words(4)},
            {"type": ["number", "null"]},
            {"type": "array", "items": {"type": "string", "maxLength": 16}},
        )
    described = {"vendor": "com.example", "name": "event", "format": "jsonschema", "version": "1-0-0"}
    return {"description": "An event", "self": described, **make.object(properties, 1.0)}


def resource(make: Maker) -> Schema:
    """A resource of Kubernetes: definitions, maps of texts, deep objects."""
    label = {"type": "object", "additionalProperties": {"type": "string"}, "description": "Labels"}
    port = {"type": "object", "properties": {"port": {"type": "integer", "format": "int32"}, "name": make.text()}}
    container = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string"},
            "image": {"type": ["string", "null"]},
            "ports": {"type": ["array", "null"], "items": {"$ref": "#/definitions/port"}},
            "limit": {"oneOf": [{"type": "string", "pattern": "^[0-9]+Mi$"}, {"type": "integer", "minimum": 0}]},
        },
    }
    properties = {
        "apiVersion": {"type": "string", "enum": ["v1", "apps/v1"]},
        "kind": {"type": "string", "enum": [make.some("Pod", "Service", "Deployment")]},
        "metadata": {
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": 63}, "labels": {"$ref": "#/definitions/label"}},
        },
        "spec": make.object(
            {"containers": make.array({"$ref": "#/definitions/container"}), **{n: make.leaf() for n in make.words(2)}}
        ),
    }
    more = (
        {"x-kubernetes-group-version-kind": [{"group": "", "kind": "Pod", "version": "v1"}]} if make.maybe(0.5) else {}
    )
    definitions = {"label": label, "port": port, "container": container}
    return {"type": "object", "properties": properties, "required": ["kind"], "definitions": definitions, **more}


def article(make: Maker) -> Schema:
    """An article: elements of several kinds, references to each other, dates."""
    element = {
        "anyOf": [
            {
                "type": "object",
                "properties": {"type": {"type": "string", "enum": [kind]}, "content": make.leaf()},
                "required": ["type"],
                "additionalProperties": False,
            }
            for kind in ("text", "image", "quote")[: make.few(1, 3)]
        ]
    }
    additional = make.some({}, {"patternProperties": {"^ext_": {}}}, {"additionalProperties": True})
    properties = {
        "_id": {"type": "string", "pattern": "^[A-Z0-9]{26}$"},
        "version": {"type": "string", "enum": ["0.10.8"]},
        "created": {"type": "string", "format": "date-time"},
        "content_elements": make.array({"$ref": "#/definitions/element"}),
        "owner": {"allOf": [{"$ref": "#/definitions/owner"}]},
        **{name: make.leaf() for name in make.words(3)},
    }
    found = {"type": "object", "properties": properties, "required": ["version"], **additional}
    owner = {"title": "Owner", "type": "object", "properties": {"id": make.text(), "sponsored": {"type": "boolean"}}}
    return {**found, "definitions": {"element": element, "owner": owner}}


def configuration(make: Maker) -> Schema:
    """The configuration of some program, as editors look it up."""
    one = {"$ref": "#/definitions/one"}
    properties = {
        "$schema": {"type": "string", "format": "uri"},
        "extends": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
        "rules": {"type": "object", "additionalProperties": one},
        "level": {
            "$comment": "0 to 2",
            "anyOf": [{"enum": ["off", "on"]}, {"type": "integer", "minimum": 0, "maximum": 2}],
        },
        **{name: {**make.nested(2), "description": name, "deprecated": False} for name in make.words(4)},
    }
    if make.maybe(0.3):
        properties["special"] = make.rare()
    found = make.object(properties, 0.7)
    return {**found, "$id": "https://example.com/schema.json", "definitions": {"one": make.leaf()}}


KINDS: dict[str, Callable[[Maker], Schema]] = {
    "functions": function,
    "trivial": trivial,
    "easy": easy,
    "medium": medium,
    "hard": hard,
    "ultra": ultra,
    "events": event,
    "kubernetes": resource,
    "articles": article,
    "configurations": configuration,
}


def schema(kind: str, number: int) -> Schema:
    return KINDS[kind](Maker(f"{kind} {number}"))
