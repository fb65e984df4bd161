"""Fetches a checkpoint from the Hugging Face Hub, only the files that are needed.

`huggingface_hub` itself resumes broken downloads and honours HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE.
"""

import contextlib
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from edgeq.errors import CheckpointError

_ID = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?")
SAFETENSORS = ["model.safetensors", "model-*.safetensors", "model.safetensors.index.json"]
# What a GGUF file's name says: of its type, and that it is a part
_KIND = re.compile(r"(?:^|[-._])((?:I?Q|TQ)\d\w*|MXFP4\w*|BF16|F16|F32)(?:-\d{5}-of-\d{5})?\.gguf$", re.IGNORECASE)
_PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
DEFAULT_KIND = "Q4_K_M"
TORCH = ["pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json"]


def is_repository(source: str) -> bool:
    """Whether `source` has the form of a repository's id: `owner/name`, or `name` alone."""
    return _ID.fullmatch(source) is not None and ".." not in source


def fetch(source: str, revision: str | None, assets: list[str]) -> Path:
    """The local folder that holds the repository's `assets` and weights.

    CheckpointError, one line, if the repository, its revision or the network is not there.
    """
    from huggingface_hub import snapshot_download

    def download(patterns: list[str]) -> Path:
        return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))

    with _in_one_line(source, revision):
        folder = download(assets + SAFETENSORS)
        if not any(p.name.startswith("model") and ".safetensors" in p.name for p in folder.iterdir()):
            folder = download(assets + TORCH)
        return folder


def fetch_gguf(source: str, kind: str | None) -> Path | None:
    """The GGUF file, the first where there are several parts, of a repository that has no other weights; else None.

    `kind` is what its name must say, e.g. Q4_K_M, which is also what is taken where None is given and there are
    several. CheckpointError names the kinds that there are; and as `fetch`. Without a network it is None too: `fetch`
    then finds what was fetched before, or says what is wrong.
    """
    from huggingface_hub import model_info, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    with _in_one_line(source, None):
        try:
            names = [file.rfilename for file in model_info(source).siblings or ()]
        except HfHubHTTPError:
            raise
        except _no_network():
            return None
        if any(fnmatch(name, pattern) for name in names for pattern in SAFETENSORS + TORCH):
            return None
        models = sorted(name for name in names if name.endswith(".gguf") and "mmproj" not in name)
        if not models:
            return None
        chosen = _of_kind(source, models, kind)
        folder = Path(snapshot_download(source, allow_patterns=chosen))
    return folder / chosen[0]


def _of_kind(source: str, models: list[str], kind: str | None) -> list[str]:
    """The files of one model, among those of a repository: of `kind`, or of DEFAULT_KIND, or the only one."""
    kinds: dict[str, list[str]] = {}
    for name in models:
        found = _KIND.search(name.rpartition("/")[2])
        kinds.setdefault(found[1].upper() if found else name, []).append(name)
    wanted = kind.upper() if kind else DEFAULT_KIND if len(kinds) > 1 else next(iter(kinds))
    if wanted not in kinds:
        asked = f"no {kind}, but" if kind else "GGUF files of"
        raise CheckpointError(
            f"{source}: has {asked} {', '.join(kinds)}: name one of them, e.g. {source}:{next(iter(kinds))}"
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
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
        return
    except GatedRepoError:
        why = "the repository is gated: accept its licence on the Hub and log in with `hf auth login`"
    except RevisionNotFoundError:
        why = f"the repository has no revision {revision!r}"
    except RepositoryNotFoundError:
        why = "no such folder, and no such repository on the Hub (a private one needs `hf auth login`)"
    except LocalEntryNotFoundError:
        why = "no such folder, no Hub repository in the cache, and the Hub cannot be reached: check the name"
    except HFValidationError:
        why = "no such folder, and no valid repository id"
    except HfHubHTTPError as e:
        why = f"the Hub answered with an error: {_first_line(e)}"
    except _no_network() as e:
        why = f"the download broke off ({_first_line(e)}): run the same command again, it resumes"
    raise CheckpointError(f"{source}: {why}")


def _first_line(e: BaseException) -> str:
    lines = str(e).strip().splitlines()
    return lines[0] if lines else type(e).__name__
