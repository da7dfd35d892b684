import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs import Zstd as Compressor

from nec.store import CorruptStreamError
from nec.store.packing import LARGEST_IMAGE, Plain, Zstd

TYPES = [np.dtype(name) for name in ("i1", "<u2", "<i4")]


def values(dtype: np.dtype, length: int, images: int = 3, spread: int = 100) -> np.ndarray:
    rng = np.random.default_rng(length)
    return rng.integers(0, spread, (images, length)).astype(dtype)


@pytest.mark.parametrize("packing", [Plain(), Zstd()])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("length", [1, 2, 63, 64, 255, 256, 257, 65791, 65792])
def test_values_come_back(packing: Plain | Zstd, dtype: np.dtype, length: int) -> None:
    for spread in (1, 100, 127):
        given = values(dtype, length, spread=spread)
        assert np.array_equal(packing.unpack(packing.pack(given), dtype, length), given)


def test_a_stream_is_a_frame_of_byte_planes_without_its_header() -> None:
    given = values(np.dtype("<u2"), 500, images=1, spread=2**16)
    planes = given[0].tobytes()[::2] + given[0].tobytes()[1::2]
    header = bytes.fromhex("28b52ffd 60") + (1000 - 256).to_bytes(2, "little")
    assert Compressor().decode(header + Zstd().pack(given)[0]) == planes


def test_what_repeats_is_small_and_what_does_not_is_three_bytes_longer() -> None:
    noise = np.random.default_rng(0).integers(-128, 128, (1, 768)).astype(np.int8)
    assert len(Zstd().pack(noise)[0]) == 768 + 3
    assert len(Zstd().pack(0 * noise)[0]) < 12


@given(st.binary(max_size=60))
def test_any_bytes_are_values_or_a_named_error(stream: bytes) -> None:
    try:
        found = Zstd().unpack([stream], np.dtype("<u2"), 40)
    except CorruptStreamError:
        return
    assert found.shape == (1, 40)


@pytest.mark.parametrize("length", [99, 101, 400])
def test_a_stream_of_another_length_is_refused(length: int) -> None:
    stream = Zstd().pack(values(np.dtype("i1"), 100))[0]
    with pytest.raises(CorruptStreamError, match=f"bytes is not zstd's of {length}"):
        Zstd().unpack([stream], np.dtype("i1"), length)


def test_a_cut_or_doubled_stream_is_refused() -> None:
    stream = Zstd().pack(values(np.dtype("i1"), 100))[0]
    whole = Compressor().encode(np.zeros(100, np.uint8))
    for wrong in (b"", stream[:-1], stream[1:], stream + b"\0", stream + whole):
        with pytest.raises(CorruptStreamError):
            Zstd().unpack([wrong], np.dtype("i1"), 100)


def test_a_stream_takes_no_more_memory_than_its_values() -> None:
    bomb = Zstd().pack(np.zeros((1, LARGEST_IMAGE), np.int8))[0]
    tracemalloc.start()
    with pytest.raises(CorruptStreamError):
        Zstd().unpack([bomb], np.dtype("i1"), 1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_an_image_too_large_for_the_header_is_refused() -> None:
    with pytest.raises(ValueError, match="store them plain"):
        Zstd().pack(np.zeros((1, LARGEST_IMAGE + 1), np.int8))
    with pytest.raises(ValueError, match="store them plain"):  # and no room is made for it
        Zstd().unpack([b""], np.dtype("i1"), 1 << 60)
