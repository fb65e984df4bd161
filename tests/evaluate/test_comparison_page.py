"""The page of a comparison: what is plotted, named and joined."""

import re
from xml.etree import ElementTree

from edgeq.conversion.comparing import Candidate, Comparison
from edgeq.evaluate.comparison_page import comparison_page
from edgeq.quantize.loss_probe import Loss
from edgeq.quantize.outliers import Effect, Outlier


def candidate(name: str, nbytes: int, divergence: float, method: str = "plain", simulated: bool = False) -> Candidate:
    return Candidate(name, method, simulated, nbytes, 4.0, Loss(divergence, 0.01, 0.9, 1.1), 0.125, 2.5)


def test_the_page_names_and_joins_the_front():
    found = [
        candidate("Q2_K", 1 << 20, 0.5),
        candidate("Q2_K", 1 << 20, 0.2, "feedback"),
        candidate("Q2_K_S", (1 << 20) + 9, 0.199),
        candidate("INT4_ROW", 3 << 19, 0.1, simulated=True),
        candidate("Q4_0", 2 << 20, 0.3),
        candidate("Q8_0", 3 << 20, 0.001),
    ]
    page = comparison_page(Comparison("models/tiny", 4 << 20, 200, found, complete=False), "a <model>")
    assert "Ways to quantize a &lt;model&gt;" in page and "ended early" in page
    assert page.count("<strong>") == 3
    [plot] = [ElementTree.fromstring(one) for one in re.findall(r"<svg.*?</svg>", page)]
    assert len(list(plot.iter("circle"))) == 6
    [front] = plot.iter("polyline")
    assert len(front.attrib["points"].split()) == 3
    labels = [element for element in plot.iter("text") if element.attrib.get("text-anchor") == "end"]
    places = {element.text: element.attrib["y"] for element in labels if element.text in ("Q2_K", "Q2_K_S", "Q8_0")}
    assert len({*places.values()}) == 3, "names do not lie on one another"
    names = {element.text for element in plot.iter("text")}
    assert {"Q2_K", "Q8_0"} <= names and "Q4_0" not in names, "others are named to who points at them"
    assert any("Q4_0 plain: 2 MiB" in (element.text or "") for element in plot.iter("title"))


def test_outliers_have_a_section_where_they_are_known():
    found = [candidate("Q4_0", 2 << 20, 0.3)]
    assert "Outliers" not in comparison_page(Comparison("m", 4 << 20, 200, found), "m")
    outliers = [
        Effect(Outlier("blk.1.ffn_down.weight", 137, 83.4, 0.25), 41.5, 6.25),
        Effect(Outlier("blk.0.attn_output.weight", 5, 9.0, 0.1), None, None),
    ]
    page = comparison_page(Comparison("m", 4 << 20, 200, found, outliers=outliers), "m")
    section = re.findall(r"<section>(.*?)</section>", page)[-1]
    assert section.startswith("<h2>Outliers</h2>") and section.count("no place") == 2
    for cell in ("137", "25.0%", "83.4", "41.5", "6.2"):
        assert f"<td>{cell}</td>" in section
