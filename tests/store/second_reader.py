"""A second reader of stores, written from docs/format.md alone: no module of it imports nec."""

import io
import json
import struct
from typing import NamedTuple

import numpy as np
from numcodecs import Zstd
from second_codecs import parse_streams
from second_coder import sha256, varint

INDEX = ("id", "split", "label")


class Found(NamedTuple):
    """Of one layer."""

    symbols: list
    y_hat: np.ndarray
    chunks: int
    slots: int


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return struct.pack("<I", crc ^ 0xFFFFFFFF)


def parse_metadata(path):
    """Names of the layers, and the zarr.json of all arrays."""
    group = json.loads((path / "zarr.json").read_bytes())
    own = group["attributes"]["nec"]
    layers, expected = own.get("layers", ["embedding"]), own.pop("sha256")
    assert own["version"] == 1 and layers[0] == "embedding" and len(set(layers)) == len(layers)
    arrays = {
        name: json.loads((path / name / "zarr.json").read_bytes()) for name in (*layers, *INDEX)
    }
    assert sha256({"group": group, "arrays": arrays}) == expected
    return layers, arrays


def parse_store(path, layer="embedding"):
    """What one layer holds; no shard of the others is looked at."""
    layers, arrays = parse_metadata(path)
    assert layer in layers
    array, named = arrays[layer], "" if layer == "embedding" else f"{layer}_"
    own = [f"{named}{word}" for word in ("channel", "row", "column")]
    assert array["dimension_names"] == ["image", *own]
    images, sharding = array["shape"][0], array["codecs"][0]["configuration"]
    assert images == arrays["id"]["shape"][0]
    chunk, grid = sharding["chunk_shape"][0], array["chunk_grid"]["configuration"]["chunk_shape"]
    streams, total, slots = [], -(-images // chunk), grid[0] // chunk
    for number in range(total):
        shard = (path / f"{layer}/c/{number // slots}/0/0/0").read_bytes()
        index = shard[-16 * slots - 4 :]
        assert crc32c(index[:-4]) == index[-4:]
        offset, size = struct.unpack_from("<QQ", index, 16 * (number % slots))
        streams += parse_chunk(shard[offset : offset + size], number)
        assert len(streams) == min((number + 1) * chunk, images)
    return Found(*parse_streams(streams, sharding["codecs"][0]["configuration"]), total, slots)


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


def parse_index(path):
    """Ids, splits and labels, these two by name."""
    _, arrays = parse_metadata(path)
    columns = []
    for name, dtype in zip(INDEX, (None, "u1", "<i4"), strict=True):
        images = arrays[name]["shape"][0]
        (chunk,) = arrays[name]["chunk_grid"]["configuration"]["chunk_shape"]
        assert chunk == min(images, 65536)
        values = []
        for number in range(-(-images // chunk)):
            packed = (path / f"{name}/c/{number}").read_bytes()
            assert crc32c(packed[:-4]) == packed[-4:]
            data = Zstd().decode(packed[:-4])
            values += parse_texts(data) if dtype is None else np.frombuffer(data, dtype).tolist()
        assert len(values) == chunk * -(-images // chunk)
        columns.append(values[:images])
    names = [arrays[name]["attributes"]["names"] for name in INDEX[1:]]
    ids, *numbers = columns
    return ids, *([own[i] for i in found] for own, found in zip(names, numbers, strict=True))


def parse_texts(data):
    (count,), data, texts = struct.unpack_from("<I", data), io.BytesIO(data[4:]), []
    for _ in range(count):
        (size,) = struct.unpack("<I", data.read(4))
        texts.append(data.read(size).decode())
    assert not data.read()
    return texts
