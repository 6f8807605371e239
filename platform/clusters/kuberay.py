"""Manifests for KubeRay, held against the keys that it knows and the rules of its operator.

The keys of RayCluster and RayJob are those of KubeRay's Go types, which its published schemas are made from:
raycluster_types.go and rayjob_types.go of its main branch in 2026, after v1.6. Of a pod's template only what every pod
needs is looked at: the rest is Kubernetes' own, and `kubectl apply --dry-run=server` knows it.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from hdam.platform.clusters.check import Problem

KINDS = ("RayCluster", "RayJob")
API = "ray.io/v1"
STORES = {"HDAM_STORE", "HDAM_RESULTS"}
Text = Annotated[str, Field(min_length=1)]
Count = NonNegativeInt
Strings = dict[str, str]


class Known(BaseModel):
    """A part of which all keys are KubeRay's."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Open(BaseModel):
    """A part of Kubernetes' own."""

    model_config = ConfigDict(extra="allow", strict=True)


class Container(Open):
    """Of a pod."""

    name: Text
    image: Text
    env: list[dict[str, Any]] = []
    resources: dict[Literal["limits", "requests", "claims"], Any] = {}


class PodSpec(Open):
    """What runs in a pod."""

    containers: Annotated[list[Container], Field(min_length=1)]
    restartPolicy: Literal["Always", "OnFailure", "Never"] = "Always"  # noqa: N815 - Kubernetes' own spelling


class PodTemplate(Known):
    """What a pod is made from."""

    metadata: dict[str, Any] = {}
    spec: PodSpec


class Auth(Known):
    """Who may talk to the cluster."""

    mode: Literal["disabled", "token"] = "token"
    secretName: Text | None = None  # noqa: N815
    enableK8sTokenAuth: bool | None = None  # noqa: N815


class Autoscaler(Known):
    """Of the container beside the head that starts and ends pods."""

    version: Literal["v1", "v2"] | None = None
    upscalingMode: Literal["Default", "Aggressive", "Conservative"] | None = None  # noqa: N815
    idleTimeoutSeconds: Count | None = None  # noqa: N815
    image: Text | None = None
    imagePullPolicy: Text | None = None  # noqa: N815
    resources: dict[str, Any] | None = None
    securityContext: dict[str, Any] | None = None  # noqa: N815
    env: list[dict[str, Any]] = []
    envFrom: list[dict[str, Any]] = []  # noqa: N815
    volumeMounts: list[dict[str, Any]] = []  # noqa: N815
    command: list[str] = []
    args: list[str] = []


class Group(Known):
    """What head and workers have in common."""

    template: PodTemplate
    rayStartParams: Strings = {}  # noqa: N815
    resources: Strings = {}
    labels: Strings = {}


class Head(Group):
    """The pod of the head."""

    serviceType: Text | None = None  # noqa: N815
    headService: dict[str, Any] | None = None  # noqa: N815
    enableIngress: bool | None = None  # noqa: N815
    ingressOptions: dict[str, Any] | None = None  # noqa: N815


class Workers(Group):
    """Pods of one kind."""

    groupName: Text  # noqa: N815
    replicas: Count = 0
    minReplicas: Count = 0  # noqa: N815
    maxReplicas: Count = 2**31 - 1  # noqa: N815
    idleTimeoutSeconds: Count | None = None  # noqa: N815
    priority: int = 0
    numOfHosts: PositiveInt = 1  # noqa: N815
    suspend: bool | None = None
    scaleStrategy: dict[str, Any] | None = None  # noqa: N815


class Cluster(Known):
    """`spec` of a RayCluster."""

    rayVersion: Text | None = None  # noqa: N815
    headGroupSpec: Head  # noqa: N815
    workerGroupSpecs: list[Workers] = []  # noqa: N815
    authOptions: Auth | None = None  # noqa: N815
    enableInTreeAutoscaling: bool = False  # noqa: N815
    autoscalerOptions: Autoscaler | None = None  # noqa: N815
    suspend: bool | None = None
    managedBy: Text | None = None  # noqa: N815
    headServiceAnnotations: Strings | None = None  # noqa: N815
    upgradeStrategy: dict[str, Any] | None = None  # noqa: N815
    gcsFaultToleranceOptions: dict[str, Any] | None = None  # noqa: N815
    historyServerOptions: dict[str, Any] | None = None  # noqa: N815
    networkPolicy: dict[str, Any] | None = None  # noqa: N815
    tlsOptions: dict[str, Any] | None = None  # noqa: N815


