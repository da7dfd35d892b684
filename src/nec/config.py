"""Compose a config, check it, build objects from it, record it."""

import difflib
import hashlib
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import PurePath
from typing import Any, NamedTuple, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

CONFIG_MODULE = "nec.conf"
CONFIG_NAME = "config"
TRUSTED = ("nec.", "torch.optim.", "torch.nn.", "lightning.pytorch.", "torchgeo.")
# Where something lies or runs does not change what is measured, so it is not in a run's identity.
PLACES = ("data.workers", "data.download", "logger", "store", "sweep", "name")
# Of the trainer, likewise.
IGNORED_TRAINER = (
    "accelerator",
    "devices",
    "num_nodes",
    "strategy",
    "check_val_every_n_epoch",
    "limit_val_batches",
    "log_every_n_steps",
)
# What a bottleneck that is not learned has no use for.
OF_LEARNING = ("lmbda", "distortion", "adaptation", "trainer")


class UsageError(ValueError):
    """The command line itself is wrong: exit status 2."""


class Composed(NamedTuple):
    """A resolved config, which file of each group it was made of, and what was typed."""

    config: DictConfig
    choices: dict[str, str]
    overrides: tuple[str, ...]


def compose(overrides: Sequence[str]) -> Composed:
    """Compose `conf/config.yaml` with overrides, and check that every key means something.

    Raises:
        UsageError: An override that no group, file or constructor knows.
        ValueError: A key in a file that nothing reads.
    """
    given = [explicit(text) for text in overrides]
    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        try:
            whole = hydra_compose(CONFIG_NAME, given, return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise UsageError(_one_line(error, overrides)) from error
    choices = {str(k): str(v) for k, v in whole.hydra.runtime.choices.items() if "/" not in str(k)}
    OmegaConf.set_struct(whole, False)
    del whole["hydra"]
    typed = {o.split("=")[0].lstrip("+~") for o in overrides}
    check(whole, surface().roots, typed)
    OmegaConf.resolve(whole)
    for key, kinds in (("seed", int), ("lmbda", int | float | None)):
        if not isinstance(whole[key], kinds):
            raise UsageError(f"{key} is {whole[key]!r}; it is a number, as in {key}=3")
    return Composed(whole, choices, tuple(overrides))


def check(config: DictConfig, roots: Sequence[str], typed: Iterable[str] = ()) -> None:
    """Refuse keys that nothing reads, at the top level and in every constructor's node.

    Args:
        config: What was composed.
        roots: Keys that the top level may have.
        typed: Keys that came from the command line; an error in one of them is a usage error.
    """
    for key in config:
        if key not in roots:
            raise ValueError(
                f"unknown key {key!r} at the top level of a config file; "
                f"{_nearest(str(key), roots)}"
            )
    for path, node in targets(config):
        allowed = arguments_of(str(node["_target_"]))
        for key in node:
            name = str(key)
            if name.startswith("_") or name in allowed:
                continue
            full = f"{path}.{name}"
            ours = any(key == full or key.startswith(f"{full}.") for key in typed)
            error = UsageError if ours else ValueError
            raise error(
                f"{node['_target_']} has no option {name!r} (at {full}); {_nearest(name, allowed)}"
            )


def build(node: DictConfig, **arguments: Any) -> Any:
    """Build the object that a config node names; arguments are what code knows and config does not.

    Raises:
        ValueError: A target outside the trusted packages.
    """
    for _, part in targets(node):
        if not str(part["_target_"]).startswith(TRUSTED):
            raise ValueError(
                f"{part['_target_']!r} is not in a trusted package; _target_ starts with one of "
                f"{', '.join(TRUSTED)}"
            )
    try:
        return instantiate(node, **arguments)
    except InstantiationException as error:  # Hydra's wrapper hides what the constructor said
        raise (error.__cause__ or error) from None


def targets(node: Any, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    """Every node that names a class, with its path in the config."""
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield path, node
        for key, child in node.items_ex(resolve=False):
            yield from targets(child, f"{path}.{key!s}".lstrip("."))
    elif isinstance(node, ListConfig):
        for child in node._iter_ex(resolve=False):
            yield from targets(child, path)


def arguments_of(target: str) -> dict[str, Any]:
    """Names that a class's constructors accept, through **kwargs up to its bases, with defaults."""
    if not target.startswith(TRUSTED):
        raise ValueError(
            f"{target!r} is not in a trusted package; _target_ starts with one of "
            f"{', '.join(TRUSTED)}"
        )
    found: dict[str, Any] = {}
    for base in inspect.getmro(get_class(target)):
        if "__init__" not in vars(base) or base is object:
            continue
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        found = {p.name: p.default for p in named} | found
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def class_of(node: DictConfig) -> Any:
    """The class that a node names, where code asks it what it is."""
    return get_class(str(node["_target_"]))


def effective(node: DictConfig) -> dict[str, Any]:
    """The options of a node's object: what the config chose, and its constructor's defaults."""
    plain = (str, int, float, bool, type(None))
    defaults = arguments_of(str(node["_target_"])).items()
    return {**{k: v for k, v in defaults if isinstance(v, plain)}, **plain_dict(node)}


def identity(config: DictConfig) -> str:
    """Eight hex digits that name a run: equal for equal experiments, wherever they are run.

    Over the effective options, so a default counts like the same value typed.
    """
    whole = OmegaConf.create(plain_dict(config))
    for path, node in list(targets(whole)):
        OmegaConf.update(whole, path, effective(node), merge=False)
    plain = plain_dict(whole)
    for place in PLACES:
        group, _, leaf = place.rpartition(".")
        owner: dict[str, Any] = plain[group] if group else plain
        owner.pop(leaf, None)
    for key in IGNORED_TRAINER:
        plain["trainer"].pop(key, None)
    if not class_of(config.bottleneck).learned:
        for key in OF_LEARNING:
            del plain[key]
    # Images and weights by their last name, so that a folder may lie elsewhere.
    for node, key in ((plain["data"], "root"), (plain["encoder"], "checkpoint")):
        if node.get(key):
            node[key] = PurePath(node[key]).name
    # 1 and 1.0 are the same number, however it was typed.
    same = json.loads(json.dumps(plain), parse_int=float)
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:8]


def plain_dict(node: DictConfig) -> dict[str, Any]:
    """A node as nested dicts and lists, resolved."""
    return cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))


