"""What image files are made of: the boxes of a container, the segments of a codestream."""

from collections.abc import Iterator

# Markers of a JPEG 2000 codestream: a comment, and the first tile, where the main header ends.
COMMENT, TILE = b"\xff\x64", b"\xff\x90"


def boxes(file: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and content of the outer boxes of a file (ISO/IEC 14496-12, 15444-1).

    Raises:
        ValueError: A length is none that a box there can have.
    """
    start = 0
    while start < len(file):
        length, header = int.from_bytes(file[start : start + 4], "big"), 8
        if length == 1:  # a long length follows the kind
            length, header = int.from_bytes(file[start + 8 : start + 16], "big"), 16
        end = start + length if length else len(file)  # 0: up to the end
        if not start + header <= end <= len(file):
            raise ValueError(f"a box of {length} bytes at byte {start} of {len(file)} is none")
        yield file[start + 4 : start + 8], file[start + header : end]
        start = end


def comment_bytes(stream: bytes) -> int:
    """Count bytes of comments in the main header of JPEG 2000 (ISO/IEC 15444-1, annex A)."""
    start, comments = 2, 0  # after SOC
    while (marker := stream[start : start + 2]) != TILE:
        length = 2 + int.from_bytes(stream[start + 2 : start + 4], "big")
        comments += length * (marker == COMMENT)
        start += length
    return comments
