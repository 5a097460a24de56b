"""The Kubernetes manifests: valid for the API, locked down, and at one with the config beside them.

Each rule holds for the files as written and, where kubectl is present, for what kustomize makes of them.
"""

import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from kubernetes_validate import utils as kubernetes

Json = dict[str, Any]

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
OVERLAYS = ("gateway", "sidecar")
VERSIONS = ("1.30.0", kubernetes.latest_version())
"""The oldest Kubernetes that the manifests are for, and the newest that has schemas here."""

needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not here: kustomize cannot render the manifests"
)


def sources(*overlays: str) -> pytest.MarkDecorator:
    """Run a test for the files as written and as rendered."""
    return pytest.mark.parametrize(
        "source",
        [
            pytest.param((how, overlay), id=f"{how}-{overlay}", marks=marks)
            for how, marks in (("written", []), ("rendered", [needs_kubectl]))
            for overlay in overlays
        ],
    )


def objects(source: tuple[str, str]) -> list[Json]:
    how, overlay = source
    return rendered(overlay) if how == "rendered" else written(overlay)


def written(overlay: str) -> list[Json]:
    folder = KUBERNETES / overlay
    names = kustomization(overlay)["resources"]
    return [item for name in names for item in yaml.safe_load_all((folder / name).read_text())]


