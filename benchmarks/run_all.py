"""Every figure of the README, one after the other: `make bench`. Takes about half an hour, mostly retrains."""

from benchmarks import demo_cost, logging_cost, map_scale, pruning

if __name__ == "__main__":
    for script in (map_scale, logging_cost, demo_cost, pruning):
        print(f"\n== {script.__name__}\n{script.__doc__}")
        script.main()
