import base64
import json
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from stores import SHAPE, linear, product, summed, symbols_of, transform, vector

from nec.coding import Tables, encode
from nec.store import CorruptStreamError
from nec.store.base import config_hash
from nec.store.codec import (
    Band,
    Codec,
    LinearCodec,
    ProductCodec,
    RawCodec,
    SumCodec,
    codec_from_config,
)
from nec.store.packing import PLAIN, Packing, Zstd
from nec.store.transform import ACTIVITIES


def test_symbols_come_back_from_their_streams(codec: Codec) -> None:
    symbols = symbols_of(codec, 7)
    assert np.array_equal(codec.decode(codec.encode(symbols)), symbols)


def test_no_image_is_no_stream(codec: Codec) -> None:
    nothing = np.zeros((0, codec.length), np.int32)
    assert codec.encode(nothing) == []
    assert codec.decode([]).shape == nothing.shape
    assert codec.dequantize(nothing).shape == (0, *codec.shape)


def test_a_codec_restored_from_its_configuration_is_the_same(codec: Codec) -> None:
    restored = codec_from_config(json.loads(json.dumps(codec.to_config())))
    symbols = symbols_of(codec, 5)
    assert restored.sha256 == codec.sha256
    assert restored.encode(symbols) == codec.encode(symbols)
    assert np.array_equal(restored.dequantize(symbols), codec.dequantize(symbols))


def test_a_codec_shows_what_it_is_and_has_its_tables_last(codec: Codec) -> None:
    names, values = zip(*codec.rows(), strict=True) if codec.kind != "raw" else ((), ())
    assert len(set(names)) == len(names)
    assert all(text and text.isprintable() for text in (*names, *values))
    assert codec.tables is None or codec.described()[1].endswith(codec.tables.plain)


def test_y_hat_does_not_depend_on_the_batch(codec: Codec) -> None:
    symbols = symbols_of(codec, 33)
    alone = np.concatenate([codec.dequantize(row[None]) for row in symbols])
    assert np.array_equal(alone, codec.dequantize(symbols), equal_nan=True)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_raw_floats_are_kept_bit_by_bit(dtype: str) -> None:
    codec = RawCodec(SHAPE, dtype)
    values = np.random.default_rng(0).normal(size=(4, *SHAPE)).astype(dtype)
    values[0, 0, 0] = [np.inf, -0.0]
    patterns = values.reshape(4, -1).view("u2" if dtype == "float16" else "i4").astype(np.int32)
    assert np.array_equal(codec.dequantize(codec.decode(codec.encode(patterns))), values)


def test_linear_synthesis_is_what_its_formula_says() -> None:
    codec = linear(tables=False, pooled=True)
    symbols = symbols_of(codec, 2)
    pooled, full = codec.bands
    coarse = symbols[:, :3, None] * pooled.steps[:, None] + pooled.offsets[:, None]  # (2, 3, 1)
    fine = symbols[:, 3:].reshape(2, SHAPE[0], -1) * full.steps[:, None]
    expected = codec.bias[:, None] + pooled.basis.T @ coarse + fine
    assert np.allclose(codec.dequantize(symbols).reshape(2, SHAPE[0], -1), expected, atol=1e-5)


@pytest.mark.parametrize("key", ["kind", "version", "shape", "data", "sha256"])
def test_a_changed_configuration_is_refused(codec: Codec, key: str) -> None:
    config = codec.to_config()
    changes = {
        "kind": "magic",
        "version": 99,
        "shape": [SHAPE[0] + 1, *SHAPE[1:]],
        "data": "AAAA" + config["data"][4:],
        "sha256": "0" * 64,
    }
    with pytest.raises(ValueError, match="codec"):
        codec_from_config({**config, key: changes[key]})


def test_a_stream_of_another_length_is_refused() -> None:
    codec = RawCodec(SHAPE, "float16")
    with pytest.raises(CorruptStreamError, match="bytes"):
        codec.decode([b"\0" * 5])


