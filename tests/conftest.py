"""A run that was really trained, once for all tests that need one: about two seconds."""

import functools

import pytest
from streamlit.components.v2 import manifest_scanner

from carto_core.store.reader import open_run
from carto_core.workflows.auditing import audit_run
from carto_core.workflows.training import train_run
from tests.texts import sentences, tiny_config, write_jsonl


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """A trained, sealed, scored and audited run with duplicates and canaries. Read only: copy it to change it."""
    root = tmp_path_factory.mktemp("runs")
    corpus = write_jsonl(root / "corpus.jsonl", sentences(120) + [f"{s} {s}" for s in sentences(12)] * 3)
    train_run(tiny_config(corpus, epochs=4, losses="both"), root / "trained")
    run = open_run(root / "trained")
    audit_run(run)
    return run


@pytest.fixture(scope="session", autouse=True)
def _components_are_looked_for_once():
    """Every new `AppTest` reads the metadata of all installed packages, which is most of the time that a page test takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            manifest_scanner, "scan_component_manifests", functools.cache(manifest_scanner.scan_component_manifests)
        )
        yield
