import inspect
from pathlib import Path

import nec.conf
import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from omegaconf import OmegaConf

from nec import config as configs
from nec.config import UsageError, compose
from nec.options import parameters_of, set_by_code

CONF = Path(next(iter(nec.conf.__path__)))
OVERLAYS = sorted(p.stem for p in (CONF / "experiment").glob("*.yaml"))
CHOICES = sorted(
    (p.parent.name, p.stem) for p in CONF.glob("*/*.yaml") if p.parent.name != "experiment"
)


def overlay(folder, text):
    """Overrides that choose an overlay of one's own."""
    (folder / "experiment").mkdir()
    (folder / "experiment" / "mine.yaml").write_text("# @package _global_\n" + text)
    return [f"hydra.searchpath=[file://{folder}]", "experiment=mine"]


# What one group refers to in another is spelt out, though it is the default.
REFERRED_TO = {"num_nodes": "launcher=submitit"}


def binds(config):
    """Whether every node's options are arguments of its constructor."""
    for _, node in configs.targets(config):
        allowed = configs.arguments_of(node["_target_"])
        assert {k for k in node if not k.startswith("_")} <= set(allowed)


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_composes_binds_and_adds_no_unknown_key(name):
    config = compose([f"experiment={name}"]).config
    assert set(config) == set(compose([]).config)
    binds(config)


@pytest.mark.parametrize(
    ("name", "devices", "nodes"), [("a100_4", 4, 1), ("a100_8", 8, 1), ("a100_2x8", 8, 2)]
)
def test_an_overlay_that_says_where_leaves_the_run_what_it_is(name, devices, nodes):
    one = compose(["experiment=ucmerced_lmbda", "trainer=gpu", "lmbda=1"])
    many = compose([f"experiment=[ucmerced_lmbda,{name}]", "lmbda=1"])
    trainer = many.config.trainer
    assert (trainer.devices, trainer.num_nodes, trainer.accelerator) == (devices, nodes, "gpu")
    assert many.choices["strategy"] == "ddp"
    assert configs.identity(one.config) == configs.identity(many.config)


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_begins_with_its_question(name):
    lines = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert "?" in lines[1]
    assert any(line.startswith("# nec run") for line in lines[:6])


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_composes_and_binds_to_its_constructor(group, name):
    composed = compose([f"{group}={name}"])
    assert composed.choices[group] == name
    binds(composed.config)


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_a_file_repeats_no_default(group, name):
    for _, node in configs.targets(OmegaConf.load(CONF / group / f"{name}.yaml")):
        defaults = configs.arguments_of(node["_target_"])
        chosen = OmegaConf.to_container(node, resolve=False).items()
        repeated = {k: v for k, v in chosen if k in defaults and v == defaults[k] and v is not None}
        repeated = {k: v for k, v in repeated.items() if k not in REFERRED_TO}
        assert not repeated


