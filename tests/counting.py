"""A model that counts, for tests of what stands above the session: the token after b is b + 1."""

from types import SimpleNamespace

import numpy as np
import small_tokenizers as small

from edgeq.engine.model import Model

TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}|{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
)
GREEDY = {"temperature": 0.0, "speculate": False}


class CountingSequence:
    """How far a text is evaluated: as a `Sequence`, whose keys and values are nowhere."""

    rewinds = True

    def __init__(self, position=0):
        self.position, self.held = position, {}

    def reachable(self, position):
        return position

    def trim(self, position):
        self.position = min(position, self.position)
        return self.position

    def fork(self):
        return CountingSequence(self.position)


class CountingProgram:
    """What a scheduler needs of a program: passes are a session's evaluations, one after the other."""

    batch, kept_bytes, free_bytes = 512, 1 << 20, 1 << 20
    sequence = CountingSequence
    pool = SimpleNamespace(used=0, budget=1 << 20)

    def __init__(self, session):
        self._session = session

    def bytes_of(self, positions):
        return 0

    def step(self, parts):
        results = []
        for sequence, items, wanted, *_ in parts:
            self._session.position = sequence.position
            logits = self._session.eval(items.tolist(), all_logits=True)
            sequence.position = self._session.position
            results.append(logits[[*wanted]])
        return results


class CountingSession:
    """Logits whose largest is at the last token + 1, or where `jumps` says. Notes what was computed."""

    def __init__(self, context: int = 64, vocab: int = 270, jumps: dict[int, int] | None = None):
        self.model = SimpleNamespace(experts_read=1.0, heads=SimpleNamespace(causal=True), classifier=None)
        self.context, self.vocab, self.jumps = context, vocab, jumps or {}
        self.threads, self.states = 2, False
        self.position = 0
        self.evaluated: list[int] = []
        self.calls: list[int] = []
        self.closed = False
        self.program = CountingProgram(self)

    def eval(self, tokens, all_logits=False):
        assert self.position + len(tokens) <= self.context
        self.position += len(tokens)
        self.evaluated += tokens
        self.calls.append(len(tokens))
        rows = tokens if all_logits else tokens[-1:]
        logits = np.zeros((len(rows), self.vocab), np.float32)
        for row, token in enumerate(rows):
            logits[row, self.jumps.get(token, token + 1)] = 9.0
        return logits

    def memory(self):
        return {"weights": 1007, "kv": 10 * self.context, "scratch": 0}

    def rewindable(self, position):
        return position

    def rewind(self, position):
        assert position <= self.position
        self.position = position

    def close(self):
        self.closed = True


class MemoryFile:
    path = "folder/counting.eqf"

    def __init__(self, assets: dict[str, bytes], vocab: int = 270):
        self.assets = assets
        self.tensors = {"token_embd.weight": SimpleNamespace(shape=(vocab, 8), nbytes=vocab * 4, type="Q4_0")}
        self.metadata = {"architecture": "llama", "provenance": {"recipe": "Q4_0"}}
        self.recipe = "Q4_0"
        self.nbytes = vocab * 4
        self.closed = False

    def read_ahead(self, but=()) -> None:
        """There is nothing on a disk."""

    def asset(self, name: str) -> bytes:
        return self.assets[name]

    def close(self):
        self.closed = True


def counting_model(chat_template: str | None = TEMPLATE, **session) -> Model:
    config = {"chat_template": TEMPLATE} if chat_template else {}
    return Model(MemoryFile(small.byte_level_assets(**config)), CountingSession(**session))
