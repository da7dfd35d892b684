"""Compose a config, check it, build objects from it, record it."""

import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from copy import deepcopy
from functools import lru_cache
from importlib.resources import files
from pathlib import PurePath
from typing import Any, NamedTuple, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from nec.options import UsageError, check, check_trusted, class_of, effective, nearest
from nec.options import arguments_of as arguments_of  # for callers of build
from nec.options import choosable as choosable
from nec.options import parameters_of as parameters_of
from nec.options import spelt as spelt
from nec.options import targets as targets

CONFIG_MODULE = "nec.conf"
CONFIG_NAME = "config"
# Where something lies or runs does not change what is measured, so a run's identity leaves it out.
PLACES = (
    "data.workers",
    "data.download",
    "logger",
    "strategy",
    "launcher",
    "store",
    "sweep",
    "name",
)
# The same for keys of the trainer.
IGNORED_TRAINER = (
    "accelerator",
    "devices",
    "num_nodes",
    "check_val_every_n_epoch",
    "limit_val_batches",
    "log_every_n_steps",
)
# Keys that a bottleneck without learning does not use.
OF_LEARNING = ("lmbda", "distortion", "adaptation", "trainer")
# Paths of which it keeps the last part alone, as folders may lie elsewhere on another day.
PATHS = ("data.root", "encoder.checkpoint")
# Groups from which several files may be chosen; their keys are merged.
COMBINED = ("task", "sweep", "experiment")


class Composed(NamedTuple):
    """A resolved config, the file chosen from each group, and the overrides as typed."""

    config: DictConfig
    choices: dict[str, str]
    overrides: tuple[str, ...]


def compose(overrides: Sequence[str]) -> Composed:
    """Compose `conf/config.yaml` with overrides, and check that every key means something.

    Raises:
        UsageError: If no group, file or constructor knows an override.
        ValueError: If a file has a key that nothing reads.
    """
    whole = _composed(overrides)
    choices = {str(k): str(v) for k, v in whole.hydra.runtime.choices.items() if "/" not in str(k)}
    for group in surface().groups:
        if group not in (*choices, *COMBINED):
            raise UsageError(f"{group} is a list; it is one file of the group, as in {group}=NAME")
    OmegaConf.set_struct(whole, False)
    del whole["hydra"]
    typed = {o.split("=")[0].lstrip("+") for o in overrides}
    _drop_unchosen(whole.task, typed)
    try:
        OmegaConf.resolve(whole)
    except OmegaConfBaseException as error:
        kind = UsageError if any("${" in text for text in overrides) else ValueError
        said = " ".join(str(error).split())
        raise kind(f"{said}; a reference ${{key}} names a key of the config") from error
    check(whole, surface().roots, typed)
    return Composed(whole, choices, tuple(overrides))


def _drop_unchosen(tasks: Any, typed: Iterable[str]) -> None:
    """Drop options that an overlay has for tasks of which the command line chose others."""
    asked = {key.split(".")[1] for key in typed if key.startswith("task.")}
    nodes = dict(tasks) if isinstance(tasks, DictConfig) else {}
    for name, node in nodes.items():
        unchosen = isinstance(node, DictConfig) and "_target_" not in node and name not in asked
        if unchosen and (files(CONFIG_MODULE) / "task" / f"{name!s}.yaml").is_file():
            del tasks[name]


def _composed(overrides: Sequence[str]) -> DictConfig:
    """Compose with Hydra, its own node included; its errors become one line.

    Jobs of a sweep mostly differ in values alone, which are set as Hydra would set them, in a copy
    of what their files make.
    """
    given = [explicit(text) for text in overrides]
    with initialize_config_module(CONFIG_MODULE, version_base="1.3"), warnings.catch_warnings():
        warnings.filterwarnings("error", "provider=hydra.searchpath")
        try:
            parsed = OverridesParser.create().parse_overrides(given)
            values = [override for override in parsed if _is_value(override)]
            if not all(one.is_force_add() and not one.is_sweep_override() for one in values):
                values = []  # rules for these are Hydra's
            chosen = tuple(one.input_line or "" for one in parsed if one not in values)
            whole = deepcopy(_of_files(chosen))
            for one in values:
                OmegaConf.update(whole, one.key_or_group, one.value(), merge=True, force_add=True)
            return whole
        except UserWarning as warning:
            folder = re.sub(".*path=(.*) is not available.*", r"\1", str(warning))
            raise UsageError(
                f"hydra.searchpath: there is no folder {folder}; write "
                "hydra.searchpath=[file:///ABSOLUTE/FOLDER]"
            ) from None
        except YAMLError as error:
            said = " ".join(str(error).split())
            raise ValueError(f"a config file is not YAML: {said}; mend that line") from error
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise _explained(error, overrides) from error


@lru_cache
def _of_files(chosen: tuple[str, ...]) -> DictConfig:
    return hydra_compose(CONFIG_NAME, list(chosen), return_hydra_config=True)


def _is_value(override: Override) -> bool:
    """Whether an override sets what lies below a key of the top level, and chooses no file."""
    key = override.key_or_group
    dotted = "." in key and not key.startswith("hydra")
    return dotted or isinstance(override.value(), dict)


def build(node: DictConfig, *positional: Any, **arguments: Any) -> Any:
    """Build the object that a config node names; arguments are those that code sets, not config.

    Raises:
        ValueError: If a target is outside the trusted packages, or the config has an argument too.
    """
    for _, part in targets(node):
        check_trusted(str(part["_target_"]))
    for key in sorted(arguments.keys() & set(map(str, node))):
        raise ValueError(f"{key} of {node['_target_']} is set by code; remove it from the config")
    try:
        return instantiate(node, *positional, **arguments)
    except InstantiationException as error:  # Hydra's wrapper hides what the constructor said
        raise (error.__cause__ or error) from None


