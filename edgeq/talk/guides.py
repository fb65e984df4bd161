"""What may come next in an answer of several parts: thoughts, which may have to end, and an answer or calls of tools,
which may have to follow a grammar, from their beginning or from where a call has been begun."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from edgeq.talk.grammar import Grammar, Guide

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class Plan:
    """How one answer may go.

    piece      the bytes of a token
    vocab_size how many tokens there are
    ends       tokens that end a text
    first      whether the answer begins with thoughts
    opens      the mark before thoughts; empty where there are none
    closes     the mark after them
    opening    `opens` as tokens
    closing    `closes`, and what comes behind, as tokens
    budget     how many tokens thoughts may have
    whole      what all of the answer must follow
    calls      texts that begin calls, and what these must follow from there
    bare       what begins a call where it begins the answer, which then must follow `alone`
    single     whether the text ends after one section of calls
    """

    piece: Callable[[int], bytes]
    vocab_size: int
    ends: frozenset[int]
    first: bool = False
    opens: bytes = b""
    closes: bytes = b""
    opening: tuple[int, ...] = ()
    closing: tuple[int, ...] = ()
    budget: int | None = None
    whole: Grammar | None = None
    calls: tuple[tuple[bytes, Grammar], ...] = ()
    bare: bytes = b""
    alone: Grammar | None = None
    single: bool = False

    def guide(self, prompt_tokens: int) -> "PlanGuide":
        """The guide of a text behind a prompt of so many tokens."""
        return PlanGuide(self, prompt_tokens)

    @property
    def passed_over(self) -> tuple[str, ...]:
        """What of the tools' schemas is not followed."""
        grammars = (self.whole, self.alone, *(grammar for _, grammar in self.calls))
        return tuple(dict.fromkeys(one for grammar in grammars if grammar is not None for one in grammar.passed_over))


_WHOLE, _ALONE = -1, -2


class _State(NamedTuple):
    """Where a text is.

    part   "begin" of an answer that must follow a grammar, "open" and "close" within marks of thoughts that are
           written out, "think", "answer", "call" within a grammar, "over"
    tail   the latest bytes, in which a mark may have begun
    passed tokens of this part
    began  the token with which the text of the grammar, or an answer that may be a call, begins
    which  the grammar, by its number among `calls`; `_WHOLE` or `_ALONE`
    """

    part: str
    tail: bytes = b""
    passed: int = 0
    began: int = 0
    which: int = _WHOLE


