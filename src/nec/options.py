"""What a config may hold: constructors' options and their types, and who sets the others."""

import difflib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Union, cast, get_args, get_origin

from hydra.utils import get_class
from omegaconf import DictConfig, ListConfig, OmegaConf

TRUSTED = ("nec.", "torch.optim.", "torch.nn.", "lightning.pytorch.", "torchgeo.")
# Types that are checked against a constructor's annotation: their name, and an example.
KINDS: dict[Any, tuple[str, str]] = {
    bool: ("true or false", "true"),
    int: ("an integer", "3"),
    float: ("a number", "3"),
    str: ("text", "WORD"),
    NoneType: ("null", "null"),
}
# Keys of a node with a class that Hydra itself reads.
HYDRA_KEYS = ("_target_", "_args_", "_convert_", "_partial_", "_recursive_")
ROOTS: dict[str, Any] = {
    "name": str,
    "seed": int,
    "lmbda": float | None,
    "codec": str | None,
    "store": str | None,
}
SEEDS = 2**32  # numpy takes no larger ones
# Arguments that code fills in, by the last word of a node's path, and what sets them.
FILLED = {
    "data": {"transform": "the encoder"},
    "bottleneck": dict.fromkeys(("channels", "grid"), "the encoder"),
    "distortion": {"encoder": "the group encoder"},
    "adaptation": {
        "encoder": "the group encoder",
        "adapter": "the group adapter",
        "bottleneck": "the group bottleneck",
        "distortion": "the group distortion",
        "lmbda": "the root key lmbda",
        "seed": "the root key seed",
    },
    "optimizer": {
        "params": "the adapter",
        "lr": "each group's rate (adaptation.encoder_lr, adaptation.lr, adaptation.density_lr)",
        "weight_decay": "the adaptation (no group's weights decay)",
    },
    "head": {"shape": "the bottleneck", "classes": "the data"},
    "trainer": {
        "logger": "the group logger",
        "strategy": "the group strategy",
        "callbacks": "nec run",
        "plugins": "nec run",
        "use_distributed_sampler": "nec run",
        "enable_checkpointing": "nec run",
        "enable_model_summary": "nec run",
    },
    "logger": dict.fromkeys(("save_dir", "place", "about"), "the run's folder"),
}
# Groups that may be empty: then the trainer chooses the strategy, or pixels stay unchanged.
OPTIONAL = ("strategy", "pixels")


class UsageError(ValueError):
    """Raised if the command line itself is wrong: exit status 2."""


def check(config: DictConfig, roots: Sequence[str], typed: Iterable[str] = ()) -> None:
    """Refuse keys that nothing reads and values that no constructor takes, at any level.

    Args:
        config: The composed config, resolved.
        roots: Keys that the top level may have.
        typed: Keys that came from the command line; an error in one of them is a usage error.

    Raises:
        UsageError: If a typed key is wrong.
        ValueError: If a key in a file is wrong.
    """
    for path, message in _problems(config, roots):
        ours = any(key == path or key.startswith(f"{path}.") for key in typed)
        raise UsageError(message) if ours else ValueError(message)


