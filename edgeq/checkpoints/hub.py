"""Fetches a checkpoint from the Hugging Face Hub, only the files that are needed.

`huggingface_hub` itself resumes broken downloads and honours HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE.
"""

import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from glob import escape
from pathlib import Path

from edgeq.errors import CheckpointError
from edgeq.system.input import open_regular, read_bytes
from edgeq.system.json_input import parse_json

_ID = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")  # the name of a snapshot's folder
# What a GGUF file's name says: of its type, and that it is a part
_KIND = re.compile(r"(?:^|[-._])((?:I?Q|TQ)\d\w*|MXFP4\w*|BF16|F16|F32)(?:-\d{5}-of-\d{5})?\.gguf$", re.IGNORECASE)
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
DEFAULT_KIND = "Q4_K_M"
MMPROJ_KINDS = ("Q8_0", "F16", "BF16", "F32")  # of what a model sees with, the first that there is
_DIGESTS = {64: "sha256", 40: "sha1"}  # by the number of digits
_checked: set[tuple[str, int, int]] = set()  # paths, sizes and times of what was found sound
# A checkpoint's weights, the best first: in one file, or in those that an index names, or in those named like this
LAYOUTS = (
    ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*.bin"),
)


def is_repository(source: str) -> bool:
    """Whether `source` has the form of a repository's id: `owner/name`, or `name` alone."""
    return len(source) <= 96 and _ID.fullmatch(source) is not None and ".." not in source and "--" not in source


def fetch(source: str, revision: str | None, assets: list[str]) -> Path:
    """The local folder that holds the repository's `assets` and weights.

    CheckpointError, one line, if the repository, its revision or the network is not there.
    """
    from huggingface_hub import snapshot_download

    asked = revision

    def download(patterns: list[str]) -> Path:
        """Of the commit that the first answer was of: a branch may move meanwhile."""
        nonlocal asked
        folder = Path(snapshot_download(source, revision=asked, allow_patterns=patterns))
        if _COMMIT.fullmatch(folder.name):
            asked = folder.name
        check_content(folder, patterns)
        return folder

    with _in_one_line(source, revision):
        for whole, index, pattern in LAYOUTS:
            folder = download([*assets, whole, index])
            named = _named(folder / index) if (folder / index).is_file() else []
            if whole in named or not (folder / whole).is_file():
                folder = download(named or [pattern])
            if (folder / whole).is_file() or named:
                break
            if any(fnmatch(one.name, pattern) for one in folder.iterdir()):
                break
        return folder


