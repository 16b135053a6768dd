"""One script a figure of the README: each prints a table and can be run by anyone."""