def _problems(config: DictConfig, roots: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong in a config: its path, and a message that says how to mend it."""
    for key in map(str, config):
        if key not in roots:
            where = "at the top level of a config file"
            yield key, f"unknown key {key!r} {where}; {nearest(key, roots)}"
    for key, annotation in ROOTS.items():
        yield from _mistyped(key, config[key], annotation, inspect.Parameter.empty)
    if not 0 <= config.seed < SEEDS:
        yield "seed", f"seed is {config.seed}; it is an integer from 0 to {SEEDS - 1}, as in seed=3"
    yield from _of_sweep(config.sweep, roots)
    left_out = [key for key in OPTIONAL if not config[key]]
    objects = {key: config[key] for key in roots if key not in (*ROOTS, "sweep", "task", *left_out)}
    yield from _untargeted(objects, "")
    if isinstance(config.task, DictConfig):
        yield from _untargeted(dict(config.task), "task.")
    else:
        yield "task", f"task is {spelt(config.task)}; it holds tasks by name, set task=linear"
    for path, node in targets(config):
        yield from _of_node(path, node)


def _untargeted(nodes: dict[Any, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """Find nodes without a class: their name is misspelt, or the file with it is not chosen."""
    more = "; several tasks are a list of files, as in task=[linear,attention]" if prefix else ""
    named = [str(k) for k, v in nodes.items() if isinstance(v, DictConfig) and "_target_" in v]
    for name in map(str, nodes):
        if name not in named:
            yield prefix + name, f"{prefix}{name} has no _target_; {nearest(name, named)}{more}"


def _of_sweep(sweep: Any, roots: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Check a sweep's products of axes: `axes`, and those in `also`; `each` belongs to all."""
    parts = ("each", "axes", "also")
    if not isinstance(sweep, DictConfig):
        yield "sweep", f"sweep is {spelt(sweep)}; it holds {', '.join(parts)}, set sweep=none"
        return
    for key in map(str, sweep):
        if key not in parts:
            yield f"sweep.{key}", f"sweep has no {key!r}; {nearest(key, parts)}"
    also = sweep.get("also") or ListConfig([])
    if not isinstance(also, ListConfig):
        yield "sweep.also", f"sweep.also is {spelt(also)}; it is a list of products of axes"
        return
    products = [(part, sweep.get(part) or {}) for part in ("each", "axes")]
    for part, axes in [*products, *(("also", product) for product in also)]:
        path = f"sweep.{part}"
        if not isinstance(axes, dict | DictConfig):
            yield path, f"{path} holds {spelt(axes)}; an axis is a key and its values: seed: [0, 1]"
            return
        for key in map(str, axes):
            if (root := key.split(".")[0]) not in roots:
                yield f"{path}.{key}", f"unknown key {key!r} in {path}; {nearest(root, roots)}"


def _of_node(path: str, node: DictConfig) -> Iterator[tuple[str, str]]:
    """Find what a node holds that its constructor does not take from a config."""
    target = str(node["_target_"])
    parameters = parameters_of(target)
    filled = set_by_code(path, parameters)
    for key, value in node.items():
        name = str(key)
        full = f"{path}.{name}"
        if name in HYDRA_KEYS:
            continue
        if name not in parameters:
            known = nearest(name, parameters.keys() - filled)
            yield full, f"{target} has no option {name!r} (at {full}); {known}"
        elif name in filled:
            yield full, f"{full} is {spelt(value)}, but {filled[name]} sets it; remove {full}"
        else:
            parameter = parameters[name]
            yield from _mistyped(full, value, parameter.annotation, parameter.default)


def _mistyped(path: str, value: Any, annotation: Any, default: Any) -> Iterator[tuple[str, str]]:
    """Find a value whose type an annotation excludes, unless it is the default."""
    kinds = _kinds(annotation)
    if value is default or any(_takes(kind, value) for kind in kinds):
        return
    words = " or ".join(_called(kind) for kind in kinds)
    examples = [default, *(KINDS[kind][1] for kind in kinds if kind in KINDS)]
    plain = {*KINDS, list, tuple} - {NoneType}
    typed = [spelt(example) for example in examples if type(example) in plain]
    way_out = f"as in {path}={typed[0]}" if typed else f"remove {path}"
    yield path, f"{path} is {spelt(value)}; it is {words}, {way_out}"


def _kinds(annotation: Any) -> tuple[Any, ...]:
    """The types of a union, or the one type."""
    union = get_origin(annotation) in (Union, UnionType)
    return get_args(annotation) if union else (annotation,)


def _takes(kind: Any, value: Any) -> bool:
    """Whether a type has a value of a config: int is float, bool is not int.

    Objects are nodes, which are checked by themselves if they name a class, and may be made from
    text or numbers: of these only null is refused. What is no type may be anything.
    """
    plain = get_origin(kind) or kind
    if plain in KINDS:
        return type(value) is plain or (plain is float and type(value) is int)
    if plain in (Any, inspect.Parameter.empty) or not isinstance(plain, type):
        return True
    if issubclass(plain, Mapping):
        return isinstance(value, DictConfig)
    if issubclass(plain, Iterable) and isinstance(value, ListConfig):
        kinds = [own for item in get_args(kind) if item is not Ellipsis for own in _kinds(item)]
        return not kinds or all(any(_takes(own, item) for own in kinds) for item in value)
    if isinstance(value, DictConfig) and not issubclass(plain, Iterable):
        return "_target_" in value
    return isinstance(value, DictConfig) if issubclass(plain, Iterable) else value is not None


def _called(kind: Any) -> str:
    """What a type is called in a message."""
    plain = get_origin(kind) or kind
    if plain in KINDS:
        return KINDS[plain][0]
    if isinstance(plain, type) and issubclass(plain, Mapping):
        return "options by name, as {name: value}"
    if isinstance(plain, type) and issubclass(plain, Iterable):
        items = [KINDS[own][0] for own in get_args(kind)[:1] if own in KINDS]
        return f"a list, each item {items[0]}" if items else "a list"
    return f"an object ({plain.__name__})"


def spelt(value: Any) -> str:
    """Return a value as one would type it."""
    if isinstance(value, list | tuple | ListConfig):
        return f"[{','.join(map(spelt, value))}]"
    if isinstance(value, dict | DictConfig):
        return f"{{{', '.join(f'{key!s}: {spelt(child)}' for key, child in value.items())}}}"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value) or "''"


