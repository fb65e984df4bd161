"""A file that is open as a model: what it says of itself, its tokenizer and template, and how it is let go."""

import json
import os
from collections.abc import Sequence
from functools import cached_property
from math import prod
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from edgeq.adapters.adapter_set import AdapterSet
from edgeq.adapters.given import Lora, wanted
from edgeq.container.reader import File
from edgeq.decode.sampler import Sampler
from edgeq.decode.sampler_steps import Sampling
from edgeq.decode.sampling_defaults import sampling_defaults
from edgeq.engine.adapted_sessions import AdaptedSessions
from edgeq.engine.answer import Generation
from edgeq.engine.drafting import Draft
from edgeq.engine.shared_session import SharedSession
from edgeq.engine.timings import Timings
from edgeq.errors import ContextError, TemplateError, UsageError
from edgeq.text.assets import read_settings
from edgeq.text.chat import ChatTemplate
from edgeq.text.tokenizer import FILES, Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from edgeq.drift.watch import Watch
    from edgeq.engine.seeing import Eyes
    from edgeq.runtime.session import Session


class OpenModel:
    """What is known of a model in memory, and can be used until it is closed."""

    def __init__(
        self,
        file: File,
        session: "Session",
        load_s: float = 0.0,
        chat_template: str | None = None,
        adapters: AdapterSet | None = None,
    ):
        self.file = file
        self.session = session
        self.load_s = load_s
        self._adapters = adapters or AdapterSet(file)  # those of the session
        self._latest = Generation([], 0, 0, "", Sampler())
        self._latest.timings.load_s = load_s
        self._template_source = chat_template
        self._sessions = AdaptedSessions(file, session, self._adapters)
        self._shared = self._sessions.first
        self._further: list[Session] = []  # for embeddings
        self._watches: list[Watch] = []
        self._closed = False

    @property
    def timings(self) -> Timings:
        """What the latest answer took."""
        return self._latest.timings

    @property
    def finish_reason(self) -> str | None:
        """Why the latest answer ended, see `Answer.finish_reason`."""
        return self._latest.finish_reason

    @property
    def computed_tokens(self) -> int:
        """Tokens of the latest answer, and of the prompt before it, whose keys and values are known."""
        return len(self._latest.sequence) - 1 if self._latest.timings.generated_tokens else 0

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer. Raises TokenizerError where the file holds none, or one for another model."""
        assets = {name: self.file.asset(name) for name in self.file.assets}
        return load_tokenizer(assets, self.file.path, self.vocab_size)

    @cached_property
    def chat_template(self) -> ChatTemplate:
        """How conversations are written for this model. Raises TemplateError where there is no template."""
        if self._template_source is not None:
            return self.tokenizer.template_from(self._template_source)
        template = self.tokenizer.chat_template
        if template is None:
            raise TemplateError(
                f"{self.file.path}: the model has no chat template: give one with --template FILE "
                "(chat_template= in Python), or complete plain text with `edgeq run`"
            )
        return template

    @cached_property
    def sampling_defaults(self) -> Sampling:
        """What the model's makers recommend: the sampling options that its files name."""
        return cast(Sampling, sampling_defaults({name: self.file.asset(name) for name in self.file.assets}))

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Ids of the tokens that end a text; without a tokenizer those that the model's configuration names."""
        if self.file.assets.keys() & {*FILES}:
            return self.tokenizer.eos_ids
        config = json.dumps(self.file.metadata.get("config", {})).encode()
        assets = {name: self.file.asset(name) for name in self.file.assets if name.endswith(".json")}
        return frozenset(read_settings({**assets, "config.json": config}).eos_ids)

    @property
    def context(self) -> int:
        """Positions that prompt and answer can fill together."""
        return int(self.session.context)

    @cached_property
    def vocab_size(self) -> int:
        """Rows of the token embedding: ids are below this."""
        return self.file.tensors["token_embd.weight"].shape[0]

    @cached_property
    def parameters(self) -> int:
        """Number of weights in the file."""
        return sum(prod(tensor.shape) for tensor in self.file.tensors.values())

    @cached_property
    def has_chat_template(self) -> bool:
        """Whether `chat` knows how to write a conversation: the model has a template, or was given one."""
        return self._template_source is not None or self.tokenizer.chat_template is not None

    @cached_property
    def _eyes(self) -> "Eyes | None":
        """What sees images; None where the file holds nothing of that. Raises UnsupportedError for settings of the file
        that are not followed."""
        from edgeq.engine.seeing import Eyes, can_see
        from edgeq.models import images

        found = images(self.file.metadata["config"], self.file.path) if can_see(self.file) else None
        return None if found is None else Eyes(self.file, found, self.session.threads, self.session.program.announce)

    @property
    def sees(self) -> bool:
        """Whether images can be given in a chat. Raises UnsupportedError for settings of the file that are not
        followed."""
        return self._eyes is not None

    @property
    def reserved(self) -> tuple[str, ...]:
        """Names of tokens that chat templates write for images: said in a conversation they are text."""
        from edgeq.engine.seeing import can_see
        from edgeq.models import images

        found = images(self.file.metadata["config"], self.file.path) if can_see(self.file) else None
        return () if found is None else found.reserved

    @property
    def has_draft(self) -> bool:
        """Whether a small model guesses tokens for this one."""
        return self._shared.draft is not None

    def draft_with(self, draft: Draft) -> None:
        """Have a small model guess tokens for this one: what `edgeq.load(draft=...)` does, before anything is asked."""
        self._sessions.draft_with(draft)

    def close(self) -> None:
        """Stop the threads and let go of the file. The model cannot be used after this."""
        self._closed = True
        for watch in [*self._watches]:
            watch.close()
        self._sessions.close()
        for session in self._further:
            session.close()
        if (eyes := self.__dict__.get("_eyes")) is not None:
            eyes.close()
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        name = os.path.basename(self.file.path)
        kind = self.file.metadata.get("architecture", "unknown architecture")
        return f"<edgeq.Model {name}: {kind}, {self.parameters:,} parameters, context {self.context}>"

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError(f"{self.file.path}: the model is closed: load it again")

    def _session_for(self, lora: Sequence[Lora] | None) -> SharedSession:
        """That of the adapters that a call asks for; of those that were loaded for None."""
        return self._shared if lora is None else self._sessions.of(AdapterSet(self.file, wanted(lora)))

    def _checked(self, tokens: list[int]) -> list[int]:
        """The tokens, if the model can take them."""
        if self.session.states:
            raise UsageError(f"{self.file.path}: is loaded to embed texts, and writes none: use `edgeq embed` (embed)")
        if not tokens:
            raise UsageError("the prompt is empty, and the model has no token that begins a text: give some text")
        if len(tokens) > self.context:
            raise ContextError(
                f"the prompt has {len(tokens)} tokens, the context {self.context}: "
                "shorten it, or load with a larger --context"
            )
        outside = next((token for token in tokens if not 0 <= token < self.vocab_size), None)
        if outside is not None:
            raise UsageError(f"token {outside} is not in the model's vocabulary of {self.vocab_size}")
        return tokens
