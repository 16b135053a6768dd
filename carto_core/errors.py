"""Every exception a user can meet, and the one family they belong to.

* CartoError
  x ConfigError        a setting is missing, unknown or out of range
  x UnknownNameError   a registry was asked for a name it does not have
  x CorpusError        a corpus cannot be read, or breaks a rule (duplicate keys, no text, ...)
  x TrajectoryError    losses that another program logged cannot be read, or their columns not told apart
  x ModelError         a model that another program trained cannot be loaded, or should not be
  x RunError
    + RunNotFound      no such run directory or run id
    + RunNotSealed     the run is still being written
    + RunExists        the directory to be written is there already
    + RunCorrupt       files disagree with the run's manifest
  x TrainingDiverged   a loss or a gradient became infinite or not a number
  x SelectionError     a rule that cannot be resolved, or resolves to nothing
  x PlanError          an intervention that cannot be made, or a plan file that is damaged
  x CompareError       two runs that have nothing to compare
  x JobError           a job that cannot be started or cancelled
  x ExecutorError      a cluster that cannot be used, or whose workers died
  x DiskError          a file that the machine does not let us write: no room, no permission

`Cancelled`, the user stopped the work, stands beside KeyboardInterrupt.

A message says what was wrong, where, and what to do. `CartoError` is for people; `assert` is for our own mistakes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import Any


class CartoError(Exception):
    """Base of everything that is the user's to mend."""


class ConfigError(CartoError):
    """A setting is missing, unknown or out of range."""


class UnknownNameError(CartoError):
    """A registry was asked for a name it does not have."""

    @classmethod
    def of(cls, what: str, name: str, known: Iterable[str]) -> UnknownNameError:
        """Return the error for `name`, listing what would have been accepted."""
        return cls(f"unknown {what} {name!r}; choose one of: {', '.join(sorted(known))}")


class CorpusError(CartoError):
    """A corpus cannot be read, or breaks a rule."""


class TrajectoryError(CartoError):
    """Losses that another program logged cannot be read, or their columns not told apart."""


class ModelError(CartoError):
    """A model that another program trained cannot be loaded, or should not be."""


class RunError(CartoError):
    """Something is wrong with a run directory."""


class RunNotFound(RunError):
    """No such run directory or run id."""


class RunNotSealed(RunError):
    """The run is still being written."""


class RunExists(RunError):
    """The directory to be written is there already."""


class RunCorrupt(RunError):
    """Files disagree with the run's manifest."""


class TrainingDiverged(CartoError):
    """A loss or a gradient became infinite or not a number.

    Attributes:
        sample_ids: whose losses, in order; all of a gradient's batch.
    """

    def __init__(self, message: str, sample_ids: Iterable[int] = ()) -> None:
        super().__init__(message)
        self.sample_ids = list(sample_ids)

    def __reduce__(self) -> tuple[Any, ...]:  # it comes out of processes that train side by side
        return type(self), (str(self), self.sample_ids)


class SelectionError(CartoError):
    """A rule that cannot be resolved, or resolves to nothing."""


class PlanError(CartoError):
    """An intervention that cannot be made, or a plan file that is damaged."""


class CompareError(CartoError):
    """Two runs that have nothing to compare."""


class JobError(CartoError):
    """A job that cannot be started or cancelled."""


class ExecutorError(CartoError):
    """A cluster that cannot be used, or whose workers died."""


class DiskError(CartoError):
    """A file that the machine does not let us write: no room, no permission, a disk that fails."""

    @classmethod
    def of(cls, path: object, error: OSError) -> DiskError:
        """Return the error for a file that could not be written, saying why and what to do.

        Args:
            path: the file.
            error: what the system said; one that a library told in its own words has no number.
        """
        code = error.errno or next((c for c in _CURES if os.strerror(c) in str(error)), None)
        why = os.strerror(code) if code is not None else str(error).strip().split("\n")[0]
        return cls(
            f"cannot write {path}: {why}; {_CURES.get(code or 0, _MEND)}, then give the same command again (a training: with "
            "--resume); what was finished before is kept"
        )


_MEND = "mend that"
_CURES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within your quota",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
}
_CURES |= dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "make it writable or choose another place")
_CURES |= dict.fromkeys((errno.EEXIST, errno.ENOTDIR, errno.EISDIR), "choose another place")


class Cancelled(BaseException):
    """The user stopped the work; nothing is broken.

    It can come at any line, so it is no `Exception`: who catches all that may be wrong with a file would swallow it.
    """
