import html
import math
import re

import pytest

from carto_core.plots.tokens import strength, tokens_html

PIECES = ["<script>", "alert(1)", "</script>", ' "a" & ', "'b'\n", "$x^2$"]


def test_nothing_of_the_text_is_markup():
    found = tokens_html(PIECES, [0.0] * 6)

    assert set(re.findall(r"</?(\w+)", found)) == {"div", "span"}
    assert html.unescape(re.sub(r"<[^>]*>", "", found)) == "".join(PIECES)


def test_a_token_that_the_model_knows_is_stronger():
    assert strength(0.0) == 0.75
    assert strength(0.0) > strength(1.0) > strength(3.9) > strength(4.0) == strength(9.0) == 0.0


def test_the_loss_of_a_token_is_said():
    assert 'title="1.50 nats"' in tokens_html(["a"], [1.5])


def test_an_unknown_loss_has_no_colour():
    assert strength(math.nan) == 0.0


def test_pieces_and_losses_must_match():
    with pytest.raises(ValueError, match="shorter"):
        tokens_html(["a", "b"], [1.0])
