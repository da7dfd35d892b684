import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nec.coding import CorruptStreamError, Decoder, Tables, decode, encode
from nec.coding.frequencies import TOTAL

GOLDEN = Path(__file__).parents[1] / "golden"
ENDS = (b"\0", b"\xff")
INT32 = st.integers(-(2**31), 2**31 - 1)


pytestmark = pytest.mark.usefixtures("coder")


def adversarial_tables():
    """Peaked, empty, one-sided, flat and constant contexts over the symbols -3..4."""
    counts = [
        [0, 0, 0, 10**9, 1, 0, 0, 0],
        [0] * 8,
        [0, 0, 0, 0, 0, 0, 0, 1],
        [1] * 8,
        [2**40, 1, 2, 3, 5, 8, 13, 21],
    ]
    return Tables.from_counts(counts, [-3] * 5)


def laplace(scale, shape, seed=0):
    return np.rint(np.random.default_rng(seed).laplace(0, scale, shape)).astype(np.int32)


def extra_bytes(symbols, tables, contexts):
    """Coded less ideal bytes of each stream."""
    coded = np.array([len(s) for s in encode(symbols, tables, contexts)])
    return coded - tables.code_length(symbols, contexts) / 8


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_int32_survives_any_context(data):
    shape = data.draw(st.tuples(st.integers(0, 5), st.integers(0, 40)))
    values = st.one_of(st.integers(-5, 6), INT32, st.sampled_from([-(2**31), 2**31 - 1, 0]))
    symbols = data.draw(arrays(np.int32, shape, elements=values))
    each = data.draw(st.booleans())
    contexts = data.draw(arrays(np.int64, shape if each else shape[1:], elements=st.integers(0, 4)))
    tables = adversarial_tables()
    streams = encode(symbols, tables, contexts)
    assert [type(s) for s in streams] == [bytes] * shape[0]
    assert np.array_equal(decode(streams, tables, contexts, shape[1]), symbols)
    lengths = np.array([len(s) for s in streams])
    assert (lengths < tables.code_length(symbols, contexts) / 8 + 1.01).all()
    assert not any(s.endswith(b"\xff") for s in streams)


def test_a_stream_does_not_depend_on_its_batch():
    symbols = laplace(1.0, (40, 64))
    tables, contexts = Tables.from_laplace([1.0]), np.zeros(64, int)
    whole = encode(symbols, tables, contexts)
    assert whole == [encode(row[None], tables, contexts)[0] for row in symbols]


def test_reading_in_steps_is_reading_at_once():
    symbols = laplace(1.5, (9, 100))
    tables = Tables.from_laplace([0.5, 1.5, 4.0])
    contexts = np.random.default_rng(0).integers(0, 3, (9, 100))
    decoder = Decoder(encode(symbols, tables, contexts), tables)
    parts = [decoder.read(contexts[:, a:b]) for a, b in ((0, 0), (0, 1), (1, 60), (60, 100))]
    decoder.close()
    assert np.array_equal(np.concatenate(parts, axis=1), symbols)


@pytest.mark.parametrize("scale", [0.2, 1.0, 20.0])
def test_a_stream_is_at_most_a_byte_longer_than_its_ideal_length(scale):
    symbols = laplace(scale, (60, 2000))
    tables, contexts = Tables.from_laplace([scale]), np.zeros(2000, int)
    extra = extra_bytes(symbols, tables, contexts)
    assert extra.max() < 1.01  # by luck, one may be shorter than its ideal length
    assert 0.2 < extra.mean() < 0.5


@pytest.mark.parametrize("p", [0.5, 0.05])
def test_coded_length_is_the_entropy_of_the_source(p):
    symbols = (np.random.default_rng(0).random((4, 10_000)) < p).astype(np.int32)
    share = symbols.mean()
    entropy = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    tables = Tables.from_counts([np.bincount(symbols.ravel())], [0])
    coded = sum(len(s) for s in encode(symbols, tables, np.zeros(10_000, int)))
    assert 8 * coded == pytest.approx(40_000 * entropy, rel=0.01)


def test_escapes_cost_what_code_length_says():
    symbols = np.random.default_rng(0).integers(-(2**31), 2**31, (30, 400)).astype(np.int32)
    tables, contexts = adversarial_tables(), np.full(400, 1)
    extra = extra_bytes(symbols, tables, contexts)
    assert extra.max() < 1.01  # by luck, one may be shorter than its ideal length
    ideal = tables.code_length(symbols, contexts) / 8
    assert ideal == pytest.approx(400 * 36 / 8, rel=0.01)  # 6 bits of count and 30 more