def rendered(overlay: str) -> list[Json]:
    command = ["kubectl", "kustomize", str(KUBERNETES / overlay)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return list(yaml.safe_load_all(result.stdout))


def kustomization(overlay: str) -> Json:
    loaded: Json = yaml.safe_load((KUBERNETES / overlay / "kustomization.yaml").read_text())
    return loaded


def config(overlay: str) -> Json:
    return tomllib.loads((KUBERNETES / overlay / "config.toml").read_text())


def port(address: str) -> int:
    return int(address.rpartition(":")[2])


def of_kind(items: list[Json], kind: str) -> Json:
    (found,) = [item for item in items if item["kind"] == kind]
    return found


def service(items: list[Json], name: str) -> Json:
    """What a Service says."""
    (spec,) = [
        item["spec"] for item in items if (item["kind"], item["metadata"]["name"]) == ("Service", name)
    ]
    found: Json = spec
    return found


def pod(items: list[Json]) -> Json:
    spec: Json = of_kind(items, "Deployment")["spec"]["template"]["spec"]
    return spec


def containers(spec: Json) -> list[Json]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def gateway(spec: Json) -> Json:
    (found,) = [container for container in containers(spec) if container["name"] == "gateway"]
    return found


def container_port(container: Json, name: str | int) -> int:
    (found,) = [int(item["containerPort"]) for item in container["ports"] if item["name"] == name]
    return found


@pytest.mark.parametrize("version", VERSIONS)
@sources(*OVERLAYS)
def test_every_object_fits_the_schema_of_the_oldest_and_the_newest_kubernetes(
    source: tuple[str, str], version: str
) -> None:
    items = objects(source)
    assert items
    for item in items:
        kubernetes.validate(item, version, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_of_a_folder_is_part_of_its_kustomization(overlay: str) -> None:
    beside = {file.name for file in (KUBERNETES / overlay).glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization(overlay)["resources"]) == beside


@sources(*OVERLAYS)
def test_pods_run_as_a_numeric_user_that_is_not_root(source: tuple[str, str]) -> None:
    context = pod(objects(source))["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["runAsGroup"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}


@sources(*OVERLAYS)
def test_pods_get_no_token_and_no_variables_of_services(source: tuple[str, str]) -> None:
    spec = pod(objects(source))
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()


@sources(*OVERLAYS)
def test_containers_have_no_capability_and_a_read_only_root(source: tuple[str, str]) -> None:
    for container in containers(pod(objects(source))):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, container["name"]


@sources(*OVERLAYS)
def test_containers_ask_for_what_they_need_and_are_bounded(source: tuple[str, str]) -> None:
    for container in containers(pod(objects(source))):
        resources = container["resources"]
        assert {"cpu", "memory"} <= resources["requests"].keys(), container["name"]
        assert {"cpu", "memory"} <= resources["limits"].keys(), container["name"]


@sources(*OVERLAYS)
def test_volumes_are_nothing_of_the_node(source: tuple[str, str]) -> None:
    kinds = {kind for volume in pod(objects(source))["volumes"] for kind in volume.keys() - {"name"}}
    assert kinds <= {"configMap", "projected", "emptyDir", "persistentVolumeClaim"}


@sources(*OVERLAYS)
def test_the_kubelet_waits_longer_than_the_gateway_drains(source: tuple[str, str]) -> None:
    spec = pod(objects(source))
    before_stop = gateway(spec).get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    server = config(source[1])["server"]
    last = before_stop + server.get("drain_delay", 0) + server["drain"]
    assert spec["terminationGracePeriodSeconds"] > last


@sources("gateway")
def test_only_one_of_the_kubelet_and_the_gateway_waits_for_the_endpoints(source: tuple[str, str]) -> None:
    waits = gateway(pod(objects(source))).get("lifecycle", {}).get("preStop", {}).get("sleep", {})
    assert bool(waits) is not bool(config(source[1])["server"].get("drain_delay", 0))


@sources(*OVERLAYS)
def test_the_config_is_where_the_gateway_looks_for_it(source: tuple[str, str]) -> None:
    container = gateway(pod(objects(source)))
    assert container["args"] == ["serve", "--config", "/etc/gateway/config.toml"]
    mounts = [mount for mount in container["volumeMounts"] if mount["mountPath"] == "/etc/gateway"]
    assert [(mount["readOnly"], mount.get("subPath")) for mount in mounts] == [(True, None)]


@sources(*OVERLAYS)
def test_no_key_lies_in_the_manifests(source: tuple[str, str]) -> None:
    assert "Secret" not in {item["kind"] for item in objects(source)}
    assert not kustomization(source[1]).get("secretGenerator")
    assert all(key.keys() == {"name", "key_file"} for key in config(source[1]).get("keys", []))


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_changed_config_makes_new_pods(overlay: str) -> None:
    items = rendered(overlay)
    made = of_kind(items, "ConfigMap")
    (generator,) = kustomization(overlay)["configMapGenerator"]
    assert made["metadata"]["name"].startswith(f"{generator['name']}-")
    assert made["data"] == {"config.toml": (KUBERNETES / overlay / "config.toml").read_text()}
    assert made["metadata"]["name"] in str(pod(items)["volumes"])


class TestGateway:
    """deploy/kubernetes/gateway: a Deployment behind a Service."""

    @sources("gateway")
    def test_probes_ask_the_admin_plane_on_its_own_port(self, source: tuple[str, str]) -> None:
        container = gateway(pod(objects(source)))
        asked = {
            name: (
                container[name]["httpGet"]["path"],
                container_port(container, container[name]["httpGet"]["port"]),
            )
            for name in ("startupProbe", "livenessProbe", "readinessProbe")
        }
        admin = port(config("gateway")["admin"]["listen"])
        assert asked == {
            "startupProbe": ("/livez", admin),
            "livenessProbe": ("/livez", admin),
            "readinessProbe": ("/readyz", admin),
        }

    @sources("gateway")
    def test_the_service_leads_to_the_data_plane_alone(self, source: tuple[str, str]) -> None:
        items = objects(source)
        (entry,) = service(items, "chatglm-gateway")["ports"]
        assert container_port(gateway(pod(items)), entry["targetPort"]) == port(
            config("gateway")["server"]["listen"]
        )

    @sources("gateway")
    def test_one_replica_owns_the_slots_and_may_be_disrupted(self, source: tuple[str, str]) -> None:
        items = objects(source)
        assert of_kind(items, "Deployment")["spec"]["replicas"] == 1
        assert of_kind(items, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1

    @sources("gateway")
    def test_every_selector_finds_the_pods(self, source: tuple[str, str]) -> None:
        items = objects(source)
        deployment = of_kind(items, "Deployment")["spec"]
        labels = deployment["template"]["metadata"]["labels"].items()
        selectors = [
            deployment["selector"]["matchLabels"],
            service(items, "chatglm-gateway")["selector"],
            of_kind(items, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
            of_kind(items, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        ]
        assert all(selector.items() <= labels for selector in selectors)

    @sources("gateway")
    def test_the_network_policy_lets_only_monitoring_reach_the_admin_plane(
        self, source: tuple[str, str]
    ) -> None:
        spec = of_kind(objects(source), "NetworkPolicy")["spec"]
        assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
        peers = {entry["port"]: rule["from"] for rule in spec["ingress"] for entry in rule["ports"]}
        assert peers.keys() == {"http", "admin"}
        assert peers["admin"] == [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
        ]

    @sources("gateway")
    def test_the_network_policy_lets_the_gateway_reach_every_backend(self, source: tuple[str, str]) -> None:
        egress = of_kind(objects(source), "NetworkPolicy")["spec"]["egress"]
        allowed = {entry["port"] for rule in egress for entry in rule["ports"]}
        assert {port(backend["url"]) for backend in config("gateway")["backends"]} | {53} == allowed

    @sources("gateway")
    def test_the_backends_are_the_pods_of_a_headless_service_that_may_be_reached(
        self, source: tuple[str, str]
    ) -> None:
        items = objects(source)
        (backend,) = config("gateway")["backends"]
        url = urlsplit(backend["url"])
        spec = service(items, str(url.hostname))
        assert backend["discover"] == "dns"
        assert (spec["clusterIP"], spec["ipFamilyPolicy"]) == ("None", "SingleStack")
        assert [entry["port"] for entry in spec["ports"]] == [url.port]
        egress = of_kind(items, "NetworkPolicy")["spec"]["egress"]
        (peer,) = [rule["to"] for rule in egress if rule["ports"] == [{"port": url.port}]]
        assert peer == [{"podSelector": {"matchLabels": spec["selector"]}}]

    @sources("gateway")
    def test_every_key_file_of_the_config_comes_from_the_secret(self, source: tuple[str, str]) -> None:
        (volume,) = [item for item in pod(objects(source))["volumes"] if "projected" in item]
        secrets = [entry["secret"] for entry in volume["projected"]["sources"] if "secret" in entry]
        paths = {item["path"] for secret in secrets for item in secret["items"]}
        assert {key["key_file"] for key in config("gateway")["keys"]} == paths
        assert volume["projected"]["defaultMode"] == 0o440


class TestSidecar:
    """deploy/kubernetes/sidecar: the gateway in the pod of its app."""

    @sources("sidecar")
    def test_the_gateway_is_a_native_sidecar(self, source: tuple[str, str]) -> None:
        (sidecar,) = pod(objects(source))["initContainers"]
        assert (sidecar["name"], sidecar["restartPolicy"]) == ("gateway", "Always")

    @sources("sidecar")
    def test_probes_run_inside_the_container_because_the_planes_are_on_loopback(
        self, source: tuple[str, str]
    ) -> None:
        sidecar = gateway(pod(objects(source)))
        admin = f"http://{config('sidecar')['admin']['listen']}"
        assert "readinessProbe" not in sidecar
        for probe in ("startupProbe", "livenessProbe"):
            assert sidecar[probe]["exec"]["command"] == ["gateway", "healthcheck", "--url", admin]

    def test_both_planes_listen_on_loopback_and_need_no_key(self) -> None:
        settings = config("sidecar")
        assert settings["server"]["listen"].startswith("127.0.0.1:")
        assert settings["admin"]["listen"].startswith("127.0.0.1:")
        assert "keys" not in settings

    @sources("sidecar")
    def test_the_app_is_told_where_the_gateway_listens(self, source: tuple[str, str]) -> None:
        (app,) = [item for item in containers(pod(objects(source))) if item["name"] == "app"]
        variables = {entry["name"]: entry["value"] for entry in app["env"]}
        assert variables["OPENAI_BASE_URL"] == f"http://{config('sidecar')['server']['listen']}/v1"

    @sources("sidecar")
    def test_no_two_containers_of_the_pod_take_one_port(self, source: tuple[str, str]) -> None:
        settings = config("sidecar")
        own = [port(settings["server"]["listen"]), port(settings["admin"]["listen"])]
        others = [
            entry["containerPort"]
            for container in containers(pod(objects(source)))
            for entry in container.get("ports", [])
        ]
        assert len({*own, *others}) == len([*own, *others])
        assert [port(backend["url"]) for backend in settings["backends"]] == others

    @sources("sidecar")
    def test_nobody_outside_the_pod_reaches_the_model_server(self, source: tuple[str, str]) -> None:
        spec = of_kind(objects(source), "NetworkPolicy")["spec"]
        assert (spec["policyTypes"], spec.get("ingress") or []) == (["Ingress"], [])
