"""The metrics: bounded labels, histograms that add up, and a dashboard and rules that name nothing else."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.unit import house
from tests.unit.house import decided, now_ms
from worker.installation import Installation
from worker.web.metrics import ALL, HISTOGRAMS, bounded, exposition

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/unsubd.json").read_text())
RULES = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"][0]["rules"]
EXPRESSIONS = {
    "dashboard": [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]],
    "rules": [rule["expr"] for rule in RULES],
}


@pytest.fixture
def installation() -> Iterator[Installation]:
    with house.opened(fakeredis.FakeServer()) as installation:
        yield installation


def shown(installation: Installation) -> dict[str, Any]:
    """The families of /metrics, by the name that its TYPE line has."""
    text = exposition(installation).decode()
    types = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE"))
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {"types": types, "samples": samples}


def named(expression: str) -> set[str]:
    """The metrics of an expression, a histogram by its own name."""
    found = re.findall(r"unsubd_[a-z_]+", expression)
    return {re.sub(r"_(bucket|sum|count)$", "", each) for each in found}


@pytest.mark.parametrize("where", EXPRESSIONS)
def test_every_metric_that_is_named_exists(where: str, installation: Installation) -> None:
    names = {name for each in EXPRESSIONS[where] for name in named(each)}

    assert names <= set(shown(installation)["types"])
    assert all(named(each) for each in EXPRESSIONS[where])


def test_the_dashboard_shows_every_metric(installation: Installation) -> None:
    assert {name for each in EXPRESSIONS["dashboard"] for name in named(each)} == set(ALL)
    assert set(shown(installation)["types"]) == set(ALL)


def test_every_label_in_an_expression_is_one_of_its_metric() -> None:
    for expression in [each for found in EXPRESSIONS.values() for each in found]:
        labels = {label for name in named(expression) for label in re.split(r", ", ALL[name][0])} | {"le"}
        used = re.findall(r"by \(([^)]*)\)", expression) + re.findall(r"\{(\w+)[=~]", expression)
        assert {label for each in used for label in re.split(r",\s*", each)} <= labels, expression


def test_the_rules_have_what_prometheus_wants_and_the_borders_of_the_console() -> None:
    assert all({"alert", "expr", "labels", "annotations"} <= rule.keys() <= {"for", *rule.keys()} for rule in RULES)
    assert all({"summary", "description"} == rule["annotations"].keys() for rule in RULES)
    assert all(rule["labels"]["severity"] in ("info", "warning", "page", "critical") for rule in RULES)
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    borders = {int(each) for rule in RULES for each in re.findall(r"unsubd_owed_seconds >= (\d+)", rule["expr"])}
    assert borders == {60, 3600, 43_200, 129_600}


def test_expressions_are_balanced() -> None:
    for expression in [each for found in EXPRESSIONS.values() for each in found]:
        assert all(expression.count(left) == expression.count(right) for left, right in ("()", "[]", "{}")), expression


def test_a_histogram_adds_up(installation: Installation) -> None:
    now = now_ms()
    messages = [decided(f"k{age_s}", received_ms=now - age_s * 1000) for age_s in (0, 30, 100_000, 10**6)]
    installation.intake.record(messages, queued_ms=now)

    samples = shown(installation)["samples"]

    name = "unsubd_request_age_seconds"
    buckets = {each.labels["le"]: each.value for each in samples if each.name == f"{name}_bucket"}
    assert [buckets[le] for le in ("1", "60", "129600", "172800", "+Inf")] == [1, 2, 3, 3, 4]
    totals = {each.name: each.value for each in samples if each.name in (f"{name}_sum", f"{name}_count")}
    assert totals == {f"{name}_count": 4, f"{name}_sum": pytest.approx(1_100_030, abs=5)}
    hops = {each.labels["hop"]: each.value for each in samples if each.name == "unsubd_hop_seconds_count"}
    assert hops == {"arrival": 4, "queue": 4}
    assert set(HISTOGRAMS) == {name, "unsubd_hop_seconds", "unsubd_forward_age_seconds"}


def test_labels_are_bounded_and_nothing_is_left_out() -> None:
    counts = {(f"s{number}", "added"): number for number in range(1, 1001)}

    found = bounded(counts, 0, 200)

    assert len(found) == 201
    assert sum(found.values()) == sum(counts.values())
    assert ("s1000", "added") in found
    assert ("s1", "added") not in found


def test_hostile_names_stay_in_their_label(installation: Installation) -> None:
    installation.intake.record([decided("k1", source='imap:"}\nunsubd_evil 1\x1b[2J')])

    samples = shown(installation)["samples"]

    assert {each.name for each in samples if "evil" in each.name} == set()
    assert any("unsubd_evil" in each.labels.get("source", "") for each in samples)
