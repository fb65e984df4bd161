"""Chat templates: the Jinja programs in checkpoints that write a conversation as one prompt.

They come with a download and are not to be trusted: they run in Jinja's sandbox, without files, imports or attributes
of Python objects. The surroundings are those that Hugging Face's `apply_chat_template` offers.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from edgeq.errors import TemplateError

if TYPE_CHECKING:
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

# What a template can raise on a conversation that it was not written for.
_TEMPLATE_FAULTS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)


class ChatTemplate:
    """A chat template, or several by name: "tool_use" is taken where tools are given, else "default"."""

    def __init__(self, source: str | Mapping[str, str], special_tokens: Mapping[str, str]):
        """`special_tokens` are variables of the template by role, e.g. {"bos_token": "<s>"}."""
        self._sources = {"default": source} if isinstance(source, str) else dict(source)
        self._special_tokens = dict(special_tokens)
        self._compiled: dict[str, jinja2.Template] = {}

    @property
    def names(self) -> list[str]:
        """The names of the templates; ["default"] where there is one."""
        return list(self._sources)

    def source(self, name: str = "default") -> str:
        """The Jinja source of one template. Raises TemplateError for an unknown name."""
        if name not in self._sources:
            raise TemplateError(f"the model has no chat template named {name!r}: it has {', '.join(self._sources)}")
        return self._sources[name]

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        name: str | None = None,
        **variables: Any,
    ) -> str:
        """The prompt of a conversation, e.g. [{"role": "user", "content": "Hello"}].

        `add_generation_prompt` ends it with the opening of the assistant's answer. Further keywords become variables
        of the template (e.g. enable_thinking=False). Raises TemplateError for a malformed template, or where it
        refuses the conversation.
        """
        import jinja2

        if name is None:
            name = "tool_use" if tools and "tool_use" in self._sources else "default"
        try:
            return self._template(name).render(
                **self._special_tokens,
                **{
                    "messages": [dict(message) for message in messages],
                    "tools": tools,
                    "documents": documents,
                    "add_generation_prompt": add_generation_prompt,
                    **variables,
                },
            )
        except jinja2.TemplateSyntaxError as error:
            raise TemplateError(f"the chat template is malformed: line {error.lineno}: {error.message}") from error
        except jinja2.TemplateError as error:
            raise TemplateError(f"the chat template refuses this conversation: {_one_line(error)}") from error
        except _TEMPLATE_FAULTS as error:
            raise TemplateError(f"the chat template fails on this conversation: {_one_line(error)}") from error

    def _template(self, name: str) -> "jinja2.Template":
        if name not in self._compiled:
            self._compiled[name] = _environment().from_string(self.source(name))
        return self._compiled[name]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _environment() -> "ImmutableSandboxedEnvironment":
    """The sandbox with the filters and functions that templates rely on."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _generation_tag()]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON. Jinja's own filter escapes HTML, which models were not trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    import jinja2

    raise jinja2.TemplateError(message)


def _strftime_now(layout: str) -> str:
    from datetime import datetime

    return datetime.now().strftime(layout)


def _generation_tag() -> Any:
    """An extension for `{% generation %}...{% endgeneration %}`, which marks answers for training: the body counts."""
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser

    class GenerationTag(Extension):
        tags = {"generation"}  # noqa: RUF012  (Jinja's own interface)

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    return GenerationTag
