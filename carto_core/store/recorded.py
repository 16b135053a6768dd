"""Records of foreign training loops as the contract's tables: every rank's rows reduced to one loss a sample and snapshot."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa

from carto_core.store import schema
from carto_core.store.records import RECORD, Records


def create_views(con: duckdb.DuckDBPyConnection, records: Records, *, folder: Path, samples: Path) -> None:
    """Create the views `samples` and `losses` of a recording in a connection.

    Samples are those of the corpus, in its order, then other keys that were recorded, in order (numbers first, by value);
    their texts are empty, and each is a group of its own. `num_tokens` is the mean of a sample's visits.

    Args:
        con: to a database in memory.
        records: the complete moments.
        folder: where their files are.
        samples: Parquet of `schema.SAMPLES`, the corpus as it was given; may be absent.
    """
    paths = [str(folder / name) for name in records.parts]
    if paths:
        con.read_parquet(paths).create_view("records")
    else:
        con.from_arrow(RECORD.empty_table()).create_view("records")
    if samples.is_file():
        con.read_parquet(str(samples)).create_view("known")
    else:
        con.from_arrow(schema.SAMPLES.empty_table()).create_view("known")
    moments = {
        "moment": pa.array(records.places, pa.int32()),
        "kind": pa.array([snapshot.kind for snapshot in records.snapshots], pa.string()),
        "snapshot": pa.array([snapshot.snapshot for snapshot in records.snapshots], pa.int16()),
    }
    con.from_arrow(pa.table(moments)).create_view("moments")
    # Samplers of several ranks draw some samples twice to fill the last batch: the same occurrence, seen by two ranks, is one
    # visit. Several visits of a snapshot count by their tokens, as in the engine's own losses.
    con.execute(
        """
        create view visits as
          select key, moment, kind, occurrence, sum(loss::double * num_tokens) / sum(num_tokens) as loss, avg(num_tokens) as tokens
          from records group by all;
        create view seen as
          select key, round(avg(tokens))::integer as num_tokens from visits group by key;
        create view others as
          select key, row_number() over (order by try_cast(key as bigint) nulls last, key) - 1 as place
          from seen where key not in (select key from known);
        create view samples as
          select sample_id, key, text, source, group_id, coalesce(seen.num_tokens, known.num_tokens) as num_tokens, canary_id, meta
          from known left join seen using (key)
          union all
          select (place + (select count(*) from known))::integer, key, '', '',
            (place + (select coalesce(max(group_id) + 1, 0) from known))::integer, seen.num_tokens, null, '{}'
          from others join seen using (key);
        create view losses as
          select sample_id, snapshot, (sum(visits.loss * tokens) / sum(tokens))::float as loss
          from visits join moments using (moment, kind) join samples using (key) group by all;
        """
    )
