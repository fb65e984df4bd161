"""Train the bundled tiny story model and write it as a Hugging Face checkpoint.

The result is a Llama-architecture model of about 3 million parameters with a byte-level BPE tokenizer of 2048
tokens, trained from scratch on a text file of short stories separated by ``<|endoftext|>`` (the TinyStories
validation file). Part of every epoch is laid out as chat ("Tell me a story about a dog and a ball." followed by a
story with a dog and a ball in it), so that the chat template in the tokenizer means something to the model.

The last 153 stories are held out: neither the tokenizer nor the model trains on them. At each evaluation the weights
are rounded to bfloat16, measured on the held-out stories, and written to the output directory if they are the best
so far. The learning rate follows the processor time spent, so that a busy machine only makes training last longer;
the result therefore depends on the speed of the machine, and is not the same to the bit on another one.

Needs torch, transformers, tokenizers and safetensors, which are not dependencies of this project:

    pip install torch transformers tokenizers safetensors
    python tools/train_tiny_model.py --data tinystories_val.txt --out tools/tiny_model --minutes 45

With ``--start DIR`` training goes on from the weights of an earlier checkpoint; a ``--rate`` of about half suits it.

``--shape wide`` makes a model of 17 million parameters whose rows are multiples of 256 weights, as k-quants in GGUF
need them, with a head of its own; ``--text`` gives it more to read than stories. It is what quantizers are measured on:

    python tools/train_tiny_model.py --shape wide --data tinystories_val.txt --text wiki.txt tales.txt --out wide \
        --minutes 75 --by-clock --dropout 0 --looks 8
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

SEPARATOR = "<|endoftext|>"
SPECIAL_TOKENS = [SEPARATOR, "<|user|>", "<|assistant|>", "<|end|>"]
BOS, USER, ASSISTANT, END = range(4)
HELD_OUT_STORIES = 153
WEIGHT_DECAY = 0.2

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 192,
    "intermediate_size": 640,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 2048,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "mlp_bias": False,
    "attention_dropout": 0.0,
    "tie_word_embeddings": True,
    "initializer_range": 0.02,
    "bos_token_id": BOS,
    "eos_token_id": BOS,
    "torch_dtype": "bfloat16",
    "use_cache": True,
}
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "wide": {
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "vocab_size": 4096,
        "tie_word_embeddings": False,
    },
}
PIECE = 2000  # characters of a document that is cut from other text, at least
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<|user|>' + message['content'] + '<|end|>' }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|assistant|>' + message['content'] + '<|end|>' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

PROMPTS = (
    "Tell me a story about {}.",
    "Tell me a short story about {}.",
    "Write a story about {}.",
    "Can you tell me a story about {}?",
    "Please tell me a story about {}.",
    "I want to hear a story about {}.",
)
BARE_PROMPTS = ("Tell me a story.", "Tell me a story, please.", "Write a short story.", "Can you tell me a story?")
NOT_TOPICS = re.findall(
    r"\w+",
    """
    time day way lot bit while moment end place one other others thing idea voice face family name mom mommy mother
    dad story surprise sudden turn part minute week success distance urge wood well rest number plan smile problem
    """,
)
NOUN = re.compile(
    r"\b(a|an|the|his|her|their|my|your)\s+(?:[a-z]+\s+)?([a-z]{3,})"
    r"(?=\s*[.,!?]|\s+(?:was|is|and|to|in|on|with|that|who|had|said|named|called|for|of|at)\b)"
)
NAMED = re.compile(r"\b(girl|boy|man|woman|dog|cat|bird|bear|rabbit|bunny)(?: named| called) ([A-Z][a-z]+)")


@dataclass(frozen=True)
class Stories:
    """The stories of a text file, split into a training part and a held-out part."""

    train: list[str]
    held_out: list[str]
    held_out_offset: int  # in bytes of the UTF-8 file: the held-out text is all that follows


def read_stories(path: Path) -> Stories:
    """Split a file of stories; the first story is dropped because the file cuts into it."""
    pieces = path.read_text(encoding="utf-8").split(SEPARATOR)
    if not pieces[-1].strip():
        pieces.pop()
    head, tail = pieces[:-HELD_OUT_STORIES], pieces[-HELD_OUT_STORIES:]
    if len(head) < 2:
        raise SystemExit(f"{path}: need more than {HELD_OUT_STORIES + 1} stories separated by {SEPARATOR}")
    offset = sum(len(piece.encode()) + len(SEPARATOR) for piece in head)
    train = [piece.strip() for piece in head[1:]]
    return Stories([story for story in train if story], [piece.strip() for piece in tail], offset)


def read_texts(paths: list[Path]) -> list[str]:
    """Text files as documents of whole paragraphs."""
    documents: list[str] = []
    for path in paths:
        document = ""
        for paragraph in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")):
            document += paragraph.strip() + "\n\n"
            if len(document) >= PIECE:
                documents.append(document.strip())
                document = ""
        documents += [document.strip()] if document.strip() else []
    return documents


def train_tokenizer(stories: list[str]) -> Tokenizer:
    """Train the byte-level BPE tokenizer; it puts the begin-of-text token in front of everything it encodes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"],
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(stories, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SEPARATOR} $A", pair=f"{SEPARATOR} $A $B:1", special_tokens=[(SEPARATOR, BOS)]
    )
    if tokenizer.get_vocab_size() != CONFIG["vocab_size"]:
        raise SystemExit(f"only {tokenizer.get_vocab_size()} tokens could be learned: the text is too short")
    return tokenizer


