"""deploy/kubernetes: the manifests fit the published schemas, and give a pod no more than it needs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from worker.settings import load_settings, unknown_names

KUBERNETES = Path(__file__).parents[2] / "deploy/kubernetes"
_PUBLIC = {"/u", "/p", "/in", "/v3", "/v1", "/look", "/static"}
_OLDEST, _NEWEST = "1.30", "1.37"


def _documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        if path.name != "kustomization.yaml":
            for document in yaml.safe_load_all(path.read_text()):
                yield f"{path.relative_to(KUBERNETES)}:{document['kind']}/{document['metadata']['name']}", document


DOCUMENTS = dict(_documents())


def _of_kind(kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in DOCUMENTS.values() if each["kind"] == kind}


@pytest.mark.parametrize("version", [_OLDEST, _NEWEST])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_manifest_fits_the_published_schema(name: str, version: str) -> None:
    kubernetes_validate.validate(DOCUMENTS[name], version, strict=True)


def test_the_schema_refuses_a_misspelt_field() -> None:
    wrong = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "x"}, "automount": False}

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, _NEWEST, strict=True)


def test_kustomize_names_every_manifest_and_nothing_else() -> None:
    for path in KUBERNETES.rglob("kustomization.yaml"):
        named = yaml.safe_load(path.read_text())["resources"]
        beside = {each.name for each in path.parent.glob("*.yaml")} - {path.name}

        assert {each for each in named if each.endswith(".yaml")} == beside
        assert all((path.parent / each).exists() for each in named)


def test_the_overlay_changes_what_there_is() -> None:
    overlay = yaml.safe_load((KUBERNETES / "overlays/example/kustomization.yaml").read_text())
    deployments = _of_kind("Deployment")
    images = {each["spec"]["template"]["spec"]["containers"][0]["image"] for each in deployments.values()}

    assert {each["name"] for each in overlay["images"]} == images
    assert {each["name"] for each in overlay["replicas"]} <= deployments.keys()
    assert not any("." in each["newName"] or "/" in each["newName"] for each in overlay["images"])  # no registry
    for generator in overlay["configMapGenerator"]:
        given = dict(line.split("=", 1) for line in generator["literals"])
        assert unknown_names(given) == []
        assert load_settings(given).template() is not None


@pytest.mark.parametrize("name", sorted(_of_kind("Deployment")))
def test_a_pod_has_no_rights(name: str) -> None:
    pod = _of_kind("Deployment")[name]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environ = {each["name"]: each["value"] for each in container["env"]}
    keys = {
        item["key"]
        for volume in pod["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
        for item in source["secret"]["items"]
    }

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert "readinessProbe" in container
    assert unknown_names(environ) == []
    assert {Path(value).name for key, value in environ.items() if key.endswith("_FILE")} == keys


def test_every_deployment_may_be_drained_and_is_behind_a_wall() -> None:
    deployments = _of_kind("Deployment")
    labels = {each["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] for each in deployments.values()}
    budgets = _of_kind("PodDisruptionBudget")
    wall = _of_kind("NetworkPolicy")["unsubd"]["spec"]
    (chosen,) = wall["podSelector"]["matchExpressions"]

    assert budgets.keys() == deployments.keys()
    assert {each["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"] for each in budgets.values()} == labels
    assert set(chosen["values"]) == labels
    assert wall["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in wall


def test_no_deployment_stands_on_one_pod_and_none_has_a_gap_while_it_is_replaced() -> None:
    for name, each in _of_kind("Deployment").items():
        assert each["spec"]["replicas"] >= 2, name
        assert each["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0, name


def test_the_ingress_publishes_what_is_public_and_nothing_else() -> None:
    (rule,) = _of_kind("Ingress")["unsubd"]["spec"]["rules"]
    backends = {each["backend"]["service"]["name"] for each in rule["http"]["paths"]}

    assert {each["path"] for each in rule["http"]["paths"]} == _PUBLIC
    assert backends == {"unsubd-web"}
    assert _of_kind("Service")["unsubd-web"]["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