def targets(node: Any, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    """Yield every node that names a class, with its path in the config."""
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield path, node
        for key, child in node.items_ex(resolve=False):
            yield from targets(child, f"{path}.{key!s}".lstrip("."))
    elif isinstance(node, ListConfig):
        for child in node._iter_ex(resolve=False):
            yield from targets(child, path)


def check_trusted(target: str) -> None:
    """Raise ValueError for a class outside the trusted packages."""
    if not target.startswith(TRUSTED):
        raise ValueError(
            f"{target!r} is not in a trusted package; _target_ starts with one of "
            f"{', '.join(TRUSTED)}"
        )


def parameters_of(target: str) -> dict[str, inspect.Parameter]:
    """Return the parameters that a class accepts by name, following **kwargs to its bases."""
    check_trusted(target)
    found: dict[str, inspect.Parameter] = {}
    for base in inspect.getmro(get_class(target)):
        if "__init__" not in vars(base) or base is object:
            continue
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        found = {p.name: p for p in named} | found
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def arguments_of(target: str) -> dict[str, Any]:
    """Return the names of `parameters_of` with their defaults."""
    return {name: parameter.default for name, parameter in parameters_of(target).items()}


def class_of(node: DictConfig) -> Any:
    """Return the class that a node names, for code that reads its attributes."""
    return get_class(str(node["_target_"]))


def effective(node: DictConfig) -> dict[str, Any]:
    """Return the options of a node's object: values of the config, else constructor defaults."""
    plain = (str, int, float, bool, type(None))
    defaults = arguments_of(str(node["_target_"])).items()
    return {**{k: v for k, v in defaults if isinstance(v, plain)}, **plain_dict(node)}


def set_by_code(path: str, options: Iterable[str]) -> dict[str, str]:
    """Which options of a node at a path no config sets, and what sets them."""
    if path.startswith("bottleneck."):  # one inside of another, or a packing
        shape = {"channels", "grid"} & {*options}
        return dict.fromkeys(shape, "the bottleneck around it")
    return FILLED.get(path.rpartition(".")[2], {})


def choosable(path: str, node: DictConfig) -> dict[str, Any]:
    """Return the plain options of a node's object that a config may choose, with their values."""
    filled = set_by_code(path, parameters_of(str(node["_target_"])))
    return {
        key: value
        for key, value in effective(node).items()
        if not key.startswith("_")
        and key not in filled
        and not (isinstance(value, dict) and "_target_" in value)
    }


def plain_dict(node: DictConfig) -> dict[str, Any]:
    """Return a node as nested dicts and lists, resolved."""
    return cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown name: the nearest known name, and all of them."""
    known = sorted(set(known))
    if not known:
        return "it takes none; choose another file of the group"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(known)}"
