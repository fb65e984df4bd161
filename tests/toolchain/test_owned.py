"""Kernels run only where nobody else could have written them."""

import os
from pathlib import Path

import pytest

from edgeq.errors import KernelError
from edgeq.simd.isa import TABLE
from edgeq.toolchain import cache, image, library, prebuilt
from edgeq.toolchain.owned import open_owned, refusal

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system does not tell whose a file is")


def kernel_file(folder: Path) -> Path:
    path = folder / "norm.eqk"
    path.write_bytes(image.render("x86_64", "host", (), "avx2", "0" * 16, {"norm": 0}, b"\xc3" * 64))
    path.chmod(0o644)
    return path


def test_the_users_own_is_opened(tmp_path: Path):
    path = kernel_file(tmp_path)
    assert refusal(path) == "" and image.read(path)[1] == b"\xc3" * 64


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o757])
def test_a_folder_that_others_can_write(mode: int, tmp_path: Path):
    path = kernel_file(tmp_path)
    tmp_path.chmod(mode)
    for read in (image.read_header, image.read, image.load):
        with pytest.raises(
            KernelError, match=f"^{path}: its folder {tmp_path} can be written by others, so it is not run"
        ):
            read(path)


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o646])
def test_a_file_that_others_can_write(mode: int, tmp_path: Path):
    path = kernel_file(tmp_path)
    path.chmod(mode)
    with pytest.raises(KernelError, match=f"^{path}: can be written by others"):
        image.load(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("which", ["file", "folder"])
def test_what_belongs_to_another_user(which: str, tmp_path: Path):
    path = kernel_file(tmp_path)
    os.chown(path if which == "file" else tmp_path, 12345, -1)
    with pytest.raises(KernelError, match=r"belongs to another user \(uid 12345\)"):
        image.load(path)


def test_links_and_pipes_are_not_followed(tmp_path: Path):
    os.symlink(kernel_file(tmp_path), tmp_path / "link.eqk")
    with pytest.raises(KernelError, match=r"link\.eqk: is a link"):
        image.load(tmp_path / "link.eqk")
    os.mkfifo(tmp_path / "pipe.eqk")
    with pytest.raises(KernelError, match=r"pipe\.eqk: cannot be loaded: is not a regular file"):
        image.load(tmp_path / "pipe.eqk")


def test_what_is_in_the_package_is_as_trusted_as_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edgeq.toolchain.owned.PACKAGE", tmp_path)
    path = kernel_file(tmp_path)
    path.chmod(0o666)
    open_owned(path).close()


def test_a_library_that_others_can_write_is_a_problem_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kernel_file(tmp_path)
    tmp_path.chmod(0o777)
    monkeypatch.setenv("EDGEQ_KERNELS", str(tmp_path))
    assert image.supported() is False or "can be written by others" in prebuilt.problems()[0]


def test_without_a_mask_nothing_is_made_that_others_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EDGEQ_CACHE", str(tmp_path / "a" / "b"))
    content = kernel_file(tmp_path).read_bytes()
    before = os.umask(0)
    try:
        assert cache.keep("norm", TABLE[0], content)
    finally:
        os.umask(before)
    made = [tmp_path / "a", *(tmp_path / "a").rglob("*")]
    assert len(made) == 5 and not [path for path in made if path.stat().st_mode & 0o022]


def test_a_cache_that_others_can_write_is_not_run_but_compiled_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EDGEQ_CACHE", str(tmp_path))
    monkeypatch.setattr(library, "_loaded", {})
    isa = library.chosen_isa()
    folder = cache.folder("norm", isa)
    folder.mkdir(parents=True)
    planted = image.render("x86_64", "host", (), isa.name, "0" * 16, {"norm": 0}, b"\xc3" * 64)
    cache.path("norm", isa).write_bytes(planted)
    folder.chmod(0o777)
    assert library.missing(["norm"]) == ["norm"], "the planted one is not loaded"
    assert not cache.keep("norm", isa, planted), "nor is one kept there"
