"""Speed and rate of nec.coding beside CompressAI, constriction and zstd, all in one run.

Laplace data of 0.02 to 3 bits a symbol, 64 to 768 channels x 256 positions, one table a channel.
Every coder gives back what it was given, or the run stops. Seconds are the best of three, after a
round that compiles and warms up. nec codes all images. The others code one image after the other,
so that their seconds an image do not depend on how many there are, and code the first 32 only.

  nec           on all cores, on one core and, at 64 channels, in numpy (a child without numba)
  CompressAI    EntropyBottleneck and its C++ coder, torch on one thread and on all
  constriction  ANS with one categorical model for an image, which suits it, eager and lazy
  zstd          levels 3 and 19 of int8 symbols, one frame an image

A ratio is to the competitor's faster variant, for encoding and decoding apart. The column "cores"
is CPU time over time: where it is far below what a coder may use, other work took the rest. Four
minutes on two cores, and 2 GB; on Linux, which can keep a process on one core. Grids of symbols
given their neighbours are measured by benchmarks/grids.py.
"""

import argparse
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import constriction
import numpy as np
from numcodecs.zstd import Zstd
from scipy.optimize import brentq
from scipy.stats import entropy

from nec.coding import Tables, decode, encode

CHANNELS, SIDE = (64, 384, 768), 16
RATES = (0.02, 0.05, 0.5, 3.0)  # bits per symbol
ROUNDS = 3
COMPETITOR_IMAGES = 32
PACKAGES = ("numpy", "numba", "torch", "compressai", "constriction", "numcodecs")
HEAD = "{:<23} {:>6} {:>8} {:>8} {:>8} {:>8} {:>7} {:>5} {:>8} {:>8}".format(
    *(
        "coder",
        "images",
        "B/image",
        "% ideal",
        "B",
        "% tables",
        "B",
        "cores",
        "enc MS/s",
        "dec MS/s",
    )
)
LINE = "{:<23} {:>6} {:>8.1f} {:>8.3f} {:>8.2f} {:>8.3f} {:>7.2f} {:>5.2f} {:>8.1f} {:>8.1f}"
# Ours, theirs, and how many times as fast ours should encode and decode.
SPEED_GOALS = (
    ("nec, all cores", "CompressAI", (20.0, 30.0)),
    ("nec, one core", "constriction", (1.0, 1.0)),
    ("nec, numpy", "CompressAI", (1.5, 1.5)),
)
SINGLE = f"one image of {CHANNELS[-1]} x {SIDE**2} without numba"
Goal = tuple[str, bool, str]  # what is wanted, whether it is met, the worst that was found


class Source(NamedTuple):
    """Rounded Laplace variables: some images of channels x SIDE x SIDE."""

    channels: int
    rate_bits: float
    images: int

    @property
    def scale(self) -> float:
        """The Laplace scale whose rounded variable has this entropy."""
        return brentq(lambda s: entropy(laplace_pmf(s, 200), base=2) - self.rate_bits, 0.01, 10)

    def symbols(self) -> np.ndarray:
        """(images, L) int32, L = channels * SIDE**2; fewer images are the first of more."""
        random, scale = np.random.default_rng(0), self.scale
        out = np.empty((self.images, self.channels * SIDE**2), dtype=np.int32)
        for row in out:
            row[:] = np.rint(random.laplace(0, scale, out.shape[1]))
        return out

    def model(self) -> tuple[Tables, np.ndarray]:
        """nec's tables, and the table of each symbol (L,)."""
        tables = Tables.from_laplace(np.full(self.channels, self.scale))
        return tables, np.repeat(np.arange(self.channels), SIDE**2)

    def bounds(self, symbols: np.ndarray) -> tuple[float, float]:
        """Bytes an image by the true probabilities of its symbols, and by nec's tables."""
        radius = int(np.abs(symbols).max())
        bits = -np.log2(laplace_pmf(self.scale, radius))
        model = self.model()
        # Image by image, for this takes much memory.
        true = [bits[row + radius].sum() for row in symbols]
        tables = [model[0].code_length(row[None], model[1]) for row in symbols]
        return float(np.mean(true)) / 8, float(np.mean(tables)) / 8


