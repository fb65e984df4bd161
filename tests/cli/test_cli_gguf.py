from pathlib import Path


def test_a_model_goes_out_to_gguf_and_comes_back(edgeq, tiny_model: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert edgeq("convert", tiny_model, "--type", "Q8_0", "-o", "m.eqf").code == 0
    exported = edgeq("export", "m.eqf")
    assert exported.code == 0 and exported.out.startswith("m.gguf: llama, 43 Q8_0, 13 F32")
    imported = edgeq("import", "m.gguf", "-o", "back.eqf")
    assert imported.code == 0 and "43 Q8_0: exact\n" in imported.out and "13 F32: exact\n" in imported.out
    texts = [
        edgeq("run", name, "Once upon a time", "--raw", "-n", "8", "--temp", "0").out for name in ("m.eqf", "back.eqf")
    ]
    assert texts[0] == texts[1] != ""


def test_rows_that_gguf_cannot_hold_are_said(edgeq, tiny_model: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert edgeq("convert", tiny_model, "--type", "Q4_K_M", "-o", "m.eqf").code == 0
    refused = edgeq("export", "m.eqf")
    assert refused.code == 2 and "--fallback encodes it again" in refused.err
    assert "42 more like it: encoded again as Q8_0" in edgeq("export", "m.eqf", "--fallback").out


def test_a_gguf_file_is_run_as_it_is(edgeq, tiny_model: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert edgeq("convert", tiny_model, "--type", "Q8_0", "-o", "m.eqf").code == 0
    assert edgeq("export", "m.eqf").code == 0
    monkeypatch.setattr("edgeq.environment.cache_folder", lambda: tmp_path / "cache")
    first, again = (edgeq("show", "m.gguf") for _ in range(2))
    assert first.code == 0 and "importing m.gguf" in first.err and "once, as " in first.err
    assert again.err == "" and again.out == first.out
