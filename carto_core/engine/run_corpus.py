"""The corpus of an existing run, read back from its tables: what retrains and audits work on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from carto_core.config import RunConfig
from carto_core.corpus.canaries import Canary, corpus_words, draw_references
from carto_core.corpus.prepared import Tokens
from carto_core.corpus.tokenizer import BPE
from carto_core.corpus.tokens import Tokenizer
from carto_core.errors import RunCorrupt
from carto_core.store.reader import Run
from carto_core.tasks.language import LanguageTask
from carto_core.types import Float32, Float64, Int32


@dataclass(frozen=True)
class RunCorpus:
    """What a run was trained on, tokenized with its frozen tokenizer.

    Attributes:
        texts: training texts in order of sample_id.
        group_id: int32[N], exact duplicates.
        canary_id: float64[N], NaN = not planted.
        train: tokens of the training samples.
        validation: tokens of the held-out samples.
        validation_texts: the held-out samples as they were read.
        canaries: inserted ones and controls.
        words: what random words were drawn from; empty without canaries.
        tokenizer: frozen.
        repeats: int32[N], how often the run draws each sample per epoch; None = once each.
        weights: float32[N]; None = 1 each.
    """

    texts: list[str]
    group_id: Int32
    canary_id: Float64
    train: Tokens
    validation: Tokens
    validation_texts: list[str]
    canaries: list[Canary]
    words: list[str]
    tokenizer: Tokenizer
    repeats: Int32 | None = None
    weights: Float32 | None = None

    def task(self, config: RunConfig, tokens: Tokens | None = None) -> LanguageTask:
        """Return the run's task over its training samples, or over other tokens."""
        return LanguageTask(
            config.model,
            self.train if tokens is None else tokens,
            vocab_size=len(self.tokenizer),
            bos_id=self.tokenizer.bos_id,
        )

    def references(self, canary: Canary, *, count: int, seed: int) -> list[list[int]]:
        """Return the token ids of `count` secrets of a canary's format that no canary has; see `draw_references`.

        They are kept: to draw them takes as long as to read them, and many models are asked about the same.
        """
        key = (canary.canary_id, count, seed)
        if key not in self._drawn:
            taken = {other.secret for other in self.canaries}
            found = draw_references(
                canary, words=self.words, tokenizer=self.tokenizer, taken=taken, count=count, seed=seed
            )
            self._drawn[key] = Tokens.of(found)
        kept = self._drawn[key]
        ids, offsets = kept.ids.tolist(), kept.offsets.tolist()
        return [ids[start:end] for start, end in pairwise(offsets)]

    @cached_property
    def _drawn(self) -> dict[tuple[int, int, int], Tokens]:
        return {}


def load_run_corpus(run: Run) -> RunCorpus:
    """Return the corpus of a run, live or sealed.

    Raises:
        RunCorrupt: the tokenizer gives other token counts than the run recorded, or a retrain's plan is gone.
    """
    tokenizer = BPE.load(run.files.tokenizer)
    samples = run.samples("sample_id, text, group_id, num_tokens, canary_id")
    texts: list[str] = samples["text"].tolist()
    train = Tokens.encode(texts, tokenizer)
    if not np.array_equal(train.lengths, samples["num_tokens"].to_numpy()):
        raise RunCorrupt(f"run {run.run_id}: tokenizer.json does not give the token counts in its samples table")
    canaries = [
        Canary(
            **{name: row[name] for name in ("canary_id", "kind", "prefix", "secret", "repeats", "role", "log2_space")}
        )
        for row in run.canaries().to_dict("records")
    ]
    validation_texts: list[str] = run.validation()["text"].tolist()
    unplanted = [text for text, planted in zip(texts, samples["canary_id"].notna(), strict=True) if not planted]
    repeats, weights = run.drawn()
    return RunCorpus(
        texts=texts,
        group_id=samples["group_id"].to_numpy(np.int32),
        canary_id=samples["canary_id"].to_numpy(np.float64, na_value=np.nan),
        train=train,
        validation=Tokens.encode(validation_texts, tokenizer),
        validation_texts=validation_texts,
        canaries=canaries,
        words=corpus_words(list(dict.fromkeys(unplanted))) if canaries else [],
        tokenizer=tokenizer,
        repeats=repeats,
        weights=weights,
    )
