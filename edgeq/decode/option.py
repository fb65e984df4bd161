"""A sampling option: what callers may give, described once, in the step that works with it."""

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Generic, Self, TypeVar, overload

from edgeq.errors import UsageError

Value = TypeVar("Value")

LARGEST = 1e30  # of numbers that arithmetic with logits, in single precision, takes


def is_computable(value: Any) -> bool:
    """Whether a real number is of a size that logits can be computed with; infinity and NaN are too."""
    try:
        return not LARGEST < abs(float(value)) < math.inf
    except OverflowError:
        return False


class Option(Generic[Value]):
    """An attribute of a step's class; in an instance of the step it is the option's value.

    The attribute's name is the keyword's in Python and that of /set; the command line's is `--of-this-form`.

    default  the value where neither the caller nor the model's files give one; its type is the option's
    holds    whether a value of that type can work, NaN and infinity among them
    must     what it must be: the end of a sentence
    help     what it does: a sentence
    flags    further flags on the command line: in requests and /set, names without their dashes
    config   its key in generation_config.json, if makers of models name it there
    means    what numbers there, in requests and on the command line stand for, where that differs; None is the default
    gguf     its key in GGUF after `general.sampling.`, for an option that has one in `config`
    kind     its type, where it is no number
    read     of an option that is no number: what the texts stand for that the command line gives, each after the flag
             again; ValueError for others. Where there is none, the option is for Python alone
    """

    def __init__(
        self,
        default: Value,
        *,
        holds: Callable[[Any], bool],
        must: str,
        help: str,
        flags: tuple[str, ...] = (),
        config: str | None = None,
        means: Mapping[float, float | None] | None = None,
        gguf: str | None = None,
        kind: Any = None,
        read: Callable[[Sequence[str]], Value] | None = None,
    ) -> None:
        self.name = ""
        self.default: Value = default
        self.kind: Any = kind or (float if isinstance(default, float) else int)
        self.holds, self.must, self.help, self.flags = holds, must, help, flags
        self.config, self.means, self.gguf, self.read = config, means or {}, gguf, read

    def __set_name__(self, step: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, step: None, kind: type) -> Self: ...
    @overload
    def __get__(self, step: object, kind: type) -> Value: ...
    def __get__(self, step: object, kind: type) -> Any:
        return self if step is None else vars(step)[self.name]

    @property
    def optional(self) -> bool:
        """Whether None is a value too."""
        return self.default is None

    @property
    def is_number(self) -> bool:
        return self.kind in (int, float)

    def check(self, value: Any) -> None:
        """Raises UsageError for a value that cannot work."""
        if self.optional and value is None:
            return
        if self.is_number:
            kind, wanted = (Real, "a number") if self.kind is float else (Integral, "a whole number")
            if isinstance(value, bool) or not isinstance(value, kind):
                raise UsageError(f"{self.name} is {value!r}: it must be {wanted}")
            try:
                float(value)
            except OverflowError:  # an integer of hundreds of digits, which may have too many to be shown
                raise UsageError(f"{self.name} is too large: it must be {self.must}") from None
            if self.kind is float and not is_computable(value):
                raise UsageError(f"{self.name} is {value!r}: it must be {self.must}, and at most 1e30 in size")
        if not self.holds(value):
            raise UsageError(f"{self.name} is {value!r}: it must be {self.must}")
