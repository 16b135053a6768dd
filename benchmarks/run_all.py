"""Every figure of the README, one after the other: `make bench`. Takes hours, nearly all of it retrains; interrupt it as you like."""

from benchmarks import (
    demo_cost,
    detectors,
    estimate_speed,
    logging_cost,
    map_scale,
    measure_throughput,
    paper_table,
    preview_fidelity,
)

if __name__ == "__main__":
    for script in (
        map_scale,
        estimate_speed,
        measure_throughput,
        logging_cost,
        demo_cost,
        detectors,
        paper_table,
        preview_fidelity,
    ):
        print(f"\n== {script.__name__}\n{script.__doc__}")
        script.main()
