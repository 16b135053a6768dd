"""Ask whether an installed package has a known vulnerability, and say so honestly where that cannot be asked.

    python .ci/audit_dependencies.py PIP_AUDIT SITE_PACKAGES

`pip-audit` calls packages of which it learns nothing "not vulnerable", as where an index has no such data; here they are
counted as not audited. Exit code 1 where a vulnerability is known, else 0.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SERVICES = ("pypi", "osv")
TIMEOUT_S = 300


def main(pip_audit: str, site_packages: str) -> int:
    """Print the verdict of the first service that knows anything, and return the exit code."""
    for service in SERVICES:
        report = ask(pip_audit, site_packages, service)
        if report is not None and audited(report):
            break
    code, said = verdict(report)
    print(said, file=sys.stderr)
    return code


def ask(pip_audit: str, site_packages: str, service: str) -> dict[str, Any] | None:
    """Return what `pip-audit` found, or None where it could not ask."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "audit.json"
        command = [pip_audit, "--path", site_packages, "-s", service, "-f", "json", "-o", str(out)]
        command += ["--progress-spinner", "off", "--timeout", "10"]
        try:
            subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
            return json.loads(out.read_text(encoding="utf-8"))
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return None


def audited(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the packages of which something is known."""
    return [package for package in report["dependencies"] if "skip_reason" not in package]


def verdict(report: dict[str, Any] | None) -> tuple[int, str]:
    """Return the exit code and one sentence or more."""
    if report is None or not audited(report):
        return 0, "Dependencies were NOT audited: no vulnerability data can be reached from here."
    known = audited(report)
    found = [f"{p['name']} {p['version']}: {v['id']}" for p in known for v in p.get("vulns", [])]
    unknown = len(report["dependencies"]) - len(known)
    apart = f"; of {unknown} others nothing is known" if unknown else ""
    if not found:
        return 0, f"No known vulnerability in {len(known)} packages{apart}."
    return 1, "\n".join([f"{len(found)} known vulnerabilities in {len(known)} packages{apart}:", *found])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
