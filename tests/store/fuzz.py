"""Corrupt streams, tables, codecs and stores, and see that nothing worse than an error comes of it.

python tests/store/fuzz.py [--cases 150000] [--seed 0] [--exhaustive]

Random damage (flips, bytes set to 00 and ff, cuts, splices, foreign tables, absurd numbers in
headers and metadata) to copies of all golden stores, so many cases in all; --exhaustive instead
takes every byte of a stream of each codec and of every file of each store, flips each of its 8
bits, sets it to 00 and to ff, and cuts at every length. What may come:

  a stream      CorruptStreamError, or symbols that its codec knows and finite values of them; never
                twice the memory of an honest one
  tables        CorruptStreamError, or the same tables again from what they are written as
  a store       through EmbeddingStore: an error of its own, or exactly what was stored
  plain zarr    of chunks and of the codec's configuration: an error, or exactly what was stored;
                NaN where a shard is lost or empty
  a codec       whose hash was made right again: ValueError, or a codec that reads any stream as
                above, in MOST_BYTES
  an index      whose checksum was made right again: an error of its own, or as many values
"""

import argparse
import base64
import faulthandler
import json
import random
import sys
import tempfile
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from victims import INDEX, Victim, mended, victims

from nec.coding import CorruptStreamError, Tables
from nec.store.base import config_hash
from nec.store.codec import Codec, codec_from_config

ABSURD: list[Any] = [
    *(0, -1, 1, 3, 2**16, 2**20, 2**31, 2**63, 2**64, 1e300, 0.5, "", "x", None, [], {}, True),
    *([1], [1, 2**14, 2**14], [4, 2**31, 1], [2, 9, 999], "zstd", "sum", "raw"),
]
TABLES = [
    Tables.from_laplace(np.geomspace(0.2, 6, 6)),
    Tables.from_laplace(np.geomspace(8, 0.1, 6)),
    Tables.from_counts(np.zeros((6, 3), int), np.zeros(6, int)),
]
MOST_BYTES = 1 << 30  # that a codec with mended hashes may take, whatever it says of itself
HANGS_S = 120  # then it is no error but a hang


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
        faulthandler.dump_traceback_later(HANGS_S, exit=True)
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


def look_at_stream(codec: Codec, stream: bytes, honest_bytes: int | None = None) -> str:
    """Decode; with honest_bytes, measure the memory that it takes."""
    if honest_bytes is not None:
        peak = peak_bytes(look_at_stream, codec, stream)
        if peak > 2 * honest_bytes:
            return f"FAILED: {peak} bytes, an honest stream takes {honest_bytes}"
    symbols = codec.decode([stream])
    y_hat = codec.dequantize(symbols)  # refuses symbols that it does not know
    good = symbols.shape == (1, codec.length) and y_hat.shape == (1, *codec.shape)
    return "symbols" if good else "FAILED: another shape"


def peak_bytes(call: Callable[..., Any], *arguments: Any) -> int:
    """Of memory, while something is called that may raise."""
    tracemalloc.start()
    try:
        call(*arguments)
    except CorruptStreamError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def look_at_tables(data: bytes) -> str:
    """Read tables; what is read is written as it was read."""
    tables = Tables.from_bytes(data)
    again = Tables.from_bytes(tables.to_bytes())
    return "tables" if again.sha256 == tables.sha256 else "FAILED: other tables"


def look_at_codec(config: dict[str, Any], stream: bytes) -> str:
    """Restore a codec, and read a stream with it."""
    found = []

    def use() -> None:
        found.append("a codec")
        codec = codec_from_config(config)
        found.append(look_at_stream(codec, stream))

    peak = peak_bytes(use)
    return found[-1] if peak <= MOST_BYTES else f"FAILED: {peak} bytes"


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


def fuzz_store(
    victim: Victim, file: Path, content: bytes, findings: Findings, hashed: bool
) -> None:
    """Damage one file of a store, look at it in every way, and mend it."""

    def look() -> None:
        if hashed:
            victim.rehash()
        case = f"{victim.name}, {file.relative_to(victim.path)} {content[:60]!r}"
        findings.take("store, verified", case, victim.look, hashed)
        findings.take("store, read", case, victim.look_unverified)
        for name, shard in victim.shards.items():
            if file == shard:
                findings.take("plain zarr", case, victim.look_by_zarr, name)

    victim.with_damage(file, content, look)
    if file.parent.parent.name in INDEX and len(content) > 4:
        case = f"{victim.name}, {file.relative_to(victim.path)} {content!r}"
        victim.with_damage(
            file, mended(content), lambda: findings.take("index", case, victim.look_at_index)
        )


def configuration_of(metadata: dict[str, Any]) -> dict[str, Any]:
    """What holds the configuration of nec's codec in the zarr.json of a layer."""
    return metadata["codecs"][0]["configuration"]["codecs"][0]


