"""A codec that was fitted elsewhere: taken over by another run, as it is."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small import SMALL, only_run

from nec.cli import main
from nec.config import compose, identity
from nec.jobs.fitted import build_bottleneck, build_encoder, open_codec
from nec.jobs.names import describe
from nec.store import EmbeddingStore

OTHER = ["data.split=1", "name=other"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with one run, of levels."""
    place = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert nec("bottleneck=uniform", "bottleneck.bits=3") == 0
    return place


@pytest.fixture
def here(home, monkeypatch):
    monkeypatch.chdir(home)
    yield home
    shutil.rmtree(home / "runs" / "other", ignore_errors=True)


def nec(*words):
    return main(["run", *SMALL, *words])


@pytest.mark.parametrize("inner", ["", "codec"])
def test_a_run_takes_over_the_codec_of_another_and_fits_none(here, inner):
    fitted = only_run(here)
    words = ["bottleneck=uniform", "bottleneck.bits=3", f"codec={fitted / inner}"]
    assert nec(*words, *OTHER) == 0
    folder = only_run(here, "other")
    one, other = (EmbeddingStore.open(f / "store.zarr") for f in (fitted, folder))
    assert one.codec.sha256 == other.codec.sha256
    assert not np.array_equal(one.read(range(4)), other.read(range(4)))  # of other images
    about = json.loads((folder / "run.json").read_text())
    assert about["variant"].startswith(f"uniform · codec={fitted.name} · ")
    assert open_codec(folder).codecs["embedding"].sha256 == one.codec.sha256


def test_a_codec_counts_by_the_name_of_its_run_wherever_it_lies(here):
    def of(*words):
        composed = compose(["bottleneck=uniform", *words])
        return identity(composed.config), describe(composed)["variant"]

    assert of("codec=a/RUN") == of("codec=/b/RUN/codec")
    assert len({of(), of("codec=a/RUN"), of("codec=a/OTHER")}) == 3
    assert of("codec=null") == of()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bottleneck.bits=4"], "bottleneck.bits is 4, .* fitted as 3; set bottleneck.bits=3"),
        (["bottleneck=int8"], "bottleneck is nec.bottlenecks.Int8, .* fitted as .*Uniform"),
        (["encoder.block=1"], "block of encoder .* is 1, .* fitted with 2; set encoder"),
        (["encoder.image_size=16"], "image_size of encoder .* is 16, .* fitted with 32"),
        (["bottleneck=factorized", "lmbda=1"], "bottleneck=factorized learns; set codec=null"),
        (["codec=absent"], "absent holds no codec.json; give the folder of a finished run"),
        (["codec=3"], "codec is 3; it is text or null"),
    ],
)
def test_a_codec_that_does_not_fit_is_one_line_and_leaves_nothing(here, capfd, words, message):
    chosen = ["bottleneck=uniform", "bottleneck.bits=3", f"codec={only_run(here)}"]
    keys = {word.split("=")[0] for word in words}
    own = [w for w in chosen if w.split("=")[0] not in keys]
    if "bottleneck" in keys:
        own = [w for w in own if not w.startswith("bottleneck")]
    assert nec(*own, *words, *OTHER) in (1, 2)
    (line,) = capfd.readouterr().err.splitlines()
    assert re.search(message, line), line
    assert not list((here / "runs" / "other").glob("*"))


def test_a_damaged_codec_folder_is_named(here, tmp_path):
    folder = tmp_path / "codec"
    shutil.copytree(only_run(here) / "codec", folder)
    record, weights = folder / "codec.json", folder / "bottleneck.safetensors"
    about = json.loads(record.read_text())
    encoder = build_encoder(open_codec(folder))
    other = {name: torch.ones(32) for name in load_file(weights)}
    for damage, message in (
        (lambda: save_file(other, weights), "bottleneck.safetensors and codec.json are not of one"),
        (lambda: weights.write_bytes(b"no"), "bottleneck.safetensors cannot be read"),
        (weights.unlink, "weights are not of this bottleneck"),
        (lambda: record.write_text("{"), "codec.json cannot be read"),
        (lambda: record.write_text(json.dumps({"codec": about["codec"]})), "has no 'encoder'"),
    ):
        damage()
        with pytest.raises(ValueError, match=message):
            build_bottleneck(open_codec(folder), encoder)
