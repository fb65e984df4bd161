"""Adapters over a frozen base: merged and encoded again, or saved as the `peft` library reads them."""

import json

import numpy as np
import pytest

from edgeq.blocks.reference import decode, encode
from edgeq.container.reader import open_file
from edgeq.errors import UsageError

torch = pytest.importorskip("torch", reason="needs torch: run tools/test --qat")
pytest.importorskip("transformers", reason="needs transformers: run tools/test --qat")

from edgeq import qat  # noqa: E402

TOKENS = list(range(2, 40))
Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def adapted(small_model):
    """A model over a base in NF4, its adapters trained a little; and the weights that it began with."""
    model = qat.prepare(small_model(), "NF4", adapters=4)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimizer = torch.optim.Adam(qat.parameter_groups(model, adapters=0.02))
    tokens = torch.tensor([TOKENS])
    for _ in range(3):
        model(tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, before


def logits(model):
    with torch.no_grad():
        return model(torch.tensor([TOKENS])).logits


def test_adapters_alone_are_trained(adapted):
    model, before = adapted
    changed = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if ".adapter." in name}
    assert f"{Q}.adapter.up" in changed and not any(name.startswith("lm_head") for name in changed)


def test_merged_adapters_are_encoded_with_the_weights(adapted, tmp_path):
    model, _ = adapted
    layer = model.get_submodule(Q)
    wanted = (layer.rounding(layer.weight) + layer.adapter.change()).detach().numpy()
    before = logits(model)
    with pytest.raises(UsageError, match="`merge` them first"):
        qat.convert(model, tmp_path / "m.eqf", allow_no_tokenizer=True)
    plain = layer.rounding(layer.weight).detach()
    qat.merge(model)
    qat.convert(model, tmp_path / "m.eqf", allow_no_tokenizer=True)
    with open_file(tmp_path / "m.eqf") as file:
        info = file.tensors["blk.0.attn_q.weight"]
        found = decode(file.data(info.name), *info.shape, info.type)
        np.testing.assert_array_equal(found, decode(encode(wanted, "NF4"), *info.shape, "NF4"))
        np.testing.assert_array_equal(found, layer.rounding(layer.weight).detach().numpy())
    assert np.abs(found - wanted).mean() < np.abs(plain.numpy() - wanted).mean()
    assert (logits(model) - before).abs().mean() < 0.2 * before.abs().mean()
    with pytest.raises(UsageError, match="has no adapters"):
        qat.merge(model)


def test_peft_computes_the_same(adapted, small_model, tmp_path):
    peft = pytest.importorskip("peft", reason="needs peft: run tools/test --qat")
    model, _ = adapted
    qat.save_adapters(model, tmp_path / "lora", base="base")
    base = small_model()
    with torch.no_grad():
        for name, layer in model.named_modules():
            if hasattr(layer, "rounding"):
                base.get_submodule(name).weight.copy_(layer.rounding(layer.weight))
    found = peft.PeftModel.from_pretrained(base, tmp_path / "lora")
    torch.testing.assert_close(logits(found), logits(model), atol=1e-5, rtol=1e-5)
    assert json.loads((tmp_path / "lora" / "adapter_config.json").read_text())["r"] == 4


def test_a_rank_that_cannot_work_is_said(small_model):
    with pytest.raises(UsageError, match="rank -1 cannot work"):
        qat.prepare(small_model(), "NF4", adapters=-1)
