"""llama.cpp for tools/check_gguf.py, under a Python that has the `llama_cpp` package.

llama_peer.py quantize SOURCE.gguf OUT.gguf FTYPE      every matrix of one type, without an importance matrix's help
llama_peer.py run MODEL.gguf COUNT                     reads MODEL.gguf.ids, a prompt; writes MODEL.gguf.logits, f32
                                                       [tokens, vocabulary], and MODEL.gguf.text, COUNT ids more
"""

import ctypes
import sys
from array import array
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "bench"))
from llama_library import llama


def quantize(source: str, out: str, kind: str, *matrices: str) -> None:
    """`matrices`: NAME:COLUMNS, whose columns all matter as much; some types are not made without knowing that."""
    parameters = llama.llama_model_quantize_default_params()
    parameters.nthread, parameters.ftype, parameters.pure = 1, getattr(llama, f"LLAMA_FTYPE_MOSTLY_{kind}"), True
    table = (llama.llama_model_imatrix_data * (len(matrices) + 1))()
    for entry, matrix in zip(table, matrices, strict=False):
        name, columns = matrix.rsplit(":", 1)
        ones = (ctypes.c_float * int(columns))(*[1.0] * int(columns))
        entry.name, entry.data, entry.size = name.encode(), ones, int(columns)
    parameters.imatrix = table
    if llama.llama_model_quantize(source.encode(), out.encode(), ctypes.byref(parameters)):
        sys.exit(f"{source}: llama.cpp does not make {kind}")


def run(path: str, count: int) -> None:
    """Logits of all positions of the prompt, then the likeliest tokens one by one."""
    ids = [int(word) for word in Path(f"{path}.ids").read_text().split()]
    exact = {"type_k": llama.GGML_TYPE_F32, "type_v": llama.GGML_TYPE_F32, "logits_all": True}
    model = llama.Llama(path, n_ctx=len(ids) + count, n_batch=len(ids), n_threads=1, verbose=False, **exact)
    model.eval(ids)
    rows = [list(map(float, row)) for row in model.scores[: len(ids)]]
    Path(f"{path}.logits").write_bytes(array("f", [value for row in rows for value in row]).tobytes())
    text: list[int] = []
    while len(text) < count:
        row = list(model.scores[model.n_tokens - 1])
        text.append(row.index(max(row)))
        model.eval(text[-1:])
    Path(f"{path}.text").write_text(" ".join(map(str, text)))


def main() -> None:
    if sys.argv[1] == "quantize":
        quantize(*sys.argv[2:])
    else:
        run(sys.argv[2], int(sys.argv[3]))


if __name__ == "__main__":
    main()
