"""Float models changed to equal ones that may be easier to quantize: channels scaled, spaces rotated."""

from collections.abc import Mapping

import numpy as np

from edgeq.blocks.reference import decode, encode
from edgeq.container.changed import ChangedFile
from edgeq.container.placement import TensorInfo
from edgeq.graph.aligned import aligned


def load(file, name):
    info = file.tensors[name]
    if len(info.shape) == 1:
        return file.data(name).view(np.float32)[: info.shape[0]].copy()
    return decode(file.data(name), *info.shape, info.type).astype(np.float64)


def store(values):
    v = np.ascontiguousarray(values, np.float32)
    raw = v.view(np.uint8) if v.ndim == 1 else encode(v, "F32")
    raw = raw.reshape(-1).view(np.uint8)
    memory = aligned(raw.nbytes)
    memory[:] = raw
    return "F32", memory


class Equal(ChangedFile):
    """`file` with other float tensors; `added`: such as it has not."""

    def __init__(self, file, tensors, config=None):
        own = {name: store(values) for name, values in tensors.items()}
        super().__init__(file, {n: own[n] for n in own if n in file.tensors})
        for name, (kind, data) in own.items():
            if name not in file.tensors:
                self._own[name] = data
                self.tensors[name] = TensorInfo(name, np.shape(tensors[name]), kind, 0, data.nbytes, 0)
        if config:
            self.metadata = {**file.metadata, "config": {**file.metadata["config"], **config}}


class Mapped(Mapping):
    """Grams, some of which are others."""

    def __init__(self, grams, change):
        self.grams, self.change, self.first, self.tokens = grams, change, grams.first, grams.tokens

    def __getitem__(self, name):
        return self.change(name, self.grams[name])

    def __contains__(self, name):
        return name in self.grams

    def __iter__(self):
        return iter(self.grams)

    def __len__(self):
        return len(self.grams)


