"""The loss of every token, and what the model writes after a canary's prefix: `audits/tokens.parquet`.

Written by the audit job, so that no page needs a model.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from carto_core.audits.subject import Subject
from carto_core.corpus.prepared import Tokens
from carto_core.tasks.decoding import continuation_losses, greedy
from carto_core.types import AuditResult, Float32


def audit_tokens(subject: Subject) -> AuditResult:
    """Return how many tokens there are; `token_table` gives them."""
    return AuditResult(
        name="tokens",
        definition="Loss of every token of every training sample under the final weights, in nats; for a canary the "
        "losses of its secret and the model's own continuation. The values are in tokens.parquet.",
        summary={"num_samples": len(subject.corpus.train), "num_tokens": len(subject.corpus.train.ids)},
    )


def token_table(subject: Subject) -> pa.Table:
    """Return `sample_id, canary_id, pieces, losses, decoded`: one row a training sample, then one a canary.

    `pieces` are the slices of the text that the tokens stand for, `losses` float32 in nats, one each. A sample's row has
    no canary_id and nothing decoded; a canary's row has no sample_id, and is about the secret given its prefix.
    """
    return pa.concat_tables([_sample_rows(subject), _canary_rows(subject)])


SCHEMA = pa.schema(
    [
        ("sample_id", pa.int32()),
        ("canary_id", pa.int32()),
        ("pieces", pa.list_(pa.string())),
        ("losses", pa.list_(pa.float32())),
        ("decoded", pa.string()),
    ]
)


def _sample_rows(subject: Subject) -> pa.Table:
    corpus = subject.corpus
    losses = corpus.task(subject.config).token_losses(subject.model, subject.device)
    num_samples = len(corpus.texts)
    return pa.table(
        {
            "sample_id": np.arange(num_samples, dtype=np.int32),
            "canary_id": pa.nulls(num_samples, pa.int32()),
            "pieces": [corpus.tokenizer.pieces(text) for text in corpus.texts],
            "losses": _lists(losses, corpus.train),
            "decoded": pa.nulls(num_samples, pa.string()),
        },
        schema=SCHEMA,
    )


def _lists(losses: Float32, tokens: Tokens) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(tokens.offsets.astype(np.int32)), pa.array(losses))


def _canary_rows(subject: Subject) -> pa.Table:
    corpus, tokens = subject.corpus, subject.canary_tokens
    bos_id, device = corpus.tokenizer.bos_id, subject.device
    decoded = greedy(subject.model, [p for p, _ in tokens], [len(s) for _, s in tokens], bos_id=bos_id, device=device)
    losses = [continuation_losses(subject.model, p, [s], bos_id=bos_id, device=device)[0] for p, s in tokens]
    return pa.table(
        {
            "sample_id": pa.nulls(len(tokens), pa.int32()),
            "canary_id": pa.array([canary.canary_id for canary in corpus.canaries], pa.int32()),
            "pieces": [[corpus.tokenizer.decode([token]) for token in secret] for _, secret in tokens],
            "losses": losses,
            "decoded": [corpus.tokenizer.decode(ids) for ids in decoded],
        },
        schema=SCHEMA,
    )
