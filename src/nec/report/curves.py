"""The name of a curve, which runs compose and reports read.

Its parts are the bottleneck or pixel codec, what adapted the encoder if anything learned, and the
overrides (key=value) that no other word of a run tells.
"""

from collections.abc import Iterable

SEPARATOR = " · "
# The bottleneck that keeps every float: what the others are compared with.
RAW = "identity"
WEIGHTS = "encoder.checkpoint="
# Override of an encoder that has seen nothing: what the architecture alone is worth.
UNTRAINED = f"{WEIGHTS}random"
# Override of a codec that was fitted to other data.
FOREIGN = "codec="


def join(words: Iterable[str]) -> str:
    """Compose a name."""
    return SEPARATOR.join(words)


def parts(curve: str) -> list[str]:
    """Return the parts of a name; Hydra's + before a key says nothing here."""
    return [part.lstrip("+") for part in curve.split(SEPARATOR)]


def overrides(curve: str) -> set[str]:
    """Return the parts that are key=value."""
    return {part for part in parts(curve) if "=" in part}


def is_raw(curve: str) -> bool:
    """Whether a curve is raw embeddings, of whatever trained encoder its overrides make."""
    return parts(curve)[0] == RAW and not is_untrained(curve)


def is_untrained(curve: str) -> bool:
    """Whether a curve is of an encoder with random weights, where others have trained ones."""
    return UNTRAINED in overrides(curve)


def without_shared(curves: Iterable[str]) -> dict[str, str]:
    """Map names to names without the overrides that all share, which tell none apart.

    A codec that was fitted elsewhere stays: a curve of it alone would pass for one fitted here.
    Where an untrained encoder stands beside them as a bound, it alone is named by its weights.
    """
    named = {curve: overrides(curve) for curve in curves}
    trained = [own for own in named.values() if UNTRAINED not in own] or list(named.values())
    weights = {o for o in set.intersection(*trained) if o.startswith(WEIGHTS)}
    told = [own | weights if UNTRAINED in own else own for own in named.values()]
    shared = {o for o in set.intersection(*told) if not o.startswith(FOREIGN)}
    return {curve: join(part for part in parts(curve) if part not in shared) for curve in named}
