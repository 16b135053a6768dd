"""How each format is applied: the program that a person copies, and that the round trips run.

`EXPORTED` stands for the file or folder. What else a program takes as given, it says in a comment.
"""

CSV = r"""import csv
import re

with open("EXPORTED", newline="", encoding="utf-8") as file:
    changes = {re.sub("^'('*[=+\\-@\t\r\n＝＋－＠])", r"\1", row["key"]): row for row in csv.DictReader(file)}
same = {"repeat": 1, "weight": 1}
planned = [(row, changes.get(row["id"], same)) for row in rows]  # rows: yours, each with its `id`
rows = [row | {"weight": float(p["weight"])} for row, p in planned for _ in range(int(p["repeat"]))]
"""

JSONL = """import json

with open("EXPORTED", encoding="utf-8") as file:
    changes = {row["key"]: row for row in map(json.loads, file)}
same = {"repeat": 1, "weight": 1}
planned = [(row, changes.get(row["id"], same)) for row in rows]  # rows: yours, each with its `id`
rows = [row | {"weight": p["weight"]} for row, p in planned for _ in range(p["repeat"])]
"""

PARQUET = """import pandas as pd
from torch.utils.data import DataLoader, WeightedRandomSampler

changes = pd.read_parquet("EXPORTED").set_index("key")
repeat = pd.Series(1.0, index=keys)  # keys: your dataset's keys, in its order
repeat.update(changes["repeat"].astype(float))
sampler = WeightedRandomSampler(repeat.to_numpy(), num_samples=int(repeat.sum()), replacement=True)
loader = DataLoader(dataset, batch_size=32, sampler=sampler)

weight = pd.Series(1.0, index=keys)
weight.update(changes["weight"].astype(float))
# in the loop: loss = (weight_of_batch * loss_per_sample).sum() / weight_of_batch.sum()
"""

KEYS = """with open("EXPORTED", encoding="utf-8", newline="\\n") as file:
    dropped = {line.split("\\t")[0] for line in file}
rows = [row for row in rows if row["id"] not in dropped]  # rows: yours, each with its `id`
"""

HUGGINGFACE = """import pyarrow.parquet as pq

changes = {row["id"]: row for row in pq.read_table("EXPORTED").to_pylist()}
same = {"repeat": 1, "weight": 1.0}
planned = [changes.get(key, same) for key in dataset["id"]]  # dataset: yours, with a column `id`
dataset = dataset.add_column("weight", [row["weight"] for row in planned])
dataset = dataset.select([i for i, row in enumerate(planned) for _ in range(row["repeat"])])
# to drop only: dataset.filter(lambda row: changes.get(row["id"], same)["repeat"] > 0)
# in the loop: loss = (batch["weight"] * loss_per_sample).sum() / batch["weight"].sum()
"""

SAMPLER = """import pyarrow.parquet as pq
from torch.utils.data import DataLoader, WeightedRandomSampler

table = pq.read_table("EXPORTED").to_pydict()
repeat, weight = (dict(zip(table["id"], table[name])) for name in ("repeat", "weight"))
draws = [repeat.get(key, 1.0) for key in keys]  # keys: your dataset's, in its order
sampler = WeightedRandomSampler(draws, num_samples=round(sum(draws)), replacement=True)
loader = DataLoader(dataset, batch_size=32, sampler=sampler)
# in the loop, w being `weight` of the batch's keys: loss = (w * loss_per_sample).sum() / w.sum()
"""

DOLMA = """cd EXPORTED
dolma -c mix.json mix   # writes mixed/
"""

DATATROVE = """import json

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter

with open("EXPORTED", encoding="utf-8") as file:
    dropped = {row["id"]: row["reason"] for row in map(json.loads, file)}


def keep(document):
    return (False, dropped[document.id]) if document.id in dropped else True


LocalPipelineExecutor(
    pipeline=[
        JsonlReader("corpus"),  # your folder, its rows with an `id`
        LambdaFilter(keep, exclusion_writer=JsonlWriter("dropped")),
        JsonlWriter("kept"),
    ],
    logging_dir="logs",
).run()
"""

NEMO = """from nemo_curator.stages.text.deduplication.removal import TextDuplicatesRemovalStage

stage = TextDuplicatesRemovalStage(ids_to_remove_path="EXPORTED", id_field="id", duplicate_id_field="id")
kept = stage.process(batch)  # batch: a DocumentBatch whose rows have an `id`; or pipeline.add_stage(stage)
"""

MEGATRON = """import json
from pathlib import Path

import torch
from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder
from megatron.core.datasets.utils import get_blend_from_list

# What `--data-args-path EXPORTED/blend.txt` reads; its prefixes are relative to where you start.
prefixes, weights = get_blend_from_list(Path("EXPORTED/blend.txt").read_text().split())

for prefix in prefixes:  # as tools/preprocess_data.py --input NAME.jsonl --output-prefix NAME --append-eod does
    builder = IndexedDatasetBuilder(f"EXPORTED/{prefix}.bin", dtype=DType.optimal_dtype(vocab_size))
    with open(f"EXPORTED/{prefix.removesuffix('_text_document')}.jsonl", encoding="utf-8") as file:
        for line in file:
            tokens = torch.tensor(encode(json.loads(line)["text"]))  # encode: your tokenizer's, with its end of text
            builder.add_document(tokens, [len(tokens)])
    builder.finalize(f"EXPORTED/{prefix}.idx")
"""

MOSAICML = """import json

from streaming import Stream, StreamingDataset

with open("EXPORTED/streams.json", encoding="utf-8") as file:
    streams = json.load(file)["streams"]
dataset = StreamingDataset(
    streams=[Stream(local=f"EXPORTED/{stream['local']}", choose=stream["choose"]) for stream in streams.values()],
    shuffle=True,
    batch_size=8,
)
"""
