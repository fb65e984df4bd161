"""Models for lm-evaluation-harness (the package lm_eval, which edgeq does not need otherwise).

    import lm_eval
    from edgeq.evaluate.lm_eval import Edgeq
    lm_eval.simple_evaluate(Edgeq("model.eqf"), tasks=["hellaswag"], limit=100)

Its commands know the class as the model "edgeq" once this module is imported: model_args are `path` and what
`edgeq.load` takes.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from edgeq.engine.model import Model
from edgeq.engine.scoring import split
from edgeq.errors import UsageError
from edgeq.loading import load

MOST_TOKENS = 256  # of an answer whose task does not say


@register_model("edgeq")
class Edgeq(LM):  # type: ignore[misc]
    """A model, loaded or by its path. Texts that are too long lose their beginning."""

    def __init__(self, path: "Model | str", **loading: Any) -> None:
        super().__init__()
        given = {name: value for name, value in loading.items() if name in ("threads", "context", "kv")}
        self.model = path if isinstance(path, Model) else load(path, **given)
        tokenizer = self.model.tokenizer
        first = tokenizer.bos_id if tokenizer.bos_id is not None else min(tokenizer.eos_ids, default=None)
        if first is None:
            raise UsageError(f"{self.model.file.path}: has no token that begins or ends a text, as lm_eval needs")
        self.prefix_token_id = first

    @property
    def tokenizer_name(self) -> str:
        return str(self.model.file.path)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """What lm_eval notes in its results."""
        return self.tokenizer_name if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return self.model.chat_template.render(chat_history, add_generation_prompt=add_generation_prompt)

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(logarithm of the probability, whether it is the likeliest) of each (context, continuation). Those of one
        context come one after the other, and it is computed once."""
        results = []
        for context, group in groupby((request.args for request in requests), key=lambda pair: pair[0]):
            pairs = list(group)
            found = self._score(context, [continuation for _, continuation in pairs])
            for pair, result in zip(pairs, found, strict=True):
                self.cache_hook.add_partial("loglikelihood", pair, result)
                results.append(result)
        return results

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Logarithm of the probability of each (text,), every token of it given as many before it as fit."""
        results = []
        for (text,) in (request.args for request in requests):
            ids = self.model.tokenizer.encode(text, add_special=False)
            pairs = rolling(ids, self.prefix_token_id, self.model.context)
            result = sum(self.model.score(context, [following])[0].logprob for context, following in pairs)
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), result)
            results.append(result)
        return results

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """An answer to each (context, options); without `do_sample` or a temperature always the likeliest token."""
        results = []
        for context, options in (request.args for request in requests):
            until = options.get("until") or []
            stops = [stop for stop in ([until] if isinstance(until, str) else until) if stop]
            tokens = int(options.get("max_gen_toks", options.get("max_new_tokens", MOST_TOKENS)))
            sampled = options.get("do_sample", options.get("temperature", 0) > 0)
            sampling = {name: options[name] for name in ("top_k", "top_p", "min_p") if sampled and name in options}
            temperature = float(options.get("temperature", 1.0)) if sampled else 0.0
            ids = self._encode(context)[-max(1, self.model.context - tokens) :]
            answer = self.model.generate(
                ids, tokens, stop=stops, temperature=temperature, repetition_penalty=1.0, **sampling
            )
            self.cache_hook.add_partial("generate_until", (context, options), answer.text)
            results.append(answer.text)
        return results

    def _encode(self, text: str) -> list[int]:
        """Ids of a prompt, with one bos where a chat template has written another."""
        ids = self.model.tokenizer.encode(text)
        return ids[1:] if ids[:2] == [self.model.tokenizer.bos_id] * 2 else ids

    def _score(self, context: str, continuations: list[str]) -> Iterable[tuple[float, bool]]:
        if context:
            prompt, following = split(self.model.tokenizer, context, continuations)
        else:
            prompt = [self.prefix_token_id]
            encoded = (self.model.tokenizer.encode(text) for text in continuations)
            following = [ids[1:] if ids[:1] == prompt else ids for ids in encoded]
        longest = max(map(len, following))
        if len(prompt) + longest - 1 <= self.model.context:
            found = self.model.score(prompt or [self.prefix_token_id], following)
        else:
            room = self.model.context + 1
            cut = (((prompt + ids)[-room:], len(ids)) for ids in following)
            found = [self.model.score(ids[:-n], [ids[-n:]])[0] for ids, n in cut]
        return [(one.logprob, one.greedy) for one in found]


def rolling(ids: list[int], prefix: int, context: int) -> Iterator[tuple[list[int], list[int]]]:
    """(what is given, what follows) of windows that have each token of a text follow once: the last one reaches back
    as far as the context does."""
    whole = [prefix, *ids]
    for first in range(0, len(ids), context):
        last = min(first + context, len(ids))
        begin = max(0, last - context)
        yield whole[begin : first + 1], whole[first + 1 : last + 1]
