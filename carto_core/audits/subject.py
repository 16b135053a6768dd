"""What an audit looks at: a trained model together with the corpus of its run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch

from carto_core.audits.formats import formats_of
from carto_core.config import RunConfig
from carto_core.corpus.canaries import Canary
from carto_core.engine.checkpoint import last_checkpoint, load_model
from carto_core.engine.device import pick_device
from carto_core.engine.run_corpus import RunCorpus, load_run_corpus
from carto_core.errors import RunCorrupt
from carto_core.store.folds import Folds, read_folds
from carto_core.store.reader import Run
from carto_core.tasks.decoding import SecretFormat


@dataclass(frozen=True)
class Subject:
    """A model under audit.

    Attributes:
        model: in evaluation mode, on `device`.
        device: where it is.
        config: of the base run.
        corpus: of the base run; also where the model was trained under another plan.
        tokenizer_sha256: of the run's tokenizer.json; None where the model comes from no file.
        folds: models of the same kind that were each trained on a part of the samples; None where there are none.
    """

    model: torch.nn.Module
    device: torch.device
    config: RunConfig
    corpus: RunCorpus
    tokenizer_sha256: str | None = None
    folds: Folds | None = None

    @cached_property
    def canary_tokens(self) -> list[tuple[list[int], list[int]]]:
        """(prefix ids, secret ids) of every canary; the secret's are those that were trained on."""
        return [split_canary(canary, self.corpus) for canary in self.corpus.canaries]

    @cached_property
    def secret_formats(self) -> list[SecretFormat | None]:
        """The format of every canary's secret; None where it does not split into tokens."""
        return formats_of(self.corpus.canaries, words=self.corpus.words, tokenizer=self.corpus.tokenizer)


def split_canary(canary: Canary, corpus: RunCorpus) -> tuple[list[int], list[int]]:
    """Return the canary's prefix ids and secret ids; the canary was drawn so that the one continues the other."""
    prefix = corpus.tokenizer.encode(canary.prefix)
    return prefix, corpus.tokenizer.encode(canary.text)[len(prefix) :]


def load_subject(run: Run) -> Subject:
    """Return the trained model of a run from its last checkpoint.

    Raises:
        RunNotSealed: training is not over.
        RunCorrupt: there is no checkpoint, or it or the fold models' losses cannot be loaded; or the tokenizer is not the
            one trained with.
    """
    run.require_model()
    run.require_sealed()
    config = RunConfig.from_dict(run.manifest["config"])
    sha256 = _checked_tokenizer(run)
    corpus = load_run_corpus(run)
    checkpoint = last_checkpoint(run.files.checkpoints)
    if checkpoint is None:
        raise RunCorrupt(f"run {run.run_id} has no checkpoint, so no model to audit; train it again")
    device = pick_device(config.engine.device, threads=config.engine.threads)
    model = corpus.task(config).build().to(device).eval()
    load_model(checkpoint, model, device)
    return Subject(model, device, config, corpus, sha256, read_folds(run.files))


def _checked_tokenizer(run: Run) -> str:
    """Return the hash of tokenizer.json, after comparing it with the manifest's where that holds one."""
    try:
        found = hashlib.sha256(run.files.tokenizer.read_bytes()).hexdigest()
    except OSError:
        raise RunCorrupt(f"run {run.run_id} has no readable tokenizer.json; copy it back, or train again") from None
    recorded = run.manifest.get("tokenizer", {}).get("sha256", found)
    if found != recorded:
        raise RunCorrupt(
            f"run {run.run_id}: tokenizer.json has changed since training (sha256 {found[:12]}, run.json says "
            f"{recorded[:12]}); put the original file back, or train again"
        )
    return found
