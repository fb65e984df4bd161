"""What makes scores of a text, or of a pair of texts: the heads of rerankers and classifiers."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from edgeq.models.config import Config, shown
from edgeq.models.matrix import Matrix
from edgeq.models.norms import LayerNorm
from edgeq.models.tensors import Tensors

WITHOUT_DENSE = "edgeq_classifier_without_dense"  # a key of ours, true where a file has the last matrix alone
CLASSES = "ForSequenceClassification"  # what the names of checkpoints' classes end with that have such a head
OTHER_HEADS = ("ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice", "ForNextSentencePrediction")
MOST_LABELS = 100_000
LATE = "late"


class Classifier(NamedTuple):
    """Of the states of a text's tokens `pooling` ("cls", "mean", "last") makes one; `dense`, `activation` and `norm`
    follow, where there are such, then `output`, which gives a score for each of `labels`. With LATE the mean is of what
    `dense` and `activation` make of each state."""

    pooling: str
    labels: tuple[str, ...]
    output: Matrix
    dense: Matrix | None = None
    activation: str = ""
    norm: LayerNorm | None = None

    @property
    def late(self) -> bool:
        """Whether each state is gone on with by itself."""
        return self.pooling == LATE

    def tensors(self, t: Tensors) -> None:
        """The matrices, the norm."""
        for part in (self.dense, self.norm, self.output):
            if part:
                part.tensors(t)


def head_left_out(config: Mapping[str, Any]) -> str | None:
    """The name of the checkpoint's class if its head is one that nothing here computes."""
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    return name if isinstance(name, str) and name.endswith(OTHER_HEADS) else None


def is_classifier(config: Mapping[str, Any]) -> bool:
    """Whether the checkpoint is said to be of a class that scores texts."""
    names = config.get("architectures")
    return isinstance(names, list) and len(names) == 1 and isinstance(names[0], str) and names[0].endswith(CLASSES)


def read_classifier(config: Config, name: str, n: int) -> Classifier:
    """The head of a model of type `name`, whose states have `n` values."""
    labels = _labels(config)
    head = HEADS[name](config, n, labels) if name in HEADS else _last_state(config, n, labels)
    return head._replace(dense=None, activation="") if config.get(WITHOUT_DENSE) else head


def _labels(config: Config) -> tuple[str, ...]:
    """The labels' names in the order of their numbers; transformers takes two where nothing is said."""
    named = config.get("id2label")
    if named is None:
        return tuple(f"LABEL_{i}" for i in range(config.integer("num_labels", 2, most=MOST_LABELS)))
    try:
        by_number = {int(number): str(label) for number, label in named.items()}
    except (AttributeError, TypeError, ValueError):
        by_number = {}
    if not by_number or sorted(by_number) != list(range(len(by_number))) or len(by_number) > MOST_LABELS:
        raise config.malformed(f"id2label is {shown(named)}, an object of a name for each of 0, 1, ... is needed")
    return tuple(by_number[i] for i in range(len(by_number)))


def _output(source: str, n: int, labels: tuple[str, ...], bias: bool = True) -> Matrix:
    return Matrix("cls.output", source, len(labels), n, bias)


def _last_state(config: Config, n: int, labels: tuple[str, ...]) -> Classifier:
    """Of a decoder, whose last token alone has seen the whole text."""
    return Classifier("last", labels, _output("score", n, labels, bias=False))


def _bert(config: Config, n: int, labels: tuple[str, ...]) -> Classifier:
    """The pooler's matrix is a part of the model itself there."""
    dense = Matrix("cls", "bert.pooler.dense", n, n, bias=True)
    return Classifier("cls", labels, _output("classifier", n, labels), dense, "tanh")


def _roberta(config: Config, n: int, labels: tuple[str, ...], activation: str = "tanh") -> Classifier:
    dense = Matrix("cls", "classifier.dense", n, n, bias=True)
    return Classifier("cls", labels, _output("classifier.out_proj", n, labels), dense, activation)


def _distilbert(config: Config, n: int, labels: tuple[str, ...]) -> Classifier:
    dense = Matrix("cls", "pre_classifier", n, n, bias=True)
    return Classifier("cls", labels, _output("classifier", n, labels), dense, "relu")


def _modernbert(config: Config, n: int, labels: tuple[str, ...]) -> Classifier:
    pooling = config.get("classifier_pooling", "cls")
    if pooling not in ("cls", "mean"):
        raise config.unsupported(f"classifier_pooling {shown(pooling)} is not supported; supported are cls and mean")
    dense = Matrix("cls", "head.dense", n, n, config.flag("classifier_bias"))
    norm = LayerNorm("cls.norm", "head.norm", n, config.number("norm_eps", 1e-5), config.flag("norm_bias"))
    activation = config.activation("classifier_activation", "gelu")
    return Classifier(pooling, labels, _output("classifier", n, labels), dense, activation, norm)


def _nomic(config: Config, n: int, labels: tuple[str, ...]) -> Classifier:
    dense = Matrix("cls", "pooler.dense", n, n, bias=True)
    return Classifier("cls", labels, _output("classifier", n, labels), dense, "tanh")


def _deberta(config: Config, n: int, labels: tuple[str, ...]) -> Classifier:
    config.refuse(pooler_hidden_size=n)
    dense = Matrix("cls", "pooler.dense", n, n, bias=True)
    activation = config.activation("pooler_hidden_act", "gelu")
    return Classifier("cls", labels, _output("classifier", n, labels), dense, activation)


def _gte(config: Config, n: int, labels: tuple[str, ...]) -> Classifier:
    """The pooler's matrix is a part of the model itself there."""
    dense = Matrix("cls", "pooler.dense", n, n, bias=True)
    return Classifier("cls", labels, _output("classifier", n, labels), dense, "tanh")


def _eurobert(config: Config, n: int, labels: tuple[str, ...]) -> Classifier:
    given = config.get("classifier_pooling", LATE)
    pooling = {"bos": "cls", "mean": "mean", LATE: LATE}.get(str(given))
    if pooling is None:
        what = f"classifier_pooling {shown(given)} is not supported"
        raise config.unsupported(f"{what}; supported are bos, mean and {LATE}")
    dense = Matrix("cls", "dense", n, n, bias=True)
    return Classifier(pooling, labels, _output("classifier", n, labels), dense, "gelu")


def _ultrabert(config: Config, n: int, labels: tuple[str, ...]) -> Classifier:
    pooling = config.get("classifier_pooling", "cls")
    if pooling not in ("cls", "mean"):
        raise config.unsupported(f"classifier_pooling {shown(pooling)} is not supported; supported are cls and mean")
    return Classifier(pooling, labels, _output("classifier", n, labels))


def _jina(config: Config, n: int, labels: tuple[str, ...]) -> Classifier:
    raise config.unsupported("the head of Jina's first rerankers is not supported: take another reranker")


HEADS: dict[str, Callable[[Config, int, tuple[str, ...]], Classifier]] = {
    "bert": _bert,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
    "camembert": _roberta,
    "mpnet": _roberta,
    "electra": partial(_roberta, activation="gelu"),
    "distilbert": _distilbert,
    "modernbert": _modernbert,
    "nomic_bert": _nomic,
    "deberta-v2": _deberta,
    "jina_bert_v2": _jina,
    "jina_embeddings_v3": _roberta,
    "gte": _gte,
    "eurobert": _eurobert,
    "ultrabert": _ultrabert,
}
