"""Answers in JSON: which tokens may come next, so that what is written follows a schema. llguidance knows that."""

import json
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from edgeq.errors import EdgeqError
from edgeq.talk.refused import Refused
from edgeq.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import llguidance
    import numpy as np
    import numpy.typing as npt

LARGEST = 256 << 10  # characters of a schema
LARGEST_RULES = 4 << 20  # and of the rules for all tools
KEPT = 8  # rules that are kept compiled

# White space within an answer, as models write it: one space, or a line break and what indents the next line. If it
# were free it might never end.
_SPACE = r"( |\n {0,24}|\n\t{0,6})"


def check_there(field: str) -> None:
    """Raise Refused where no grammar can be followed here."""
    if find_spec("llguidance") is None:
        hint = "llguidance is missing (pip install 'edgeq[serve]')"
        raise Refused(f"{field} is not supported: {hint}", field, "unsupported_parameter")


class Grammars:
    """Compiles schemas for the tokens of one model."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self._tokenizer = tokenizer
        self._kept: dict[str, Grammar] = {}

    def compile(self, schema: Any, field: str) -> "Grammar":
        """The grammar of a schema. Raises Refused, which names what of the schema cannot be followed."""
        from llguidance import LLMatcher

        text = json.dumps(schema)
        if len(text) > LARGEST:
            raise Refused(f"the schema has {len(text)} characters: give at most {LARGEST}", field)
        try:
            how: Any = {"whitespace_pattern": _SPACE, "lenient": False}
            grammar = LLMatcher.grammar_from_json_schema(text, overrides=how)
        except ValueError as error:
            raise Refused(f"{field}: the schema cannot be followed: {error!s:.300}", field, "invalid_schema") from None
        return self._checked(grammar, field)

    def compile_rules(self, lark: str, field: str) -> "Grammar":
        """A grammar in llguidance's dialect of Lark, which may pass keywords of schemas over; the latest are kept.
        Raises Refused as `compile` does."""
        from llguidance import LLMatcher

        if len(lark) > LARGEST_RULES:
            raise Refused(f"{field} make {len(lark)} characters of rules: give at most {LARGEST_RULES}", field)
        found = self._kept.pop(lark, None) or self._checked(LLMatcher.grammar_from_lark(lark), field, lenient=True)
        self._kept[lark] = found
        while len(self._kept) > KEPT:
            self._kept.pop(next(iter(self._kept)), None)
        return found

    def _checked(self, grammar: str, field: str, lenient: bool = False) -> "Grammar":
        from llguidance import LLMatcher

        wrong, said = LLMatcher.validate_grammar_with_warnings(grammar, self._vocabulary)
        if wrong or (said and not lenient):
            what = " ".join(" ".join(said).split())
            what = f"a pattern: {what}" if what.startswith("regex") else what
            raise Refused(f"{field}: the schema cannot be followed: {what:.300}", field, "invalid_schema")
        return Grammar(LLMatcher(self._vocabulary, grammar), self.vocab_size, tuple(said))

    @cached_property
    def _vocabulary(self) -> "llguidance.LLTokenizer":
        from llguidance import LLTokenizer, TokenizerWrapper

        wrapper = TokenizerWrapper(_Words(self._tokenizer, self.vocab_size))
        ends = sorted(self._tokenizer.eos_ids)
        return LLTokenizer(wrapper, n_vocab=self.vocab_size, eos_token=ends, slices=LLTokenizer.json_slices())


class Grammar:
    """What one schema allows; each text that follows it takes a `guide` of its own. `passed_over` tells what of the
    schemas it does not follow."""

    def __init__(self, matcher: "llguidance.LLMatcher", vocab_size: int, passed_over: tuple[str, ...] = ()) -> None:
        self._matcher, self._vocab_size, self.passed_over = matcher, vocab_size, passed_over

    def guide(self, prompt_tokens: int) -> "Guide":
        """The guide of a text behind a prompt of so many tokens."""
        return Guide(self._matcher.deep_copy(), self._vocab_size, prompt_tokens)


class Guide:
    """The sampler's `allowed` for one text."""

    def __init__(self, matcher: "llguidance.LLMatcher", vocab_size: int, prompt_tokens: int) -> None:
        self._matcher, self._bytes = matcher, -(-vocab_size // 8)
        self._prompt_tokens = prompt_tokens
        self._taken: list[int] = []

    def __call__(self, ids: Sequence[int]) -> "npt.NDArray[np.uint8]":
        """Bits of the tokens that may follow `ids`, the prompt's among them: u8 [ceil(vocab / 8)], the lowest first.

        Raises EdgeqError where the text has left the grammar, or llguidance's bounds of work.
        """
        import numpy as np

        self.take(ids[self._prompt_tokens :])
        mask = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise EdgeqError(f"the answer cannot follow its schema: {self._matcher.get_error()[:200]}")
        return np.frombuffer(mask, np.uint8)[: self._bytes]

    def take(self, tokens: Sequence[int]) -> bool:
        """Whether a text of these tokens follows the grammar, as far as it goes."""
        said = list(tokens)
        same = next((i for i, pair in enumerate(zip(said, self._taken, strict=False)) if pair[0] != pair[1]), None)
        kept = min(len(said), len(self._taken)) if same is None else same
        if kept < len(self._taken):  # tokens that were tried, and not taken
            self._matcher.rollback(len(self._taken) - kept)
        if said[kept:]:
            self._matcher.consume_tokens(said[kept:])
        self._taken = said
        return not self._matcher.is_error()

    @property
    def done(self) -> bool:
        """Whether the text is whole, and nothing can be added to it."""
        return bool(self._matcher.is_stopped())


class _Words:
    """A tokenizer as llguidance's wrapper wants it."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = min(tokenizer.eos_ids, default=0)
        self.bos_token_id = tokenizer.bos_id
        self.tokens = [tokenizer.piece_bytes(token) for token in range(vocab_size)]
        self.special_token_ids = [token for token, added in tokenizer.added.items() if added.special]

    def __call__(self, text: str) -> list[int]:
        if not isinstance(text, str):
            raise TypeError("text, not bytes")
        return self._tokenizer.encode(text, add_special=False, parse_special=False)
