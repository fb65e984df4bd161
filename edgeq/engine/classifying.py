"""Texts, or pairs of them, to a score for each label of a classifier: the head of the model on its pooled states."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edgeq.container.reader import File
from edgeq.engine.after_pooling import Weights, activated, norm, product, sigmoid, weights_of
from edgeq.engine.embedder import EmbeddingTimings, one_by_one, pool, tokens_within
from edgeq.errors import UnsupportedError, UsageError
from edgeq.text.assets import json_asset
from edgeq.text.sentence import most_tokens
from edgeq.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgeq.runtime.session import Session

    F32 = npt.NDArray[np.float32]

Text = str | tuple[str, str]  # or two that belong together, as a question and what may answer it


class Classifying:
    """Scores texts by a session that gives states; the session is the caller's to close."""

    def __init__(self, file: File, session: "Session", tokenizer: Tokenizer) -> None:
        """Raises UsageError for a model that is no classifier."""
        classifier = session.model.classifier
        if classifier is None:
            raise UsageError(f"{file.path}: is no classifier or reranker: take a checkpoint of one, converted anew")
        self._file, self._session, self._tokenizer = file, session, tokenizer
        self._head = classifier
        self.labels = classifier.labels
        self._config: dict[str, Any] = file.metadata["config"]
        self._assets = {name: file.asset(name) for name in file.assets if name.endswith(".json")}
        self.timings = EmbeddingTimings()

    @property
    def max_length(self) -> int:
        """Most tokens of a text or pair, special ones included; what is beyond is cut off."""
        room = min(self._session.context, self._session.model.max_position_embeddings)
        return min(most_tokens(self._assets) or room, room)

    def __call__(self, texts: Sequence[Text], progress: Callable[[int], None] | None = None) -> "F32":
        """Logits f32 [texts, labels]. `progress` hears how many texts are done. Raises UsageError for texts that are
        none."""
        import numpy as np

        result = np.empty((len(texts), len(self.labels)), np.float32)

        def scored(i: int, text: Text) -> tuple[int, bool]:
            tokens, types, cut = self._encoded(text)
            if not tokens:
                raise UsageError(f"text {i + 1} has no tokens: leave it out")
            result[i] = self.of_tokens(tokens, types)
            return len(tokens), cut

        self.timings = one_by_one(texts, scored, progress)
        return result

    def of_tokens(self, tokens: Sequence[int], types: Sequence[int] | None = None) -> "F32":
        """Logits f32 [labels] of one text, or two, in which `types` are 0 and 1."""
        self._session.rewind(0)
        scores: F32 = self._scores(tokens, self._session.eval(tokens, all_logits=True, types=types)).astype("f4")
        return scores

    def probabilities(self, logits: "F32") -> "F32":
        """What transformers makes of the logits f32 [texts, labels]: each label's probability where one of several is
        right, or each by itself; the values as they are of a regression."""
        import numpy as np

        kind = self._config.get("problem_type")
        if kind == "regression":
            return logits
        if kind == "multi_label_classification" or len(self.labels) == 1:
            return sigmoid(logits)
        powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        result: F32 = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
        return result

    def relevance(self, logits: "F32") -> "F32":
        """Of a model of one label f32 [texts]: what sentence-transformers' CrossEncoder makes of its logits. Raises
        UsageError for a model of several labels, UnsupportedError for an activation that is not known."""
        if len(self.labels) != 1:
            raise UsageError(
                f"{self._file.path}: has {len(self.labels)} labels, a reranker has one: classify texts (classify)"
            )
        scores: F32 = logits[:, 0]
        name = self._activation()
        if name not in ("Sigmoid", "Identity"):
            raise UnsupportedError(f"{self._file.path}: the activation {name[:60]!r} of scores is not supported")
        return sigmoid(scores) if name == "Sigmoid" else scores

    def _activation(self) -> str:
        """The last name of the class of scores' activation, in the places that sentence-transformers looks at."""
        nested = self._config.get("sentence_transformers")
        found = (
            json_asset(self._assets, "config_sentence_transformers.json").get("activation_fn"),
            nested.get("activation_fn") if isinstance(nested, dict) else None,
            self._config.get("sbert_ce_default_activation_function"),
        )
        return next((str(name).rsplit(".", 1)[-1] for name in found if name), "Sigmoid")

    def _encoded(self, text: Text) -> tuple[list[int], list[int] | None, bool]:
        """Token ids, types of tokens, whether an end was cut off."""
        if isinstance(text, str):
            tokens, cut = tokens_within(self._tokenizer, text, self.max_length)
            return tokens, None, cut
        if not isinstance(text, tuple | list) or len(text) != 2 or not all(isinstance(part, str) for part in text):
            raise UsageError("what is scored must be texts, or pairs of texts")
        pair = self._tokenizer.encode_pair(*text, self.max_length)
        return pair.ids, pair.types if self._tells_types else None, pair.cut

    def _scores(self, tokens: Sequence[int], states: "F32") -> "npt.NDArray[np.float64]":
        """The head on the states f32 [tokens, width] of a text."""
        head, weights = self._head, self._weights
        x = (states if head.late else self._pooled(tokens, states)).astype("f8")
        if head.dense:
            x = activated(product(weights, "cls", x), head.activation)
        if head.late:
            x = x.mean(axis=0)
        if head.norm:
            x = norm(weights, "cls.norm", x, head.norm.eps)
        return product(weights, "cls.output", x)

    def _pooled(self, tokens: Sequence[int], states: "F32") -> "F32":
        """One of the states."""
        if self._head.pooling != "last":
            return pool(states, self._head.pooling)
        padding = self._config.get("pad_token_id")  # of the text itself, where the model pads with what ends it
        last = next((i for i in reversed(range(len(tokens))) if tokens[i] != padding), -1)
        state: F32 = states[last]
        return state

    @cached_property
    def _tells_types(self) -> bool:
        """Whether the model was told of each token which text it is of: tokenizers say what they give."""
        settings = json_asset(self._assets, "tokenizer_config.json")
        names = settings.get("model_input_names")
        if isinstance(names, list):
            return "token_type_ids" in names
        return settings.get("tokenizer_class") != "TokenizersBackend"  # which gives none unless it says so

    @cached_property
    def _weights(self) -> Weights:
        return weights_of(self._file, "cls.")
