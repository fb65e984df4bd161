"""Passes for many requests: which rows a pass takes, where their pages come from, and who gets what it found."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgeq.errors import EdgeqError, MemoryLimitError
from edgeq.kernels.layout import ATTENTION_BLOCK, MOST_RUNS
from edgeq.runtime.mixed_text import around
from edgeq.runtime.pace import LEAST_PIECE, Pace
from edgeq.runtime.prefixes import Known, Prefixes, common
from edgeq.runtime.program import F32, Part
from edgeq.runtime.request import Request
from edgeq.runtime.sequence import Sequence as Evaluated


class Engine(Protocol):
    """What is needed of a program."""

    @property
    def batch(self) -> int:
        """Most rows of a pass."""

    @property
    def kept_bytes(self) -> int:
        """What texts that nobody writes on may keep."""

    @property
    def free_bytes(self) -> int:
        """What pages can still take."""

    def bytes_of(self, positions: int) -> int:
        """What the pages of so many positions take, at most."""

    def sequence(self) -> Evaluated:
        """A new one."""

    def step(self, parts: list[Part]) -> list[F32]:
        """A pass."""

    def not_finite(self, sequence: Evaluated) -> str:
        """Why its results may be no finite numbers."""


class Batch:
    """Computes requests, pass by pass. Not for two threads at a time.

    spill: gives up pages that are held elsewhere; whether there were some
    """

    def __init__(self, engine: Engine, spill: Callable[[], bool] = lambda: False) -> None:
        self._engine, self._spill = engine, spill
        self.prefixes = Prefixes(engine.kept_bytes)
        self.pace = Pace()

    def step(self, wanted: Sequence[Request], idle: Sequence[Request] = ()) -> None:
        """One pass for as many of `wanted`, the oldest first, as it has room for: those that only lack their next token
        take a row each, prompts the rest. `idle` may lose their pages, youngest first, before any of these does.

        Raises what a pass raises; what concerns one request alone ends that one.
        """
        parts = {request: self._part(request, count) for request, count in self._rows(wanted).items()}
        lone, began = len(wanted) == 1, time.perf_counter()
        if lone:
            parts = {request: self._with_guesses(request, part) for request, part in parts.items()}
        guessing = time.perf_counter() - began
        while parts:
            clock = time.perf_counter()
            try:
                results = self._engine.step(list(parts.values()))
            except MemoryLimitError as error:
                self._make_room([*idle, *wanted], parts, error)
                continue
            self._hand_out(parts, results, time.perf_counter() - clock, lone, guessing)
            return

    def let_go(self, request: Request) -> None:
        """A request that will not go on: its text is kept for others."""
        sequence, request.sequence = request.sequence, None
        if sequence is not None:
            self.prefixes.keep(request.tokens, sequence)

    def new(self) -> Evaluated:
        """A sequence without tokens."""
        return self._engine.sequence()

    def clear(self) -> None:
        """Give up all that is kept for others."""
        self.prefixes.clear()

    def _rows(self, wanted: Sequence[Request]) -> dict[Request, int]:
        """How many rows each gets. A prompt that has not begun gets a few at once, the oldest at least half of all."""
        if len(wanted) == 1 and wanted[0].begun and wanted[0].sequence is not None and wanted[0].behind <= 1:
            return {wanted[0]: 1}  # as all of the below says
        most = min(self._engine.batch, MOST_RUNS)
        decoding = [request for request in wanted if request.begun and request.sequence and request.behind <= 1]
        waiting = [request for request in wanted if request not in decoding]
        least = max([LEAST_PIECE, *(request.whole for request in waiting)])
        decoding = decoding[: most - least if waiting and most > least else most]
        rows = dict.fromkeys(decoding, 1)
        pace = self.pace.alone if len(wanted) == 1 else self.pace.beside_others
        room = min(most - len(rows), pace)
        half = room // 2
        going, full = list[Request](), False
        for request in waiting[:room]:
            if request.sequence is None:
                if full or self._known_soon(request, [*decoding, *going]):
                    continue
                full = not self._admit(request, [*decoding, *going])
            if request.sequence is not None:
                going.append(request)
        for request in going[1:]:
            if not request.begun and room > half:
                rows[request] = min(LEAST_PIECE, request.behind, room - half)
                room -= rows[request]
        for request in going:
            more = min(room, request.behind - rows.get(request, 0))
            if more > 0:
                rows[request] = rows.get(request, 0) + more
                room -= more
        return self._whole(rows, going, most) if any(request.whole for request in going) else rows

    def _whole(self, rows: dict[Request, int], going: Sequence[Request], most: int) -> dict[Request, int]:
        """`rows`, at most so many, such that those that are `going` split no image: the oldest has room for one."""
        found = {request: count for request, count in rows.items() if request not in going}
        left = most - len(found)
        for request in going:
            count = request.piece(rows.get(request, 0))
            if 0 < count <= left:
                found[request], left = count, left - count
        return found

    def _known_soon(self, request: Request, going: Sequence[Request]) -> bool:
        """Whether one of those that are `going` computes what a request has in common with it."""
        for other in going:
            shared = common(other.tokens, request.tokens, len(request.tokens) - 1)
            if shared >= LEAST_PIECE and shared > other.position and other.behind > 1:
                return True
        return False

    def _admit(self, request: Request, going: Sequence[Request]) -> bool:
        """Give a request a sequence, with what of its text is known. Not if those that are `going` leave no room."""
        tokens, found = request.tokens, None
        if not request.started_over:
            others = [Known(other.tokens, other.sequence) for other in going if other.sequence is not None]
            found = self.prefixes.take(tokens, len(tokens) - 1, others)  # the last is computed for its logits
        known = 0 if found is None else found.position
        need = self._engine.bytes_of(len(tokens) + 1) - self._engine.bytes_of(max(0, known - ATTENTION_BLOCK))
        while going and self._engine.free_bytes < need:
            if not self._give_up():
                if found is not None:
                    self.prefixes.keep(tokens[:known], found)
                return False
        request.sequence = found or self._engine.sequence()
        if len(tokens) == request.prompt:
            request.cached, request.computed = known, 0
        return True

    def _part(self, request: Request, count: int) -> Part:
        """The next `count` rows of a request; of the last token logits are wanted."""
        sequence = request.sequence
        assert sequence is not None
        if request.behind < 1:  # an interrupt came between the pass and the draw
            count = len(request.tokens) - sequence.trim(around(request.tokens, len(request.tokens) - 1)[0])
        start = sequence.position
        end = start + min(count, self._engine.batch)
        last = end == len(request.tokens)
        items, wanted = np.array(request.tokens[start:end], np.int64), [end - start - 1] if last else []
        return Part(sequence, items, wanted, given=request.given)

    def _with_guesses(self, request: Request, part: Part) -> Part:
        """A part that is one token, with those that are guessed to come after it: results of all are wanted. Not where
        a wrong guess could not be taken back."""
        if request.guesser is None or request.behind != 1 or not request.begun or not part.wanted:
            return part
        if not part.sequence.rewinds:
            return part
        guesses = request.guesser.draft(request.seen, min(request.room, self._engine.batch - 1))
        return part._replace(items=np.append(part.items, guesses).astype(np.int64), wanted=range(1 + len(guesses)))

    def _hand_out(
        self, parts: dict[Request, Part], results: list[F32], seconds: float, alone: bool, guessing: float
    ) -> None:
        """Tell each request what its part of a pass found, for which `guessing` seconds went before."""
        rows = prompts = 0
        for (request, part), result in zip(parts.items(), results, strict=True):
            count = len(part.items)
            guesses = part.items[count - len(part.wanted) + 1 :] if part.wanted else part.items[:0]
            rows, prompts = rows + count, prompts + count * (count > 1 and not len(guesses))
            request.begun = True
            if len(request.tokens) == request.prompt:
                request.computed += count
                request.prompt_s += seconds
            if part.wanted:
                self._draw_all(request, result, guesses, seconds + guessing)
            if alone and request.guesser is not None and len(part.wanted) == count:
                request.guesser.took(count, seconds)
        if prompts >= (self.pace.alone if alone else self.pace.beside_others):
            self.pace.note(rows, seconds)

    def _draw_all(self, request: Request, rows: F32, guesses: npt.NDArray[np.int64], seconds: float) -> None:
        """Draw the next token, and further ones from the rows behind guesses as long as these are what is drawn."""
        request.drafted += len(guesses)
        self._draw(request, rows[0], seconds)
        for guess, logits in zip(guesses, rows[1:], strict=True):
            if not request.open or request.tokens[-1] != guess:
                break
            request.accepted += 1
            self._draw(request, logits, 0.0)
        sequence, known = request.sequence, len(request.tokens) - 1
        if sequence is not None and sequence.position > known and sequence.trim(known) < known:
            assert request.guesser is not None
            request.guesser.stop()

    def _draw(self, request: Request, logits: F32, seconds: float) -> None:
        assert request.sequence is not None
        if np.isfinite(logits).all():
            request.draw(logits, seconds)
        else:
            request.fail(EdgeqError(self._engine.not_finite(request.sequence)))
            request.sequence = None

    def _give_up(self) -> bool:
        """Free pages that no request has; whether there were some."""
        return self.prefixes.forget() or self._spill()

    def _make_room(self, holders: Sequence[Request], parts: dict[Request, Part], error: MemoryLimitError) -> None:
        """Pages ran out: those of kept texts go first, then those of the youngest request, which is computed again
        later, to the same bits."""
        if self._give_up():
            return
        for request, part in parts.items():
            if len(part.wanted) > 1:
                parts[request] = part._replace(items=part.items[:1], wanted=range(1))
                return
        holding = [request for request in holders if request.sequence is not None]
        loser = max([one for one in holding if one not in parts] or parts, key=lambda one: one.number)
        if len(holding) == 1:
            if loser.started_over:
                loser.fail(error)
            loser.started_over = True  # shared pages are copied before they are written to: it needs none again
        loser.sequence = None
        parts.pop(loser, None)
