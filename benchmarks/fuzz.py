"""Corrupt streams, tables, chunks and stores, and see that nothing worse than an error comes of it.

python benchmarks/fuzz.py [--cases 150000] [--seed 0] [--exhaustive]

Random damage (flips, bytes set to 00 and ff, cuts, splices, foreign tables, absurd numbers in
headers and metadata), so many cases in all; --exhaustive instead takes every byte of a small stream
and of every file of a small store, flips each of its 8 bits, sets it to 00 and to ff, and cuts at
every length. What may come:

  a stream      CorruptStreamError, or some symbols; never twice the memory of an honest one
  tables        CorruptStreamError, or the same tables again from what they are written as
  a store       through EmbeddingStore: an error of its own, or exactly what was stored
  plain zarr    of chunks and of the codec's configuration: an error, or exactly what was stored;
                NaN where a shard is lost or empty
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from nec.coding import CorruptStreamError, Tables, decode, encode
from nec.store import EmbeddingStore
from nec.store.codec import Band, LinearCodec
from nec.store.schema import metadata_hash

CHANNELS, SIDE, IMAGES = 6, 3, 12
SHAPE = (CHANNELS, SIDE, SIDE)
LENGTH = CHANNELS * SIDE * SIDE
CONTEXTS = np.repeat(np.arange(CHANNELS), SIDE * SIDE)
TABLES = Tables.from_laplace(np.geomspace(0.2, 6, CHANNELS))
FOREIGN = [
    Tables.from_laplace(np.geomspace(8, 0.1, CHANNELS)),
    Tables.from_counts(np.zeros((CHANNELS, 3), int), np.zeros(CHANNELS, int)),
    Tables.from_counts(np.ones((CHANNELS, 4000), int), np.full(CHANNELS, -(2**31))),
]
ABSURD: list[Any] = [0, -1, 1, 2**31, 2**63, 2**64, 1e300, 0.5, "", "x", None, [], {}, True]


def symbols_of(seed: int) -> np.ndarray:
    """(IMAGES, L) int32 with some escapes."""
    rng = np.random.default_rng(seed)
    symbols = np.rint(rng.laplace(0, 2, (IMAGES, LENGTH))).astype(np.int32)
    symbols[::5, ::17] = rng.integers(-(2**31), 2**31, symbols[::5, ::17].shape)
    return symbols


def damaged(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """One to three random changes."""
    for _ in range(rng.randint(1, 3)):
        at, stop = sorted(rng.randint(0, len(data)) for _ in range(2))
        first, last = sorted(rng.randint(0, len(other)) for _ in range(2))
        inside = bytes([data[at]]) if at < len(data) else b"\0"
        data = rng.choice(
            [
                data[:at] + bytes([inside[0] ^ 1 << rng.randrange(8)]) + data[at + 1 :],
                data[:at] + rng.choice([b"\0", b"\xff"]) + data[at + 1 :],
                data[:at],
                data[at:],
                data[:at] + data[stop:],
                data[:at] + other[first:last] + data[stop:],
                data[:stop] + data[at:],
                data + rng.randbytes(rng.randint(1, 20)),
            ]
        )
    return data


def every(data: bytes) -> Iterator[bytes]:
    """Each byte with each bit flipped, 00 and ff, and each truncation."""
    for at, byte in enumerate(data):
        for other in [byte ^ 1 << bit for bit in range(8)] + [0, 0xFF]:
            yield data[:at] + bytes([other]) + data[at + 1 :]
    for length in range(len(data)):
        yield data[:length]


class Findings:
    """Counts what came of each case, and keeps what must not."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.failures: list[str] = []

    def take(self, kind: str, case: str, look: Callable[..., str], *damaged: Any) -> None:
        """Look at one case; look gives what came, or raises."""
        try:
            came = look(*damaged)
        except CorruptStreamError:
            came = "CorruptStreamError"
        except (ValueError, FileNotFoundError) as error:
            came = type(error).__name__
            if "\n" in str(error) and kind != "plain zarr":
                self.failures.append(f"{kind}, {case}: more than one line: {error}")
        except Exception as error:  # whatever it is, it must not be
            came = f"FAILED with {type(error).__name__}"
            self.failures.append(f"{kind}, {case}: {type(error).__name__}: {error}")
        if came.startswith("FAILED"):
            self.failures.append(f"{kind}, {case}: {came}")
        self.counts[kind, came] += 1
        total = sum(self.counts.values())
        if total % 500 == 0:
            print(f"\r{total} cases", end="", file=sys.stderr)


