"""Of a second reader, written from docs/format.md alone: the kinds of codec, in float64."""

import base64
import io
import struct
import zlib
from itertools import chain

import numpy as np
from numcodecs import Zstd
from second_coder import Grid, Stream, parse_neighbours, parse_plain_tables, sha256, varint


def parse_streams(streams, config):
    numbers, expected = zlib.decompress(base64.b64decode(config.pop("data"))), config.pop("sha256")
    assert sha256(config, b"\0" + numbers) == expected
    return KINDS[config["kind"]](streams, config, numbers)


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
    assert all(0 <= code < k for image in symbols for code in image)
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


def parse_sum(streams, config, numbers):
    left, parts, total = io.BytesIO(numbers), [], 0
    for i, part in enumerate(config["parts"]):
        own = []
        for n, stream in enumerate(streams):
            size, at = varint(stream, 0) if i + 1 < len(config["parts"]) else (len(stream), 0)
            assert at + size <= len(stream)
            own.append(stream[at : at + size])
            streams[n] = stream[at + size :]
        header = part["header"]
        assert header["kind"] != "sum" and header["shape"] == config["shape"]
        symbols, y_hat = KINDS[header["kind"]](own, header, left.read(part["bytes"]))
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


KINDS = {
    "raw": parse_raw,
    "linear": parse_linear,
    "product": parse_product,
    "vector": parse_vector,
    "transform": parse_transform,
    "sum": parse_sum,
}
