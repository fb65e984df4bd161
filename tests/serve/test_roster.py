"""Several models: loaded when they are asked for, gone when nobody does and there is no room."""

import math
import threading
import time

import pytest
from counting import counting_model
from serving import hello, slow_model, wait_until

from edgeq.errors import FormatError, MemoryLimitError
from edgeq.serve.keep_alive import seconds
from edgeq.serve.roster import Roster

SIZE = sum(counting_model().session.memory().values())


class Loads:
    """Loaders of models that count, and what became of them."""

    def __init__(self):
        self.made = []

    def __call__(self, name, make=counting_model):
        def load(say):
            self.made.append((name, make()))
            return self.made[-1][1]

        return load

    @property
    def names(self):
        return [name for name, _ in self.made]

    @property
    def there(self):
        return [name for name, model in self.made if not model._closed]


def states(served):
    return {one["id"]: one["status"]["value"] for one in served.http.get("/v1/models").json()["data"]}


def begun(start, models, **options):
    served = start(models, **options)
    wait_until(lambda: served.roster.ready)
    return served


def ask(served, model, **fields):
    return served.post("/v1/chat/completions", **hello(model=model, **fields))


def test_each_is_loaded_when_it_is_first_asked_for(start):
    loads = Loads()
    served = begun(start, {name: loads(name) for name in "abc"})
    assert loads.names == ["a"] and states(served) == {"a": "loaded", "b": "unloaded", "c": "unloaded"}
    assert served.http.get("/ready").json() == {
        "ready": True,
        "models": {"a": "ready", "b": "not loaded", "c": "not loaded"},
    }
    assert [ask(served, name).status_code for name in "bbab"] == [200] * 4
    assert loads.names == ["a", "b"] and states(served) == {"a": "loaded", "b": "loaded", "c": "unloaded"}
    tags = {one["name"]: one["size"] > 0 for one in served.http.get("/api/tags").json()["models"]}
    assert tags == {"a": True, "b": True, "c": False}
    assert [one["name"] for one in served.http.get("/api/ps").json()["models"]] == ["a", "b"]


def test_many_that_ask_at_once_have_it_loaded_once(start):
    loads, go = Loads(), threading.Event()

    def late(say):
        say("half-way")
        go.wait(10)
        return loads("b")(say)

    served = begun(start, {"a": loads("a"), "b": late})
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(ask(served, "b").status_code)) for _ in range(5)]
    for thread in threads:
        thread.start()
    wait_until(lambda: served.http.get("/ready").json()["models"]["b"] == "half-way")
    assert states(served)["b"] == "loading" and ask(served, "a").status_code == 200 and not answers
    go.set()
    for thread in threads:
        thread.join()
    assert answers == [200] * 5 and loads.names == ["a", "b"]


def test_the_one_asked_for_longest_ago_gives_way(start):
    loads = Loads()
    served = begun(start, {name: loads(name) for name in "abc"}, budget=2.5 * SIZE)
    for name in "abac":
        assert ask(served, name).status_code == 200
    wait_until(lambda: loads.there == ["a", "c"])
    assert states(served) == {"a": "loaded", "b": "unloaded", "c": "loaded"}
    assert ask(served, "b").json()["choices"][0]["message"]["content"] == ";<="
    wait_until(lambda: loads.there == ["c", "b"])


def test_none_goes_while_it_answers(start):
    loads = Loads()
    slow = loads("slow", lambda: slow_model(context=400, jumps={ord("z"): ord("a")}))
    served = begun(start, {"slow": slow, "b": loads("b")}, budget=SIZE)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(ask(served, "slow", max_tokens=60).json()))
    thread.start()
    wait_until(lambda: served.roster.entries["slow"].users)
    assert ask(served, "b").status_code == 200
    assert served.post("/models/unload", model="slow").json()["status"] == "unloading"
    thread.join()
    assert answers[0]["usage"]["completion_tokens"] == 60
    wait_until(lambda: states(served) == {"slow": "unloaded", "b": "unloaded"})
    assert not loads.there


def test_a_single_one_may_take_more(start):
    loads = Loads()
    served = begun(start, {"a": loads("a"), "b": loads("b")}, budget=1)
    assert [ask(served, name).status_code for name in "aabb"] == [200] * 4
    wait_until(lambda: loads.there == ["b"])
    assert loads.names == ["a", "b"]


