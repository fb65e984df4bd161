"""A model that says what it is told to, as far as it may: for tests of what stands above the session."""

import json
from collections.abc import Sequence

import numpy as np
import small_tokenizers as small
from counting import CountingProgram, CountingSequence, CountingSession, MemoryFile

from edgeq.engine.model import Model

# As templates of models that call tools in Hermes' form write it; with THOUGHTS they think, and the prompt begins that.
TOOLS = """{% if tools %}tools:{% for t in tools %}{{ t | tojson }}{% endfor %} in <tool_call></tool_call>|{% endif %}
{%- for m in messages %}{{ m.role }}:{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endfor %}|{% endfor %}{% if add_generation_prompt %}ANSWER{% endif %}"""
THOUGHTS = TOOLS + "{% if add_generation_prompt and enable_thinking is not false %}<think>\n{% endif %}"
PLAIN = "{% for m in messages %}{{ m.role }}:{{ m.content }}|{% endfor %}ANSWER"
PIECES = {small.HE: b"he", small.LLO: b"ll", small.WORLD: b" w", small.THINK: b"<think>"}
FIRST_CONTROL = 263


class ScriptedSequence(CountingSequence):
    """Knows its tokens."""

    def __init__(self, position=0, tokens=()):
        super().__init__(position)
        self.tokens = list(tokens)

    def fork(self):
        return ScriptedSequence(self.position, self.tokens)


class ScriptedProgram(CountingProgram):
    sequence = ScriptedSequence

    def step(self, parts):
        results = []
        for sequence, items, wanted, *_ in parts:
            sequence.tokens[sequence.position :] = items.tolist()
            ends = range(sequence.position + 1, sequence.position + len(items) + 1)
            sequence.position += len(items)
            results.append(np.array([self._session.logits_after(sequence.tokens[: ends[row]]) for row in wanted]))
        return results


class ScriptedSession(CountingSession):
    """After "ANSWER", and what opens thoughts, come the script's characters, and then the end. What was said otherwise
    takes the place of as many of them."""

    def __init__(self, script: str, control: Sequence[str] = (), context: int = 4000):
        self.control = {name.encode(): FIRST_CONTROL + i for i, name in enumerate(control)}
        super().__init__(context, vocab=FIRST_CONTROL + len(control))
        self.script = script.encode()
        self.pieces = PIECES | {token: name for name, token in self.control.items()}
        self.program = ScriptedProgram(self)

    def logits_after(self, tokens):
        said = b"".join(self.pieces.get(t) or bytes([t]) for t in tokens).rpartition(b"ANSWER")[2]
        rest = self.script[len(said.removeprefix(b"<think>\n")) :]
        logits = np.zeros(self.vocab, np.float32)
        logits[:32] = -5.0
        control = next((token for name, token in self.control.items() if rest.startswith(name)), None)
        logits[control if control is not None else rest[0] if rest else small.IM_END] = 9.0
        return logits


def scripted_model(script: str, template: str = TOOLS, control: Sequence[str] = (), context: int = 4000) -> Model:
    """`control` are names of control tokens."""
    assets = small.byte_level_assets(chat_template=template)
    described = json.loads(assets["tokenizer.json"])
    like = described["added_tokens"][0]
    more = [{**like, "id": FIRST_CONTROL + i, "content": name} for i, name in enumerate(control)]
    described["added_tokens"] += more
    assets["tokenizer.json"] = json.dumps(described).encode()
    session = ScriptedSession(script, control, context)
    return Model(MemoryFile(assets, session.vocab), session)
