"""Several answers that are computed together."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, overload

from edgeq.engine.answer import Answer

if TYPE_CHECKING:
    from edgeq.runtime.request import Request


class Answers(Sequence[Answer]):
    """A list of answers, computed together as soon as any of them is asked for: iterate over all `pieces` as they come,
    take all `texts`, or one answer after the other. Not iterated over, they compute nothing further."""

    def __init__(self, answers: list[Answer], wait: "Callable[[list[Request]], None]") -> None:
        self._answers, self._wait = answers, wait

    @overload
    def __getitem__(self, index: int) -> Answer: ...

    @overload
    def __getitem__(self, index: slice) -> list[Answer]: ...

    def __getitem__(self, index: int | slice) -> Answer | list[Answer]:
        return self._answers[index]

    def __len__(self) -> int:
        return len(self._answers)

    @property
    def texts(self) -> list[str]:
        """The whole text of each."""
        return [answer.text for answer in self]

    def pieces(self) -> Iterator[tuple[int, str]]:
        """(number of the answer, piece of its text), as they become known. What ends one answer with an error is raised
        here; the others can go on, also by `pieces` again."""
        left = {index: request for index, answer in enumerate(self) if (request := answer.request) is not None}
        while left:
            self._wait(list(left.values()))
            for index, request in list(left.items()):
                if not request.settled:
                    continue
                piece = next(self[index], None)
                if piece is None:
                    del left[index]
                else:
                    yield index, piece

    def close(self) -> None:
        """End all of them here."""
        for answer in self:
            answer.close()

    def __repr__(self) -> str:
        return f"<edgeq.Answers: {list(self)!r}>"
