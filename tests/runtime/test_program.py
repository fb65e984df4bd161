"""Several sequences in a pass: every row has the bits that it has alone."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeq.container.reader import File
from edgeq.errors import MemoryLimitError, UsageError
from edgeq.graph import pages
from edgeq.runtime.program import OUTPUT_ROWS, Part, Program
from edgeq.runtime.sequence import Sequence
from edgeq.runtime.session import Session

CONTEXT, BATCH, MOST = 600, 320, 6
# Plain attention; windows, sinks and experts; windows and norms; convolutions; recurrent layers beside attention and by
# themselves; learned positions, as long as they are
CASES = dict.fromkeys(("tiny", "gpt-oss", "gemma3", "lfm2-bias", "qwen3-5", "mamba"), CONTEXT) | {"gpt2": 70}


class Text:
    """A sequence, its tokens, and what it was told of the logits after some of them: the bits, by all tokens before."""

    def __init__(self, sequence: Sequence, tokens: list[int]) -> None:
        self.sequence, self.tokens = sequence, tokens


class Schedule:
    """Sequences of one program, and all that their rows said."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.texts: list[Text] = []
        self.said: dict[tuple[int, ...], np.ndarray] = {}

    def step(self, asked: list[tuple[Text, list[int], list[int]]]) -> None:
        parts = [Part(text.sequence, np.array(tokens), wanted) for text, tokens, wanted in asked]
        results = self.program.step(parts)
        for (text, tokens, wanted), result in zip(asked, results, strict=True):
            assert result.shape == (len(wanted), self.program.model.vocab_size)
            for row, logits in zip(wanted, result, strict=True):
                self.tell((*text.tokens, *tokens[: row + 1]), logits)
            text.tokens += tokens
            assert text.sequence.position == len(text.tokens)

    def tell(self, tokens: tuple[int, ...], logits: np.ndarray) -> None:
        before = self.said.setdefault(tokens, logits)
        np.testing.assert_array_equal(before.view(np.uint32), logits.view(np.uint32))

    def check(self, session: Session) -> int:
        """Against each text alone; how many rows were compared."""
        compared, done = 0, set[tuple[int, ...]]()
        for tokens in sorted(self.said, key=len, reverse=True):
            if tokens in done:
                continue
            session.rewind(0)
            rows = session.eval(tokens, all_logits=True)
            for length in range(1, len(tokens) + 1):
                if (said := self.said.get(tokens[:length])) is not None and tokens[:length] not in done:
                    np.testing.assert_array_equal(said.view(np.uint32), rows[length - 1].view(np.uint32))
                    done.add(tokens[:length])
                    compared += 1
        return compared


def draw_schedule(data: st.DataObject, schedule: Schedule, context: int, vocab: int) -> None:
    """Steps of some sequences at once, prompts among them, forks, returns and ends."""
    generator = np.random.RandomState(data.draw(st.integers(0, 2**32 - 1)))
    texts = schedule.texts

    def any_text() -> Text:
        return texts[data.draw(st.integers(0, len(texts) - 1))]

    for kind in data.draw(
        st.lists(st.sampled_from(["step"] * 5 + ["new", "fork", "trim", "end"]), min_size=6, max_size=24)
    ):
        if not texts or (kind == "new" and len(texts) < MOST):
            texts.append(Text(schedule.program.sequence(), []))
        elif kind == "fork" and len(texts) < MOST:
            text = any_text()
            texts.append(Text(text.sequence.fork(), list(text.tokens)))
        elif kind == "trim":
            text = any_text()
            back = data.draw(st.integers(0, min(80, len(text.tokens))))
            del text.tokens[text.sequence.trim(len(text.tokens) - back) :]
        elif kind == "end":
            texts.remove(any_text())
        else:
            asked, room = [], schedule.program.batch
            for number in data.draw(st.permutations(range(len(texts))))[: data.draw(st.integers(1, MOST))]:
                text = texts[number]
                count = min(data.draw(st.sampled_from([1, 1, 1, 2, 5, 40, 270])), room, context - len(text.tokens))
                if count:
                    room -= count
                    wanted = np.flatnonzero(generator.random_sample(count) < generator.choice([0.05, 0.5, 1.0]))
                    asked.append((text, generator.randint(0, vocab, count).tolist(), wanted.tolist()))
            if asked:
                schedule.step(asked)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_a_row_has_the_bits_that_it_has_alone(
    case: str, threads: int, opened: Callable[[str], File], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "REWIND", 30)  # so that pages are given back
    context, compared = CASES[case], []
    program = Program(opened(case), context=context, batch=BATCH, threads=threads, budget=1 << 30)
    with Session(opened(case), context=context, threads=2) as session:

        @settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.data_too_large])
        @given(st.data())
        def run(data: st.DataObject) -> None:
            schedule = Schedule(program)
            draw_schedule(data, schedule, context, program.model.vocab_size)
            compared.append(schedule.check(session))
            schedule.texts.clear()

        run()
    assert sum(compared) > 20 and program.pool.used == 0
    program.close()


def alone(file: File, tokens: list[int]) -> np.ndarray:
    with Session(file, context=CONTEXT, threads=2) as session:
        return session.eval(tokens, all_logits=True)


def test_logits_of_any_rows(opened: Callable[[str], File]) -> None:
    """More than the head has room for, of several sequences, in any order of numbers, of none, of one twice."""
    tokens = [np.random.RandomState(i).randint(0, 2048, 60 + i) for i in range(3)]
    expected = [alone(opened("tiny"), each.tolist()) for each in tokens]
    wanted = [list(range(59, -1, -2)), [], [*range(62), 7]]
    assert len(wanted[0]) > OUTPUT_ROWS
    program = Program(opened("tiny"), context=CONTEXT, threads=2, budget=1 << 28)
    parts = [Part(program.sequence(), ids, which) for ids, which in zip(tokens, wanted, strict=True)]
    for rows, which, result in zip(expected, wanted, program.step(parts), strict=True):
        np.testing.assert_array_equal(result, rows[which])
    program.close()


