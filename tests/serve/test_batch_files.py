"""Files of requests: each row gets what the server would answer, in its place, again and again the same bytes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from counting import counting_model
from serving import SlowSession, hello, slow_model, wait_until

from edgeq.cli import batch, main
from edgeq.engine.model import Model
from edgeq.errors import OutputError, UsageError
from edgeq.serve.app import application
from edgeq.serve.batch_files import answer_file
from edgeq.serve.guard import Rules
from edgeq.serve.offline import digest
from edgeq.serve.roster import Roster


def row(custom_id, body, url="/v1/chat/completions", **more):
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body, **more})


CHAT = [row(f"r{i}", hello(max_tokens=i + 1)) for i in range(5)]
BAD = [
    "{",
    '"text"',
    row("stream", hello(stream=True)),
    row("url", {}, "/v1/images"),
    row("r1", hello()),
    row("model", hello(model="other")),
    row("type", hello(max_tokens="three")),
    json.dumps({"custom_id": "lacks"}),
]


@pytest.fixture
def answered(tmp_path):
    """answered(lines) -> the answers to a file of these lines, by a model that counts, and what was computed."""

    def answer(lines, identity="counting", model=None, name="out.jsonl"):
        (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
        model = model or counting_model()
        roster = Roster({"counting": lambda say: model}, 1000, 4)
        roster.load()
        try:
            work = answer_file(
                application(roster, Rules()), tmp_path / "in.jsonl", tmp_path / name, identity, 4, lambda *_: None
            )
            outcome = asyncio.run(work)
        finally:
            roster.close()
        return [json.loads(line) for line in (tmp_path / name).read_text().splitlines()], outcome

    return answer


def test_rows_are_answered_in_their_order(answered):
    said, outcome = answered(CHAT)
    assert [one["custom_id"] for one in said] == [f"r{i}" for i in range(5)]
    for i, one in enumerate(said):
        assert one["error"] is None and one["response"]["status_code"] == 200
        body = one["response"]["body"]
        assert body["choices"][0]["message"]["content"] == ";<=>?@"[: i + 1] and body["object"] == "chat.completion"
        assert body["usage"]["completion_tokens"] == i + 1
    assert (outcome.answered, outcome.refused, outcome.kept) == (5, 0, 0)


def test_a_bad_row_is_one_error(answered):
    said, outcome = answered([*CHAT, *BAD])
    assert [one["response"]["status_code"] for one in said[:5]] == [200] * 5
    assert [one["custom_id"] for one in said[5:]] == [None, None, "stream", "url", "r1", "model", "type", "lacks"]
    for one in said[5:]:
        refused = one["error"] or one["response"]["body"]["error"]
        assert refused["message"]
    assert [one["response"] and one["response"]["status_code"] for one in said[5:]] == [*[None] * 5, 404, 400, None]
    assert (outcome.answered, outcome.refused) == (5, 8)


def test_a_row_that_is_no_utf_8_is_one_error(answered, tmp_path):
    (tmp_path / "in.jsonl").write_bytes(b'{"custom_id": "\xef\xff"}\n')
    roster = Roster({"counting": lambda say: counting_model()}, 1000, 4)
    roster.load()
    work = answer_file(application(roster, Rules()), tmp_path / "in.jsonl", tmp_path / "out.jsonl", "x", 4)
    assert asyncio.run(work).refused == 1
    roster.close()
    assert "is no request of a batch" in json.loads((tmp_path / "out.jsonl").read_bytes())["error"]["message"]


def test_all_endpoints_that_a_batch_may_ask(answered):
    said, _ = answered([row("c", {"prompt": "abc", "max_tokens": 2, "temperature": 0}, "/v1/completions")])
    assert said[0]["response"]["body"]["choices"][0]["text"] == "de"


def test_answers_are_the_same_bytes_each_time(answered, tmp_path):
    wild = hello(max_tokens=9, temperature=3, min_p=0, top_k=0, top_p=1)
    drawn = [row(f"d{i}", wild) for i in range(6)]
    for name, lines in (("first", drawn), ("second", drawn[::-1]), ("third", drawn)):
        first, _ = answered(lines, name=name, model=counting_model(jumps={269: 60}))
    assert (tmp_path / "first").read_bytes() == (tmp_path / "third").read_bytes()
    assert {*(tmp_path / "first").read_text().splitlines()} == {*(tmp_path / "second").read_text().splitlines()}
    texts = {one["response"]["body"]["choices"][0]["message"]["content"] for one in first}
    assert len(texts) > 3, "each row has a seed of its own"
    assert not (tmp_path / "first.part").exists()


def test_a_part_that_is_there_is_not_computed_again(answered, tmp_path):
    answered(CHAT, name="whole")
    for cut in (0, 1, 30):  # the journal of a run that was killed, its last line cut
        journal = tmp_path / "out.jsonl.part"
        answered(CHAT[:3], name="three")
        lines = [json.dumps({"edgeq_batch": "counting"}, separators=(",", ":"))]
        answers = (tmp_path / "three").read_text().splitlines()
        lines += [f"{digest(line.encode())} {text}" for line, text in zip(CHAT, answers, strict=False)]
        text = "\n".join(lines) + "\n"
        journal.write_text(text[: len(text) - cut])
        model = counting_model()
        _, outcome = answered(CHAT, model=model)
        assert outcome.kept == (2 if cut else 3) and outcome.answered == 5
        assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole").read_bytes()
        assert not journal.exists()
        journal.write_text(text)
        _, outcome = answered(CHAT, identity="another model")
        assert outcome.kept == 0


def test_a_fault_of_ours_is_tried_again(answered, tmp_path):
    class Broken(SlowSession):
        broken = True

        def eval(self, tokens, all_logits=False):
            if self.broken:
                raise RuntimeError("broken")
            return super().eval(tokens, all_logits)

    model = counting_model()
    model.session = Broken()
    said, outcome = answered(CHAT, model=Model(model.file, model.session))
    assert [one["response"]["status_code"] for one in said] == [500] * 5 and outcome.answered == 0
    assert (tmp_path / "out.jsonl.part").exists()
    _, outcome = answered(CHAT)
    assert (outcome.answered, outcome.kept) == (5, 0) and not (tmp_path / "out.jsonl.part").exists()


def test_what_cannot_be_read_or_written(answered, tmp_path):
    with pytest.raises(UsageError, match="holds no request"):
        answered([""])
    with pytest.raises(OutputError, match="does not exist"):
        answered(CHAT, name="no/folder")
    (tmp_path / "is.part").mkdir()
    with pytest.raises(OutputError, match=r"is\.part: cannot be written"):
        answered(CHAT, name="is")


BATCH = """
import sys
from edgeq.cli import batch
from edgeq.__main__ import main
sys.path[:0] = {path!r}
from serving import slow_model

