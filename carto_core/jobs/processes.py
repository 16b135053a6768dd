"""Which processes belong to a job: those of its group that carry its mark, the runner among them or gone."""

from __future__ import annotations

import os

import psutil

JOB_FOLDER = "CARTO_JOB"  # environment of a job's processes: its folder


def members(group: int, folder: str) -> list[psutil.Process]:
    """Return the live processes of a job; a zombie is not alive.

    A group's number is not given away while one of its processes lives, and the mark tells ours from those of a group
    that got the number later.

    Args:
        group: process group, which is the runner's pid.
        folder: where the job is kept.
    """
    found = []
    for pid in psutil.pids():
        try:
            if os.getpgid(pid) != group:
                continue
            process = psutil.Process(pid)
            is_ours = process.environ().get(JOB_FOLDER) == folder
            if is_ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue  # it ended just now, or is another user's
    return found
