"""A sampling option: a number that callers may give, described once, in the step that works with it."""

from collections.abc import Callable, Mapping
from typing import Any, Generic, Self, TypeVar, overload

from edgeq.errors import UsageError

Value = TypeVar("Value", int, float, int | None)


class Option(Generic[Value]):
    """An attribute of a step's class; in an instance of the step it is the option's value.

    The attribute's name is the keyword's in Python and that of /set; the command line's is `--of-this-form`.

    default  the value where neither the caller nor the model's files give one; its type is the option's
    holds    whether a number can work, NaN and infinity among them
    must     what it must be: the end of a sentence
    help     what it does: a sentence
    flags    further flags on the command line
    config   its key in generation_config.json, if makers of models name it there
    means    what numbers in that file stand for, where that differs
    gguf     its key in GGUF after `general.sampling.`, for an option that has one in `config`
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
        means: Mapping[float, float] | None = None,
        gguf: str | None = None,
    ) -> None:
        self.name = ""
        self.default: Value = default
        self.kind: type[int] | type[float] = float if isinstance(default, float) else int
        self.holds, self.must, self.help, self.flags = holds, must, help, flags
        self.config, self.means, self.gguf = config, means or {}, gguf

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

    def check(self, value: Value) -> None:
        """Raises UsageError for a value that cannot work."""
        if not (self.optional and value is None) and not self.holds(value):
            raise UsageError(f"{self.name} is {value!r}: it must be {self.must}")
