"""Loads a model, by whatever name: above all that finds, fetches and converts, which `Model` need not know."""

import os
import time
from collections.abc import Callable, Sequence

from edgeq.adapters.adapter_set import AdapterSet
from edgeq.adapters.given import Lora, wanted
from edgeq.container.reader import open_file
from edgeq.engine.arguments import check_loading
from edgeq.engine.drafting import open_draft
from edgeq.engine.model import Model
from edgeq.runtime.adapted import AdaptedFile
from edgeq.runtime.finite import check_finite
from edgeq.runtime.fit import BY_ROW, available_memory, resident
from edgeq.runtime.session import Session
from edgeq.store.model_cache import runnable
from edgeq.system import environment
from edgeq.text.tokenizer import FILES

CHECKING = 2  # threads that look at a file, where no number is asked for: more do not wait less for memory


def load(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    context: int | None = None,
    kv: str | None = None,
    chat_template: str | None = None,
    embeddings: bool = False,
    lora: Sequence[Lora] = (),
    draft: str | os.PathLike[str] | None = None,
    mmproj: str | os.PathLike[str] | None = None,
    parallel: int | None = None,
    force: bool = False,
    check: bool = True,
    announce: Callable[[str], None] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Model:
    """Load a `.eqf` file; or a GGUF file, a checkpoint's folder, a Hub repository `owner/name`, the last two also with
    a recipe (`owner/name:Q8_0`): these are imported or converted into the cache first, once. Short names do too, see
    `edgeq models`.

    `threads`: None takes EDGEQ_THREADS, or else the fast cores. `context`: positions for prompt and answer
    together; 0 takes what the model was trained for, None the same, at most 4096. `kv`: element of the KV cache, "f16",
    "q8_0" (half the memory) or "f32". `chat_template`: Jinja source instead of the model's own. `embeddings`:
    only to `embed` texts, which is all that an encoder can; it saves memory. `lora`: adapters that are added to the
    weights as it runs, where a call does not ask for others: each the path of a PEFT folder or a GGUF file,
    `PATH:SCALE`, or (path, scale). `draft`: a small model of the same vocabulary, which guesses tokens for this one to
    compute several at a time where that is faster; it changes no token. `mmproj`: the GGUF file of what the model of a
    GGUF file sees images with. `parallel`: for how many texts that fill the
    context there shall be room in memory at once, or for more that are shorter; None takes 1, and up to 8 where these
    are little of the memory there is. `force` loads also what does not seem to fit in memory. `check` looks once at all
    values and scales that each text reads, see `runtime.finite`. `announce` hears one line if kernels must be compiled,
    or a file made, first; `progress` how far the latter is: what is at work, bytes done, bytes in all.
    Raises FormatError for a file that is none, CheckpointError for a checkpoint that cannot be converted or an adapter
    for another model,
    UnsupportedError for a model that this version cannot run, MemoryLimitError for one that does not fit in memory,
    UsageError for a draft with another vocabulary, and an `mmproj` of anything but a GGUF file,
    TokenizerError for a tokenizer that cannot be read; a file without one still runs on token ids.
    """
    began = time.perf_counter()
    check_loading(threads, context, kv, chat_template, parallel, draft, mmproj, embeddings)
    asked = wanted(lora)
    file = open_file(runnable(path, announce, progress, mmproj))
    file.path = os.fspath(path).rstrip(os.sep)  # what messages call it: not by a name in the cache
    try:
        adapters = AdapterSet(file, asked)
        running = AdaptedFile(file, adapters.added) if adapters.added else file
        fits = resident(file) < available_memory()
        if fits:
            file.read_ahead(BY_ROW)
        if check:
            check_finite(file, fits, threads or environment.threads() or CHECKING, BY_ROW)
        session = Session(
            running,
            context=context,
            threads=threads,
            kv=kv,
            states=embeddings,
            texts=parallel,
            force=force,
            announce=announce,
        )
    except BaseException:
        file.close()
        raise
    model = Model(file, session, chat_template=chat_template, adapters=adapters)
    try:
        # The tokenizer now rather than with the first text: it belongs to loading
        tokenizer = model.tokenizer if file.assets.keys() & {*FILES} else None
        if draft is not None:
            small = runnable(draft, announce, progress)
            model.draft_with(open_draft(small, file, session, tokenizer, force, announce))
    except BaseException:
        model.close()
        raise
    model.load_s = model.timings.load_s = time.perf_counter() - began
    return model
