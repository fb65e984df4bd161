"""How models mark what they think before they answer. A row of the table is a way; a model's template tells which."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Thinking:
    """A way to mark thoughts.

    known_by  what templates of such models hold, any of these
    opened    before the thoughts
    closed    after them
    dropped   marks around the answer that are no part of it
    """

    known_by: tuple[str, ...]
    opened: str
    closed: str
    dropped: tuple[str, ...] = ()

    @property
    def end(self) -> str:
        """What ends thoughts that take too long."""
        return self.closed + ("\n\n" if self.closed.startswith("</") else "")

    def opened_by(self, prompt: str) -> bool:
        """Whether an answer to this prompt begins with thoughts, as it ends with their mark."""
        return prompt.rstrip().endswith(self.opened.rstrip())


NONE = Thinking((), "", "")
TABLE = (
    Thinking(
        ("<|channel|>analysis", "<|channel|>final"),  # gpt-oss
        "<|channel|>analysis<|message|>",
        "<|end|>",
        (
            *("<|start|>assistant", "<|channel|>commentary<|message|>", "<|end|>", "<|return|>"),
            *("<|channel|>final<|message|>", "<|channel|>final <|constrain|>json<|message|>"),
        ),
    ),
    Thinking(
        ("<|begin|>assistant<|think|>",), "<|think|>", "<|end|>", ("<|begin|>assistant", "<|content|>", "<|end|>")
    ),
    Thinking(("<|channel>thought",), "<|channel>thought", "<channel|>"),  # Gemma 4
    Thinking(
        ("<|START_THINKING|>",), "<|START_THINKING|>", "<|END_THINKING|>", ("<|START_RESPONSE|>", "<|END_RESPONSE|>")
    ),
    Thinking(("[BEGIN FINAL RESPONSE]",), "Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),  # Apriel
    Thinking(("<seed:think>",), "<seed:think>", "</seed:think>"),
    Thinking(("<|inner_prefix|>",), "<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    Thinking(("[THINK]",), "[THINK]", "[/THINK]"),
    Thinking(
        ("<think></think> and write your response between <response>",),
        "<think>",
        "</think>",
        ("<response>", "</response>"),
    ),
    Thinking(("<think>", "</think>"), "<think>", "</think>"),
)


def thinking_of(template: str) -> Thinking:
    """The way of a model with this chat template; `NONE` where it tells of none."""
    return next((row for row in TABLE if any(mark in template for mark in row.known_by)), NONE)
