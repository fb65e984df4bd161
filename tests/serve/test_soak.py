"""Clients that leave whenever they like: nothing is computed for them any longer, no page is lost, no thread stays."""

import asyncio
import gc
import importlib
import json
import os
import socket
import time
from pathlib import Path

import pytest
from serving import hello, serving, slow_model, wait_until

import edgeq

BENCH = Path(edgeq.__file__).parents[1] / "bench"


@pytest.fixture
def soak(monkeypatch):
    pytest.importorskip("psutil")
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("soak")


def test_no_page_is_lost(soak, tiny_model, tmp_path, caplog):
    path = tmp_path / "tiny.eqf"
    edgeq.convert(tiny_model, path, "Q8_0")
    with serving({"tiny": lambda say: edgeq.load(path, threads=2, context=256)}) as served:
        wait_until(lambda: served.roster.ready, 120)
        port = int(served.url.rpartition(":")[2])
        asyncio.run(soak.wander(port, 1, clients=1, patience=5))
        engine = served.roster.entries["tiny"].engine
        wait_until(lambda: engine.running == engine.waiting == 0, 2)
        time.sleep(0.1)
        there = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
        ends = asyncio.run(soak.wander(port, 80, clients=8, patience=0.1))
        assert not caplog.records, "a client that leaves is no fault"
        assert {*ends} <= {"200", "400", "left"} and ends["200"] and ends["left"]
        wait_until(lambda: engine.running == engine.waiting == 0, 2)
        if os.path.isdir("/proc/self/task"):
            wait_until(lambda: len(os.listdir("/proc/self/task")) <= there, 5)  # no thread stays
        said = soak.gauges(port)
        assert said["requests_running"] == said["requests_waiting"] == 0
        assert 0 < said["kv_used_bytes"] <= said["kv_room_bytes"], "texts are kept"
        shared = engine.model._shared
        shared.alone(lambda cache: cache.clear())
        shared.scheduler.alone(lambda: (shared.scheduler._sweep(), shared.scheduler.batch.clear()))
        gc.collect()
        assert soak.gauges(port)["kv_used_bytes"] == 0


def test_computing_stops_soon(start):
    """Within 300 ms, of which a pass under way takes 10."""
    served = start({"slow": lambda say: slow_model(context=2000, jumps={ord("z"): ord("a")})})
    wait_until(lambda: served.roster.ready)
    engine = served.roster.entries["slow"].engine
    took = []
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses", "/api/chat"):
        for stream in (True, False):
            before = len(engine.model.session.evaluated)
            fields = {**hello(max_tokens=1500, stream=stream), "model": "slow"}
            fields["prompt" if path == "/v1/completions" else "input"] = "a"
            body = json.dumps({**fields, "options": {"num_predict": 1500, "temperature": 0}}).encode()
            with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as client:
                head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
                client.sendall(head.encode() + body)
                wait_until(lambda before=before: len(engine.model.session.evaluated) > before + 9)
            left = time.monotonic()
            wait_until(lambda: engine.running == 0, 2)
            took.append(time.monotonic() - left)
    assert sorted(took)[len(took) // 2] < 0.3 and max(took) < 1.5