def test_the_likeliest_symbols_alone_cost_nothing():
    tables = Tables.from_laplace([0.1, 0.3])
    contexts = np.arange(1000) % 2
    assert encode(np.zeros((2, 1000), np.int32), tables, contexts) == [b"", b""]
    assert not decode([b"", b""], tables, contexts, 1000).any()


def test_a_huge_alphabet_round_trips():
    rng = np.random.default_rng(0)
    tables = Tables.from_counts(rng.integers(1, 9, (2, 4096)), [-2048, 0])
    symbols = rng.integers(-2100, 4200, (4, 500)).astype(np.int32)
    contexts = np.arange(500) % 2
    assert np.array_equal(decode(encode(symbols, tables, contexts), tables, contexts, 500), symbols)


@pytest.mark.parametrize("scale", [0.2, 1.3, 40.0])
def test_constriction_needs_as_many_bits(scale):
    constriction = pytest.importorskip("constriction")
    symbols = laplace(scale, (1, 100_000))
    tables = Tables.from_laplace([scale])
    probabilities = tables.frequencies[0, :-1] / TOTAL
    radius = -int(tables.offsets[0])
    symbols = symbols.clip(-radius, radius)
    model = constriction.stream.model.Categorical(probabilities, perfect=True)
    coder = constriction.stream.stack.AnsCoder()
    coder.encode_reverse((symbols[0] + radius).astype(np.int32), model)
    ours = 8 * len(encode(symbols, tables, np.zeros(100_000, int))[0])
    assert ours == pytest.approx(coder.num_bits(), rel=1e-3, abs=64)


def test_a_stream_is_the_shortest_that_decodes_to_its_symbols():
    tables, contexts = Tables.from_laplace([0.6]), np.zeros(6, int)
    every = [bytes([a]) for a in range(255)]
    every += [bytes([a, b]) for a in range(256) for b in range(0, 255, 5)]
    shortest = {}
    for stream in sorted([b"", *every], key=len):
        decoder = Decoder([stream], tables)
        shortest.setdefault(decoder.read(contexts).tobytes(), len(stream))
    symbols = laplace(0.6, (200, 6))
    for row, stream in zip(symbols, encode(symbols, tables, contexts), strict=True):
        assert len(stream) <= shortest.get(row.tobytes(), 99)


def test_a_stream_that_decodes_is_the_one_that_was_encoded():
    tables, contexts = Tables.from_laplace([0.6, 3.0]), np.arange(8) % 2
    rng = np.random.default_rng(0)
    accepted = 0
    for size in rng.integers(0, 6, 2000):
        stream = rng.bytes(size)
        try:
            symbols = decode([stream], tables, contexts, 8)
        except CorruptStreamError:
            continue
        assert encode(symbols, tables, contexts) == [stream]
        accepted += 1
    assert accepted > 20


def test_damaged_streams_are_an_error_or_other_symbols():
    symbols = laplace(1.0, (1, 60))
    tables, contexts = Tables.from_laplace([1.0]), np.zeros(60, int)
    stream = encode(symbols, tables, contexts)[0]
    damaged = [stream[:n] for n in range(len(stream))] + [stream + b"\0", b"\xff" * 99]
    damaged += [stream[:i] + end + stream[i + 1 :] for i in range(len(stream)) for end in ENDS]
    for i in range(len(stream)):
        flipped = [bytes([stream[i] ^ 1 << bit]) for bit in range(8)]
        damaged += [stream[:i] + byte + stream[i + 1 :] for byte in flipped]
    refused = 0
    for bad in damaged:
        try:
            found = decode([bad], tables, contexts, 60)
            assert encode(found, tables, contexts) == [bad]
        except CorruptStreamError:
            refused += 1
    assert 0 < refused < len(damaged)


def test_a_stream_that_ends_with_ff_is_refused():
    symbols, contexts = laplace(1.0, (3, 60)), np.zeros(60, int)
    tables = Tables.from_laplace([1.0])
    streams = encode(symbols, tables, contexts)
    streams[1] += b"\xff"
    with pytest.raises(CorruptStreamError, match="stream 1 ends with a byte ff"):
        decode(streams, tables, contexts, 60)
    with pytest.raises(CorruptStreamError, match="stream 0 ends with a byte ff"):
        Decoder([b"\xff"], tables)


