"""What a probe's function works on: a sealed run, its corpus, where to keep models' results, and whom to tell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from carto_core.audits.subject import Subject, load_subject
from carto_core.config import RunConfig
from carto_core.engine.device import pick_device
from carto_core.engine.executors import LOCAL, Executor
from carto_core.engine.run_corpus import RunCorpus, load_run_corpus
from carto_core.store.reader import Run
from carto_core.types import Progress


@dataclass(frozen=True)
class Probing:
    """One run under probes.

    Attributes:
        run: sealed.
        models: how many fold models, even.
        progress: told how far the work is; may raise to stop.
        executor: where further models are trained that do not need one another.
    """

    run: Run
    models: int
    progress: Progress
    executor: Executor = LOCAL

    @cached_property
    def config(self) -> RunConfig:
        """The settings of the base run."""
        return RunConfig.from_dict(self.run.manifest["config"])

    @cached_property
    def corpus(self) -> RunCorpus:
        """What the base run was trained on."""
        return load_run_corpus(self.run)

    @cached_property
    def subject(self) -> Subject:
        """The trained model."""
        return load_subject(self.run)

    @property
    def device(self) -> torch.device:
        """Where models are trained."""
        engine = self.config.engine
        return pick_device(engine.device, threads=engine.threads)

    @property
    def folder(self) -> Path:
        """Where the results of further models are kept, so that none is trained twice."""
        return self.run.files.probes / "models"