def test_an_option_that_no_file_mentions_can_be_typed():
    config = compose(["bottleneck=pooled", "bottleneck.components=5"]).config
    assert config.bottleneck.components == 5


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lambda=3", "unknown key 'lambda'; did you mean 'lmbda'"),
        ("bottleneck=uniformm", "bottleneck has no 'uniformm'; did you mean 'uniform'"),
        ("experiment=demmo", "experiment has no 'demmo'; did you mean 'demo'"),
        ("bottleneck.latent=3", "has no option 'latent' .* did you mean 'latents'"),
        ("data._split=1", "has no option '_split' .* did you mean 'split'"),
        ("encoder.architectur.depth=3", "did you mean 'architecture'"),
        ("lmbda", "write key=value"),
        ("lmbda=[1", "lmbda"),
        ("+foo=1", "unknown key '\\+foo'; "),
        ("~seed=0", "removes a key"),
        ("task.linaer.epochs=3", "task.linaer has no _target_; did you mean 'linear'.* task=\\["),
        ("sweep.axis.seed=[0,1]", "sweep has no 'axis'; did you mean 'axes'"),
        ("sweep.axes.sed=[0,1]", "unknown key 'sed' in sweep.axes; did you mean 'seed'"),
        ("hydra.searchpath=[file:///absent]", "there is no folder /absent"),
        ("data=[scenes]", "data is a list"),
        ("data=null", "must be a string"),
        ("lmbda=", "lmbda is ''; it is a number"),
        ("lmbda=${absent}", "'absent' not found"),
    ],
)
def test_a_misspelt_word_of_the_command_line_is_a_usage_error_with_its_neighbour(override, message):
    with pytest.raises(UsageError, match=message):
        compose([override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lamda: 3\n", "unknown key 'lamda' at the top level.* did you mean 'lmbda'"),
        ("bottleneck:\n  latent: 3\n", "no option 'latent' .* did you mean 'latents'"),
        ("task:\n  linaer:\n    epochs: 3\n", "did you mean 'linear'"),
        ("sweep:\n  axis:\n    seed: [0, 1]\n", "did you mean 'axes'"),
        ("sweep:\n  also:\n    seed: [0, 1]\n", "sweep.also is .*; it is a list"),
        ("encoder: 3\n", "encoder has no _target_"),
        ("task: 3\n", "task is 3"),
        ("sweep: 3\n", "sweep is 3"),
        ("lmbda: true\n", "lmbda is true; it is a number or null"),
        ("lmbda: ${absent}\n", "'absent' not found"),
        ("defaults:\n  - override /data: absent\n", "data has no 'absent'"),
        ("lmbda: [1\n", "not YAML: .*mine.yaml"),
        ("lmbda: 1\nlmbda: 2\n", "duplicate key lmbda"),
    ],
)
def test_a_mistake_in_an_overlay_is_refused_and_not_the_command_lines(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        compose(overlay(tmp_path, text))
    assert not isinstance(error.value, UsageError)


def test_fewer_tasks_than_an_overlay_has_options_for_can_be_chosen():
    words = ["experiment=frontier_dubai", "task=segmentation"]
    tasks = compose(words).config.task
    assert list(tasks) == ["segmentation"]
    assert tasks.segmentation.seeds == 1
    with pytest.raises(UsageError, match=r"task.segmentation_conv has no _target_"):
        compose([*words, "task.segmentation_conv.lr=1"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["bottleneck=uniform", "bottleneck.bits=abc"], "is abc; it is an integer, .*bits=4$"),
        (["bottleneck=uniform", "bottleneck.bits=true"], "bits is true; it is an integer"),
        (["bottleneck=uniform", "bottleneck.bits=[1]"], r"bits is \[1\]; it is an integer"),
        (["bottleneck=uniform", "bottleneck.bits=null"], "bits is null; it is an integer"),
        (["data.split=abc"], "data.split is abc; it is an integer, as in data.split=0"),
        (["encoder.block=abc"], "encoder.block is abc; it is an integer or null"),
        (["encoder.pretrained=1"], "it is true or false, as in encoder.pretrained=false"),
        (["adapter=last_blocks", "adapter.ratio=abc"], "adapter.ratio is abc; it is a number"),
        (["task.linear.epochs=1.5"], "task.linear.epochs is 1.5; it is an integer"),
        (["trainer.max_epochs=many"], "trainer.max_epochs is many; it is an integer or null"),
        (["lmbda=true"], "lmbda is true; it is a number or null, as in lmbda=3"),
        (["seed=1.5"], "^seed is 1.5; it is an integer, as in seed=3"),
        (["seed=null"], "^seed is null; it is an integer"),
        (["seed=-1"], "seed is -1; it is an integer from 0 to"),
        (["name=3"], "name is 3; it is text"),
        (
            ["bottleneck=identity", "bottleneck.packing=null"],
            r"packing is null; it is an object \(Packing\), remove bottleneck.packing$",
        ),
        (
            ["task=knn", "task.knn.head.choices=5"],
            r"choices is 5; it is a list, each item an integer, as in .*=\[1,3,5,10,20\]$",
        ),
        (["task=knn", "task.knn.head.choices=[1,a]"], r"choices is \[1,a\]; .* an integer"),
        (
            ["task.linear.weight_decay=null"],
            "decay is null; it is a number or a list, each item a number, as in .*decay=3$",
        ),
        (["task.linear.weight_decay=[0.1,null]"], r"weight_decay is \[0.1,null\]; it is a number"),
        (
            ["encoder.architecture=5"],
            r"is 5; it is options by name, as \{name: value\} or null, as in .*=null$",
        ),
        (
            ["bottleneck=uniform", "bottleneck.packing={}"],
            r"packing is \{\}; it is an object .*null$",
        ),
        (["task.linear.head=null"], r"head is null; it is an object \(Callable\)"),
    ],
    ids=str,
)
def test_a_value_has_the_type_of_its_argument(overrides, message):
    with pytest.raises(UsageError, match=message):
        compose(overrides)