@pytest.mark.parametrize(
    "symbols",
    [
        np.zeros((2, 3), np.int32),
        np.zeros(SHAPE, np.int32),
        np.zeros((2, 36), np.float32),
        np.full((1, 36), 2**40),
    ],
)
def test_what_is_not_symbols_of_the_codec_is_refused(symbols: np.ndarray) -> None:
    with pytest.raises(ValueError, match="symbol"):
        RawCodec(SHAPE, "float32").encode(symbols)


def test_bytes_hold_no_symbol_beyond_a_byte() -> None:
    codec = linear(tables=False)
    symbols = np.full((1, codec.length), 128, np.int32)
    with pytest.raises(ValueError, match="-128"):
        codec.encode(symbols)


@pytest.mark.parametrize(
    ("steps", "basis", "bias"),
    [
        (np.ones(3), np.ones((3, 5)), np.zeros(6)),
        (np.ones(3), None, np.zeros(6)),
        (np.ones(3), np.ones((3, 6)), np.zeros(5)),
        (np.array([1, np.nan, 1]), np.ones((3, 6)), np.zeros(6)),
        (np.ones(0), np.ones((0, 6)), np.zeros(6)),
    ],
)
def test_a_linear_codec_whose_parts_do_not_fit_is_refused(
    steps: np.ndarray, basis: np.ndarray | None, bias: np.ndarray
) -> None:
    with pytest.raises(ValueError, match=r"band|bias|steps"):
        LinearCodec(SHAPE, (Band(steps, np.zeros(len(steps)), basis, False),), bias, None)


def test_tables_and_a_packing_are_not_both_given() -> None:
    with pytest.raises(ValueError, match="give one alone"):
        linear(tables=True, packing=Zstd())


def test_a_packing_that_is_not_known_is_refused() -> None:
    config = RawCodec(SHAPE, "float32", Zstd()).to_config()
    for packing in ("lz4", ["zstd"], None):
        with pytest.raises(ValueError, match="codec"):
            codec_from_config({**config, "packing": packing})


def test_product_codes_mean_their_centroids() -> None:
    codec = product()
    symbols = symbols_of(codec, 2)
    y_hat = codec.dequantize(symbols)
    for image, row, column in np.ndindex(2, *SHAPE[1:]):
        codes = symbols[image].reshape(3, *SHAPE[1:])[:, row, column]
        latents = np.concatenate([codec.centroids[part, code] for part, code in enumerate(codes)])
        expected = codec.bias + latents @ codec.basis
        assert np.allclose(y_hat[image, :, row, column], expected, atol=1e-5)


def test_product_codes_are_counted_part_by_part() -> None:
    codec = product()
    symbols = symbols_of(codec, 4)
    counts = codec.code_counts(symbols).reshape(4, 3, 5)
    for image, part in np.ndindex(4, 3):
        codes = symbols[image].reshape(3, -1)[part]
        assert np.array_equal(counts[image, part], np.bincount(codes, minlength=5))


def test_a_vector_has_no_frequencies_of_codes() -> None:
    grid = product()
    alone = replace(grid, shape=(grid.shape[0], 1, 1))
    assert alone.code_counts(np.zeros((4, 3), np.int32)).shape == (4, 0)


@pytest.mark.parametrize("wrong", [-1, 5, 2**31 - 1])
def test_a_code_without_a_centroid_is_refused_when_coded_and_when_read(wrong: int) -> None:
    codec = product()
    symbols = symbols_of(codec, 2)
    symbols[1, 3] = wrong
    for refused in (codec.encode, codec.dequantize):
        with pytest.raises(ValueError, match="number of a centroid"):
            refused(symbols)
    streams = encode(symbols, codec.tables, codec.contexts)  # the tables can say it, by escape
    with pytest.raises(CorruptStreamError, match="not the number of a centroid"):
        codec.decode(streams)


