"""llama.cpp as a resident engine for bench/pair.py: `engine_llama.py model.gguf context`.

`engine_llama.py model.gguf context --once TOKENS THREADS` takes a prompt of so many ids, finds one token and ends.
Runs under a Python that has the `llama_cpp` package.
"""

import ctypes
import sys

from llama_library import llama
from turns import BATCH, serve, timed


class Peer:
    """Model and context with llama.cpp's own choices, but for the sizes."""

    def __init__(self, path: str, size: int, threads: int = 1):
        parameters = llama.llama_context_default_params()
        parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = size, BATCH, BATCH
        parameters.n_threads = parameters.n_threads_batch = threads
        model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
        self.context = model and llama.llama_init_from_model(model, parameters)
        if not self.context:
            sys.exit(f"{path}: llama.cpp cannot load it")
        self.vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
        self.position = 0
        self._batch = llama.llama_batch_init(BATCH, 0, 1)

    def rewind(self, position: int) -> None:
        """Forget everything from `position` on."""
        memory = llama.llama_get_memory(self.context)
        if not llama.llama_memory_seq_rm(memory, 0, position, -1):
            raise RuntimeError(f"llama_memory_seq_rm cannot go back to {position}")
        self.position = position

    def eval(self, tokens: list[int]) -> "ctypes.Array[ctypes.c_float]":
        """Append tokens, in batches; the logits of the last, the only ones that are computed."""
        for first in range(0, len(tokens), BATCH):
            part, batch = tokens[first : first + BATCH], self._batch
            batch.n_tokens = len(part)
            for i, token in enumerate(part):
                batch.token[i], batch.pos[i] = token, self.position + i
                batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, 0
            batch.logits[len(part) - 1] = first + BATCH >= len(tokens)
            code = llama.llama_decode(self.context, batch)
            if code:
                raise RuntimeError(f"llama_decode returned {code}")
            self.position += len(part)
        return llama.llama_get_logits_ith(self.context, -1)  # waits until it is computed

    def likeliest(self, tokens: list[int]) -> list[int]:
        """For each position the token with the largest logit after it."""
        return [self.likeliest_after([token]) for token in tokens]

    def likeliest_after(self, tokens: list[int]) -> int:
        row = self.eval(tokens)[: self.vocabulary]
        return max(range(self.vocabulary), key=row.__getitem__)


def main() -> None:
    if "--once" in sys.argv:
        tokens, threads = int(sys.argv[4]), int(sys.argv[5])
        print(Peer(sys.argv[1], int(sys.argv[2]), threads).likeliest_after(list(range(1, tokens + 1))))
        return
    model = Peer(sys.argv[1], int(sys.argv[2]))

    def seconds(before: list[int], tokens: list[int], batch: bool, threads: int) -> float:
        """Time of `tokens` after `before`: in batches, or one after the other."""
        llama.llama_set_n_threads(model.context, threads, threads)
        parts = [tokens] if batch else [[token] for token in tokens]
        model.rewind(min(len(before), model.position))
        if missing := before[model.position :]:
            model.eval(missing)

        def run() -> None:
            model.rewind(len(before))
            for part in parts:
                model.eval(part)

        return timed(run)

    def likeliest(tokens: list[int], threads: int) -> list[int]:
        llama.llama_set_n_threads(model.context, threads, threads)
        model.rewind(0)
        return model.likeliest(tokens)

    serve({"version": llama.__version__}, {"seconds": seconds, "likeliest": likeliest})


if __name__ == "__main__":
    main()
