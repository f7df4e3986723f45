"""The units of systemd and the job of Nomad."""

import re
import shutil
import subprocess
import tempfile
import tomllib
from pathlib import Path

import hcl2
from lark.exceptions import LarkError

from checks.common import DEPLOY, check_variables, expect, problems, run, spin_variables

HARDENED = {
    "DynamicUser": "yes",
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "CapabilityBoundingSet": "",
    "SystemCallArchitectures": "native",
    "Restart": "always",
}


def env_file(path: Path) -> dict[str, str]:
    lines = (line.strip() for line in path.read_text().splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def systemd() -> None:
    folder = DEPLOY / "systemd"
    for unit in sorted(folder.glob("*.service")):
        text = unit.read_text()
        for setting, value in HARDENED.items():
            expect(
                re.search(rf"^{setting}={value}$", text, re.MULTILINE),
                f"{unit.name}: not {setting}={value}",
            )
        secret = re.search(r"^(LoadCredential|EnvironmentFile)=", text, re.MULTILINE)
        expect(secret, f"{unit.name}: no file with secrets")
    check_variables(list(env_file(folder / "sidecar.example.env")), "sidecar.example.env")
    for name, value in tomllib.loads((folder / "variables.example.toml").read_text()).items():
        expect(
            name in spin_variables(), f"variables.example.toml: spin.toml has no variable {name}"
        )
        expect(isinstance(value, str), f"variables.example.toml: {name} is no text")
    if shutil.which("systemd-analyze"):
        with tempfile.TemporaryDirectory() as copy:
            units = []
            for unit in sorted(folder.glob("*.service")):
                # The programs are not installed here.
                text = re.sub(
                    r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE
                )
                units.append(Path(copy) / unit.name)
                units[-1].write_text(text)
            verify = ["systemd-analyze", "verify", "--man=no", *units]
            ended = subprocess.run(verify, check=False, capture_output=True, text=True)
            # It says what it does not know, and succeeds all the same.
            said = [line for line in ended.stderr.splitlines() if copy in line]
            expect(
                ended.returncode == 0 and not said, "systemd: " + "\n".join(said or [ended.stderr])
            )
            for unit in units:
                # Of 100: what systemd calls OK ends at 39.
                security = ["security", "--offline=true", "--no-pager", "--threshold=20"]
                run(f"systemd: {unit.name}", "systemd-analyze", *security, unit)


def plain(value):
    """HCL as lists and dictionaries, without the quotes that the parser leaves."""
    if isinstance(value, dict):
        return {plain(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    return value.strip('"') if isinstance(value, str) else value


def nomad() -> None:
    path = DEPLOY / "nomad/task-api.nomad.hcl"
    try:
        with path.open() as file:
            parsed = plain(hcl2.load(file))
    except LarkError as error:
        problems.append(f"{path.name}: {error}")
        return
    declared = {name for block in parsed["variable"] for name in block}
    used = set(re.findall(r"\bvar\.(\w+)", path.read_text()))
    expect(used <= declared, f"{path.name}: there is no variable {used - declared}")
    groups = {}
    for block in parsed["job"][0]["task-api"]["group"]:
        groups |= block
    expect(set(groups) == {"sidecar", "application"}, f"{path.name}: has the groups {set(groups)}")
    for name, group in groups.items():
        where = f"{path.name}: {name}"
        expect(group["count"] == 2, f"{where}: nothing stands by")
        ports = {
            port for network in group["network"] for block in network["port"] for port in block
        }
        for service in group["service"]:
            expect(service["port"] in ports, f"{where}: no port {service['port']}")
            paths = [check["path"] for check in service["check"]]
            expect(paths == ["/readyz"], f"{where}: it is checked at {paths}")
        for task in (
            task for block in group["task"] for task in block.values() if isinstance(task, dict)
        ):
            config = task["config"][0]
            expect(config["readonly_rootfs"] is True, f"{where}: its root can be written")
            expect(set(config["ports"]) <= ports, f"{where}: has no ports {config['ports']}")
            names = [key for key in task["env"][0] if not key.startswith("__")]
            for template in task["template"]:
                names += re.findall(r"^\s*([A-Z_]+)=", template["data"], re.MULTILINE)
            check_variables(names, where)
