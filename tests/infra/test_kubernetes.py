"""What a cluster would be told, checked without one."""

import re
import subprocess
import sysconfig
from itertools import chain
from pathlib import Path

import kubernetes_validate
import pytest
import trustme
import yaml
from pydantic import ValidationError

from api.settings import ApiSettings
from batcher.settings import BatcherSettings
from core.queue.topology import BATCH_JOBS, PREMIUM_JOBS
from core.settings import BrokerSettings, DatabaseSettings, ProcessSettings
from gpu_worker.settings import GpuWorkerSettings
from tests.infra import crds
from tests.infra.rendering import (
    KUBERNETES,
    OVERLAYS,
    REPOSITORY,
    Manifest,
    containers,
    named,
    of_kind,
    pods,
    rendered,
)

pytestmark = pytest.mark.infra

VERSION = "1.37"
CLOUD = ("production", "closed-hub")
SETTINGS: dict[str, type[ProcessSettings]] = {
    "api": ApiSettings,
    "batcher": BatcherSettings,
    "gpu-worker": GpuWorkerSettings,
}
# What is said to libraries and to the manifest itself.
NOT_OURS = {"DATABASE_USER", "DATABASE_PASSWORD", "HF_TOKEN", "HF_ENDPOINT"}


def check(manifest: Manifest) -> None:
    """A field that the cluster does not know is an error."""
    group = manifest["apiVersion"].rpartition("/")[0]
    if group.count(".") and not group.endswith("k8s.io"):
        crds.check(manifest)
    else:
        kubernetes_validate.validate(manifest, VERSION, strict=True)


def told(overlay: str, container: Manifest) -> dict[str, str | None]:
    """A container's variables; none as the value of one from a Secret or from the pod."""
    variables: dict[str, str | None] = {}
    for source in container.get("envFrom", []):
        variables |= named(overlay, "ConfigMap", source["configMapRef"]["name"])["data"]
    return variables | {one["name"]: one.get("value") for one in container.get("env", [])}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_is_as_its_schema_has_it_and_without_an_unknown_field(overlay: str) -> None:
    for manifest in rendered(overlay):
        check(manifest)