batch.load_served = lambda path, loading, say: slow_model(context=100)
sys.argv = ["edgeq", "batch", "slow.eqf", *sys.argv[1:]]
sys.exit(main())
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_process_that_is_killed_is_gone_on_with(tmp_path, monkeypatch, capfd):
    here = Path(__file__).parent
    code = BATCH.format(path=[str(here), str(here.parent)])
    requests, out, part = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
    requests.write_text("\n".join([row(f"k{i}", hello(max_tokens=20)) for i in range(30)] + BAD[:2]))
    arguments = [str(requests), "--at-once", "16", "-o"]
    slowly = [str(requests), "--at-once", "2", "-o", str(out)]
    with subprocess.Popen([sys.executable, "-c", code, *slowly], stderr=subprocess.PIPE) as process:
        wait_until(lambda: part.exists() and part.read_bytes().count(b"\n") > 3, 120)
        process.send_signal(signal.SIGKILL)
    kept = part.read_bytes().count(b"\n") - 1
    assert 3 <= kept < 30 and not out.exists()
    monkeypatch.setattr(batch, "load_served", lambda path, loading, say: slow_model(context=100))
    assert main(["batch", "slow.eqf", *arguments, str(out)]) == 0
    assert f"{out}: 30 answered, {kept} of them earlier, 2 refused\n" in capfd.readouterr().out
    whole = tmp_path / "whole.jsonl"
    assert main(["batch", "slow.eqf", *arguments, str(whole)]) == 0
    assert whole.read_bytes() == out.read_bytes()


def test_the_order_of_the_arguments(capfd):
    assert main(["batch", "in.jsonl", "m.eqf", "-o", "out"]) == 2
    assert "write edgeq batch MODEL REQUESTS -o ANSWERS" in capfd.readouterr().err
