"""The tests. Torch and OpenBLAS read the line below when they are loaded, so it stands before anything that loads them."""

import os

# Several test processes share the cores: two threads over products this small spin, and took seven times as long as one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
