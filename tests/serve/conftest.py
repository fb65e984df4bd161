"""Servers for tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from counting import counting_model
from serving import Served, serving, slow_model, wait_until


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Two models: one counts at once, with room for 64 tokens, the other takes 10 ms a token, with room for 2000."""
    models = {
        "counting": lambda say: counting_model(),
        "slow": lambda say: slow_model(context=2000, jumps={ord("z"): ord("a")}),
    }
    with serving(models) as served:
        wait_until(lambda: served.roster.ready)
        assert served.post("/models/load", model="slow").status_code == 200
        yield served


@pytest.fixture
def start() -> Iterator[Callable]:
    """start(models, rules) -> a server that ends with the test."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(serving(*arguments, **options))
