"""A second reader, written from docs/format.md alone; nec only writes, and is compared with."""

import base64
import hashlib
import io
import json
import struct
import zlib
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from numcodecs import Zstd
from stores import summed, symbols_of

from nec.coding import CorruptStreamError, Neighbours, Tables, decode
from nec.store import EmbeddingStore, chunks
from nec.store.codec import Band, LinearCodec, RawCodec, TransformCodec, VectorCodec
from nec.store.packing import PLAIN
from nec.store.packing import Zstd as Packed

GOLDEN = Path(__file__).parents[1] / "golden"


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return struct.pack("<I", crc ^ 0xFFFFFFFF)


def sha256(value, more=b""):
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode() + more).hexdigest()


def parse_tables(data):
    """(offset, frequencies, dominant) of each context, and the sha256."""
    return parse_plain_tables(data[:9] + zlib.decompress(data[9:]))


def parse_plain_tables(data):
    version, count, symbols = struct.unpack_from("<BII", data)
    plain, columns = data[9:], symbols + 1
    assert version == 1 and len(plain) == count * (4 + 2 * columns)
    low, high = plain[4 * count : -count * columns], plain[-count * columns :]
    tables = []
    for k, offset in enumerate(struct.unpack_from(f"<{count}i", plain)):
        numbers = [low[i] + 256 * high[i] for i in range(k * columns, (k + 1) * columns)]
        marked = numbers.index(0xFFFF)
        numbers[marked] = 0
        drops = [max((n >> 5) - 1, 0) for n in numbers]
        frequencies = [(n - 32 * d) << d for n, d in zip(numbers, drops, strict=True)]
        frequencies[marked] = left = 2**24 - sum(frequencies)
        dominant = frequencies.index(max(frequencies))
        d = max(left.bit_length() - 6, 0)
        assert left >= 0 < frequencies[-1] and (left >> d << d != left or marked == dominant)
        tables.append((offset, frequencies, dominant))
    return tables, hashlib.sha256(data).hexdigest()


