"""The Helm chart: linted, rendered for several values, held against the schemas of Kubernetes and against the broker."""

import json
import re
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from rocksmq.broker import config
from tests.deploy.support import DEPLOY, DRAIN_SECONDS, PROJECT, ROOT, documents, program, said

CHART = DEPLOY / "helm" / "rocksmq"
HOW = "go install helm.sh/helm/v3/cmd/helm@v3.22.0"
OLDEST = "1.25.0"  # Kubernetes that the chart is for
NO_SCHEMA = {"ServiceMonitor", "PrometheusRule"}  # resources of the Prometheus operator
FIXED = {"data_dir"}  # by the chart
TABLES = ("retention", "mirror", "limits")

EVERYTHING: dict[str, Any] = {
    "fullnameOverride": "mq",
    "config": {
        "durability": "interval:50",
        "meta": "etcds://etcd.infra:2379/rocksmq",
        "log_level": "debug",
        "retention": {"max_age": 604_800.5, "max_bytes": 10_000_000_000, "consumed_by_all": True},
        "mirror": {
            "to": "pulsar+ssl://pulsar.infra:6651",
            "channels": "orders.*,bills",
            "require_deduplication": True,
            "buffer_bytes": 33_554_432,
        },
        "limits": {"payload_bytes_max": 4_194_304, "drain_seconds": 40.5, "groups_total_max": 2_000_000},
    },
    "imagePullSecrets": [{"name": "registry"}],
    "extraEnv": [{"name": "ROCKSMQ_META_USER", "value": "broker"}],
    "extraVolumes": [{"name": "etcd", "secret": {"secretName": "etcd"}}],
    "extraVolumeMounts": [{"name": "etcd", "mountPath": "/etc/etcd", "readOnly": True}],
    "service": {"type": "LoadBalancer", "port": 17660, "annotations": {"internal": "true"}},
    "persistence": {"size": "100Gi", "storageClassName": "fast", "annotations": {"keep": "true"}},
    "serviceAccount": {"annotations": {"a": "b"}},
    "podAnnotations": {"a": "b"},
    "podLabels": {"team": "queues"},
    "nodeSelector": {"disk": "nvme"},
    "tolerations": [{"key": "queues", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "zone",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"a": "b"}},
        }
    ],
    "priorityClassName": "high",
    "metrics": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": True},
    },
    "podDisruptionBudget": {"maxUnavailable": 0},
}
LITTLE: dict[str, Any] = {
    "persistence": {"enabled": False},
    "resources": None,
    "serviceAccount": {"create": False},
    "networkPolicy": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
}
CLOSED: dict[str, Any] = {
    "persistence": {"existingClaim": "messages", "storageClassName": ""},
    "networkPolicy": {"clients": [], "metrics": [], "egress": [{"to": [{"podSelector": {}}]}]},
}
COMBINATIONS = [{}, EVERYTHING, LITTLE, CLOSED]
NAMES = ["default", "everything", "little", "closed"]


def rendered(values: dict[str, Any], *, code: int = 0) -> str:
    """What Helm makes of the chart; with another code, what it says about it."""
    helm = program("helm", HOW)
    arguments = ("--namespace", "queues", "--kube-version", OLDEST, "--values", "-")
    text = said(helm, "template", "mine", CHART, *arguments, given=json.dumps(values), code=code)
    return "\n".join(line for line in text.splitlines() if "found symbolic link" not in line)