@pytest.mark.parametrize(
    ("centroids", "basis", "bias", "contexts"),
    [
        ((3, 5, 3), (6, 6), 6, 3),
        ((3, 5), (6, 6), 6, 3),
        ((3, 0, 2), (6, 6), 6, 3),
        ((3, 5, 2), (6, 5), 6, 3),
        ((3, 5, 2), (6, 6), 5, 3),
        ((3, 5, 2), (6, 6), 6, 2),
    ],
)
def test_a_product_codec_whose_parts_do_not_fit_is_refused(
    centroids: tuple[int, ...], basis: tuple[int, int], bias: int, contexts: int
) -> None:
    tables = Tables.from_counts(np.ones((contexts, 5), int), np.zeros(contexts, int))
    with pytest.raises(ValueError, match=r"centroids|contexts|basis"):
        ProductCodec(SHAPE, np.zeros(centroids), np.zeros(basis), np.zeros(bias), tables)


def test_a_vector_codec_filters_the_centres_around_a_position() -> None:
    codec = vector()
    symbols = symbols_of(codec, 2)
    y_hat = codec.dequantize(symbols)
    height, width = SHAPE[1:]
    for image, row, column in np.ndindex(2, height, width):
        latents = np.zeros(4)
        for index, (down, right) in enumerate(np.ndindex(3, 3)):
            near = np.clip(row + down - 1, 0, height - 1), np.clip(column + right - 1, 0, width - 1)
            code = symbols[image].reshape(height, width)[near]
            latents += codec.centres[code] @ codec.filters[index]
        expected = 1.7 * (codec.mean[row * width + column] + latents @ codec.basis)
        assert np.allclose(y_hat[image, :, row, column], expected, atol=1e-4)


@pytest.mark.parametrize("wrong", [-1, 7, 2**31 - 1])
def test_a_code_that_a_codebook_does_not_have_is_refused(wrong: int) -> None:
    codec = vector()
    symbols = symbols_of(codec, 2)
    symbols[1, 3] = wrong
    for refused in (codec.encode, codec.dequantize):
        with pytest.raises(ValueError, match="number of a code, 0 to 6"):
            refused(symbols)


def test_any_int32_is_a_level_of_a_transform() -> None:
    codec = transform()
    symbols = symbols_of(codec, 3)
    symbols[:, ::7] = [[-(2**31)], [2**31 - 1], [2**20]]
    assert np.array_equal(codec.decode(codec.encode(symbols)), symbols)
    largest = codec.dequantize(np.full((1, codec.length), 2**31 - 1, np.int32))
    smallest = codec.dequantize(np.full((1, codec.length), -(2**31), np.int32))
    spread = np.abs(largest).max()
    assert np.allclose(smallest, -largest, atol=1e-5 * spread)


def test_levels_of_a_transform_are_priced_by_what_was_active_before() -> None:
    """Of two equal groups, the context of the second follows from the first."""
    codec = transform()
    quiet, loud = np.zeros((2, 10, 6), np.int32)
    loud[:8] = 3
    contexts = codec.all_contexts(np.stack([quiet, loud]).reshape(2, -1)).reshape(2, 10, 6)
    assert (contexts[:, :8] % ACTIVITIES == 0).all()
    classes = codec.classes[8:][:, codec.bands] * ACTIVITIES
    sums = 64 * np.array([[0], [24]]) + 16  # 8 latents of 3, in parts of 64
    bounds = np.array([3, 6, 9, 13, 20])[:, None, None] / 8 * (codec.expected + 16)
    activity = (sums >= bounds).sum(axis=0)[:, None]
    assert np.ptp(activity) > 1
    assert np.array_equal(contexts[:, 8:], classes + activity)


