"""A hostile chat template ends in one clear line, soon and without filling the memory."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgeq.errors import TemplateError
from edgeq.text import template_process
from edgeq.text.chat import ChatTemplate

TALK = [{"role": "user", "content": "Hello"}]
LOOP = "{% for i in range(99999) %}" * 3 + "BODY" + "{% endfor %}" * 3
DOUBLING = "{% set n = namespace(x=START) %}{% for i in range(60) %}{% set n.x = STEP %}{% endfor %}{{ n.x }}"


def doubling(start: str, step: str) -> str:
    return DOUBLING.replace("START", start).replace("STEP", step)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (LOOP.replace("BODY", ""), "takes longer"),
        (LOOP.replace("BODY", "x"), "takes longer|writes more"),
        ("{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}", "recursion|takes longer|writes more"),
        ("{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(40) }}", "takes longer"),
        (doubling("'ab'", "n.x ~ n.x"), "writes more"),
        (doubling("'ab'", "n.x + n.x"), "writes more"),
        (doubling("'ab'", "[n.x, n.x] | join"), "would write more|writes more"),
        (doubling("'ab'", "n.x * 2"), "writes more"),
        (doubling("'ab'", "n.x.replace('a', n.x)"), "would write more"),
        (doubling("'ab'", "n.x | replace('a', n.x)"), "would write more"),
        (doubling("'ab'", "'%s%s' % (n.x, n.x)"), "writes more|would write more"),
        (doubling("'ab'", "'{0}{0}'.format(n.x)"), "writes more|would write more"),
        (doubling("['ab']", "[n.x, n.x]"), "writes more"),
        (doubling("['ab']", "[n.x, n.x]").replace("{{ n.x }}", "{{ n.x | tojson }}"), "write more|writes more"),
        (doubling("['ab']", "n.x + n.x"), "writes more"),
        (doubling("{}", "dict(a=n.x, b=n.x)"), "writes more"),
        (doubling("3", "n.x * n.x"), "numbers of more than"),
        ("{% set n = namespace() %}{% set n.x = n %}{{ n }}", "recursion|writes more"),
        ("{{ 10 ** (10 ** 10) }}", "numbers of more than"),
        ("{{ 'a' * 10 ** 12 }}", "writes more"),
        ("{{ [0] * 10 ** 12 }}", "writes more"),
        ("{{ 'a'.ljust(10 ** 11) }}", "argument above"),
        ("{{ 'a' | center(10 ** 11) }}", "argument above"),
        ("{{ messages | tojson(indent=10 ** 11) }}", "argument above"),
        ("{{ 1.5 | round(10 ** 9) }}", "argument above"),
        ("{{ '%99999999999d' % 1 }}", "width above"),
        ("{{ '%*d' % (10 ** 11, 1) }}", "argument above"),
        ("{{ '{:>99999999999}'.format(1) }}", "width above"),
        ("{{ '{:>{}}'.format(1, 10 ** 11) }}", "argument above"),
        ("{{ '%99999999999d' | format(1) }}", "width above"),
        ("{{ '{0:>{1[0]}}'.format('x', [5000000]) }}", "width above"),
        ("{{ '{0:{1}}'.format('x', '>5000000') }}", "width above"),
        (r"{{ ('\t' * 99999).expandtabs(99999) }}", "would write more"),
        (r"{{ ('\n' * 99999) | indent(99999, true, true) }}", "would write more"),
        ("{{ range(10 ** 12) | list }}", "[Rr]ange"),
        ("{{ lipsum(n=10 ** 12) }}", "undefined"),
        ("{% set n = namespace(__class__=1) %}", "underscore"),
        ("{{ dict.__class__.x }}", "unsafe"),
        ("{{ dict.mro() }}", "no attribute|not callable|undefined"),
        ("{% for i in [1] %}" * 30 + "{% endfor %}" * 30, "malformed"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "fails|malformed"),
        ("{{ " + "9" * 5000 + " }}", "fails|malformed"),
    ],
)
def test_a_hostile_template_is_stopped(source: str, message: str, monkeypatch):
    """By the sandbox, where no process can be had for it."""
    monkeypatch.setattr(template_process, "SECONDS", 1.0)
    monkeypatch.setattr(template_process, "SUPPORTED", False)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.thread_time()
    with pytest.raises(TemplateError, match=message) as caught:
        ChatTemplate(source, {}).render(TALK)
    assert "\n" not in str(caught.value)
    assert time.thread_time() - began < 8
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most < 2 << 20  # KiB


def test_the_bounds_are_of_one_rendering():
    template = ChatTemplate("{{ messages[0].content * 100000 }}", {})
    for _ in range(3):
        assert len(template.render([{"role": "user", "content": "x" * 500}])) == 50_000_000


def test_a_long_conversation_is_within_the_bounds():
    source = (
        "{% for m in messages %}{% set last = messages | selectattr('role', 'equalto', 'user') | list | last %}"
        "{{ m.role ~ ': ' ~ m.content | trim }}{{ (m | tojson)[:5] }}{{ loop.last }}{% endfor %}"
    )
    talk = [{"role": "user", "content": "some words " * 200}] * 1000
    assert len(ChatTemplate(source, {}).render(talk)) > 2_200_000


# What is done in a single step, in which nothing within the process can stop it.
DOUBLED = "{% set NAME = namespace(x=['ab']) %}{% for i in range(40) %}{% set NAME.x = [NAME.x, NAME.x] %}{% endfor %}"
TWO = DOUBLED.replace("NAME", "m") + DOUBLED.replace("NAME", "n")
TUPLES = DOUBLED.replace("NAME", "n").replace("[n.x, n.x]", "(n.x, n.x)").replace("['ab']", "('ab',)")
LONG = "{% set s = 'ab' * 30000000 %}"
needs_process = pytest.mark.skipif(not template_process.SUPPORTED, reason="no process with limits here")


@needs_process
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (TWO + "{{ m.x == n.x }}", "longer than 0.1 seconds"),
        (TWO + "{{ [m.x, n.x] | sort }}", "longer than 0.1 seconds"),
        (TUPLES + "{{ {n.x: 1} }}", "longer than 0.1 seconds"),
        (TUPLES + "{{ [n.x] | unique | list | length }}", "longer than 0.1 seconds"),
        (LONG + "{{ s | batch(1) | list | length }}", "more than 512 MiB|longer than 3 seconds"),
        (LONG + "{{ s | sort | length }}", "more than 512 MiB|longer than 3 seconds"),
        (LONG + "{{ s | groupby('x') | length }}", "more than 512 MiB|longer than 3 seconds"),
        ("{{ x }}" * 300_000, "longer than 3 seconds|more than 512 MiB"),
    ],
)
def test_what_only_a_limit_of_the_system_stops(source, message, monkeypatch):
    monkeypatch.setattr(template_process, "SECONDS", 3.0 if "MiB" in message else 0.1)
    most, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(TemplateError, match=message) as caught:
        ChatTemplate(source, {}).render(TALK)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert time.process_time() - began < 1, "here nothing is done"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most < 50 << 10
    assert ChatTemplate("{{ messages[0].content }}", {}).render(TALK) == "Hello"


@pytest.mark.parametrize("elsewhere", [True, False])
@pytest.mark.parametrize(
    "source",
    [
        "{{ 1e400 | int }}",
        "{{ cycler() }}",
        "{{ messages | map('nothing') | list }}",
        "{{ strftime_now('\\ud800%') }}",
        "{{ caller() }}",
        "{{ messages | slice(0) | list }}",
        "{{ 'a' | int(base=99) }}{{ 1 // 0 }}",
        "{% include 'x' %}",
        "{{ loop.index }}",
        "{{ messages | tojson(indent='x', separators=1) }}",
    ],
)
def test_whatever_python_raises_is_one_line(source, elsewhere, monkeypatch):
    monkeypatch.setattr(template_process, "SUPPORTED", elsewhere and template_process.SUPPORTED)
    with pytest.raises(TemplateError, match=r"the chat template (is|refuses|fails|was)") as caught:
        ChatTemplate(source, {}).render(TALK)
    assert "\n" not in str(caught.value)


def test_a_template_s_own_words_are_cut():
    with pytest.raises(TemplateError, match=r"refuses this conversation: x{300}\.\.\.$"):
        ChatTemplate("{{ raise_exception('x' * 100000) }}", {}).render(TALK)


def test_a_conversation_that_is_nested_too_deeply():
    for depth in (900, 100_000):
        content: list = []
        for _ in range(depth):
            content = [content]
        with pytest.raises(TemplateError, match="nested too deeply"):
            ChatTemplate("{{ messages }}", {}).render([{"role": "user", "content": content}])


@needs_process
def test_one_process_renders_all_and_ends_with_this_one(tmp_path):
    """Also where this one is killed, and where it is killed amid a rendering."""
    code = """
