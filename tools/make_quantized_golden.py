"""Write tests/golden/quantized/: matrices as quantization libraries store them, and what they dequantize them to.

    python tools/make_quantized_golden.py [--sources FOLDER] [--only mlx bitnet torchao hqq modelopt mxfp8 gemv quark]

Needs torch, transformers, safetensors, compressed-tensors and bitsandbytes; for their files mlx, torchao, hqq,
amd-quark and nvidia-modelopt. With --only these are the only ones that are written. FOLDER holds the packages
`auto_gptq` and `awq`, unpacked; without it their files stay as they are. Each file holds the tensors of a module `m`,
`expected`, and the `quantization_config` as metadata. llama-logits.npz has what transformers computes of models that
tests/models/quantized_checkpoints.py makes.
"""

import argparse
import importlib
import json
import sys
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

REPOSITORY = Path(__file__).resolve().parents[1]
GOLDEN = REPOSITORY / "tests" / "golden" / "quantized"
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests" / "models")]

import quantized_checkpoints as made  # noqa: E402

METADATA = "_metadata"  # of a case's config: further metadata of the file
Case = tuple[str, dict[str, Any], dict[str, torch.Tensor], torch.Tensor]


def weights(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns) * 0.05


def ranges(w: torch.Tensor, group: int, bits: int, symmetric: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales f16 and zero points 1 to 2^bits - 1, [rows, groups], of w's groups of columns."""
    grouped = w.reshape(len(w), -1, group)
    top = 2**bits - 1
    if symmetric:
        scale = 2 * grouped.abs().amax(-1) / top
        return scale.half(), torch.full_like(scale, 2 ** (bits - 1))
    low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
    scale = ((high - low) / top).half()
    return scale, (-low / scale.float()).round().clamp(1, top)


def stub(package: str, folder: Path) -> None:
    """A package whose own __init__ is not run: it would import far more than the module wanted."""
    for path in (folder / package, *(folder / package).rglob("*/")):
        name = ".".join(path.relative_to(folder).parts)
        module = types.ModuleType(name)
        module.__path__ = [str(path)]  # type: ignore[attr-defined]
        sys.modules[name] = module


def gptq(sources: Path) -> Iterator[Case]:
    stub("auto_gptq", sources)
    linear = importlib.import_module("auto_gptq.nn_modules.qlinear.qlinear_cuda").QuantLinear
    for bits, group, symmetric, act_order in (
        (4, 32, True, False),
        (4, 64, False, False),
        (4, -1, True, False),
        (4, 32, True, True),
        (2, 64, False, False),
        (3, 32, False, False),
        (8, 128, True, False),
    ):
        w = weights(32, 128)
        columns = w.shape[1]
        size = columns if group == -1 else group
        order = torch.randperm(columns) if act_order else torch.arange(columns)
        index = torch.empty(columns, dtype=torch.int32)
        index[order] = torch.arange(columns, dtype=torch.int32) // size
        scale, zero = ranges(w[:, order], size, bits, symmetric)
        original = torch.nn.Linear(columns, len(w), bias=False)
        original.weight.data = w.half()
        packed = linear(bits, size, columns, len(w), False, weight_dtype=torch.float16)
        packed.pack(original, scale, zero.half(), index)
        packed.autogptq_cuda_available = False
        expected = packed(torch.eye(columns, dtype=torch.float16)).T.contiguous()
        config = {
            "quant_method": "gptq",
            "bits": bits,
            "group_size": group,
            "sym": symmetric,
            "desc_act": act_order,
            "checkpoint_format": "gptq",
        }
        name = f"gptq-{bits}-{'channel' if group == -1 else group}{'' if symmetric else '-asym'}"
        yield name + ("-act-order" if act_order else ""), config, dict(packed.state_dict()), expected


def awq(sources: Path) -> Iterator[Case]:
    stub("awq", sources)
    linear = importlib.import_module("awq.modules.linear.gemm").WQLinear_GEMM
    dequantize = importlib.import_module("awq.utils.packing_utils").dequantize_gemm
    for group in (32, 128):
        w = weights(32, 128)
        scale, zero = ranges(w, group, 4, False)
        original = torch.nn.Linear(w.shape[1], len(w), bias=False)
        original.weight.data = w
        packed = linear.from_linear(original, 4, group, scales=scale.T.contiguous(), zeros=zero.T.contiguous())
        expected = dequantize(packed.qweight, packed.qzeros, packed.scales, 4, group).T.contiguous()
        config = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm"}
        yield f"awq-{group}", config, dict(packed.state_dict()), expected


def compressed_tensors() -> Iterator[Case]:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams

    for name, layout, dtype, arguments in (
        ("int4-group", "pack-quantized", torch.bfloat16, {"num_bits": 4, "strategy": "group", "group_size": 32}),
        (
            "int4-group-asym",
            "pack-quantized",
            torch.float16,
            {"num_bits": 4, "strategy": "group", "group_size": 64, "symmetric": False},
        ),
        ("int3-group", "pack-quantized", torch.float16, {"num_bits": 3, "strategy": "group", "group_size": 32}),
        ("int8-channel-packed", "pack-quantized", torch.bfloat16, {"num_bits": 8, "strategy": "channel"}),
        ("int8-channel", "int-quantized", torch.float32, {"num_bits": 8, "strategy": "channel"}),
        ("int8-tensor-asym", "int-quantized", torch.float16, {"num_bits": 8, "strategy": "tensor", "symmetric": False}),
        ("fp8-tensor", "float-quantized", torch.bfloat16, {"num_bits": 8, "type": "float", "strategy": "tensor"}),
        ("fp8-channel", "float-quantized", torch.float32, {"num_bits": 8, "type": "float", "strategy": "channel"}),
        (
            "fp8-block",
            "float-quantized",
            torch.float32,
            {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [16, 48]},
        ),
    ):
        args = QuantizationArgs(**arguments)
        scheme = QuantizationScheme(targets=["Linear"], weights=args, format=layout)
        w = weights(32, 128)
        axis: Any = 1
        blocks = w
        if args.strategy == "group":
            blocks, axis = w.reshape(len(w), -1, args.group_size), 2
        elif args.strategy == "tensor":
            blocks, axis = w.reshape(1, -1), 1
        elif args.strategy == "block":
            height, width = args.block_structure
            padded = torch.nn.functional.pad(w, (0, -w.shape[1] % width))
            blocks, axis = padded.reshape(len(w) // height, height, -1, width).transpose(1, 2).flatten(2), 2
        scale, zero = calculate_qparams(blocks.amin(axis), blocks.amax(axis), args)
        if args.strategy == "channel":
            scale, zero = scale.reshape(-1, 1), zero.reshape(-1, 1)
        state = {"weight": w.to(dtype), "weight_scale": scale.to(dtype), "weight_zero_point": zero}
        compressor = BaseCompressor.get_value_from_registry(layout)
        packed = compressor.compress(state, scheme)
        expected = compressor.decompress(dict(packed), scheme)["weight"]
        group = {"targets": ["Linear"], "weights": json.loads(args.model_dump_json())}
        config = {"quant_method": "compressed-tensors", "format": layout, "config_groups": {"group_0": group}}
        yield f"compressed-tensors-{name}", config, packed, expected


def four_bit_floats() -> Iterator[Case]:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    for name, group, strategy in (("nvfp4", 16, "tensor_group"), ("mxfp4", 32, "group")):
        args = QuantizationArgs(num_bits=4, type="float", strategy=strategy, group_size=group)
        layout = f"{name}-pack-quantized"
        scheme = QuantizationScheme(targets=["Linear"], weights=args, format=layout)
        w = weights(32, 128)
        scale = w.reshape(32, -1, group).abs().amax(-1) / 6
        state = {"weight": w}
        if name == "nvfp4":
            state["weight_global_scale"] = 448 / scale.max().reshape(1)
            scale = (scale * state["weight_global_scale"]).to(torch.float8_e4m3fn).float()
        else:
            scale = 2 ** torch.ceil(torch.log2(scale))
        compressor = BaseCompressor.get_value_from_registry(layout)
        packed = compressor.compress(state | {"weight_scale": scale}, scheme)
        expected = compressor.decompress(dict(packed), scheme)["weight"]
        yield f"compressed-tensors-{name}", {"quant_method": "compressed-tensors", "format": layout}, packed, expected


def bitsandbytes() -> Iterator[Case]:
    from bitsandbytes import functional

    for kind, nested, shape in (("nf4", False, (32, 128)), ("nf4", True, (80, 256)), ("fp4", False, (32, 96))):
        packed, state = functional.quantize_4bit(weights(*shape), quant_type=kind, compress_statistics=nested)
        tensors = {"weight": packed} | {f"weight.{key}": value for key, value in state.as_dict(packed=True).items()}
        config = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": kind}
        expected = functional.dequantize_4bit(packed, state)
        yield f"bitsandbytes-{kind}{'-nested' if nested else ''}", config, tensors, expected
    codes, stats, _ = functional.int8_vectorwise_quant(weights(32, 128).half())
    tensors = {"weight": codes, "SCB": stats, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    expected = functional.int8_vectorwise_dequant(codes, stats)
    yield "bitsandbytes-int8", {"quant_method": "bitsandbytes", "load_in_8bit": True}, tensors, expected


def fp8() -> Iterator[Case]:
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
        w = weights(32, 128)
        blocks = w.reshape(2, 16, 4, 32)
        scale = (blocks.abs().amax((1, 3)) / 448).to(dtype)
        codes = (blocks / scale.float()[:, None, :, None]).reshape(w.shape).to(torch.float8_e4m3fn)
        expected = Fp8Dequantize(None)._dequantize_one(codes, scale, torch.float32)
        config = {"quant_method": "fp8", "weight_block_size": [16, 32], "activation_scheme": "dynamic"}
        yield f"fp8-block-{name}", config, {"weight": codes, "weight_scale_inv": scale}, expected


def mxfp4() -> Iterator[Case]:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    blocks = torch.randint(0, 256, (3, 16, 4, 16), dtype=torch.uint8)
    scales = torch.randint(112, 126, (3, 16, 4), dtype=torch.uint8)
    expected = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).transpose(1, 2).reshape(48, 128)
    tensors = {"down_proj_blocks": blocks, "down_proj_scales": scales}
    yield "mxfp4", {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}, tensors, expected


def mlx() -> Iterator[Case]:
    import mlx.core as mx

    def tensor(array: Any) -> torch.Tensor:
        if array.dtype == mx.bfloat16:
            return torch.from_numpy(np.array(array.astype(mx.float32))).bfloat16()
        return torch.from_numpy(np.array(array))

    for bits, group, dtype in (
        (2, 32, mx.bfloat16),
        (3, 64, mx.float16),
        (4, 64, mx.bfloat16),
        (5, 32, mx.float16),
        (6, 64, mx.bfloat16),
        (8, 128, mx.float16),
    ):
        w = mx.array(weights(32, 128).numpy()).astype(dtype)
        packed, scales, biases = mx.quantize(w, group, bits)
        wide = scales.astype(mx.float32), biases.astype(mx.float32)
        tensors = {"weight": tensor(packed), "scales": tensor(scales), "biases": tensor(biases)}
        expected = tensor(mx.dequantize(packed, *wide, group, bits))
        yield f"mlx-{bits}-{group}", {"group_size": group, "bits": bits, "mode": "affine"}, tensors, expected
    for mode, group, bits in (("mxfp4", 32, 4), ("nvfp4", 16, 4), ("mxfp8", 32, 8)):
        w = mx.array(weights(32, 128).numpy()).astype(mx.bfloat16)
        packed, scales = mx.quantize(w, mode=mode)
        config = {"group_size": group, "bits": bits, "mode": mode}
        expected = tensor(mx.dequantize(packed, scales, mode=mode))
        yield f"mlx-{mode}", config, {"weight": tensor(packed), "scales": tensor(scales)}, expected


def bitnet() -> Iterator[Case]:
    from transformers.integrations.bitnet import pack_weights, unpack_weights

    for layers, scale in (("autobitlinear", 0.0123), ("bitlinear", 40.7)):
        packed = pack_weights(torch.randint(-1, 2, (32, 128)))
        stored = torch.tensor([scale], dtype=torch.bfloat16)
        numbers = unpack_weights(packed, torch.float32)
        expected = numbers * stored.float() if layers == "autobitlinear" else numbers * (1 / stored.float())
        config = {"quant_method": "bitnet", "linear_class": layers, "quantization_mode": "offline"}
        yield f"bitnet-{layers}", config, {"weight": packed, "weight_scale": stored}, expected


def torchao() -> Iterator[Case]:
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict
    from torchao.quantization import quant_api as api
    from torchao.quantization import quantize_
    from torchao.quantization.granularity import PerAxis, PerGroup

    for name, config in (
        ("int8", api.Int8WeightOnlyConfig()),
        ("int8-dynamic", api.Int8DynamicActivationInt8WeightConfig()),
        ("float8", api.Float8WeightOnlyConfig()),
        ("int4-asym", api.IntxWeightOnlyConfig(torch.int4, PerGroup(32), api.MappingType.ASYMMETRIC)),
        ("int4", api.IntxWeightOnlyConfig(torch.int4, PerGroup(64))),
        ("int6-channel", api.IntxWeightOnlyConfig(torch.int6, PerAxis(0))),
        ("int8-int4", api.Int8DynamicActivationIntxWeightConfig(torch.int4, PerGroup(32))),
    ):
        model = torch.nn.ModuleDict({"m": torch.nn.Linear(128, 32, bias=False)})
        model["m"].weight.data = weights(32, 128).bfloat16()
        quantize_(model, config)
        expected = model["m"].weight.dequantize()
        tensors, about = flatten_tensor_state_dict(model.state_dict())
        own = {"quant_method": "torchao", "quant_type": {"default": {"_type": type(config).__name__}}}
        yield f"torchao-{name}", own | {METADATA: about}, _parts(tensors), expected


def quark() -> Iterator[Case]:
    """Words that amd-quark packs, and its scales, turned as its exporter turns them."""
    from quark.torch.utils.pack import Pack_4_bits

    random = torch.Generator().manual_seed(3)
    for name, element, packing in (
        ("uint4", "uint4", "reorder"),
        ("uint4-order", "uint4", "order"),
        ("int4", "int4", "reorder"),
    ):
        library, lowest = Pack_4_bits("per_group", element), -8 if element == "int4" else 0
        codes = torch.randint(lowest, lowest + 16, (32, 128), generator=random, dtype=torch.int32)
        zeros = torch.randint(0, 16 if element == "uint4" else 1, (32, 4), generator=random, dtype=torch.int32)
        scales = (torch.rand(32, 4, generator=random) * 0.01 + 0.001).half()
        words = [library.pack(part, packing == "reorder") for part in (codes, zeros)]
        for part, packed in zip((codes, zeros), words, strict=True):
            assert torch.equal(library.unpack(packed, packing == "reorder", 32) & 15, (part & 15).to(torch.int8))
        tensors = {"weight": words[0], "weight_scale": scales.t(), "weight_zero_point": words[1]}
        said = {"dtype": element, "qscheme": "per_group", "group_size": 32, "ch_axis": -1}
        config = {"quant_method": "quark", "export": {"pack_method": packing}, "global_quant_config": {"weight": said}}
        wide = [part.float().repeat_interleave(32, 1) for part in (zeros, scales)]
        yield f"quark-{name}", config, tensors, (codes.float() - wide[0]) * wide[1]


def hqq() -> Iterator[Case]:
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    for bits, group, axis in ((4, 64, 1), (8, 128, 1), (3, 64, 1), (2, 32, 1), (4, 16, 0), (1, 64, 1)):
        linear = torch.nn.Linear(128, 32, bias=False)
        linear.weight.data = weights(32, 128)
        config = BaseQuantizeConfig(nbits=bits, group_size=group, axis=axis)
        layer = HQQLinear(linear, config, compute_dtype=torch.float32, device="cpu")
        layer.encoded_state_dict = True
        own = {"quant_method": "hqq", "quant_config": config, "skip_modules": ["lm_head"]}
        yield f"hqq-{bits}-{group}{'-rows' if axis == 0 else ''}", own, layer.state_dict(), layer.dequantize()


def modelopt() -> Iterator[Case]:
    """A module of a small model, whose scales of inputs lie beside."""
    import tempfile

    import modelopt.torch.quantization as mtq
    from modelopt.torch.export import export_hf_checkpoint
    from modelopt.torch.quantization import qtensor
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4}
    architecture = {"vocab_size": 64, "max_position_embeddings": 64, "architectures": ["LlamaForCausalLM"]}
    for name in ("NVFP4", "FP8", "MXFP8"):
        model = LlamaForCausalLM(LlamaConfig(**sizes, **architecture, num_key_value_heads=1)).bfloat16()
        prompt = torch.randint(0, 64, (1, 16))
        model = mtq.quantize(model, getattr(mtq, f"{name}_DEFAULT_CFG"), lambda one, prompt=prompt: one(prompt))
        with tempfile.TemporaryDirectory() as folder:
            export_hf_checkpoint(model, export_dir=folder)
            config = json.loads((Path(folder) / "config.json").read_text())["quantization_config"]
            stored = load_file(Path(folder) / "model.safetensors")
        begin = "model.layers.0.self_attn.k_proj."
        tensors = {key.removeprefix(begin): value for key, value in stored.items() if key.startswith(begin)}
        tensors = {key: value for key, value in tensors.items() if not key.startswith(("k_scale", "v_scale"))}
        own = {"scale": tensors["weight_scale"]}
        if name == "NVFP4":
            own |= {"double_scale": tensors["weight_scale_2"], "block_sizes": {-1: 16}}
        holder = getattr(qtensor, f"{name}QTensor")(torch.Size((32, 128)), torch.float32, tensors["weight"])
        yield f"modelopt-{name.lower()}", config, tensors, holder.dequantize(torch.float32, **own)


def mxfp8() -> Iterator[Case]:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    args = QuantizationArgs(num_bits=8, type="float", strategy="group", group_size=32)
    layout = "mxfp8-quantized"
    scheme = QuantizationScheme(targets=["Linear"], weights=args, format=layout)
    w = weights(32, 128)
    scale = 2 ** torch.ceil(torch.log2(w.reshape(32, -1, 32).abs().amax(-1) / 448))
    compressor = BaseCompressor.get_value_from_registry(layout)
    packed = compressor.compress({"weight": w, "weight_scale": scale}, scheme)
    expected = compressor.decompress(dict(packed), scheme)["weight"]
    yield "compressed-tensors-mxfp8", {"quant_method": "compressed-tensors", "format": layout}, packed, expected


def gemv(sources: Path) -> Iterator[Case]:
    """AutoAWQ's packing by rows; what it computes with needs a GPU, so expected is what it rounded to."""
    stub("awq", sources)
    linear = importlib.import_module("awq.modules.linear.gemv").WQLinear_GEMV
    for group in (32, 128):
        w = weights(32, 256)
        scale, zero = ranges(w, group, 4, False)
        original = torch.nn.Linear(w.shape[1], len(w), bias=False)
        wide, offset = (part.float().repeat_interleave(group, 1) for part in (scale, zero))
        codes = torch.round(w / wide + offset).clamp(0, 15)  # it packs what is past these into the next one
        original.weight.data = (codes - offset) * wide
        packed = linear.from_linear(original, 4, group, scales=scale, zeros=zero)
        config = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemv"}
        yield f"awq-gemv-{group}", config, dict(packed.state_dict()), (codes - offset) * wide


def _parts(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix("m."): value for key, value in tensors.items()}


def llama_logits() -> None:
    """Logits of transformers for weights that quantized checkpoints of a small random model stand for."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    methods = {
        "gptq": made.gptq(),
        "gptq-asymmetric": made.gptq(symmetric=False),
        "awq": made.awq(),
        "nf4": made.nf4(),
    }
    found = {}
    for name, method in methods.items():
        config, _, arrays, prompt = made.make("llama", method)
        model = AutoModelForCausalLM.from_config(LlamaConfig(**config), dtype=torch.float32)
        model.load_state_dict({key: torch.from_numpy(value) for key, value in arrays.items()})
        with torch.no_grad():
            found[name] = model.eval()(torch.tensor([prompt])).logits[0].numpy()
    np.savez_compressed(GOLDEN / "llama-logits.npz", **found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sources", type=Path)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=("mlx", "bitnet", "torchao", "hqq", "modelopt", "mxfp8", "gemv", "quark"),
        default=[],
    )
    chosen = parser.parse_args()
    torch.manual_seed(1)
    GOLDEN.mkdir(exist_ok=True)
    further = {"mlx": mlx, "bitnet": bitnet, "torchao": torchao, "hqq": hqq, "modelopt": modelopt, "mxfp8": mxfp8}
    further["quark"] = quark
    further["gemv"] = lambda: gemv(chosen.sources)
    for name in chosen.only:
        write(further[name]())
    if chosen.only:
        return
    cases = [*compressed_tensors(), *bitsandbytes(), *fp8()]
    if chosen.sources:
        cases += [*gptq(chosen.sources), *awq(chosen.sources), *gemv(chosen.sources)]
    cases += [*mxfp4(), *mxfp8(), *four_bit_floats(), *mlx(), *bitnet(), *torchao(), *hqq(), *modelopt(), *quark()]
    llama_logits()
    write(cases)


def write(cases: Iterable[Case]) -> None:
    for name, config, tensors, expected in cases:
        named = {f"m.{key}": value.contiguous() for key, value in tensors.items()}
        named["expected"] = expected.contiguous()
        further = config.pop(METADATA, {})
        about = {"quantization_config": json.dumps(config), **further}
        save_file(named, GOLDEN / f"{name}.safetensors", about)
        print(name, {key: (str(value.dtype), tuple(value.shape)) for key, value in named.items()})


if __name__ == "__main__":
    main()
