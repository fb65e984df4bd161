"""llama.cpp as a resident engine for bench/compare.py: `engine_llama.py model.gguf context`.

Runs under a Python that has the `llama_cpp` package, and needs nothing else.
"""

import ctypes
import sys

import llama_cpp as llama
from turns import serve, timed

BATCH = 512


@llama.llama_log_callback
def quiet(level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
    """llama.cpp tells much while it loads; errors are worth reading."""
    if level == 4:
        sys.stderr.write(text.decode(errors="replace"))


def load(path: str, context: int) -> tuple[object, object]:
    """Model and context with llama.cpp's own choices, but for the sizes."""
    parameters = llama.llama_context_default_params()
    parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = context, BATCH, BATCH
    parameters.n_threads = parameters.n_threads_batch = 1
    model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
    made = model and llama.llama_init_from_model(model, parameters)
    if not made:
        sys.exit(f"{path}: llama.cpp cannot load it")
    return model, made


def main() -> None:
    llama.llama_log_set(quiet, None)
    llama.llama_backend_init()
    model, context = load(sys.argv[1], int(sys.argv[2]))
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))

    def decode(tokens: list[int]) -> ctypes.Array[ctypes.c_float]:
        """Append tokens; the logits of the last."""
        ids = (llama.llama_token * len(tokens))(*tokens)
        code = llama.llama_decode(context, llama.llama_batch_get_one(ids, len(tokens)))
        if code:
            raise RuntimeError(f"llama_decode returned {code}")
        return llama.llama_get_logits_ith(context, -1)  # waits until it is computed

    def restart(threads: int) -> None:
        llama.llama_set_n_threads(context, threads, threads)
        llama.llama_memory_clear(llama.llama_get_memory(context), False)

    def seconds(tokens: list[int], batch: bool, threads: int) -> float:
        """Time of `tokens` from an empty context: in batches, or one after the other."""
        step = BATCH if batch else 1
        parts = [tokens[i : i + step] for i in range(0, len(tokens), step)]

        def run() -> None:
            restart(threads)
            for part in parts:
                decode(part)

        return timed(run)

    def likeliest(tokens: list[int], threads: int) -> list[int]:
        """For each position the token with the largest logit after it."""
        restart(threads)
        rows = (decode([token])[:vocabulary] for token in tokens)
        return [max(range(vocabulary), key=row.__getitem__) for row in rows]

    serve({"version": llama.__version__}, {"seconds": seconds, "likeliest": likeliest})


if __name__ == "__main__":
    main()
