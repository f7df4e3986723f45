"""The overlays of plain Kubernetes, and SpinKube."""

import re
import shutil
import tempfile
from pathlib import Path

import kubernetes_validate
import yaml

from checks.common import (
    DEPLOY,
    check_variables,
    expect,
    problems,
    program,
    run,
    spin_variables,
)

# The oldest one with the `sleep` of preStop, and the newest one that the package knows.
KUBERNETES = ["1.30", "1.37"]
# Fields of core.spinkube.dev/v1alpha1, of which no package has the schema.
SPIN_APP = {
    "executor",
    "image",
    "imagePullSecrets",
    "checks",
    "replicas",
    "enableAutoscaling",
    "runtimeConfig",
    "volumes",
    "volumeMounts",
    "variables",
    "serviceAnnotations",
    "deploymentAnnotations",
    "podAnnotations",
    "podLabels",
    "resources",
    "components",
    "serviceAccountName",
    "invocationLimits",
}


def built(folder: str) -> list[dict]:
    """What `kubectl apply --kustomize` would send, with the example files in place of secrets."""
    with tempfile.TemporaryDirectory() as copy:
        deploy = Path(copy) / "deploy"
        shutil.copytree(DEPLOY, deploy)
        for example in deploy.rglob("*.example.env"):
            shutil.copy(example, example.with_name(example.name.replace(".example", "")))
        text = run(folder, program("kubectl"), "kustomize", deploy / folder)
    return [document for document in yaml.safe_load_all(text) if document]


def check_pods(where: str, objects: list[dict]) -> None:
    """References, selectors and what a cluster's policies ask for."""
    by_name = {(o["kind"], o["metadata"]["name"]): o for o in objects}
    pods = [o for o in objects if o["kind"] in ("Deployment", "Job")]
    labels = [o["spec"]["template"]["metadata"]["labels"] for o in pods]
    labels += [o["spec"]["podLabels"] for o in objects if o["kind"] == "SpinApp"]

    def keys(kind: str, name: str) -> set[str]:
        found = by_name.get((kind, name))
        expect(found, f"{where}: there is no {kind} {name}")
        return set((found or {}).get("data") or {})

    def selects(owner: str, selector: dict) -> None:
        matched = any(selector.items() <= of_pod.items() for of_pod in labels)
        expect(matched, f"{where}: {owner} selects no pod with {selector}")

    for o in objects:
        owner = f"{o['kind']} {o['metadata']['name']}"
        spec = o.get("spec", {})
        if o["kind"] == "Service":
            selects(owner, spec["selector"])
            ports = [
                port.get("name")
                for pod in pods
                for container in pod["spec"]["template"]["spec"]["containers"]
                for port in container.get("ports", [])
            ]
            for port in spec["ports"]:
                expect(
                    port["targetPort"] in ports, f"{where}: {owner}: no port {port['targetPort']}"
                )
        if o["kind"] == "PodDisruptionBudget":
            selects(owner, spec["selector"]["matchLabels"])
        if o["kind"] == "NetworkPolicy":
            selects(owner, spec["podSelector"]["matchLabels"])
            for rule in spec.get("ingress", []) + spec.get("egress", []):
                for peer in rule.get("from", []) + rule.get("to", []):
                    if "podSelector" in peer:
                        selects(owner, peer["podSelector"]["matchLabels"])
        if o["kind"] == "HorizontalPodAutoscaler":
            target = spec["scaleTargetRef"]["name"]
            scaled = by_name.get(("Deployment", target)) or by_name.get(("SpinApp", target))
            expect(scaled, f"{where}: {owner} scales nothing")
            expect(
                scaled and "replicas" not in scaled["spec"],
                f"{where}: two set the replicas of {target}",
            )

    for pod in pods:
        template = pod["spec"]["template"]["spec"]
        ours = pod["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") == "task-api"
        for container in template["containers"]:
            owner = f"{where}: container {container['name']}"
            names = []
            for source in container.get("envFrom", []):
                for kind, reference in [("ConfigMap", "configMapRef"), ("Secret", "secretRef")]:
                    if reference in source:
                        found = keys(kind, source[reference]["name"])
                        names += [source.get("prefix", "") + key for key in found]
            defined = {entry["name"] for entry in container.get("env", [])}
            for entry in container.get("env", []):
                for kind, reference in [
                    ("ConfigMap", "configMapKeyRef"),
                    ("Secret", "secretKeyRef"),
                ]:
                    wanted = entry.get("valueFrom", {}).get(reference)
                    if wanted:
                        expect(
                            wanted["key"] in keys(kind, wanted["name"]),
                            f"{owner}: {wanted['name']} has no {wanted['key']}",
                        )
                used = set(re.findall(r"\$\((\w+)\)", entry.get("value", "")))
                expect(used <= defined, f"{owner}: {entry['name']} uses {used - defined}")
            # Names that only build others are not the sidecar's.
            parts = {"POSTGRES_ADDRESS", "POSTGRES_USER", "POSTGRES_DATABASE", "POSTGRES_PASSWORD"}
            parts |= {"REDIS_ADDRESS", "REDIS_AUTH"}
            if ours:
                check_variables(names + sorted(defined - parts), owner)
                security = template["securityContext"] | container["securityContext"]
                expect(security.get("runAsNonRoot"), f"{owner}: may run as root")
                expect(security.get("readOnlyRootFilesystem"), f"{owner}: its root can be written")
                expect(
                    security.get("capabilities") == {"drop": ["ALL"]}, f"{owner}: has capabilities"
                )
                expect(
                    security.get("allowPrivilegeEscalation") is False,
                    f"{owner}: may get privileges",
                )
                expect(container["resources"]["limits"]["memory"], f"{owner}: no limit of memory")
                probed = (
                    pod["kind"] == "Job" or {"livenessProbe", "readinessProbe"} <= container.keys()
                )
                expect(probed, f"{owner}: has no probes")
            for mount in container.get("volumeMounts", []):
                volumes = [volume["name"] for volume in template.get("volumes", [])]
                expect(mount["name"] in volumes, f"{owner}: there is no volume {mount['name']}")


