"""The verb `audit-model`: a model that somebody else trained, read over its corpus, becomes a run with a map and audits."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from carto_core.audits import AUDITS
from carto_core.audits.subject import Subject
from carto_core.config import CanaryConfig, CorpusConfig, EngineConfig, ModelConfig, Precision, RunConfig
from carto_core.corpus.canaries import Canary
from carto_core.corpus.foreign import foreign_canaries, foreign_rows, planted_as
from carto_core.corpus.identity import duplicate_groups
from carto_core.corpus.reading import Row, corpus_sha256
from carto_core.corpus.tokens import Tokens
from carto_core.engine.device import pick_device
from carto_core.engine.run_corpus import RunCorpus
from carto_core.errors import CorpusError, ModelError, RunCorrupt, RunError
from carto_core.probes.passes import text_columns
from carto_core.store.columns import NUMBER
from carto_core.store.probes import write_probe
from carto_core.store.reader import Run
from carto_core.store.records import LocalFolder, RecordWriter, Visits, begin_recording
from carto_core.store.rundir import RunDir, making_run, this_process, update_manifest
from carto_core.store.writer import write_table
from carto_core.tasks.foreign import ForeignModel, load_foreign, model_sha256, require_safe
from carto_core.tasks.language import LanguageTask
from carto_core.types import Float32, Progress
from carto_core.workflows.auditing import audit_subject
from carto_core.workflows.progress import ProgressFile, device_slot, stoppable
from carto_core.workflows.recording import seal_files

CHUNK_TOKENS = 65_536  # measured between two moments at which the work can go on after it was stopped
MORE_AUDITS = ("verbatim", "tokens")


@dataclass(frozen=True, kw_only=True)
class ModelAudit:
    """What is asked for.

    Attributes:
        folders: of the model's checkpoints, in order of training; the last one is audited.
        corpus: a file or folder of texts.
        text_column: of the corpus.
        key_column: of the corpus; None takes `key`.
        canaries: a table of canaries that were planted in it; None = none.
        context: tokens that are read in one go; None takes what the model allows, at most 1,024.
        precision: of the weights.
        device: `auto`, `cpu` or `cuda`.
        threads: of torch on the CPU.
        more: names of `MORE_AUDITS` to run as well.
    """

    folders: Sequence[str | Path]
    corpus: str | Path
    text_column: str = "text"
    key_column: str | None = None
    canaries: str | Path | None = None
    context: int | None = None
    precision: Precision = "float32"
    device: Any = "auto"
    threads: int = 1
    more: Sequence[str] = ()

    @cached_property
    def paths(self) -> list[Path]:
        """The folders, each looked at; see `require_safe`."""
        return [require_safe(folder) for folder in self.folders]

    @cached_property
    def rows(self) -> list[Row]:
        """The corpus."""
        return foreign_rows(self.corpus, text_column=self.text_column, key_column=self.key_column)

    @cached_property
    def planted(self) -> list[Canary]:
        """The canaries."""
        return [] if self.canaries is None else foreign_canaries(self.canaries)

    @cached_property
    def models(self) -> list[dict[str, str]]:
        """Name and hash of each checkpoint, as `run.json` keeps them."""
        return [{"name": path.absolute().name, "sha256": model_sha256(path)} for path in self.paths]

    @property
    def steps(self) -> list[int]:
        """The step of each checkpoint: the number in its folder's name where all have one and these rise, else its place."""
        found = [NUMBER.search(model["name"]) for model in self.models]
        steps = [int(float(number[0])) for number in found if number]
        rise = all(a < b for a, b in itertools.pairwise(steps))
        return steps if len(steps) == len(found) and rise else list(range(len(found)))

    def config(self, context: int) -> RunConfig:
        """Return what our audits read of a run's settings."""
        return RunConfig(
            corpus=CorpusConfig(path=str(self.corpus)),
            canaries=CanaryConfig(num_inserted=0),
            model=ModelConfig(task="gpt", context=context),
            engine=EngineConfig(device=self.device, threads=self.threads),
        )


