"""The sessions of a model: one for each set of adapters that is in use, over the same weights."""

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from edgeq.adapters.adapter_set import AdapterSet
from edgeq.container.reader import File
from edgeq.engine.drafting import Draft
from edgeq.engine.shared_session import SharedSession
from edgeq.errors import MemoryLimitError

if TYPE_CHECKING:
    from edgeq.runtime.session import Session

KEPT = 4  # sessions beside the first: the one that was used longest ago makes room


class AdaptedSessions:
    """`first` is that of the set `adapters`, which stays; others are made as they are asked for.

    Nothing that a session keeps of a text is ever another one's: keys and values hold what adapters added. One that
    made room goes on for those that hold it, and goes with the last of them.
    """

    def __init__(self, file: File, first: "Session", adapters: AdapterSet) -> None:
        self._file, self._session, self._key = file, first, adapters.key
        self.first = SharedSession(first)
        self._others: OrderedDict[tuple[object, ...], SharedSession] = OrderedDict()
        self._making = threading.Lock()

    def draft_with(self, draft: Draft) -> None:
        """Have a draft guess for all of them. Before any other than the first is asked for."""
        self.first.draft = draft

    def of(self, adapters: AdapterSet) -> SharedSession:
        """The session for these adapters. Raises what reading them does, and MemoryLimitError where there is no memory
        for a session, also without the others."""
        if adapters.key == self._key:
            return self.first
        with self._making:
            if adapters.key not in self._others:
                while len(self._others) >= KEPT:
                    self._drop()
                self._others[adapters.key] = SharedSession(self._made(adapters), self.first.draft)
            self._others.move_to_end(adapters.key)
            return self._others[adapters.key]

    def close(self) -> None:
        """Close all of them, and the draft."""
        self.first.close()
        with self._making:
            while self._others:
                self._others.popitem()[1].close()
        if self.first.draft is not None:
            self.first.draft.close()

    def _made(self, adapters: AdapterSet) -> "Session":
        from edgeq.runtime.adapted import AdaptedFile
        from edgeq.runtime.session import Session

        first, added = self._session, adapters.added
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
                    announce=first.program.announce,
                )
            except MemoryLimitError:
                if not self._others:
                    raise
                self._drop()

    def _drop(self) -> None:
        """Let the one go that was used longest ago: at once, unless somebody's answer needs it to go on."""
        _, shared = self._others.popitem(last=False)
        if not shared.busy:
            shared.close()
