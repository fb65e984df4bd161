"""Models trained by rounded weights: the file holds the bits of the modules, and the engine computes the same."""

import numpy as np
import pytest

from edgeq.blocks.reference import decode
from edgeq.container.reader import open_file
from edgeq.conversion.conversion import convert
from edgeq.errors import CheckpointError, UnsupportedError, UsageError
from edgeq.quantize.recipes import recipe
from edgeq.runtime.session import Session

pytest.importorskip("torch", reason="needs torch: run tools/test --qat")
pytest.importorskip("transformers", reason="needs transformers: run tools/test --qat")

TOKENS = list(range(2, 40))


@pytest.fixture
def qat(torch):
    from edgeq import qat

    return qat


def trained(torch, qat, model, steps=2, **options):
    """A model after a few steps that are so long that codes and scales change."""
    optimizer = torch.optim.Adam(qat.parameter_groups(model, lr=0.3, scales=0.05))
    tokens = torch.tensor([TOKENS])
    for _ in range(steps):
        model(tokens, labels=tokens, **options).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def check_bits(model, path):
    """Every matrix of the file decodes to what its layer computes with, every vector is the model's."""
    layers = dict(model.named_modules())
    with open_file(path) as file:
        for matrix in model._edgeq_prepared.matrices:
            info, values = file.tensors[matrix.name], []
            for owner, index in matrix.parts:
                layer = layers[owner]
                rows, weight = layer.rounding.rows[index], layer.rounding(layer.weight).detach()
                values.append((weight if rows is None else weight[rows]).numpy())
            found = decode(file.data(matrix.name), *info.shape, info.type)
            assert info.type == matrix.type
            np.testing.assert_array_equal(found.view(np.uint32), np.concatenate(values).view(np.uint32), matrix.name)
        rounded = {matrix.name for matrix in model._edgeq_prepared.matrices}
        return {name: info.type for name, info in file.tensors.items() if name in rounded}


def engine_logits(path):
    """Of each token by itself: an input that rounds otherwise concerns no other one."""
    with open_file(path) as file, Session(file, threads=1, kv="f32") as session:
        found = []
        for token in TOKENS:
            session.rewind(0)
            found.append(session.eval([token])[0])
        return np.stack(found)


def module_logits(torch, model):
    with torch.no_grad():
        return model(torch.tensor(TOKENS)[:, None]).logits[:, 0].numpy()


@pytest.mark.parametrize("kind", ["Q2_K", "TQ2_0", "Q4_0", "Q4_K_M", "NF4", "Q5_1", "IQ4_XS", "MXFP4", "F16"])
def test_the_file_holds_the_bits_of_the_module(qat, torch, small_model, tmp_path, kind):
    model = qat.prepare(small_model(), kind, activations=True, learned_scales=True)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    trained(torch, qat, model)
    assert any(not torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    report = qat.convert(model, tmp_path / "m.eqf", allow_no_tokenizer=True)
    types = check_bits(model, tmp_path / "m.eqf")
    shapes = {tensor.name: tensor.shape for tensor in report.tensors}
    assert types == {name: recipe(kind).type_for(name, shapes[name], 2, False).type for name in types}
    # But for the few inputs that lie so near the middle of two codes that they round otherwise; of NF4 the kernels
    # multiply values in units of 1 / 32512
    off = np.abs(engine_logits(tmp_path / "m.eqf") - module_logits(torch, model)).max(axis=1)
    assert np.median(off) < (0.02 if kind == "NF4" else 1e-4) and off.max() < 0.1


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("llama", {"tie_word_embeddings": True}),
        ("gemma3_text", {"hidden_activation": "gelu_pytorch_tanh", "query_pre_attn_scalar": 64}),
        ("gpt_neox", {"num_key_value_heads": None, "intermediate_size": 320}),
        ("phi3", {"pad_token_id": 0}),
        ("qwen3", {}),
    ],
)
def test_tied_fused_and_scaled_weights_are_the_same_bits(qat, torch, small_model, tmp_path, model_type, settings):
    model = qat.prepare(small_model(model_type, **settings), "Q4_K_M", activations=True, learned_scales=True)
    trained(torch, qat, model)
    qat.convert(model, tmp_path / "m.eqf", allow_no_tokenizer=True)
    types = check_bits(model, tmp_path / "m.eqf")
    assert len({*types.values()}) > 1
    off = np.abs(engine_logits(tmp_path / "m.eqf") - module_logits(torch, model)).max(axis=1)
    assert np.median(off) < 1e-4 and off.max() < 0.1


def test_a_tied_embedding_stays_tied(qat, torch, small_model):
    model = qat.prepare(small_model(tie_word_embeddings=True), "Q4_0")
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert head.weight is embedding.weight and head.rounding is embedding.rounding
    assert sum(group["params"][0] is head.weight for group in qat.parameter_groups(model)) == 1