def fuzz_configuration(
    victim: Victim, name: str, change: Callable[[bytes], bytes], findings: Findings
) -> None:
    """Damage the codec's configuration, and read by plain zarr."""
    file = victim.path / name / "zarr.json"
    metadata = json.loads(file.read_bytes())
    holder = configuration_of(metadata)
    changed = change(json.dumps(holder["configuration"]).encode())
    try:
        holder["configuration"] = json.loads(changed)
    except ValueError:  # no JSON any more
        return
    case = f"{victim.name}, configuration {changed[:200]!r}"
    victim.with_damage(
        file,
        json.dumps(metadata).encode(),
        lambda: findings.take("plain zarr", case, victim.look_by_zarr, name),
    )


def fuzz_codec(codec: Codec, stream: bytes, rng: random.Random, findings: Findings) -> None:
    """Damage what a codec is, header or numbers, and make its hash right again."""
    header, numbers = codec.described()
    if rng.random() < 0.6:
        header = json.loads(absurd(json.dumps(header).encode(), rng))
    else:
        numbers = damaged(numbers, numbers, rng)
    if not isinstance(header, dict):
        return
    data = base64.b64encode(zlib.compress(numbers)).decode()
    config = {**header, "data": data, "sha256": config_hash(header, numbers)}
    findings.take("codec", f"{header} {numbers.hex()[:80]}", look_at_codec, config, stream)


def fuzz_randomly(cases: int, seed: int, chosen: list[Victim], findings: Findings) -> None:
    """So many cases: half streams, the rest tables, codecs and stores."""
    rng = random.Random(seed)
    tables = [t.to_bytes() for t in TABLES]
    honest = {
        codec.sha256: peak_bytes(look_at_stream, codec, victim.streams[name][0])
        for victim in chosen
        for name, codec in victim.codecs.items()
    }
    while sum(findings.counts.values()) < cases:
        victim = rng.choice(chosen)
        name = rng.choice(list(victim.codecs))
        codec, streams = victim.codecs[name], victim.streams[name]
        for _ in range(5):
            bad = damaged(rng.choice(streams), rng.choice(streams), rng)
            most = honest[codec.sha256] if rng.random() < 0.05 else None
            case = f"{victim.name}, {name} {bad.hex()}"
            findings.take("stream", case, look_at_stream, codec, bad, most)
        bad_tables = damaged(rng.choice(tables), rng.choice(tables), rng)
        findings.take("tables", bad_tables.hex(), look_at_tables, bad_tables)
        for _ in range(2):
            fuzz_codec(codec, rng.choice(streams), rng, findings)
        file, other = rng.choice(victim.files), rng.choice(victim.files)
        if rng.random() < 0.3 and file.name == "zarr.json":
            content = absurd(file.read_bytes(), rng)
        else:
            content = damaged(file.read_bytes(), other.read_bytes(), rng)
        fuzz_store(victim, file, content, findings, hashed=rng.random() < 0.5)
        if rng.random() < 0.3:
            fuzz_configuration(victim, name, lambda text: absurd(text, rng), findings)
            fuzz_configuration(victim, name, lambda text: damaged(text, text, rng), findings)


def fuzz_every_byte(chosen: list[Victim], findings: Findings) -> None:
    """Tables; a stream of each codec and its configuration; every file of each store."""
    for bad in every(TABLES[0].to_bytes()):
        findings.take("tables", bad.hex(), look_at_tables, bad)
    for victim in chosen:
        for name, codec in victim.codecs.items():
            for bad in every(victim.streams[name][0]):
                case = f"{victim.name}, {name} {bad.hex()}"
                findings.take("stream", case, look_at_stream, codec, bad)
            for bad in every(json.dumps(codec.to_config()).encode()):
                fuzz_configuration(victim, name, lambda _, bad=bad: bad, findings)
        for file in victim.files:
            for bad in every(file.read_bytes()):
                fuzz_store(victim, file, bad, findings, hashed=False)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=150_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--exhaustive", action="store_true")
    args = parser.parse_args()
    findings = Findings()
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        chosen = victims(Path(folder))
        if args.exhaustive:
            fuzz_every_byte(chosen, findings)
        else:
            fuzz_randomly(args.cases, args.seed, chosen, findings)
        for victim in chosen:
            for name, shard in victim.shards.items():
                shard.unlink()
                case = f"{victim.name}, a lost shard"
                findings.take("plain zarr", case, victim.look_by_zarr, name)
    faulthandler.cancel_dump_traceback_later()
    print()
    for (kind, came), count in sorted(findings.counts.items()):
        print(f"{kind:<16} {came:<24} {count:>8}")
    print(f"{sum(findings.counts.values())} cases, {len(findings.failures)} failures")
    print("\n".join(findings.failures[:20]))
    return bool(findings.failures)


if __name__ == "__main__":
    sys.exit(main())
