"""A text with every token on a colour that tells its loss, as HTML in which nothing of the text is markup."""

from __future__ import annotations

import html
from collections.abc import Sequence

# Vermillion where the model knows the token, fading to none where it does not: memorized spans stand out.
KNOWN = (213, 94, 0)
UNKNOWN_NATS = 4.0


def tokens_html(pieces: Sequence[str], losses: Sequence[float]) -> str:
    """Return the text as HTML; the lower a token's loss, the stronger its colour.

    Args:
        pieces: slices of the text, in order.
        losses: nats, one each.
    """
    spans = [
        f'<span style="background:rgba({KNOWN[0]},{KNOWN[1]},{KNOWN[2]},{strength(loss):.2f})" '
        f'title="{loss:.2f} nats">{html.escape(piece)}</span>'
        for piece, loss in zip(pieces, losses, strict=True)
    ]
    return f'<div style="line-height:1.9;white-space:pre-wrap;overflow-wrap:anywhere">{"".join(spans)}</div>'


def strength(loss: float) -> float:
    """Return how strongly a token is coloured, in [0, 0.75]: full at 0 nats, none from 4 nats on."""
    return 0.75 * max(0.0, 1 - loss / UNKNOWN_NATS)