def test_an_integer_is_a_number():
    assert compose(["adapter=last_blocks", "adapter.ratio=1", "lmbda=3"]).config.adapter.ratio == 1


@pytest.mark.parametrize(
    ("override", "setter"),
    [
        ("bottleneck.channels=7", "the encoder"),
        ("distortion.encoder=1", "the group encoder"),
        ("data.transform=null", "the encoder"),
        ("adaptation.lmbda=30", "the root key lmbda"),
        ("trainer.strategy=ddp", "the group strategy"),
        ("task.linear.head.classes=2", "the data"),
        ("trainer.logger=false", "the group logger"),
        ("trainer.callbacks=null", "nec run"),
        ("logger.save_dir=here", "the run's folder"),
        ("adaptation.optimizer.lr=7", r"each group's rate \(adaptation.encoder_lr, .*\)"),
        ("adaptation.optimizer.weight_decay=0.5", r"the adaptation \(no group's weights decay\)"),
    ],
)
def test_what_code_sets_cannot_be_chosen(override, setter):
    key = override.split("=")[0]
    optimizer = ["_target_=torch.optim.AdamW", "_partial_=true"]
    others = [f"adaptation.optimizer.{word}" for word in optimizer if "optimizer" in key]
    with pytest.raises(UsageError, match=f"{key} is .*, but {setter} sets it; remove {key}"):
        compose([*others, override])


def test_an_inner_bottleneck_gets_its_shape_from_the_one_around_it():
    key = "bottleneck.fine.grid"
    with pytest.raises(UsageError, match=f"{key} is .*, but the bottleneck around it sets it"):
        compose(["bottleneck=vq_transform", f"{key}=[1,1]"])


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_argument_without_a_default_is_in_a_file_or_set_by_code(group, name):
    for path, node in configs.targets(compose([f"{group}={name}"]).config):
        defaults = configs.arguments_of(node["_target_"])
        needed = {key for key, default in defaults.items() if default is inspect.Parameter.empty}
        assert needed <= {*node, *set_by_code(path, parameters_of(node["_target_"]))}


def test_an_argument_that_code_gives_is_never_overwritten_in_silence():
    node = OmegaConf.create({"_target_": "nec.bottlenecks.Uniform", "channels": 7})
    with pytest.raises(ValueError, match="is set by code; remove it"):
        configs.build(node, channels=8, grid=(2, 2))


