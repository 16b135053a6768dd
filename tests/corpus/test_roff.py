import pytest

from carto_core.corpus.roff import page_paragraphs


@pytest.mark.parametrize(
    ("source", "paragraphs"),
    [
        ("one\ntwo\n.PP\nthree\n\nfour", ["one two", "three", "four"]),
        ('.BR read (2), " write " (2)\n.B a b', ["read(2), write (2) a b"]),
        ('.BI "int open(const char *" path ", int " flags );', ["int open(const char *path, int flags);"]),
        (".TP\n.B O_APPEND\nThe file is opened.", ["O_APPEND The file is opened."]),
        ('.IP "first tag" 4\nbody\n.IP \\[bu] 3\nnext', ["first tag body", "* next"]),
        (r"a \fIpath\fP, \f[B]bold\f[R], \s-2small\s+2, \[aq]q\[aq], \(lqx\(rq, \-1, 1\~2, \\n \en", None),
        ("before\n.TS\nallbox;\nl l.\na\tb\n.TE\nafter", ["before after"]),
        (".de XX\nhidden\n..\nseen", ["seen"]),
        (".if n \\{\\\nhidden\n.\\}\nseen", ["seen"]),
        (".ie n \\{\nhidden\n.if t \\{\nhidden\n.\\}\nhidden\n.\\}\nseen", ["seen"]),
        ('seen \\" why\n.\\" all of it\n\'\\" this too\nmore', ["seen more"]),
        ("a long \\\nline", ["a long line"]),
        (".ad l\n.nh\nseen\n.in +4n\n.EX\ncode();\n.EE", ["seen", "code();"]),
        ("\\(lqx\\(rq \\*(lqy\\*(rq \\[u00E9] \\[nosuch]z", ['"x" "y" é z']),
    ],
)
def test_a_page_becomes_plain_paragraphs(source, paragraphs):
    wanted = paragraphs or ["a path, bold, small, 'q', \"x\", -1, 1 2, \\n \\n"]

    assert [text for _, text in page_paragraphs(source)] == wanted


def test_paragraphs_know_their_section():
    source = '.TH x 1\n.SH NAME\nx\n.SH "RETURN VALUE"\nnone\n.SS Linux\nstill none'

    assert list(page_paragraphs(source)) == [("NAME", "x"), ("RETURN VALUE", "none"), ("RETURN VALUE", "still none")]
