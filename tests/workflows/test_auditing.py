import json
import shutil

import pytest

from carto_core.errors import UnknownNameError
from carto_core.store.reader import open_run
from carto_core.workflows.auditing import audit_run


@pytest.fixture
def run(trained_run, tmp_path):
    shutil.copytree(trained_run.files.path, tmp_path / "copy")
    return open_run(tmp_path / "copy")


def test_an_audit_takes_its_options(run):
    audit_run(run, ["exposure"], options={"exposure": {"num_references": 7, "searches": False}})

    written = json.loads((run.files.audits / "exposure.json").read_text())
    assert written["summary"]["num_references"] == 7
    assert "rank_exact" not in written["per_item"][0]


def test_an_option_that_an_audit_does_not_have_is_named(run):
    with pytest.raises(
        UnknownNameError, match="option of the audit exposure 'references'; choose one of: budget, controls, num_ref"
    ):
        audit_run(run, ["exposure"], options={"exposure": {"references": 7}})
    with pytest.raises(UnknownNameError, match="unknown audit 'exposures'"):
        audit_run(run, options={"exposures": {}})
    with pytest.raises(UnknownNameError, match="it has no options"):
        audit_run(run, options={"natural": {"width": 3}})
