"""How models write calls of tools. A row of the table is a format; a model's template tells which.

A call is `before` name `between` arguments `after`; calls lie in sections, `trigger` `opened` calls `closed`. Within
the texts of a row ID stands for what a model calls a call, NUMBER for which it is. White space around these texts
is of no account when they are read.
"""

from dataclasses import dataclass, replace

from edgeq.talk.codings import JSON, Coding, Gemma, Python, Tagged

ID, NUMBER, NAME = "\ue000", "\ue001", "\ue002"  # which no text of a row holds


@dataclass(frozen=True)
class CallFormat:
    """A format.

    known_by   what templates of such models hold, all of these
    trigger    what a section begins with: nothing else may follow it
    also       other texts that begin one
    several    whether a section holds several calls, with `separator` between them; else each has a section, with
               `separator` between these
    objects    whether a call is a JSON object, whose members come in any order when they are read
    by_name    whether the object's one member is called as the tool is
    bare       whether an answer that begins with an object is a call
    instead    what models write as well in place of `between`
    lead       what may come between thoughts and the first call
    answer     what stands in a name's place before an answer
    until      what of `between` ends what a model says of a call, where it says more than the name
    keeps_id   whether a later prompt needs the id that the model gave a call
    arguments  how these are written
    """

    name: str
    known_by: tuple[str, ...]
    trigger: str
    before: str
    between: str
    after: str = ""
    opened: str = ""
    closed: str = ""
    separator: str = ""
    also: tuple[str, ...] = ()
    several: bool = False
    objects: bool = False
    by_name: bool = False
    bare: bool = False
    until: str = ""
    instead: tuple[str, ...] = ()
    lead: str = ""
    answer: str = ""
    keeps_id: bool = False
    arguments: Coding = JSON

    @property
    def triggers(self) -> tuple[str, ...]:
        return tuple(mark for mark in (self.trigger, *self.also) if mark)

    @property
    def bare_start(self) -> str:
        """What an answer begins with that is a call by itself; "" where none is."""
        return self.before.partition(":")[0] if self.bare else ""


def _objects(name: str, known_by: tuple[str, ...], trigger: str, closed: str = "", opened: str = "[") -> CallFormat:
    """A list of objects {"name": ..., "arguments": ...}."""
    return CallFormat(
        name, known_by, trigger, '{"name": "', '", "arguments": ', "}", opened, f"]{closed}", ", ",
        several=True, objects=True,
    )  # fmt: skip


_PARAMETERS = Tagged("<parameter=", ">\n", "\n</parameter>\n")
GENERIC = CallFormat(
    "hermes", ("<tool_call>",), "<tool_call>", '{"name": "', '", "arguments": ', "}", "\n", "\n</tool_call>", "\n",
    objects=True,
)  # fmt: skip
_LFM2 = CallFormat(
    "lfm2", ("<|tool_call_start|>",), "<|tool_call_start|>", "", "", "", "[", "]<|tool_call_end|>", ", ",
    several=True, arguments=Python(),
)  # fmt: skip

