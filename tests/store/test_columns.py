import pytest

from carto_core.errors import TrajectoryError
from carto_core.store.columns import Named, guess


@pytest.mark.parametrize(
    ("names", "form", "key", "read"),
    [
        (["key", "snapshot", "loss", "num_tokens"], "long", "key", ["snapshot", "loss", "num_tokens"]),
        (["ID", "Epoch", "NLL"], "long", "ID", ["Epoch", "NLL"]),
        (["id", "key", "step", "loss", "lr"], "long", "key", ["step", "loss"]),
        (["guid", "loss_2", "loss_10", "loss_0"], "wide", "guid", ["loss_0", "loss_2", "loss_10"]),
        (["idx", "epoch 1", "epoch 0.5", "note"], "wide", "idx", ["epoch 0.5", "epoch 1"]),
        (["id", "0", "1", "2"], "wide", "id", ["0", "1", "2"]),
        (["id", "epoch_0_loss", "epoch_1_loss", "epoch_0_acc", "epoch_1_acc"], "wide", "id", ["epoch_0_loss", "epoch_1_loss"]),
        (["guid", "logits_epoch_1", "logits_epoch_0", "gold"], "logits", "guid", ["gold", "logits_epoch_0", "logits_epoch_1"]),
    ],
)  # fmt: skip
def test_names_give_away_what_stands_where(names, form, key, read):
    layout = guess(names, Named())

    assert (layout.form, layout.key) == (form, key)
    assert layout.columns == [key, *read]
    assert set(layout.left_out) == set(names) - {key, *read}


@pytest.mark.parametrize(
    ("names", "named", "says"),
    [
        (["id", "uid", "epoch", "loss"], Named(), "'id' or 'uid'; say which with --key-column"),
        (["id", "epoch", "step", "loss"], Named(), "'epoch' or 'step'; say which with --snapshot-column"),
        (["id", "epoch", "nll", "xent"], Named(), "'nll' or 'xent'; say which with --loss-column"),
        (["id", "epoch", "loss", "tokens", "n_tokens"], Named(), "--tokens-column"),
        (["id", "loss_0", "loss_1", "nll_0", "nll_1"], Named(), "say which with --wide"),
        (["id", "epoch", "loss", "loss_0", "loss_1"], Named(), "--loss-column, or with --wide"),
        (["id", "a", "b"], Named(), "no column of snapshots is known"),
        (["id", "epoch", "b"], Named(), "no column of losses is known"),
        (["who", "epoch", "loss"], Named(), "name it with --key-column"),
        ([], Named(), "columns: none"),
        (["id", "epoch", "loss"], Named(key="who"), "--key-column: there is no column 'who' (columns: 'id', "),
        (["id", "epoch", "loss"], Named(loss="epoch"), "'epoch' cannot hold two things"),
        (["id", "a", "b"], Named(wide="c*"), "no column is like 'c*'"),
        (["id", "a", "b"], Named(wide="[ab]"), "'a' holds no number"),
        (["id", "a1", "a01"], Named(wide="a*"), "two columns of one snapshot: 'a1', 'a01'"),
    ],
)
def test_what_the_names_leave_open_is_told_with_the_flag_that_decides(names, named, says):
    with pytest.raises(TrajectoryError) as told:
        guess(names, named)

    assert says in str(told.value)


def test_what_is_named_is_taken_and_saves_the_question():
    names = ["id", "uid", "epoch", "step", "loss", "l1", "l2"]

    long = guess(names, Named(key="uid", snapshot="step", loss="loss"))
    wide = guess(names, Named(key="uid", wide="l[0-9]"))

    assert long.columns == ["uid", "step", "loss"]
    assert long.counts_steps
    assert wide.columns == ["uid", "l1", "l2"]
    assert Named(key="uid", wide="l*").is_whole
    assert not Named(key="uid", snapshot="step").is_whole
    lines = guess(names, Named(key="uid", snapshot="epoch", loss="loss")).lines()
    assert "left out    id, step, l1, l2" in lines