def look_at_stream(stream: bytes, tables: Tables, honest_bytes: int | None = None) -> str:
    """Decode; with honest_bytes, measure the memory that it takes."""
    if honest_bytes is not None:
        tracemalloc.start()
    try:
        symbols = decode([stream], tables, CONTEXTS, LENGTH)
    finally:
        if honest_bytes is not None:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    if honest_bytes is not None and peak > 2 * honest_bytes:
        return f"FAILED: {peak} bytes, an honest stream takes {honest_bytes}"
    return "symbols" if symbols.shape == (1, LENGTH) else "FAILED: another shape"


def look_at_tables(data: bytes) -> str:
    """Read tables; what is read is written as it was read."""
    tables = Tables.from_bytes(data)
    again = Tables.from_bytes(tables.to_bytes())
    return "tables" if again.sha256 == tables.sha256 else "FAILED: other tables"


class Victim:
    """A small store, what is in it, and how to look at it when one of its files is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.symbols = symbols_of(3)
        self.ids = [f"küste/{i}.tif" for i in range(IMAGES)]
        self.splits = [("train", "val", "test")[i % 3] for i in range(IMAGES)]
        self.labels = [i % 2 for i in range(IMAGES)]
        self.attrs = {"encoder": "none", "numbers": [1, 0.5, None]}
        rng = np.random.default_rng(0)
        band = Band(rng.uniform(0.5, 2, CHANNELS), np.zeros(CHANNELS), None, False)
        codec = LinearCodec(SHAPE, (band,), rng.normal(size=CHANNELS), TABLES)
        with EmbeddingStore.create(path, codec, self.attrs, classes=["a", "b"]) as store:
            store.append(self.symbols, self.ids, self.splits, self.labels)
        self.y_hat = codec.dequantize(self.symbols)
        self.files = sorted(file for file in path.rglob("*") if file.is_file())
        self.shard = path / "embedding/c/0/0/0/0"

    def look(self, hashed: bool) -> str:
        """Open, verify and read everything through EmbeddingStore.

        Whoever makes the hash right again may say what they like in attributes and names.
        """
        store = EmbeddingStore.open(self.path)
        store.verify()
        exact = (
            np.array_equal(store.read(range(len(store))), self.y_hat)
            and store.ids.tolist() == self.ids
            and store.labels.tolist() == self.labels
        )
        described = (
            store.splits.tolist() == self.splits
            and store.attrs == self.attrs
            and store.classes == ["a", "b"]
        )
        return "exact" if exact and (described or hashed) else "FAILED: other values"

    def look_unverified(self) -> str:
        """The same without `verify`: what a consumer does."""
        store = EmbeddingStore.open(self.path)
        exact = np.array_equal(store[5], self.y_hat[5]) and store.ids[5] == self.ids[5]
        return "exact" if exact and store.labels[5] == 1 else "FAILED: other values"

    def look_by_zarr(self) -> str:
        """The embeddings by plain zarr."""
        values = np.asarray(zarr.open_group(self.path, mode="r")["embedding"][:])
        if not self.shard.exists() or not self.shard.stat().st_size:
            return "NaN" if np.isnan(values).all() else "FAILED: numbers of a lost shard"
        return "exact" if np.array_equal(values, self.y_hat) else "FAILED: other values"


def absurd(text: bytes, rng: random.Random) -> bytes:
    """Metadata with one value replaced by an absurd one."""
    metadata = json.loads(text)
    node, holder, key = metadata, None, None
    while isinstance(node, dict | list) and node and (holder is None or rng.random() < 0.9):
        holder = node
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        node = node[key]
    if holder is not None:
        holder[key] = rng.choice(ABSURD)
    return json.dumps(metadata).encode()


def rehash(path: Path) -> None:
    """Make the hash of a store's metadata right again, so that it is not what finds the change."""
    names = ("embedding", "id", "split", "label")
    try:
        arrays = {name: json.loads((path / name / "zarr.json").read_bytes()) for name in names}
        group = json.loads((path / "zarr.json").read_bytes())
        group["attributes"]["nec"]["sha256"] = metadata_hash(group, arrays)
    except (KeyError, TypeError, ValueError, AttributeError):
        return
    (path / "zarr.json").write_text(json.dumps(group))


