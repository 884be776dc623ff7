"""NetworkPolicies, the list of flows and the diagram say the same."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.infra.rendering import KUBERNETES, OVERLAYS, REPOSITORY, Manifest, of_kind, pods

pytestmark = pytest.mark.infra

Flow = tuple[str, str, int]

LISTED = yaml.safe_load((KUBERNETES / "flows.yaml").read_text())


def _there(overlay: str, kind: str) -> list[dict[str, Any]]:
    return [one for one in LISTED[kind] if overlay in one.get("overlays", OVERLAYS)]


def _ours(overlay: str) -> dict[str, dict[str, str]]:
    """The parties that are pods of this namespace, with their labels."""
    return {
        party["name"]: party["pods"]
        for party in _there(overlay, "parties")
        if "pods" in party and "namespace" not in party
    }


def _names(name: str, overlay: str) -> list[str]:
    return list(_ours(overlay)) if name == "every" else [name]


def listed(overlay: str) -> set[Flow]:
    """Every allowed flow, from one party to one port of another."""
    return {
        (source, target, port)
        for flow in _there(overlay, "flows")
        for source in _names(flow["from"], overlay)
        for target in _names(flow["to"], overlay)
        for port in flow["ports"]
    }


def _subjects(policy: Manifest, overlay: str) -> list[str]:
    """Whose policy it is."""
    selector = policy["spec"]["podSelector"]
    wanted = [{name: value} for name, value in selector.get("matchLabels", {}).items()]
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        values = expression["values"]
        wanted.append({expression["key"]: values})
    found = [
        party
        for party, labels in _ours(overlay).items()
        if all(
            labels.get(name) in (value if isinstance(value, list) else [value])
            for one in wanted
            for name, value in one.items()
        )
    ]
    assert found, f"{policy['metadata']['name']} is nobody's"
    return found


def _party(peer: Manifest, overlay: str) -> str:
    """Who that is; each peer has to be one of the parties."""
    for party in _there(overlay, "parties"):
        if "cidr" in party:
            block = {"cidr": party["cidr"]} | ({"except": party["except"]} if "except" in party else {})
            if peer == {"ipBlock": block}:
                return str(party["name"])
            continue
        selectors = {}
        if "namespace" in party:
            labels = {"kubernetes.io/metadata.name": party["namespace"]}
            selectors["namespaceSelector"] = {"matchLabels": labels}
        if "pods" in party:
            selectors["podSelector"] = {"matchLabels": party["pods"]}
        if peer == selectors:
            return str(party["name"])
    raise AssertionError(f"{peer} is no party of {overlay}")


def _rules(overlay: str, direction: str, peers: str) -> Iterator[tuple[str, str, int]]:
    """Of each policy's rules: whose it is, the other side, the port."""
    for policy in of_kind(overlay, "NetworkPolicy"):
        for rule in policy["spec"].get(direction, []):
            assert rule.get(peers), f"{policy['metadata']['name']}: a rule for everybody"
            assert rule.get("ports"), f"{policy['metadata']['name']}: a rule for every port"
            for peer in rule[peers]:
                for port in rule["ports"]:
                    for subject in _subjects(policy, overlay):
                        yield subject, _party(peer, overlay), port["port"]


def leaving(overlay: str) -> set[Flow]:
    return set(_rules(overlay, "egress", "to"))


def entering(overlay: str) -> set[Flow]:
    return {(other, subject, port) for subject, other, port in _rules(overlay, "ingress", "from")}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_policies_allow_the_flows_that_are_listed_and_no_others(overlay: str) -> None:
    ours = _ours(overlay)
    expected = listed(overlay)
    assert leaving(overlay) == {flow for flow in expected if flow[0] in ours}
    assert entering(overlay) == {flow for flow in expected if flow[1] in ours}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_whoever_has_no_policy_reaches_nobody(overlay: str) -> None:
    [deny] = [one for one in of_kind(overlay, "NetworkPolicy") if one["metadata"]["name"] == "default-deny"]
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_a_party(overlay: str) -> None:
    parties = [party.items() for party in _ours(overlay).values()]
    for manifest in of_kind(overlay, "Deployment", "StatefulSet", "Job"):
        labels = manifest["spec"]["template"]["metadata"]["labels"].items()
        assert sum(party <= labels for party in parties) == 1, manifest["metadata"]["name"]
    assert list(pods(overlay))


def test_only_the_api_is_reached_from_outside_and_workers_of_a_closed_hub_reach_no_internet() -> None:
    for overlay in OVERLAYS:
        assert {(source, target) for source, target, _ in listed(overlay) if source == "ingress"} == {
            ("ingress", "api")
        }
    reaching = {source for source, target, _ in listed("closed-hub") if target == "internet"}
    assert reaching == {"api", "batcher"}
    assert ("gpu-worker", "internet", 443) in listed("production")


def test_every_flow_has_a_reason_and_parties_that_are_there() -> None:
    for overlay in OVERLAYS:
        names = {party["name"] for party in _there(overlay, "parties")} | {"every"}
        for flow in _there(overlay, "flows"):
            assert {flow["from"], flow["to"]} <= names, flow
            assert set(flow) <= {"from", "to", "ports", "reason", "overlays"}, flow
            assert flow["reason"], flow


def test_the_diagram_shows_the_flows_of_production() -> None:
    text = (REPOSITORY / "docs" / "kubernetes.md").read_text()
    [diagram] = re.findall(r"```mermaid\n%% flows\n(.*?)```", text, re.DOTALL)
    arrows = re.findall(r"^\s*([\w-]+) -->\|([\d, ]+)\| ([\w-]+)$", diagram, re.MULTILINE)
    assert len(arrows) == diagram.count("-->")
    drawn = {(source, target, int(port)) for source, ports, target in arrows for port in ports.split(", ")}
    production = {
        (flow["from"], flow["to"], port) for flow in _there("production", "flows") for port in flow["ports"]
    }
    assert drawn == production
