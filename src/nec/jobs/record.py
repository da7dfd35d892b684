"""What a run leaves: store attributes, the codec folder, metrics, predictions, run.json."""

import json
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from nec.bottlenecks import Bottleneck
from nec.data.splits import SPLITS
from nec.encoders import Encoder
from nec.jobs.evaluate import Predictions
from nec.jobs.stores import EncodeSummary
from nec.report.results import write_metrics
from nec.store import EmbeddingStore
from nec.store.schema import EMBEDDING


def store_attributes(data: Any, encoder: Encoder) -> dict[str, Any]:
    """Return what a consumer should know of where the embeddings come from (JSON)."""
    pixels = data.pixels_up_to(encoder.image_size**2)
    return {
        "encoder": encoder.describe(),
        "pixels_per_image": pixels,
        "raw_bytes_per_image": pixels * data.raw_bytes_per_pixel,
    }


def write_codec(
    folder: Path, encoder: Encoder, bottleneck: Bottleneck, options: dict[str, Any]
) -> None:
    """Write the codec folder: adapted weights, the bottleneck's, and the frozen codec as JSON.

    Args:
        folder: Folder to make.
        encoder: Encoder, with adapted weights if it has any.
        bottleneck: Fitted bottleneck.
        options: Options of all nodes; those of encoder and bottleneck are kept.
    """
    folder.mkdir()
    trained = {name: t.contiguous().cpu() for name, t in encoder.trainable_state().items()}
    if trained:
        save_file(trained, folder / "encoder.safetensors")
    state = {name: t.contiguous().cpu() for name, t in bottleneck.state_dict().items()}
    if state:
        save_file(state, folder / "bottleneck.safetensors")
    layers = {name: layer.export().to_config() for name, layer in bottleneck.layers().items()}
    about = {
        "encoder": encoder.describe(),
        "options": {key: options[key] for key in ("encoder", "bottleneck")},
        "codec": layers.pop(EMBEDDING),
    }
    if layers:
        about["layers"] = layers
    (folder / "codec.json").write_text(json.dumps(about, indent=1, sort_keys=True))


def rates(
    store: EmbeddingStore, summary: EncodeSummary, sizes: np.ndarray | None
) -> dict[str, float]:
    """Return what is stored, in bytes by metric: embeddings, or the files of a pixel codec.

    Args:
        store: Store of the embeddings.
        summary: Summary of their encoding.
        sizes: Bytes of each test image's files, and of their payload (n, 2); None where embeddings
            are what is stored.
    """
    if sizes is None:
        cost = store.cost()
        found = {
            "test/bytes_per_image": cost.bytes_per_image,
            "test/coded_bytes_per_image": float(cost.streams.mean()),
            "test/estimated_bytes_per_image": summary.estimated_bytes_per_image,
            # Closing the store, which comes after the record, makes a false true.
            "store/side_bytes": store.side_bytes - (not store.complete),
            **_layer_rates(store),
        }
    else:
        file, payload = map(float, sizes.mean(axis=0))
        found = {
            "test/bytes_per_image": file,
            "test/payload_bytes_per_image": payload,
            "store/side_bytes": 0,  # a file holds all that its decoder needs
        }
    return {**found, "store/index_bytes_per_image": store.index_bytes_per_image}


def _layer_rates(store: EmbeddingStore) -> dict[str, float]:
    """What each layer takes, where there are several."""
    names = store.layers if len(store.layers) > 1 else ()
    return {f"test/bytes_per_image/{name}": store.layer(name).bytes_per_image for name in names}


def measure(
    folder: Path,
    about: dict[str, Any],
    store: EmbeddingStore,
    summary: EncodeSummary,
    predictions: dict[str, Predictions],
    history: dict[str, float],
    adapter_share: float,
    rates: dict[str, float],
) -> dict[str, Any]:
    """Write metrics.csv and predictions.npz; return what run.json adds to them."""
    attrs, bytes_per_image = store.attrs, rates["test/bytes_per_image"]
    rows = [
        *(("", name, "byte", value) for name, value in rates.items()),
        ("", "test/bpp", "bit/pixel", 8 * bytes_per_image / attrs["pixels_per_image"]),
        ("", "test/ratio", "1", attrs["raw_bytes_per_image"] / bytes_per_image),
        ("", "adapter/share", "fraction", adapter_share),
        ("", "encode/images_per_second", "image/s", summary.encode_images_per_second),
        ("", "decode/images_per_second", "image/s", summary.decode_images_per_second),
    ]
    rows += [("", name, "", value) for name, value in sorted(history.items())]
    rows += [
        (name, f"test/{metric}", "fraction", float(value))
        for name, answers in predictions.items()
        for metric, values in answers.metrics.items()
        for value in values
        if not np.isnan(value)  # the IoU of a class that is not there
    ]
    write_metrics(folder / "metrics.csv", [_row(about, *row) for row in rows])
    np.savez_compressed(folder / "predictions.npz", **_arrays(predictions))
    return {
        "tasks": {
            name: {"kind": answers.task.kind, "classes": answers.classes}
            for name, answers in predictions.items()
        },
        "images": {name: int((store.splits == name).sum()) for name in SPLITS},
        "decoded_equals_quantized": summary.images,
    }


def _arrays(predictions: dict[str, Predictions]) -> dict[str, np.ndarray]:
    """What predictions.npz holds: of the test images, and of each task."""
    arrays: dict[str, np.ndarray] = {}
    for name, answers in predictions.items():
        arrays |= {"id": np.array(answers.ids), "group": np.array(answers.groups)}
        arrays[f"{name}/statistics"] = answers.statistics
        arrays[f"{name}/majority"] = answers.majority
        if answers.predicted is not None:
            arrays |= {"label": answers.label, f"{name}/predicted": answers.predicted}
    return arrays


def begin(folder: Path) -> list[str]:
    """Note that a run is worked on; return the commits that worked on it, this one last."""
    path = folder / "commits.txt"
    with path.open("a") as file:
        file.write(f"{_git('rev-parse', 'HEAD')[:12]}\n")
    return path.read_text().split()


def finish(folder: Path, record: dict[str, Any]) -> None:
    """Write run.json last, and whole: where it is, the run is complete."""
    text = json.dumps({"status": "done", **record}, indent=1, ensure_ascii=False)
    (folder / "run.part").write_text(text + "\n")
    os.replace(folder / "run.part", folder / "run.json")


def _row(about: dict[str, Any], task: str, metric: str, unit: str, value: float) -> dict[str, Any]:
    names = ("experiment", "run", "seed", "split", "variant", "setting")
    row = {name: about[name] for name in names}
    return {**row, "task": task, "metric": metric, "unit": unit, "value": value}


def provenance() -> dict[str, Any]:
    """Commit, versions and machine kind of a run."""
    versions = {}
    for package in ("nec", "torch", "lightning", "compressai", "timm", "torchgeo", "zarr", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "commit": _git("rev-parse", "HEAD")[:12],
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "versions": versions,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def _git(*words: str) -> str:
    """What git says of nec's checkout; "" without git, or where nec is installed otherwise.

    A repository around an installed nec does not track its files.
    """
    here = Path(__file__)
    command = ["git", "-C", str(here.parent)]
    tracked = [*command, "ls-files", "--error-unmatch", here.name]
    if not shutil.which("git") or subprocess.run(tracked, capture_output=True).returncode:
        return ""
    return subprocess.run([*command, *words], capture_output=True, text=True).stdout.strip()
