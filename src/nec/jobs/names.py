"""What a run is called, where it lies, and whether it is complete."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any, get_args

from omegaconf import DictConfig, OmegaConf

from nec import config as configs
from nec.report.curves import UNTRAINED, WEIGHTS, join

# Keys whose values are told by a run's name, seed, setting or place; others make another curve.
NAMED = (
    *configs.PLACES,
    *(f"trainer.{key}" for key in configs.IGNORED_TRAINER),
    "seed",
    "lmbda",
    "codec",
    "experiment",
    "data.split",
    "data.root",
    "data.legend",
    "data.ignored",
    "pixels.quality",
    "pixels.resolution",
    "adapter.ratio",
)
# Characters; file systems allow 255 bytes.
LONGEST_NAME = 120


def describe(composed: configs.Composed) -> dict[str, Any]:
    """Return what a run is called: its curve, its point on it, and its identity."""
    config, choices, _ = composed
    learned = configs.learns(config)
    coder = "pixels" if config.pixels else "bottleneck"
    if learned:
        numbers = {} if config.lmbda is None else {"λ": config.lmbda}
    elif config.pixels:
        numbers = {"quality": configs.effective(config.pixels)["quality"]}
    else:
        numbers = _numbers(config.bottleneck)
    parts = [choices[coder]]
    if config.pixels:
        resolution = configs.effective(config.pixels)["resolution"]
        parts.append(f"pixels.resolution={_text(resolution)}")
    if learned:
        ratio = config.adapter.get("ratio")
        parts += [choices["distortion"], choices["adapter"] + (f" {ratio:g}" if ratio else "")]
    if config.codec:
        parts.append(f"codec={configs.codec_name(config.codec)}")
    run, encoder = configs.identity(config), configs.effective(config.encoder)
    return {
        "experiment": config.name,
        "run": run,
        "seed": config.seed,
        "split": configs.effective(config.data)["split"],
        "variant": join([*parts, *_typed(composed, run)]),
        "setting": " ".join(f"{k}={v:g}" for k, v in sorted(numbers.items())),
        "learned": learned,
        "data": _data_name(config, choices["data"]),
        "encoder": f"{encoder['name']}, block {encoder['block'] or 'last'}",
    }


def _typed(composed: configs.Composed, run: str) -> list[str]:
    """The overrides that no other word of a run tells, alike however they were typed."""
    config, _, overrides = composed
    learned = configs.learns(config)
    named = NAMED if learned else (*NAMED, *configs.OF_LEARNING)
    last = {_key(override): override for override in overrides}  # it wins
    keys = [key for key in sorted(last) if not _names(key, named)]
    if not learned:  # its numbers are the setting
        keys = [key for key in keys if not _is_number_of_bottleneck(key, config)]
    told = {key: last[key] for key in _telling(keys, overrides, run)}
    checkpoint = configs.effective(config.encoder)["checkpoint"]
    if f"{WEIGHTS}{checkpoint}" == UNTRAINED:  # whoever says so
        told.setdefault("encoder.checkpoint", UNTRAINED)
    return [_short(told[key].lstrip("+~"), config) for key in sorted(told)]


def _data_name(config: DictConfig, choice: str) -> str:
    """Name of the data: of a set of one's own, which no file names, the last part of its path."""
    root = None if configs.class_of(config.data).name else config.data.get("root")
    return f"{choice} {PurePath(root).name}" if root else choice


def _numbers(node: DictConfig) -> dict[str, int | float]:
    """The options of a bottleneck, and of one inside it, that are numbers.

    Named by their keys; where several have the same key, by their paths as well.
    """
    found = [
        (path, key, value)
        for path, part in configs.targets(node)
        for key, value in configs.effective(part).items()
        if isinstance(value, int | float) and key[0] != "_"
    ]
    times = Counter(key for _, key, _ in found)
    return {f"{owner}.{k}" if owner and times[k] > 1 else k: v for owner, k, v in found}


def _is_number_of_bottleneck(key: str, config: DictConfig) -> bool:
    """Whether a key is an option that is a number by its type, also where it is null."""
    owner, _, name = key.rpartition(".")
    if owner.partition(".")[0] != "bottleneck":
        return False
    options = configs.parameters_of(str(OmegaConf.select(config, owner)["_target_"]))
    if name not in options:  # one of Hydra's own
        return False
    annotation = options[name].annotation
    return any(kind in (int, float, bool) for kind in get_args(annotation) or (annotation,))


def _short(override: str, config: DictConfig) -> str:
    """An override as a curve's name has it, however it was typed: files without their folders."""
    key = override.partition("=")[0]
    value = OmegaConf.select(config, key)
    if "." not in key or OmegaConf.is_dict(value):  # a file of a group, or a group typed out
        return override
    if key == "encoder.checkpoint" and value is not None:
        value = PurePath(value).name
    return f"{key}={_text(value)}"