def audit_model(asked: ModelAudit, out: str | Path, *, resume: bool = False) -> dict[str, Any]:
    """Read a model's checkpoints over its corpus, one snapshot each, audit the last one, and make a run of it.

    Per sample: the loss, and of the last checkpoint Min-K%, Min-K%++ and recitation. Audits: `natural`, and `extraction`
    (greedy decoding) where canaries are given; others as asked for. Stopped, it goes on with `resume` where it was.

    Args:
        asked: models, corpus and settings.
        out: the run directory to make, or to go on with.
        resume: go on with the run that is there.

    Returns:
        `run, num_samples, num_snapshots, audits` (summaries by name), `notes`.

    Raises:
        ModelError: a model cannot be loaded, or should not be, or checkpoints do not belong together.
        CorpusError: the corpus or the table of canaries cannot be read.
        RunExists, RunError: `out` is there already; or `resume`, and it is of other models, texts or settings, or done.
        Cancelled: stopped; what was measured is kept.
    """
    if len(asked.folders) == 0:
        raise ModelError("give the folder of a model")
    _require_one_tokenizer(asked.paths)
    device = pick_device(asked.device, threads=asked.threads)
    if not asked.rows:
        raise CorpusError(f"{asked.corpus} holds no text")
    run = _resumed(asked, out) if resume else _begun(asked, out)
    progress = ProgressFile(run.progress)
    with stoppable(), device_slot(run, progress, work="audit of a model"), _left_resumable(run):
        subject, notes = _measured(asked, run, device, progress)
        found = _audited(asked, run, subject, progress)
        shutil.rmtree(_chunks(run), ignore_errors=True)
        summary = seal_files(run)
        progress("complete", 1, 1)
    return summary | {"audits": found, "notes": notes + summary["notes"]}


def _begun(asked: ModelAudit, out: str | Path) -> RunDir:
    with making_run(out) as run:
        run.records.mkdir()
        origin = {"kind": "measured", "by": f"audit of the model {asked.models[-1]['name']}", "ranks": 1}
        begin_recording(
            LocalFolder(run.path),
            asked.rows,
            run_id=Path(out).absolute().name,
            origin=origin | _facts(asked),
            canaries=asked.planted,
        )
    return RunDir(Path(out).absolute())


def _facts(asked: ModelAudit) -> dict[str, Any]:
    """Return what a resumed audit must have in common with what is there."""
    wanted = {} if asked.context is None else {"context": asked.context}
    return {"models": asked.models, "precision": asked.precision} | wanted


def _resumed(asked: ModelAudit, out: str | Path) -> RunDir:
    run = Run(RunDir(Path(out).absolute()))
    manifest = run.manifest
    origin = manifest.get("origin", {})
    if run.is_sealed or origin.get("kind") != "measured":
        raise RunError(f"{out} cannot be gone on with: it is complete, or no audit of a model; choose another --out")
    same = {name: origin.get(name) for name in ("models", "precision")} == {
        "models": asked.models,
        "precision": asked.precision,
    }
    if not same or asked.context not in (None, origin.get("context")):
        raise RunError(f"{out} was begun with other models or settings; give the same ones, or choose another --out")
    if manifest["corpus_sha256"] != corpus_sha256(asked.rows):
        raise RunError(f"{out} was begun with another corpus; give the same one, or choose another --out")
    update_manifest(run.files, status="running", error=None, **this_process())
    return run.files


def _require_one_tokenizer(paths: Sequence[Path]) -> None:
    """Raise ModelError where checkpoints have different tokenizers; one that has none takes the last one's."""
    found = {(path / "tokenizer.json").read_bytes(): path for path in paths if (path / "tokenizer.json").is_file()}
    if len(found) > 1:
        names = " and ".join(str(path) for path in list(found.values())[:2])
        raise ModelError(
            f"{names} have different tokenizers, so their losses cannot be compared; give checkpoints of one model"
        )


@contextmanager
def _left_resumable(run: RunDir) -> Iterator[None]:
    """Leave what was measured to be gone on with when the work ends early; nothing where nothing was."""
    try:
        yield
    except BaseException as error:
        if _chunks(run).is_dir():
            update_manifest(run, status="interrupted", error=str(error) or type(error).__name__)
        else:
            shutil.rmtree(run.path, ignore_errors=True)
        raise


def _measured(asked: ModelAudit, run: RunDir, device: Any, progress: Progress) -> tuple[Subject, list[str]]:
    """Record every checkpoint's losses and the last one's probe; return what audits look at, and notes."""
    writer = RecordWriter(LocalFolder(run.records))
    foreign, tokens = None, None
    for number, path in enumerate(asked.paths):
        is_last = number == len(asked.paths) - 1
        if number < len(writer.moments) and not is_last:
            continue
        progress(f"loading {path.name}", 0, 1)
        foreign = None  # or two models would be in memory
        foreign = load_foreign(path, asked.paths[-1], device, precision=asked.precision, context=asked.context)
        if tokens is None:
            tokens = Tokens.encode([row.text for row in asked.rows], foreign.tokenizer)
        elif int(tokens.ids.max(initial=0)) >= foreign.vocab_size:
            raise ModelError(f"the model in {path} has another vocabulary than the ones before it")
        columns = _in_chunks(asked, run, foreign, tokens, number=number, progress=progress)
        if number >= len(writer.moments):
            seen = Visits([row.key for row in asked.rows], [columns["loss"]], [tokens.lengths])
            writer.write({"after": seen}, step=asked.steps[number], epoch=number + 1.0, wall_s=0.0)
        if is_last:
            del columns["loss"]
            write_probe(run, "passes", columns)
    assert foreign is not None
    assert tokens is not None
    facts = {"context": foreign.context, "begins_with": foreign.tokenizer.begins_with}
    update_manifest(run, origin=Run(run).manifest["origin"] | facts)
    return _subject(asked, foreign, tokens, device)