def orthogonal(n, seed=0):
    """Hadamard of the largest power of two that divides n, with random signs, times a random orthogonal matrix."""
    h = np.ones((1, 1))
    while n % (2 * len(h)) == 0:
        h = np.block([[h, h], [h, -h]])
    rng = np.random.default_rng(seed)
    rest = np.linalg.qr(rng.standard_normal((n // len(h),) * 2))[0]
    return np.kron(h / np.sqrt(len(h)), rest) * rng.choice([-1.0, 1.0], n)[:, None]


def rotated(file, grams, r1=True, r2=True):
    """(file, grams) with the residual stream rotated, and each head's values."""
    c = file.metadata["config"]
    n, layers, kv, heads = c["hidden_size"], c["num_hidden_layers"], c["num_key_value_heads"], c["num_attention_heads"]
    hd = c.get("head_dim") or n // heads
    R, S = orthogonal(n) if r1 else np.eye(n), orthogonal(hd, 1) if r2 else np.eye(hd)
    new, maps = {}, {}
    norm = load(file, "output_norm.weight").astype(np.float64)
    head = load(file, "output.weight" if "output.weight" in file.tensors else "token_embd.weight")
    if r1:
        new["token_embd.weight"] = load(file, "token_embd.weight") @ R
        new["output.weight"] = (head * norm) @ R
        new["output_norm.weight"] = np.ones(n)
        maps["output.weight"] = (1 / norm, R)
    for i in range(layers):
        b = f"blk.{i}."
        for norm_name, names in (("attn_norm", ("attn_q", "attn_k", "attn_v")), ("ffn_norm", ("ffn_gate", "ffn_up"))):
            g = load(file, f"{b}{norm_name}.weight").astype(np.float64) if r1 else np.ones(n)
            for name in names:
                new[f"{b}{name}.weight"] = (load(file, f"{b}{name}.weight") * g) @ R
                maps[f"{b}{name}.weight"] = (1 / g, R)
            if r1:
                new[f"{b}{norm_name}.weight"] = np.ones(n)
        v = new[f"{b}attn_v.weight"].reshape(kv, hd, n)
        new[f"{b}attn_v.weight"] = np.einsum("hcn,cd->hdn", v, S).reshape(kv * hd, n)
        o = load(file, f"{b}attn_output.weight")
        blocks = np.kron(np.eye(heads), S)
        new[f"{b}attn_output.weight"] = R.T @ (o @ blocks)
        maps[f"{b}attn_output.weight"] = (np.ones(heads * hd), blocks)
        new[f"{b}ffn_down.weight"] = R.T @ load(file, f"{b}ffn_down.weight")

    def change(name, gram):
        if name not in maps:
            return gram
        s, r = maps[name]
        return (r.T @ (gram * s[:, None] * s) @ r).astype(np.float32)

    found = Mapped(grams, change)
    if r1 and "output.weight" not in file.tensors:
        tied = {**grams.first}
        tied["output.weight"] = "output.weight"
        tied.pop("token_embd.weight")
        found.first = tied
        inner = found.__class__.__getitem__

        class Untied(Mapped):
            def __getitem__(self, name):
                return self.change(name, grams["token_embd.weight" if name == "output.weight" else name])

            def __contains__(self, name):
                return name in tied

        found = Untied(grams, change)
        found.first = tied
    return Equal(file, new, {"tie_word_embeddings": False} if r1 else None), found


def scaled(file, grams, error, alphas):
    """(file, grams) with channels scaled as AWQ does; `error(matrices, gram)` is what a group of matrices loses."""
    c = file.metadata["config"]
    n, layers, kv, heads = c["hidden_size"], c["num_hidden_layers"], c["num_key_value_heads"], c["num_attention_heads"]
    hd = c.get("head_dim") or n // heads
    new, scales, chosen = {}, {}, []

    def get(name):
        return new[name] if name in new else load(file, name)

    for i in range(layers):
        b = f"blk.{i}."
        for names in (("attn_q", "attn_k", "attn_v"), ("attn_output",), ("ffn_gate", "ffn_up"), ("ffn_down",)):
            names = [f"{b}{name}.weight" for name in names]
            gram = grams[names[0]].astype(np.float64)
            power = np.sqrt(np.diagonal(gram)) + 1e-8
            matrices = [get(name) for name in names]
            best = None
            for alpha in alphas:
                s = power**alpha
                if "attn_output" in names[0]:
                    s = s.reshape(kv, heads // kv, hd).mean(1, keepdims=True).repeat(heads // kv, 1).reshape(-1)
                s = s / np.sqrt(s.max() * s.min())
                lost = error([m * s for m in matrices], gram / s[:, None] / s)
                if best is None or lost < best[0]:
                    best = lost, alpha, s
            _, alpha, s = best
            chosen.append(alpha)
            for name, m in zip(names, matrices, strict=True):
                new[name] = m * s
                scales[name] = s
            before = {"attn_q": "attn_norm", "ffn_gate": "ffn_norm"}.get(names[0].split(".")[2])
            if before:
                new[f"{b}{before}.weight"] = get(f"{b}{before}.weight") / s
            elif "attn_output" in names[0]:
                per = s.reshape(kv, heads // kv, hd)[:, 0].reshape(-1)
                new[f"{b}attn_v.weight"] = get(f"{b}attn_v.weight") / per[:, None]
            else:
                new[f"{b}ffn_up.weight"] = get(f"{b}ffn_up.weight") / s[:, None]

    def change(name, gram):
        if name not in scales:
            return gram
        s = scales[name]
        return (gram / s[:, None] / s).astype(np.float32)

    print("alphas", np.bincount(np.searchsorted(alphas, chosen), minlength=len(alphas)), flush=True)
    return Equal(file, new), Mapped(grams, change)


def fixed(file, mean_square, alpha, kinds=("attn_q", "ffn_down")):
    """The file with columns scaled by (E[x^2])^(alpha / 2), and the scales by name."""
    c = file.metadata["config"]
    new, scales = {}, {}

    def get(name):
        return new[name] if name in new else load(file, name)

    for i in range(c["num_hidden_layers"]):
        b = f"blk.{i}."
        for names in (("attn_q", "attn_k", "attn_v"), ("ffn_gate", "ffn_up"), ("ffn_down",)):
            if names[0] not in kinds:
                continue
            names = [f"{b}{name}.weight" for name in names]
            s = (mean_square(names[0]).astype(np.float64) + 1e-12) ** (alpha / 2)
            s = s / np.exp(np.log(s).mean())
            for name in names:
                new[name] = get(name) * s
                scales[name] = s
            before = {"attn_q": "attn_norm", "ffn_gate": "ffn_norm"}.get(names[0].split(".")[2])
            if before:
                new[f"{b}{before}.weight"] = get(f"{b}{before}.weight") / s
            else:
                new[f"{b}ffn_up.weight"] = get(f"{b}ffn_up.weight") / s[:, None]
    return Equal(file, new), scales


def with_scales(grams, scales):
    def change(name, gram):
        s = scales.get(name)
        return gram if s is None else (gram / s[:, None] / s).astype(np.float32)

    return Mapped(grams, change)
