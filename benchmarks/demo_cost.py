"""How long the demo's training and audits take, and how much memory, in a process of their own.

python -m benchmarks.demo_cost
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time


def main() -> None:
    """Print one line."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = [sys.executable, "-m", "carto_core", "demo", "--no-open", "--runs-root", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"demo: training and audits {seconds:.0f} s, peak memory {peak:.0f} MiB")


if __name__ == "__main__":
    main()
