"""`nec encode`: the command and its arguments."""

import argparse
from pathlib import Path

HELP = """\
Encode all images below a folder into a new store, with the encoder and the fitted bottleneck of a
run. Nothing is fitted anew, so stores of one codec go together, whenever they were written.

  nec encode runs/scenes/RUN IMAGES archive.zarr
  nec encode RUN/codec IMAGES archive.zarr --checkpoint vit.safetensors --device cuda --workers 8
  nec inspect archive.zarr --verify          what it holds, and what an image of it costs

What is interrupted goes on where it was by the same command; a complete store is never changed.
"""
EPILOG = """\
Images are .png, .tif, .jpg, all of one type and number of bands, of any size; an id is the path
below SOURCE. Where every image lies in one of two or more class folders, or of those in train, val
and test, a store tells class and split. If even one lies elsewhere, none is left out: all are of
one split, "all", and of one class. Of images in folders "images" beside "masks" the masks are
left out. Hidden files and folders are skipped; a folder that cannot be
listed is an error. The codec's folder knows the weights by their sha256: others are refused.
"""


def main(argv: list[str]) -> int:
    """Parse, encode, say what an image takes. Imports here: `nec encode --help` needs none."""
    args = parser().parse_args(argv[1:])
    from nec.jobs.archives import encode_archive

    store = encode_archive(
        args.codec, args.source, args.store, args.checkpoint, args.device, args.workers
    )
    classes = f"{len(store.classes)} class{'es' * (len(store.classes) > 1)}"
    print(
        f"{len(store)} images of {classes}, {store.bytes_per_image:.1f} bytes each and "
        f"{store.side_bytes:,} once: {args.store}"
    )
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of `nec encode`."""
    made = argparse.ArgumentParser(
        prog="nec encode",
        description=HELP,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("codec", metavar="CODEC", help="the folder of a run, or codec in it")
    made.add_argument("source", metavar="SOURCE", type=Path, help="a folder with images in it")
    made.add_argument("store", metavar="STORE", type=Path, help="where the store goes; local")
    made.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="the encoder's weights, where they lie elsewhere than when the run was made",
    )
    made.add_argument("--device", default="cpu", help="cpu (the default), cuda, cuda:1")
    made.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that read images (0: none)"
    )
    return made
