"""`nec encode`: an archive through the codec that a run left."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from small import SMALL, only_run

from nec.cli import main
from nec.data.files import ImageFiles
from nec.encoders import Encoder
from nec.jobs import archives
from nec.jobs.fitted import build_encoder, open_codec
from nec.store import EmbeddingStore

VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 8}
RUNS = {
    "int8": ["bottleneck=int8"],
    "vq": ["bottleneck=vq", "bottleneck.codes=8"],
    "layered": [
        "bottleneck=layered",
        "bottleneck.tokens.codes=8",
        "bottleneck.pooled.components=8",
    ],
    "adapted": ["lmbda=1", "adapter=last_blocks", "adapter.ratio=0.5"],
}


def write(path, bands, seed=0, side=32):
    """A PNG of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, bands)).astype(np.uint8)
    Image.fromarray(pixels.squeeze()).save(path)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Images in class folders, a checkpoint, and a run on them for each bottleneck."""
    place = tmp_path_factory.mktemp("home")
    for i in range(24):
        write(place / "images" / "ab"[i % 2] / f"{i}.png", 3, seed=i)
    name = "vit_tiny_patch16_224"
    encoder = Encoder(name, checkpoint="random", normalized=True, image_size=32, architecture=VIT)
    save_file(encoder.vit.state_dict(), place / "vit.safetensors")
    kept = [word for word in SMALL if not word.startswith(("data.", "encoder.checkpoint"))]
    words = [*kept, "data=folder", f"data.root={place}/images"]
    words += ["encoder.in_chans=3", f"encoder.checkpoint={place}/vit.safetensors"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for name, chosen in RUNS.items():
            assert main(["run", *words, *chosen, f"name={name}"]) == 0
    return place


@pytest.fixture
def here(home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def by_id(store):
    """Symbols of all layers, split and label of every image."""
    rows = range(len(store))
    symbols = [store.layer(name).read_symbols(rows) for name in store.layers]
    columns = zip(np.concatenate(symbols, axis=1).tolist(), store.splits, store.labels, strict=True)
    return dict(zip(store.ids.tolist(), columns, strict=True))


@pytest.mark.parametrize("name", RUNS)
def test_it_stores_what_the_run_itself_stored_of_the_same_images(home, here, capsys, name):
    run = only_run(home, name)
    assert main(["encode", str(run), f"{home}/images", "s.zarr"]) == 0
    found, own = EmbeddingStore.open("s.zarr"), EmbeddingStore.open(run / "store.zarr")
    found.verify()
    assert by_id(found) == by_id(own)
    assert found.attrs == own.attrs
    assert {k: c.sha256 for k, c in found.layers.items()} == {
        k: c.sha256 for k, c in own.layers.items()
    }
    said = f"{found.bytes_per_image:.1f} bytes each and {found.side_bytes:,} once"
    assert f"24 images of 2 classes, {said}" in capsys.readouterr().out


def test_images_without_class_folders_are_one_split_and_class(home, here, capsys):
    for i in range(3):
        shutil.copytree(home / "images", here / "flat" / "deep", dirs_exist_ok=True)
        shutil.copy(home / "images" / "a" / "0.png", here / "flat" / f"{i}.png")
    assert main(["encode", str(only_run(home, "int8")), "flat", "s.zarr"]) == 0
    store = EmbeddingStore.open("s.zarr")
    assert len(store) == 27
    assert set(store.splits) == {"all"}
    assert list(store.classes) == ["unlabelled"]
    assert "27 images of 1 class, " in capsys.readouterr().out
    own = by_id(EmbeddingStore.open(only_run(home, "int8") / "store.zarr"))
    assert by_id(store)["deep/b/1.png"][0] == own["b/1.png"][0]


def test_what_was_interrupted_goes_on_where_it_was(home, here, monkeypatch):
    monkeypatch.setattr(archives, "APPEND_SIZE", 16)
    words = ["encode", str(only_run(home, "vq")), f"{home}/images", "s.zarr"]
    read, seen = ImageFiles.read, []

    def interrupted(self, index):
        seen.append(self.ids[index])
        if len(seen) == 20:
            raise KeyboardInterrupt
        return read(self, index)

    monkeypatch.setattr(ImageFiles, "read", interrupted)
    assert main(words) == 130
    begun = EmbeddingStore.open("s.zarr")
    assert (len(begun), begun.complete) == (16, False)
    assert main(["encode", str(only_run(home, "int8")), *words[2:]]) == 1  # another codec
    seen[:] = ["more"] * 100
    assert main(words) == 0
    assert len(seen) == 108  # none of the first 16 again
    whole = EmbeddingStore.open("s.zarr")
    assert whole.complete
    assert by_id(whole) == by_id(EmbeddingStore.open(only_run(home, "vq") / "store.zarr"))
    assert main(words) == 1  # it is complete


def lay_out(root, names, broken):
    """Images of several sizes, one of which ends early."""
    for seed, name in enumerate(names):
        write(root / name, 3, seed=seed, side=32 - 8 * (seed % 3))
    whole = (root / broken).read_bytes()
    (root / broken).write_bytes(whole[: len(whole) // 2])


FOLDERS = {
    "class folders": ([f"{'ab'[i % 2]}/{i}.png" for i in range(12)], "b/5.png"),
    "no class folders": ([f"{i}.png" for i in range(12)], "5.png"),
    "class folders once it is gone": ([f"{'ab'[i % 2]}/{i}.png" for i in range(11)], "z.png"),
    "a class that it was alone in": ([f"{'abc'[i % 3]}/{i}.png" for i in range(11)], "b0/z.png"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_it_goes_on_once_a_damaged_image_is_removed(home, here, monkeypatch, capfd, kind):
    names, broken = FOLDERS[kind]
    lay_out(here / "images", sorted({*names, broken}), broken)
    monkeypatch.setattr(archives, "APPEND_SIZE", 2)
    monkeypatch.setattr(archives, "BLOCK_SIZE", 2)
    words = ["encode", str(only_run(home, "int8")), "images", "s.zarr"]
    assert main(words) == 1
    assert f"{broken} cannot be read as an image" in capfd.readouterr().err
    begun = by_id(EmbeddingStore.open("s.zarr"))
    assert begun
    (here / "images" / broken).unlink()
    assert main(words) == 0
    store = EmbeddingStore.open("s.zarr")
    found = by_id(store)
    assert store.complete
    assert found.keys() == {*names} - {broken}
    assert {name: found[name] for name in begun} == begun
    if len(store.classes) > 1:
        assert all(store.classes[label] == name[0] for name, (_, _, label) in found.items())


def test_it_does_not_go_on_with_other_images_or_classes(home, here, monkeypatch, capfd):
    monkeypatch.setattr(archives, "APPEND_SIZE", 2)
    monkeypatch.setattr(archives, "BLOCK_SIZE", 2)
    lay_out(here / "images", *FOLDERS["class folders"])
    words = ["encode", str(only_run(home, "int8")), "images", "s.zarr"]
    assert main(words) == 1
    write(here / "images" / "c" / "0.png", 3)
    assert main(words) == 1
    assert "no class or split 'c', which images has; give the SOURCE" in capfd.readouterr().err
    shutil.move(here / "images" / "c", here / "c")
    held = EmbeddingStore.open("s.zarr").ids[0]
    (here / "images" / held).unlink()
    assert main(words) == 1
    assert f"holds image '{held}', which images lacks; give the SOURCE" in capfd.readouterr().err


def test_weights_are_known_by_what_is_in_them(home, here, capfd):
    run = only_run(home, "int8")
    folder = here / "codec"
    shutil.copytree(run / "codec", folder)
    text = (folder / "codec.json").read_text()
    (folder / "codec.json").write_text(text.replace(f"{home}/vit.safetensors", "gone.safetensors"))
    words = ["encode", str(folder), f"{home}/images", "s.zarr"]
    assert main(words) == 1
    assert "gone.safetensors, the weights of encoder" in capfd.readouterr().err
    state = load_file(home / "vit.safetensors")
    state["blocks.0.attn.qkv.weight"][0, 0] += 1
    save_file(state, here / "other.safetensors")
    assert main([*words, "--checkpoint", "other.safetensors"]) == 1
    assert re.search(r"weights_sha256 of .* was fitted with .*--checkpoint", capfd.readouterr().err)
    assert not (here / "s.zarr").exists()
    assert main([*words, "--checkpoint", f"{home}/vit.safetensors"]) == 0


def test_what_was_adapted_comes_from_the_folder(home):
    fitted = open_codec(only_run(home, "adapted"))
    plain = load_file(home / "vit.safetensors")
    state = build_encoder(fitted).vit.state_dict()
    changed = {name for name, value in state.items() if not torch.equal(value, plain[name])}
    assert changed == load_file(fitted.folder / "encoder.safetensors").keys()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: shutil.rmtree(p), "there is no folder images"),
        (lambda p: [q.unlink() for q in p.rglob("*.png")], "there is no image in images"),
        (lambda p: (p / "a" / "0.png").write_bytes(b"no"), r"0.png cannot be read as an image"),
        (lambda p: write(p / "b" / "9.png", 4), "9.png has 4 bands"),
        (lambda p: [write(q, 1) for q in p.rglob("*.png")], "has 1 band .*takes 3"),
    ],
)
def test_a_bad_source_is_one_line_and_leaves_nothing(home, here, capfd, spoil, message):
    shutil.copytree(home / "images", here / "images")
    spoil(here / "images")
    assert main(["encode", str(only_run(home, "int8")), "images", "s.zarr"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("nec: error: ")
    assert re.search(message, line), line
    assert not (here / "s.zarr").exists()


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_an_image_whose_embedding_is_no_number_is_named(home, here, capfd):
    rasterio = pytest.importorskip("rasterio")
    pixels = np.ones((3, 32, 32), np.float32)
    about = {"driver": "GTiff", "count": 3, "height": 32, "width": 32, "dtype": "float32"}
    (here / "images").mkdir()
    for name in ("a", "b"):
        pixels[:, :3, :3] = -3.4e38 if name == "b" else 0  # what float rasters have for no data
        with rasterio.open(here / "images" / f"{name}.tif", "w", **about) as file:
            file.write(pixels)
    assert main(["encode", str(only_run(home, "int8")), "images", "s.zarr"]) == 1
    assert "embedding of image 'b.tif' holds NaN" in capfd.readouterr().err


def test_help_teaches_without_torch():
    code = (
        "import sys; from nec.cli import main\n"
        "try: main(['encode', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'zarr', 'hydra'} & sys.modules.keys()"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    for word in ("CODEC", "SOURCE", "STORE", "--checkpoint", "goes on where it was"):
        assert word in shown.stdout
