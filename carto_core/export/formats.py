"""The formats that a plan leaves in: the words that a person sees, and what writes each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carto_core.errors import PlanError
from carto_core.export import lists, mixtures, programs
from carto_core.export.dolma import write_dolma
from carto_core.export.outgoing import Outgoing


@dataclass(frozen=True, slots=True)
class Format:
    """One way out.

    Attributes:
        name: key in `EXPORTS`, and what `--format` takes.
        title: short name.
        reader: who reads it.
        writes: what is written, and in it.
        how: how it is applied, one sentence.
        out: a name for the file or folder; one without a suffix is a folder.
        program: text that applies it, see `programs`.
        write: `write(outgoing, path) -> rows written`; a folder is there and empty.
        notes: what of a plan the format does not carry, in sentences; raises PlanError where that is all of it.
        holds_texts: whether the corpus itself leaves in it.
        language: of the program.
    """

    name: str
    title: str
    reader: str
    writes: str
    how: str
    out: str
    program: str
    write: Callable[[Outgoing, Path], int]
    notes: Callable[[Outgoing], list[str]]
    holds_texts: bool = False
    language: str = "python"

    @property
    def is_folder(self) -> bool:
        """Whether a folder is written, not a file."""
        return not Path(self.out).suffix

    def applied(self, name: str) -> str:
        """Return the program for a file or folder of that name."""
        return self.program.replace("EXPORTED", name)


def carries_all(outgoing: Outgoing) -> list[str]:
    """Return no sentence: every change of the plan is in it."""
    return []


def carries_drops(outgoing: Outgoing) -> list[str]:
    """Return what a list of what is to go says nothing of."""
    plan = outgoing.plan
    dropped = plan.repeats == 0
    if not dropped.any():
        raise PlanError(
            "the plan drops nothing, and this format says only what is to go; choose csv, jsonl, parquet, huggingface or sampler"
        )
    kept = outgoing.listed & ~dropped
    more, otherwise = (int(np.count_nonzero(kept & rows)) for rows in (plan.repeats > 1, plan.weights != 1))
    lost = [f"{more:,} that are drawn more than once"] * bool(more) + [f"{otherwise:,} of another weight"] * bool(
        otherwise
    )
    return [f"It says only what is to go; not carried: {' and '.join(lost)}."] if lost else []


EXPORTS: dict[str, Format] = {
    form.name: form
    for form in (
        Format(
            "csv",
            "Table (CSV)",
            "a person with a spreadsheet, or any program",
            "one file: a row for each changed sample, with its scores; cells that a spreadsheet would execute get an apostrophe",
            "Draw each key `repeat` times and multiply its loss by `weight`; a key that is not listed stays as it is.",
            "interventions.csv",
            programs.CSV,
            lists.write_csv,
            carries_all,
        ),
        Format(
            "jsonl",
            "Table (JSONL)",
            "any program",
            "one file: an object for each changed sample, with its scores",
            "Draw each key `repeat` times and multiply its loss by `weight`; a key that is not listed stays as it is.",
            "interventions.jsonl",
            programs.JSONL,
            lists.write_jsonl,
            carries_all,
        ),
        Format(
            "parquet",
            "Table (Parquet)",
            "pandas, and a PyTorch training loop",
            "one file: a row for each changed sample, with its scores",
            "Draw each key `repeat` times and multiply its loss by `weight`; a key that is not listed stays as it is.",
            "interventions.parquet",
            programs.PARQUET,
            lists.write_parquet,
            carries_all,
        ),
        Format(
            "keys",
            "List of what to drop",
            "any program, or a person",
            "one text file: a key a line and, after a tab, why",
            "Leave out the rows whose key is listed.",
            "dropped.txt",
            programs.KEYS,
            lists.write_keys,
            carries_drops,
        ),
        Format(
            "huggingface",
            "Hugging Face datasets",
            "a `datasets.Dataset`, and trainers that read a column `weight`",
            "one Parquet file: `id`, `action`, `repeat`, `weight`, `reason` of each changed sample",
            "`select` each row `repeat` times, and add the column `weight` for the loss.",
            "huggingface.parquet",
            programs.HUGGINGFACE,
            lists.write_huggingface,
            carries_all,
        ),
        Format(
            "sampler",
            "PyTorch WeightedRandomSampler",
            "a PyTorch `DataLoader`",
            "one Parquet file: `id`, `repeat`, `weight` of every row of the corpus, in its order",
            "Draw by `repeat`, with replacement: how often a row comes is right on average, not in each epoch.",
            "sampler.parquet",
            programs.SAMPLER,
            lists.write_sampler,
            carries_all,
        ),
        Format(
            "dolma",
            "dolma",
            "the mixer of the dolma toolkit",
            "a folder: the corpus as `corpus/documents/`, the plan as `corpus/attributes/carto/` row by row, and `mix.json`",
            "`dolma -c mix.json mix`, in the folder, writes the corpus without what the plan drops.",
            "dolma",
            programs.DOLMA,
            write_dolma,
            carries_drops,
            holds_texts=True,
            language="bash",
        ),
        Format(
            "datatrove",
            "datatrove",
            "a `LambdaFilter` in a datatrove pipeline",
            "one JSONL file: `id` and `reason` of what to drop",
            "Filter by `id`; the reason goes along to what the pipeline excludes.",
            "datatrove.jsonl",
            programs.DATATROVE,
            lists.write_datatrove,
            carries_drops,
        ),
        Format(
            "nemo",
            "NeMo-Curator",
            "`TextDuplicatesRemovalStage` of NeMo-Curator",
            "one Parquet file: `id` and `reason` of what to drop, sorted by `id`",
            'Give it as `ids_to_remove_path`, with `duplicate_id_field="id"`; the corpus\'s `id` must be a text too.',
            "nemo.parquet",
            programs.NEMO,
            lists.write_nemo,
            carries_drops,
        ),
        Format(
            "megatron",
            "Megatron blend",
            "`--data-args-path` of Megatron-LM",
            "a folder: the kept rows by quadrant, each as often as it is drawn, and `blend.txt` with the share of each in tokens",
            "Run `preprocess_data.py` on each file, then train with `blend.txt`; loss weights become shares of whole quadrants.",
            "megatron",
            programs.MEGATRON,
            mixtures.write_megatron,
            mixtures.folded,
            holds_texts=True,
        ),
        Format(
            "mosaicml",
            "MosaicML streams",
            "`StreamingDataset` of MosaicML's streaming",
            "a folder: a streaming dataset for each quadrant, each row as often as it is drawn, and `streams.json`",
            "Give each folder as a `Stream` with its `choose`; loss weights become shares of whole quadrants.",
            "mosaicml",
            programs.MOSAICML,
            mixtures.write_mosaicml,
            mixtures.folded,
            holds_texts=True,
        ),
    )
}
