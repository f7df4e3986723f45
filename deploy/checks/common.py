"""What the checks share: findings, programs, and the settings that the product knows."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"

problems: list[str] = []


def expect(condition: object, problem: str) -> None:
    if not condition:
        problems.append(problem)


def spin_variables() -> set[str]:
    return set(tomllib.loads((ROOT / "spin.toml").read_text())["variables"])


def sidecar_settings() -> set[str]:
    text = (ROOT / "sidecar/src/config.rs").read_text()
    return set(re.findall(r'\benv = "([A-Z_]+)"', text)) | {"RUST_LOG"}


def check_variables(names: list[str], where: str) -> None:
    """Names of Spin's environment, or of settings of the sidecar."""
    known = {f"SPIN_VARIABLE_{name.upper()}" for name in spin_variables()} | sidecar_settings()
    for name in names:
        expect(name in known, f"{where}: nothing reads {name}")


def program(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        sys.exit(f"{name} is missing: install e2e/tools/requirements.txt")
    return found


def run(where: str, *command: str | Path, cwd: Path = ROOT) -> str:
    """Standard output. A failure becomes a problem."""
    ended = subprocess.run(
        [str(part) for part in command], check=False, cwd=cwd, capture_output=True, text=True
    )
    said = (ended.stdout + ended.stderr).strip()
    expect(
        ended.returncode == 0,
        f"{where}: {Path(command[0]).name} ended with {ended.returncode}\n{said}",
    )
    return ended.stdout if ended.returncode == 0 else ""