@pytest.mark.parametrize(
    "words",
    [
        ["bottleneck=vq", "bottleneck.codes=64", "seed=3", "bottleneck.codes=16"],
        ["bottleneck.bits=2", "bottleneck=uniform", "task.linear.weight_decay=[1,0.1]"],
        ["encoder.architecture={depth: 2}", "encoder.architecture.depth=3", "lmbda=${seed}"],
        ["data.seed=1", "data={seed: 2}"],
        ["+data.split=1", "data.split=2", "lmbda=3"],
        ["experiment=frontier_dubai", "task=segmentation", "data.split=3", "sweep.each={}"],
    ],
    ids=" ".join,
)
def test_a_config_is_what_hydra_composes(words):
    compose([word for word in words if "." not in word])  # whose files the next one shares
    found = configs._composed(words)
    given = [configs.explicit(word) for word in words]
    with initialize_config_module(configs.CONFIG_MODULE, version_base="1.3"):
        expected = hydra_compose(configs.CONFIG_NAME, given, return_hydra_config=True)
    assert found.hydra.runtime.choices == expected.hydra.runtime.choices
    for config in (found, expected):
        OmegaConf.set_struct(config, False)
        del config["hydra"]
    assert found == expected


def test_an_overlay_of_ones_own_is_found(tmp_path):
    assert compose(overlay(tmp_path, "lmbda: 3\n")).config.lmbda == 3


def test_only_trusted_packages_are_built():
    node = OmegaConf.create({"_target_": "os.system", "command": "true"})
    with pytest.raises(ValueError, match="not in a trusted package"):
        configs.build(node)
    nested = OmegaConf.create(
        {"_target_": "nec.adapters.NoAdapter", "x": {"_target_": "os.getcwd"}}
    )
    with pytest.raises(ValueError, match="not in a trusted package"):
        configs.build(nested)


def identity(*overrides):
    return configs.identity(compose(overrides).config)


def test_a_runs_identity_is_what_it_measures_not_where():
    base = identity("lmbda=1")
    assert base == identity("lmbda=1.0", "data.workers=2", "store=elsewhere", "trainer.devices=2")
    assert base == identity("lmbda=1", "bottleneck.latents=128")
    others = [("lmbda=2",), ("lmbda=1", "seed=1"), ("lmbda=1", "bottleneck.latents=64")]
    others += [("lmbda=1", "trainer.max_epochs=3"), ("lmbda=1", "task=attention")]
    assert len({base, *(identity(*other) for other in others)}) == 6


def test_a_published_data_set_is_the_same_wherever_it_lies_and_a_folder_by_its_name():
    assert identity("data=ucmerced") == identity("data=ucmerced", "data.root=/a/b")
    here, there = (identity("data=folder", f"data.root={root}") for root in ("/a/x", "/b/x"))
    assert here == there != identity("data=folder", "data.root=/a/y")


def test_pixels_count_where_they_are_coded_and_a_run_without_is_what_it_was_before_codecs():
    raw = "bottleneck=identity"
    assert "pixels" not in configs.all_options(compose([raw]).config)
    assert identity(raw) == identity(raw, "pixels=none")
    coded = [("pixels=avif",), ("pixels=avif", "pixels.quality=9"), ("pixels=jpegxl",)]
    coded += [("pixels=avif", "pixels.resolution=0.5")]
    assert len({identity(raw), *(identity(raw, *words) for words in coded)}) == 5
    assert identity(raw, "pixels=avif") == identity(raw, "pixels=avif", "pixels.quality=50")


def test_the_size_of_a_batch_counts_only_where_something_learns():
    uniform = "bottleneck=uniform"
    assert identity(uniform) == identity(uniform, "data.batch_size=8")
    assert identity("lmbda=1") != identity("lmbda=1", "data.batch_size=8")


def test_a_sweep_override_is_its_values():
    assert configs.sweep_values("lmbda=1,3") == ["lmbda=1", "lmbda=3"]
    assert configs.sweep_values("lmbda=1") == ["lmbda=1"]
    with pytest.raises(UsageError, match="'lmbda=1,' is not an override"):
        configs.sweep_values("lmbda=1,")


def test_defaults_come_from_the_constructor():
    from nec.bottlenecks.factorized import Factorized

    node = compose([]).config.bottleneck
    default = inspect.signature(Factorized.__init__).parameters["latents"].default
    assert configs.effective(node)["latents"] == default
