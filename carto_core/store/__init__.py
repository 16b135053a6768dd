"""What was seen: run directories, the part writer, the sealed DuckDB file and the one reader that hides which.

Importing the package itself loads nothing heavy. Use the modules: `rundir` (files, no database), `writer` (parts;
needs pyarrow only), `sealed` (the DuckDB file), `reader` (what everybody else should use).
"""