def test_code_length_of_a_transform_is_what_streams_take() -> None:
    codec = transform()
    symbols = symbols_of(codec, 50)
    lengths = 8 * np.array([len(stream) for stream in codec.encode(symbols)])
    assert ((lengths - codec.code_length(symbols)) < 8 + 1e-6).all()
    assert abs((lengths - codec.code_length(symbols)).mean()) < 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scale", 0.0),
        ("scale", np.nan),
        ("mean", np.zeros((5, 6))),
        ("mean", np.full((6, 6), 1e6)),
        ("centres", np.zeros((6, 4))),
        ("centres", np.zeros((7, 3))),
        ("filters", np.zeros((8, 4, 4))),
        ("basis", np.zeros((4, 5))),
        ("basis", np.zeros((0, 6))),
    ],
)
def test_a_vector_codec_whose_parts_do_not_fit_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        replace(vector(), **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scale", -1.0),
        ("scale", np.inf),
        ("mean", np.zeros((6, 5))),
        ("basis", np.zeros((10, 5))),
        ("basis", np.zeros((0, 6))),
        ("steps", np.ones(2)),
        ("steps", np.array([1.0, 0.0, 1.0])),
        ("steps", np.array([1.0, -1.0, 1.0])),
        ("steps", np.array([1.0, np.nan, 1.0])),
        ("classes", np.zeros((10, 2), int)),
        ("classes", np.full((10, 3), -1)),
        ("classes", np.full((10, 3), 256)),
        ("classes", np.full((10, 3), 0.5)),
        ("expected", np.zeros((2, 6), int)),
        ("expected", np.full((1, 6), 2**32)),
        ("shrinkage", np.zeros((4, 3))),
        ("shrinkage", np.zeros((5, 0))),
        ("shrinkage", np.zeros(5)),
        ("tables", Tables.from_laplace(np.ones(29))),
    ],
)
def test_a_transform_codec_whose_parts_do_not_fit_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        replace(transform(), **{name: value})


def described(codec: Codec, changes: dict[str, Any], numbers: bytes) -> dict[str, Any]:
    """The configuration that a writer with a defect would have made of a codec."""
    header = codec.described()[0] | changes
    data = base64.b64encode(zlib.compress(numbers)).decode()
    return {**header, "data": data, "sha256": config_hash(header, numbers)}


GRIDDED = pytest.mark.parametrize(
    "codec", [vector(), transform(), summed()], ids=["vector", "transform", "sum"]
)


@pytest.mark.parametrize(
    "codec",
    [vector(), transform(), summed(), product(), linear(tables=True), linear(tables=False)],
    ids=["vector", "transform", "sum", "product", "linear", "bytes"],
)
def test_numbers_of_another_length_are_refused(codec: Codec) -> None:
    numbers = codec._parts()[1]
    assert codec_from_config(described(codec, {}, numbers)).sha256 == codec.sha256
    cuts = [*range(0, len(numbers), 37), len(numbers) - 1]
    for changed in [*(numbers[:cut] for cut in cuts), numbers + b"\0", numbers + b"\0\0"]:
        with pytest.raises(ValueError):
            codec_from_config(described(codec, {}, changed))


@GRIDDED
@pytest.mark.parametrize("value", [0, -1, 1, 3, 11, 4.0, True, "4", None, [4], 2**40, 2**70])
def test_a_header_that_does_not_match_its_numbers_is_refused(codec: Codec, value: Any) -> None:
    header, numbers = codec._parts()
    for key in header:
        with pytest.raises(ValueError):
            codec_from_config(described(codec, {key: value}, numbers))
    with pytest.raises(ValueError):
        codec_from_config(described(codec, {"shape": [SHAPE[0], value, value]}, numbers))
    with pytest.raises(ValueError):
        codec_from_config(described(codec, {"more": value}, numbers))


@GRIDDED
def test_changed_numbers_are_refused_or_make_a_codec_that_works(codec: Codec) -> None:
    rng, numbers, refused = np.random.default_rng(0), codec._parts()[1], 0
    for place in rng.permutation(len(numbers))[:400]:
        changed = bytearray(numbers)
        changed[place] ^= 1 << rng.integers(8)
        try:
            other = codec_from_config(described(codec, {}, bytes(changed)))
        except ValueError:
            refused += 1
        else:
            symbols = symbols_of(codec, 2)
            assert np.array_equal(other.decode(other.encode(symbols)), symbols)
            assert np.isfinite(other.dequantize(symbols)).all()
    assert 0 < refused < 400


