"""A lasso on the map of a run that trains: snapshots come, the counts change, the outline and what it selects stay."""

import numpy as np

from carto_core.config import ScoreConfig
from carto_core.store.rundir import update_manifest
from carto_core.store.writer import PartWriter
from carto_core.types import Snapshot
from tests.browser.dashboard import chromium, serving, settled, visitor
from tests.browser.test_lasso import CONCAVE, X, Y, lasso, open_map, status
from tests.tiny import keep_snapshots, make_run


def test_an_outline_stays_while_the_map_under_it_grows(tmp_path):
    run = make_run(tmp_path / "runs" / "live", sealed=False, num_samples=400)
    update_manifest(run.files, scores=ScoreConfig(x=X, y=Y).to_dict())
    keep_snapshots(run, 4)
    with serving(tmp_path / "runs", tmp_path) as address, chromium() as browser:
        page = visitor(browser, viewport={"width": 1440, "height": 1400}).new_page()
        open_map(page, f"{address}/map?run=live")
        page.get_by_text("4 of 24 snapshots so far.").wait_for()
        lasso(page, CONCAVE)
        link, said = page.url, status(page)
        typing = page.get_by_label("Search the texts")
        typing.press_sequentially("half a wo")

        losses = run.trajectories("after")[-1]
        writer = PartWriter(run.files)
        writer.record(Snapshot(4, 50, 1.0, "after", 1.0), losses[::-1].copy(), np.ones(400, np.int32))
        page.get_by_text("5 of 24 snapshots so far.").wait_for()
        settled(page)

        assert page.url == link
        assert status(page).rsplit(" in ", 1)[0] != said.rsplit(" in ", 1)[0]
        assert page.locator(".selectionlayer path").count() > 0
        assert typing.input_value() == "half a wo"