import os, signal, sys
from edgeq.text import template_process as own
from edgeq.text.chat import ChatTemplate
talk = [{"role": "user", "content": "Hello"}]
seen = set()
for i in range(5):
    assert ChatTemplate("{{ messages[0].content }}" * (i + 1), {}).render(talk) == "Hello" * (i + 1)
    seen |= {one._process.pid for one in own._idle}
assert len(seen) == 1
assert not {name for name in sys.modules if name.startswith("jinja2")}, "this one is spared its memory"
print(*seen, flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""
    for how in ("ended", "killed"):
        command = [sys.executable, "-c", code, how]
        found = subprocess.run(command, capture_output=True, text=True)
        assert found.returncode == (0 if how == "ended" else -signal.SIGKILL), found.stderr
        _wait_until_gone(int(found.stdout))


def _wait_until_gone(pid: int) -> None:
    until = time.monotonic() + 10
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        state = Path(f"/proc/{pid}/stat")
        if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":
            return  # nobody has asked for its end yet
        assert time.monotonic() < until, "it was left behind"
        time.sleep(0.01)


@needs_process
def test_a_process_that_is_gone_is_replaced():
    template = ChatTemplate("{{ messages[0].content }}", {})
    template.render(TALK)
    os.kill(template_process._idle[-1]._process.pid, signal.SIGKILL)
    template_process._idle[-1]._process.wait()
    assert template.render(TALK) == "Hello"


@needs_process
def test_an_interrupted_rendering_leaves_no_answer_to_the_next(monkeypatch):
    template = ChatTemplate("{{ messages[0].content }}", {})
    template.render(TALK)

    def interrupted(self, nbytes, until):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(template_process._Process, "_read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            template.render([{"role": "user", "content": "first"}])
    assert template.render(TALK) == "Hello"


@needs_process
def test_a_fork_has_a_process_of_its_own():
    template = ChatTemplate("{{ messages[0].content }}", {})
    template.render(TALK)
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.write(write, template.render([{"role": "user", "content": "child"}]).encode())
        finally:
            os._exit(0)
    assert template.render(TALK) == "Hello"
    os.waitpid(pid, 0)
    assert os.read(read, 100) == b"child"
    os.close(read)
    os.close(write)


def test_threads_render_at_once():
    wrong = []

    def work(number: int) -> None:
        template = ChatTemplate("{{ messages[0].content }}" * (number + 1), {})
        for i in range(20):
            text = f"{number} {i}"
            if template.render([{"role": "user", "content": text}]) != text * (number + 1):
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(template_process._idle) <= 2


@pytest.mark.parametrize(
    "value", [1.5, float("inf"), None, True, (1, "a"), {"ü": [1]}, {1: 2}, "\ud800", 1 << 200, "\0"]
)
def test_values_come_as_they_are(value):
    """Those that JSON has not, too."""
    template = "{{ v == messages[0].v }}{{ v.__class__ is undefined }}{{ v | pprint }}"
    text = ChatTemplate(template, {}).render([{"role": "user", "v": value}], v=value)
    assert text.startswith("TrueTrue" if value is not None else "FalseTrue"), json.dumps(text)
