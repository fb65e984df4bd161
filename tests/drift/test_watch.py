"""Traffic: the same as at calibration gives no alert, other traffic does, and a model is watched while it serves."""

import itertools
import time

import numpy as np
import pytest

import edgeq
from edgeq.container.reader import open_file
from edgeq.drift import watch
from edgeq.drift.look import Looker
from edgeq.drift.seen import seen_by
from edgeq.drift.tally import ENOUGH, RECENT, Tally
from edgeq.errors import UsageError


@pytest.fixture(scope="module")
def looked(told):
    """Tallies of all inputs of the file, and what looks."""
    with open_file(told.path) as file:
        seen = seen_by(file)
        with Looker(file, list(seen.inputs), 1) as looker:
            yield lambda name, window=16: Tally(seen, name, window, 32, RECENT), looker


def feed(tally: Tally, looker: Looker, prompts: list[list[int]]) -> list[int]:
    """How many prompts had come each time that there was an alert."""
    alarmed = []
    for number, prompt in enumerate(prompts, 1):
        tally.count(prompt)
        tally.look(looker, tally.seen.part(prompt, number * 0.618 % 1))
        if tally.report().alarmed:
            alarmed.append(number)
    return alarmed


def test_the_same_traffic_gives_no_alert_and_a_switch_does(told, looked):
    make, looker = looked
    tally = make("traffic")
    assert feed(tally, looker, told.stories[:150]) == []
    report = tally.report()
    assert report.enough and report.looked_at == 16 and report.texts == 150
    assert 0 <= max(report.indices.values()) < 0.5 and report.nearest in ("some", "others")
    switched = feed(tally, looker, told.code[:50])
    assert switched and switched[0] <= 20
    found = [one for one in tally.report().alerts if one.level == "alert"]
    assert any(one.where.startswith("blk.") and "(layer " in one.text for one in found), "a layer is named"
    assert any(one.where == "perplexity" for one in found)
    assert all(str(one).startswith("alert: traffic: ") and "\n" not in str(one) for one in found)


def test_nothing_is_said_of_few_texts(told, looked):
    make, looker = looked
    tally = make("code")
    assert feed(tally, looker, told.code[: RECENT - 1]) == []
    assert feed(tally, looker, told.code[RECENT - 1 : ENOUGH - 1])[0] <= 3
    assert {one.what for one in tally.report().alerts} == {"psi"} and not tally.report().enough
    feed(tally, looker, told.code[ENOUGH - 1 : ENOUGH])
    assert {one.what for one in tally.report().alerts} > {"psi"} and tally.report().enough


def test_nothing_at_all_can_be_reported(looked):
    report = looked[0]("nothing").report()
    assert (report.texts, report.looked_at, report.alerts, report.plain()["perplexity"]) == (0, 0, [], None)


def test_short_prompts_and_values_out_of_range(told, looked):
    make, looker = looked
    tally = make("short")
    for prompt in told.stories[:9]:
        tally.look(looker, prompt[:8])
    assert len(tally.report().indices) == 24
    tally = make("loud")
    read = tally.read(looker, told.stories[0])
    for _ in range(ENOUGH):
        tally.add(read)
    assert not any(one.what == "outside" for one in tally.report().alerts)
    read.outside["blk.3.ffn_down.weight"] = read.seen["blk.3.ffn_down.weight"] // 20
    outside = [one for one in tally.report().alerts if one.what == "outside"]
    assert [(one.level, one.where) for one in outside] == [("alert", "blk.3.ffn_down.weight")]
    assert "reads values out of range: 5.00%, above 0.01" in str(outside[0])


def wait(watching: watch.Watch, looks: int) -> None:
    """Until so many texts were looked at."""
    limit = time.monotonic() + 20
    while watching.report().looked_at < looks and not watching.failure and time.monotonic() < limit:
        time.sleep(0.005)
    assert watching.report().looked_at >= looks, watching.failure


def test_a_model_is_watched_while_it_serves(told):
    with edgeq.load(told.path, threads=1) as model:
        expected = ["".join(model.generate(one[:20], 8, temperature=0)) for one in told.code[:3]]
        with model.watch(budget=1.0) as watching:
            for number, prompt in enumerate(told.code[:20], 1):
                for _ in model.generate(prompt[:60], 8, temperature=0):
                    pass
                if number <= ENOUGH:
                    wait(watching, number)
            assert watching.report().texts == 20
            assert {one.where for one in watching.alerts} >= {"perplexity", "tokens"}
            assert any(one.where.startswith("blk.") for one in watching.alerts)
            gauges = watching.gauges()
            assert gauges["alerts"] >= 3 and gauges["texts"] == 20 and gauges["psi_worst"] > 0.25
            assert all(np.isfinite(value) for value in gauges.values())
            again = ["".join(model.generate(one[:20], 8, temperature=0)) for one in told.code[:3]]
            assert again == expected, "it changes no answer"
        "".join(model.generate(told.code[0][:20], 1))
        assert watching.report().texts == 23, "it has ended"


def test_a_layer_is_named_within_fifty_prompts_at_the_usual_share(told):
    """Of what came before the switch none counts any more by then, though little is looked at."""
    with edgeq.load(told.path, threads=1) as model, model.watch(budget=1.0) as watching:
        for number, prompt in enumerate(told.stories[: watch.WINDOW], 1):
            watching.saw(prompt)
            wait(watching, number)
        assert not watching.alerts
        watching._budget = watch.BUDGET
        for prompt in told.code[:50]:
            list(model.generate_tokens(prompt[:60], 64, temperature=0.0, speculate=False))
            if any(one.where.startswith("blk.") and one.level == "alert" for one in watching.alerts):
                break
        else:
            pytest.fail(f"no layer is named: {watching.report()}")


def test_looking_takes_no_more_than_its_share(told):
    with edgeq.load(told.path, threads=1) as model, model.watch(budget=0.02) as watching:
        began, spent = time.monotonic(), [0.0]
        while time.monotonic() - began < 0.6:
            watching.saw(told.stories[0])
            time.sleep(0.002)
            spent.append(watching.spent)
        assert watching.report().looked_at >= 1
        longest = max(after - before for before, after in itertools.pairwise([*spent, watching.spent]))
        assert watching.spent <= 0.02 * (time.monotonic() - began) + longest, "the latest look's rest is yet to come"


def test_what_cannot_be_watched_is_refused(told):
    with edgeq.load(told.plain, threads=1) as model, pytest.raises(UsageError, match="does not say what it was calib"):
        model.watch()
    with edgeq.load(told.path, threads=1) as model:
        for budget in (0, -1, 1.5):
            with pytest.raises(UsageError, match=r"a budget of .* cannot work"):
                model.watch(budget)
        watching = model.watch()
    with pytest.raises(UsageError, match="the model is closed"):
        model.watch()
    watching.close()
    assert not watching._thread.is_alive(), "it ends with its model"
