import pytest

from nec.data.boxes import boxes, comment_bytes


def test_a_box_has_a_length_a_long_length_or_ends_with_the_file():
    short = b"\0\0\0\x09aaaax"
    long = b"\0\0\0\x01bbbb" + b"\0" * 7 + b"\x11y"
    last = b"\0\0\0\0cccczz"
    found = [(b"aaaa", b"x"), (b"bbbb", b"y"), (b"cccc", b"zz")]
    assert list(boxes(short + long + last)) == found


@pytest.mark.parametrize("length", [9, 7])
def test_a_box_beyond_the_file_or_shorter_than_its_header_is_none(length):
    with pytest.raises(ValueError, match=f"a box of {length} bytes at byte 0 of 8"):
        list(boxes(bytes([0, 0, 0, length]) + b"mdat"))


def test_comments_are_counted_with_their_markers_up_to_the_first_tile():
    size, comment, tile = b"\xff\x51\0\x03x", b"\xff\x64\0\x05abc", b"\xff\x90"
    assert comment_bytes(b"\xff\x4f" + size + comment + comment + tile + comment) == 14
