"""What a model may write to call tools, as a grammar for llguidance."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from edgeq.talk.call_formats import ID, NUMBER, CallFormat
from edgeq.talk.rules import Rules

_SLOTS = {ID: "/[a-zA-Z0-9]{9}/", NUMBER: "/[0-9]{1,3}/"}
_SPACE = r"/[ \n]{0,4}/"


def call_grammar(
    form: CallFormat,
    tools: Sequence[tuple[str, Mapping[str, Any]]],
    control: Mapping[str, int],
    *,
    trigger: str | None = None,
    parallel: bool = True,
    lenient: bool = True,
    instead: Any = None,
    begun: bool = False,
    answers: bool = True,
) -> str:
    """The grammar of calls of `tools`, (name, schema of the arguments).

    trigger    of one section, within a text: whatever stands before this is passed over. Without one, of all of an
               answer that is nothing but calls
    parallel   whether there may be several
    lenient    whether keywords of a schema that cannot be followed are passed over
    instead    a schema; an answer that follows it may come in place of calls
    begun      whether the trigger has been written
    answers    whether the word that begins an answer may come in a name's place
    control    ids of control tokens by name
    """
    rules = Rules(control, lenient)
    parallel = parallel and not form.bare
    first = rules.named("first", lambda: _call(form, rules, tools, form.opened))
    inner = first
    if form.several and parallel:
        inner += f" ({rules.named('further', lambda: _call(form, rules, tools, form.separator))})*"
    body = rules.named("body", lambda: f"{inner} {rules.literal(form.closed)}")
    if trigger is not None:
        return rules.lark(f"{rules.text_until(trigger)} {body}")
    section = rules.named("section", lambda: f"{rules.literal(form.trigger)} {body}")
    more = f"({rules.literal(form.separator)} {section})*" if parallel and not form.several else ""
    if begun:
        answer = f"{rules.literal(form.answer + form.between)} /(.|\\n)*/ | " if answers and form.answer else ""
        return rules.lark(f"{answer}{body} {more}")
    lead = f"({rules.literal(form.lead)})? " if form.lead else ""
    start = f"{lead}{_SPACE} {section} {more}"
    return rules.lark(start if instead is None else f"{start} | {rules.json(instead)}")


def _call(form: CallFormat, rules: Rules, tools: Sequence[tuple[str, Mapping[str, Any]]], lead: str) -> str:
    """A call of any of the tools, behind a text."""
    after = _around(rules, form.after)
    calls = []
    for i, (name, schema) in enumerate(tools):
        arguments = rules.named(f"tool_{i}", lambda s=schema: form.arguments.rules(rules, {"type": "object", **s}))  # type: ignore[misc]
        for between in (form.between, *form.instead):
            calls.append(f"{_around(rules, lead + form.before + name + between)} {arguments} {after}")
    return " | ".join(calls)


def _around(rules: Rules, text: str) -> str:
    """A text of a row; what is not fixed in it is what it may be."""
    pieces = re.split(f"([{ID}{NUMBER}])", text)
    return " ".join(_SLOTS.get(piece) or rules.literal(piece) for piece in pieces if piece) or '""'
