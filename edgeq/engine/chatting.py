"""A model that answers in conversations, calls tools, and thinks before it answers."""

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast

from edgeq.adapters.given import Lora
from edgeq.decode.sampler_steps import Sampling
from edgeq.engine.answer import Answer, Generation, while_wanted
from edgeq.engine.arguments import check_messages
from edgeq.engine.chat_answer import ChatAnswer
from edgeq.engine.writing import Make, Prompt, Writing
from edgeq.errors import TemplateError, UsageError
from edgeq.talk.conversing import Asked, Conversation, Speaker
from edgeq.talk.functions import tools_of
from edgeq.talk.grammar import Grammars, check_there
from edgeq.talk.toolbox import Toolbox, offered
from edgeq.vision.image_parts import without_images

if TYPE_CHECKING:
    from edgeq.engine.seeing import Sight

Result = TypeVar("Result")
Message = Mapping[str, Any]
Tool = Mapping[str, Any] | Callable[..., Any]


class Chatting(Writing):
    """A model that chats."""

    def chat(
        self,
        messages: Sequence[Message],
        max_tokens: int | None = None,
        *,
        stop: str | Sequence[str] = (),
        logprobs: int | None = None,
        tools: Sequence[Tool] | None = None,
        tool_choice: str = "auto",
        parallel_tool_calls: bool = True,
        schema: Mapping[str, Any] | None = None,
        template_variables: Mapping[str, Any] | None = None,
        speculate: bool = True,
        lora: Sequence[Lora] | None = None,
        **sampling: Unpack[Sampling],
    ) -> ChatAnswer:
        """The answer to a conversation, e.g. [{"role": "user", "content": "Hello"}]; options are those of `generate`.

        What the conversation has in common with the previous call is not computed again. Where the model thinks first,
        `ChatAnswer.thinking` has that apart from the answer.

        `tools` are those that the model may call: functions, whose names, type hints and docstrings tell of them, or
        dicts as OpenAI's API has them. `ChatAnswer.tool_calls` has its calls, whose arguments always follow the tool's
        schema. Append `ChatAnswer.message`, and for each call a message of role "tool" with `tool_call_id` and what the
        tool said as `content`, and chat again. `tool_choice` is "auto", "none", "required" or a tool's name; without
        `parallel_tool_calls` the answer ends with one call.

        Images are parts of a content: [{"type": "image", "image": "cat.jpg"}, {"type": "text", "text": "What is it?"}],
        `image` being a path, the bytes of a file, a Pillow image or an array u8 [height, width, 3]; or as OpenAI's API
        has them, of which data: URLs are read and no others.

        `schema` is a JSON schema that the answer follows ({"type": "object"}: any JSON object).

        Raises TemplateError where the model has no chat template or it refuses the conversation, UsageError for a tool
        or a schema that cannot be followed, an image that cannot be read, and a model that sees none; otherwise as
        `generate`. Tools and schemas need llguidance (`pip install 'edgeq[serve]'`), files of images Pillow
        (`pip install 'edgeq[vision]'`).
        """
        began = time.perf_counter()
        talk = self._conversation(messages, tools, tool_choice, schema, template_variables, parallel_tool_calls)
        shared = self._session_for(lora)
        asked = self._speak(lambda speaker: speaker.asked(talk))
        make = partial(_chat_answer, asked)
        return self._answer(asked, make, max_tokens, stop, logprobs, sampling, began, shared, speculate=speculate)

    def achat(
        self,
        messages: Sequence[Message],
        max_tokens: int | None = None,
        *,
        stop: str | Sequence[str] = (),
        logprobs: int | None = None,
        tools: Sequence[Tool] | None = None,
        tool_choice: str = "auto",
        parallel_tool_calls: bool = True,
        schema: Mapping[str, Any] | None = None,
        template_variables: Mapping[str, Any] | None = None,
        speculate: bool = True,
        lora: Sequence[Lora] | None = None,
        **sampling: Unpack[Sampling],
    ) -> AsyncIterator[str]:
        """As `chat`, for `async for` alone: the answer is cancelled with the task that iterates over it."""
        return while_wanted(
            self.chat(
                messages,
                max_tokens,
                stop=stop,
                logprobs=logprobs,
                tools=tools,
                tool_choice=tool_choice,
                parallel_tool_calls=parallel_tool_calls,
                schema=schema,
                template_variables=template_variables,
                speculate=speculate,
                lora=lora,
                **sampling,
            )
        )

    def chat_tokens(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        template_variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """The prompt that `chat` gives to the model for a conversation. Raises TemplateError as `chat` does."""
        talk = self._conversation(messages, tools, "auto", None, template_variables)
        return self._speak(lambda speaker: speaker.tokens(talk))

    def system_tokens(self, system: str) -> list[int]:
        """What all conversations with a system message begin with. Raises TemplateError as `chat` does."""
        first = {"role": "system", "content": system}
        one, other = (self.chat_tokens([first, {"role": "user", "content": text}]) for text in ("a", "b"))
        return one[: next((i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(one))]

    @cached_property
    def _speaker(self) -> Speaker:
        grammars = Grammars(self.tokenizer, self.vocab_size)
        return Speaker(self.chat_template, self.tokenizer, grammars, self.reserved)

    def _speak(self, ask: Callable[[Speaker], Result]) -> Result:
        """What the speaker says; where the template refuses, by the name of its file."""
        speaker = self._speaker
        try:
            return ask(speaker)
        except TemplateError as error:
            name = self.file.path if self._template_source is None else "the given template"
            raise TemplateError(f"{name}: {error}") from error

    def _conversation(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] | None,
        tool_choice: str,
        schema: Mapping[str, Any] | None,
        variables: Mapping[str, Any] | None,
        parallel: bool = True,
    ) -> Conversation:
        self._check_open()
        check_messages(messages)
        messages, given = without_images(messages)
        box = offered(tools_of(tools), parallel) if tools else Toolbox()
        if not isinstance(tool_choice, str):
            raise UsageError(f"tool_choice is {tool_choice!r:.80}: give auto, none, required or a tool's name")
        if schema is not None:
            check_there("schema")
        thinks = (variables or {}).get("enable_thinking")
        return Conversation(
            [_with_text(message) for message in messages],
            box.chosen(tool_choice),
            variables or {},
            thinks if isinstance(thinks, bool) else None,
            schema=schema,
            field="schema",
            goes_on=False,
            images=self.sight(given),
        )

    def sight(self, given: Sequence[object]) -> "Sight | None":
        """What the model sees of images, of the forms that `chat` takes; None for none.

        Raises UsageError for a model that reads text alone and for what is no image, ContextError for more than the
        context holds.
        """
        if not given:
            return None
        from edgeq.engine.seeing import Sight, text_alone

        if self._eyes is None:
            raise UsageError(f"{text_alone(self.file)}, and the conversation has images: leave them out")

        return Sight(self._eyes, given, self.context)

    def _begun(self, prompt: Prompt) -> tuple[Asked, Make[Answer]]:
        """Of a conversation, too."""
        if isinstance(prompt, str) or not any(isinstance(part, Mapping) for part in prompt):
            return super()._begun(prompt)
        talk = self._conversation(cast(Sequence[Message], prompt), None, "auto", None, None)
        asked = self._speak(lambda speaker: speaker.asked(talk))
        return asked, partial(_chat_answer, asked)


def _chat_answer(asked: Asked, generation: Generation, pieces: Iterator[str]) -> ChatAnswer:
    make = asked["parser"]
    return ChatAnswer(generation, pieces, None if make is None else make())


def _with_text(message: Message) -> Message:
    """A message of a tool with what it said as text."""
    said = message.get("content")
    if message.get("role") != "tool" or said is None or isinstance(said, str | list | tuple):
        return message
    return {**message, "content": json.dumps(said, ensure_ascii=False, default=str)}
