"""Models that clients have fetched and removed while the server runs."""

import json
import threading
from pathlib import Path

import ollama
import pytest
from counting import counting_model
from serving import serving, wait_until

from edgeq.cli.served import Pulled
from edgeq.errors import CheckpointError, NotFoundError
from edgeq.store.model_cache import Cached


class Shelf:
    """Has "owner/new"; `open` is set where it may be fetched."""

    def __init__(self) -> None:
        self.fetched: list[str] = []
        self.removed: list[str] = []
        self.open = threading.Event()
        self.open.set()

    def fetch(self, name, tell):
        self.fetched.append(name)
        tell("pulling", 1, 2)
        assert self.open.wait(10)
        if name == "owner/broken":
            raise CheckpointError("/secret/place: is damaged: download it again")
        if name != "owner/new":
            raise NotFoundError(f"{name}: no such repository")
        return lambda say: counting_model()

    def remove(self, name):
        self.removed.append(name)


@pytest.fixture
def shelf():
    return Shelf()


@pytest.fixture
def served(shelf):
    with serving({"first": lambda say: counting_model()}, library=shelf) as server:
        wait_until(lambda: server.roster.ready)
        yield server


def names(served) -> list[str]:
    return [model["name"] for model in served.http.get("/api/tags").json()["models"]]


def test_a_client_fetches_asks_and_deletes(served, shelf):
    client = ollama.Client(host=served.url)
    told = list(client.pull("owner/new", stream=True))
    assert [one.status for one in told] == ["pulling", "success"]
    assert (told[0].completed, told[0].total) == (1, 2)
    assert names(served) == ["first", "owner/new"]
    answer = client.generate("owner/new", "a", raw=True, options={"num_predict": 2, "temperature": 0})
    assert answer.response == "bc"
    assert client.delete("owner/new").status == "success"
    assert names(served) == ["first"] and shelf.removed == ["owner/new"]
    assert served.post("/api/generate", model="owner/new", prompt="a").status_code == 404


def test_what_is_there_is_not_fetched_again(served, shelf):
    assert served.post("/api/pull", model="first", stream=False).json() == {"status": "success"}
    assert served.post("/api/pull", name="first:latest").text == '{"status":"success"}\n'
    assert shelf.fetched == []


def test_two_that_want_the_same_wait_for_one(served, shelf):
    shelf.open.clear()
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(served.post("/api/pull", model="owner/new", stream=False)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: shelf.fetched)
    assert served.http.get("/health").status_code == 200
    shelf.open.set()
    for thread in threads:
        thread.join()
    assert [answer.json() for answer in answers] == [{"status": "success"}] * 2
    assert shelf.fetched == ["owner/new"]


def test_what_cannot_be_fetched_is_told_without_our_paths(served, caplog):
    answer = served.post("/api/pull", model="owner/none", stream=False)
    assert (answer.status_code, answer.json()["error"]) == (404, "there is no model 'owner/none' to be fetched")
    lines = [json.loads(one) for one in served.post("/api/pull", model="owner/broken").text.splitlines()]
    assert lines[-1] == {"error": "the model owner/broken cannot be fetched: the server's log says why"}
    assert "/secret/place: is damaged" in caplog.text


@pytest.mark.parametrize("name", ["/etc/passwd", "../up", "./here", "a/../b", "https://host/x", "a b", "x" * 300, ""])
def test_no_path_and_no_address_is_fetched(served, shelf, name):
    answer = served.post("/api/pull", model=name, stream=False)
    assert answer.status_code == 400 and "model is" in answer.json()["error"]
    assert shelf.fetched == []


def test_what_the_server_was_started_with_stays(served):
    answer = served.http.request("DELETE", "/api/delete", json={"model": "first"})
    assert answer.status_code == 403 and names(served) == ["first"]
    assert served.http.request("DELETE", "/api/delete", json={"model": "none"}).status_code == 404


def test_without_a_library_nothing_is_fetched():
    with serving({"first": lambda say: counting_model()}) as served:
        wait_until(lambda: served.roster.ready)
        answer = served.post("/api/pull", model="owner/new", stream=False)
        assert (answer.status_code, answer.json()) == (
            403,
            {"error": "this server fetches no models: start it with --allow-pull"},
        )


def test_of_the_cache_names_of_files_are_no_models(tmp_path, monkeypatch):
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "name").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("edgeq.store.model_cache.runnable", lambda *given: pytest.fail("it was made"))
    for name in ("owner/name", "word"):
        with pytest.raises(NotFoundError, match="is no repository's name"):
            Pulled({}).fetch(name, lambda status, done=None, total=None: None)


def test_the_cache_makes_and_loads_what_is_asked_for(monkeypatch):
    made = []

    def runnable(name, announce, progress):
        announce("converting")
        progress("blk.0", 1, 2)
        made.append(name)
        return "made.eqf"

    monkeypatch.setattr("edgeq.store.model_cache.runnable", runnable)
    monkeypatch.setattr("edgeq.cli.served.load_served", lambda path, loading, say: (path, loading))
    told = []
    load = Pulled({"context": 64}).fetch("smollm2", lambda *args: told.append(args))
    assert made == ["smollm2"] and told == [("converting",), ("blk.0", 1, 2)]
    assert load(print) == ("made.eqf", {"context": 64})


def test_what_is_in_the_cache_is_there_at_the_start(monkeypatch):
    files = [Cached(Path(path), name, name, "Q8_0", 1, 0.0, "", False) for path, name in (("a", "x"), ("b", "x"))]
    monkeypatch.setattr("edgeq.store.model_cache.cached", lambda: files)
    monkeypatch.setattr("edgeq.cli.served.load_served", lambda path, loading, say: path)
    assert {name: load(print) for name, load in Pulled({}).loaders().items()} == {"x": "a"}
