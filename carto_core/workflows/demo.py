"""The demo run: the bundled corpus with settings that finish in minutes and leave something to see.

Tuned on calibration canaries so that extraction of inserted ones lies between 30 and 80 %; see docs/experiments.md.
"""

from __future__ import annotations

from carto_core.config import CanaryConfig, CorpusConfig, EngineConfig, ModelConfig, RunConfig

DEMO_RUN = "demo"
DEMO_PROBES = ("passes", "twin")  # what judges the scores that the map opens with


def demo_config() -> RunConfig:
    """Return the settings of the demo run."""
    return RunConfig(
        corpus=CorpusConfig(path="demo"),
        canaries=CanaryConfig(num_inserted=80),
        model=ModelConfig(embed=64, hidden=128, context=96),
        engine=EngineConfig(epochs=16, snapshots=24, learning_rate=4e-3, batch_size=32),
    )
