"""XLM-RoBERTa: RoBERTa for a hundred languages (arXiv:1911.02116)."""

from edgeq.models import roberta


class Model(roberta.Model):
    """XLM-RoBERTa."""

    name = "xlm-roberta"
