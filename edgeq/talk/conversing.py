"""What all who ask for an answer to a conversation need: its prompt, how the answer is told apart, and what it must
follow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from secrets import token_hex
from typing import Any, Protocol, TypedDict

from edgeq.errors import TemplateError
from edgeq.talk import literal
from edgeq.talk.call_rules import call_grammar
from edgeq.talk.dialect import Dialect
from edgeq.talk.grammar import Grammar, Grammars, check_there
from edgeq.talk.guides import Plan
from edgeq.talk.parser import Parser
from edgeq.talk.refused import Refused
from edgeq.talk.toolbox import NO_TOOLS, Toolbox
from edgeq.text.chat import ChatTemplate
from edgeq.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Conversation:
    """A chat that is to be answered.

    messages   in OpenAI's form
    tools      those that may be called
    variables  of the chat template
    thinks     whether the model shall think first; None leaves that to it
    budget     how many tokens it may think for
    schema     what the answer must follow, as `field` asks; None for plain text
    goes_on    whether an answer at its end is gone on with; else another one follows
    images     those that the messages have an ImagePart for
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Toolbox = NO_TOOLS
    variables: Mapping[str, Any] = field(default_factory=dict)
    thinks: bool | None = None
    budget: int | None = None
    schema: Any = None
    field: str = "response_format"
    goes_on: bool = True
    images: "Pictures | None" = None


class Pictures(Protocol):
    """Images of a conversation."""

    def expanded(self, prompt: str) -> str:
        """A prompt with all that stands for its images."""


class Asked(TypedDict):
    """What of a text to be generated follows from a conversation.

    tokens     the prompt
    grammar    what the text must follow
    continues  whether it goes on from an answer that has begun
    parser     makes what tells its parts apart; None where there is nothing to be told apart
    shown      control tokens that the parser must see
    images     those that stand in the prompt
    """

    tokens: list[int]
    grammar: Grammar | Plan | None
    continues: bool
    parser: Callable[[], Parser] | None
    shown: frozenset[int]
    images: Pictures | None


