"""deploy/monitoring: its rules by promtool, and each expression against what real members show."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.cluster import Cluster, free_addresses
from tests.integration.process import run
from tests.integration.test_metrics import scrape

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "deploy/monitoring"

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool (Debian's prometheus)")

# What Prometheus itself adds, and what a histogram has.
ADDED = {"job", "instance", "le"}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def targets() -> Iterator[tuple[str, str]]:
    """Expression and legend of everything that the dashboard shows, variables replaced."""
    dashboard = json.loads((MONITORING / "grafana/kvstore.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"].replace("$__rate_interval", "5m")
            yield re.sub(r"\$(job|member)", ".+", expression), target["legendFormat"]


def promtool(*arguments: object) -> None:
    assert PROMTOOL is not None
    ran = subprocess.run(
        [PROMTOOL, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        cwd=MONITORING,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


@needs_promtool
def test_the_rules_do_what_their_tests_say() -> None:
    promtool("check", "config", "prometheus.yml")
    promtool("test", "rules", "rules_test.yml")


@needs_promtool
def test_each_expression_of_the_dashboard_is_one(tmp_path: Path) -> None:
    made = [
        {"record": f"panel:{number}", "expr": expression}
        for number, (expression, _) in enumerate(targets())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": made}]}))
    promtool("check", "rules", file)


def test_each_alert_has_its_heading_in_the_runbook() -> None:
    runbook = (ROOT / "docs/runbook.md").read_text()
    headings = set(re.findall(r"^## (\w+)$", runbook, re.MULTILINE))
    names = [rule["alert"] for rule in rules()]
    assert set(names) == headings
    assert len(names) == len(headings)
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"


def test_each_expression_names_what_members_show(tmp_path: Path) -> None:
    with Cluster(tmp_path, mutual_tls=True) as cluster:
        for member, address in zip(cluster.members, free_addresses(3), strict=True):
            cluster.write_config(member, settings=f'metrics_address = "{address}"')
        cluster.start()
        with cluster.client() as client:
            client.put(b"k", b"v")
        leader = cluster.leader()
        saved = run(
            "kvctl",
            f"--dir={cluster.data(leader)}",
            "snapshot",
            "save",
            str(tmp_path / "saved.kvs"),
        )
        assert saved.returncode == 0, saved.stderr
        labels: dict[str, set[str]] = {"up": set()}
        for (name, pairs), _ in scrape(cluster.running[leader]).items():
            labels.setdefault(name, set()).update(label for label, _ in pairs)
    expressions = [
        *targets(),
        *((rule["expr"], rule["annotations"]["summary"]) for rule in rules()),
    ]
    for expression, legend in expressions:
        without_text = re.sub(r'"[^"]*"', '""', expression)
        names = set(re.findall(r"\b(?:kvstore|process)_\w+|\bup\b", without_text))
        assert names, expression
        assert names <= set(labels), (names - set(labels), expression)
        known = ADDED.union(*(labels[name] for name in names))
        used = {
            label
            for inner in re.findall(r"\{([^}]*)\}", without_text)
            for label in re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", inner)
        }
        used |= {
            label.strip()
            for inner in re.findall(r"\b(?:by|without)\s*\(([^)]*)\)", without_text)
            for label in inner.split(",")
        }
        used |= set(re.findall(r"\$labels\.(\w+)", legend))
        used |= set(re.findall(r"\{\{(\w+)\}\}", legend))
        assert used <= known, (used - known, expression)
