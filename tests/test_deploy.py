"""Container and manifests, as far as they can be checked where no engine runs: they fit what our code takes."""

import json
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from agentload import spec as specs
from agentload.cli import app
from agentload.fleet.token import TOKEN_ENV

HOUSE = Path(__file__).parent.parent
KUBERNETES = HOUSE / "deploy" / "kubernetes"
PROJECT = tomllib.loads((HOUSE / "pyproject.toml").read_text())
VERSION = PROJECT["project"]["version"]

# Kubernetes.


def read(name: str) -> dict[str, Any]:
    """The one document of a manifest."""
    document: dict[str, Any] = yaml.safe_load((KUBERNETES / f"{name}.yaml").read_text())
    return document


def pod(name: str) -> dict[str, Any]:
    found: dict[str, Any] = read(name)["spec"]["template"]
    return found


def parsed(args: list[str]) -> dict[str, Any]:
    """The arguments as our command line reads them; it ends the test where it would refuse them."""
    command = get_command(app).commands[args[0]]  # type: ignore[attr-defined]  # the app is a group
    found: dict[str, Any] = command.make_context(args[0], list(args[1:])).params
    return found


def arguments(name: str) -> dict[str, Any]:
    (container,) = pod(name)["spec"]["containers"]
    return parsed(container["args"])


def test_every_manifest_is_applied_and_says_what_it_is() -> None:
    listed = read("kustomization")["resources"]

    assert sorted(listed) == sorted(
        path.name for path in KUBERNETES.glob("*.yaml") if path.name != "kustomization.yaml"
    )
    kinds = {read(Path(name).stem)["kind"] for name in listed}
    assert kinds == {"ConfigMap", "PersistentVolumeClaim", "Service", "NetworkPolicy", "Deployment", "Job"}
    for name in listed:
        document = read(Path(name).stem)
        assert document["metadata"]["labels"]["app.kubernetes.io/name"] == "agentload"
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", document["metadata"]["name"])


def test_the_spec_is_one_and_the_master_reads_it_from_where_it_is_mounted() -> None:
    data = read("spec")["data"]
    master = pod("master")["spec"]
    mount = next(m for m in master["containers"][0]["volumeMounts"] if m["name"] == "spec")
    volume = next(v for v in master["volumes"] if v["name"] == "spec")

    specs.decode(tomllib.loads(data["spec.toml"]))
    assert volume["configMap"]["name"] == read("spec")["metadata"]["name"]
    path = arguments("master")["spec"]
    assert (str(path.parent), path.name) == (mount["mountPath"], "spec.toml")


def test_master_and_workers_find_each_other() -> None:
    master, worker, service = arguments("master"), arguments("workers"), read("service")
    port = service["spec"]["ports"][0]
    container = pod("master")["spec"]["containers"][0]["ports"][0]

    assert master["master"] is True
    assert master["expect_workers"] == read("workers")["spec"]["replicas"]
    assert master["master_bind_host"] == "0.0.0.0"
    assert master["master_bind_port"] == worker["master_port"] == port["port"] == container["containerPort"]
    assert worker["master_host"] == service["metadata"]["name"]
    assert port["targetPort"] == container["name"]


@pytest.mark.parametrize(("name", "labels"), [("service", "master"), ("policy", "master"), ("workers", "worker")])
def test_what_selects_pods_selects_ours(name: str, labels: str) -> None:
    document = read(name)["spec"]
    selector = {
        "service": document.get("selector"),
        "policy": document.get("podSelector", {}).get("matchLabels"),
        "workers": (document.get("selector") or {}).get("matchLabels"),
    }[name]
    theirs = pod("master" if labels == "master" else "workers")["metadata"]["labels"]

    assert selector
    assert selector.items() <= theirs.items()


def test_the_policy_lets_workers_in_and_nobody_else() -> None:
    (rule,) = read("policy")["spec"]["ingress"]
    (source,) = rule["from"]

    assert source["podSelector"]["matchLabels"].items() <= pod("workers")["metadata"]["labels"].items()
    assert rule["ports"][0]["port"] == pod("master")["spec"]["containers"][0]["ports"][0]["name"]


@pytest.mark.parametrize("name", ["master", "workers"])
def test_pods_are_nobody_and_can_write_only_where_they_must(name: str) -> None:
    spec = pod(name)["spec"]
    (container,) = spec["containers"]
    security, own = spec["securityContext"], container["securityContext"]

    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == security["runAsGroup"] == 10001
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["allowPrivilegeEscalation"] is False
    assert own["readOnlyRootFilesystem"] is True
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert spec["automountServiceAccountToken"] is False
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert "memory" in container["resources"]["limits"]
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in spec["volumes"]}
    assert str(arguments(name)["out"]) in {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}


@pytest.mark.parametrize("name", ["master", "workers"])
def test_images_are_of_this_version_and_secrets_are_no_text(name: str) -> None:
    (container,) = pod(name)["spec"]["containers"]

    assert container["image"] == f"agentload:{VERSION}"
    assert all("value" not in variable for variable in container["env"])
    token = next(v["valueFrom"]["secretKeyRef"] for v in container["env"] if v["name"] == TOKEN_ENV)
    assert not token.get("optional")


# The image.


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, lines that go on joined and comments left out."""
    text = re.sub(r"\\\n", " ", (HOUSE / "Dockerfile").read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for word, rest in instructions():
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest))
    return found


def test_the_image_is_built_in_a_stage_that_is_thrown_away() -> None:
    build, image = stages()

    assert build[0] == ("FROM", "python:3.12-slim AS build")
    assert image[0] == ("FROM", "python:3.12-slim")
    assert [rest for word, rest in image if word == "COPY"] == ["--from=build /opt/agentload /opt/agentload"]
    assert any(word == "RUN" and "--require-hashes" in rest for word, rest in build)
    assert not re.search(r"apt|gcc|https?://|index-url", (HOUSE / "Dockerfile").read_text())
    assert any(word == "RUN" and "pip uninstall --yes" in rest for word, rest in image)


def test_the_image_runs_our_command_as_nobody() -> None:
    image = dict(stages()[1])

    assert image["USER"] == "10001:10001"
    assert json.loads(image["ENTRYPOINT"]) == ["agentload"]
    assert "agentload" in PROJECT["project"]["scripts"]
    assert parsed(["run", *json.loads(image["CMD"])[1:]])
    assert str(pod("master")["spec"]["securityContext"]["runAsUser"]) in image["USER"]


def test_what_is_copied_is_there_and_in_the_context() -> None:
    rules = [line for line in (HOUSE / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    sources = [name for word, rest in stages()[0] if word == "COPY" for name in rest.split()[:-1]]

    def sent(name: str) -> bool:
        verdicts = [not rule.startswith("!") for rule in rules if fnmatch(name, rule.lstrip("!"))]
        return not verdicts[-1]

    assert set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= set(sources)
    for name in sources:
        assert (HOUSE / name).exists(), name
        assert sent(name), name
    assert not sent("tests")
    assert not sent(".git")


def test_the_locked_libraries_are_all_that_the_wheel_needs() -> None:
    locked = set(re.findall(r"^([a-z0-9._-]+)==", (HOUSE / "requirements.lock").read_text(), re.MULTILINE))
    project = PROJECT["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["otel"], *PROJECT["build-system"]["requires"]]

    assert {re.split(r"[<>=\[ ]", each)[0].lower() for each in needed} <= locked
