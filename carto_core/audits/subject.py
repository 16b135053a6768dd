"""What an audit looks at: a trained model together with the corpus of its run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from carto_core.config import RunConfig
from carto_core.corpus.canaries import Canary
from carto_core.engine.checkpoint import last_checkpoint, load_model
from carto_core.engine.device import pick_device
from carto_core.engine.run_corpus import RunCorpus, load_run_corpus
from carto_core.errors import RunCorrupt
from carto_core.store.folds import Folds, read_folds
from carto_core.store.reader import Run


@dataclass(frozen=True)
class Subject:
    """A model under audit.

    Attributes:
        model: in evaluation mode, on `device`.
        device: where it is.
        config: of the base run.
        corpus: of the base run; also where the model was trained under another plan.
        folds: models of the same kind that were each trained on a part of the samples; None where there are none.
    """

    model: torch.nn.Module
    device: torch.device
    config: RunConfig
    corpus: RunCorpus
    folds: Folds | None = None

    @cached_property
    def canary_tokens(self) -> list[tuple[list[int], list[int]]]:
        """(prefix ids, secret ids) of every canary; the secret's are those that were trained on."""
        return [split_canary(canary, self.corpus) for canary in self.corpus.canaries]


def split_canary(canary: Canary, corpus: RunCorpus) -> tuple[list[int], list[int]]:
    """Return the canary's prefix ids and secret ids; the canary was drawn so that the one continues the other."""
    prefix = corpus.tokenizer.encode(canary.prefix)
    return prefix, corpus.tokenizer.encode(canary.text)[len(prefix) :]


def load_subject(run: Run) -> Subject:
    """Return the trained model of a run from its last checkpoint.

    Raises:
        RunNotSealed: training is not over.
        RunCorrupt: there is no checkpoint, or it or the fold models' losses cannot be loaded.
    """
    run.require_sealed()
    config = RunConfig.from_dict(run.manifest["config"])
    corpus = load_run_corpus(run)
    checkpoint = last_checkpoint(run.files.checkpoints)
    if checkpoint is None:
        raise RunCorrupt(f"run {run.run_id} has no checkpoint, so no model to audit; train it again")
    device = pick_device(config.engine.device, threads=config.engine.threads)
    model = corpus.task(config).build().to(device).eval()
    load_model(checkpoint, model, device)
    return Subject(model, device, config, corpus, read_folds(run.files))
