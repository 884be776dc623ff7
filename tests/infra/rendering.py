"""The overlays as a cluster would get them."""

import functools
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
KUBERNETES = REPOSITORY / "infra" / "kubernetes"
OVERLAYS = ("local", "production", "closed-hub")

Manifest = dict[str, Any]


@functools.cache
def rendered(overlay: str) -> tuple[Manifest, ...]:
    """Every manifest of an overlay."""
    kubectl = Path(sysconfig.get_path("scripts")) / "kubectl"
    made = subprocess.run(
        [kubectl, "kustomize", KUBERNETES / overlay], check=True, capture_output=True, text=True
    )
    return tuple(yaml.safe_load_all(made.stdout))


def of_kind(overlay: str, *kinds: str) -> Iterator[Manifest]:
    """The manifests of some kinds."""
    return (manifest for manifest in rendered(overlay) if manifest["kind"] in kinds)


def named(overlay: str, kind: str, name: str) -> Manifest:
    """The one of a name."""
    [found] = [manifest for manifest in of_kind(overlay, kind) if manifest["metadata"]["name"] == name]
    return found


def pods(overlay: str) -> Iterator[tuple[str, Manifest]]:
    """What makes pods, and the spec of these."""
    for manifest in of_kind(overlay, "Deployment", "StatefulSet", "Job"):
        yield manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]


def containers(pod: Manifest) -> list[Manifest]:
    """All of a pod's."""
    return [*pod.get("initContainers", []), *pod["containers"]]
