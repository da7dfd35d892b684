"""Checks of what encode and decode are given; errors say in one line what is wrong."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

INT32 = np.iinfo(np.int32)
INT64 = np.iinfo(np.int64)


def checked_message(
    symbols: ArrayLike, contexts: ArrayLike, known: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return symbols (N, L) int32 and contexts (L,) or (N, L) int64, both C-ordered.

    Raises:
        ValueError: If shapes or types do not fit, or a context is not in 0..known-1.
    """
    values = np.asarray(symbols)
    if values.dtype != np.int32 or values.ndim != 2:
        values = checked_integers("symbols", symbols, 2)
        if values.size and not INT32.min <= values.min() <= values.max() <= INT32.max:
            raise ValueError(
                f"symbols reach from {values.min()} to {values.max()}; they are int32, quantize "
                "coarser"
            )
    rows = checked_contexts(contexts, values.shape, known)
    return np.ascontiguousarray(values, dtype=np.int32), rows


def checked_grids(symbols: ArrayLike, size: int) -> NDArray[np.int32]:
    """Return symbols (N, h, w) as C-ordered int32.

    Raises:
        ValueError: If the shape or type does not fit, or a symbol is not in 0..size-1.
    """
    values = checked_integers("symbols", symbols, 3)
    if values.size and not 0 <= values.min() <= values.max() < size:
        raise ValueError(
            f"symbols reach from {values.min()} to {values.max()}; the tables have 0 to {size - 1}"
        )
    return np.ascontiguousarray(values, dtype=np.int32)


def checked_contexts(contexts: ArrayLike, shape: tuple[int, ...], known: int) -> NDArray[np.int64]:
    """Return contexts, (L,) or (N, L) for symbols of shape (N, L), as C-ordered int64.

    Raises:
        ValueError: If the shape or type does not fit, or a context is not in 0..known-1.
    """
    rows = np.asarray(contexts)
    if rows.shape not in (shape, shape[1:]) or (rows.size and rows.dtype.kind not in "iu"):
        raise ValueError(
            f"contexts are {rows.dtype} {rows.shape}; symbols {shape} take integers {shape[1:]} or "
            f"{shape}"
        )
    if rows.size and not 0 <= rows.min() <= rows.max() < known:
        raise ValueError(
            f"contexts reach from {rows.min()} to {rows.max()}; the tables have 0 to {known - 1}"
        )
    return np.ascontiguousarray(rows, dtype=np.int64)


def checked_integers(name: str, values: ArrayLike, ndim: int) -> NDArray[np.int64]:
    """Return values as an int64 array of ndim dimensions.

    Raises:
        ValueError: If they are not integers, not of ndim dimensions, or do not fit int64.
    """
    array = np.asarray(values)
    if array.ndim != ndim or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"{name} are {array.dtype} {array.shape}; give {ndim}-d integers")
    if array.size and array.max() > INT64.max:  # uint64 would wrap to negative numbers
        raise ValueError(f"{name} reach to {array.max()}; give integers below 2**63")
    return array.astype(np.int64)
