"""Checks what describes a deployment, without a cluster, an engine or a network.

    python deploy/check.py [KIND ...]

Without a kind, it checks all of them. It needs Python 3.11 and the packages of
e2e/tools/requirements.txt. The programs among them (docker-compose, hadolint, kubectl) stand beside
the Python that runs this. The exit code is 1 if anything is wrong, with a line for each finding.
"""

import sys

# The repository is no place for a cache.
sys.dont_write_bytecode = True

from checks.common import problems
from checks.containers import compose, dockerfiles
from checks.kubernetes import kubernetes, spinkube
from checks.machines import nomad, systemd
from checks.repository import versions, workflows

KINDS = [compose, dockerfiles, kubernetes, spinkube, systemd, nomad, workflows, versions]


def main() -> None:
    names = [kind.__name__ for kind in KINDS]
    wanted = sys.argv[1:] or names
    if unknown := set(wanted) - set(names):
        sys.exit(f"there is no {unknown}: one of {names}")
    for kind in KINDS:
        if kind.__name__ in wanted:
            before = len(problems)
            kind()
            print(f"{kind.__name__}: {'ok' if len(problems) == before else 'FAILED'}")
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
