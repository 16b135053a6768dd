"""How the map grows: size of the figure, and time for raster and lasso, for 2,500 to 1,000,000 samples.

python -m benchmarks.map_scale
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from carto_core.plots.map import MAX_MARKERS, Marks, full_extent, map_figure
from carto_core.plots.palette import LIGHT, by_quadrant
from carto_core.quadrants import Cuts, assign, counts
from carto_core.selection import inside

SIZES = (2_500, 50_000, 1_000_000)
NOTCHED = [[1.0, 0.1], [3.0, 0.1], [3.0, 0.6], [2.0, 0.3], [1.0, 0.6]]


def main() -> None:
    """Print one line a size; medians of five."""
    print(f"{'samples':>10} {'figure kB':>10} {'figure ms':>10} {'lasso ms':>9}")
    for size in SIZES:
        rng = np.random.default_rng(0)
        x, y = rng.normal(2, 0.7, size), rng.beta(2, 5, size)
        quadrant = assign(x.astype(np.float32), y.astype(np.float32), tau_x=2.5, tau_y=0.4)
        sampled = np.arange(min(size, MAX_MARKERS))

        def draw(
            x: np.ndarray = x, y: np.ndarray = y, quadrant: np.ndarray = quadrant, sampled: np.ndarray = sampled
        ) -> str:
            return map_figure(
                x,
                y,
                cuts=Cuts("difficulty", "memorization", 2.5, 0.4),
                colouring=by_quadrant(quadrant),
                counts=counts(quadrant),
                extent=full_extent(x, y),
                sampled=sampled,
                hover=["a sample"] * len(sampled),
                outlines=[],
                marks=Marks(),
                theme=LIGHT,
            ).to_json()

        def lasso(x: np.ndarray = x, y: np.ndarray = y) -> None:
            inside(x, y, [NOTCHED])

        print(f"{size:10,} {len(draw()) / 1000:10.0f} {_median_ms(draw):10.0f} {_median_ms(lasso):9.1f}")


def _median_ms(work: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - began))
    return float(np.median(times))


if __name__ == "__main__":
    main()