def identity(config: DictConfig) -> str:
    """Eight hex digits that name a run: equal for equal experiments, wherever they are run."""
    plain = json.dumps(comparable(config), sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()[:8]


def comparable(config: DictConfig) -> dict[str, Any]:
    """Return the part of a config that can change what is measured, in a canonical form.

    Options are effective ones, so that a default equals the same value typed; images and weights
    go by the last part of their path, as folders may lie elsewhere; 1 and 1.0 are equal.
    """
    plain = all_options(config)
    for place in PLACES:
        group, _, leaf = place.rpartition(".")
        owner: dict[str, Any] = plain[group] if group else plain
        owner.pop(leaf, None)
    for key in IGNORED_TRAINER:
        plain.get("trainer", {}).pop(key, None)
    if not learns(config):
        plain["data"].pop("batch_size", None)
    if class_of(config.data).name:  # a published data set is the same wherever it lies
        plain["data"].pop("root", None)
    for group, _, key in (path.partition(".") for path in PATHS):
        if plain[group].get(key):
            plain[group][key] = PurePath(plain[group][key]).name
    if "codec" in plain:
        plain["codec"] = codec_name(plain["codec"])
    return cast(dict[str, Any], json.loads(json.dumps(plain), parse_int=float))


def all_options(config: DictConfig) -> dict[str, Any]:
    """Return a config with its constructors' defaults, without keys that the run does not use."""
    unused = [] if learns(config) else [*OF_LEARNING]
    unused += [key for key in ("pixels", "codec") if not config.get(key)]
    return {str(k): _with_defaults(node) for k, node in config.items() if k not in unused}


def _with_defaults(node: Any) -> Any:
    """A node, and those below it, as nested dicts with the defaults of the classes they name."""
    if not isinstance(node, DictConfig):
        return OmegaConf.to_container(node) if isinstance(node, ListConfig) else node
    own = {str(key): _with_defaults(child) for key, child in node.items()}
    return {**effective(node), **own} if "_target_" in node else own


def learns(config: DictConfig) -> bool:
    """Whether a rate-distortion loss trains the bottleneck of a config."""
    return bool(class_of(config.bottleneck).learned)


def codec_name(path: str) -> str:
    """Return the name of a codec folder: that of the run that wrote it."""
    whole = PurePath(os.path.abspath(path))
    return whole.parent.name if whole.name == "codec" else whole.name


class Surface(NamedTuple):
    """Names allowed on the command line: groups of files, and keys at the top level."""

    groups: tuple[str, ...]
    roots: tuple[str, ...]


@lru_cache
def surface() -> Surface:
    """Read the surface from the default config."""
    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        known = hydra_compose(CONFIG_NAME, return_hydra_config=True)
    groups = tuple(str(g) for g in known.hydra.runtime.choices if "/" not in str(g))
    return Surface(groups, tuple(str(k) for k in known if k != "hydra"))


def explicit(text: str) -> str:
    """Let an override reach any constructor argument, even one that no file mentions.

    Defaults live in constructors, so Hydra does not know most options and would ask for a `+`;
    `check` knows them all and suggests the nearest.
    """
    key = text.split("=")[0]
    if "=" not in text:
        raise UsageError(f"{text!r} is not an override; write key=value, as in lmbda=3")
    if key.startswith("~"):
        raise UsageError(f"{text!r} removes a key, and all are needed; set it, as in key=null")
    bare = key.lstrip("+")
    if bare.startswith("hydra"):
        return text
    groups, roots = surface()
    root = bare.split(".")[0]
    if root not in (*roots, *groups):
        raise UsageError(f"unknown key {key!r}; {nearest(root, [*roots, *groups])}")
    return f"++{text}" if "." in key and bare == key else text


def _explained(error: Exception, overrides: Sequence[str]) -> ValueError:
    """Turn Hydra's message into one line, with the nearest file of a group if one is misspelt."""
    text = str(error)
    missing = re.search(r"Could not find '([^']+)'", text) or re.search(r"'([^']+/[^']+)'", text)
    options = re.search(r"Available options in '[^']+':\s*(.*?)(?:\nConfig search|$)", text, re.S)
    if missing and options:
        group, _, name = missing.group(1).rpartition("/")
        if name.startswith("submitit"):
            return UsageError(
                "launcher=submitit needs hydra-submitit-launcher, which is not installed; "
                "pip install 'nec[slurm]'"
            )
        ours = any(override.lstrip("+").startswith(f"{group}=") for override in overrides)
        kind = UsageError if ours else ValueError
        return kind(f"{group} has no {name!r}; {nearest(name, options.group(1).split())}")
    if swept := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return UsageError(f"{swept.group(1)} has several values; that is a sweep: nec run -m ...")
    kind = ValueError if text.startswith("In 'experiment/") else UsageError
    return kind(f"{' '.join(text.split())} (overrides: {' '.join(overrides)})")


def sweep_values(text: str) -> list[str]:
    """Expand a sweep override into single ones: `a=1,2` -> `a=1`, `a=2`."""
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        said = " ".join(str(error).split())
        raise UsageError(f"{text!r} is not an override: {said}; write key=value,value") from error
    if not override.is_sweep_override():
        return [text]
    key = override.get_key_element()
    return [f"{key}={value}" for value in override.sweep_string_iterator()]
