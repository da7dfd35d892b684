import json

import numpy as np
import pytest
from stores import SHAPE, linear, product, symbols_of

from nec.coding import Tables, encode
from nec.store import CorruptStreamError
from nec.store.codec import Band, Codec, LinearCodec, ProductCodec, RawCodec, codec_from_config
from nec.store.packing import Zstd


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


@pytest.mark.parametrize("wrong", [-1, 5, 2**31 - 1])
def test_a_code_without_a_centroid_is_refused_when_coded_and_when_read(wrong: int) -> None:
    codec = product()
    symbols = symbols_of(codec, 2)
    symbols[1, 3] = wrong
    for refused in (codec.encode, codec.dequantize):
        with pytest.raises(ValueError, match="number of a centroid"):
            refused(symbols)
    streams = encode(symbols, codec.tables, codec.contexts)  # the tables can say it, by escape
    with pytest.raises(CorruptStreamError, match="no centroid"):
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
