from pathlib import Path

import pytest
from omegaconf import OmegaConf

from nec.config import compose
from nec.jobs.names import check_same, describe, lock_file, run_folder, work_folder


def called(*overrides):
    about = describe(compose(overrides))
    return about["variant"], about["setting"]


@pytest.mark.parametrize(
    "option",
    ["trainer.max_epochs=4", "data.train_per_class=9", "data.batch_size=8", "encoder.block=2"],
)
def test_what_changes_training_makes_another_curve(option):
    assert called("lmbda=1", option) == (f"factorized · embedding · none · {option}", "λ=1")


@pytest.mark.parametrize("option", ["seed=3", "data.split=1", "data.workers=2", "logger=wandb"])
def test_seeds_splits_and_places_leave_a_curve_its_name(option):
    assert called("lmbda=1", option) == called("lmbda=1")


def test_a_legend_is_of_the_data_and_not_in_a_curves_name():
    legend = ["data.legend={land: '#8429F6', water: '#E2A929'}", "data.ignored=['#000000']"]
    assert called("bottleneck=int8", "data=crops", *legend) == ("int8", "")


def test_a_training_free_curve_is_not_named_by_what_learning_needs():
    assert called("bottleneck=uniform", "trainer.max_epochs=4") == called("bottleneck=uniform")


def test_a_pixel_codec_is_the_curve_and_its_quality_the_point():
    avif = ("bottleneck=identity", "pixels=avif", "pixels.quality=30")
    assert called(*avif) == called(*avif, "pixels.resolution=1")
    assert called(*avif) == ("avif · pixels.resolution=1", "quality=30")
    half = ("avif · pixels.resolution=0.5", "quality=30")
    assert called(*avif, "pixels.resolution=0.5") == half
    assert called("bottleneck=identity", "pixels=jpegxl")[1] == "quality=50"


def test_options_of_one_name_are_told_apart_by_whose_they_are():
    words = "bottleneck=vq_transform", "++bottleneck.fine.latents=64"
    settings = [called(*words, f"++bottleneck.coarse.latents={m}")[1] for m in (32, 96)]
    assert all("fine.latents=64" in setting for setting in settings)
    assert ["coarse.latents=32" in setting for setting in settings] == [True, False]
    assert "latents=96" in called("bottleneck=vq_transform")[1].split()
    twice = "{_target_: nec.bottlenecks.residual.Residual, _partial_: true}"
    deep = "bottleneck=vq_transform", f"++bottleneck.coarse={twice}"
    part = "{_target_: nec.bottlenecks.vq.VQ, _partial_: true, codes: 64}"
    assert (
        "coarse.coarse.codes=64"
        in called(*deep, f"++bottleneck.coarse.coarse={part}", f"++bottleneck.fine={part}")[1]
    )


def test_an_option_of_a_bottleneck_that_is_no_number_makes_another_curve():
    plain = called("bottleneck=pca")
    assert called("bottleneck=pca", "bottleneck.components=32")[0] == plain[0]
    assert called("bottleneck=transform", "bottleneck.latents=null")[0] == "transform"
    coded, bits = called("bottleneck=uniform_zstd")
    other = called("bottleneck=uniform_zstd", "bottleneck.packing=null")
    assert other == (f"{coded} · bottleneck.packing=null", bits)


def test_weights_are_named_by_their_file():
    variant, _ = called("bottleneck=int8", "encoder.checkpoint=/a/b/vit.safetensors")
    assert variant == "int8 · encoder.checkpoint=vit.safetensors"


def test_random_weights_are_named_also_where_an_overlay_says_so(tmp_path):
    (tmp_path / "experiment").mkdir()
    overlay = "# @package _global_\nencoder:\n  checkpoint: random\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(overlay)
    ours = [f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine", "bottleneck=int8"]
    assert called(*ours) == called("bottleneck=int8", "encoder.checkpoint=random")


def test_a_set_of_ones_own_is_named_by_its_folder():
    def data(*words):
        return describe(compose(["bottleneck=int8", *words]))["data"]

    assert data("data=folder", "data.root=../a/u8/") == "folder u8"
    assert data("data=folder") == "folder"
    assert data("data=ucmerced", "data.root=/a/u8") == "ucmerced"
    assert data() == "scenes"


@pytest.mark.parametrize("typed", ["pixels.whole=True", "++pixels.whole=true"])
def test_a_run_has_one_name_however_its_values_are_typed(typed):
    avif = ("bottleneck=identity", "pixels=avif", "pixels.resolution=0.50")
    named = "avif · pixels.resolution=0.5 · pixels.whole=true"
    assert called(*avif, typed) == (named, "quality=50")
    assert run_folder(compose([*avif, typed])) == run_folder(compose([*avif, "pixels.whole=true"]))


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("encoder.checkpoint='random'", "encoder.checkpoint=random"),
        ("encoder.checkpoint='/a/b/vit=1.pt'", "encoder.checkpoint=vit=1.pt"),
        ("task.linear.weight_decay=[1.0, 0.1]", "task.linear.weight_decay=[1,0.1]"),
        ("task.linear.weight_decay=[1,0.1]", "task.linear.weight_decay=[1,0.1]"),
        ("task.linear.lr=1.0", "task.linear.lr=1"),
        ("task.linear.lr=1e-3", "task.linear.lr=0.001"),
    ],
)
def test_values_are_named_alike(typed, named):
    assert called("bottleneck=int8", typed)[0] == f"int8 · {named}"