def begun(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a conversation ends with an answer that has begun."""
    last = messages[-1] if messages else {}
    return last.get("role") == "assistant" and not last.get("tool_calls")


class Speaker:
    """Has one model answer conversations, in its own dialect."""

    def __init__(
        self, template: ChatTemplate, tokenizer: Tokenizer, grammars: Grammars, reserved: Sequence[str] = ()
    ) -> None:
        """`reserved` are names of tokens that only the template writes: said in a conversation they are text."""
        self.dialect = Dialect(template)
        self._tokenizer, self._grammars, self._reserved = tokenizer, grammars, reserved

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        variables: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        goes_on: bool = True,
    ) -> str:
        """The prompt of a conversation. An answer at its end is left open where the model `goes_on` with it.

        Raises TemplateError where the template refuses the conversation or to leave an answer open.
        """
        more = {"tools": tools, **(variables or {})}
        last = messages[-1] if messages else {}
        if not goes_on or not begun(messages) or not isinstance(last.get("content"), str):
            return self.dialect.render(messages, **more)
        mark = token_hex(8)  # after which comes what ends an answer
        talk = [*messages[:-1], {**last, "content": last["content"] + mark}]
        prompt, found, _ = self.dialect.render(talk, False, **more).partition(mark)
        if not found:
            raise TemplateError("the chat template leaves no answer open: end the conversation with a user's message")
        return prompt

    def _prompt(self, talk: Conversation) -> tuple[str, list[int]]:
        """The prompt, and its tokens. Raises TemplateError as `render` does."""
        variables, mark = dict(talk.variables), token_hex(8)  # which no token holds: the prompt is encoded around it
        if talk.thinks is not None:
            variables = {"enable_thinking": talk.thinks, "thinking": talk.thinks, **variables}
        messages, tools = (literal.marked(one, self._reserved, mark) for one in (talk.messages, talk.tools.tools))
        prompt = self.render(messages, variables, tools or None, talk.goes_on)
        thinking = self.dialect.thinking
        if talk.thinks is False and self.dialect.thinks and thinking.opened_by(prompt):
            prompt += thinking.end  # the template knows no other way
        pieces = (prompt if talk.images is None else talk.images.expanded(prompt)).split(mark)
        return "".join(pieces), [token for piece in pieces for token in self._encode(piece)]

    def tokens(self, talk: Conversation) -> list[int]:
        """The prompt as tokens. Raises TemplateError as `render` does."""
        return self._prompt(talk)[1]

    def asked(self, talk: Conversation) -> Asked:
        """What is asked for. Raises Refused for what the tools' schemas or the answer's cannot be followed in,
        TemplateError where the chat template refuses the conversation."""
        dialect, continues = self.dialect, talk.goes_on and begun(talk.messages)
        if continues and (talk.schema is not None or talk.tools.required):
            what = talk.field if talk.schema is not None else "tool_choice"
            raise Refused(f"{what} needs an answer of its own: end messages with a user's", what)
        prompt, tokens = self._prompt(talk)
        marked = dialect.thinks or bool(talk.tools)
        parser = partial(dialect.parser, prompt, bool(talk.tools), talk.tools.schemas) if marked else None
        return {
            "tokens": tokens,
            "grammar": self._plan(talk, prompt),
            "continues": continues,
            "parser": parser,
            "shown": self._shown if marked else frozenset(),
            "images": talk.images,
        }

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special=False)

    def _plan(self, talk: Conversation, prompt: str) -> Grammar | Plan | None:
        if not talk.tools and talk.schema is None and talk.budget is None:
            return None
        dialect, tokenizer, thinking = self.dialect, self._tokenizer, self.dialect.thinking
        answer = None if talk.schema is None else self._grammars.compile(talk.schema, talk.field)
        if not talk.tools and not dialect.thinks:
            return answer
        whole, calls, alone = self._call_grammars(talk, prompt)
        return Plan(
            tokenizer.piece_bytes,
            self._grammars.vocab_size,
            tokenizer.eos_ids,
            first=dialect.thinks and thinking.opened_by(prompt),
            opens=thinking.opened.encode(),
            closes=thinking.closed.encode(),
            opening=tuple(self._encode(thinking.opened)) if dialect.thinks and talk.thinks is not False else (),
            closing=tuple(self._encode(thinking.end)) if dialect.thinks else (),
            budget=talk.budget if dialect.thinks else None,
            whole=whole or (None if talk.tools else answer),
            calls=calls,
            bare=dialect.calls.bare_start.encode() if alone is not None else b"",
            alone=alone,
            single=not talk.tools.parallel or dialect.calls.bare,
        )

    def _call_grammars(
        self, talk: Conversation, prompt: str
    ) -> tuple[Grammar | None, tuple[tuple[bytes, Grammar], ...], Grammar | None]:
        """What all of the answer must follow; or what a call must follow behind each text that begins one, and where it
        is all of the answer."""
        if not talk.tools:
            return None, (), None
        check_there("tools")
        dialect, tools = self.dialect, talk.tools
        for name in tools.strict:
            self._grammars.compile(tools.schemas[name], "tools")  # which names what cannot be followed
            if (keyword := dialect.calls.arguments.unfollowed(tools.schemas[name])) is not None:
                what = "cannot be followed in the form in which this model calls"
                raise Refused(f"tools: {name}: {keyword} {what}", "tools")
        begun = dialect.opens_call(prompt)
        control = {token.content: i for i, token in self._tokenizer.added.items() if token.special}
        rules = partial(call_grammar, dialect.calls, control=control, lenient=not tools.strict)

        def compiled(**how: Any) -> Grammar:
            try:
                return self._grammars.compile_rules(rules(list(tools.schemas.items()), **how), "tools")
            except Refused:
                for one in tools.schemas.items():  # one of them is to blame
                    self._grammars.compile_rules(rules([one]), f"tools: {one[0]}")
                raise

        if tools.required or talk.schema is not None or begun:
            instead = None if tools.required else talk.schema
            how = {"instead": instead, "begun": begun, "answers": not tools.required}
            return compiled(parallel=tools.parallel, **how), (), None
        marks = dialect.calls.triggers
        calls = tuple((mark.encode(), compiled(parallel=tools.parallel, trigger=mark)) for mark in marks)
        return None, calls, compiled(parallel=False) if dialect.calls.bare else None

    @cached_property
    def _shown(self) -> frozenset[int]:
        """Control tokens that a parser of this model's answers must see."""
        marks = self.dialect.control_tokens()
        added = self._tokenizer.added.items()
        return frozenset(i for i, token in added if token.special and any(token.content in mark for mark in marks))