def fuzz_store(
    victim: Victim, file: Path, content: bytes, findings: Findings, hashed: bool
) -> None:
    """Damage one file of a store, look at it in every way, and mend it."""
    kept = {path: path.read_bytes() for path in (file, victim.path / "zarr.json")}
    file.write_bytes(content)
    if hashed:
        rehash(victim.path)
    case = f"{file.relative_to(victim.path)} {content[:60]!r}"
    findings.take("store, verified", case, victim.look, hashed)
    findings.take("store, read", case, victim.look_unverified)
    if file == victim.shard:
        findings.take("plain zarr", case, victim.look_by_zarr)
    for path, good in kept.items():
        path.write_bytes(good)


def fuzz_configuration(
    victim: Victim, change: Callable[[bytes], bytes], findings: Findings
) -> None:
    """Damage the codec's configuration, and read by plain zarr."""
    file = victim.path / "embedding/zarr.json"
    good = file.read_bytes()
    metadata = json.loads(good)
    codecs = metadata["codecs"][0]["configuration"]["codecs"]
    changed = change(json.dumps(codecs[0]["configuration"]).encode())
    try:
        codecs[0]["configuration"] = json.loads(changed)
    except ValueError:  # no JSON any more
        return
    file.write_text(json.dumps(metadata))
    findings.take("plain zarr", f"configuration {changed[:200]!r}", victim.look_by_zarr)
    file.write_bytes(good)


def fuzz_randomly(cases: int, seed: int, victim: Victim, findings: Findings) -> None:
    """So many cases: 60 % streams, 10 % tables, the rest stores."""
    rng = random.Random(seed)
    streams = [s for n in range(20) for s in encode(symbols_of(n), TABLES, CONTEXTS)]
    tracemalloc.start()
    decode(streams[:1], TABLES, CONTEXTS, LENGTH)
    honest_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    tables = [t.to_bytes() for t in (TABLES, *FOREIGN[:2])]
    while sum(findings.counts.values()) < cases:
        bad = damaged(rng.choice(streams), rng.choice(streams), rng)
        used = TABLES if rng.random() < 0.9 else rng.choice(FOREIGN)
        measured = honest_bytes if used is TABLES and rng.random() < 0.02 else None
        for _ in range(4):
            findings.take("stream", bad.hex(), look_at_stream, bad, used, measured)
            bad = damaged(rng.choice(streams), rng.choice(streams), rng)
        bad_tables = damaged(rng.choice(tables), rng.choice(tables), rng)
        findings.take("tables", bad_tables.hex(), look_at_tables, bad_tables)
        file, other = rng.choice(victim.files), rng.choice(victim.files)
        if rng.random() < 0.3 and file.name == "zarr.json":
            content = absurd(file.read_bytes(), rng)
        else:
            content = damaged(file.read_bytes(), other.read_bytes(), rng)
        fuzz_store(victim, file, content, findings, hashed=rng.random() < 0.5)
        if rng.random() < 0.3:
            fuzz_configuration(victim, lambda text: absurd(text, rng), findings)
            fuzz_configuration(victim, lambda text: damaged(text, text, rng), findings)


def fuzz_every_byte(victim: Victim, findings: Findings) -> None:
    """A stream, tables, every file of a store, and its codec's configuration."""
    (stream,) = encode(symbols_of(0)[:1], TABLES, CONTEXTS)
    for bad in every(stream):
        findings.take("stream", bad.hex(), look_at_stream, bad, TABLES)
    for bad in every(TABLES.to_bytes()):
        findings.take("tables", bad.hex(), look_at_tables, bad)
    for file in victim.files:
        for bad in every(file.read_bytes()):
            fuzz_store(victim, file, bad, findings, hashed=False)
    metadata = json.loads((victim.path / "embedding/zarr.json").read_text())
    configuration = metadata["codecs"][0]["configuration"]["codecs"][0]["configuration"]
    for bad in every(json.dumps(configuration).encode()):
        fuzz_configuration(victim, lambda _, bad=bad: bad, findings)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=150_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--exhaustive", action="store_true")
    args = parser.parse_args()
    findings = Findings()
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    victim = Victim(folder / "victim.zarr")
    if args.exhaustive:
        fuzz_every_byte(victim, findings)
    else:
        fuzz_randomly(args.cases, args.seed, victim, findings)
    victim.shard.unlink()
    findings.take("plain zarr", "a lost shard", victim.look_by_zarr)
    shutil.rmtree(folder)
    print()
    for (kind, came), count in sorted(findings.counts.items()):
        print(f"{kind:<16} {came:<24} {count:>8}")
    print(f"{sum(findings.counts.values())} cases, {len(findings.failures)} failures")
    print("\n".join(findings.failures[:20]))
    return bool(findings.failures)


if __name__ == "__main__":
    sys.exit(main())
