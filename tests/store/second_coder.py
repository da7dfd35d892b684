"""Of a second reader, written from docs/format.md alone: tables, streams, grids."""

import hashlib
import json
import struct
import zlib


def sha256(value, more=b""):
    """Of canonical JSON, and of what comes behind it."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode() + more).hexdigest()


def varint(data, at):
    """The integer there, and where it ends."""
    end = next(i for i in range(at, at + 5) if data[i] < 128) + 1
    assert end - at == 1 or data[end - 1]  # no more bytes than it needs
    return sum((data[i] & 127) << 7 * (i - at) for i in range(at, end)), end


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
            assert not 0 <= i < len(frequencies) - 1 or not frequencies[i]
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
