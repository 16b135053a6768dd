"""One module a page, and what several pages share: `chosen` (the selection), `table` (rows of texts), `detail` (one sample)."""
