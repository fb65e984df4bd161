"""A server from its start to its end: who may ask, what is told while models load, how it ends."""

import os
import signal
import socket
import subprocess
import sys
import threading
from inspect import signature
from pathlib import Path

import httpx
import pytest
from counting import counting_model
from serving import hello, wait_until

from edgeq.cli import main, run, served
from edgeq.loading import load
from edgeq.serve.engine import AT_ONCE
from edgeq.serve.guard import Rules, is_loopback
from edgeq.serve.listening import open_socket

COUNTING = {"counting": lambda say: counting_model()}


def test_what_is_told_of_models(served):
    assert served.http.get("/health").json() == {"status": "ok"}
    ready = served.http.get("/ready")
    assert ready.status_code == 200 and ready.json() == {
        "ready": True,
        "models": {"counting": "ready", "slow": "ready"},
    }
    models = served.http.get("/v1/models").json()
    assert [(one["id"], one["object"], one["max_model_len"]) for one in models["data"]] == [
        ("counting", "model", 64),
        ("slow", "model", 2000),
    ]
    assert served.http.get("/v1/models/slow").json()["id"] == "slow"
    missing = served.http.get("/v1/models/other")
    assert missing.status_code == 404 and missing.json()["error"]["code"] == "model_not_found"


def test_until_models_are_loaded(start):
    go = threading.Event()

    def load(say):
        say("half-way")
        go.wait(10)
        return counting_model()

    served = start({"late": load})
    wait_until(lambda: served.http.get("/ready").json() == {"ready": False, "models": {"late": "half-way"}})
    assert served.http.get("/ready").status_code == 503 and served.http.get("/health").status_code == 200
    answer = served.post("/v1/chat/completions", **hello())
    assert answer.status_code == 503 and answer.headers["retry-after"]
    assert answer.json()["error"]["code"] == "model_loading"
    go.set()
    wait_until(lambda: served.http.get("/ready").status_code == 200)
    assert served.post("/v1/chat/completions", **hello()).status_code == 200


def test_names_that_lead_here_from_elsewhere(start):
    served = start(COUNTING, Rules(hosts=["box.local"]))
    port = served.url.rpartition(":")[2]
    for host in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]", "192.168.1.7", "box.local"):
        assert served.http.get("/health", headers={"Host": f"{host}:{port}"}).status_code == 200, host
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::", "a b"):
        answer = served.http.get("/v1/models", headers={"Host": host})
        assert answer.status_code in (400, 403), host
    assert "--allow-host" in served.http.get("/v1/models", headers={"Host": "evil.example"}).json()["error"]["message"]


def test_pages_of_other_origins(start):
    served = start(COUNTING, Rules(origins=["https://mine.example"]))
    own = {"Origin": served.url}
    assert served.http.get("/v1/models", headers=own).status_code == 200
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        answer = served.http.get("/v1/models", headers={"Origin": origin})
        assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers
    mine = {"Origin": "https://mine.example"}
    answer = served.http.get("/v1/models", headers=mine)
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == "https://mine.example"
    asked = {**mine, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-mine"}
    answer = served.http.options("/v1/chat/completions", headers=asked)
    assert answer.status_code == 204 and answer.headers["access-control-allow-headers"] == "x-mine"
    assert served.http.options("/v1/models", headers={**own, "Origin": "https://evil.example"}).status_code == 403


@pytest.mark.parametrize("headers", [{"Authorization": "Bearer second"}, {"x-api-key": "first"}])
def test_with_a_key(start, headers):
    served = start(COUNTING, Rules(keys=["first", "second"]))
    assert served.http.get("/health").status_code == 200
    for wrong in ({}, {"Authorization": "Bearer third"}, {"Authorization": "Basic first"}, {"x-api-key": "firs"}):
        answer = served.http.get("/v1/models", headers=wrong)
        assert answer.status_code == 401 and answer.json()["error"]["type"] == "authentication_error"
    assert served.http.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "own"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("10.0.0.1", False)]
)
def test_which_addresses_are_this_machine_s(host, own):
    assert is_loopback(host) is own


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m.eqf", "--host", "0.0.0.0"], "lets other machines ask: give --api-key-file"),
        (["a/m.eqf", "b/m.eqf"], "two models are called m"),
        (["m.eqf", "--api-key-file", "no-such-file"], "no-such-file"),
    ],
)
def test_what_the_verb_refuses(arguments, message, capfd, monkeypatch):
    monkeypatch.delenv("EDGEQ_API_KEY", raising=False)
    assert main(["serve", *arguments]) == 2
    assert message in capfd.readouterr().err


def test_what_is_not_installed_is_named(capfd, monkeypatch):
    monkeypatch.setattr("edgeq.cli.served.find_spec", lambda name: None if name == "uvicorn" else object())
    assert main(["serve", "m.eqf"]) == 2
    assert "serving needs uvicorn, not installed here: pip install 'edgeq[serve]'" in capfd.readouterr().err


def test_all_options_of_loading_reach_it(tmp_path, monkeypatch):
    """Also those that come later: none is passed over in silence."""
    given = {}
    monkeypatch.setattr("edgeq.loading.load", lambda path, **options: given.update(options))
    (tmp_path / "template").write_text("{{ messages }}")
    names = {parameter.name for parameter in run.command.params} & {*signature(load).parameters}
    assert {"threads", "context", "kv", "force"} <= names
    loading = {**dict.fromkeys(names, 1), "template": tmp_path / "template"}
    served.load_served("m.eqf", loading, print)
    assert names <= {*given} and given["chat_template"] == "{{ messages }}"


