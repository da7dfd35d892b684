"""Small things that several tests start from."""

import os

import pytest
from hypothesis import settings

# Before torch is loaded, and for all child processes: small products are slower on many threads,
# the more where processes share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("nec", deadline=None)  # a law is not broken by a busy machine
settings.load_profile("nec")

TINY = {"embed_dim": 32, "depth": 3, "num_heads": 2, "patch_size": 4}


def tiny_encoder(**arguments):
    """An untrained ViT: 4 bands, 16 px, a 4x4 grid of 32 channels, 3 blocks."""
    from nec.encoders import Encoder  # here, so that tests of coding and store do without torch

    arguments |= {"checkpoint": "random", "in_chans": 4, "image_size": 16, "architecture": TINY}
    return Encoder("vit_tiny_patch16_224", **arguments)


@pytest.fixture
def encoder():
    """A tiny encoder of the test's own."""
    return tiny_encoder()


def pytest_addoption(parser):
    parser.addoption(
        "--refresh-golden", action="store_true", help="write tests/golden anew: the format changed"
    )