def resources(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By kind; of Services and ConfigMaps there are several: by kind and name."""
    found = documents(rendered(values))
    assert len({(one["kind"], one["metadata"]["name"]) for one in found}) == len(found)
    several = ("Service", "ConfigMap")
    return {f"{one['kind']} {one['metadata']['name']}" if one["kind"] in several else one["kind"]: one for one in found}


def pod(values: dict[str, Any]) -> dict[str, Any]:
    return cast(dict[str, Any], resources(values)["StatefulSet"]["spec"]["template"])


def configuration(values: dict[str, Any], directory: Path) -> config.Config:
    """As the broker of that pod reads it."""
    file = directory / "rocksmqd.toml"
    (text,) = [one["data"]["rocksmqd.toml"] for one in resources(values).values() if "rocksmqd.toml" in one.get("data", {})]
    file.write_text(text)
    return config.load(file, {}, {})


@pytest.mark.parametrize("values", COMBINATIONS, ids=NAMES)
def test_given_the_chart_when_linted_then_nothing_is_found(values: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(values))
    answer = said(program("helm", HOW), "lint", "--strict", CHART, "--values", file, "--kube-version", OLDEST)
    assert "[WARNING]" not in answer
    assert "1 chart(s) linted, 0 chart(s) failed" in answer


@pytest.mark.parametrize("version", [("--kubernetes-version", OLDEST), ()], ids=["oldest", "newest"])
@pytest.mark.parametrize("values", COMBINATIONS, ids=NAMES)
def test_given_values_when_rendered_then_kubernetes_knows_every_field(
    values: dict[str, Any], version: tuple[str, ...], tmp_path: Path
) -> None:
    found = documents(rendered(values))
    file = tmp_path / "rendered.yaml"
    file.write_text(yaml.safe_dump_all([one for one in found if one["kind"] not in NO_SCHEMA]))
    validate = program("kubernetes-validate", "pip install kubernetes-validate")
    said(validate, "--strict", *version, file)


def test_given_the_chart_when_compared_with_the_package_then_the_versions_agree() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == PROJECT["version"]


def test_given_the_schema_of_the_values_when_compared_with_the_broker_then_it_has_every_option_with_its_type() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]["config"]["properties"]
    types = {"string": str, "integer": int, "number": float, "boolean": bool}
    flat = {key: value for key, value in schema.items() if key not in TABLES}
    flat |= {f"{table}.{key}": value for table in TABLES for key, value in schema[table]["properties"].items()}
    defaults = {key: value for key, value in config.Config().values().items() if key not in FIXED}
    assert set(flat) == set(defaults)
    for key, default in defaults.items():
        assert default in flat[key].get("enum", [default])
        assert types[flat[key].get("type", "string")] is type(default), key


def test_given_options_when_rendered_then_the_broker_reads_what_was_said_and_the_rest_is_what_a_pod_needs(
    tmp_path: Path,
) -> None:
    plain, changed = configuration({}, tmp_path), configuration(EVERYTHING, tmp_path)
    pod_needs = {"data_dir": "/var/lib/rocksmq", "listen": "0.0.0.0:7660", "http": "0.0.0.0:7661", "insecure": True}
    assert plain.values() == config.Config().values() | pod_needs | {"log_format": "json"}
    told = EVERYTHING["config"]
    wanted = {key: value for key, value in told.items() if key not in TABLES}
    wanted |= {f"{table}.{key}": value for table in TABLES for key, value in told[table].items()}
    assert changed.values() == plain.values() | wanted


@pytest.mark.parametrize(
    ("values", "fragment"),
    [
        ({"config": {"durabilty": "os"}}, "durabilty"),
        ({"config": {"limits": {"channels_max": "many"}}}, "channels_max"),
        ({"config": {"mirror": {"to": "http://pulsar"}}}, "to"),
        ({"config": {"mirror": {"channel": "orders"}}}, "channel"),
        ({"config": {"data_dir": "/tmp"}}, "data_dir"),
        ({"config": {"listen": "0.0.0.0:1"}}, "listen"),
        ({"replicas": 2}, "replicas"),
        ({"podDisruptionBudget": {"maxUnavailable": 2}}, "maxUnavailable"),
    ],
)
def test_given_values_that_do_not_exist_when_rendered_then_they_are_refused_by_name(
    values: dict[str, Any], fragment: str
) -> None:
    assert fragment in rendered(values, code=1)


def test_given_another_option_when_rendered_then_the_pod_is_another_and_else_the_same() -> None:
    checksum = "checksum/config"
    plain, same, other = (
        pod({"config": made})["metadata"]["annotations"][checksum] for made in ({}, {}, {"log_level": "debug"})
    )
    assert plain == same != other


@pytest.mark.parametrize(("seconds", "grace"), [(None, 60), (40.5, 91), (120, 170)])
def test_given_a_limit_of_draining_when_rendered_then_the_pod_has_longer_to_stop(seconds: float | None, grace: int) -> None:
    values = {} if seconds is None else {"config": {"limits": {"drain_seconds": seconds}}}
    assert pod(values)["spec"]["terminationGracePeriodSeconds"] == grace > 2 * DRAIN_SECONDS


@pytest.mark.parametrize("values", COMBINATIONS, ids=NAMES)
def test_given_values_when_rendered_then_the_pod_has_few_rights_and_one_replica(values: dict[str, Any]) -> None:
    spec = pod(values)["spec"]
    (container,) = spec["containers"]
    assert resources(values)["StatefulSet"]["spec"]["replicas"] == 1
    assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_given_the_probes_when_rendered_then_a_start_may_take_a_quarter_of_an_hour_and_no_dependency_kills_the_broker() -> None:
    container = pod({})["spec"]["containers"][0]
    startup, liveness, readiness = (container[f"{name}Probe"] for name in ("startup", "liveness", "readiness"))
    assert startup["failureThreshold"] * startup["periodSeconds"] == 900
    assert startup["httpGet"] == liveness["httpGet"] == {"path": "/livez", "port": "http"}
    assert readiness["httpGet"] == {"path": "/readyz?exclude=meta&exclude=disk", "port": "http"}
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {"client": 7660, "http": 7661}


@pytest.mark.parametrize(("values", "volumes"), [({}, ["config"]), (LITTLE, ["config", "data"]), (CLOSED, ["config", "data"])])
def test_given_where_messages_are_kept_when_rendered_then_there_is_one_volume_for_them(
    values: dict[str, Any], volumes: list[str]
) -> None:
    found = resources(values)["StatefulSet"]["spec"]
    assert [volume["name"] for volume in found["template"]["spec"]["volumes"]] == volumes
    assert len(found.get("volumeClaimTemplates", [])) == (0 if "data" in volumes else 1)


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["default", "everything"])
def test_given_the_services_when_rendered_then_they_select_the_pod_and_the_statefulset_names_the_headless_one(
    values: dict[str, Any],
) -> None:
    found = resources(values)
    name = found["StatefulSet"]["metadata"]["name"]
    labels = found["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    ours, headless = found[f"Service {name}"], found[f"Service {name}-headless"]
    assert found["StatefulSet"]["spec"]["serviceName"] == headless["metadata"]["name"]
    assert headless["spec"]["clusterIP"] == "None"
    assert ours["spec"]["selector"].items() <= labels.items()
    assert ours["spec"]["selector"] == headless["spec"]["selector"] == found["StatefulSet"]["spec"]["selector"]["matchLabels"]
    assert found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == ours["spec"]["selector"]
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == ours["spec"]["selector"]


def test_given_a_service_monitor_when_rendered_then_it_finds_one_service_with_that_port_and_names_the_job_rocksmq() -> None:
    found = resources(EVERYTHING)
    monitor = found["ServiceMonitor"]
    services = [one for one in found.values() if one["kind"] == "Service"]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    (service,) = [one for one in services if wanted <= one["metadata"]["labels"].items()]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint == {"port": "http", "path": "/metrics", "interval": "15s", "scrapeTimeout": "10s"}
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "rocksmq"
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["queues"]}
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_given_rules_and_dashboard_when_rendered_then_they_are_those_of_metrics() -> None:
    found = resources(EVERYTHING)
    assert found["PrometheusRule"]["spec"] == yaml.safe_load((ROOT / "metrics" / "alerts" / "rocksmq.yaml").read_text())
    dashboard = found["ConfigMap mq-dashboard"]["data"]["rocksmq.json"]
    assert json.loads(dashboard) == json.loads((ROOT / "metrics" / "dashboards" / "rocksmq.json").read_text())


def test_given_network_policies_when_rendered_then_they_let_in_and_out_what_was_said_and_nothing_else() -> None:
    alone: dict[str, Any] = {"config": {"meta": "etcd://etcd.infra/rocksmq"}}
    plain, both, closed, etcd = (resources(values)["NetworkPolicy"]["spec"] for values in ({}, EVERYTHING, CLOSED, alone))
    assert [[port["port"] for port in rule["ports"]] for rule in plain["ingress"]] == [["client"], ["http"]]
    assert all(rule["from"] for rule in plain["ingress"])
    assert plain["egress"] == []
    assert {port["port"] for rule in etcd["egress"] for port in rule["ports"]} == {53, 2379}
    assert {port["port"] for rule in both["egress"] for port in rule["ports"]} == {53, 2379, 6650, 6651}
    assert (closed["ingress"], closed["egress"]) == ([], CLOSED["networkPolicy"]["egress"])
    assert {tuple(spec["policyTypes"]) for spec in (plain, etcd, closed)} == {("Ingress", "Egress")}


def test_given_a_long_name_of_a_release_when_rendered_then_every_name_fits_into_a_label() -> None:
    long = resources({"fullnameOverride": "x" * 80, "metrics": EVERYTHING["metrics"]})
    assert max(len(one["metadata"]["name"]) for one in long.values()) <= 63
    assert re.fullmatch(r"x{52}", long["StatefulSet"]["metadata"]["name"])