def laplace_pmf(scale: float, radius: int) -> np.ndarray:
    """(2 * radius + 1,) probabilities of a rounded Laplace variable."""
    edges = np.arange(radius + 1) + 0.5
    upper = 0.5 * np.exp(-edges / scale)
    side = upper[:-1] - upper[1:]
    return np.concatenate([side[::-1], [1 - 2 * upper[0]], side])


class Coder(NamedTuple):
    """A coder, and the rows that it codes."""

    name: str
    rows: np.ndarray
    encode: Callable[[], list[Any]]
    decode: Callable[[list[Any]], Iterable[np.ndarray]]


class Timed(NamedTuple):
    """What a coder made of its rows, and the best of its times."""

    streams: list[Any]
    cores: float  # CPU time over time
    encode_s: float
    decode_s: float


def timed(coder: Coder) -> Timed:
    """Check that rows come back as they were, then measure."""
    print(f"  {coder.name}", file=sys.stderr, flush=True)
    streams = coder.encode()
    pairs = zip(coder.decode(streams), coder.rows, strict=True)
    assert all(np.array_equal(*pair) for pair in pairs), f"{coder.name} loses symbols"
    start = time.process_time()
    encoding = [seconds(coder.encode) for _ in range(ROUNDS)]
    decoding = [seconds(coder.decode, streams) for _ in range(ROUNDS)]
    cores = (time.process_time() - start) / sum(encoding + decoding)
    return Timed(streams, cores, min(encoding), min(decoding))


def seconds(call: Callable[..., Any], *args: Any) -> float:
    start = time.perf_counter()
    call(*args)
    return time.perf_counter() - start


def nec_coder(name: str, source: Source, symbols: np.ndarray) -> Coder:
    """How it works depends on what is installed, and on the cores it may use."""
    tables, contexts = source.model()
    reading = tables, contexts, symbols.shape[1]
    return Coder(
        name, symbols, lambda: encode(symbols, tables, contexts), lambda s: decode(s, *reading)
    )


def compressai_coder(source: Source, symbols: np.ndarray, threads: int) -> Coder:
    """CompressAI's coder with Laplace tables in place of its learned ones."""
    import torch  # not above: compressai imports numba, which a child times or does without
    from compressai.entropy_models import EntropyBottleneck

    torch.set_num_threads(threads)
    channels, radius = source.channels, max(1, math.ceil(12 * source.scale))
    pmf = torch.from_numpy(laplace_pmf(source.scale, radius)).float().expand(channels, -1)
    coder = EntropyBottleneck(channels)
    coder.quantiles.data.zero_()
    length = torch.full((channels,), pmf.shape[1], dtype=torch.int32)
    tail = (1 - pmf.sum(dim=1, keepdim=True)).clamp_min(1e-9)
    coder._quantized_cdf = coder._pmf_to_cdf(pmf, tail, length, pmf.shape[1])
    coder._cdf_length = length + 2
    coder._offset = torch.full((channels,), -radius, dtype=torch.int32)
    y = torch.from_numpy(symbols).float().reshape(-1, channels, SIDE, SIDE)

    def decoded(streams: list[bytes]) -> np.ndarray:
        return coder.decompress(streams, (SIDE, SIDE)).reshape(len(y), -1).numpy()

    return Coder(f"CompressAI, {threads} thread(s)", symbols, lambda: coder.compress(y), decoded)


def constriction_coder(source: Source, symbols: np.ndarray, lazy: bool) -> Coder:
    """One ANS coder an image; its symbols begin at 0."""
    ans, categorical = constriction.stream.stack.AnsCoder, constriction.stream.model.Categorical
    radius = max(1, int(np.abs(symbols).max()))
    model = categorical(laplace_pmf(source.scale, radius), perfect=False, lazy=lazy)
    rows = symbols + np.int32(radius)
    name, length = f"constriction, {'lazy' if lazy else 'eager'}", rows.shape[1]

    def encoded(row: np.ndarray) -> np.ndarray:
        coder = ans()
        coder.encode_reverse(row, model)
        return coder.get_compressed()

    def decoded(streams: list[np.ndarray]) -> list[np.ndarray]:
        return [ans(stream).decode(model, length) for stream in streams]

    return Coder(name, rows, lambda: list(map(encoded, rows)), decoded)