def check_schemas(where: str, objects: list[dict]) -> None:
    for o in objects:
        if o["apiVersion"].startswith("core.spinkube.dev/"):
            continue
        for version in KUBERNETES:
            try:
                kubernetes_validate.validate(o, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                at = ".".join(str(part) for part in error.path)
                name = f"{o['kind']} {o['metadata']['name']}"
                problems.append(f"{where}: {name} with Kubernetes {version}: {at}: {error.message}")


def kubernetes() -> None:
    for overlay in ["local", "production"]:
        folder = f"kubernetes/overlays/{overlay}"
        objects = built(folder)
        kinds = {o["kind"] for o in objects}
        wanted = {
            "Deployment",
            "Service",
            "Secret",
            "ConfigMap",
            "PodDisruptionBudget",
            "NetworkPolicy",
        }
        if overlay == "production":
            wanted |= {"HorizontalPodAutoscaler", "Job"}
        expect(wanted <= kinds, f"{folder}: there is no {wanted - kinds}")
        check_schemas(folder, objects)
        check_pods(folder, objects)
        for o in objects:
            if o["kind"] == "Deployment" and o["metadata"]["name"] == "kafka-sidecar":
                expect(o["spec"]["replicas"] == 2, f"{folder}: nothing stands by for the sidecar")


def spinkube() -> None:
    objects = built("spinkube")
    check_schemas("spinkube", objects)
    check_pods("spinkube", objects)
    by_name = {(o["kind"], o["metadata"]["name"]): o for o in objects}
    apps = [o for o in objects if o["kind"] == "SpinApp"]
    expect(len(apps) == 1, "spinkube: there is not exactly one SpinApp")
    for app in apps:
        spec = app["spec"]
        expect(set(spec) <= SPIN_APP, f"spinkube: a SpinApp has no {set(spec) - SPIN_APP}")
        executor = by_name.get(("SpinAppExecutor", spec["executor"]))
        expect(executor, f"spinkube: there is no executor {spec['executor']}")
        if executor:
            config = executor["spec"]["deploymentConfig"]
            expect("spinImage" in config, "spinkube: the shim cannot run the components")
            order = objects.index(executor) < objects.index(app)
            expect(order, "spinkube: the operator refuses a SpinApp before its executor")
        # `spin up` is told to read this file, and ends without it.
        secret = by_name.get(("Secret", spec.get("runtimeConfig", {}).get("loadFromSecret")))
        expect(
            secret and "runtime-config.toml" in secret["data"], "spinkube: no runtime-config.toml"
        )
        for variable in spec["variables"]:
            name = variable["name"]
            expect(name in spin_variables(), f"spinkube: spin.toml has no variable {name}")
            for kind, reference in [("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")]:
                wanted = variable.get("valueFrom", {}).get(reference)
                if wanted:
                    data = by_name.get((kind, wanted["name"]), {}).get("data", {})
                    expect(wanted["key"] in data, f"spinkube: {name}: no {wanted} there")
