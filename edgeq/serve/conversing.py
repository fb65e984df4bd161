"""What all APIs ask of a chat: its prompt, how the answer is told apart, and what it must follow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypedDict

from edgeq.serve.engine import Engine
from edgeq.serve.failures import Failure, invalid
from edgeq.serve.grammar import Grammar, check_there
from edgeq.serve.guides import Plan
from edgeq.serve.tool_choice import NO_TOOLS, Toolbox
from edgeq.talk.call_rules import call_grammar


@dataclass(frozen=True)
class Conversation:
    """A chat that is to be answered.

    messages   in OpenAI's form, checked by `asked.messages`
    tools      those that may be called
    variables  of the chat template
    thinks     whether the model shall think first; None leaves that to it
    budget     how many tokens it may think for
    schema     what the answer must follow, as `field` asks; None for plain text
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Toolbox = NO_TOOLS
    variables: Mapping[str, Any] = field(default_factory=dict)
    thinks: bool | None = None
    budget: int | None = None
    schema: Any = None
    field: str = "response_format"

    @property
    def goes_on(self) -> bool:
        """Whether it ends with an answer that has begun."""
        last = self.messages[-1] if self.messages else {}
        return last.get("role") == "assistant" and not last.get("tool_calls")


class Asked(TypedDict):
    """What of a `Wanted` follows from a conversation."""

    tokens: list[int]
    grammar: Grammar | Plan | None
    continues: bool
    parser: Any
    shown: frozenset[int]


def prompt_of(engine: Engine, talk: Conversation) -> str:
    """The prompt. Raises TemplateError as `Engine.render` does."""
    variables = dict(talk.variables)
    if talk.thinks is not None:
        variables = {"enable_thinking": talk.thinks, "thinking": talk.thinks, **variables}
    prompt = engine.render(talk.messages, variables, talk.tools.tools or None)
    thinking = engine.dialect.thinking
    if talk.thinks is False and engine.dialect.thinks and thinking.opened_by(prompt):
        prompt += thinking.end  # the template knows no other way
    return prompt


def asked_of(engine: Engine, talk: Conversation) -> Asked:
    """What is wanted. Raises Failure for what the tools' schemas or the answer's cannot be followed in, TemplateError
    where the chat template refuses the conversation."""
    dialect = engine.dialect
    if talk.goes_on and (talk.schema is not None or talk.tools.required):
        what = talk.field if talk.schema is not None else "tool_choice"
        raise invalid(f"{what} needs an answer of its own: end messages with a user's", what)
    prompt = prompt_of(engine, talk)
    marked = dialect.thinks or bool(talk.tools)
    parser = partial(dialect.parser, prompt, bool(talk.tools), talk.tools.schemas) if marked else None
    return {
        "tokens": engine.encode(prompt, add_special=False),
        "grammar": _plan(engine, talk, prompt),
        "continues": talk.goes_on,
        "parser": parser,
        "shown": _shown(engine) if marked else frozenset(),
    }


def _plan(engine: Engine, talk: Conversation, prompt: str) -> Grammar | Plan | None:
    if not talk.tools and talk.schema is None and talk.budget is None:
        return None
    dialect, tokenizer, thinking = engine.dialect, engine.model.tokenizer, engine.dialect.thinking
    answer = None if talk.schema is None else engine.grammars.compile(talk.schema, talk.field)
    if not talk.tools and not dialect.thinks:
        return answer
    whole, calls, alone = _call_grammars(engine, talk, prompt)
    tokens = partial(engine.encode, add_special=False)
    return Plan(
        tokenizer.piece_bytes,
        engine.model.vocab_size,
        tokenizer.eos_ids,
        first=dialect.thinks and thinking.opened_by(prompt),
        opens=thinking.opened.encode(),
        closes=thinking.closed.encode(),
        opening=tuple(tokens(thinking.opened)) if dialect.thinks and talk.thinks is not False else (),
        closing=tuple(tokens(thinking.end)) if dialect.thinks else (),
        budget=talk.budget if dialect.thinks else None,
        whole=whole or (None if talk.tools else answer),
        calls=calls,
        bare=dialect.calls.bare_start.encode() if alone is not None else b"",
        alone=alone,
        single=not talk.tools.parallel or dialect.calls.bare,
    )


def _call_grammars(
    engine: Engine, talk: Conversation, prompt: str
) -> tuple[Grammar | None, tuple[tuple[bytes, Grammar], ...], Grammar | None]:
    """What all of the answer must follow; or what a call must follow behind each text that begins one, and where it is
    all of the answer."""
    if not talk.tools:
        return None, (), None
    check_there("tools")
    dialect, tools = engine.dialect, talk.tools
    for name in tools.strict:
        engine.grammars.compile(tools.schemas[name], "tools")  # which names what cannot be followed
        if (keyword := dialect.calls.arguments.unfollowed(tools.schemas[name])) is not None:
            raise invalid(f"tools: {name}: {keyword} cannot be followed in the form in which this model calls", "tools")
    begun = dialect.opens_call(prompt)
    control = {token.content: i for i, token in engine.model.tokenizer.added.items() if token.special}
    rules = partial(call_grammar, dialect.calls, control=control, lenient=not tools.strict)

    def compiled(**how: Any) -> Grammar:
        try:
            return engine.grammars.compile_rules(rules(list(tools.schemas.items()), **how), "tools")
        except Failure:
            for one in tools.schemas.items():  # one of them is to blame
                engine.grammars.compile_rules(rules([one]), f"tools: {one[0]}")
            raise

    if tools.required or talk.schema is not None or begun:
        instead = None if tools.required else talk.schema
        how = {"instead": instead, "begun": begun, "answers": not tools.required}
        return compiled(parallel=tools.parallel, **how), (), None
    marks = dialect.calls.triggers
    calls = tuple((mark.encode(), compiled(parallel=tools.parallel, trigger=mark)) for mark in marks)
    return None, calls, compiled(parallel=False) if dialect.calls.bare else None


def _shown(engine: Engine) -> frozenset[int]:
    """Control tokens that a parser of this model's answers must see."""
    marks = engine.dialect.control_tokens()
    added = engine.model.tokenizer.added.items()
    return frozenset(i for i, token in added if token.special and any(token.content in mark for mark in marks))
