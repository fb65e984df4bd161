"""Write tests/golden/chat_templates.json: what transformers renders of every chat template in the test data.

    python tools/make_template_golden.py [--data FOLDER]

Needs transformers and jinja2. Of each rendering a digest is kept, and null where transformers raises. FOLDER is the
folder of test data, by default $EDGEQ_TEST_DATA. Run it again after tests/chat_cases.py has changed.
"""

import argparse
import datetime
import json
import os
import sys
from pathlib import Path
from typing import Any

import jinja2
import tokenizers
import transformers
from transformers.utils import chat_template_utils

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tests"))

import chat_cases  # noqa: E402

GOLDEN = REPOSITORY / "tests" / "golden" / "chat_templates.json"
# What templates raise on a conversation that they were not written for.
FAULTS = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)


class _Clock(datetime.datetime):
    """datetime with the time of the golden renderings."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime.datetime:
        return chat_cases.NOW


def tokenizer() -> Any:
    """A tokenizer of nothing but special tokens: rendering asks for no more."""
    empty = tokenizers.Tokenizer(tokenizers.models.BPE())
    return transformers.PreTrainedTokenizerFast(tokenizer_object=empty, **chat_cases.SPECIAL_TOKENS)


def renderings(writer: Any, source: str, system_prompt: str | None) -> list[str | None]:
    """Per kind of conversation a digest with and one without the generation prompt."""
    result: list[str | None] = []
    for kind in chat_cases.CONVERSATIONS:
        for generation_prompt in (True, False):
            messages, tools = chat_cases.conversation(kind, system_prompt)
            try:
                text = writer.apply_chat_template(
                    messages,
                    tools=tools,
                    chat_template=source,
                    add_generation_prompt=generation_prompt,
                    tokenize=False,
                )
                result.append(chat_cases.digest(text))
            except FAULTS:
                result.append(None)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("EDGEQ_TEST_DATA"))
    folder = parser.parse_args().data
    if folder is None or not folder.is_dir():
        raise SystemExit("no test data: give its folder by --data")
    chat_template_utils.datetime = _Clock
    writer = tokenizer()
    found = {
        name: {"source": chat_cases.digest(source), "renderings": renderings(writer, source, system_prompt)}
        for name, source, system_prompt in chat_cases.templates(folder)
    }
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in found.items())
    kinds = json.dumps(list(chat_cases.CONVERSATIONS))
    GOLDEN.write_text(
        f'{{\n "made by": "transformers {transformers.__version__}",\n "kinds": {kinds},\n'
        f' "templates": {{\n{lines}\n }}\n}}\n',
        encoding="utf-8",
    )
    print(f"{GOLDEN}: {len(found)} templates, {sum(len(v['renderings']) for v in found.values())} renderings")


if __name__ == "__main__":
    main()
