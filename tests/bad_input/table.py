"""All kinds of bad input that have a test, door by door."""

from tests.bad_input import commands, contract_files, corpora, run_directories, trajectories

CASES = [*commands.CASES, *corpora.CASES, *trajectories.CASES, *contract_files.CASES, *run_directories.CASES]