def find_nouns(stories: list[str]) -> frozenset[str]:
    """Guess which words are countable nouns: those that often stand between an article and the end of a phrase."""
    total: Counter[str] = Counter()
    phrase: Counter[str] = Counter()
    singular: Counter[str] = Counter()
    for story in stories:
        total.update(re.findall(r"[a-z]{3,}", story))
        for article, word in NOUN.findall(story):
            phrase[word] += 1
            singular[word] += article in ("a", "an")
    return frozenset(
        word
        for word, count in phrase.items()
        if count >= 5 and singular[word] >= 2 and count >= 0.2 * total[word] and word not in NOT_TOPICS
    )


def make_prompt(story: str, nouns: frozenset[str], rng: random.Random) -> str:
    """Make a request that the story would be a fair answer to, naming one to three things that occur in it."""
    counts = Counter(word for word in re.findall(r"[a-z]+", story) if word in nouns)
    topics = [word for word, count in counts.most_common(5) if count >= 2]
    chosen = rng.sample(topics, min(len(topics), rng.choice((1, 2, 2, 3))))
    things = [f"{'an' if word[0] in 'aeiou' else 'a'} {word}" for word in chosen]
    named = NAMED.search(story)
    if named and rng.random() < 0.4:
        things = [f"a {named[1]} named {named[2]}", *(thing for thing in things[:1] if thing != f"a {named[1]}")]
    if not things or rng.random() < 0.05:
        return rng.choice(BARE_PROMPTS)
    joined = things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"
    return rng.choice(PROMPTS).format(joined)


