"""Fetches a checkpoint from the Hugging Face Hub, only the files that are needed.

`huggingface_hub` itself resumes broken downloads and honours HF_HOME, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE.
"""

import re
from pathlib import Path

from edgeq.errors import CheckpointError

_ID = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?")
SAFETENSORS = ["model.safetensors", "model-*.safetensors", "model.safetensors.index.json"]
TORCH = ["pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json"]


def is_repository(source: str) -> bool:
    """Whether `source` has the form of a repository's id: `owner/name`, or `name` alone."""
    return _ID.fullmatch(source) is not None and ".." not in source


def fetch(source: str, revision: str | None, assets: list[str]) -> Path:
    """The local folder that holds the repository's `assets` and weights.

    CheckpointError, one line, if the repository, its revision or the network is not there.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # With the errors of the HTTP client underneath, which differs between versions of huggingface_hub.
    client_errors = [base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)]
    broken_off: tuple[type[Exception], ...] = (OSError, *client_errors)

    def download(patterns: list[str]) -> Path:
        return Path(snapshot_download(source, revision=revision, allow_patterns=patterns))

    try:
        folder = download(assets + SAFETENSORS)
        if not any(p.name.startswith("model") and ".safetensors" in p.name for p in folder.iterdir()):
            folder = download(assets + TORCH)
        return folder
    except GatedRepoError:
        why = "the repository is gated: accept its licence on the Hub and log in with `hf auth login`"
    except RevisionNotFoundError:
        why = f"the repository has no revision {revision!r}"
    except RepositoryNotFoundError:
        why = "no such folder, and no such repository on the Hub (a private one needs `hf auth login`)"
    except LocalEntryNotFoundError:
        why = "no such folder; as a Hub repository it is not in the cache, and the Hub cannot be reached"
    except HFValidationError:
        why = "no such folder, and no valid repository id"
    except HfHubHTTPError as e:
        why = f"the Hub answered with an error: {_first_line(e)}"
    except broken_off as e:
        why = f"the download broke off ({_first_line(e)}): run the same command again, it resumes"
    raise CheckpointError(f"{source}: {why}")


def _first_line(e: BaseException) -> str:
    lines = str(e).strip().splitlines()
    return lines[0] if lines else type(e).__name__
