"""Kill a writer, and look at what it leaves, in stores of one layer and of two.

python tests/store/kill.py [--kills 200] [--seed 0] [--every STEPS]

A process extends a store by batches of random size and says after each that it has returned.
Another kills it (SIGKILL) at a random moment, opens the store, verifies every byte, and checks that
every append that had returned is there whole, in all layers, at most one more, with the symbols
that were given. Then the next process goes on. Shards are small, so that appends begin, fill and
rewrite them.

--every 1 instead lets a writer kill itself before each single thing that an append does to the file
system, one after the other, from the same store; --every 5 before each fifth.
"""

import argparse
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from nec.coding import Tables
from nec.store import EmbeddingStore, StoreWriter
from nec.store.codec import Band, LinearCodec

CHANNELS, SIDE = 8, 4
LARGEST_BATCH = 40
MOST_IMAGES = 4000  # then a new store is begun
STEPS = ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "open")  # of Python's audit events
LAYERS = ("embedding",), ("embedding", "pooled")
FORK = multiprocessing.get_context("fork")


def codec(layer: str) -> LinearCodec:
    """Eight channels of Laplace symbols, on a grid or pooled: streams of 100 or of 6 bytes."""
    pooled = layer == "pooled"
    band = Band(np.ones(CHANNELS), np.zeros(CHANNELS), None, pooled)
    tables = Tables.from_laplace(np.linspace(0.3, 3, CHANNELS))
    return LinearCodec((CHANNELS, SIDE, SIDE), (band,), np.zeros(CHANNELS), tables)


def symbols_of(images: range, layer: str) -> np.ndarray:
    """(n, L) int32, the same for an image whenever it is asked for."""
    length, first = codec(layer).length, MOST_IMAGES * len(layer)
    rows = [np.random.default_rng(first + i).laplace(0, 2, length) for i in images]
    return np.rint(rows).astype(np.int32)


def is_begun(path: Path) -> bool:
    """Whether an append is complete."""
    return any(path.glob("zarr.json")) or (path / ".complete").is_dir()


def opened(path: Path, layers: tuple[str, ...]) -> StoreWriter:
    """A writer with small shards: many are begun, filled and rewritten between two kills."""
    from nec.store import chunks

    chunks.SHARD_BYTES = 4096
    if is_begun(path):
        return EmbeddingStore.extend(path)
    codecs = {name: codec(name) for name in layers}
    return EmbeddingStore.create(path, codecs, {}, classes=["a", "b"])


def append(store: StoreWriter, count: int) -> None:
    """The next images."""
    new = range(len(store), len(store) + count)
    symbols = {name: symbols_of(new, name) for name in store.layers}
    ids = [f"image {i}" * (1 + i % 5) for i in new]
    store.append(symbols, ids, ["train"] * count, [i % 2 for i in new])


def write(path: Path, layers: tuple[str, ...], seed: int, said: Connection) -> None:
    """Append until killed; say how many images there are after each append."""
    batches = random.Random(seed)
    store = opened(path, layers)
    while True:
        append(store, batches.randint(1, LARGEST_BATCH))
        said.send(len(store))


def append_once(path: Path, layers: tuple[str, ...], count: int, step: int) -> None:
    """Append once; be killed before the file system is changed for the step-th time from now."""
    steps = itertools.count(1)

    def die(event: str, arguments: tuple[Any, ...]) -> None:
        reads = event == "open" and not set("wxa+") & set(str(arguments[1]))
        ours = event in STEPS and str(arguments[0]).startswith(str(path))
        if ours and not reads and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    store = opened(path, layers)
    sys.addaudithook(die)
    append(store, count)
    os._exit(0)


def kill(path: Path, layers: tuple[str, ...], seed: int) -> int:
    """Start a writer, kill it after a random time; how many images it had said to be there."""
    heard, said = FORK.Pipe(duplex=False)
    process = FORK.Process(target=write, args=(path, layers, seed, said))
    process.start()
    said.close()
    # From before its first append to some appends later.
    time.sleep(random.Random(seed).uniform(0, 1.0))
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "the writer ended by itself"
    count = 0
    try:
        while heard.poll():
            count = heard.recv()
    except EOFError:
        pass
    return count