class Corpus:
    """Endless training rows, each beginning where a document begins: a plain story or another text, or a chat of one or
    two turns about a story."""

    def __init__(
        self, stories: list[str], texts: list[str], tokenizer: Tokenizer, chat_share: float, seed: int
    ) -> None:
        self.tokenizer = tokenizer
        self.chat_share = chat_share
        self.rng = random.Random(seed)
        nouns = find_nouns(stories)
        self.nouns = nouns
        self.stories = [(story, self.encode(story)) for story in stories]
        self.texts = [("", self.encode(text)) for text in texts]

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def turn(self, story: str, ids: list[int]) -> list[int]:
        prompt = self.encode(make_prompt(story, self.nouns, self.rng))
        return [USER, *prompt, END, ASSISTANT, *ids, END]

    def documents(self) -> Iterator[list[int]]:
        """One pass over all of it in random order; every document begins with the begin-of-text token."""
        every = self.stories + self.texts
        stories = iter(self.rng.sample(every, len(every)))
        for story, ids in stories:
            if not story or self.rng.random() >= self.chat_share:
                yield [BOS, *ids]
                continue
            chat = [BOS, *self.turn(story, ids)]
            second = next(stories, None) if self.rng.random() < 0.3 else None
            if second and not second[0]:
                yield chat
                yield [BOS, *second[1]]
                continue
            yield chat + self.turn(*second) if second else chat

    def rows(self, length: int) -> Iterator[list[int]]:
        """About as many rows as hold the text once; a row runs on into the documents that follow its own."""
        stream: list[int] = []
        starts: list[int] = []
        for document in self.documents():
            starts.append(len(stream))
            stream += document
        usable = [start for start in starts if start + length <= len(stream)]
        for start in self.rng.sample(usable, min(len(usable), len(stream) // length)):
            yield stream[start : start + length]

    def batches(self, size: int, length: int) -> Iterator[torch.Tensor]:
        """Batches of token ids without end; each row has one token more than the model reads."""
        batch: list[list[int]] = []
        while True:
            for row in self.rows(length + 1):
                batch.append(row)
                if len(batch) == size:
                    yield torch.tensor(batch)
                    batch = []


def build_model(dropout: float, start: Path | None) -> LlamaForCausalLM:
    """Build the model, random or from a checkpoint, with dropout on the embeddings and on what each block adds."""
    if start is None:
        settings = {key: value for key, value in CONFIG.items() if key not in ("torch_dtype", "architectures")}
        model = LlamaForCausalLM(LlamaConfig(**settings))
    else:
        model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)

    def drop(module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return functional.dropout(output, dropout, module.training)

    for name, module in model.named_modules():
        if name.endswith(("embed_tokens", "o_proj", "down_proj")):
            module.register_forward_hook(drop)
    return model


class Muon(torch.optim.Optimizer):
    """Momentum descent along the nearest orthogonal matrix to the gradient, for the matrices of the blocks.

    It needs fewer steps here than AdamW for all weights does. The one in torch works in bfloat16, which takes seconds
    a step on a CPU without bfloat16 instructions. Matrices of one size are worked on together; the factor on the step
    makes it as large as one of AdamW's, so that both share a learning rate.
    """

    def __init__(self, weights: list[torch.nn.Parameter], rate: float, momentum: float = 0.95) -> None:
        sizes: dict[tuple[int, ...], list[torch.nn.Parameter]] = {}
        for weight in weights:
            sizes.setdefault(tuple(sorted(weight.shape)), []).append(weight)
        super().__init__([{"params": same} for same in sizes.values()], {"lr": rate, "momentum": momentum})

    @staticmethod
    def orthogonal(wide: torch.Tensor) -> torch.Tensor:
        """Newton-Schulz iteration on a stack of matrices no higher than wide."""
        x = wide / (torch.linalg.matrix_norm(wide, keepdim=True) + 1e-7)
        for _ in range(5):
            square = x @ x.mT
            x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
        return x

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            wide = []
            for weight in group["params"]:
                average = self.state[weight].setdefault("average", torch.zeros_like(weight))
                average.lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(average, group["momentum"])
                wide.append(ahead.T if weight.shape[0] > weight.shape[1] else ahead)
            for weight, update in zip(group["params"], self.orthogonal(torch.stack(wide)), strict=True):
                direction = update.T if weight.shape[0] > weight.shape[1] else update
                weight.mul_(1 - group["lr"] * WEIGHT_DECAY)
                weight.add_(direction, alpha=-group["lr"] * 0.2 * max(weight.shape) ** 0.5)


def build_optimizers(model: LlamaForCausalLM, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for embedding and head and for the norms (these without decay)."""
    ends = [model.get_input_embeddings().weight]
    if not CONFIG["tie_word_embeddings"]:
        ends.append(model.get_output_embeddings().weight)
    matrices = [weight for weight in model.parameters() if weight.ndim == 2 and all(weight is not end for end in ends)]
    vectors = [weight for weight in model.parameters() if weight.ndim < 2]
    groups = [{"params": ends, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return [Muon(matrices, rate), torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)]


def next_token_losses(model: LlamaForCausalLM, tokens: torch.Tensor) -> torch.Tensor:
    logits = model(tokens[:, :-1], use_cache=False).logits
    return functional.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="none")


@torch.no_grad()
def evaluate(model: LlamaForCausalLM, stories: list[str], tokenizer: Tokenizer) -> tuple[float, int]:
    """Mean loss in nats over every token of each story and its end, after its begin token; and their number."""
    model.eval()
    limit = CONFIG["max_position_embeddings"] + 1
    rows = sorted(([*tokenizer.encode(story).ids, BOS][:limit] for story in stories), key=len)
    loss, count = 0.0, 0
    for first in range(0, len(rows), 16):
        batch = rows[first : first + 16]
        width = len(batch[-1])
        tokens = torch.tensor([row + [BOS] * (width - len(row)) for row in batch])
        real = torch.tensor([[True] * (len(row) - 1) + [False] * (width - len(row)) for row in batch])
        losses = next_token_losses(model, tokens)[real.flatten()]
        loss, count = loss + losses.sum().item(), count + losses.numel()
    return loss / count, count


def rounded(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """A copy that computes in float32 with weights rounded to bfloat16, as the checkpoint stores them."""
    return copy.deepcopy(model).to(torch.bfloat16).to(torch.float32)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tokenizer(out: Path, tokenizer: Tokenizer) -> None:
    roles = {"bos_token": SEPARATOR, "eos_token": SEPARATOR, "pad_token": SEPARATOR, "unk_token": SEPARATOR}
    tokenizer.save(str(out / "tokenizer.json"))
    write_json(out / "special_tokens_map.json", roles)
    write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_bos_token": True,
            "add_eos_token": False,
            **roles,
            "clean_up_tokenization_spaces": False,
            "model_max_length": CONFIG["max_position_embeddings"],
            "chat_template": CHAT_TEMPLATE,
        },
    )


def write_model(out: Path, model: LlamaForCausalLM) -> None:
    """Write weights and configuration; an output projection that is the embedding is not stored a second time."""
    state = {name: weight.to(torch.bfloat16).contiguous() for name, weight in model.state_dict().items()}
    if CONFIG["tie_word_embeddings"]:
        state.pop("lm_head.weight", None)
    (out / "model.safetensors").write_bytes(save(state, metadata={"format": "pt"}))
    write_json(out / "config.json", CONFIG)
    write_json(
        out / "generation_config.json",
        {"bos_token_id": BOS, "eos_token_id": [BOS, END], "pad_token_id": BOS, "do_sample": True, "temperature": 0.8},
    )


def write_card(out: Path, model: LlamaForCausalLM, stories: Stories, loss: float, count: int, passes: str) -> None:
    size = sum(weight.numel() for weight in model.parameters())
    held_out_bytes = sum(len(story.encode()) for story in stories.held_out)
    bits = loss * count / held_out_bytes / math.log(2)
    card = f"""# Tiny story model

A Llama-architecture language model of {size:,} parameters that writes short children's stories in English. It exists
to try and to test inference software; it knows nothing else and should be used for nothing else.

- Layout: Hugging Face `LlamaForCausalLM`, bfloat16, tied embeddings, context {CONFIG["max_position_embeddings"]},
  byte-level BPE vocabulary of {CONFIG["vocab_size"]} tokens trained on the same stories.
- Chat: `<|user|>request<|end|><|assistant|>`, as the template in `tokenizer_config.json` writes it. It takes requests
  such as "Tell me a story about a dog and a ball."; a story ends with `<|end|>` (plain text with `<|endoftext|>`).
- Data: part of the TinyStories validation set (Eldan and Li, 2023, `roneneldan/TinyStories`), whose licence is
  CDLA-Sharing-1.0: {len(stories.train):,} stories, read {passes}, part of them laid out as chat.
- Training: from random weights with `tools/train_tiny_model.py` (Muon and AdamW, weight decay, dropout, one
  cosine cycle).
- Held out: the last {HELD_OUT_STORIES} stories of `tinystories_val.txt`, which is everything from byte
  {stories.held_out_offset:,} of the file on. Neither the tokenizer nor the model trained on them; the checkpoint was
  chosen by the loss on them. The weights as stored have loss {loss:.4f} nats per token there (perplexity
  {math.exp(loss):.2f}, {bits:.4f} bits per byte), over {count:,} tokens, each story on its own after `<|endoftext|>`.
"""
    (out / "README.md").write_text(card, encoding="utf-8")


def rate_at(progress: float) -> float:
    """The learning rate as a share of its peak: a short linear rise, then a cosine down to 2%."""
    rise = 0.02
    if progress < rise:
        return max(progress, 0.001) / rise
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - rise) / (1 - rise))))


def train(arguments: argparse.Namespace) -> None:
    """Train for the time given, and keep in the output directory the checkpoint that did best on the held-out text."""
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    CONFIG.update(SHAPES[arguments.shape])
    stories, texts = read_stories(arguments.data), read_texts(arguments.text)
    tokenizer = train_tokenizer(stories.train + texts)
    corpus = Corpus(stories.train, texts, tokenizer, arguments.chat_share, arguments.seed)
    model = build_model(arguments.dropout, arguments.start)
    optimizers = build_optimizers(model, arguments.rate)
    short, full = corpus.batches(12, 256), corpus.batches(6, 512)  # 3072 tokens either way
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_tokenizer(arguments.out, tokenizer)
    corpus_tokens = sum(len(ids) for _, ids in corpus.stories + corpus.texts)
    clock, processors = (time.monotonic, 1) if arguments.by_clock else (time.process_time, arguments.threads)
    began, best, seen, next_look, progress = clock(), math.inf, 0, 0.1, 0.0
    while progress < 1.0:
        progress = (clock() - began) / (60 * arguments.minutes * processors)
        for group in itertools.chain.from_iterable(optimizer.param_groups for optimizer in optimizers):
            group["lr"] = arguments.rate * rate_at(progress)
        tokens = next(short if progress < 0.7 else full)
        model.train()
        loss = next_token_losses(model, tokens).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        seen += tokens.numel()
        if progress >= min(next_look, 1.0):
            next_look = progress + 1 / arguments.looks
            held_out_loss, count = evaluate(rounded(model), stories.held_out, tokenizer)
            print(f"{progress:6.1%} {seen:9d} tokens, loss {loss.item():.3f}, held out {held_out_loss:.4f}", flush=True)
            if held_out_loss < best:
                best = held_out_loss
                passes = f"about {seen / corpus_tokens:.0f} times{' more' if arguments.start else ''}"
                write_model(arguments.out, model)
                if arguments.shape == "tiny":
                    write_card(arguments.out, model, stories, best, count, passes)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the bundled tiny story model.")
    parser.add_argument("--data", type=Path, required=True, help=f"text file of stories separated by {SEPARATOR}")
    parser.add_argument("--text", type=Path, nargs="+", default=[], help="files of other text to train on")
    parser.add_argument("--shape", choices=SHAPES, default="tiny", help="of the model (default: tiny)")
    parser.add_argument("--out", type=Path, required=True, help="directory for the checkpoint, made if missing")
    parser.add_argument("--minutes", type=float, default=45.0, help="how long each thread works (default: 45)")
    parser.add_argument("--by-clock", action="store_true", help="minutes are the clock's, not a processor's")
    parser.add_argument("--looks", type=int, default=25, help="how often to measure on held-out stories (default: 25)")
    parser.add_argument("--start", type=Path, help="directory of a checkpoint to go on from")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--dropout", type=float, default=0.15)
    parser.add_argument("--chat-share", type=float, default=1 / 3, help="share of the stories laid out as chat")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