class Surface(NamedTuple):
    """What one may name on the command line: groups of files, and keys at the top level."""

    groups: tuple[str, ...]
    roots: tuple[str, ...]


@lru_cache
def surface() -> Surface:
    """Read off the default config."""
    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        known = hydra_compose(CONFIG_NAME, return_hydra_config=True)
    groups = tuple(str(g) for g in known.hydra.runtime.choices if "/" not in str(g))
    return Surface(groups, tuple(str(k) for k in known if k != "hydra"))


def explicit(text: str) -> str:
    """Let an override reach any constructor argument, also one that no file mentions.

    Defaults live in constructors, so Hydra does not know most options and would ask for a `+`;
    `check` knows them all and says which is nearest.
    """
    key = text.split("=")[0]
    if "=" not in text:
        raise UsageError(f"{text!r} is not an override; write key=value, as in lmbda=3")
    groups, roots = surface()
    if key.startswith(("+", "~", "hydra")) or key in groups:
        return text
    root = key.split(".")[0]
    if root not in (*roots, *groups):
        raise UsageError(f"unknown key {key!r}; {_nearest(root, [*roots, *groups])}")
    return f"++{text}" if "." in key else text


def _one_line(error: Exception, overrides: Sequence[str]) -> str:
    """Hydra's message as one line, with the nearest file of a group where one is misspelt."""
    text = str(error)
    missing = re.search(r"Could not find '([^']+)'", text) or re.search(r"'([^']+/[^']+)'", text)
    options = re.search(r"Available options in '[^']+':\s*(.*?)(?:\nConfig search|$)", text, re.S)
    if missing and options:
        group, _, name = missing.group(1).rpartition("/")
        names = options.group(1).split()
        return f"{group} has no {name!r}; {_nearest(name, names)}"
    return f"{' '.join(text.split())} (overrides: {' '.join(overrides)})"


def _nearest(name: str, known: Iterable[str]) -> str:
    known = sorted(set(known))
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(known)}"


def sweep_values(text: str) -> list[str]:
    """The overrides that one sweep override stands for: `a=1,2` -> `a=1`, `a=2`."""
    override = OverridesParser.create().parse_override(text)
    if not override.is_sweep_override():
        return [text]
    key = override.get_key_element()
    return [f"{key}={value}" for value in override.sweep_string_iterator()]
