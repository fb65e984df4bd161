"""A local cluster of Ray answers as one process does, also where workers are lost. RAY_ADDRESS names one that runs."""

import argparse
import asyncio
import importlib
import json
import os
import signal
import socket
from pathlib import Path

import pytest

import edgeq
from edgeq.errors import UsageError

ray = pytest.importorskip("ray", reason="pip install 'ray[data,serve]'")
pytest.importorskip("ray.serve", reason="pip install 'ray[data,serve]'")

from edgeq.ray import Workers, batch, batching, build, chat, complete, embed, replicas, score, server  # noqa: E402
from edgeq.ray.affinity import beginning, order  # noqa: E402
from edgeq.serve.app import application  # noqa: E402
from edgeq.serve.batch_files import answer_file  # noqa: E402
from edgeq.serve.guard import Rules  # noqa: E402
from edgeq.serve.offline import EVERY, identity  # noqa: E402
from edgeq.serve.roster import Roster  # noqa: E402

ROOT = str(Path(edgeq.__file__).parents[1])
SAYS = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture(scope="module")
def cluster():
    own = {"address": "local", "num_cpus": 2, "include_dashboard": False, "object_store_memory": 200 << 20}
    if "RAY_ADDRESS" in os.environ:
        own = {}
    paths = os.pathsep.join([ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])
    ray.init(**own, runtime_env={"env_vars": {"PYTHONPATH": paths}}, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def model(tiny_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("cluster") / "tiny.eqf"
    edgeq.convert(tiny_model, path, "Q8_0")
    return str(path)


def rows():
    for i in range(24):
        body = {"prompt": "Once upon a time" + " a dog" * (i % 5), "max_tokens": 5 + i}
        yield {"custom_id": f"r{i}", "method": "POST", "url": "/v1/completions", "body": body}
    yield {"custom_id": "vector", "method": "POST", "url": "/v1/embeddings", "body": {"input": "The end"}}
    yield {"custom_id": "bad", "method": "POST", "url": "/v1/completions", "body": {"prompt": 5}}
    yield {"custom_id": "worse", "method": "GET", "url": "/v1/completions", "body": {}}


@pytest.fixture(scope="module")
def requests(tmp_path_factory):
    path = tmp_path_factory.mktemp("requests") / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return path


@pytest.fixture(scope="module")
def expected(model, requests):
    """The answers of a single process."""
    roster = Roster({"tiny": lambda say: edgeq.load(model, threads=1)}, EVERY, 8)
    roster.load()
    whose = identity(roster.entries["tiny"].engine.model, "tiny", {})
    target = requests.with_name("one.jsonl")
    asyncio.run(answer_file(application(roster, Rules()), requests, target, whose, 8))
    roster.close()
    return target.read_bytes()


@pytest.mark.parametrize("number", [1, 2])
def test_a_file_is_answered_as_by_one_process_where_a_worker_is_lost(
    cluster, model, requests, expected, tmp_path, monkeypatch, number
):
    died = tmp_path / "died"

    class Dying(batching.Rows):
        """Dies once, when it has answered some rows that nobody has seen."""

        async def answer(self, line):
            said = await super().answer(line)
            if b"r12" in line and not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return said

    monkeypatch.setattr(batching, "Rows", Dying)
    out, heard = tmp_path / "out.jsonl", []
    workers = Workers(model, number=number, at_once=3)
    outcome = batch(workers, requests, out, lambda done, total: heard.append((done, total)))
    assert died.exists() and out.read_bytes() == expected
    assert (outcome.answered, outcome.refused, outcome.kept) == (25, 2, 0)
    assert heard[0] == (0, 26) and heard[-1] == (26, 26)
    assert not out.with_name("out.jsonl.part").exists()


def test_what_is_kept_is_not_computed_again(cluster, model, requests, expected, tmp_path):
    class Ended(Exception):
        pass

    def end(done, total):
        if done > 9:
            raise Ended

    out, workers = tmp_path / "out.jsonl", Workers(model)
    with pytest.raises(Ended):
        batch(workers, requests, out, end)
    assert out.with_name("out.jsonl.part").exists()
    assert batch(workers, requests, out).kept == 10 and out.read_bytes() == expected


def test_columns_are_those_of_the_model_in_order(cluster, model):
    texts = [f"Once upon a time, {word}" for word in ("a dog", "a cat", "two", "the sun", "red")]
    data = ray.data.from_items([{"prompt": text} for text in texts], override_num_blocks=3)
    workers = Workers(model, rows=2, loading={"chat_template": SAYS})
    written = complete(data, workers, max_tokens=6, temperature=0)
    said = chat(written, workers, column="prompt", max_tokens=6, temperature=0)
    vectors = embed(said, workers, column="prompt").take_all()
    assert [row["prompt"] for row in vectors] == texts
    with edgeq.load(model) as alone:
        for row, text in zip(vectors, texts, strict=True):
            assert row["text"] == alone.generate(text, 6, temperature=0).text and row["text_error"] is None
            assert row["answer"].strip() == row["text"].strip()
            assert row["embedding"] == alone.embed([text])[0].tolist()
        scored = score(data, workers, column="prompt").take_all()
        assert [row["logprob"] for row in scored] == [float(alone.score(text).sum()) for text in texts]


def test_a_row_that_cannot_be_answered_says_why(cluster, model):
    data = ray.data.from_items([{"prompt": "word " * 3000, "text": ""}, {"prompt": "Once", "text": " upon"}])
    long, short = complete(data, Workers(model), into="more", max_tokens=2).take_all()
    assert long["more"] is None and "tokens" in long["more_error"] and short["more"]
    long, short = score(data, Workers(model), after="prompt").take_all()
    assert long["logprob"] is None and long["logprob_error"] and short["logprob"] < 0


def test_what_cannot_be_loaded_is_told_in_our_words(cluster, requests, tmp_path):
    with pytest.raises(edgeq.EdgeqError, match="nowhere"):
        batch(Workers(str(tmp_path / "nowhere.eqf")), requests, tmp_path / "out.jsonl")
    with pytest.raises(UsageError, match="number is 0"):
        Workers("m.eqf", number=0)
    with pytest.raises(UsageError, match="most is 1"):
        server(Workers("m.eqf", number=2), most=1)
    with pytest.raises(UsageError, match="town"):
        build({"model": "m.eqf", "town": "x"})


def test_workers_are_measured_beside_processes(cluster, model, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(ROOT) / "bench"))
    measured = importlib.import_module("cluster")
    sizes = {"at_once": 2, "rows": 3, "prompt": 5, "tokens": 4, "repetitions": 1}
    options = argparse.Namespace(model=Path(model), workers=[1, 2], threads=1, **sizes)
    rows = [dict(zip(measured.COLUMNS, row, strict=True)) for row in measured.measure(options)]
    what = [(row["engine"], row["workers"], row["rows"]) for row in rows]
    assert what == [(name, number, 3 * number) for number in (1, 2) for name in ("processes", "cluster")]
    assert all(float(row["rows_per_second_of_each"]) > 0 for row in rows)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_server_answers_the_official_client(cluster, model):
    from ray import serve

    openai = pytest.importorskip("openai", reason="pip install openai")
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        serve.run(server(Workers(model, at_once=4), queue=4, keys=["secret"]))
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="secret", max_retries=0) as client:
            asked = {"model": "tiny", "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
            text = client.completions.create(**asked).choices[0].text
            parts = list(client.completions.create(**asked, stream=True))
            assert "".join(part.choices[0].text for part in parts) == text and len(parts) > 3
            assert [one.id for one in client.models.list()] == ["tiny"]
            with pytest.raises(openai.BadRequestError) as refused:
                client.completions.create(**{**asked, "prompt": "word " * 3000})
            assert refused.value.code == "context_length_exceeded"
            with pytest.raises(openai.AuthenticationError):
                client.with_options(api_key="wrong").models.list()
        with edgeq.load(model) as alone:
            assert text == alone.generate("Once upon a time", 8, temperature=0).text
    finally:
        serve.shutdown()


def test_conversations_stay_with_their_replica_and_go_on_where_that_is_lost(cluster, model, tmp_path, monkeypatch):
    from ray import serve

    openai = pytest.importorskip("openai", reason="pip install openai")
    last, died = "The end", tmp_path / "died"

    class Dying(replicas.Replica):
        """Says what it was asked, and dies once, when it has computed an answer of which nobody has heard."""

        async def answer(self, key, scope, body):
            with open(tmp_path / f"{os.getpid()}", "ab") as file:
                file.write(body + b"\n")
            async for message in super().answer(key, scope, body):
                if last.encode() in body and not died.exists():
                    died.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                yield message

    def asked(text):
        """Who was asked something."""
        return [path.name for path in tmp_path.iterdir() for line in path.open() if text in line]

    monkeypatch.setattr(replicas, "Replica", Dying)
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        serve.run(server(Workers(model, number=2, at_once=4, loading={"chat_template": SAYS})))
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as client:

            def say(*texts):
                roles = ("user", "assistant") * len(texts)
                talk = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
                answer = client.chat.completions.create(model="tiny", messages=talk, max_tokens=6, temperature=0)
                return answer.choices[0].message.content

            for number in range(1000):  # until both are there
                say(f"The sun {number}")
                if len({*asked("The sun")}) == 2:
                    break
            words = ("dog", "cat", "bird", "red", "two", "three", "four", "five")
            words += ("house", "king", "lake", "moon", "night", "snow", "tree", "wolf")
            said = {word: say(f"There was a {word}") for word in words}
            for _ in range(3):
                for word in words:
                    assert say(f"There was a {word}", said[word], "And") != ""
            whose = {word: asked(f"There was a {word}") for word in words}
            assert all(len(names) == 4 and len({*names}) == 1 for names in whose.values()), whose
            assert len({names[0] for names in whose.values()}) == 2, "no replica has all of them"
            dying = ("There was a cat", said["cat"], last)
            answers = [say(*dying), *[say(f"There was a {word}") for word in words]]
            assert died.exists() and len({*asked(last)}) == 2, "one died of it, the other one answered"
            assert answers[1:] == [*said.values()]
        with edgeq.load(model, chat_template=SAYS) as alone:
            for number, texts in enumerate([dying, ("There was a dog",)]):
                roles = ("user", "assistant", "user")
                talk = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
                assert answers[number] == alone.chat(talk, max_tokens=6, temperature=0).text
    finally:
        serve.shutdown()


def known(**fields):
    return beginning(json.dumps({"model": "m", **fields}).encode())


def test_a_conversation_is_known_by_its_beginning():
    talk = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]
    more = [{"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert known(messages=talk) == known(messages=talk + more, temperature=0.3)
    assert known(messages=talk) != known(messages=[talk[0], {"role": "user", "content": "other"}])
    assert known(messages=talk) != beginning(json.dumps({"model": "n", "messages": talk}).encode())
    assert known(input="a" * 2000) == known(input="a" * 3000) != known(input="b" * 2000)
    assert known(prompt=[0, 2, 3]) != known(prompt=[0, 2, 4]) and known(prompt=["a", "b"])
    for body in (b"", b"{", b"[]", b"{}", b'{"model": "m"}', b"\xff"):
        assert beginning(body) == ""


def test_where_a_replica_goes_the_others_keep_theirs():
    keys, names = [str(i) for i in range(300)], ["a", "b", "c", "d"]
    first = {key: order(key, names)[0] for key in keys}
    assert min(list(first.values()).count(name) for name in names) > 300 / 4 / 2
    for key, name in first.items():
        assert order(key, [one for one in names if one != "c"])[0] == (order(key, names)[1] if name == "c" else name)
