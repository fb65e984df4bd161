"""What is found out about models, and how it is told: as a table, as JSON, as a page."""

import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
from random_models import table_model

import edgeq
from edgeq.cli.eval_table import lines
from edgeq.errors import UsageError
from edgeq.evaluate import divergence
from edgeq.evaluate.page import broken, page
from edgeq.evaluate.report import EDGES, Options, Report, evaluate
from edgeq.evaluate.tasks import Item, Task
from edgeq.evaluate.texts import Passage

LOWER = "".join(chr(97 + i * i % 26) for i in range(64))
TASK = Task("choices", tuple(Item(f"item {i}", (" yes", " no"), i % 2) for i in range(20)))
TARGETS = Task("targets", (Item("ab", ("c",)), Item("xy", ("z",))))
ALPHABET = "".join(map(chr, range(65, 91)))


@pytest.fixture(scope="module")
def report() -> Report:
    passages = [Passage(LOWER[i:] + LOWER[:i], "t.jsonl", ("case=lower",)) for i in range(8)]
    passages += [Passage(LOWER.upper()[i:], "t.jsonl", ("case=upper <b>",)) for i in range(4)]
    models = [table_model(path="one.eqf", noise=0.1, worse=ALPHABET), table_model(path="two.eqf", noise=0.6)]
    options = Options(passages, 64, tasks=[TASK, TARGETS], answers=3, answer_tokens=8)
    return evaluate(models, table_model(path="base.eqf"), options)


def test_what_is_found(report):
    one, two = report.candidates
    assert (one.name, two.name, report.reference.name) == ("one.eqf", "two.eqf", "base.eqf")
    assert one.bits_per_weight == pytest.approx(8 * 4 / 8) and one.nbytes == 270 * 4
    assert sum(one.kl_histogram) == one.loss.positions and len(one.kl_histogram) == len(EDGES) - 1
    assert one.worst.name == "case=upper <b>" and one.worst.significant
    assert [len(candidate.tasks) for candidate in (one, two, report.reference)] == [2, 2, 2]
    assert two.flips[0].lost and len(one.changes) == 3 and one.latency.keys() == {"50", "95", "99"}
    base = report.reference.loss.perplexity
    assert base == one.loss.base_perplexity == two.loss.base_perplexity
    assert one.loss.kl.value != two.loss.kl.value


def test_json_has_all_of_it(report):
    found = json.loads(json.dumps(report.plain(), allow_nan=False))
    one = found["candidates"][0]
    assert one["loss"]["kl"]["value"] == report.candidates[0].loss.kl.value
    assert one["slices"][0]["name"] == "case=upper <b>" and len(found["kl_histogram_edges"]) == len(EDGES)
    assert one["tasks"][0]["items"][0].keys() == {"logprobs", "choice", "normalized"}


def test_the_table_is_aligned_and_names_the_worst_slice(report):
    shown = list(lines(report))
    text = "\n".join(shown)
    assert "reference  base.eqf" in shown and "worst slice: case=upper <b>, mean KL" in text
    header = next(line for line in shown if "one.eqf" in line and "two.eqf" in line)
    for name in ("perplexity", "KL divergence, mean", "  99.9 %", "same top token, %", "token p50, ms"):
        row = next(line for line in shown if line.startswith(name))
        assert len(row) == len(header), name
    assert f"{report.candidates[1].loss.kl.value:.6f}" in text
    assert "answers of one.eqf that changed most" in text and not any(line.endswith(" ") for line in shown)


