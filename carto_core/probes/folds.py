"""Models on random halves of the corpus: held-out gaps as scores, counterfactual memorization as a truth.

Duplicates, near duplicates and the copies of one canary stay in one half: a copy on the other side would undo the holding
out. Models come in pairs, one on each half. The first half of the pairs makes the scores, the second half the truth, so
that no score is judged by the models that it was made of.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from carto_core.config import RunConfig
from carto_core.corpus.near_duplicates import near_duplicates
from carto_core.engine.loop import train
from carto_core.engine.run_corpus import RunCorpus, load_run_corpus
from carto_core.engine.side_by_side import Told
from carto_core.probes.probing import Probing
from carto_core.store.folds import (
    Folds,
    counterfactual,
    counterfactual_accuracy,
    held_out_gap,
    normalised_gap,
    only,
    write_folds,
)
from carto_core.store.reader import open_run
from carto_core.store.rundir import replacing
from carto_core.types import Bool, Float32, Int32

SEED_STEP = 2000


def fold_columns(probing: Probing) -> dict[str, Float32]:
    """Return the gaps and the counterfactual memorization of every sample, in nats per token (normalised in [-1, 1]).

    `two_fold_gap`, `two_fold_normalised`: first pair alone. `held_out_gap`, `normalised_gap`: the first half of the pairs.
    `counterfactual` (mean loss of models without the sample minus that of models with it), `counterfactual_accuracy` (mean
    accuracy with minus without, as arXiv 2112.12938 has it) and their standard errors: the other half.
    """
    folds = _all_folds(probing)
    write_folds(probing.run.files, folds)
    first, mine = _pairs(folds, [0]), _pairs(folds, range(_num_scoring(folds)))
    in_loss, in_accuracy = counterfactual(judging(folds)), counterfactual_accuracy(judging(folds))
    return {
        "two_fold_gap": held_out_gap(first),
        "two_fold_normalised": normalised_gap(first),
        "held_out_gap": held_out_gap(mine),
        "normalised_gap": normalised_gap(mine),
        "counterfactual": in_loss[0],
        "counterfactual_se": in_loss[1],
        "counterfactual_accuracy": in_accuracy[0],
        "counterfactual_accuracy_se": in_accuracy[1],
    }


def judging(folds: Folds) -> Folds:
    """Return the pairs that the truth is made of, and no score."""
    return _pairs(folds, range(_num_scoring(folds), len(folds) // 2))


def _num_scoring(folds: Folds) -> int:
    return -(-(len(folds) // 2) // 2)


def fold_units(corpus: RunCorpus, near_group: Int32) -> Int32:
    """Return int32[N]: rows with the same number must stay in one half.

    Args:
        corpus: of the run.
        near_group: int32[N], see `near_duplicates`.
    """
    unit = near_group.astype(np.int64)
    for canary in np.unique(corpus.canary_id[~np.isnan(corpus.canary_id)]):
        rows = corpus.canary_id == canary
        unit[np.isin(unit, unit[rows])] = unit[rows].min()
    return np.unique(unit, return_inverse=True)[1].astype(np.int32)


def half_of(unit: Int32, *, pair: int, seed: int) -> Bool:
    """Return bool[N]: the rows in the first half of one pair; whole units in a seeded order until half the rows are in."""
    order = np.random.default_rng([seed, 9, pair]).permutation(int(unit.max()) + 1)
    rows = np.bincount(unit)[order]
    return np.isin(unit, order[np.cumsum(rows) - rows / 2 <= len(unit) / 2])


def _all_folds(probing: Probing) -> Folds:
    pieces = [(pair, side) for pair in range(probing.models // 2) for side in (0, 1)]
    unit = fold_units(probing.corpus, near_duplicates(probing.corpus.texts).group_id)
    paths = [probing.folder / f"half-{pair:03d}-{side}.npz" for pair, side in pieces]
    probing.executor(
        _train_fold,
        probing.run.files.path,
        [(unit, pair, side) for pair, side in pieces],
        paths,
        stage="training fold models",
        progress=probing.progress,
    )
    found = [np.load(path, allow_pickle=False) for path in paths]
    return Folds(
        trained_on=np.stack([f["trained_on"] for f in found]),
        losses=np.stack([f["losses"] for f in found]),
        validation_losses=np.stack([f["validation_losses"] for f in found]),
        seeds=np.array([int(f["seed"]) for f in found]),
        accuracies=np.stack([f["accuracies"] for f in found]),
    )


def accuracies(correct: Float32, offsets: np.ndarray) -> Float32:
    """Return float32[N]: each text's share of right tokens; NaN for an empty text.

    Args:
        correct: float32[sum of lengths], 1 or 0 a token.
        offsets: int64[N + 1], where each text's tokens begin.
    """
    running = np.concatenate([[0.0], np.cumsum(correct, dtype=np.float64)])
    with np.errstate(invalid="ignore"):
        return ((running[offsets[1:]] - running[offsets[:-1]]) / np.diff(offsets)).astype(np.float32)


def _pairs(folds: Folds, pairs: Sequence[int]) -> Folds:
    return only(folds, [2 * pair + side for pair in pairs for side in (0, 1)])


def _train_fold(run_path: Path, unit: Int32, pair: int, side: int, path: Path) -> None:
    """Train one model on one half with the run's epochs, and write its losses of all samples."""
    run = open_run(run_path)
    config = RunConfig.from_dict(run.manifest["config"])
    corpus = load_run_corpus(run)
    first = half_of(unit, pair=pair, seed=config.engine.seed)
    trained_on = first if side == 0 else ~first
    seed = config.engine.seed + SEED_STEP + 2 * pair + side
    told = Told(path)
    task = corpus.task(config)
    trained = train(
        task, dataclasses.replace(config.engine, seed=seed), repeats=trained_on.astype(np.int32), progress=told
    )
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            trained_on=trained_on,
            losses=task.measure(trained.model, trained.device),
            accuracies=accuracies(task.token_statistics(trained.model, trained.device).correct, corpus.train.offsets),
            validation_losses=corpus.task(config, corpus.validation).measure(trained.model, trained.device),
            seed=seed,
        )
    told.close()