def zstd_coder(symbols: np.ndarray, level: int) -> Coder:
    """One frame an image."""
    codec, rows = Zstd(level), symbols.astype(np.int8)
    assert (rows == symbols).all()

    def decoded(streams: list[bytes]) -> list[np.ndarray]:
        return [np.frombuffer(codec.decode(stream), np.int8) for stream in streams]

    return Coder(f"zstd, level {level}", rows, lambda: list(map(codec.encode, rows)), decoded)


def ours(source: Source, symbols: np.ndarray) -> dict[str, Timed]:
    """nec on all cores, on one, and, where that takes seconds only, in numpy."""
    found = {"nec, all cores": timed(nec_coder("nec, all cores", source, symbols))}
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    found["nec, one core"] = timed(nec_coder("nec, one core", source, symbols))
    os.sched_setaffinity(0, cores)
    if source.channels == CHANNELS[0]:
        found["nec, numpy"] = in_child(without_numba, source)
    first, *others = (coder.streams for coder in found.values())
    assert all(streams == first for streams in others), "numpy and numba write other bytes"
    return found


def competitors(source: Source, symbols: np.ndarray) -> Iterator[Coder]:
    """One at a time, because a number of threads holds for all of torch."""
    for threads in sorted({1, len(os.sched_getaffinity(0))}):
        yield compressai_coder(source, symbols, threads)
    for lazy in (False, True):
        yield constriction_coder(source, symbols, lazy)
    for level in (3, 19):
        yield zstd_coder(symbols, level)


def in_child(call: Callable[..., Any], *args: Any) -> Any:
    """What a call returns in a new process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(call, *args).result()


def without_numba(source: Source) -> Timed:
    """nec where numba cannot be imported; in a child."""
    assert "nec.coding.scalar" not in sys.modules  # it looks for numba, when first needed
    sys.modules["numba"] = None
    return timed(nec_coder("nec, numpy", source, source.symbols()))


def first_call(cache: str) -> tuple[float, float]:
    """Seconds to import numba, and to encode and decode an image then; in a child."""
    assert "numba" not in sys.modules
    os.environ["NUMBA_CACHE_DIR"] = cache
    import_s = seconds(__import__, "numba")
    source = Source(CHANNELS[0], RATES[-1], 1)
    coder = nec_coder("nec", source, source.symbols())
    return import_s, seconds(lambda: coder.decode(coder.encode()))


class Row(NamedTuple):
    """One coder on one source; an excess is that of the bytes of an image."""

    channels: int
    rate_bits: float
    coder: str
    images: int
    bytes_per_image: float
    ideal_excess_percent: float
    ideal_excess_bytes: float
    tables_excess_percent: float
    tables_excess_bytes: float
    cores: float
    encode_megasymbols_per_s: float
    decode_megasymbols_per_s: float


def rows_of(source: Source, symbols: np.ndarray, found: dict[str, Timed]) -> Iterator[Row]:
    """What coders made of the same symbols."""
    bounds = source.bounds(symbols)
    for name, (streams, cores, *times) in found.items():
        size = float(np.mean([memoryview(stream).nbytes for stream in streams]))
        excess = [e for bound in bounds for e in (100 * (size / bound - 1), size - bound)]
        speeds = [symbols.size / 1e6 / s for s in times]
        yield Row(*source[:2], name, len(symbols), size, *excess, cores, *speeds)


def measured(source: Source) -> list[Row]:
    """A row for each coder."""
    where = f"{source.channels} channels, {source.rate_bits} bits a symbol"
    print(where, file=sys.stderr, flush=True)
    symbols = source.symbols()
    few = symbols[:COMPETITOR_IMAGES]
    others = {coder.name: timed(coder) for coder in competitors(source, few)}
    rows = [*rows_of(source, symbols, ours(source, symbols)), *rows_of(source, few, others)]
    print(f"\n{where}", HEAD, *(LINE.format(*row[2:]) for row in rows), sep="\n")
    for mine, other, _ in SPEED_GOALS:
        if found := ratios(rows, mine, other):
            print("{} / {}: encodes {:.2f}x, decodes {:.2f}x".format(mine, other, *found))
    sys.stdout.flush()
    return rows


def ratios(rows: list[Row], mine: str, other: str) -> list[float]:
    """How many times as fast a coder encodes and decodes as another's best; [] if absent."""
    speeds = [[row[-2:] for row in rows if row.coder.startswith(name)] for name in (mine, other)]
    return np.divide(*(np.max(s, axis=0) for s in speeds)).tolist() if speeds[0] else []