def test_taps_hear_of_each_row_once(opened: Callable[[str], File]) -> None:
    file, shown = opened("tiny"), dict[str, list[np.ndarray]]()
    head = "output.weight" if "output.weight" in file.tensors else "token_embd.weight"
    program = Program(file, context=CONTEXT, threads=2, budget=1 << 28, taps=["blk.0.attn_q.weight", head])
    ids = np.random.RandomState(3).randint(0, 2048, 50)
    parts = [Part(program.sequence(), ids, list(range(50))), Part(program.sequence(), ids[:1], [0])]
    program.step(parts, lambda name, rows: shown.setdefault(name, []).append(rows.copy()))
    body, last = (np.concatenate(shown[name]) for name in ("blk.0.attn_q.weight", head))
    assert len(body) == len(last) == 51
    np.testing.assert_array_equal(body[50], body[0])
    np.testing.assert_array_equal(last[50], last[0])
    program.close()


def test_a_budget_that_is_used_up(opened: Callable[[str], File]) -> None:
    """Nothing is appended, others go on, and so does the refused one once there is room."""
    program = Program(opened("tiny"), context=CONTEXT, threads=2)
    one, two = program.sequence(), program.sequence()
    ids = np.random.RandomState(4).randint(0, 2048, 300)
    expected = alone(opened("tiny"), ids.tolist())
    program.step([Part(one, ids, [])])
    program.step([Part(two, ids[:256], [])])
    assert program.pool.used == program.pool.budget == program.memory()["kv"]
    with pytest.raises(MemoryLimitError, match="end other texts"):
        program.step([Part(one, ids[:1], [0]), Part(two, ids[256:257], [0])])
    assert (one.position, two.position) == (300, 256)
    program.step([Part(one, ids[:1], [0])])
    one.trim(256)
    np.testing.assert_array_equal(program.step([Part(two, ids[256:], [43])])[0], expected[299:])
    program.close()


def test_what_a_pass_refuses(opened: Callable[[str], File]) -> None:
    program = Program(opened("tiny"), context=CONTEXT, batch=20, threads=1)
    sequence = program.sequence()
    with pytest.raises(UsageError, match="21 rows in 1 parts are too many"):
        program.step([Part(sequence, np.zeros(21, np.int64), [])])
    with pytest.raises(UsageError, match="a sequence has two parts"):
        program.step([Part(sequence, np.zeros(1, np.int64), [])] * 2)
    assert sequence.position == 0 and program.pool.used == 0
    program.close()
    with pytest.raises(UsageError, match="is closed"):
        program.step([Part(sequence, np.zeros(1, np.int64), [])])


def test_forks_of_a_session_go_their_own_ways(opened: Callable[[str], File]) -> None:
    """In threads of their own, which take turns."""
    import threading

    program, results = Program(opened("tiny"), context=CONTEXT, threads=2, budget=1 << 28), {}
    prompt = np.random.RandomState(5).randint(0, 2048, 250)
    first = program.sequence()
    program.step([Part(first, prompt, [])])

    def go_on(number: int, sequence: Sequence) -> None:
        rows = [program.step([Part(sequence, np.array([number + i]), [0])])[0][0] for i in range(10)]
        results[number] = np.stack(rows)

    threads = [threading.Thread(target=go_on, args=(number, first.fork())) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number in range(1, 5):
        expected = alone(opened("tiny"), [*prompt.tolist(), *range(number, number + 10)])
        np.testing.assert_array_equal(results[number], expected[250:])
    program.close()


def test_texts_of_an_encoder_in_one_pass(opened: Callable[[str], File]) -> None:
    """Tokens see all of their own text, and nothing of others."""
    file, texts = opened("bert"), [np.random.RandomState(i).randint(0, 48, count) for i, count in enumerate((9, 1, 30))]
    with Session(file, threads=2) as session:
        expected = []
        for text in texts:
            session.rewind(0)
            expected.append(session.eval(text.tolist(), all_logits=True))
    program = Program(file, threads=2, budget=1 << 28)
    found = program.step([Part(program.sequence(), text, range(len(text))) for text in texts])
    for rows, states in zip(expected, found, strict=True):
        np.testing.assert_array_equal(rows.view(np.uint32), states.view(np.uint32))
    program.close()


def test_room_for_several_texts(opened: Callable[[str], File], monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as are asked for, where they fit; unasked up to a quarter of what is left."""
    file = opened("tiny")

    def texts(asked: int | None) -> float:
        program = Program(file, context=CONTEXT, threads=1, texts=asked)
        program.close()
        return program.pool.budget / program.sequence_bytes

    one = Program(file, context=CONTEXT, threads=1).sequence_bytes
    assert (texts(1), texts(3), texts(None)) == (1, 3, 8)
    with pytest.raises(UsageError, match="room for 0 texts cannot work"):
        texts(0)
    monkeypatch.setattr("edgeq.runtime.program.available_memory", lambda: file.nbytes + 15 * one)
    assert (texts(15), texts(None)) == (15, 3)
    with pytest.raises(MemoryLimitError, match=r"16 texts of 600 positions need .* give fewer, or a smaller context"):
        texts(16)
    monkeypatch.setattr("edgeq.runtime.program.Fit.check", lambda *arguments: None)
    monkeypatch.setattr("edgeq.runtime.program.available_memory", lambda: 0)
    assert texts(None) == 1
