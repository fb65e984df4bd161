"""Models to train."""

import os

import pytest

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


@pytest.fixture
def torch():
    """The module, on one thread."""
    found = pytest.importorskip("torch")
    found.set_num_threads(1)
    return found


@pytest.fixture
def small_model(torch):
    """Makes a model of an architecture, a few layers of random weights, rows of 256 and of no multiple of it."""
    transformers = pytest.importorskip("transformers")

    def make(model_type="llama", **settings):
        torch.manual_seed(0)
        sizes = {
            "vocab_size": 96,
            "hidden_size": 256,
            "intermediate_size": 288,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 64,
            "max_position_embeddings": 64,
        }
        config = transformers.AutoConfig.for_model(model_type, **(sizes | settings))
        return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")

    return make
