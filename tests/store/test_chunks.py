import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nec.store import CorruptStreamError
from nec.store.chunks import (
    SHARD_BYTES,
    choose_layout,
    header_bytes,
    index_bytes,
    pack_chunk,
    pack_shard,
    read_chunk,
    read_header,
    read_index,
)
from nec.store.lengths import lengths_bytes, pack_lengths, read_lengths, read_varint, varint

STREAMS = st.lists(st.binary(max_size=300), min_size=1, max_size=40)


@given(STREAMS)
def test_streams_come_back_from_their_chunk(streams: list[bytes]) -> None:
    header, found = read_chunk(pack_chunk(700, streams), 40)
    assert found == streams
    assert header.number == 700


@given(STREAMS)
def test_a_header_alone_says_where_each_stream_lies(streams: list[bytes]) -> None:
    chunk = pack_chunk(3, streams)
    header = read_header(chunk[: header_bytes(len(streams))], len(chunk), 40)
    assert header.lengths.tolist() == [len(stream) for stream in streams]


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=300))
def test_lengths_come_back(lengths: list[int]) -> None:
    packed = pack_lengths(np.array(lengths))
    assert len(packed) <= lengths_bytes(len(lengths))
    found, end = read_lengths(b"?" + packed + b"rest", 1, len(lengths))
    assert found == lengths
    assert end == 1 + len(packed)


@given(st.integers(0, 2**35 - 1), st.binary(max_size=3))
def test_a_varint_comes_back(value: int, rest: bytes) -> None:
    assert read_varint(b"?" + varint(value) + rest, 1) == (value, 1 + len(varint(value)))


@given(st.lists(st.sampled_from([0, 1, 0x7F, 0x80, 0x81, 0xFF]), max_size=7).map(bytes))
def test_a_varint_has_one_form(data: bytes) -> None:
    try:
        value, end = read_varint(data, 0)
    except CorruptStreamError:
        return
    assert varint(value) == data[:end]


def test_lengths_cost_what_they_differ_by() -> None:
    lengths = np.rint(np.random.default_rng(0).normal(35, 6, 256)).astype(int)
    entropy_bits = np.log2(6 * np.sqrt(2 * np.pi * np.e))
    assert len(pack_lengths(lengths)) < 256 * (entropy_bits + 0.5) / 8
    assert len(pack_lengths(np.full(256, 4096))) == 2 + 1 + 256 // 8


def test_every_flipped_bit_of_a_chunk_is_noticed() -> None:
    chunk = pack_chunk(3, [b"abc", b"", b"defgh"])
    for bit in range(8 * len(chunk)):
        flipped = bytearray(chunk)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptStreamError):
            read_chunk(bytes(flipped), 3)


def test_every_truncation_of_a_chunk_is_noticed() -> None:
    chunk = pack_chunk(3, [b"abc", b"", b"defgh"])
    for length in range(len(chunk)):
        with pytest.raises(CorruptStreamError):
            read_chunk(chunk[:length], 3)


@given(st.binary(max_size=60), st.integers(0, 100))
def test_any_bytes_are_a_header_or_a_named_error(data: bytes, size: int) -> None:
    try:
        assert read_header(data, size, 99).bounds[-1] < size
    except ValueError as error:
        assert "\n" not in str(error)


def test_a_chunk_of_more_images_than_there_may_be_is_refused() -> None:
    chunk = pack_chunk(0, [b""] * 100_000)
    with pytest.raises(CorruptStreamError, match="holds 100000 images and at most 256"):
        read_chunk(chunk, 256)


def test_a_chunk_of_a_later_version_asks_for_a_later_nec() -> None:
    with pytest.raises(ValueError, match="format version 9"):
        read_header(b"\x09\x00\x00", 7, 1)


def test_an_index_says_where_the_chunks_of_a_shard_lie() -> None:
    shard = pack_shard([b"abc", b"de"], slots=4)
    entries = read_index(shard[-index_bytes(4) :], 4)
    assert entries[:2].tolist() == [[0, 3], [3, 2]]
    assert (entries[2:] == 2**64 - 1).all()


@pytest.mark.parametrize("stream_bytes", [0, 1, 10, 50, 200, 1000, 4000, 36_000, 400_000, 10**7])
def test_a_layout_costs_less_than_a_percent_or_an_eighth_of_a_byte(stream_bytes: int) -> None:
    layout = choose_layout(stream_bytes)
    # Version, number, count, median and parameter of the lengths, padding, checksum, index entry.
    chunk_bytes = 1 + 2 + 2 + 2 + 1 + 1 + 4 + 16
    overhead = chunk_bytes / layout.chunk + 4 / layout.images
    assert overhead < max(0.01 * stream_bytes, 0.12)
    assert layout.shard == 1 or layout.images * stream_bytes <= SHARD_BYTES