def test_the_damaged_one_of_many_streams_is_named():
    symbols, contexts = laplace(1.0, (100, 60)), np.zeros(60, int)
    tables = Tables.from_laplace([1.0])
    streams = encode(symbols, tables, contexts)
    streams[77] += b"\0"
    with pytest.raises(CorruptStreamError, match="stream 77 does not end"):
        decode(streams, tables, contexts, 60)


def test_an_escape_to_what_is_no_int32_is_refused():
    # The context knows no symbol: 6 bits say 40, and the value that follows is above 2**39.
    tables = Tables.from_counts([[0]], [0])
    with pytest.raises(CorruptStreamError, match="not an int32"):
        decode([bytes([40 << 2]) * 9], tables, np.zeros(1, int), 1)


def test_an_escape_to_what_is_in_the_table_is_refused():
    # The escape has the same slots in both tables; the second one holds symbol 1 besides.
    tables = Tables(np.array([[TOTAL - 65, 0, 64, 1]]), [0])
    other = Tables(np.array([[TOTAL - 65, 32, 32, 1]]), [0])
    streams = encode([[1, 0, 3]], tables, np.zeros(3, int))
    with pytest.raises(CorruptStreamError, match="needs no escape"):
        decode(streams, other, np.zeros(3, int), 3)
    streams = encode([[-1, 0, 3]], tables, np.zeros(3, int))
    assert decode(streams, other, np.zeros(3, int), 3).tolist() == [[-1, 0, 3]]


def test_fewer_symbols_do_not_end_where_the_stream_does():
    symbols, contexts = laplace(3.0, (1, 100)), np.zeros(100, int)
    tables = Tables.from_laplace([3.0])
    stream = encode(symbols, tables, contexts)
    with pytest.raises(CorruptStreamError, match="does not end where its symbols do"):
        decode(stream, tables, contexts[:50], 50)
    with pytest.raises(CorruptStreamError, match="does not end where its symbols do"):
        decode(stream, Tables.from_laplace([0.5]), contexts[:10], 10)


@pytest.mark.parametrize(
    ("symbols", "contexts", "message"),
    [
        (np.zeros((1, 3)), np.zeros(3, int), "symbols are float64"),
        (np.zeros(3, int), np.zeros(3, int), "give 2-d integers"),
        (np.full((1, 1), 2**31), np.zeros(1, int), "they are int32"),
        (np.full((1, 1), 2**64 - 1, np.uint64), np.zeros(1, int), "below 2\\*\\*63"),
        (np.zeros((1, 3), int), np.zeros(2, int), "contexts are int64"),
        (np.zeros((1, 3), int), np.zeros(3), "contexts are float64"),
        (np.zeros((1, 3), int), 0, r"contexts are int64 \(\)"),
        (np.zeros((1, 3), int), np.full(3, 5), "the tables have 0 to 4"),
        (np.zeros((1, 3), int), np.full(3, -1), "the tables have 0 to 4"),
    ],
)
def test_wrong_input_is_named(symbols, contexts, message):
    with pytest.raises(ValueError, match=message):
        encode(symbols, adversarial_tables(), contexts)


def test_contexts_have_an_axis_of_symbols():
    with pytest.raises(ValueError, match="contexts are int64"):
        Decoder([b""], adversarial_tables()).read(0)


def test_format_1_is_frozen(request):
    symbols = laplace(1.0, (1, 500))
    symbols[0, [3, 77, 400]] = [-(2**31), 2**31 - 1, 1000]
    tables = Tables.from_laplace([0.1, 1.0, 3.0])
    contexts = np.arange(500) % 3
    stream, golden = encode(symbols, tables, contexts)[0], GOLDEN / "stream_format_1.bin"
    # zlib may deflate otherwise one day; the hash is over what it inflates to.
    identity, identity_golden = bytes.fromhex(tables.sha256), GOLDEN / "tables_format_1.bin"
    if request.config.getoption("--refresh-golden"):
        golden.write_bytes(stream)
        identity_golden.write_bytes(tables.to_bytes()[:1] + identity)
    assert stream == golden.read_bytes()
    assert tables.to_bytes()[:1] + identity == identity_golden.read_bytes()
    assert np.array_equal(decode([golden.read_bytes()], tables, contexts, 500), symbols)
