"""Docker Compose and the Dockerfiles."""

import re

import yaml

from checks.common import ROOT, check_variables, expect, program, run


def compose() -> None:
    for profile in ["kraft", "zookeeper"]:
        where = f"docker-compose.yml with {profile}"
        command = [program("docker-compose"), "--profile", profile, "config"]
        # Without the profile that .env names.
        text = run(where, "env", f"COMPOSE_PROFILES={profile}", *command)
        services = (yaml.safe_load(text) or {}).get("services", {}) if text else {}
        for name in ["postgres", "redis", "sidecar", "application"]:
            expect(name in services, f"{where}: no service {name}")
        expect(
            len(services) == (5 if profile == "kraft" else 6), f"{where}: starts {list(services)}"
        )
        for name, service in services.items():
            for port in service.get("ports", []):
                expect(port.get("host_ip") == "127.0.0.1", f"{where}: {name} is open to everybody")
        for name in ["sidecar", "application"]:
            service = services.get(name, {})
            check_variables(list(service.get("environment", {})), f"{where}: {name}")
            expect(service.get("read_only"), f"{where}: the root of {name} can be written")
            dockerfile = service.get("build", {}).get("dockerfile", "Dockerfile")
            expect(
                "HEALTHCHECK" in (ROOT / dockerfile).read_text(), f"{dockerfile}: no health check"
            )


def dockerfiles() -> None:
    run("Dockerfiles", program("hadolint"), "Dockerfile", "sidecar/Dockerfile")
    for name in ["Dockerfile", "sidecar/Dockerfile"]:
        last = (ROOT / name).read_text().rsplit("\nFROM ", 1)[1]
        expect(re.search(r"^USER [1-9]\d*:[1-9]\d*$", last, re.MULTILINE), f"{name}: runs as root")