def test_one_that_finds_no_memory_has_others_give_way(start):
    loads = Loads()

    def large(say):
        if loads.there:
            raise MemoryLimitError("large: needs more")
        return loads("large")(say)

    served = begun(start, {"a": loads("a"), "b": loads("b"), "large": large})
    assert ask(served, "b").status_code == 200
    assert ask(served, "large").status_code == 200 and loads.there == ["large"]


def test_one_that_cannot_be_loaded(start):
    def broken(say):
        raise FormatError("/home/me/broken.eqf: is broken")

    def huge(say):
        raise MemoryLimitError("huge.eqf: needs more")

    loads = Loads()
    served = begun(start, {"a": loads("a"), "broken": broken, "huge": huge})
    answer = ask(served, "broken")
    assert answer.status_code == 500 and "/home/me" not in answer.text and "cannot be loaded" in answer.text
    answer = ask(served, "huge")
    assert answer.status_code == 503 and "not enough memory" in answer.json()["error"]["message"]
    assert states(served) == {"a": "unloaded", "broken": "unloaded", "huge": "unloaded"}
    assert ask(served, "a").status_code == 200 and loads.names == ["a", "a"]


def test_load_and_unload(start):
    loads = Loads()
    served = begun(start, {"a": loads("a"), "b": loads("b")})
    assert served.post("/models/load", model="b").json() == {"success": True, "model": "b", "status": "loaded"}
    assert served.post("/models/unload", model="a").json() == {"success": True, "model": "a", "status": "unloaded"}
    assert loads.there == ["b"] and states(served) == {"a": "unloaded", "b": "loaded"}
    assert served.post("/models/unload", model="a").json()["status"] == "unloaded"
    assert served.post("/models/load", model="c").status_code == 404


def test_what_clients_of_ollama_ask_to_keep(start):
    loads = Loads()
    served = begun(start, {"a": loads("a"), "b": loads("b")}, keep_s=1000)
    left = [one["expires_at"] for one in served.http.get("/api/ps").json()["models"]]
    assert left == ["9999-12-31T23:59:59Z"], "nobody has asked it yet"
    chat = {"messages": [{"role": "user", "content": "a"}], "options": {"num_predict": 2}, "stream": False}
    assert served.post("/api/chat", model="b", keep_alive=0, **chat).status_code == 200
    wait_until(lambda: loads.there == ["a"])
    assert served.post("/api/generate", model="b", keep_alive="150ms").json()["done_reason"] == "load"
    assert [one["name"] for one in served.http.get("/api/ps").json()["models"]] == ["a", "b"]
    wait_until(lambda: loads.there == ["a"])
    served.post("/api/chat", model="a", keep_alive=-1, **chat)
    assert served.http.get("/api/ps").json()["models"][0]["expires_at"] == "9999-12-31T23:59:59Z"
    served.post("/api/chat", model="a", **chat)
    wait_until(lambda: served.roster.entries["a"].expires)  # the request ends after its answer is here
    kept = served.roster.entries["a"].expires - time.time()
    assert 900 < kept <= 1000
    assert served.post("/api/generate", model="a", keep_alive=0).json()["done_reason"] == "unload"
    wait_until(lambda: not loads.there)
    assert served.post("/api/chat", model="a", keep_alive="soon", **chat).status_code == 400


@pytest.mark.parametrize(
    ("given", "meant"),
    [(0, 0), (300, 300), ("5m", 300), ("1h30m", 5400), ("1.5s", 1.5), ("300", 300), (-1, math.inf), ("-1m", math.inf)],
)
def test_times_to_keep(given, meant):
    assert seconds(given) == meant


@pytest.mark.parametrize("given", ["", "m", "5 minutes", "5m3", True, None, [5], math.nan, "1e5"])
def test_what_is_no_time(given):
    with pytest.raises(ValueError):
        seconds(given)


def test_names():
    roster = Roster({"a": lambda say: None, "b": lambda say: None})
    assert [roster.named(name) for name in (None, "", "b", "b:latest", "b.eqf")] == ["a", "a", "b", "b", "b"]