class PlanGuide:
    """The sampler's `allowed` for one text. Tokens that were tried, and not taken, leave no trace."""

    def __init__(self, plan: Plan, prompt_tokens: int) -> None:
        self._plan, self._prompt_tokens = plan, prompt_tokens
        self._said: list[int] = []
        self._states = [self._thinking() if plan.first else self._answering(0)]
        self._guides: dict[tuple[int, int], Guide] = {}  # by where their text begins, and which grammar it follows
        self._longest = max(len(plan.opens), *(len(mark) for mark, _ in plan.calls), 1)

    def __call__(self, ids: Sequence[int]) -> "npt.NDArray[np.uint8] | None":
        """Bits of the tokens that may follow `ids`, the prompt's among them; None where any may."""
        said = list(ids[self._prompt_tokens :])
        kept = len(self._said)
        if said[:kept] != self._said:
            kept = next(i for i, pair in enumerate(zip([*said, -1], self._said, strict=False)) if pair[0] != pair[1])
        del self._states[kept + 1 :]
        self._said = said
        for i in range(kept, len(said)):
            self._states.append(self._after(self._states[i], i))
        return self._mask(self._states[-1])

    def _after(self, state: _State, i: int) -> _State:
        """The state behind token `i`."""
        plan, token = self._plan, self._said[i]
        if state.part == "over":
            return state
        if state.part == "close":
            done = state.passed + 1 == len(plan.closing)
            return self._answering(i + 1) if done else _one_on(state)
        if state.part == "open":
            return self._thinking() if state.passed + 1 == len(plan.opening) else _one_on(state)
        if state.part == "think":
            return self._think(state, i)
        if state.part == "begin":
            if plan.opening and token == plan.opening[0] and not self._may_begin(i, token):
                return self._thinking() if len(plan.opening) == 1 else _State("open", passed=1)
            return self._follow(_State("call", began=i), i)
        if state.part == "call":
            return self._follow(state, i)
        return self._answer(state, i)

    def _think(self, state: _State, i: int) -> _State:
        plan = self._plan
        tail = state.tail + plan.piece(self._said[i])
        if plan.closes in tail:
            return self._answering(i + 1)
        passed = state.passed + 1
        if plan.budget is not None and passed >= plan.budget:
            return _State("close")
        return _State("think", tail[-len(plan.closes) :], passed)

    def _answer(self, state: _State, i: int) -> _State:
        """Behind a token of an answer that may go as it likes, until it begins a call, or thoughts."""
        plan = self._plan
        tail = state.tail + plan.piece(self._said[i])
        if plan.opens and plan.opens in tail:
            return self._thinking()
        may = self._may_be_call(state, tail)
        if may and tail.lstrip().startswith(plan.bare):
            return self._follow(_State("call", began=state.began, which=_ALONE), i)
        found = [(at, which) for which, (mark, _) in enumerate(plan.calls) if (at := tail.find(mark)) >= 0]
        if not found:
            return state._replace(tail=tail) if may else _State("answer", tail[-self._longest :], 1)
        at, which = min(found)
        began, left = i, len(tail) - at - len(plan.piece(self._said[i]))
        while left > 0 and began > 0:
            began -= 1
            left -= len(plan.piece(self._said[began]))
        return self._follow(_State("call", began=began, which=which), i)

    def _may_be_call(self, state: _State, tail: bytes) -> bool:
        """Whether an answer that begins so may be, or become, a call that nothing comes before."""
        said, bare = tail.lstrip(), self._plan.bare
        return bool(bare) and not state.passed and (said.startswith(bare) or bare.startswith(said))

    def _follow(self, state: _State, i: int) -> _State:
        """Behind a token of a text that follows a grammar."""
        guide = self._guide(state)
        if not guide.take(self._said[state.began : i + 1]):
            del self._guides[state.began, state.which]
            return _State("answer", passed=1)  # the token that ended the trigger went on otherwise: no call
        if guide.done:
            return _State("over" if state.which == _WHOLE or self._plan.single else "answer", passed=1)
        return state

    def _thinking(self) -> _State:
        return _State("close" if self._plan.budget == 0 else "think")

    def _answering(self, index: int) -> _State:
        return _State("answer" if self._plan.whole is None else "begin", began=index)

    def _guide(self, state: _State) -> Guide:
        plan, key = self._plan, (state.began, state.which)
        if key not in self._guides:
            special = plan.whole if state.which == _WHOLE else plan.alone
            grammar = plan.calls[state.which][1] if state.which >= 0 else special
            assert grammar is not None
            self._guides = {key: grammar.guide(0)}
        return self._guides[key]

    def _may_begin(self, index: int, token: int) -> bool:
        """Whether a text that follows the grammar from token `index` on may begin with this one."""
        mask = self._guide(_State("begin", began=index))([])
        return bool(mask[token >> 3] >> (token & 7) & 1)

    def _mask(self, state: _State) -> "npt.NDArray[np.uint8] | None":
        plan = self._plan
        if state.part in ("think", "answer"):
            return None
        if state.part == "over":
            return self._bits(plan.ends)
        if state.part in ("open", "close"):
            return self._bits([(plan.opening if state.part == "open" else plan.closing)[state.passed]])
        mask = self._guide(state)(self._said[state.began :])
        return mask | self._bits(plan.opening[:1]) if state.part == "begin" else mask

    def _bits(self, tokens: Sequence[int] | frozenset[int]) -> "npt.NDArray[np.uint8]":
        import numpy as np

        bits = np.zeros(-(-self._plan.vocab_size // 8), np.uint8)
        for token in tokens:
            bits[token >> 3] |= 1 << (token & 7)
        return bits


def _one_on(state: _State) -> _State:
    """One token on."""
    return state._replace(passed=state.passed + 1)
