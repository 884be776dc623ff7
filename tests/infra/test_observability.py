"""Dashboards, rules and runbooks fit together, and to the metrics that there are."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import prometheus_client
import promql_parser
import pytest

from core import telemetry
from infra.observability.dashboards import DASHBOARDS as DECLARED
from infra.observability.dashboards import FOLDER
from tests.infra.queries import RULES, Selector, queries, rules, selectors

pytestmark = pytest.mark.infra

RUNBOOKS = Path(__file__).resolve().parents[2] / "docs" / "runbooks.md"
COLLECTORS = (prometheus_client.Counter, prometheus_client.Gauge, prometheus_client.Histogram)
FOREIGN = {
    "up",
    "kubelet_volume_stats_available_bytes",
    "kubelet_volume_stats_capacity_bytes",
    "cnpg_pg_stat_archiver_last_archived_time",
    "cnpg_pg_stat_archiver_last_failed_time",
    "barman_cloud_cloudnative_pg_io_last_available_backup_timestamp",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
}
"""Of Prometheus, of the kubelet, of CloudNativePG with its plugin, and of every process."""

SCRAPED = {"job", "instance", "le", "namespace", "persistentvolumeclaim"}
"""Labels that Prometheus and histograms add."""


def exposed() -> dict[str, set[str]]:
    """The names under which our metrics are served, with their labels."""
    names: dict[str, set[str]] = {}
    for metric in vars(telemetry).values():
        if isinstance(metric, COLLECTORS):
            suffixes = {
                prometheus_client.Counter: ("_total",),
                prometheus_client.Gauge: ("",),
                prometheus_client.Histogram: ("_bucket", "_sum", "_count"),
            }[type(metric)]
            # As it is served: a counter's name ends so whether its declaration says it or not.
            names |= {f"{metric._name}{suffix}": set(metric._labelnames) for suffix in suffixes}
    return names


def recorded() -> dict[str, set[str]]:
    """What the recording rules make, with the labels that they keep."""
    found = {}
    for rule in rules("recording.yaml"):
        by = re.match(r"\w+ by \(([^)]*)\)", rule["expr"])
        found[rule["record"]] = {label.strip() for label in by[1].split(",")} if by else set()
    return found


def wrong(selector: Selector, known: dict[str, set[str]]) -> str | None:
    if selector.metric in FOREIGN:
        return None
    if selector.metric not in known:
        return f"there is no {selector.metric}"
    strange = selector.labels - known[selector.metric] - SCRAPED
    return f"{selector.metric} has no {', '.join(sorted(strange))}" if strange else None


def test_every_query_reads_metrics_and_labels_that_exist() -> None:
    known = exposed() | recorded()
    read = [(query, selector) for query in queries() for selector in selectors(query.tree)]
    assert len(read) > 100
    problems = [f"{query.place}: {told}" for query, selector in read if (told := wrong(selector, known))]
    assert problems == []


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("rate(darkroom_pictures_total[5m])", "there is no darkroom_pictures_total"),
        ('darkroom_workers{stage="PREMIUM"} < 1', "darkroom_workers has no stage"),
        ("sum by (colour) (darkroom_workers)", "darkroom_workers has no colour"),
    ],
)
def test_a_query_of_something_else_is_found(expression: str, told: str) -> None:
    [selector] = selectors(promql_parser.parse(expression))
    assert wrong(selector, exposed()) == told


def test_every_metric_of_ours_is_looked_at_by_a_dashboard_or_an_alert() -> None:
    read = {selector.metric for query in queries() for selector in selectors(query.tree)}
    read = {re.sub(r"_(bucket|sum|count)$", "", name) for name in read}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed()} - read == set()


def test_the_dashboards_are_those_that_are_declared() -> None:
    assert {path.name: path.read_text() for path in FOLDER.glob("*")} == {
        f"{one.uid}.json": one.render() for one in DECLARED
    }


def test_panels_of_a_dashboard_do_not_overlap() -> None:
    for path in FOLDER.glob("*.json"):
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(path.read_text())["panels"]:
            box = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(box["x"], box["x"] + box["w"])
                for y in range(box["y"], box["y"] + box["h"])
            }
            assert not cells & taken, panel["title"]
            taken |= cells


def test_every_alert_has_a_severity_a_summary_and_its_chapter_of_the_runbook_and_every_chapter_an_alert() -> (
    None
):
    alerts = rules("alerts.yaml")
    for alert in alerts:
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["runbook"] == f"docs/runbooks.md#{alert['alert'].lower()}"
    headings = re.findall(r"^### (\w+)$", RUNBOOKS.read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(alert["alert"] for alert in alerts)


def test_every_command_of_the_runbook_exists() -> None:
    commands = set(re.findall(r"`darkroom ([a-z]+(?: [a-z-]+)?)", RUNBOOKS.read_text()))
    documented = (RUNBOOKS.parent / "operations.md").read_text().partition("## The command line")[2]
    assert commands
    assert {command for command in commands if f"`darkroom {command}" not in documented} == set()


def promtool(*words: str) -> None:
    program = shutil.which("promtool")
    if program is None:
        if os.environ.get("DARKROOM_REQUIRE_PROMTOOL"):
            pytest.fail("promtool is not on the PATH")
        pytest.skip("promtool is not on the PATH: Debian's package prometheus has it")
    done = subprocess.run([program, *words], cwd=RULES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_reads_the_rules() -> None:
    promtool("check", "rules", "recording.yaml", "alerts.yaml")


def test_alerts_fire_when_they_have_to_and_not_otherwise() -> None:
    promtool("test", "rules", "tests.yaml")
