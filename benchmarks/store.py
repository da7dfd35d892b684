"""Read one image at random from stores of 10^3 to 10^6, and say what a store costs.

python benchmarks/store.py [--largest 1000000] [--folder FOLDER]

Images of 16 x 16 positions and 64 channels, Laplace symbols at 0.05 bits each, made once and
repeated: the encoder is simulated, the coder, the files and the index are not. One store grows from
size to size; each size is read by a process of its own, which measures its memory.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from nec.coding import Tables
from nec.store import EmbeddingStore
from nec.store.codec import Band, LinearCodec

CHANNELS, SIDE = 64, 16
SCALE = 0.0942  # of a Laplace variable: 0.05 bits
POOL = 4000  # different images
READS = 200
SIZES = [10**3, 10**4, 10**5, 10**6]


def codec() -> LinearCodec:
    """64 channels with steps of their own and no basis."""
    band = Band(np.linspace(0.5, 2, CHANNELS), np.zeros(CHANNELS), None, False)
    tables = Tables.from_laplace(np.full(CHANNELS, SCALE))
    return LinearCodec((CHANNELS, SIDE, SIDE), (band,), np.zeros(CHANNELS), tables)


def grow(path: Path, size: int, pool: np.ndarray) -> float:
    """Append images until there are so many; seconds."""
    start = time.perf_counter()
    exists = path.exists()
    store = EmbeddingStore.extend(path) if exists else create(path)
    with store:
        while len(store) < size:
            new = range(len(store), min(len(store) + len(pool), size))
            ids = [f"tiles/{i // 1000:06d}/{i}.tif" for i in new]
            store.append(pool[: len(new)], ids, ["train"] * len(new), np.arange(len(new)) % 10)
            print(f"\r{len(store):>9,} images", end="", file=sys.stderr)
    return time.perf_counter() - start


def create(path: Path):
    return EmbeddingStore.create(path, codec(), {}, classes=[f"class {i}" for i in range(10)])


def measure(path: Path) -> dict[str, float]:
    """What a process sees that has just begun: times and memory of random reads of one image."""
    import zarr

    start = time.perf_counter()
    store = EmbeddingStore.open(path)
    opened = time.perf_counter() - start
    store[0]
    base_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    chosen = np.random.default_rng(0).integers(0, len(store), READS).tolist()
    array = zarr.open_group(path, mode="r")["embedding"]
    seconds = {"nec": [], "zarr": []}
    for index in chosen:
        start = time.perf_counter()
        ours = store[index]
        seconds["nec"].append(time.perf_counter() - start)
        start = time.perf_counter()
        theirs = array[index]
        seconds["zarr"].append(time.perf_counter() - start)
        assert np.array_equal(ours, theirs)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base_kib
    streams = store.stream_bytes()
    return {
        "images": len(store),
        "open_ms": 1e3 * opened,
        "read_ms": 1e3 * float(np.median(seconds["nec"])),
        "read_p95_ms": 1e3 * float(np.quantile(seconds["nec"], 0.95)),
        "zarr_ms": 1e3 * float(np.median(seconds["zarr"])),
        "memory_mib": grown_kib / 1024,
        "stream_bytes": float(streams.mean()),
        "bytes_per_image": store.bytes_per_image,
        "index_bytes": store.index_bytes_per_image,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--largest", type=int, default=SIZES[-1])
    parser.add_argument("--folder", type=Path, default=None, help="where the store is made")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure)))
        return
    noise = np.random.default_rng(0).laplace(0, SCALE, (POOL, CHANNELS * SIDE * SIDE))
    pool = np.rint(noise).astype(np.int32)
    del noise
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / "store.zarr"
        for size in (size for size in SIZES if size <= args.largest):
            seconds = grow(path, size, pool)
            command = [sys.executable, __file__, "--measure", str(path)]
            shown = subprocess.run(command, capture_output=True, text=True, check=True)
            row = {"grow_s": seconds, **json.loads(shown.stdout)}
            if size == SIZES[0]:
                print("\r" + " ".join(f"{name:>15}" for name in row))
            print("\r" + " ".join(f"{value:>15,.2f}" for value in row.values()), flush=True)
        start = time.perf_counter()
        EmbeddingStore.open(path).verify()
        print(f"verified in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
