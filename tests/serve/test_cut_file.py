"""A server one of whose models' files is cut short: that one tells so, the others go on."""

import os

import pytest
from serving import hello, wait_until

from edgeq.loading import load
from edgeq.quantize.pipeline import convert

pytestmark = pytest.mark.skipif(os.name != "posix", reason="on Windows no mapped file can be cut")
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


def test_other_models_go_on(start, tmp_path, tiny_model):
    paths = [tmp_path / f"{name}.eqf" for name in ("cut", "whole")]
    for path in paths:
        convert(tiny_model, path, "Q8_0")
    models = {path.stem: (lambda say, path=path: load(path, threads=2, chat_template=TEMPLATE)) for path in paths}
    served = start(models)
    wait_until(lambda: served.roster.ready, 60)

    def ask(model):
        return served.post("/v1/chat/completions", model=model, **hello(max_tokens=8))

    before = ask("whole").json()["choices"]
    assert ask("cut").json()["choices"] == before
    os.truncate(paths[0], 4096)
    for _ in range(2):
        answer = ask("cut")
        assert answer.status_code == 500 and "cut.eqf: became shorter while" in answer.json()["error"]["message"]
        assert ask("whole").json()["choices"] == before