def test_a_sum_adds_up_what_its_parts_decode_and_costs_little_more() -> None:
    codec = summed()
    symbols = symbols_of(codec, 20)
    edges = np.cumsum([part.length for part in codec.parts])[:-1]
    apart = list(zip(codec.parts, np.split(symbols, edges, axis=1), strict=True))
    expected = sum(part.dequantize(own).astype(float) for part, own in apart)
    np.testing.assert_allclose(codec.dequantize(symbols), expected, rtol=1e-5, atol=1e-5)
    lengths = sum(np.array([len(s) for s in part.encode(own)]) for part, own in apart)
    added = np.array([len(stream) for stream in codec.encode(symbols)]) - lengths
    assert 2 <= added.min() <= added.max() <= 3  # a byte for lengths below 128, else two
    assert np.array_equal(codec.code_counts(symbols), vector().code_counts(apart[0][1]))
    apart_bits = sum(part.code_length(own) for part, own in apart)
    np.testing.assert_allclose(codec.code_length(symbols), apart_bits + 8 * added)


def test_a_sum_shows_the_kinds_of_its_parts() -> None:
    assert dict(summed().rows()) == {"parts": "vector, then transform, then linear"}


def test_a_stream_that_ends_in_the_first_part_of_a_sum_is_refused() -> None:
    codec = summed()
    (stream,) = codec.encode(symbols_of(codec, 1))
    for cut in (0, 1, 3):
        with pytest.raises(CorruptStreamError):
            codec.decode([stream[:cut]])


def test_a_stream_of_a_sum_has_one_form() -> None:
    codec = summed()
    (stream,) = codec.encode(symbols_of(codec, 1))
    assert stream[0] < 0x80
    with pytest.raises(CorruptStreamError, match="not written as an encoder does"):
        codec.decode([bytes([stream[0] | 0x80, 0]) + stream[1:]])


def test_a_sum_has_parts_of_one_shape_and_no_sums() -> None:
    with pytest.raises(ValueError, match="two or more"):
        SumCodec((vector(),))
    with pytest.raises(ValueError, match="one shape"):
        SumCodec((vector(), RawCodec((1, 1, 1), "float32")))
    header, numbers = SumCodec((summed(), vector()))._parts()
    with pytest.raises(ValueError, match="numbers of its parts"):
        codec_from_config(described(summed(), header, numbers))


def test_numbers_of_a_codec_that_has_none_are_refused() -> None:
    codec = RawCodec(SHAPE, "float32")
    with pytest.raises(ValueError, match="1 more bytes of numbers, its header asks for 0; copy"):
        codec_from_config(described(codec, {}, b"x"))


@pytest.mark.parametrize("packing", [PLAIN, Zstd()])
@pytest.mark.parametrize("sides", [(2**14, 2**14), (2**31, 1), (2**20, 2**20)])
def test_a_shape_that_no_image_has_is_refused(packing: Packing, sides: tuple[int, int]) -> None:
    """Nothing else bounds the grid of a codec without tables, and a hash can be made right."""
    for codec in (RawCodec(SHAPE, "float16", packing), linear(tables=False, packing=packing)):
        changes = {"shape": [SHAPE[0], *sides]}
        with pytest.raises(ValueError, match="at most 67108864 values, cut images"):
            codec_from_config(described(codec, changes, codec._parts()[1]))


def test_more_symbols_than_an_image_may_have_are_refused_by_writer_and_reader() -> None:
    many = 2**14
    band = Band(np.ones(many), np.zeros(many), np.ones((many, 1)), False)
    codec = LinearCodec((1, 2**7, 2**7), (band,), np.zeros(1), None)
    with pytest.raises(ValueError, match="268435456 symbols of an image; a codec has at most"):
        codec.to_config()
    with pytest.raises(ValueError, match="268435456 symbols of an image; a codec has at most"):
        codec_from_config(described(codec, {}, codec.described()[1]))


@pytest.mark.parametrize("step", [0.0, -1.0, np.nan, np.inf])
def test_a_step_that_is_none_is_refused_when_read(step: float) -> None:
    codec = transform()
    numbers = codec._parts()[1]
    changed = numbers[:8] + np.float32(step).tobytes() + numbers[12:]
    with pytest.raises(ValueError, match="steps"):
        codec_from_config(described(codec, {}, changed))


def test_classes_that_tables_do_not_have_are_refused_when_read() -> None:
    codec = vector()
    with pytest.raises(ValueError, match="classes reach"):
        codec_from_config(described(codec, {}, codec._parts()[1][:-2] + b"\x03\0"))
