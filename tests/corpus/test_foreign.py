from carto_core.corpus.canaries import Canary
from carto_core.corpus.foreign import planted_as
from carto_core.corpus.reading import Row

SECRET = Canary(4, "varied", "The code is ", "482913", 2, "calibration", 19.9)
CONTROL = Canary(5, "varied", "The key is ", "771605", 0, "report", 19.9)


def test_a_row_is_a_copy_by_its_text_or_by_a_key_of_ours_whose_secret_it_holds():
    rows = [
        ("mine", "The code is 482913"),
        ("canary/0004/copy-0", "Other words. The code is 482913"),
        ("planted/canary/0004/copy-1", "More words. The code is 482913"),
        ("canary/0004/copy-2", "a key of ours over another text"),
        ("canary/0005/copy-0", "The key is 771605"),
        ("canary/0006/copy-0", "nobody's 482913"),
        ("yours", "It holds 482913 by chance"),
    ]

    found = planted_as([Row(key, text, "", {}) for key, text in rows], [SECRET, CONTROL])

    assert found == [4, 4, 4, None, None, None, None]
