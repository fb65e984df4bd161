"""Whatever is drawn, an answer follows its schema; or the schema is refused by what of it cannot be followed.

Four schemas of each kind; `EDGEQ_TEST_SCHEMAS=30` tries thirty."""

import json
import os
import random

import numpy as np
import pytest
import small_tokenizers as small
from json_schemas import KINDS, schema

from edgeq.talk.grammar import Grammars
from edgeq.talk.refused import Refused
from edgeq.text.tokenizer import load_tokenizer

pytest.importorskip("llguidance", reason="pip install llguidance")
jsonschema = pytest.importorskip("jsonschema", reason="pip install jsonschema")

VOCAB, ENOUGH, LONGEST = 270, 600, 6000
EACH = int(os.environ.get("EDGEQ_TEST_SCHEMAS", "4"))
CLOSING = [*b'"}]', small.IM_END, small.END_OF_TEXT]  # else texts and lists would be long
NOT_FOLLOWED = ("uniqueItems", "contains", "not", "propertyNames", "if", "dependentRequired", "dependencies")
NOT_FOLLOWED += ("format", "pattern")  # of one that there is none of, and with look-around


TOKENIZER = load_tokenizer(small.byte_level_assets(), "it")


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(TOKENIZER, VOCAB)


def drawn(grammar, chance: random.Random) -> str | None:
    """A text that may follow the grammar, its tokens drawn from those that are allowed; None where it has no end."""
    guide, said = grammar.guide(0), list[int]()
    while len(said) < LONGEST:
        allowed = np.flatnonzero(np.unpackbits(guide(said), bitorder="little", count=VOCAB)).tolist()
        closing = [token for token in CLOSING if token in allowed]
        token = chance.choice(
            closing if closing and chance.random() < (0.4 if len(said) < ENOUGH else 0.95) else allowed
        )
        if token in (small.IM_END, small.END_OF_TEXT):
            return b"".join(map(TOKENIZER.piece_bytes, said)).decode()
        said.append(token)
    return None


@pytest.mark.parametrize("number", range(EACH))
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_valid(grammars, kind, number):
    wanted = schema(kind, number)
    try:
        grammar = grammars.compile(wanted, "it")
    except Refused as refused:
        text = json.dumps(wanted)
        assert any(f'"{key}"' in text and key in str(refused) for key in NOT_FOLLOWED), refused
        assert kind in ("hard", "ultra", "configurations"), "the others hold nothing rare"
        return
    validator = jsonschema.validators.validator_for(wanted, jsonschema.Draft202012Validator)
    check = validator(wanted, format_checker=validator.FORMAT_CHECKER)
    for seed in range(3):
        said = drawn(grammar, random.Random(seed))
        assert said is not None, "it goes on for ever"
        assert not [error.message for error in check.iter_errors(json.loads(said))], said
