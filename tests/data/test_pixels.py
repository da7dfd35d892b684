from pathlib import Path

import nec.conf
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nec.data.boxes import boxes
from nec.data.pixels import AVIF, JPEG2000, JPEGXL

imagecodecs = pytest.importorskip("imagecodecs")

CODECS = [AVIF, JPEGXL, JPEG2000]
every = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
# A quality at which little is lost, and one at which much is.
HIGH = {AVIF: 90, JPEGXL: 99, JPEG2000: 45}
LOW = {AVIF: 10, JPEGXL: 10, JPEG2000: 22}


def test_every_choice_of_the_group_is_here():
    folder = Path(next(iter(nec.conf.__path__)), "pixels")
    assert {path.stem for path in folder.glob("*.yaml")} == {codec.name for codec in CODECS} | {
        "none"
    }


def image(bands=3, height=37, width=50, dtype="uint8", seed=0):
    """Smooth colours with some noise."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(30, 220, (1, bands, 4, 5)))
    smooth = F.interpolate(coarse, (height, width), mode="bicubic")[0].numpy()
    values = (smooth + rng.normal(0, 4, smooth.shape)).clip(0, 255)
    scale = np.iinfo(dtype).max / 255
    return torch.from_numpy((values * scale).astype(dtype))


def error(a, b):
    return float((a.double() - b.double()).square().mean().sqrt())


@every
def test_what_is_decoded_is_what_the_library_decodes_of_the_file(codec):
    made, x = codec(HIGH[codec]), image()
    file = made.encode(np.ascontiguousarray(x.numpy().transpose(1, 2, 0)))
    decoded = getattr(imagecodecs, f"{codec.prefix}_decode")(file)
    coded = made.code(x)
    assert np.array_equal(coded.pixels.numpy(), decoded.transpose(2, 0, 1))
    assert coded.file == len(file)
    assert getattr(imagecodecs, f"{codec.prefix}_check")(file)


@every
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5, 13])
@pytest.mark.parametrize("resolution", [1.0, 0.25])
def test_an_image_keeps_its_type_and_size(codec, bands, resolution):
    for height, width in ((37, 50), (1, 3), (8, 8)):
        x = image(bands, height, width)
        coded = codec(HIGH[codec], resolution).code(x)
        assert (coded.pixels.shape, coded.pixels.dtype) == (x.shape, x.dtype)
        assert 0 < coded.payload < coded.file


@every
@pytest.mark.parametrize("bands", [1, 3, 4])
def test_quality_costs_bytes_and_saves_error(codec, bands):
    x = image(bands, 64, 64)
    low, high = (codec(quality[codec]).code(x) for quality in (LOW, HIGH))
    assert low.file < high.file
    assert low.payload < high.payload
    assert error(low.pixels, x) > 2 * error(high.pixels, x)
    assert error(high.pixels, x) < 4


def test_thirteen_constant_bands_cost_about_one_header_of_jpeg_2000():
    one, all_bands = (torch.zeros(bands, 64, 64, dtype=torch.uint16) for bands in (1, 13))
    # A band has its own size in the header, and packets, though they are empty.
    assert JPEG2000(30).code(all_bands).payload < JPEG2000(30).code(one).payload + 12 * 15


def test_many_bands_of_jpeg_2000_are_one_file_where_bytes_are_few_and_threes_where_many():
    x = image(13, 64, 64, "uint16").numpy()
    x = torch.from_numpy(x // 4 + x[:1] // 4 * 3)  # correlated
    for quality, counts in ((20, [13]), (45, [3, 3, 3, 3, 1])):
        codec = JPEG2000(quality)
        files = codec.compress(x)
        decoded = [np.atleast_3d(imagecodecs.jpeg2k_decode(file)) for file in files.coded]
        assert [each.shape[2] for each in decoded] == counts
        levels = np.concatenate(decoded, axis=2).transpose(2, 0, 1).astype(np.int64)
        assert (files.gain, codec.restore(files).tolist()) == (1, levels.tolist())
        others = [counts for counts in codec.groupings(13) if len(counts) != len(files.coded)]
        assert error(codec.restore(files), x) <= 65535 / 10 ** (quality / 20)
        assert codec.code(x).payload < payload_of(codec, x, *others)


def payload_of(codec, x, counts):
    """Bytes of an image whose bands are dealt out in one way."""
    parts = [part.permute(1, 2, 0).squeeze(2).numpy() for part in x.split(counts)]
    return sum(codec.payload(codec.encode(np.ascontiguousarray(part))) for part in parts)


@pytest.mark.parametrize("codec", [AVIF, JPEGXL], ids=lambda codec: codec.name)
def test_bands_of_other_formats_are_dealt_out_in_threes_and_one_by_one(codec):
    files = codec(50).compress(image(5, 64, 64))
    decoded = [codec(50).decode(file) for file in files.coded]
    assert [np.atleast_3d(each).shape[2] for each in decoded] == [3, 1, 1]


@every
def test_resolution_saves_bytes_and_costs_error(codec):
    x = image(3, 64, 64)
    full, half, quarter = (codec(HIGH[codec], r).code(x) for r in (1, 0.5, 0.25))
    assert full.payload > half.payload > quarter.payload
    assert error(full.pixels, x) < error(half.pixels, x) < error(quarter.pixels, x)


@pytest.mark.parametrize("codec", [JPEGXL, JPEG2000], ids=lambda codec: codec.name)
@pytest.mark.parametrize("bands", [1, 3])
def test_sixteen_bits_are_coded_as_such(codec, bands):
    x = image(bands, dtype="uint16")
    coded = codec(HIGH[codec], 0.5).code(x)
    assert coded.pixels.dtype == torch.uint16
    assert error(codec(HIGH[codec]).code(x).pixels, x) < 4 * 257


@pytest.mark.parametrize("codec", [JPEGXL, JPEG2000], ids=lambda codec: codec.name)
def test_dark_reflectances_are_coded_as_well_as_bright_ones(codec):
    bright = image(3, dtype="uint16").numpy() // 8 * 7
    bright.flat[0] = 7 * 9000
    dark = codec(LOW[codec]).code(torch.from_numpy(bright // 7))
    light = codec(LOW[codec]).code(torch.from_numpy(bright // 7 * 7))
    assert dark.payload == light.payload
    off = 7.0 * dark.pixels.numpy() - light.pixels.numpy()
    assert np.abs(off).max() <= 3.5


@every
def test_a_type_that_a_format_lacks_is_refused_with_a_way_out(codec):
    for dtype in {"uint16", "int16", "float32"} - set(codec.dtypes):
        with pytest.raises(ValueError, match=f"pixels of {dtype} .* {codec.name}.*pixels=jpeg2000"):
            codec(HIGH[codec]).code(image().to(getattr(torch, dtype)))


@every
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1,), "pixels.quality is -1"),
        ((101,), "pixels.quality is 101"),
        ((50, 0), "pixels.resolution is 0"),
        ((50, 1.5), "pixels.resolution is 1.5"),
    ],
)
def test_numbers_of_no_meaning_are_refused(codec, arguments, message):
    with pytest.raises(ValueError, match=message):
        codec(*arguments)


@every
def test_gray_is_coded_with_loss_and_for_less_than_colour(codec):
    gray, colour = image(1, 64, 64), image(3, 64, 64)
    made = codec(LOW[codec])
    assert error(made.code(gray).pixels, gray) > 0
    assert made.code(gray).payload < made.code(colour).payload


@pytest.mark.parametrize("bands", [1, 2, 4])
def test_avif_of_the_highest_quality_keeps_the_number_of_bands_and_each_single_one(bands):
    x = image(bands, dtype="uint8")
    decoded = AVIF(100).code(x).pixels
    assert decoded.shape == x.shape
    assert torch.equal(decoded[-1], x[-1])


@every
def test_the_same_pixels_give_the_same_bytes_whatever_was_coded_before(codec):
    made = codec(LOW[codec])
    first = made.code(image())
    made.code(image(4, 64, 64))
    again = codec(LOW[codec]).code(image())
    assert torch.equal(first.pixels, again.pixels)
    assert first[1:] == again[1:]


def _obus(data):
    """Kind and size of the units of an AV1 stream (AV1 specification, 5.3)."""
    found = []
    while data:
        assert data[0] & 2, "a unit without its size"
        size, shift, start = 0, 0, 1
        while True:
            size |= (data[start] & 127) << shift
            shift, start = shift + 7, start + 1
            if not data[start - 1] & 128:
                break
        found.append((data[0] >> 3 & 15, size))
        data = data[start + size :]
    return found


def test_the_payload_of_avif_is_all_that_its_items_point_to():
    file = AVIF(30).encode(np.ascontiguousarray(image().numpy().transpose(1, 2, 0)))
    (data,) = (content for kind, content in boxes(file) if kind == b"mdat")
    assert AVIF(30).payload(file) == len(data)
    (extents,) = (content for kind, content in boxes(file) if kind == b"meta")
    place = extents.index(b"iloc") + 4
    offset, length = np.frombuffer(extents, ">u4", 2, place + 4 + 2 + 2 + 6)  # of the one item
    assert (offset, length) == (file.index(data), len(data))
    temporal_delimiter, sequence_header, frame = 2, 1, 6
    assert [kind for kind, _ in _obus(data)] == [temporal_delimiter, sequence_header, frame]


@pytest.mark.parametrize("quality", [18, 24, 30])
@pytest.mark.parametrize("value", [0, 15, 50, 200])
def test_jpeg_2000_reaches_its_quality_on_smooth_images_too(value, quality):
    ramp = np.linspace(value, value + 8, 64)
    smooth = np.broadcast_to(ramp[:, None, None], (64, 64, 3)).astype(np.uint8)
    constant = np.full_like(smooth, value)
    noisy = image().numpy().transpose(1, 2, 0)
    for pixel in (smooth, constant, noisy):
        decoded = JPEG2000(quality).decode(JPEG2000(quality).encode(np.ascontiguousarray(pixel)))
        error = np.square(decoded.astype(float) - pixel).mean()
        assert error <= 255**2 / 10 ** (quality / 10)


def test_the_payload_of_jpeg_2000_decodes_and_lacks_only_the_comment():
    codec = JPEG2000(30)
    file = codec.encode(np.ascontiguousarray(image().numpy().transpose(1, 2, 0)))
    (stream,) = (content for kind, content in boxes(file) if kind == b"jp2c")
    start = stream.index(b"\xff\x64\x00")
    comment = 2 + int.from_bytes(stream[start + 2 : start + 4], "big")
    assert b"OpenJPEG" in stream[start : start + comment]
    bare = stream[:start] + stream[start + comment :]
    assert codec.payload(file) == len(bare)
    assert np.array_equal(imagecodecs.jpeg2k_decode(bare), codec.decode(file))


def test_the_payload_of_jpeg_xl_is_a_codestream_less_its_signature():
    file = JPEGXL(30).encode(image(1).numpy()[0])
    assert file[:2] == b"\xff\x0a"
    assert JPEGXL(30).payload(file) == len(file) - 2


@every
def test_a_description_tells_codecs_apart(codec):
    about = codec(50, 0.5).describe()
    assert (about["format"], about["quality"], about["resolution"]) == (codec.name, 50, 0.5)
    assert imagecodecs.__version__ in about["library"]


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
    with pytest.raises(ImportError, match=r"pip install 'nec\[competitors\]'"):
        AVIF(50).code(image())
