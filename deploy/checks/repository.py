"""Workflows, and versions that several files name."""

import re
import sys
import tomllib

from checks.common import ROOT, expect, run


def workflows() -> None:
    files = sorted((ROOT / ".github/workflows").glob("*.yml"))
    check = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.github-workflows",
    ]
    run("workflows", *check, *files)


def versions() -> None:
    """What several files name is the same in each."""

    def named(path: str, pattern: str) -> set[str]:
        found = set(re.findall(pattern, (ROOT / path).read_text(), re.MULTILINE))
        expect(found, f"{path}: has no {pattern}")
        return found

    spin = named("Dockerfile", r"^ARG SPIN_VERSION=(v\S+)$")
    for path, pattern in [
        ("deploy/spinkube/executor.yaml", r"spinImage: ghcr.io/spinframework/spin:(\S+)$"),
        (".github/workflows/ci.yml", r"spin/setup@v1\n\s+with:\n\s+version: (v\S+)$"),
        (".github/workflows/release.yml", r"spin/setup@v1\n\s+with:\n\s+version: (v\S+)$"),
    ]:
        expect(named(path, pattern) == spin, f"{path}: names another Spin than the Dockerfile")
    kafka = named("docker-compose.yml", r"image: apache/kafka:(\S+)$")
    local = named("deploy/kubernetes/overlays/local/kafka.yaml", r"image: apache/kafka:(\S+)$")
    expect(
        local == kafka, "deploy/kubernetes/overlays/local/kafka.yaml: another Kafka than Compose"
    )
    release = {tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]}
    for path, pattern in [
        ("spin.toml", r'^version = "(\S+)"$'),
        ("deploy/kubernetes/overlays/production/kustomization.yaml", r"newTag: (\S+)$"),
        ("deploy/spinkube/kustomization.yaml", r"newTag: (\S+)$"),
        ("deploy/spinkube/application.yaml", r"image: ghcr.io/replace-me/task-api:(\S+)$"),
        (
            "deploy/nomad/task-api.nomad.hcl",
            r'"release" {\n\s+type\s+= string\n\s+default = "(\S+)"',
        ),
    ]:
        expect(named(path, pattern) == release, f"{path}: another version than Cargo.toml")
