"""GenDataCarto: which training samples a model memorizes, and what removing them does.

Importing the package loads neither torch nor duckdb nor streamlit, so that the engine and the part writer
run on machines that lack the other two.
"""

__version__ = "0.1.0"
CONTRACT_VERSION = 1