def speed_goals(sources: list[list[Row]]) -> Iterator[Goal]:
    for mine, other, wanted in SPEED_GOALS:
        found = [ratios(rows, mine, other) for rows in sources]
        worst = np.min([pair for pair in found if pair], axis=0).tolist()
        for verb, least, value in zip(("encodes", "decodes"), wanted, worst, strict=True):
            yield f"{mine} {verb} {least:g}x as fast as {other}", value >= least, f"{value:.2f}x"


def rate_goals(rows: list[Row]) -> Iterator[Goal]:
    rows = [row for row in rows if row.coder == "nec, all cores"]
    dense = max(row.ideal_excess_percent for row in rows if row.rate_bits >= 0.5)
    yield "from 0.5 bits up, at most 0.3 % above ideal", dense <= 0.3, f"{dense:.3f} %"
    sparse = [row for row in rows if row.rate_bits < 0.5]
    more = max(r.ideal_excess_bytes * (1 - 0.5 / r.ideal_excess_percent) for r in sparse)
    yield "below, at most 0.5 % and 4 bytes above ideal", more <= 4, f"0.5 % and {more:.2f} bytes"


def first_calls() -> dict[str, float]:
    """Seconds of what is done once, by what it is."""
    found = {}
    with tempfile.TemporaryDirectory() as cache:
        for state in ("empty", "warm"):
            import_s, call_s = in_child(first_call, cache)
            found[f"import numba, before a first call with {state} cache"] = import_s
            found[f"first encode and decode, {state} cache"] = call_s
    for rate in RATES:
        single = in_child(without_numba, Source(CHANNELS[-1], rate, 1))
        what = f"{SINGLE}, {rate} bits a symbol"
        found |= {f"{what}, encode": single.encode_s, f"{what}, decode": single.decode_s}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=512, help="that nec codes, 16 or more (512)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keeps all that was measured")
    args = parser.parse_args()
    if args.images < 16:  # numpy codes fewer one after the other
        parser.error(f"--images is {args.images}; give 16 or more")
    machine = {"cores": len(os.sched_getaffinity(0)), "platform": platform.platform()}
    machine |= {package: version(package) for package in PACKAGES}
    print(*(f"{name} {value}" for name, value in machine.items()), sep=", ")
    print(f"{args.images} images; competitors code {min(args.images, COMPETITOR_IMAGES)} of them")
    once = first_calls()
    print(*(f"{value:7.3f} s  {what}" for what, value in once.items()), sep="\n", flush=True)
    sources = [measured(Source(c, rate, args.images)) for c in CHANNELS for rate in RATES]
    rows = [row for source in sources for row in source]
    slowest = max(value for what, value in once.items() if what.startswith(SINGLE))
    goals = [*speed_goals(sources), *rate_goals(rows)]
    goals.append((f"{SINGLE}, either way in 3 s", slowest <= 3, f"{slowest:.2f} s"))
    print()
    for what, met, worst in goals:
        print(f"{'met' if met else 'NOT met':<8} {what}: {worst} at worst")
    if args.json:
        record = {"machine": machine, "once_s": once, "rows": [row._asdict() for row in rows]}
        args.json.write_text(json.dumps(record | {"goals": goals}, indent=1) + "\n")


if __name__ == "__main__":
    main()
