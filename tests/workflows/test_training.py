import numpy as np

from carto_core.workflows import light


def test_a_training_counts_near_duplicates_by_itself(trained_run):
    counted = light.load_table(trained_run).scores["near_duplicates"]

    assert "near_duplicates" not in light.missing_probes(trained_run)
    samples = trained_run.samples()
    copies = samples.groupby("group_id")["sample_id"].transform("size").to_numpy()
    assert (counted >= copies - 1).all()
    assert (counted > 0).any()
    assert np.isfinite(counted).all()
