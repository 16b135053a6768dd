"""Losses and accuracies of models that were each trained on a part of the samples, and what they say of each sample.

`probes/models/folds.parquet` holds them: one row a model and text, so that both splits are replaced at once.
Models come in complementary pairs (2j, 2j + 1): what one of a pair was trained on, the other was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import rankdata

from carto_core.errors import RunCorrupt
from carto_core.store.rundir import RunDir, replacing
from carto_core.types import Bool, Float32, Float64

NUM_SPLITS = 20

SCHEMA = pa.schema(
    [
        ("model", pa.int16()),
        ("seed", pa.int64()),
        ("split", pa.string()),  # train or validation
        ("row", pa.int32()),  # sample_id, or place in the validation table
        ("trained_on", pa.bool_()),
        ("loss", pa.float32()),
        ("accuracy", pa.float32()),  # NaN for validation texts
    ]
)


@dataclass(frozen=True)
class Folds:
    """K models' losses of N training and V validation texts.

    Attributes:
        trained_on: bool[K, N], whether the model saw the sample.
        losses: float32[K, N], mean nats per token; NaN for an empty text.
        validation_losses: float32[K, V], of texts that no model saw.
        seeds: int64[K], of each model's training.
        accuracies: float32[K, N], share of a sample's tokens that the model holds most probable, each after the true ones
            before it; NaN for an empty text.
    """

    trained_on: Bool
    losses: Float32
    validation_losses: Float32
    seeds: np.ndarray
    accuracies: Float32

    def __post_init__(self) -> None:
        assert self.trained_on.shape == self.losses.shape == self.accuracies.shape
        assert len(self.losses) == len(self.validation_losses) == len(self.seeds)

    def __len__(self) -> int:
        return len(self.losses)


@dataclass(frozen=True, slots=True)
class Reliability:
    """How far the gaps of one half of the models agree with those of the other; NaN with fewer than four models.

    Attributes:
        spearman: rank correlation of the two halves, the mean over random halvings.
        corrected: what it would be between two sets as large as all the models (Spearman-Brown, 2r / (1 + r)).
        ceiling: sqrt(corrected), the largest correlation that a perfect score could show with the gaps of all models.
    """

    spearman: float
    corrected: float
    ceiling: float


def write_folds(run: RunDir, folds: Folds) -> None:
    """Write `probes/models/folds.parquet`, replacing it whole."""
    train, validation = _rows(folds, "train"), _rows(folds, "validation")
    with replacing(run.folds) as temporary:
        pq.write_table(pa.concat_tables([train, validation]), temporary, compression="zstd")


def read_folds(run: RunDir) -> Folds | None:
    """Return the run's fold models, or None where there are none.

    Raises:
        RunCorrupt: the file is damaged, or lacks a model's loss of some text.
    """
    if not run.folds.is_file():
        return None
    try:
        table = pq.read_table(run.folds)
    except (pa.ArrowException, OSError) as error:
        raise RunCorrupt(f"{run.folds} cannot be read ({error}); train the fold models again") from None
    if not table.schema.equals(SCHEMA):
        raise RunCorrupt(f"{run.folds} has other columns than {SCHEMA.names}; train the fold models again")
    columns = {name: table[name].to_numpy() for name in SCHEMA.names}
    num_models = int(columns["model"].max(initial=-1)) + 1
    is_train = columns["split"] == "train"
    seen, losses, right = (_square(columns, is_train, n, num_models) for n in ("trained_on", "loss", "accuracy"))
    held_out, seeds = (_square(columns, ~is_train, name, num_models) for name in ("loss", "seed"))
    if seen is None or losses is None or right is None or held_out is None or seeds is None:
        raise RunCorrupt(f"{run.folds} lacks losses of some models; train the fold models again")
    return Folds(seen, losses, held_out, seeds[:, 0], right)


def held_out_gap(folds: Folds) -> Float32:
    """Return float32[N]: mean loss of the models without the sample minus mean loss of those with it, in nats per token.

    Higher = more memorized. NaN where either kind of model is missing.
    """
    with_it, without = _moments(folds, folds.losses)
    return (without.mean - with_it.mean).astype(np.float32)


def accuracy_gap(folds: Folds) -> Float32:
    """Return float32[N]: mean accuracy of the models with the sample minus that of the models without it, in [-1, 1].

    Counterfactual memorization as it was defined (Zhang et al., arXiv 2112.12938, per-token accuracy). Higher = more
    memorized; NaN where either kind of model is missing.
    """
    with_it, without = _moments(folds, folds.accuracies)
    return (with_it.mean - without.mean).astype(np.float32)


def normalised_gap(folds: Folds) -> Float32:
    """Return float32[N]: (out - in) / (out + in) of the same two means, in [-1, 1]; NaN also where both are zero."""
    with_it, without = _moments(folds, folds.losses)
    total = without.mean + with_it.mean
    return _ratio(without.mean - with_it.mean, total).astype(np.float32)


def counterfactual(folds: Folds) -> tuple[Float32, Float32]:
    """Return counterfactual memorization in loss and its standard error (after Zhang et al., arXiv 2112.12938).

    Returns:
        float32[N] twice, nats per token: `held_out_gap`, and its error, NaN with fewer than two models of either kind.
    """
    return held_out_gap(folds), _standard_error(folds, folds.losses)


def counterfactual_accuracy(folds: Folds) -> tuple[Float32, Float32]:
    """Return counterfactual memorization in accuracy, as it was defined: `accuracy_gap`, and its standard error."""
    return accuracy_gap(folds), _standard_error(folds, folds.accuracies)


def _standard_error(folds: Folds, values: Float32) -> Float32:
    """Return float32[N]: sqrt(s_in^2 / n_in + s_out^2 / n_out), s^2 the unbiased variances of the two kinds of models."""
    with_it, without = _moments(folds, values)
    error = np.sqrt(_ratio(with_it.variance, with_it.count) + _ratio(without.variance, without.count))
    return error.astype(np.float32)


def split_half_reliability(folds: Folds, seed: int, *, gap: Callable[[Folds], Float32] = held_out_gap) -> Reliability:
    """Return how repeatable a gap is: its rank correlation between two random halves of the models.

    Pairs stay together, so that every half has seen every sample; with an odd number of pairs one sits out, another in
    each of NUM_SPLITS halvings; a last model without a partner is left out.

    Args:
        folds: the models.
        seed: of the halvings.
        gap: `held_out_gap` or `accuracy_gap`.
    """
    pairs = np.arange(len(folds) // 2 * 2).reshape(-1, 2)
    size = len(pairs) // 2
    if size == 0:
        return Reliability(math.nan, math.nan, math.nan)
    rng = np.random.default_rng([seed, 8])
    found = []
    for _ in range(NUM_SPLITS):
        order = rng.permutation(len(pairs))
        halves = [pairs[order[start : start + size]].ravel() for start in (0, size)]
        found.append(_spearman(*(gap(only(folds, half)) for half in halves)))
    spearman = float(np.mean(found))
    corrected = 2 * spearman / (1 + spearman) if spearman > -1 else math.nan
    return Reliability(spearman, corrected, math.sqrt(corrected) if corrected >= 0 else math.nan)


@dataclass(frozen=True)
class _Moments:
    """Of one kind of model, per sample: float64[N] each."""

    count: Float64
    mean: Float64
    variance: Float64


def _moments(folds: Folds, values: Float32) -> tuple[_Moments, _Moments]:
    """Return the moments of float32[K, N] over the models with the sample, and over those without."""
    wide = values.astype(np.float64)
    return _masked(wide, folds.trained_on), _masked(wide, ~folds.trained_on)


def _masked(values: Float64, mask: Bool) -> _Moments:
    count = mask.sum(axis=0).astype(np.float64)
    mean = _ratio(np.where(mask, values, 0.0).sum(axis=0), count)
    squares = np.where(mask, (values - mean) ** 2, 0.0).sum(axis=0)
    return _Moments(count, mean, _ratio(squares, count - 1))


def _ratio(above: Float64, below: Float64) -> Float64:
    """Return above / below; NaN where below is not positive."""
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)


def only(folds: Folds, models: np.ndarray | list[int]) -> Folds:
    """Return some of the models."""
    names = ("trained_on", "losses", "validation_losses", "seeds", "accuracies")
    return Folds(**{name: getattr(folds, name)[models] for name in names})


def _spearman(a: Float32, b: Float32) -> float:
    """Return the rank correlation over samples known on both sides, ties averaged; NaN where one side is constant."""
    known = ~np.isnan(a) & ~np.isnan(b)
    ranks = [rankdata(side[known]) for side in (a, b)]
    if any(len(side) < 2 or np.ptp(side) == 0 for side in ranks):
        return math.nan
    return float(np.corrcoef(*ranks)[0, 1])


def _rows(folds: Folds, split: str) -> pa.Table:
    losses = folds.losses if split == "train" else folds.validation_losses
    num_models, num_texts = losses.shape
    seen = folds.trained_on if split == "train" else np.zeros(losses.shape, bool)
    right = folds.accuracies if split == "train" else np.full(losses.shape, np.nan)
    return pa.table(
        {
            "model": np.repeat(np.arange(num_models, dtype=np.int16), num_texts),
            "seed": np.repeat(folds.seeds.astype(np.int64), num_texts),
            "split": pa.repeat(split, losses.size),
            "row": np.tile(np.arange(num_texts, dtype=np.int32), num_models),
            "trained_on": seen.ravel(),
            "loss": losses.astype(np.float32).ravel(),
            "accuracy": right.astype(np.float32).ravel(),
        },
        schema=SCHEMA,
    )


def _square(columns: dict[str, np.ndarray], chosen: Bool, name: str, num_models: int) -> np.ndarray | None:
    """Return one column of the chosen rows as [K, texts]; None where a row is missing or there twice."""
    model, row = columns["model"][chosen], columns["row"][chosen]
    num_texts = int(row.max(initial=-1)) + 1
    place = model.astype(np.int64) * num_texts + row
    if num_texts == 0 or not np.array_equal(np.sort(place), np.arange(num_models * num_texts)):
        return None
    return columns[name][chosen][np.argsort(place)].reshape(num_models, num_texts)
