"""Kill a writer at random moments, and look at what it leaves.

python benchmarks/kill.py [--kills 200] [--seed 0]

A process extends a store by batches of random size and says after each that it has returned.
Another kills it (SIGKILL) at a random moment, opens the store, verifies every byte, and checks that
every append that had returned is there whole, at most one more, with the symbols that were given.
Then the next process goes on. Shards are small, so that appends begin, fill and rewrite them.
"""

import argparse
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from nec.coding import Tables
from nec.store import EmbeddingStore
from nec.store.codec import Band, LinearCodec

CHANNELS, SIDE = 8, 4
LARGEST_BATCH = 40
MOST_IMAGES = 4000  # then a new store is begun


def codec() -> LinearCodec:
    """Eight channels of Laplace symbols."""
    band = Band(np.ones(CHANNELS), np.zeros(CHANNELS), None, False)
    tables = Tables.from_laplace(np.linspace(0.3, 3, CHANNELS))
    return LinearCodec((CHANNELS, SIDE, SIDE), (band,), np.zeros(CHANNELS), tables)


def symbols_of(images: range) -> np.ndarray:
    """(n, L) int32, the same for an image whenever it is asked for."""
    rows = [np.random.default_rng(i).laplace(0, 2, CHANNELS * SIDE * SIDE) for i in images]
    return np.rint(rows).astype(np.int32)


def is_begun(path: Path) -> bool:
    """Whether an append is complete."""
    return any(path.glob("zarr.json")) or (path / ".complete").is_dir()


def write(path: Path, seed: int, said: Connection) -> None:
    """Append until killed; say how many images there are after each append."""
    from nec.store import chunks

    # Small shards: many are begun, filled and rewritten between two kills.
    chunks.SHARD_BYTES = 4096
    batches = random.Random(seed)
    if is_begun(path):
        store = EmbeddingStore.extend(path)
    else:
        store = EmbeddingStore.create(path, codec(), {}, classes=["a", "b"])
    while True:
        new = range(len(store), len(store) + batches.randint(1, LARGEST_BATCH))
        ids = [f"image {i}" * (1 + i % 5) for i in new]
        store.append(symbols_of(new), ids, ["train"] * len(new), [i % 2 for i in new])
        said.send(len(store))


def kill(path: Path, seed: int, context: multiprocessing.context.BaseContext) -> int:
    """Start a writer, kill it after a random time; how many images it had said to be there."""
    heard, said = context.Pipe(duplex=False)
    process = context.Process(target=write, args=(path, seed, said))
    process.start()
    said.close()
    # From before its first append to some appends later.
    time.sleep(random.Random(seed).uniform(0, 1.0))
    process.kill()
    process.join()
    count = 0
    try:
        while heard.poll():
            count = heard.recv()
    except EOFError:
        pass
    return count


def check(path: Path, promised: int) -> int:
    """How many images there are: all that were promised, whole."""
    if not promised and not is_begun(path):
        return 0
    store = EmbeddingStore.open(path)
    store.verify()
    count = len(store)
    assert promised <= count <= promised + LARGEST_BATCH, (promised, count)
    assert np.array_equal(store.read_symbols(range(count)), symbols_of(range(count)))
    assert store.ids.tolist() == [f"image {i}" * (1 + i % 5) for i in range(count)]
    assert store.labels.tolist() == [i % 2 for i in range(count)]
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nec.store", "nec.coding.scalar"])
    found = {
        "no image yet": 0,
        "all that had returned": 0,
        "one append more": 0,
        "settled when opened": 0,
    }
    folder = Path(tempfile.mkdtemp())
    path, there = folder / "0.zarr", 0
    for number in range(args.kills):
        promised = max(kill(path, args.seed + number, context), there)
        found["settled when opened"] += (path / ".complete").is_dir()
        count = check(path, promised)
        kind = "one append more" if count > promised else "all that had returned"
        found[kind if count else "no image yet"] += 1
        there = count
        print(f"\r{number + 1} kills, {count} images ", end="", file=sys.stderr)
        if count > MOST_IMAGES:
            path, there = folder / f"{number}.zarr", 0
    shutil.rmtree(folder)
    print(f"\n{args.kills} kills: " + ", ".join(f"{n} {name}" for name, n in found.items()))


if __name__ == "__main__":
    main()