TABLE = (
    CallFormat(
        "harmony", ("<|channel|>", "to="), "to=functions.", "", "<|channel|>commentary json<|message|>",
        until="<|message|>", instead=(" <|constrain|>json<|message|>",), lead="<|start|>assistant",
        also=("<|channel|>commentary to=functions.", "<|channel|>analysis to=functions."),
    ),
    CallFormat(
        "solar", ("<|tool_call:begin|>",), "<|tool_calls|>", f"<|tool_call:begin|>{ID}<|tool_call:name|>",
        "<|tool_call:args|>", "<|tool_call:end|>", several=True, lead="<|begin|>assistant",
    ),
    CallFormat(
        "kimi", ("<|tool_call_argument_begin|>",), "<|tool_calls_section_begin|>",
        "<|tool_call_begin|>functions.", f":{NUMBER}<|tool_call_argument_begin|>", "<|tool_call_end|>",
        closed="<|tool_calls_section_end|>", several=True, keeps_id=True,
    ),
    CallFormat(
        "deepseek dsml", ("DSML", "function_calls"), "<｜DSML｜function_calls>", '<｜DSML｜invoke name="', '">\n',
        "\n</｜DSML｜invoke>", "\n", "\n</｜DSML｜function_calls>", "\n", several=True,
        arguments=Tagged(
            '<｜DSML｜parameter name="', '" string="TYPED">', "</｜DSML｜parameter>", "\n", typed=True
        ),
    ),
    CallFormat(
        "deepseek r1", ("<｜tool▁call▁begin｜>", "```json"), "<｜tool▁calls▁begin｜>",
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>", "\n```json\n", "\n```<｜tool▁call▁end｜>",
        closed="<｜tool▁calls▁end｜>", separator="\n", several=True,
    ),
    CallFormat(
        "deepseek v3.1", ("<｜tool▁call▁begin｜>",), "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>",
        "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", closed="<｜tool▁calls▁end｜>", several=True,
    ),
    CallFormat("mistral with ids", ("[CALL_ID]",), "[TOOL_CALLS]", "", f"[CALL_ID]{ID}[ARGS]"),
    CallFormat("mistral with names", ("[TOOL_CALLS]", "[ARGS]"), "[TOOL_CALLS]", "", "[ARGS]"),
    _objects("mistral", ("[TOOL_CALLS]",), "[TOOL_CALLS]"),
    CallFormat(
        "gemma 4", ("<|tool_call>call:",), "<|tool_call>", "call:", "", closed="<tool_call|>", arguments=Gemma()
    ),
    CallFormat(
        "minimax", ("<minimax:tool_call>",), "<minimax:tool_call>", '<invoke name="', '">\n', "</invoke>", "\n",
        "\n</minimax:tool_call>", "\n", several=True,
        arguments=Tagged('<parameter name="', '">', "</parameter>\n"),
    ),
    CallFormat(
        "seed", ("<seed:tool_call>",), "<seed:tool_call>", "<function=", ">\n", "</function>", "\n",
        "\n</seed:tool_call>", "\n", arguments=Tagged("<parameter=", ">", "</parameter>\n"),
    ),
    CallFormat(
        "glm 4.7", ("</arg_key><arg_value>",), "<tool_call>", "", "", closed="</tool_call>",
        arguments=Tagged("<arg_key>", "</arg_key><arg_value>", "</arg_value>"),
    ),
    CallFormat(
        "glm", ("<arg_key>",), "<tool_call>", "", "", closed="</tool_call>", separator="\n",
        arguments=Tagged("\n<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n"),
    ),
    CallFormat(
        "qwen coder", ("<function=", "<parameter="), "<tool_call>", "<function=", ">\n", "</function>", "\n",
        "\n</tool_call>", "\n", arguments=_PARAMETERS,
    ),
    CallFormat("functionary 3.2", (">>>all",), ">>>", "", "\n", answer="all"),
    CallFormat("functionary 3.1", ("<function=",), "<function=", "", ">", closed="</function>"),
    _objects("nemotron", ("<TOOLCALL>",), "<TOOLCALL>", "</TOOLCALL>"),
    _objects("apriel", ("<tool_calls>",), "<tool_calls>", "</tool_calls>"),
    CallFormat(
        "apertus", ("<|tools_prefix|>",), "<|tools_prefix|>", '{"', '": ', "}", "[", "]<|tools_suffix|>", ", ",
        several=True, objects=True, by_name=True,
    ),
    CallFormat(
        "command r7b", ("<|START_ACTION|>",), "<|START_ACTION|>", '{"tool_call_id": "' + NUMBER + '", "tool_name": "',
        '", "parameters": ', "}", "[\n    ", "\n]<|END_ACTION|>", ",\n    ", several=True, objects=True,
    ),
    CallFormat(
        "command r", ("Action:", "tool_name"), "Action:", '{"tool_name": "', '", "parameters": ', "}",
        "\n```json\n[", "]\n```", ", ", several=True, objects=True,
    ),
    _objects("functools", ("functools[",), "functools"),
    CallFormat(
        "gigachat 3", ("'function call'",), "function call<|role_sep|>\n",
        '{"name": "', '", "arguments": ', "}", objects=True,
    ),
    CallFormat(
        "gigachat 3.1", ("<|function_call|>",), "<|function_call|>",
        '{"name": "', '", "arguments": ', "}", objects=True,
    ),
    GENERIC,
    _objects("granite or phi", ("<|tool_call|>",), "<|tool_call|>"),
    _LFM2,
    replace(_LFM2, known_by=("<|tool_list_start|>",)),
    replace(_LFM2, known_by=("List of tools: [",)),
    CallFormat(
        "llama 3", ('"parameters": dictionary of argument name',), "", '{"name": "', '", "parameters": ', "}",
        also=("<|python_tag|>",), objects=True, bare=True,
    ),
)  # fmt: skip


def format_of(template: str) -> CallFormat | None:
    """The format of a model with this chat template; None where it tells of none."""
    return next((row for row in TABLE if all(mark in template for mark in row.known_by)), None)
