"""What a model gives is what a function's hints name."""

import datetime
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import pytest

from edgeq.talk.function_values import values_for
from edgeq.talk.functions import tool_of


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: float
    when: datetime.date | None = None


class Named(TypedDict):
    point: Point


CASES = [
    (str, "a", "a"),
    (int, 3, 3),
    (float, 3, 3.0),
    (bool, True, True),
    (Any, [1], [1]),
    (datetime.date, "2024-02-29", datetime.date(2024, 2, 29)),
    (datetime.datetime, "2024-02-29T12:00:00", datetime.datetime(2024, 2, 29, 12)),
    (Colour, "red", Colour.RED),
    (Literal["a", 1], 1, 1),
    (list[Colour], ["red"], [Colour.RED]),
    (Sequence[float], [1], [1.0]),
    (set[int], [1, 1], {1}),
    (tuple[int, str], [1, "a"], (1, "a")),
    (tuple[int, ...], [1, 2, 3], (1, 2, 3)),
    (tuple, [1, "a"], (1, "a")),
    (dict[str, datetime.date], {"a": "2024-01-01"}, {"a": datetime.date(2024, 1, 1)}),
    (Mapping[str, int], {"a": 1}, {"a": 1}),
    (Annotated[int, "how many"], 2, 2),
    (int | None, None, None),
    (int | str, "2", "2"),
    (datetime.date | str, "soon", "soon"),
    (Point, {"x": 1, "when": "2024-01-01"}, Point(1.0, datetime.date(2024, 1, 1))),
    (Named, {"point": {"x": 2}}, {"point": Point(2.0)}),
    (list[Point], [{"x": 1}], [Point(1.0)]),
]


def taking(kind):
    def function(value):
        """Takes a value."""

    function.__annotations__["value"] = kind
    return function


@pytest.mark.parametrize(("kind", "given", "wanted"), CASES)
def test_values(kind, given, wanted):
    tool_of(taking(kind))  # all of these can be told of
    found = values_for(taking(kind), {"value": given})["value"]
    assert found == wanted and type(found) is type(wanted)


@pytest.mark.parametrize(
    ("kind", "given", "fault"),
    [
        (int, "3", "value: '3' is no int"),
        (int, True, "value: True is no int"),
        (bool, 1, "value: 1 is no bool"),
        (str, None, "value: None is no str"),
        (list[int], [1, "a"], "value: 'a' is no int"),
        (tuple[int, int], [1], "value: it must have 2 values"),
        (dict[str, int], [], "value: .* is no object"),
        (datetime.date, "soon", "value: Invalid isoformat"),
        (Colour, "blue", "value: 'blue' is not a valid"),
        (int | None, "a", "value: 'a' is of none of the types"),
        (Point, {"y": 1}, "value: .*unexpected keyword argument"),
    ],
)
def test_what_is_no_value(kind, given, fault):
    with pytest.raises((TypeError, ValueError), match=fault):
        values_for(taking(kind), {"value": given})


def test_what_a_hint_does_not_name_stays():
    assert values_for(lambda a, **more: None, {"a": 1, "b": [2]}) == {"a": 1, "b": [2]}
