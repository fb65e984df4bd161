"""What llama.cpp computes of checkpoints that transformers has no class of, for tools/make_golden.py.

    python tools/llama_models.py LLAMA_CPP CHECKPOINT OUT.gguf

writes a checkpoint's folder, by llama.cpp's own converter, in F32 and without a tokenizer; LLAMA_CPP is the folder of
its sources. Needs torch and transformers.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np

PEER = Path(__file__).with_name("llama_peer.py")


def convert(sources: Path, checkpoint: Path, out: Path) -> None:
    sys.path[:0] = [str(sources), str(sources / "gguf-py")]
    import gguf
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

    kind = get_model_class(get_model_architecture(ModelBase.load_hparams(checkpoint, False), ModelType.TEXT))

    def say_size(self: ModelBase) -> None:
        self.gguf_writer.add_tokenizer_model("none")
        self.gguf_writer.add_vocab_size(self.hparams["vocab_size"])

    kind.set_vocab = say_size
    kind(checkpoint, gguf.LlamaFileType.ALL_F32, out).write()


class Llama:
    """llama.cpp, by its sources and a Python that has its package."""

    def __init__(self, sources: Path, python: str) -> None:
        self.sources, self.python = sources, python

    def convert(self, checkpoint: Path) -> Path:
        """The GGUF file of a checkpoint, in its folder."""
        out = checkpoint / "m.gguf"
        subprocess.run([sys.executable, __file__, str(self.sources), str(checkpoint), str(out)], check=True)
        return out

    def run(self, file: Path, tokens: list[int], count: int) -> tuple[np.ndarray, list[int]]:
        """Logits f32 [tokens, vocabulary], and `count` tokens that follow."""
        Path(f"{file}.ids").write_text(" ".join(map(str, tokens)))
        subprocess.run([self.python, str(PEER), "run", str(file), str(count)], check=True)
        logits = np.fromfile(f"{file}.logits", np.float32).reshape(len(tokens), -1)
        return logits, [int(word) for word in Path(f"{file}.text").read_text().split()]

    def greedy(self, file: Path, prompt: list[int], count: int, least: float) -> tuple[np.ndarray, list[int]]:
        """The prompt's logits, and the tokens that follow, up to a choice whose margin is below `least`."""
        logits, text = self.run(file, prompt, count)
        rows = np.sort(self.run(file, [*prompt, *text], 0)[0][len(prompt) - 1 : -1], axis=1)
        clear = [*(rows[:, -1] - rows[:, -2] >= least), False]
        return logits, text[: clear.index(False)]


if __name__ == "__main__":
    convert(*map(Path, sys.argv[1:]))