@pytest.mark.parametrize(
    ("words", "typed"),
    [
        (["bottleneck=vq"], ["task=linear"]),
        (["bottleneck=vq"], ["encoder=scenes_vit", "encoder.image_size=96"]),
        (["bottleneck=vq"], ["data.generator_seed=0"]),
        (["bottleneck=vq"], ["data.batch_size=64"]),  # which changes nothing where nothing learns
        (["bottleneck=int8"], ["encoder.block=null"]),
        (["lmbda=1"], ["adaptation.lr=0.001", "data.batch_size=32"]),
        (["experiment=demo", "bottleneck=vq"], ["trainer.max_epochs=12", "data.batch_size=32"]),
        (["bottleneck=vq", "task=knn", "task.knn.head.choices=[3]"], ["encoder.block=null"]),
    ],
)
def test_a_default_that_is_typed_makes_no_other_curve(words, typed):
    assert called(*words, *typed) == called(*words)
    assert run_folder(compose([*words, *typed])) == run_folder(compose(words))


def test_what_is_typed_makes_one_curve_in_any_order():
    words = ["task=[linear,knn]", "task.knn.head.choices=[3]", "encoder.block=2"]
    assert called(*words, "bottleneck=vq") == called("bottleneck=vq", *words[::-1])


def test_an_overlays_value_typed_over_by_the_default_is_told():
    told = called("experiment=ucmerced_lmbda", "lmbda=1", "encoder=scenes_vit", "data=scenes")
    assert "encoder=scenes_vit" in told[0]


def test_of_what_is_typed_twice_the_last_counts():
    twice = ("bottleneck=int8", "encoder.block=2", "encoder.block=3")
    assert called(*twice) == called("bottleneck=int8", "encoder.block=3")


def test_a_finished_run_is_of_one_set_of_its_last_name_unless_that_moved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name / "u8").mkdir(parents=True)

    def of(root):
        return compose(["bottleneck=int8", "data=folder", f"data.root={root}"])

    folder = run_folder(of("a/u8"))
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    OmegaConf.save(of("a/u8").config, folder / "config.yaml")
    assert run_folder(of(tmp_path / "a" / "u8")) == run_folder(of("b/../a/u8")) == folder
    with pytest.raises(ValueError, match=r"data.root is b/u8, but a/u8 in runs.* name=, or remove"):
        run_folder(of("b/u8"))
    (tmp_path / "a" / "u8").rmdir()
    assert run_folder(of("b/u8")) == folder


def test_a_run_is_at_work_in_one_place_whatever_words_it_has():
    one, other = Path("runs/mine/vq-seed0-0a1b2c3d"), Path("runs/mine/vq-other-seed0-0a1b2c3d")
    assert work_folder(one) == work_folder(other)
    assert lock_file(one) == lock_file(other)


def test_weights_of_one_name_in_two_folders_are_two(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "best.pt").touch()
    one, two = (compose([f"encoder.checkpoint={tmp_path}/{name}/best.pt"]).config for name in "ab")
    check_same(one, one, tmp_path)
    with pytest.raises(ValueError, match=r"encoder.checkpoint is .*b/best.pt, but .*a/best.pt"):
        check_same(two, one, tmp_path)


def test_codecs_of_one_name_in_two_folders_are_two(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "vq-1" / "codec").mkdir(parents=True)
    one, same, two = (
        compose(["bottleneck=vq", f"codec={tmp_path}/{place}"]).config
        for place in ("a/vq-1", "a/vq-1/codec", "b/vq-1")
    )
    check_same(same, one, tmp_path)
    with pytest.raises(ValueError, match=r"codec is .*b/vq-1, but .*a/vq-1 in"):
        check_same(two, one, tmp_path)