def _in_chunks(
    asked: ModelAudit, run: RunDir, foreign: ForeignModel, tokens: Tokens, *, number: int, progress: Progress
) -> dict[str, Float32]:
    """Return float32[N] columns of one checkpoint: loss, and of the last one what `text_columns` gives; measured ones are kept."""
    bounds = np.searchsorted(tokens.offsets, np.arange(0, tokens.offsets[-1], CHUNK_TOKENS)[1:])
    bounds = np.unique([0, *bounds, len(tokens)]).tolist()
    tables = []
    for chunk, (start, stop) in enumerate(itertools.pairwise(bounds)):
        progress(f"reading the corpus with {asked.models[number]['name']}", float(start), float(len(tokens)))
        path = _chunks(run) / f"{number:05d}-{chunk:06d}.parquet"
        if not path.is_file():
            part = Tokens(
                tokens.ids[tokens.offsets[start] : tokens.offsets[stop]],
                tokens.offsets[start : stop + 1] - tokens.offsets[start],
            )
            is_last = number == len(asked.paths) - 1
            write_table(pa.table(_columns(asked, foreign, part, whole=is_last)), path)
        tables.append(_read_chunk(path, num_rows=stop - start))
    whole = pa.concat_tables(tables)
    return {name: whole[name].to_numpy().astype(np.float32) for name in whole.column_names}


def _columns(asked: ModelAudit, foreign: ForeignModel, part: Tokens, *, whole: bool) -> dict[str, Float32]:
    config = asked.config(foreign.context).model
    task = LanguageTask(config, part, vocab_size=foreign.vocab_size, bos_id=foreign.tokenizer.bos_id)
    device = next(foreign.parameters()).device
    if not whole:
        return {"loss": task.measure(foreign, device)}
    seen = task.token_statistics(foreign, device)
    total = np.add.reduceat(np.append(seen.loss.astype(np.float64), 0.0), part.offsets[:-1])
    lengths = part.lengths
    loss = np.where(lengths > 0, total / np.maximum(lengths, 1), np.nan).astype(np.float32)
    return {"loss": loss} | text_columns(seen, part.offsets)


def _chunks(run: RunDir) -> Path:
    """Where measured parts of a checkpoint lie until the run is sealed."""
    return run.path / "measuring"


def _read_chunk(path: Path, *, num_rows: int) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise RunCorrupt(f"{path} cannot be read: {error}; remove it, and it is measured again") from None
    if table.num_rows != num_rows:
        raise RunCorrupt(
            f"{path} has {table.num_rows} rows in place of {num_rows}; remove it, and it is measured again"
        )
    return table


def _subject(asked: ModelAudit, foreign: ForeignModel, tokens: Tokens, device: Any) -> tuple[Subject, list[str]]:
    ids = planted_as(asked.rows, asked.planted)
    canaries = [canary for canary in asked.planted if _can_be_asked(canary, foreign)]
    notes = []
    if unasked := len(asked.planted) - len(canaries):
        notes.append(
            f"{unasked} of {len(asked.planted)} canaries were not asked for: in this tokenizer the secret's tokens do not "
            "follow the prefix's, or there are more than the model reads."
        )
    if absent := sum(canary.inserted and canary.canary_id not in ids for canary in asked.planted):
        notes.append(f"{absent} canaries that should be planted stand in no row of the corpus.")
    corpus = RunCorpus(
        texts=[row.text for row in asked.rows],
        group_id=duplicate_groups([row.text for row in asked.rows]),
        canary_id=np.array([np.nan if canary_id is None else canary_id for canary_id in ids], np.float64),
        train=tokens,
        validation=Tokens(np.empty(0, np.int32), np.zeros(1, np.int64)),
        validation_texts=[],
        canaries=canaries,
        words=[],
        tokenizer=foreign.tokenizer,
    )
    return Subject(foreign, device, asked.config(foreign.context), corpus), notes


def _can_be_asked(canary: Canary, foreign: ForeignModel) -> bool:
    prefix, whole = foreign.tokenizer.encode_many([canary.prefix, canary.text])
    return len(prefix) < len(whole) < foreign.context and whole[: len(prefix)] == prefix


def _audited(asked: ModelAudit, run: RunDir, subject: Subject, progress: Progress) -> dict[str, Any]:
    """Run the audits and return their summaries."""
    names = ["natural", *(["extraction"] if asked.planted else []), *asked.more]
    results = {}
    for done, name in enumerate(names):
        progress(f"audit: {AUDITS[name].title}", done, len(names))
        options = {"searches": False} if name == "extraction" else {}
        results[name] = audit_subject(run, name, subject, options)["summary"]
    return results
