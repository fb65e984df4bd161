"""A text as a model knows it: how far it is evaluated, and what its layers keep of that."""

from collections.abc import Sequence as Items

from edgeq.runtime.states import State


class Sequence:
    """`position` tokens that were evaluated, and a state for every group of layers that looks back. Made by
    `Program.sequence`; it takes as much memory as it is long, which is given back when it is dropped."""

    def __init__(self, states: Items[State]) -> None:
        self.position = 0
        self.states = states

    @property
    def nbytes(self) -> int:
        """What its states take, shared with forks or not."""
        return sum(self.held.values())

    @property
    def held(self) -> dict[int, int]:
        """Bytes of each piece of memory that its states have, by address."""
        return {address: nbytes for state in self.states for address, nbytes in state.held.items()}

    @property
    def rewinds(self) -> bool:
        """Whether it can go back by a few tokens, and not only to a checkpoint."""
        return all(state.rewinds for state in self.states)

    def extend(self, count: int) -> None:
        """Make room for `count` further tokens. MemoryLimitError if there is none."""
        for state in self.states:
            state.extend(self.position, self.position + count)

    def passing(self, count: int) -> int:
        """Begin a pass over `count` further tokens; the position that the sequence is to be given once it is done.
        Until then `position` is one from which it can go on if the pass is broken off."""
        start, end = self.position, self.position + count
        self.position = min((state.passing(start, end) for state in self.states), default=start)
        self.position = self.reachable(self.position)
        return end

    def reachable(self, position: int) -> int:
        """The latest position up to `position`, of those that are evaluated, at which it can go on."""
        while (earlier := min((state.reachable(position) for state in self.states), default=position)) < position:
            position = earlier
        return position

    def trim(self, position: int) -> int:
        """Forget what is from `position` on, or from the latest position before at which it can go on; which that is.

        `pages.REWIND` positions can always be forgotten, where it `rewinds`.
        """
        self.position = position = self.reachable(min(position, self.position))
        for state in self.states:
            state.trim(position)
        return position

    def fork(self) -> "Sequence":
        """Another one of the same tokens, which goes on by itself. Both share memory until they differ."""
        other = Sequence([state.fork() for state in self.states])
        other.position = self.position
        return other

    def overflowed(self) -> bool:
        """Whether something was kept that the elements of its states cannot hold."""
        return any(state.overflowed() for state in self.states)