def _text(value: Any) -> str:
    """A value as one would type it; a whole number is the same with or without a point."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if OmegaConf.is_list(value):
        return f"[{','.join(map(_text, value))}]"
    return configs.spelt(value)


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _telling(keys: Sequence[str], overrides: Sequence[str], run: str) -> list[str]:
    """Return the keys without whose overrides a run would be another; a default typed tells none.

    Args:
        keys: Keys to look at.
        overrides: All overrides of the run.
        run: Its identity.
    """
    kept, telling = list(overrides), []
    for key in keys:
        others = [override for override in kept if _key(override) != key]
        if _identity_of(others) == run:
            kept = others
        else:
            telling.append(key)
    return telling


def _identity_of(overrides: Sequence[str]) -> str | None:
    """Identity of the run that overrides compose, if they do."""
    try:
        return configs.identity(configs.compose(overrides).config)
    except ValueError:  # what is left sets options of what was chosen by what is not
        return None


def _names(key: str, named: Sequence[str]) -> bool:
    """Whether what a key sets is told by a run's other words, or is only a place."""
    groups = key in ("data", "pixels", "bottleneck", "distortion", "adapter") or key.startswith(
        "hydra"
    )
    return groups or any(key == name or key.startswith(f"{name}.") for name in named)


def run_folder(composed: configs.Composed) -> Path:
    """Return where a run lies: what it is, in short, and its identity.

    A finished run of the same identity is the same run, however it was typed.

    Raises:
        ValueError: The finished run, or the stopped one that this goes on with, is of other data or
            weights (`check_same`).
    """
    run = configs.identity(composed.config)
    parent = Path("runs", composed.config.name)
    same = sorted(parent.glob(f"*-{run}/run.json"))
    folder = same[0].parent if same else parent / f"{_words(composed)}-{run}"
    before = folder if same else work_folder(folder)
    if is_finished(before) or is_begun(before):
        check_same(composed.config, OmegaConf.load(before / "config.yaml"), before)
    return folder


def _words(composed: configs.Composed) -> str:
    """What a run is, in short, as a folder may be called."""
    about = describe(composed)
    words = f"{about['variant']} {about['setting']} seed{about['seed']}".replace("λ", "lmbda")
    return re.sub(r"[^\w.+-]+", "-", words.replace("=", ""))[:LONGEST_NAME]


def check_same(config: Any, other: Any, folder: Path) -> None:
    """Refuse two configs of one identity if a path of both is there twice, as a/u8 and b/u8 are.

    That may be the path of the images, of the weights, or of a codec.

    Where the other path is gone, the data may have moved, or the run be of another machine.

    Args:
        config: Config of a run.
        other: Config of another of the same identity.
        folder: Where that one lies, or is to lie.

    Raises:
        ValueError: They name two files or folders.
    """
    published = configs.class_of(config.data).name
    for path in (*configs.PATHS[1 if published else 0 :], "codec"):
        ours, theirs = OmegaConf.select(config, path), OmegaConf.select(other, path)
        if ours != theirs and not _is_same(_whole(ours), _whole(theirs)):
            raise ValueError(
                f"{path} is {ours}, but {theirs} in {folder}, and runs know it by its last part "
                "alone; give another name=, or remove that run"
            )


def _whole(path: str) -> Path:
    """A path without its ~; of a codec folder the run that wrote it."""
    found = Path(path).expanduser()
    return found.parent if found.name == "codec" else found


def _is_same(path: Path, other: Path) -> bool:
    return not other.exists() or (path.exists() and os.path.samefile(path, other))


def work_folder(folder: Path) -> Path:
    """Return where a run is at work until it is complete, by its identity alone."""
    return folder.with_name(f".{_identity(folder)}.part")


def lock_file(folder: Path) -> Path:
    """Return what a process holds while it works on a run, by its identity alone."""
    return folder.with_name(f".{_identity(folder)}.lock")


def _identity(folder: Path) -> str:
    return folder.name.rpartition("-")[2]


def store_of(folder: Path) -> Path:
    """Return where a run keeps its store, by what it recorded."""
    named = OmegaConf.load(folder / "config.yaml").store
    return Path(named) if named else folder / "store.zarr"


def is_begun(part: Path) -> bool:
    """Whether a run that was stopped left what the next one goes on from."""
    return any(part.glob("checkpoints/*.ckpt"))


def is_finished(folder: Path) -> bool:
    """Whether a run is complete: its record is written last."""
    return (folder / "run.json").is_file()
