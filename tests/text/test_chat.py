import datetime
import enum
import json
from pathlib import Path

import numpy as np
import pytest
import small_tokenizers as small

from edgeq.errors import TemplateError, UsageError
from edgeq.text.chat import ChatTemplate
from edgeq.text.tokenizer import load_tokenizer

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi"},
    {"role": "user", "content": "What is <b>½</b> & 'x'?"},
]
CHATML = """{% for message in messages %}
    {{ '<|im_start|>' + message.role + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def render(source: str, messages=TALK, **variables) -> str:
    return ChatTemplate(source, TOKENS).render(messages, **variables)


def test_blocks_are_trimmed_as_models_expect():
    assert render(CHATML, TALK[:2]) == (
        "    <|im_start|>system\nBe brief.<|im_end|>\n    <|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )
    assert render(CHATML, TALK[1:2], add_generation_prompt=False) == "    <|im_start|>user\nHello<|im_end|>\n"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ bos_token }}|{{ eos_token }}|{{ pad_token }}", "<s>|</s>|"),
        ("{{ messages[3]['content'] | tojson }}", "\"What is <b>½</b> & 'x'?\""),
        ("{{ {'b': [1, 'ü'], 'a': none} | tojson }}", '{"b": [1, "ü"], "a": null}'),
        ("{{ {'a': 1} | tojson(indent=2) }}", '{\n  "a": 1\n}'),
        ("{{ tools is none }} {{ documents is none }}", "True True"),
        ("{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{{ m.role[0] }}{% endfor %}", "su"),
        ("{% generation %}{{ messages[1].content }}{% endgeneration %}!", "Hello!"),
        ("{% set n = namespace(x=1) %}{% for m in messages %}{% set n.x = n.x + 1 %}{% endfor %}{{ n.x }}", "5"),
        ("{{ messages[1].content.strip().upper() }}", "HELLO"),
        ("{{ strftime_now('%Y') }}", str(datetime.date.today().year)),
        ("{{ messages[1:] | map(attribute='role') | join(',') }}", "user,assistant,user"),
    ],
)
def test_what_templates_may_use(source, expected):
    assert render(source) == expected


def test_extra_variables_reach_the_template():
    assert render("{{ enable_thinking }}", enable_thinking=False) == "False"
    assert render("{{ tools[0].name }}", tools=[{"name": "clock"}]) == "clock"


def test_templates_by_name():
    template = ChatTemplate({"default": "plain", "tool_use": "tools", "rag": "docs"}, TOKENS)
    assert template.names == ["default", "tool_use", "rag"]
    assert template.render(TALK) == "plain"
    assert template.render(TALK, tools=[{"name": "clock"}]) == "tools"
    assert template.render(TALK, name="rag") == "docs"
    with pytest.raises(TemplateError, match=r"no chat template named 'x': it has default, tool_use, rag"):
        template.render(TALK, name="x")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for m in messages %}", "malformed: line 1"),
        ("{{ raise_exception('Roles must\nalternate') }}", "refuses this conversation: Roles must alternate"),
        ("{{ messages + 1 }}", "fails on this conversation"),
        ("{{ undefined_thing.x }}", "'undefined_thing' is undefined"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{% include 'x' %}", "no loader"),
        ("{% for i in range(1000000000) %}{% endfor %}", "fails"),
    ],
)
def test_bad_templates_give_one_clear_line(source, message):
    with pytest.raises(TemplateError, match=message) as caught:
        render(source)
    assert "\n" not in str(caught.value)


def test_the_conversation_is_not_changed():
    talk = [{"role": "user", "content": "a"}]
    with pytest.raises(TemplateError):
        render("{{ messages[0].update({'content': 'b'}) }}", talk)
    assert talk == [{"role": "user", "content": "a"}]


def test_a_tokenizer_brings_its_template():
    own = small.byte_level_assets(chat_template="config", eos_token="<|im_end|>")
    assert load_tokenizer(small.byte_level_assets()).chat_template is None
    assert load_tokenizer(own).chat_template.render(TALK) == "config"
    beside = own | {"chat_template.jinja": b"file {{ eos_token }}"}
    assert load_tokenizer(beside).chat_template.render(TALK) == "file <|im_end|>", "the file of its own wins"
    named = [{"name": "default", "template": "d"}, {"name": "x", "template": "e"}]
    several = small.byte_level_assets(chat_template=named)
    assert load_tokenizer(several).chat_template.render(TALK, name="x") == "e"
    keyed = small.byte_level_assets(chat_template={"default": "d", "tool_use": "t"})
    assert load_tokenizer(keyed).chat_template.render(TALK, tools=[{}]) == "t"
    old = small.byte_level_assets() | {"chat_template.json": json.dumps({"chat_template": "old"}).encode()}
    assert load_tokenizer(old).chat_template.render(TALK) == "old"


def test_templates_in_files_of_their_own():
    """As transformers saves them: the default one, and further ones in a folder, before any other."""
    listed = [{"name": "default", "template": "config"}, {"name": "rag", "template": "rag of config"}]
    own = small.byte_level_assets(chat_template=listed) | {"chat_template.tool_use.jinja": b"{{ tools|length }} tools"}
    both = load_tokenizer(own | {"chat_template.jinja": b"file"}).chat_template
    assert both.render(TALK) == "file" and both.render(TALK, tools=[{}, {}]) == "2 tools"
    assert sorted(both.names) == ["default", "tool_use"]
    alone = load_tokenizer(own).chat_template
    assert alone.render(TALK, tools=[]) == "0 tools"
    with pytest.raises(TemplateError, match="no chat template named 'default': it has tool_use"):
        alone.render(TALK)


def test_a_generated_prompt_for_a_real_model(shared_data: Path):
    folder = shared_data / "tokenizers" / "qwen2.5"
    tokenizer = load_tokenizer({p.name: p.read_bytes() for p in folder.iterdir() if "tokenizer" in p.name})
    prompt = tokenizer.chat_template.render(TALK)
    assert prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
        "<|im_start|>assistant\nHi<|im_end|>\n"
        "<|im_start|>user\nWhat is <b>½</b> & 'x'?<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = tokenizer.encode(prompt)
    assert ids.count(tokenizer.token_id("<|im_start|>")) == 5


def test_fields_that_are_none_are_left_out():
    talk = [{"role": "assistant", "content": None, "tool_calls": None}]
    assert render("{{ messages[0] | tojson }} {{ 'content' in messages[0] }}", talk) == '{"role": "assistant"} False'


def test_an_answers_reasoning_goes_by_each_of_its_names():
    talk = [{"role": "assistant", "content": "a", "reasoning": "r"}]
    assert (
        render("{{ messages[0].reasoning_content }}{{ messages[0].thinking }}{{ messages[0].reasoning }}", talk)
        == "rrr"
    )


def test_the_generation_tag_is_a_scope():
    assert render("{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}") == "21"


class _Role(str, enum.Enum):  # noqa: UP042  (whose str() is not its value)
    USER = "user"


def test_templates_get_plain_data_only():
    talk = [{"role": _Role.USER, "content": "a", "image": Path("x"), "n": np.float32(0.5), "b": np.bool_(False)}]
    assert render("{{ messages[0] | tojson }}", talk) == (
        '{"role": "user", "content": "a", "image": "<PosixPath>", "n": 0.5, "b": false}'
    )


def test_tools_are_dictionaries():
    with pytest.raises(UsageError, match="tools must be dictionaries"):
        render("x", tools=[len])


def test_an_empty_conversation_is_refused():
    with pytest.raises(TemplateError, match="the conversation is empty"):
        render("x", [])
