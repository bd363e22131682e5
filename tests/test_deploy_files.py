"""The deployment files: by Ray's own schema where it has one, against the real commands, and against each other."""

from __future__ import annotations

import configparser
import importlib
import importlib.metadata
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from nemodiff_cli.main import app

DEPLOY = Path(__file__).parents[1] / "deploy"
UNITS = sorted((DEPLOY / "vm").glob("*.service"))
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `cluster` is not installed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
]


def documents() -> list[dict[str, Any]]:
    return [found for path in sorted((DEPLOY / "kuberay").glob("*.yaml")) for found in yaml.safe_load_all(path.read_text("utf-8"))]


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [document for document in documents() if document["kind"] == kind]


def templates() -> Iterator[dict[str, Any]]:
    """Every pod template."""
    (service,) = of_kind("RayService")
    cluster = service["spec"]["rayClusterConfig"]
    yield cluster["headGroupSpec"]["template"]
    yield from (group["template"] for group in cluster["workerGroupSpecs"])
    yield from (deployment["spec"]["template"] for deployment in of_kind("Deployment"))


def check_command(words: list[str]) -> None:
    """The command exists and takes these options."""
    program, verb = Path(words[0]).name, words[1]
    if program == "nemodiff":
        command = typer.main.get_command(app).commands[verb]
    else:
        assert program == "ray"
        from ray.scripts.scripts import cli

        command = cli.commands[verb]
    command.make_context(verb, words[2:])  # raises for what it does not know


# -- Ray Serve ----------------------------------------------------------------------------------------


def test_the_serve_config_is_one_and_its_application_can_be_built() -> None:
    from ray.serve.schema import ServeDeploySchema

    from nemodiff_core.serving.cluster import NAME, parse_arguments

    (service,) = of_kind("RayService")
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    (application,) = config.applications
    assert application.name == NAME and application.route_prefix is None, "the app is the only way in"
    module, _, name = application.import_path.partition(":")
    built = getattr(importlib.import_module(module), name)(application.args)
    options = built._bound_deployment.ray_actor_options
    arguments = parse_arguments(application.args)
    assert options["num_gpus"] == arguments.gpus == 1 and built._bound_deployment.name == "Replica"
    group = service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    container = group["template"]["spec"]["containers"][0]
    assert group["maxReplicas"] >= arguments.most and container["resources"]["limits"]["nvidia.com/gpu"] == arguments.gpus
    assert float(container["resources"]["limits"]["cpu"]) >= arguments.cpus, "Ray counts a node's processors by its limit"
    assert group["template"]["spec"]["terminationGracePeriodSeconds"] > arguments.limits.max_seconds + 10
    assert service["spec"]["rayClusterConfig"]["rayVersion"] == importlib.metadata.version("ray")


@pytest.mark.parametrize("wrong, said", [
    ({"replica": 2}, "replica"), ({"replicas": 0}, "replicas"), ({"replicas": 3, "max_replicas": 2}, "fewer than the 3"), ({"gpus": 2}, "gpus"),
    ({"limits": {"max_seconds": -1}}, "limits.max_seconds"),
])  # fmt: skip
def test_wrong_arguments_are_refused_by_name(wrong: dict[str, Any], said: str) -> None:
    from nemodiff_core.errors import ConfigError
    from nemodiff_core.serving.cluster import application

    with pytest.raises(ConfigError, match=said):
        application(wrong)


@pytest.mark.parametrize("given, count", [(None, (0, 0)), ("0", (0, 0)), ("2", (2, 2)), ("1-8", (1, 8))])
def test_how_many_replicas(given: str | None, count: tuple[int, int]) -> None:
    from nemodiff_core.serving.cluster import count_of

    assert count_of(given) == count


@pytest.mark.parametrize("given", ["", "two", "-1", "8-1", "0-3", "1-2-3", "99999"])
def test_what_is_no_number_of_replicas(given: str) -> None:
    from nemodiff_core.errors import ConfigError
    from nemodiff_core.serving.cluster import count_of

    with pytest.raises(ConfigError, match="no number of replicas"):
        count_of(given)


# -- Kubernetes ---------------------------------------------------------------------------------------


def test_every_document_is_complete() -> None:
    versions = {"RayService": "ray.io/v1", "Deployment": "apps/v1", "Service": "v1", "PersistentVolumeClaim": "v1",
                "Ingress": "networking.k8s.io/v1", "NetworkPolicy": "networking.k8s.io/v1"}  # fmt: skip
    for document in documents():
        assert document["apiVersion"] == versions[document["kind"]]
        assert re.fullmatch(r"[a-z0-9-]+", document["metadata"]["name"]) and document["spec"]