class Page(HTMLParser):
    """Checks that what is opened is closed, and collects texts and what would be fetched."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.fetched: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "br", "wbr"):
            self.open.append(tag)
        self.fetched += [value for name, value in attributes if name in ("src", "href")]

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_needs_nothing_else(report):
    content = page(report)
    found = Page(content)
    assert found.open == [] and found.fetched == []
    assert "http" not in content and "<script" not in content and "url(" not in content
    assert "prefers-color-scheme: dark" in content
    assert "<b>" not in re.sub(r'<div class="answers"><b>', "", content), "names are text"
    for title in ("At a glance", "Loss against bytes", "Where the divergence lies", "Slices of one.eqf", "Tasks"):
        assert title in found.texts, title
    assert f"{report.candidates[0].loss.kl.value:.4f}" in found.texts


def test_plots_are_within_their_frames(report):
    plots = re.findall(r"<svg.*?</svg>", page(report))
    assert len(plots) == 5, "loss over bytes, histogram, two models' slices, flips"
    for plot in plots:
        tree = ElementTree.fromstring(plot)
        _, _, width, height = map(float, tree.attrib["viewBox"].split())
        for element in tree.iter():
            for name in ("x", "x1", "x2", "cx"):
                assert 0 <= float(element.attrib.get(name, 0)) <= width
            for name in ("y", "y1", "y2", "cy"):
                assert 0 <= float(element.attrib.get(name, 0)) <= height
    scatter, histogram, *_ = map(ElementTree.fromstring, plots)
    assert len(list(scatter.iter("circle"))) == 2 and len(list(histogram.iter("path"))) == 4
    heights = {float(circle.attrib["cy"]) for circle in scatter.iter("circle")}
    assert len(heights) == 2


def test_the_page_in_a_browser(report, tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("there is no browser: install chromium to look at the page")
    (tmp_path / "page.html").write_text(page(report), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    options += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]
    options += ["--hide-scrollbars", "--window-size=900,2400", f"--screenshot={tmp_path / 'page.png'}"]
    run = subprocess.run([browser, *options, (tmp_path / "page.html").as_uri()], capture_output=True, timeout=120)
    assert run.returncode == 0, run.stderr
    picture = (tmp_path / "page.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 40_000, "an empty page is smaller"


def test_without_a_reference(tmp_path):
    passages = [Passage(LOWER, "t", ("a",)), Passage(LOWER.upper(), "u", ("b",))]
    report = evaluate([table_model()], None, Options(passages, 64, answers=1, answer_tokens=4))
    (one,) = report.candidates
    assert one.loss.kl is None and one.worst is None and one.changes == [] and one.latency
    shown = "\n".join(lines(report))
    assert "KL" not in shown and "slices of table.eqf" in shown
    assert Page(page(report)).open == [] and "divergence" not in shown
    json.dumps(report.plain(), allow_nan=False)


def test_stored_predictions_alone(tmp_path):
    text = LOWER * 3
    divergence(table_model(), table_model(path="base.eqf"), text, ctx_size=64, reference_logits=tmp_path / "r")
    report = evaluate(
        [table_model(noise=0.3)], None, Options([Passage(text, "t")], 64, reference_logits=tmp_path / "r", answers=0)
    )
    assert report.reference is None and report.reference_name == "base.eqf"
    assert report.candidates[0].loss.kl.value > 0


def test_outliers_of_a_real_model(tiny_model, tmp_path):
    """Of the reference, on the page and in JSON; a model that is a table has none."""
    edgeq.convert(tiny_model, tmp_path / "m.eqf", "Q8_0")
    text = "Once upon a time there was a little girl who lived in a house with her cat and her dog. " * 4
    with edgeq.load(tmp_path / "m.eqf", threads=1) as model:
        found = evaluate([model], model, Options([Passage(text, "t.txt", ("t",))], 64, answers=0))
    assert len(found.outliers) > 12 and found.outliers[0].outlier.ratio > 3
    ratios = [one.outlier.ratio for one in found.outliers]
    assert ratios == sorted(ratios, reverse=True)
    shown = page(found)
    assert "<h2>Outliers</h2>" in shown and broken(found.outliers[0].outlier.name) in shown
    assert found.plain()["outliers"][0]["outlier"]["ratio"] == ratios[0]


def test_there_must_be_something_to_do():
    with pytest.raises(UsageError, match="there is nothing to evaluate: give --text, --task or --prompts"):
        evaluate([table_model()], None, Options())
