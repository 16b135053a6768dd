"""What a command is killed in: a process with torch loaded to fork from, and the runs that commands start from."""

import pytest

from benchmarks.killing import start_forkserver, undisturbed
from benchmarks.kills import make_verbs


class Bench:
    """Commands by name, and what each does and leaves undisturbed."""

    def __init__(self, root):
        self.root, self.context, self.usual = root, start_forkserver(), {}
        self.verbs = make_verbs(self.context, root)

    def expected(self, name):
        if name not in self.usual:
            self.usual[name] = undisturbed(self.context, self.verbs[name], self.root / f"undisturbed-{name}")
        return self.usual[name]


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("bench"))