def test_no_pod_runs_as_root_or_without_bounds() -> None:
    for template in templates():
        pod = template["spec"]
        account = pod["securityContext"]
        assert account["runAsNonRoot"] is True and account["runAsUser"] > 0 and account["seccompProfile"] == {"type": "RuntimeDefault"}
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert container["image"] == "nemodiff:latest", "the image of the Containerfile, from nowhere else"
            assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
            for bound in ("requests", "limits"):
                assert {"cpu", "memory"} <= set(container["resources"][bound])
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
            environment = {entry["name"]: entry.get("value") for entry in container["env"]}
            assert environment["RAY_USAGE_STATS_ENABLED"] == "0"


def test_names_agree() -> None:
    labels = [template["metadata"]["labels"] for template in templates()]
    (service,), (deployment,), (ingress,) = of_kind("Service"), of_kind("Deployment"), of_kind("Ingress")
    selects = [set(service["spec"]["selector"].items()) <= set(found.items()) for found in labels]
    assert selects == [False, False, True], "the page is the app's alone"
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels[-1].items()
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert service["spec"]["ports"][0]["targetPort"] in ports and f"--port {ports['http']}" in container["command"][-1]
    backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": service["metadata"]["name"], "port": {"name": service["spec"]["ports"][0]["name"]}}
    claims = {claim["metadata"]["name"] for claim in of_kind("PersistentVolumeClaim")}
    used = {volume["persistentVolumeClaim"]["claimName"] for template in templates() for volume in template["spec"]["volumes"] if "persistentVolumeClaim" in volume}
    assert used == claims
    (ray,) = of_kind("RayService")
    assert f"--address={ray['metadata']['name']}-head-svc:6379" in container["command"][-1], "as KubeRay calls the head's service"
    secret = next(entry["valueFrom"]["secretKeyRef"] for entry in container["env"] if entry["name"] == "RAY_AUTH_TOKEN")
    assert secret["name"] == ray["spec"]["rayClusterConfig"]["authOptions"]["secretName"]
    assert {"name": "RAY_AUTH_MODE", "value": "token"} in container["env"]


def test_only_the_nodes_speak_to_ray() -> None:
    everybody, page = (policy["spec"] for policy in sorted(of_kind("NetworkPolicy"), key=lambda policy: policy["metadata"]["name"] == "nemodiff-app"))
    assert all(everybody["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items() for template in templates())
    assert all("from" in rule for rule in everybody["ingress"])
    (open_to_all,) = page["ingress"]
    assert open_to_all == {"ports": [{"protocol": "TCP", "port": 7860}]}


def test_the_app_answers_its_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    from ui.ops.health import ALIVE, READY

    (deployment,) = of_kind("Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["startupProbe"]["httpGet"]["path"] == container["livenessProbe"]["httpGet"]["path"] == ALIVE
    assert container["readinessProbe"]["httpGet"]["path"] == READY
    monkeypatch.setattr("os.environ", {})
    shell, flag, script = container["command"]
    assert (shell, flag) == ("sh", "-c")
    start, serve = script.split("&&")
    check_command(shlex.split(start))
    words = shlex.split(serve)
    assert words[0] == "exec", "the app hears the pod's signals"
    check_command(words[1:])


# -- plain machines -----------------------------------------------------------------------------------


def unit(path: Path) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None, strict=True)
    parsed.optionxform = str
    parsed.read_string(path.read_text("utf-8"))
    return parsed


def variables() -> dict[str, str]:
    lines = (DEPLOY / "vm" / "nemodiff.env").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_what_exists_as_an_ordinary_user(path: Path) -> None:
    parsed = unit(path)
    assert parsed.sections() == ["Unit", "Service", "Install"]
    service = parsed["Service"]
    assert service["User"] == "nemodiff" and service["NoNewPrivileges"] == "true" and service["ProtectSystem"] == "strict"
    used = re.findall(r"\$\{(\w+)\}", service["ExecStart"])
    values = variables()
    assert set(used) <= set(values)
    command = re.sub(r"\$\{(\w+)\}", lambda name: values[name[1]], service["ExecStart"])
    check_command(shlex.split(command))


def test_the_units_belong_together() -> None:
    assert [path.name for path in UNITS] == ["nemodiff-head.service", "nemodiff-worker.service", "nemodiff.service"]
    assert unit(UNITS[2])["Unit"]["BindsTo"] == UNITS[0].name
    values = variables()
    assert values["RAY_AUTH_MODE"] == "token" and values["RAY_AUTH_TOKEN"] == "", "a token is made for each cluster"
    assert values["RAY_USAGE_STATS_ENABLED"] == "0"
    assert "--host=127.0.0.1" in unit(UNITS[2])["Service"]["ExecStart"]


def test_the_readme_names_every_file() -> None:
    text = (DEPLOY / "README.md").read_text("utf-8")
    for path in (*UNITS, DEPLOY / "vm" / "nemodiff.env", *(DEPLOY / "kuberay").glob("*.yaml")):
        assert path.name in text
