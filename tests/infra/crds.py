"""The custom resources that we use, as their definitions have them.

No package ships the definitions of KEDA, CloudNativePG and cert-manager whole, and they are not ours to copy.
So here is what we use of them and nothing more: a field that is not named here is refused, as a cluster would
prune or refuse one that it does not know. Look a new field up in the project's own definition first.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Duration = Annotated[str, Field(pattern=r"^(\d+h)?(\d+m)?(\d+s)?$")]
Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|[KMGT]i?)?$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Metadata(_Part):
    name: str
    namespace: Literal["darkroom"]
    labels: dict[str, str] = {}


class _Key(_Part):
    name: str
    key: str


# --- KEDA 2.20 ---


class _Policy(_Part):
    type: Literal["Pods", "Percent"]
    value: int
    periodSeconds: int = Field(ge=1, le=1800)


class _Rules(_Part):
    stabilizationWindowSeconds: int | None = Field(default=None, ge=0, le=3600)
    policies: list[_Policy] = []


class _Behavior(_Part):
    scaleUp: _Rules | None = None
    scaleDown: _Rules | None = None


class _HorizontalPodAutoscaler(_Part):
    behavior: _Behavior


class _Advanced(_Part):
    horizontalPodAutoscalerConfig: _HorizontalPodAutoscaler


class _Fallback(_Part):
    failureThreshold: int
    replicas: int
    behavior: Literal["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]


class _JetStream(_Part):
    natsServerMonitoringEndpoint: str
    account: str
    stream: str
    consumer: str
    lagThreshold: Annotated[str, Field(pattern=r"^\d+$")]


class _JetStreamTrigger(_Part):
    type: Literal["nats-jetstream"]
    metadata: _JetStream


class _Cpu(_Part):
    value: Annotated[str, Field(pattern=r"^\d+$")]


class _CpuTrigger(_Part):
    type: Literal["cpu"]
    metricType: Literal["Utilization", "AverageValue"]
    metadata: _Cpu


class _Prometheus(_Part):
    serverAddress: str
    query: str
    threshold: Annotated[str, Field(pattern=r"^\d+$")]


class _PrometheusTrigger(_Part):
    type: Literal["prometheus"]
    metadata: _Prometheus


class _ScaleTarget(_Part):
    name: str


class _ScaledObjectSpec(_Part):
    scaleTargetRef: _ScaleTarget
    minReplicaCount: int = Field(ge=0)
    maxReplicaCount: int = Field(ge=1)
    pollingInterval: int = Field(default=30, ge=1)
    cooldownPeriod: int = Field(default=300, ge=0)
    fallback: _Fallback | None = None
    advanced: _Advanced | None = None
    triggers: list[
        Annotated[_JetStreamTrigger | _CpuTrigger | _PrometheusTrigger, Field(discriminator="type")]
    ] = Field(min_length=1)


class ScaledObject(_Part):
    apiVersion: Literal["keda.sh/v1alpha1"]
    kind: Literal["ScaledObject"]
    metadata: _Metadata
    spec: _ScaledObjectSpec


# --- CloudNativePG 1.30, and its plugin for backups ---


class _InitDb(_Part):
    database: str
    owner: str
    dataChecksums: bool


class _Bootstrap(_Part):
    initdb: _InitDb


class _ServerCertificates(_Part):
    serverCASecret: str
    serverTLSSecret: str


class _Storage(_Part):
    size: Quantity


class _Resources(_Part):
    requests: dict[Literal["cpu", "memory"], Quantity]
    limits: dict[Literal["cpu", "memory"], Quantity]


class _Synchronous(_Part):
    method: Literal["any", "first"]
    number: int = Field(ge=1)
    dataDurability: Literal["required", "preferred"]


class _PostgreSql(_Part):
    synchronous: _Synchronous
    parameters: dict[str, str]


class _Affinity(_Part):
    enablePodAntiAffinity: bool
    podAntiAffinityType: Literal["required", "preferred"]
    topologyKey: str


class _Labels(_Part):
    matchLabels: dict[str, str]


class _Spread(_Part):
    topologyKey: str
    maxSkew: int = Field(ge=1)
    whenUnsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]
    labelSelector: _Labels


class _Plugin(_Part):
    name: str
    isWALArchiver: bool
    parameters: dict[str, str]


class _ClusterSpec(_Part):
    instances: int = Field(ge=1)
    imageName: str
    bootstrap: _Bootstrap
    certificates: _ServerCertificates
    storage: _Storage
    walStorage: _Storage
    resources: _Resources
    postgresql: _PostgreSql
    affinity: _Affinity
    topologySpreadConstraints: list[_Spread]
    plugins: list[_Plugin]


class Cluster(_Part):
    apiVersion: Literal["postgresql.cnpg.io/v1"]
    kind: Literal["Cluster"]
    metadata: _Metadata
    spec: _ClusterSpec


class _Named(_Part):
    name: str


class _ScheduledBackupSpec(_Part):
    # With seconds: six fields.
    schedule: Annotated[str, Field(pattern=r"^\S+( \S+){5}$")]
    immediate: bool
    backupOwnerReference: Literal["none", "self", "cluster"]
    cluster: _Named
    method: Literal["plugin"]
    pluginConfiguration: _Named


class ScheduledBackup(_Part):
    apiVersion: Literal["postgresql.cnpg.io/v1"]
    kind: Literal["ScheduledBackup"]
    metadata: _Metadata
    spec: _ScheduledBackupSpec


class _S3(_Part):
    accessKeyId: _Key
    secretAccessKey: _Key


class _Wal(_Part):
    compression: Literal["bzip2", "gzip", "lz4", "snappy", "xz", "zstd"]


class _Data(_Part):
    compression: Literal["bzip2", "gzip", "lz4", "snappy"]


class _Barman(_Part):
    destinationPath: Annotated[str, Field(pattern=r"^s3://")]
    s3Credentials: _S3
    wal: _Wal
    data: _Data


class _ObjectStoreSpec(_Part):
    retentionPolicy: Annotated[str, Field(pattern=r"^[1-9]\d*[dwm]$")]
    configuration: _Barman


class ObjectStore(_Part):
    apiVersion: Literal["barmancloud.cnpg.io/v1"]
    kind: Literal["ObjectStore"]
    metadata: _Metadata
    spec: _ObjectStoreSpec


# --- cert-manager 1.21 ---


class _SelfSigned(_Part):
    """Nothing to say."""


class _Authority(_Part):
    secretName: str


class _IssuerSpec(_Part):
    selfSigned: _SelfSigned | None = None
    ca: _Authority | None = None


class Issuer(_Part):
    apiVersion: Literal["cert-manager.io/v1"]
    kind: Literal["Issuer"]
    metadata: _Metadata
    spec: _IssuerSpec


class _PrivateKey(_Part):
    algorithm: Literal["RSA", "ECDSA", "Ed25519"]
    size: int
    rotationPolicy: Literal["Never", "Always"] = "Always"


class _IssuerRef(_Part):
    name: str
    kind: Literal["Issuer", "ClusterIssuer"]


class _SecretTemplate(_Part):
    labels: dict[str, str]


class _CertificateSpec(_Part):
    secretName: str
    secretTemplate: _SecretTemplate | None = None
    issuerRef: _IssuerRef
    privateKey: _PrivateKey
    duration: Duration
    renewBefore: Duration | None = None
    isCA: bool = False
    commonName: Annotated[str, Field(max_length=64)] | None = None
    dnsNames: list[str] = []
    usages: list[Literal["digital signature", "key encipherment", "server auth", "client auth"]] = []


class Certificate(_Part):
    apiVersion: Literal["cert-manager.io/v1"]
    kind: Literal["Certificate"]
    metadata: _Metadata
    spec: _CertificateSpec


_RESOURCES: TypeAdapter[Any] = TypeAdapter(
    Annotated[
        ScaledObject | Cluster | ScheduledBackup | ObjectStore | Issuer | Certificate,
        Field(discriminator="kind"),
    ]
)


def check(manifest: dict[str, Any]) -> None:
    """Raise pydantic's ValidationError for a custom resource that is not as its definition has it."""
    _RESOURCES.validate_python(manifest)
