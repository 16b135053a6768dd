"""All kinds of bad input that have a test, door by door."""

from tests.bad_input import commands, contract_files, corpora, run_directories

CASES = [*commands.CASES, *corpora.CASES, *contract_files.CASES, *run_directories.CASES]
