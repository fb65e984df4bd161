"""The sessions of a model: one for each set of adapters that is in use, over the same weights."""

from collections import OrderedDict
from typing import TYPE_CHECKING

from edgeq.adapters.adapter_set import AdapterSet
from edgeq.container.reader import File
from edgeq.errors import MemoryLimitError
from edgeq.prompt_cache import PromptCache

if TYPE_CHECKING:
    from edgeq.runtime.session import Session

KEPT = 4  # sessions beside the first: the one that was used longest ago makes room


class AdaptedSessions:
    """`first` is that of the set `adapters`, which stays; others are made as they are asked for.

    Nothing that a session keeps of a text is ever another one's: keys and values hold what adapters added.
    """

    def __init__(self, file: File, first: "Session", adapters: AdapterSet) -> None:
        self._file, self._first, self._key = file, first, adapters.key
        self.cache = PromptCache(first)  # the first session's
        self._others: OrderedDict[tuple[object, ...], tuple[Session, PromptCache]] = OrderedDict()

    def has(self, adapters: AdapterSet) -> bool:
        """Whether there is a session for these."""
        return adapters.key == self._key or adapters.key in self._others

    def cache_of(self, adapters: AdapterSet) -> PromptCache:
        """The session for these adapters, and what it holds. Raises what reading them does, and MemoryLimitError where
        there is no memory for a session, also without the others."""
        if adapters.key == self._key:
            return self.cache
        if adapters.key not in self._others:
            while len(self._others) >= KEPT:
                self._drop()
            session = self._made(adapters)
            self._others[adapters.key] = session, PromptCache(session)
        self._others.move_to_end(adapters.key)
        return self._others[adapters.key][1]

    def close(self) -> None:
        """Close all of them."""
        self._first.close()
        while self._others:
            self._drop()

    def _made(self, adapters: AdapterSet) -> "Session":
        from edgeq.runtime.adapted import AdaptedFile
        from edgeq.runtime.session import Session

        first, added = self._first, adapters.added
        file = AdaptedFile(self._file, added) if added else self._file
        while True:
            try:
                return Session(
                    file,
                    context=first.context,
                    threads=first.threads,
                    kv=first.kv,
                    states=first.states,
                    force=first.program.force,
                )
            except MemoryLimitError:
                if not self._others:
                    raise
                self._drop()

    def _drop(self) -> None:
        _, (session, _) = self._others.popitem(last=False)
        session.close()
