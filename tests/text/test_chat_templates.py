"""Chat templates of real models give what transformers gives (tests/golden/chat_templates.json)."""

import datetime
import json
from collections.abc import Iterator
from pathlib import Path

import chat_cases
import pytest

from edgeq.errors import TemplateError
from edgeq.text import chat

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "chat_templates.json").read_text(encoding="utf-8"))
CASES = [(kind, prompt) for kind in GOLDEN["kinds"] for prompt in (True, False)]


class _Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return chat_cases.NOW


@pytest.fixture
def _clock(monkeypatch) -> None:
    monkeypatch.setattr(chat, "datetime", _Clock)


def renderings(source: str, system_prompt: str | None) -> Iterator[str | None]:
    """Digests in the order of CASES; None where the template refuses, in one line."""
    template = chat.ChatTemplate(source, chat_cases.SPECIAL_TOKENS)
    for kind, generation_prompt in CASES:
        messages, tools = chat_cases.conversation(kind, system_prompt)
        try:
            yield chat_cases.digest(template.render(messages, generation_prompt, tools=tools))
        except TemplateError as error:
            assert "\n" not in str(error)
            yield None


def test_the_golden_file_is_of_these_conversations():
    assert GOLDEN["kinds"] == list(chat_cases.CONVERSATIONS)
    assert all(len(entry["renderings"]) == len(CASES) for entry in GOLDEN["templates"].values())
    assert sum(d is not None for e in GOLDEN["templates"].values() for d in e["renderings"]) > 1400


@pytest.mark.parametrize("name", GOLDEN["templates"])
@pytest.mark.usefixtures("_clock")
def test_a_template_renders_as_in_transformers(name: str, shared_data: Path):
    found = {name: (source, system) for name, source, system in chat_cases.templates(shared_data)}
    if name not in found:
        pytest.skip(f"the test data has no chat template {name}")
    source, system_prompt = found[name]
    expected = GOLDEN["templates"][name]
    assert chat_cases.digest(source) == expected["source"], "another version: tools/make_template_golden.py"
    unlike = {
        case: (is_, should)
        for case, is_, should in zip(CASES, renderings(source, system_prompt), expected["renderings"], strict=True)
        if is_ != should
    }
    assert not unlike


def test_every_template_of_the_test_data_has_its_golden_renderings(shared_data: Path):
    assert {name for name, _, _ in chat_cases.templates(shared_data)} == set(GOLDEN["templates"])