class Job(Known):
    """`spec` of a RayJob."""

    entrypoint: Text
    rayClusterSpec: Cluster | None = None  # noqa: N815
    clusterSelector: Strings | None = None  # noqa: N815
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"] = "K8sJobMode"  # noqa: N815
    shutdownAfterJobFinishes: bool = False  # noqa: N815
    ttlSecondsAfterFinished: Count = 0  # noqa: N815
    activeDeadlineSeconds: PositiveInt | None = None  # noqa: N815
    backoffLimit: Count = 0  # noqa: N815
    runtimeEnvYAML: Text | None = None  # noqa: N815
    entrypointNumCpus: float = 0  # noqa: N815
    entrypointNumGpus: float = 0  # noqa: N815
    entrypointResources: Text | None = None  # noqa: N815
    jobId: Text | None = None  # noqa: N815
    metadata: Strings | None = None
    submitterConfig: dict[str, Any] | None = None  # noqa: N815
    submitterPodTemplate: dict[str, Any] | None = None  # noqa: N815
    deletionStrategy: dict[str, Any] | None = None  # noqa: N815
    managedBy: Text | None = None  # noqa: N815
    suspend: bool = False


def check_manifest(manifest: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with a RayCluster or RayJob."""
    if manifest.get("apiVersion") != API:
        yield Problem("apiVersion", str(manifest.get("apiVersion")), API)
    metadata = manifest.get("metadata") or {}
    if not isinstance(metadata, dict):
        yield Problem("metadata", str(metadata), "a mapping with a name")
    elif not metadata.get("name"):
        yield Problem("metadata.name", "nothing", "a name")
    schema: type[Cluster | Job] = Cluster if manifest["kind"] == "RayCluster" else Job
    try:
        spec = schema.model_validate(manifest.get("spec"))
    except ValidationError as error:
        for each in error.errors():
            expected = "a key that KubeRay knows" if each["type"] == "extra_forbidden" else each["msg"]
            yield Problem(_key("spec", each["loc"]), str(each["input"]), expected)
        return
    if isinstance(spec, Cluster):
        yield from _check_cluster(spec, "spec")
    else:
        yield from _check_job(spec)


def _check_job(job: Job) -> Iterator[Problem]:
    """The operator's own rules (its validation.go)."""
    if (job.rayClusterSpec is None) == (job.clusterSelector is None):
        found = "neither" if job.clusterSelector is None else "both"
        yield Problem("spec", found, "one of rayClusterSpec and clusterSelector")
    if job.clusterSelector is not None and job.backoffLimit:
        yield Problem("spec.backoffLimit", str(job.backoffLimit), "0 with clusterSelector")
    if job.ttlSecondsAfterFinished and not job.shutdownAfterJobFinishes:
        yield Problem("spec.shutdownAfterJobFinishes", "false", "true with ttlSecondsAfterFinished")
    if job.rayClusterSpec is not None:
        yield from _check_cluster(job.rayClusterSpec, "spec.rayClusterSpec")


def _check_cluster(cluster: Cluster, key: str) -> Iterator[Problem]:
    cpus = cluster.headGroupSpec.rayStartParams.get("num-cpus", "as many as it has")
    if cpus != "0":
        yield Problem(f"{key}.headGroupSpec.rayStartParams.num-cpus", cpus, '"0": the head only coordinates')
    if cluster.authOptions is None or cluster.authOptions.mode != "token":
        mode = "none" if cluster.authOptions is None else cluster.authOptions.mode
        yield Problem(f"{key}.authOptions.mode", mode, "token: else Ray serves whoever reaches its ports")
    yield from _check_environment(cluster.headGroupSpec, f"{key}.headGroupSpec")
    workers = [group for group in cluster.workerGroupSpecs if group.maxReplicas > 0]
    if not workers:
        yield Problem(f"{key}.workerGroupSpecs", "none with maxReplicas above 0", "a group of workers")
    for number, group in enumerate(cluster.workerGroupSpecs):
        where = f"{key}.workerGroupSpecs[{number}]"
        if not group.minReplicas <= group.replicas <= group.maxReplicas:
            yield Problem(f"{where}.replicas", str(group.replicas), f"{group.minReplicas} to {group.maxReplicas}")
        yield from _check_environment(group, where)


def _check_environment(group: Group, key: str) -> Iterator[Problem]:
    """Ray runs in the first container. What comes by `envFrom` is not known here."""
    container = group.template.spec.containers[0]
    names = {str(each.get("name")) for each in container.env}
    where = f"{key}.template.spec.containers[0].env"
    if not names & STORES:
        yield Problem(where, "neither HDAM_STORE nor HDAM_RESULTS", "a store or a volume that all pods see")
    if "MLFLOW_TRACKING_URI" not in names:
        yield Problem(where, "no MLFLOW_TRACKING_URI", "the address of a tracking server that all pods reach")


def _key(start: str, places: tuple[int | str, ...]) -> str:
    return start + "".join(f"[{place}]" if isinstance(place, int) else f".{place}" for place in places)
