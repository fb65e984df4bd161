"""A hostile chat template ends in one clear line, soon and without filling the memory."""

import resource
import time

import pytest

from edgeq.errors import TemplateError
from edgeq.text import sandbox
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
    monkeypatch.setattr(sandbox, "SECONDS", 1.0)
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