def test_a_misspelt_field_is_found() -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        check({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"port": []}})
    scaled = named("production", "ScaledObject", "api")
    with pytest.raises(ValidationError, match="minReplicas"):
        check({**scaled, "spec": {**scaled["spec"], "minReplicas": 1}})


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_as_restricted_as_it_can_be(overlay: str) -> None:
    for name, pod in pods(overlay):
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not any(pod.get(field) for field in ("hostNetwork", "hostPID", "hostIPC")), name
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert "memory" in container["resources"]["limits"], name
        kinds = set(chain.from_iterable(volume for volume in pod.get("volumes", []))) - {"name"}
        assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}, name
    labels = named(overlay, "Namespace", "darkroom")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_process_is_told_what_it_needs_and_no_variable_that_it_does_not_read(
    overlay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for deployment in of_kind(overlay, "Deployment"):
        name = deployment["metadata"]["name"]
        process = name.removesuffix("-premium").removesuffix("-batch")
        if process not in SETTINGS:
            continue
        variables = told(overlay, deployment["spec"]["template"]["spec"]["containers"][0])
        with monkeypatch.context() as environment:
            for variable, value in variables.items():
                secret = "{}" if variable == "DARKROOM_STORAGE_OPTIONS" else "s" * 40
                here = __file__ if variable.endswith("_CA_FILE") else value
                environment.setenv(variable, secret if here is None else here)
            settings = SETTINGS[process].from_environment()
        groups = [type(getattr(settings, field)) for field in type(settings).__dataclass_fields__]
        known = {f"DARKROOM_{field.upper()}" for group in groups for field in group.model_fields}
        assert set(variables) - NOT_OURS <= known, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_migration_is_told_where_database_and_broker_are(overlay: str) -> None:
    pod = named(overlay, "Job", "migrate")["spec"]["template"]["spec"]
    [schema], [streams] = pod["initContainers"], pod["containers"]
    known = {f"DARKROOM_{field.upper()}" for field in DatabaseSettings.model_fields}
    assert set(told(overlay, schema)) - NOT_OURS <= known
    assert schema["command"] == ["darkroom", "migrate"]
    known = {f"DARKROOM_{field.upper()}" for field in BrokerSettings.model_fields}
    assert set(told(overlay, streams)) <= known
    assert streams["command"] == ["darkroom", "streams", "--update"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_worker_knows_no_password_of_the_database_or_the_mail_server(overlay: str) -> None:
    for name in ("gpu-worker-premium", "gpu-worker-batch"):
        text = yaml.safe_dump(named(overlay, "Deployment", name))
        assert "postgres" not in text
        assert "smtp" not in text.lower()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_process_has_longer_to_stop_than_it_takes(overlay: str) -> None:
    for deployment in of_kind(overlay, "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        variables = told(overlay, pod["containers"][0])
        drains = [
            float(value or 0)
            for name, value in variables.items()
            if name.endswith(("DRAIN_SECONDS", "SHUTDOWN_SECONDS"))
        ]
        if drains:
            assert pod["terminationGracePeriodSeconds"] >= sum(drains) + 10


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_ours_is_asked_whether_it_lives_and_whether_it_works(overlay: str) -> None:
    for name in ("api", "batcher", "gpu-worker-premium", "gpu-worker-batch"):
        [container] = named(overlay, "Deployment", name)["spec"]["template"]["spec"]["containers"]
        paths = [
            container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")
        ]
        works = "/health/serving" if name == "api" else "/health/ready"
        assert paths == ["/health/live", "/health/live", works]


@pytest.mark.parametrize("overlay", CLOUD)
def test_a_node_of_the_broker_has_started_once_its_streams_are_in_step(overlay: str) -> None:
    """Both of the others' questions leave streams out, and the next node would go too early."""
    spec = named(overlay, "StatefulSet", "nats")["spec"]["template"]["spec"]
    [nats] = [container for container in spec["containers"] if container["name"] == "nats"]
    paths = [nats[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")]
    assert paths == ["/healthz", "/healthz?js-enabled-only=true", "/healthz?js-server-only=true"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_two_deployments_of_one_worker_share_the_tiers(overlay: str) -> None:
    [premium, batch] = [
        named(overlay, "Deployment", name)["spec"]["template"]["spec"]["containers"][0]
        for name in ("gpu-worker-premium", "gpu-worker-batch")
    ]
    assert premium["image"] == batch["image"]
    assert told(overlay, premium)["DARKROOM_WORKER_TIERS"] == '["PREMIUM", "NORMAL"]'
    assert told(overlay, batch)["DARKROOM_WORKER_TIERS"] == '["NORMAL"]'


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_find_the_pods_of_their_own_and_no_others(overlay: str) -> None:
    templates = {
        manifest["metadata"]["name"]: manifest["spec"]["template"]["metadata"]["labels"]
        for manifest in of_kind(overlay, "Deployment", "StatefulSet", "Job")
    }
    # CloudNativePG gives its pods this one.
    templates.setdefault("postgres", {"cnpg.io/cluster": "postgres"})
    for manifest in of_kind(overlay, "Deployment", "StatefulSet", "PodDisruptionBudget", "Service"):
        selector = manifest["spec"]["selector"]
        wanted = selector.get("matchLabels", selector).items()
        found = {name for name, labels in templates.items() if wanted <= labels.items()}
        name = manifest["metadata"]["name"]
        expected = {"nats-nodes": "nats", "postgres-rw": "postgres"}.get(name, name)
        assert found == {expected}, name


@pytest.mark.parametrize("overlay", CLOUD)
def test_what_scales_the_workers_reads_the_consumers_that_they_pull_from(overlay: str) -> None:
    configuration = (REPOSITORY / "infra" / "nats" / "nats.conf").read_text()
    service = named(overlay, "Service", "nats-nodes")
    for name, jobs in (("gpu-worker-premium", PREMIUM_JOBS), ("gpu-worker-batch", BATCH_JOBS)):
        spec = named(overlay, "ScaledObject", name)["spec"]
        assert named(overlay, "Deployment", spec["scaleTargetRef"]["name"])
        [trigger] = spec["triggers"]
        metadata = trigger["metadata"]
        assert (metadata["stream"], metadata["consumer"]) == (jobs.stream, jobs.name)
        assert re.search(rf"accounts {{\s+{metadata['account']} {{", configuration)
        # KEDA puts the leading node's name before it, which only a headless service answers to.
        host = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local"
        assert metadata["natsServerMonitoringEndpoint"] == f"{host}:8222"
        assert service["spec"]["clusterIP"] == "None"
    assert named(overlay, "ScaledObject", "gpu-worker-premium")["spec"]["minReplicaCount"] > 0
    assert named(overlay, "ScaledObject", "gpu-worker-batch")["spec"]["minReplicaCount"] == 0


@pytest.mark.parametrize("overlay", CLOUD)
def test_who_is_scaled_has_no_number_of_replicas_of_its_own(overlay: str) -> None:
    for scaled in of_kind(overlay, "ScaledObject"):
        deployment = named(overlay, "Deployment", scaled["spec"]["scaleTargetRef"]["name"])
        assert "replicas" not in deployment["spec"]


@pytest.mark.parametrize("overlay", CLOUD)
def test_secrets_are_named_and_never_written(overlay: str) -> None:
    assert not list(of_kind(overlay, "Secret"))
    made_here = {"postgres-app"} | {
        one["spec"]["secretName"] for one in of_kind(overlay, "Certificate") if "secretName" in one["spec"]
    }
    text = (REPOSITORY / "docs" / "kubernetes.md").read_text()
    documented = {
        (name, key)
        for name, keys in re.findall(r"^\| `([\w-]+)` \| ((?:`[\w.-]+`(?:, )?)+) \|", text, re.MULTILINE)
        for key in re.findall(r"`([\w.-]+)`", keys)
    }
    assert {(name, key) for name, key in _secrets_of(overlay) if name not in made_here} == documented


def _secrets_of(overlay: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []

    def look(node: object) -> None:
        if isinstance(node, dict):
            for name, value in node.items():
                if name in {"secretKeyRef", "accessKeyId", "secretAccessKey"}:
                    found.append((value["name"], value["key"]))
                elif name == "secret" and "items" in value:
                    found.extend(
                        (value.get("secretName") or value["name"], one["key"]) for one in value["items"]
                    )
                look(value)
        elif isinstance(node, list):
            for one in node:
                look(one)

    look(list(rendered(overlay)))
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_whatever_a_pod_mounts_or_reads_is_there(overlay: str) -> None:
    maps = {one["metadata"]["name"] for one in of_kind(overlay, "ConfigMap")}
    claims = {one["metadata"]["name"] for one in of_kind(overlay, "PersistentVolumeClaim")}
    accounts = {one["metadata"]["name"] for one in of_kind(overlay, "ServiceAccount")} | {"default"}
    for name, pod in pods(overlay):
        assert pod.get("serviceAccountName", "default") in accounts, name
        for volume in pod.get("volumes", []):
            sources = [volume, *volume.get("projected", {}).get("sources", [])]
            assert {one["configMap"]["name"] for one in sources if "configMap" in one} <= maps, name
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims, name
        for container in containers(pod):
            mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
            for variable, value in told(overlay, container).items():
                if variable.endswith("_CA_FILE"):
                    assert str(Path(str(value)).parent) in mounted, name


@pytest.mark.parametrize("overlay", CLOUD)
def test_whom_a_process_trusts_from_its_start_outlasts_it(overlay: str) -> None:
    """Files of authorities are read once; what a server shows has the name by which it is spoken to."""
    certificates = {one["spec"]["secretName"]: one["spec"] for one in of_kind(overlay, "Certificate")}
    issuers = {one["metadata"]["name"]: one["spec"] for one in of_kind(overlay, "Issuer")}
    trusted = {
        volume["secret"]["secretName"]
        for _, pod in pods(overlay)
        for volume in pod.get("volumes", [])
        if {"key": "ca.crt", "path": "ca.crt"} in volume.get("secret", {}).get("items", [])
    }
    assert trusted == {"nats-server-tls", "postgres-server-tls"}
    for name, host in (("nats-server-tls", "nats"), ("postgres-server-tls", "postgres-rw")):
        shown = certificates[name]
        assert host in shown["dnsNames"]
        authority = certificates[issuers[shown["issuerRef"]["name"]]["ca"]["secretName"]]
        assert authority["isCA"]
        assert int(authority["duration"].removesuffix("h")) >= 5 * 365 * 24
    cluster = named(overlay, "Cluster", "postgres")["spec"]
    assert set(cluster["certificates"].values()) == {"postgres-server-tls"}
    assert "cnpg.io/reload" in certificates["postgres-server-tls"]["secretTemplate"]["labels"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_not_ours_is_named_by_a_tag_that_does_not_wander(overlay: str) -> None:
    images = [container["image"] for _, pod in pods(overlay) for container in containers(pod)]
    images += [cluster["spec"]["imageName"] for cluster in of_kind(overlay, "Cluster")]
    for image in images:
        if "darkroom-" not in image:
            assert re.fullmatch(r"[\w./-]+:v?\d[\w.-]+(@sha256:[0-9a-f]{64})?", image)


@pytest.mark.parametrize("overlay", CLOUD)
def test_three_nodes_of_the_broker_take_their_configuration(overlay: str, tmp_path: Path) -> None:
    """The server reads it as in a pod, with its own certificates and made-up hashes."""
    authority = trustme.CA()
    for folder in ("nats-server-tls", "nats-node-tls"):
        (tmp_path / folder).mkdir()
        certificate = authority.issue_cert("nats-0.nats-nodes")
        (tmp_path / folder / "tls.crt").write_bytes(certificate.cert_chain_pems[0].bytes())
        (tmp_path / folder / "tls.key").write_bytes(certificate.private_key_pem.bytes())
        (tmp_path / folder / "ca.crt").write_bytes(authority.cert_pem.bytes())
    pod = named(overlay, "StatefulSet", "nats")["spec"]["template"]["spec"]
    [projected] = [volume["projected"] for volume in pod["volumes"] if volume["name"] == "configuration"]
    for source in projected["sources"]:
        if "configMap" in source:
            for file, text in named(overlay, "ConfigMap", source["configMap"]["name"])["data"].items():
                (tmp_path / file).write_text(text.replace("/etc/", f"{tmp_path}/"))
    passwords = re.findall(r"\$(\w+_PASSWORD)", (tmp_path / "nats.conf").read_text())
    hashed = "$2a$04$" + "a" * 53
    (tmp_path / "users.conf").write_text("".join(f'{name}: "{hashed}"\n' for name in passwords))
    server = Path(sysconfig.get_path("scripts")) / "nats-server"
    checked = subprocess.run(
        [server, "-t", "--config", tmp_path / "nats.conf"],
        env={"POD_NAME": "nats-0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    routes = re.findall(r"tls://([\w.-]+):6222", (KUBERNETES / "production" / "node.conf").read_text())
    statefulset = named(overlay, "StatefulSet", "nats")["spec"]
    assert routes == [
        f"nats-{number}.{statefulset['serviceName']}" for number in range(statefulset["replicas"])
    ]
    assert named(overlay, "Certificate", "nats-node-tls")["spec"]["dnsNames"] == routes