def test_a_port_that_is_taken(capfd):
    with open_socket("127.0.0.1", 0) as taken:
        assert taken.proto == socket.IPPROTO_TCP, "else asyncio leaves Nagle's delay on: 40 ms for each answer"
        port = taken.getsockname()[1]
        assert main(["serve", "m.eqf", "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in capfd.readouterr().err


def test_metrics_count(start):
    served = start(COUNTING)
    wait_until(lambda: served.roster.ready)
    served.post("/v1/chat/completions", **hello())
    served.post("/v1/chat/completions", **hello(max_tokens=-2))
    text = served.http.get("/metrics").text
    for line in (
        'edgeq_http_answers_total{path="/v1/chat/completions",status="200"} 1',
        'edgeq_http_answers_total{path="/v1/chat/completions",status="400"} 1',
        'edgeq_texts_total{model="counting",reason="length"} 1',
        'edgeq_tokens_total{model="counting",kind="generated"} 3',
        'edgeq_first_token_seconds_count{model="counting"} 1',
        'edgeq_requests_running{model="counting"} 0',
        'edgeq_kv_room_bytes{model="counting"} 1048576',
    ):
        assert line in text.splitlines()


def test_slots(served):
    idle = served.http.get("/slots").json()
    assert len(idle) == AT_ONCE and not any(one["is_processing"] for one in idle)
    fields = hello(model="slow", max_tokens=500, stream=True)
    with served.http.stream("POST", "/v1/chat/completions", json=fields) as answer:
        lines = answer.iter_lines()
        while '"content":";"' not in next(lines):
            pass
        first = served.http.get("/slots").json()[0]
        assert first["is_processing"] and first["model"] == "slow" and first["n_prompt_tokens"] == 6
        assert first["next_token"]["n_decoded"] >= 1
        assert first["next_token"]["n_remain"] + first["next_token"]["n_decoded"] == 500
        assert "a:" not in str(first)
    wait_until(lambda: not served.http.get("/slots").json()[0]["is_processing"])


SERVE = """
import sys, time
from edgeq.cli import serve
from edgeq.__main__ import main
sys.path[:0] = {path!r}
from serving import slow_model
from counting import counting_model

def load(path, loading, say):
    if path == "broken.eqf":
        from edgeq.errors import FormatError
        raise FormatError("broken.eqf: is broken")
    return slow_model(context=100)

serve.load_served = load
sys.argv = ["edgeq", "serve", *sys.argv[1:]]
sys.exit(main())
"""


def begun(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A process of the verb over a model that takes 10 ms a token, and its address."""
    here = Path(__file__).parent
    code = SERVE.format(path=[str(here), str(here.parent)])
    command = [sys.executable, "-c", code, *arguments, "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("edgeq: listening on http://127.0.0.1:"), line + process.stderr.read()
    return process, line.split()[3].rstrip(",")


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_signal_lets_answers_finish():
    process, url = begun("slow.eqf")
    assert process.stderr is not None and process.stderr.readline() == "edgeq: ready\n"
    fields = hello(max_tokens=50, stream=True)
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=fields, timeout=30) as answer:
        lines = answer.iter_lines()
        next(lines)
        process.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]" and '"finish_reason":"length"' in rest[-2]
    assert process.wait(10) == 0


def test_a_model_that_cannot_be_loaded_ends_it():
    process, _ = begun("broken.eqf")
    _, said = process.communicate(timeout=10)
    assert process.returncode == 2 and said.strip() == "edgeq: broken.eqf: is broken"


ACTIVATED = """
import os, socket, sys
os.environ["LISTEN_PID"] = str(os.getpid())
listening = socket.socket(fileno=int(sys.argv.pop(1)))
if listening.fileno() != 3:
    os.dup2(listening.fileno(), 3)
    listening.detach()
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_service_of_systemd(tmp_path):
    """The socket is there before the process, which tells when it is ready and when it ends."""
    here = Path(__file__).parent
    code = ACTIVATED + SERVE.format(path=[str(here), str(here.parent)])
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(str(tmp_path / "notify"))
    told.settimeout(30)
    with told, socket.create_server(("127.0.0.1", 0)) as listening:
        variables = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "LISTEN_FDS": "1"}
        command = [sys.executable, "-c", code, str(listening.fileno()), "slow.eqf"]
        fds = [listening.fileno()]
        with subprocess.Popen(command, pass_fds=fds, env=variables, stderr=subprocess.DEVNULL) as process:
            assert told.recv(100) == b"READY=1"
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            assert httpx.get(f"{url}/health").json() == {"status": "ok"}
            process.terminate()
            assert told.recv(100) == b"STOPPING=1"
    assert process.returncode == 0


def test_a_passed_socket_that_others_reach_needs_a_key_too(monkeypatch, capfd):
    monkeypatch.delenv("EDGEQ_API_KEY", raising=False)
    with socket.create_server(("0.0.0.0", 0)) as listening:
        monkeypatch.setattr("edgeq.serve.systemd.passed_socket", lambda: listening)
        assert main(["serve", "m.eqf"]) == 2
    assert "lets other machines ask" in capfd.readouterr().err