def checked(path: Path, layers: tuple[str, ...], promised: int) -> int:
    """`check`, in a process of its own: this one keeps no thread that its children would lack."""
    heard, said = FORK.Pipe(duplex=False)
    process = FORK.Process(target=lambda: said.send(check(path, layers, promised)))
    process.start()
    process.join()
    assert process.exitcode == 0, f"{path} is not as it must be"
    return int(heard.recv())


def check(path: Path, layers: tuple[str, ...], promised: int) -> int:
    """How many images there are: all that were promised, whole, in all layers."""
    if not promised and not is_begun(path):
        return 0
    store = EmbeddingStore.open(path)
    store.verify()
    count = len(store)
    assert promised <= count <= promised + LARGEST_BATCH, (promised, count)
    assert tuple(store.layers) == layers
    for name in layers:
        symbols = store.layer(name).read_symbols(range(count))
        assert np.array_equal(symbols, symbols_of(range(count), name)), name
    assert store.ids.tolist() == [f"image {i}" * (1 + i % 5) for i in range(count)]
    assert store.labels.tolist() == [i % 2 for i in range(count)]
    return count


def kill_at_random(folder: Path, kills: int, seed: int) -> Iterator[str]:
    """Kill by turns the writer of a store of one layer and of one of two; what came each time."""
    there: dict[Path, int] = {}
    begun = 0
    for number in range(kills):
        layers = LAYERS[number % 2]
        path = folder / f"{begun}-{len(layers)}.zarr"
        promised = max(kill(path, layers, seed + number), there.get(path, 0))
        if (path / ".complete").is_dir():
            yield "settled when opened"
        there[path] = count = checked(path, layers, promised)
        kind = "one append more" if count > promised else "all that had returned"
        yield kind if count else "no image yet"
        print(f"\r{number + 1} kills, {count} images ", end="", file=sys.stderr)
        begun += count > MOST_IMAGES
    assert any(there.values()), "no writer had the time to append an image"


def kill_at_steps(folder: Path, layers: tuple[str, ...], every: int) -> Iterator[str]:
    """Kill a writer before one step and another of the same append; what came each time."""
    before, path = folder / f"before-{len(layers)}.zarr", folder / f"{len(layers)}.zarr"
    first, more = 3 * LARGEST_BATCH, LARGEST_BATCH
    assert not exit_code(before, layers, first, 0)
    for step in itertools.count(1, every):
        shutil.copytree(before, path)
        died = exit_code(path, layers, more, step)
        assert died in (0, -signal.SIGKILL), died
        if (path / ".complete").is_dir():
            yield "settled when opened"
        count = checked(path, layers, first if died else first + more)
        assert count in (first, first + more), count
        if not died:
            break
        yield "one append more" if count > first else "all that had returned"
        shutil.rmtree(path)


def exit_code(path: Path, layers: tuple[str, ...], count: int, step: int) -> int | None:
    """Of a process that appends so many images, and is killed at a step, if it has so many."""
    process = FORK.Process(target=append_once, args=(path, layers, count, step))
    process.start()
    process.join()
    return process.exitcode


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, metavar="STEPS", help="1: before each single step")
    args = parser.parse_args()
    codec("embedding").encode(symbols_of(range(1), "embedding"))  # compile once, for all children
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        folder = Path(name)
        if args.every:
            found = Counter(w for each in LAYERS for w in kill_at_steps(folder, each, args.every))
        else:
            found = Counter(kill_at_random(folder, args.kills, args.seed))
    kills = sum(found.values()) - found["settled when opened"]
    print(f"\n{kills} kills: " + ", ".join(f"{n} {name}" for name, n in sorted(found.items())))


if __name__ == "__main__":
    main()
