"""Train a tiny run with a pause at every snapshot, so that a test can kill it in between."""

import sys
import time

from carto_core.store.writer import PartWriter
from carto_core.workflows.training import train_run
from tests.texts import tiny_config

if __name__ == "__main__":
    record = PartWriter.record

    def slowly(self, snapshot, losses, num_tokens):
        record(self, snapshot, losses, num_tokens)
        time.sleep(0.2)

    PartWriter.record = slowly
    train_run(tiny_config(sys.argv[1], epochs=12, snapshots=24), sys.argv[2])