def test_training_begins_with_what_a_file_computes(qat, torch, tiny_model, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    convert(tiny_model, tmp_path / "start.eqf", "Q3_K_M")
    qat.prepare(model, "Q2_K", tmp_path / "start.eqf", activations=True)  # the file says which types
    report = qat.convert(model, tmp_path / "again.eqf")
    check_bits(model, tmp_path / "again.eqf")
    with open_file(tmp_path / "start.eqf") as start, open_file(tmp_path / "again.eqf") as again:
        assert {name: info.crc32 for name, info in start.tensors.items()} == {
            name: info.crc32 for name, info in again.tensors.items()
        }
        assert {*start.assets} == {*again.assets}
        assert again.metadata["provenance"]["source"] == start.metadata["provenance"]["source"] == "tiny_model"
    assert report.recipe == "Q2_K"
    np.testing.assert_array_equal(engine_logits(tmp_path / "start.eqf"), engine_logits(tmp_path / "again.eqf"))


def test_distillation_lowers_the_divergence(qat, torch, small_model):
    teacher = small_model().eval()
    model = qat.prepare(small_model(), "TQ2_0", learned_scales=True)
    tokens = torch.tensor([TOKENS])
    with torch.no_grad():
        wanted = teacher(tokens).logits
    optimizer = torch.optim.Adam(qat.parameter_groups(model, lr=0.05, scales=0.01))
    losses = []
    for _ in range(12):
        loss = qat.distillation_loss(model(tokens).logits, wanted)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_divergence_is_that_of_the_distributions(qat, torch):
    ours, theirs = torch.tensor([[[0.0, 1.0], [3.0, 3.0]]]), torch.tensor([[[1.0, 0.0], [3.0, 3.0]]])
    p = torch.softmax(theirs[0, 0], 0)
    wanted = float((p * (p.log() - torch.softmax(ours[0, 0], 0).log())).sum())
    assert float(qat.distillation_loss(ours, theirs)) == pytest.approx(wanted / 2)
    mask = torch.tensor([[True, False]])
    assert float(qat.distillation_loss(ours, theirs, mask)) == pytest.approx(wanted)


def test_checkpointed_gradients_are_the_same(qat, torch, small_model):
    found = []
    for checkpointed in (False, True):
        model = qat.prepare(small_model(), "Q4_0", activations=True, learned_scales=True).train()
        if checkpointed:
            model.gradient_checkpointing_enable()
        tokens = torch.tensor([TOKENS])
        model(tokens, labels=tokens, use_cache=False).loss.backward()
        found.append({name: one.grad for name, one in model.named_parameters() if one.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient)


def test_a_model_goes_on_from_its_state(qat, torch, small_model, tmp_path):
    model = trained(torch, qat, qat.prepare(small_model(), "Q4_K_M", learned_scales=True))
    other = qat.prepare(small_model(), "Q4_K_M", learned_scales=True)
    assert not np.array_equal(module_logits(torch, other), module_logits(torch, model))
    other.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(module_logits(torch, other), module_logits(torch, model))


def test_what_cannot_work_is_said(qat, torch, small_model, tiny_model, tmp_path):
    with pytest.raises(UsageError, match="unknown type 'Q9'"):
        qat.prepare(small_model(), "Q9")
    with pytest.raises(UsageError, match="is not prepared: call `prepare` first"):
        qat.convert(small_model(), tmp_path / "m.eqf")
    model = qat.prepare(small_model(), "Q4_0")
    with pytest.raises(UsageError, match="is prepared already"):
        qat.prepare(model, "Q4_0")
    with pytest.raises(UsageError, match="say whose tokenizer it has by `source`"):
        qat.convert(model, tmp_path / "m.eqf")
    convert(tiny_model, tmp_path / "other.eqf", "Q4_0")
    with pytest.raises(UsageError, match=r"other.eqf: is not of this LlamaForCausalLM: .* differs"):
        qat.prepare(small_model(), "Q4_0", tmp_path / "other.eqf")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(CheckpointError, match=r"layers.1.mlp.up_proj.weight is not finite"):
        qat.convert(model, tmp_path / "m.eqf", allow_no_tokenizer=True)
    assert not (tmp_path / "m.eqf").exists()


def test_weights_of_no_layer_are_refused_by_name(qat, torch, small_model):
    model = small_model("gpt2", n_embd=64, n_layer=1, n_head=2, n_inner=None)
    with pytest.raises(UnsupportedError, match=r"the weight .*c_attn.weight belongs to no linear layer"):
        qat.prepare(model, "Q4_0")


def test_any_module_can_be_prepared_but_not_converted(qat, torch, tmp_path):
    model = torch.nn.Sequential(torch.nn.Embedding(40, 64), torch.nn.Linear(64, 48), torch.nn.Linear(48, 8))
    qat.prepare(model, "Q4_0", activations=True)
    model(torch.tensor([[1, 2]])).sum().backward()
    kinds = [piece.bt.name for layer in model for piece in layer.rounding.pieces]
    assert kinds == ["Q4_0", "Q4_0", "F16"]  # rows of 48 are no multiple of 32
    assert all(layer.weight.grad is not None for layer in model)
    with pytest.raises(UnsupportedError, match="is no transformers model"):
        qat.convert(model, tmp_path / "m.eqf")


def test_rates_count_in_steps_of_the_grid_and_sizes(qat, torch, small_model):
    model = qat.prepare(small_model(), "Q4_0", learned_scales=True)
    made = qat.parameter_groups(model, lr=0.5, scales=0.25, vectors=0.125)
    groups = {id(one): group["lr"] for group in made for one in group["params"]}
    layer = model.model.layers[0].mlp.up_proj
    scale = layer.rounding.pieces[0].scale
    size = float(scale.detach().square().mean().sqrt())
    assert groups[id(layer.weight)] == pytest.approx(0.5 * size)  # codes are whole numbers
    assert groups[id(scale)] == pytest.approx(0.25 * size)
    assert groups[id(model.model.norm.weight)] == pytest.approx(0.125)
    assert {*groups} == {id(one) for one in model.parameters() if one.requires_grad}
    left = {id(one) for group in qat.parameter_groups(model, lr=0) for one in group["params"]}
    assert id(layer.weight) not in left and id(scale) in left