def check_content(folder: Path, patterns: Iterable[str]) -> None:
    """CheckpointError if a file of a snapshot is not what the Hub has under its name.

    The library names what it fetches by what the Hub said of it: the SHA-256 of a large file, Git's SHA-1 of a small
    one. So what was cut short, or damaged on the disk since, is found, each file once in a process.
    """
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if not path.is_symlink() or not any(fnmatch(name, pattern) for pattern in patterns):
            continue
        blob = path.resolve()
        kind = _DIGESTS.get(len(blob.name)) if re.fullmatch("[0-9a-f]+", blob.name) else None
        state = blob.stat()
        known = (str(blob), state.st_size, state.st_mtime_ns)
        if kind is None or known in _checked:
            continue
        digest = hashlib.new(kind, b"blob %d\0" % state.st_size if kind == "sha1" else b"", usedforsecurity=False)
        with open(open_regular(blob), "rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        if digest.hexdigest() != blob.name:
            raise CheckpointError(
                f"{blob}: is not what the Hub has as {name}, its checksum is another: remove that file, and run the "
                "same command again"
            )
        _checked.add(known)


def _named(index: Path) -> list[str]:
    """The files that an index of shards names, whatever their names; what is wrong with it is found when it is read."""
    try:
        places = parse_json(read_bytes(index))["weight_map"]
        return sorted({escape(file) for file in places.values() if isinstance(file, str)})
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def fetch_gguf(source: str, kind: str | None) -> Path | None:
    """The GGUF file, the first where there are several parts, of a repository that has no other weights; else None.

    `kind` is what its name must say, e.g. Q4_K_M, which is also what is taken where None is given and there are
    several. CheckpointError names the kinds that there are; and as `fetch`. Without a network it is of those that were
    fetched before; None where that are none: `fetch` then finds other weights, or says what is wrong.
    """
    with _in_one_line(source, None):
        names, folder = _listed(source)
        if any(fnmatch(name, pattern) for name in names for layout in LAYOUTS for pattern in layout):
            return None
        models = sorted(name for name in names if name.endswith(".gguf") and "mmproj" not in name)
        if not models:
            return None
        chosen = _of_kind(source, models, kind, "the Hub cannot be reached, and its cache " if folder else "")
        return _got(source, chosen, folder) / chosen[0]


def fetch_mmproj(source: str) -> Path | None:
    """The GGUF file of what the model of a repository sees with, the smallest that loses next to nothing; None where it
    has none. CheckpointError as `fetch_gguf`."""
    with _in_one_line(source, None):
        names, folder = _listed(source)
        found = sorted(name for name in names if name.endswith(".gguf") and "mmproj" in name)
        if not found:
            return None
        kinds = {known[1].upper(): name for name in reversed(found) if (known := _KIND.search(name))}
        chosen = next((kinds[kind] for kind in MMPROJ_KINDS if kind in kinds), found[0])
        return _got(source, [chosen], folder) / chosen


def _listed(source: str) -> tuple[list[str], Path | None]:
    """The files of a repository; without a network those that were fetched before, and their folder."""
    from huggingface_hub import model_info
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return [file.rfilename for file in model_info(source).siblings or ()], None
    except HfHubHTTPError:
        raise
    except _no_network():
        folder = _fetched(source)
        return [path.relative_to(folder).as_posix() for path in folder.rglob("*.*")] if folder else [], folder


def _got(source: str, names: list[str], folder: Path | None) -> Path:
    """Where these files of a repository are, fetched unless they are in `folder`."""
    from huggingface_hub import snapshot_download

    folder = folder or Path(snapshot_download(source, allow_patterns=names))
    check_content(folder, [escape(name) for name in names])
    return folder


def _fetched(source: str) -> Path | None:
    """The folder of what was fetched of a repository before, if anything was."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, allow_patterns="*.gguf", local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def _of_kind(source: str, models: list[str], kind: str | None, which: str = "") -> list[str]:
    """The files of one model, among those of a repository: of `kind`, or of DEFAULT_KIND, or the only one.

    `which` begins what is said where not all of the repository is known.
    """
    kinds: dict[str, list[str]] = {}
    for name in models:
        found = _KIND.search(name.rpartition("/")[2])
        kinds.setdefault(found[1].upper() if found else name, []).append(name)
    wanted = kind.upper() if kind else DEFAULT_KIND if len(kinds) > 1 else next(iter(kinds))
    if wanted not in kinds:
        asked = f"no {kind}, but" if kind else "GGUF files of"
        raise CheckpointError(
            f"{source}: {which}has {asked} {', '.join(kinds)}: name one of them, e.g. {source}:{next(iter(kinds))}"
        )
    if len(kinds[wanted]) > 1 and not all(_PART.search(name) for name in kinds[wanted]):
        raise CheckpointError(f"{source}: has several files of {wanted}: fetch one by hand, and name the file")
    return kinds[wanted]


def _no_network() -> tuple[type[Exception], ...]:
    """What is raised where a connection fails: the HTTP client underneath differs between versions of the library."""
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, *(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)))


@contextlib.contextmanager
def _in_one_line(source: str, revision: str | None) -> Iterator[None]:
    """Errors of the Hub and of the network as a CheckpointError."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    faults: tuple[type[Exception], ...] = (HfHubHTTPError, LocalEntryNotFoundError, *_no_network())
    try:
        yield
        return
    except HFValidationError:
        why = "no such folder, and no valid repository id"
    except faults as e:
        why = _reason(e, revision)
    raise CheckpointError(f"{source}: {why}")


def _reason(error: BaseException, revision: str | None) -> str:
    """What is wrong, and what to do. The library hides what the Hub answered behind what its cache lacks."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    chain = list(_causes(error))
    answer = next((one for one in chain if isinstance(one, HfHubHTTPError) and _status(one)), None)
    status = _status(answer)
    if isinstance(answer, GatedRepoError):
        return "the repository is gated: accept its licence on the Hub and log in with `hf auth login`"
    if isinstance(answer, RevisionNotFoundError):
        return f"the repository has no revision {revision!r}" if revision else "the repository is empty"
    if isinstance(answer, RepositoryNotFoundError):
        return "no such folder, and no such repository on the Hub (a private one needs `hf auth login`)"
    if status in (401, 403):
        return f"the Hub refuses access ({status}): log in with `hf auth login`, or ask its owner"
    if status == 429:
        wait = getattr(answer, "response", None)
        seconds = wait.headers.get("Retry-After") if wait is not None else None
        return (
            f"the Hub asks to wait{f' {seconds} seconds' if seconds else ''} (429, too many requests): try again then"
        )
    if status >= 500:
        return f"the Hub has a fault at the moment ({status}): try again later"
    if answer is not None:
        return f"the Hub answered with an error: {_first_line(answer)}"
    if constants.HF_HUB_OFFLINE:
        return "no such folder, not in the Hub's cache, and HF_HUB_OFFLINE forbids to fetch it: unset it"
    if any("timed out" in str(one).lower() or "timeout" in type(one).__name__.lower() for one in chain):
        return "the Hub does not answer in time: check the network, or try again later"
    if isinstance(error, LocalEntryNotFoundError):
        return "no such folder, no Hub repository in the cache, and the Hub cannot be reached: check name and network"
    return f"the download broke off ({_first_line(error)}): run the same command again, it resumes"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException | None) -> int:
    """The HTTP status that an error stands for; 0 for none."""
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return status if isinstance(status, int) else 0


def _first_line(e: BaseException) -> str:
    lines = str(e).strip().splitlines()
    return lines[0] if lines else type(e).__name__
