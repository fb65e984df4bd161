"""Perplexity and divergence are those of llama-perplexity on the same GGUF files, well within their standard errors."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import edgeq
from edgeq.evaluate import Divergence, divergence

CHUNKS, SIZE = 6, 256
NUMBER = r"\s*(-?[\d.]+)(?:\s*±\s*([\d.]+))?"


@pytest.fixture(scope="module")
def found(shared_data: Path, tiny_model: Path, tmp_path_factory) -> tuple[Divergence, str]:
    """What is found here, and what llama-perplexity prints."""
    program = shutil.which("llama-perplexity")
    if program is None:
        pytest.skip("llama-perplexity is not in the PATH: build llama.cpp to compare with it")
    text = shared_data / "text" / "tinystories" / "tinystories_val.txt"
    if not text.is_file():
        pytest.skip(f"{text} is absent")
    folder = tmp_path_factory.mktemp("peer")
    # As text the separator is so unlikely that it is beyond what the peer's stored logits can say.
    (folder / "t.txt").write_bytes(text.read_bytes()[1_478_370:][:20_000].replace(b"<|endoftext|>\n", b""))
    edgeq.convert(tiny_model, folder / "base.gguf", "F32")
    edgeq.convert(tiny_model, folder / "m.gguf", "Q4_0")
    common = [program, "-f", folder / "t.txt", "-c", str(SIZE), "--chunks", str(CHUNKS), "-t", "2"]
    common += ["--kl-divergence-base", folder / "base.logits"]
    subprocess.run([*common, "-m", folder / "base.gguf"], check=True, capture_output=True)
    for _ in range(10):  # its last lines may be lost when it ends
        run = subprocess.run(
            [*common, "-m", folder / "m.gguf", "--kl-divergence"], check=True, capture_output=True, text=True
        )
        if "Same top p:" in run.stdout:
            break
    with edgeq.load(folder / "m.gguf", threads=2) as model, edgeq.load(folder / "base.gguf", threads=2) as base:
        content = (folder / "t.txt").read_text(encoding="utf-8")
        return divergence(model, base, content, ctx_size=SIZE, chunks=CHUNKS), run.stdout


def printed(output: str, name: str) -> tuple[float, float]:
    match = re.search(rf"^{re.escape(name)}\s*:{NUMBER}", output, re.MULTILINE)
    assert match, f"no {name} in {output}"
    return float(match[1]), float(match[2] or "nan")


def test_means_and_their_errors(found):
    here, output = found
    for name, estimate, scale in (
        ("Mean PPL(Q)", here.perplexity, 1),
        ("Mean PPL(base)", here.base_perplexity, 1),
        ("Mean PPL(Q)/PPL(base)", here.ratio, 1),
        ("Mean    KLD", here.kl, 1),
        ("Mean    Δp", here.delta_p, 100),
        ("RMS Δp", here.delta_p_rms, 100),
        ("Same top p", here.same_top, 100),
    ):
        value, error = printed(output, name)
        assert abs(scale * estimate.value - value) < error, name
        assert scale * estimate.error == pytest.approx(error, rel=0.1), name


def test_the_base_alone_is_equal(found):
    here, output = found
    value, error = printed(output, "Mean PPL(base)")
    assert here.base_perplexity.value == pytest.approx(value, rel=1e-3)
    assert here.base_perplexity.error == pytest.approx(error, rel=1e-3)


def test_percentiles(found):
    here, output = found
    for name, value in (("Median  KLD", "50"), ("90.0%   KLD", "90"), ("99.0%   KLD", "99")):
        assert here.kl_percentiles[value] == pytest.approx(printed(output, name)[0], rel=0.15), name
