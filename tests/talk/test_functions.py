"""Python functions as tools."""

import enum
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

from edgeq.errors import UsageError
from edgeq.talk.functions import tool_of, tools_of


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Place(TypedDict):
    city: str
    country: NotRequired[str]


@dataclass
class Span:
    first: int
    last: int = 9


class OfPydantic:
    @classmethod
    def model_json_schema(cls):
        one = {"type": "object", "properties": {"b": {"$ref": "#/$defs/B"}}}
        return {**one, "$defs": {"B": {"type": "integer"}}}


def weather(city: str, days: int = 3, unit: Literal["C", "F"] = "C", near: str | None = None) -> str:
    """The weather in a city.

    As far as it is known.

    Args:
        city: The name of the city,
            as its people write it.
        days (int): How many days (at most 7)
        near: A place nearby (choices: ["sea", "hills"])

    Returns:
        A text: what it will be.
    """
    return city


def test_all_that_is_told_of_a_function():
    assert tool_of(weather) == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather in a city.\n\nAs far as it is known.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "The name of the city, as its people write it."},
                    "days": {"type": "integer", "description": "How many days (at most 7)"},
                    "unit": {"enum": ["C", "F"]},
                    "near": {"type": "string", "enum": ["sea", "hills"], "description": "A place nearby"},
                },
                "required": ["city"],
            },
        },
    }


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        (Any, {}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (list, {"type": "array"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (set[str], {"type": "array", "items": {"type": "string"}}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (
            tuple[int, str],
            {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "items": False,
                "minItems": 2,
                "maxItems": 2,
            },
        ),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (int | None, {"type": ["integer", "null"]}),
        (int | list[int], {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}]}),
        (Annotated[str, "A word"], {"type": "string", "description": "A word"}),
        (Colour, {"enum": ["red", "blue"]}),
        (
            Place,
            {
                "type": "object",
                "properties": {"city": {"type": "string"}, "country": {"type": "string"}},
                "required": ["city"],
                "additionalProperties": False,
            },
        ),
        (
            Span,
            {
                "type": "object",
                "properties": {"first": {"type": "integer"}, "last": {"type": "integer"}},
                "required": ["first"],
                "additionalProperties": False,
            },
        ),
    ],
)
def test_types(kind, schema):
    def f(x):
        """"""

    f.__annotations__ = {"x": kind}
    assert tool_of(f)["function"]["parameters"]["properties"] == {"x": schema}


def test_definitions_come_to_the_top():
    def f(x: list[OfPydantic]): ...

    schema = tool_of(f)["function"]["parameters"]
    assert schema["$defs"] == {"B": {"type": "integer"}} and "$defs" not in schema["properties"]["x"]["items"]


def test_docstrings_of_sphinx():
    def f(a, b=1, **more):
        """Adds.

        :param a: The first
        :param int b: The second,
            a number
        :return: a sum
        """

    assert tool_of(f)["function"] == {
        "name": "f",
        "description": "Adds.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"description": "The first"}, "b": {"description": "The second, a number"}},
            "required": ["a"],
        },
    }


def test_methods_and_dicts():
    class Clock:
        def now(self, zone: str): ...

    bare = {"name": "g", "parameters": {"type": "object", "properties": {}}}
    names = [tool["function"]["name"] for tool in tools_of([Clock().now, bare, {"type": "function", "function": bare}])]
    assert names == ["now", "g", "g"]


def unknown(x: complex): ...


def positional(x, /): ...


def several(*x): ...


def misspelt(x: "Nothing"): ...  # noqa: F821


def wrong_choices(x):
    """Does it.

    Args:
        x: One (choices: [a])
    """


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ([unknown], "unknown: x is a complex"),
        ([positional], "x cannot be given by name"),
        ([several], "x cannot be given by name"),
        ([misspelt], "misspelt cannot be read"),
        ([lambda x: x], "the name is '<lambda>'"),
        ([wrong_choices], "choices in the docstring are no JSON"),
        ([3], r"tools\[0\] is no object"),
        ([{"type": "function"}], r"tools\[0\].function is missing"),
        (weather, "a list of functions"),
        ({"name": "f"}, "a list of functions"),
    ],
)
def test_what_is_no_tool(tools, said):
    with pytest.raises(UsageError, match=said):
        tools_of(tools)