class Stream:
    def __init__(self, data):
        assert data[-1:] != b"\xff"
        self.data, self.at, self.width = data, 0, 2**56
        self.code = self.take(7)

    def take(self, count):
        self.at += count
        return int.from_bytes(self.data[self.at - count : self.at].ljust(count, b"\xff"), "big")

    def narrow(self, below, width):
        self.code, self.width = self.code - below, width
        while self.width < 2**40:
            self.code, self.width = self.code << 16 | self.take(2), self.width << 16

    def symbol(self, offset, frequencies, i):
        unit, rest = self.width >> 24, 2**24 - frequencies[i]
        if self.code >= unit * rest:
            self.narrow(unit * rest, self.width - unit * rest)
        else:
            others = [*frequencies[:i], 0, *frequencies[i + 1 :]]
            i = start = 0
            while start + others[i] <= self.code // unit:
                i, start = i + 1, start + others[i]
            self.narrow(unit * start, unit * others[i])
        if i == len(frequencies) - 1:
            c = self.bits(6)
            v, left = min(c, 1), c - 1
            while left > 0:
                n = (left - 1) % 16 + 1
                v, left = v << n | self.bits(n), left - n
            i = v >> 1 ^ -(v & 1)
        assert -(2**31) <= offset + i < 2**31
        return offset + i

    def bits(self, n):
        part, most = self.width >> n, 2**n - 1
        b = min(self.code // part, most)
        self.narrow(part * b, self.width - part * b if b == most else part)
        return b

    def read(self, tables):
        symbols = [self.symbol(*table) for table in tables]
        behind = self.at - len(self.data)
        assert behind >= 0
        if behind < 7:
            u = 256**behind
            assert self.width - u <= self.code < (self.data[-1] + 1) * u
        return symbols


def varint(data, at):
    end = next(i for i in range(at, at + 5) if data[i] < 128) + 1
    return sum((data[i] & 127) << 7 * (i - at) for i in range(at, end)), end


def parse_chunk(data, number):
    assert crc32c(data[:-4]) == data[-4:] and data[0] == 1
    found, at = varint(data, 1)
    n, at = varint(data, at)
    assert found == number
    median, at = varint(data, at)
    k, bits = data[at], "".join(f"{byte:08b}" for byte in data[at + 1 :])
    lengths, place = [], k * n
    for i in range(n):
        one = bits.index("1", place)
        z = (one - place) << k | int("0" + bits[k * i :][:k], 2)
        lengths.append(median + (z >> 1 ^ -(z & 1)))
        place = one + 1
    size = -(-place // 8)
    assert "1" not in bits[place : 8 * size]
    assert at + 1 + size + sum(lengths) + 4 == len(data)
    body = io.BytesIO(data[at + 1 + size :])
    return [body.read(length) for length in lengths]


def parse_store(path):
    """Symbols and y_hat, and how many chunks there are, in all and in a shard."""
    group = json.loads((path / "zarr.json").read_bytes())
    arrays = {f.parent.name: json.loads(f.read_bytes()) for f in path.glob("*/zarr.json")}
    expected = group["attributes"]["nec"].pop("sha256")
    assert sha256({"group": group, "arrays": arrays}) == expected
    array = arrays["embedding"]
    images, sharding = array["shape"][0], array["codecs"][0]["configuration"]
    chunk, grid = sharding["chunk_shape"][0], array["chunk_grid"]["configuration"]["chunk_shape"]
    streams, total, slots = [], -(-images // chunk), grid[0] // chunk
    for number in range(total):
        shard = (path / f"embedding/c/{number // slots}/0/0/0").read_bytes()
        index = shard[-16 * slots - 4 :]
        assert crc32c(index[:-4]) == index[-4:]
        offset, size = struct.unpack_from("<QQ", index, 16 * (number % slots))
        streams += parse_chunk(shard[offset : offset + size], number)
        assert len(streams) == min((number + 1) * chunk, images)
    return *parse_streams(streams, sharding["codecs"][0]["configuration"]), total, slots


def parse_streams(streams, config):
    numbers, expected = zlib.decompress(base64.b64decode(config.pop("data"))), config.pop("sha256")
    assert sha256(config, b"\0" + numbers) == expected
    kinds = {
        "raw": parse_raw,
        "linear": parse_linear,
        "product": parse_product,
        "vector": parse_vector,
        "transform": parse_transform,
        "sum": parse_sum,
    }
    return kinds[config["kind"]](streams, config, numbers)


def unpacked(stream, config, size, length):
    """Bytes of each of the length values of size bytes."""
    if "packing" in config:
        assert config["packing"] == "zstd"
        n = size * length
        if n < 256:
            header = struct.pack("<BB", 0x20, n)
        elif n < 65792:
            header = struct.pack("<BH", 0x60, n - 256)
        else:
            header = struct.pack("<BI", 0xA0, n)
        stream = Zstd().decode(b"\x28\xb5\x2f\xfd" + header + stream)
        stream = b"".join(stream[i::length] for i in range(length))
    assert len(stream) == size * length
    return stream


def parse_raw(streams, config, numbers):
    assert numbers == b""
    shape, half = config["shape"], config["dtype"] == "float16"
    found = [unpacked(s, config, 2 if half else 4, int(np.prod(shape))) for s in streams]
    symbols = [np.frombuffer(s, "<u2" if half else "<i4").tolist() for s in found]
    y_hat = [np.frombuffer(s, "<f2" if half else "<f4") for s in found]
    return symbols, np.array(y_hat, np.float32).reshape(-1, *shape)


def parse_product(streams, config, numbers):
    (channels, rows, columns), p = config["shape"], config["shape"][1] * config["shape"][2]
    m, k, w = config["parts"], config["centroids"], config["width"]
    values = np.frombuffer(numbers[: 4 * (channels + m * w * channels + m * k * w)], "<f4")
    tables = parse_plain_tables(numbers[values.nbytes :])[0]
    bias, values = values[:channels], values[channels:]
    basis, centroids = values[: m * w * channels].reshape(m * w, channels), values[-m * k * w :]
    symbols = [Stream(stream).read([t for t in tables for _ in range(p)]) for stream in streams]
    y_hat = np.zeros((len(streams), channels, p))
    for (image, position), _ in np.ndenumerate(y_hat[:, 0]):
        codes = symbols[image][position::p]
        latents = [centroids.reshape(m, k, w)[i, code] for i, code in enumerate(codes)]
        y_hat[image, :, position] = bias + basis.T @ np.concatenate(latents)
    return symbols, y_hat.reshape(-1, channels, rows, columns)


def parse_linear(streams, config, numbers):
    (channels, rows, columns), left = config["shape"], io.BytesIO(numbers)

    def floats(*shape):
        return np.frombuffer(left.read(4 * int(np.prod(shape))), "<f4").reshape(shape)

    bias, bands = floats(channels, 1), []
    for band in config["bands"]:
        m, p = band["latents"], 1 if band["pooled"] else rows * columns
        scale = floats(m, 1), floats(m, 1)
        bands.append((m, p, *scale, floats(m, channels) if band["basis"] else np.eye(m)))
    if config["tables"]:
        tables = iter(parse_plain_tables(left.read())[0])
        order = [t for m, p, *_ in bands for _ in range(m) for t in [next(tables)] * p]
        symbols = [Stream(stream).read(order) for stream in streams]
    else:
        length = sum(m * p for m, p, *_ in bands)
        found = [unpacked(stream, config, 1, length) for stream in streams]
        symbols = [np.frombuffer(stream, np.int8).tolist() for stream in found]
    assert not left.read()
    y_hat = np.zeros((len(streams), channels, rows * columns), np.float32) + bias
    for out, values in zip(y_hat, symbols, strict=True):
        for m, p, step, offset, basis in bands:
            latents, values = np.array(values[: m * p], np.float32), values[m * p :]
            out += basis.T @ (latents.reshape(m, p) * step + offset)
    return symbols, y_hat.reshape(-1, channels, rows, columns)


class Grid(Stream):
    """A stream of a grid of symbols given their neighbours."""

    def weighted(self, weights):
        unit, start, i = self.width // sum(weights), 0, 0
        while i < len(weights) - 1 and start + weights[i] <= self.code // unit:
            start, i = start + weights[i], i + 1
        last = i == len(weights) - 1
        self.narrow(unit * start, self.width - unit * start if last else unit * weights[i])
        return i

    def read_grid(self, rows, columns, left, up, classes):
        found = []
        for p in range(rows * columns):
            a = classes[found[-1]] if p % columns else len(left) - 1
            b = classes[found[p - columns]] if p >= columns else len(left) - 1
            products = [f * g for f, g in zip(left[a], up[b], strict=True)]
            drop = max(sum(products).bit_length() - 28, 0)
            found.append(self.weighted([1 + (product >> drop) for product in products]))
        self.read([])  # the end
        return found


def parse_neighbours(data):
    """Frequencies of left and up, without escapes, and classes."""
    parts = []
    for _ in range(2):
        _, count, symbols = struct.unpack_from("<BII", data)
        size = 9 + count * (4 + 2 * (symbols + 1))
        tables, _ = parse_plain_tables(data[:size])
        assert not any(offset for offset, *_ in tables)
        parts.append([frequencies[:-1] for _, frequencies, _ in tables])
        data = data[size:]
    classes = struct.unpack(f"<{len(data) // 2}H", data)
    assert len(classes) == symbols and max(classes) < count - 1
    return *parts, classes


def parse_sum(streams, config, numbers):
    left, parts, total = io.BytesIO(numbers), [], 0
    for i, part in enumerate(config["parts"]):
        own = []
        for n, stream in enumerate(streams):
            size, at = varint(stream, 0) if i + 1 < len(config["parts"]) else (len(stream), 0)
            own.append(stream[at : at + size])
            streams[n] = stream[at + size :]
        kinds = {"vector": parse_vector, "transform": parse_transform, "linear": parse_linear}
        kind = kinds[part["header"]["kind"]]
        symbols, y_hat = kind(own, part["header"], left.read(part["bytes"]))
        parts, total = [*parts, symbols], total + y_hat
    assert not left.read()
    return [list(chain(*rows)) for rows in zip(*parts, strict=True)], total


def parse_vector(streams, config, numbers):
    (channels, rows, columns), left = config["shape"], io.BytesIO(numbers)
    k, m = config["codes"], config["latents"]

    def halves(*shape):
        return np.frombuffer(left.read(2 * int(np.prod(shape))), "<f2").reshape(shape).astype(float)

    (scale,) = struct.unpack("<f", left.read(4))
    mean, centres = halves(rows * columns, channels), halves(k, m)
    filters, basis = halves(3, 3, m, m), halves(m, channels)
    tables = parse_neighbours(left.read())
    symbols = [Grid(stream).read_grid(rows, columns, *tables) for stream in streams]
    y_hat = np.zeros((len(streams), channels, rows, columns))
    for i, row, column in np.ndindex(len(streams), rows, columns):
        z = np.zeros(m)
        for down, right in np.ndindex(3, 3):
            y = min(max(row + down - 1, 0), rows - 1)
            x = min(max(column + right - 1, 0), columns - 1)
            z += centres[symbols[i][y * columns + x]] @ filters[down, right]
        y_hat[i, :, row, column] = scale * (mean[row * columns + column] + z @ basis)
    return symbols, y_hat


def band(u, v, size):
    edges = [1, 2, 3, 4, 6, 9, 16]
    while edges[-1] < size:
        edges.append(2 * edges[-1])
    return sum(edge <= max(u, v) for edge in edges)


def cosine(n, frequency, place):
    norm = 1 / n if frequency == 0 else 2 / n
    return norm**0.5 * np.cos(np.pi * frequency * (2 * place + 1) / (2 * n))


def parse_transform(streams, config, numbers):
    (channels, rows, columns), left = config["shape"], io.BytesIO(numbers)
    m, r, p = config["latents"], config["levels"], rows * columns
    bands = [band(u, v, max(rows, columns)) for u in range(rows) for v in range(columns)]
    starts = [0, *(edge for edge in (8, 32, 96) if edge < m)]

    def array(dtype, *shape):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer(left.read(size), dtype).reshape(shape)

    scale, steps = array("<f4", 1)[0], array("<f4", max(bands) + 1)
    expected = array("<u4", len(starts) - 1, p).tolist()
    classes = array("u1", m, max(bands) + 1).tolist()
    mean, basis = array("<f2", p, channels), array("<f2", m, channels)
    shrinkage = array("<f2", max(map(max, classes)) + 1, r + 1)
    tables, _ = parse_plain_tables(left.read())
    assert len(tables) == 6 * len(shrinkage)
    symbols, y_hat = [], np.zeros((len(streams), channels, rows, columns))
    for stream, out in zip(map(Stream, streams), y_hat, strict=True):
        levels, sums, activity = [], [0] * p, [0] * p
        for j, f in np.ndindex(m, p):
            if f == 0 and j in starts[1:]:
                e = expected[starts.index(j) - 1]
                shares = [(8 * (64 * sums[f] + 16), e[f] + 16) for f in range(p)]
                activity = [sum(s >= b * t for b in (3, 6, 9, 13, 20)) for s, t in shares]
            levels.append(stream.symbol(*tables[6 * classes[j][bands[f]] + activity[f]]))
            sums[f] += min(abs(levels[-1]), 3)
        stream.read([])  # the end
        symbols.append(levels)
        z = np.zeros((m, p))
        for (j, f), q in zip(np.ndindex(m, p), levels, strict=True):
            below = shrinkage[classes[j][bands[f]], min(abs(q), r)]
            value = np.sign(q) * (abs(q) - float(below)) * steps[bands[f]]
            for y, x in np.ndindex(rows, columns):
                cosines = cosine(rows, f // columns, y) * cosine(columns, f % columns, x)
                z[j, y * columns + x] += value * cosines
        out[:] = (scale * (mean + z.T @ basis)).T.reshape(out.shape)
    return symbols, y_hat


def test_the_golden_stream():
    data = Tables.from_laplace([0.1, 1.0, 3.0]).to_bytes()
    tables, identity = parse_tables(data)
    assert data[:1] + bytes.fromhex(identity) == (GOLDEN / "tables_format_1.bin").read_bytes()
    stream, contexts = (GOLDEN / "stream_format_1.bin").read_bytes(), np.arange(500) % 3
    expected = decode([stream], Tables.from_bytes(data), contexts, 500)[0].tolist()
    assert Stream(stream).read([tables[k] for k in contexts]) == expected


def test_any_bytes_are_the_same_symbols_or_refused_by_both():
    frozen, contexts = Tables.from_laplace([0.6, 3.0]), np.arange(8) % 2
    tables = [parse_tables(frozen.to_bytes())[0][k] for k in contexts]
    rng, accepted = np.random.default_rng(0), 0
    for stream in map(rng.bytes, rng.integers(0, 6, 1000)):
        try:
            expected = decode([stream], frozen, contexts, 8)[0].tolist()
        except CorruptStreamError:
            with pytest.raises(AssertionError):
                Stream(stream).read(tables)
        else:
            assert Stream(stream).read(tables) == expected
            accepted += 1
    assert accepted > 10


def test_a_store_of_many_chunks_and_escapes(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "SHARD_BYTES", 20_000)
    rng, images = np.random.default_rng(0), 600
    pooled = Band(rng.uniform(0.5, 2, 2), rng.normal(size=2), rng.normal(size=(2, 3)), True)
    full = Band(rng.uniform(0.1, 1, 3), rng.normal(size=3), None, False)
    counts = rng.integers(0, 2 ** rng.integers(1, 30, (5, 13)))
    counts[1] = 0  # nothing but escapes
    tables = Tables.from_counts(counts, [-6] * 5)
    codec = LinearCodec((3, 2, 2), (pooled, full), rng.normal(size=3), tables)
    symbols = np.rint(rng.laplace(0, 3, (images, codec.length))).astype(np.int32)
    symbols[rng.random(symbols.shape) < 0.02] = -(2**31)
    symbols[rng.random(symbols.shape) < 0.02] = 2**31 - 1
    attrs = {"key \x7f\x1f\n": [1.0, 1e16, 1e-5, 0.1, -0.0, "é"]}
    with EmbeddingStore.create(tmp_path / "s", codec, attrs, classes=["a"]) as store:
        for part in np.split(np.arange(images), [150, 400]):
            store.append(symbols[part], [f"ü{i}" for i in part], ["test"] * len(part), 0 * part)
    found, y_hat, total, slots = parse_store(tmp_path / "s")
    assert total > slots > 1
    assert found == symbols.tolist()
    expected = EmbeddingStore.open(tmp_path / "s").read(range(images))
    np.testing.assert_allclose(y_hat, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("packing", [PLAIN, Packed()])
@pytest.mark.parametrize("channels", [1, 90, 20_000])  # so that zstd's headers differ
def test_stores_without_tables(tmp_path, packing, channels):
    rng = np.random.default_rng(channels)
    band = Band(rng.uniform(0.5, 2, channels), rng.normal(size=channels), None, False)
    bias = rng.normal(size=channels)
    codecs = [RawCodec((channels, 2, 2), dtype, packing) for dtype in ("float16", "float32")]
    for number, codec in enumerate(
        [*codecs, LinearCodec((channels, 2, 2), (band,), bias, None, packing)]
    ):
        symbols = rng.integers(0, 60, (5, codec.length), np.int32)
        with EmbeddingStore.create(tmp_path / f"{number}", codec, {}, classes=["a"]) as store:
            store.append(symbols, [f"{i}" for i in range(5)], ["test"] * 5, [0] * 5)
        found, y_hat, *_ = parse_store(tmp_path / f"{number}")
        assert found == symbols.tolist()
        np.testing.assert_allclose(y_hat, codec.dequantize(symbols), rtol=1e-5, atol=1e-5)


def sparse_counts(rng, *shape):
    return rng.integers(0, 2 ** rng.integers(1, 20, shape))


@pytest.mark.parametrize(("codes", "grid"), [(2, (1, 1)), (7, (5, 7)), (40, (3, 4))])
def test_stores_of_codes_given_their_neighbours(tmp_path, codes, grid):
    rng = np.random.default_rng(codes)
    classes = rng.permutation(np.arange(codes) % 5)
    size = int(classes.max()) + 2
    tables = [Tables.from_counts(sparse_counts(rng, size, codes), [0] * size) for _ in range(2)]
    numbers = [(grid[0] * grid[1], 4), (codes, 3), (9, 3, 3), (3, 4)]
    arrays = [rng.normal(size=shape) for shape in numbers]
    codec = VectorCodec((4, *grid), 2.5, *arrays, Neighbours(*tables, classes))
    check_second_reader(tmp_path / "s", codec, rng.integers(0, codes, (6, codec.length)))


@pytest.mark.parametrize(
    ("latents", "grid", "bands"), [(2, (1, 1), 1), (9, (5, 7), 6), (33, (2, 3), 3), (1, (18, 1), 8)]
)
def test_stores_of_transforms(tmp_path, latents, grid, bands):
    rng, p = np.random.default_rng(latents), grid[0] * grid[1]
    classes = rng.integers(0, 4, (latents, bands))
    classes[0, 0] = 3
    groups = sum(edge < latents for edge in (8, 32, 96))
    arrays = {
        "mean": rng.normal(size=(p, 4)),
        "basis": rng.normal(size=(latents, 4)),
        "steps": rng.uniform(0.1, 2, bands),
        "classes": classes,
        "expected": rng.integers(0, 2000, (groups, p)),
        "shrinkage": rng.uniform(0, 0.4, (4, 3)),
        "tables": Tables.from_counts(sparse_counts(rng, 24, 9), [-4] * 24),
    }
    codec = TransformCodec((4, *grid), 0.3, **arrays)
    symbols = np.rint(rng.laplace(0, 1.5, (6, codec.length))).astype(np.int32)
    symbols[0, :2] = [-(2**20), 2**20]
    check_second_reader(tmp_path / "s", codec, symbols)


def test_stores_of_sums(tmp_path):
    codec = summed()
    check_second_reader(tmp_path / "s", codec, symbols_of(codec, 6))


def check_second_reader(path, codec, symbols):
    with EmbeddingStore.create(path, codec, {}, classes=["a"]) as store:
        count = len(symbols)
        store.append(symbols, [f"{i}" for i in range(count)], ["test"] * count, [0] * count)
    found, y_hat, *_ = parse_store(path)
    assert found == symbols.tolist()
    expected = EmbeddingStore.open(path).read(range(count))
    scale = np.abs(expected).max(axis=(1, 2, 3), keepdims=True)
    assert (np.abs(y_hat - expected) < 1e-5 * scale).all()


@pytest.mark.parametrize("name", ["", "coded_", "product_", "zstd_", "vector_", "transform_"])
def test_the_golden_stores(name):
    path = GOLDEN / f"{name}store_format_1.zarr"
    store = EmbeddingStore.open(path)
    found, y_hat, *_ = parse_store(path)
    assert found == store.read_symbols(range(len(store))).tolist()
    np.testing.assert_allclose(y_hat, store.read(range(len(store))), rtol=1e-5, atol=1e-5)
