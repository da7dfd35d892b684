"""Heads on a store: what its embeddings are worth downstream."""

import logging
import math
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import LightningEnvironment
from rich.progress import track
from torch import Tensor

from nec.data.embeddings import BATCH_SIZE, EmbeddingDataModule
from nec.data.images import ImageDataModule
from nec.jobs import devices
from nec.tasks import SceneClassification, SemanticSegmentation
from nec.tasks.downstream import Downstream
from nec.tasks.heads import Head

# Validations of a training at least, if it has that many epochs: each may choose the weights.
VALIDATIONS = 12


class Answer(NamedTuple):
    """What one head says about the test images."""

    statistics: Tensor  # (n, s) int64
    predicted: Tensor | None = None  # (n,) int64, where an image has one answer

    @classmethod
    def of(cls, batches: Sequence[dict[str, Any]]) -> "Answer":
        """Join the batches that a task predicts."""
        given = [field for field in cls._fields if field in batches[0]]
        return cls(**{field: torch.cat([batch[field] for batch in batches]) for field in given})


class Predictions(NamedTuple):
    """What the heads of all seeds say about the test images."""

    task: type[Downstream]
    classes: list[str]
    ids: list[str]  # of the n test images
    groups: list[str]  # what each is a part of
    label: np.ndarray  # (n,) int64
    predicted: np.ndarray | None  # (seeds, n) int64, where an image has one answer
    statistics: np.ndarray  # (seeds, n, s) int64
    majority: np.ndarray  # (1, n, s) int64, if all were named after most of train

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """Values per seed (seeds,) float64, by name; (1,) for what takes no head."""
        constant = self.task.measured(self.majority, self.classes)[self.task.utility]
        return {**self.task.measured(self.statistics, self.classes), "majority": constant}


class Evaluation(ABC):
    """Fit a head to stored y_hat, choose on val, predict test.

    Args:
        head: Builds a head, called with the shape of an embedding and the number of classes.
    """

    task: ClassVar[type[Downstream]]

    def __init__(self, head: Callable[..., Head]) -> None:
        self.head = head

    def check(self, shape: tuple[int, int, int], images: ImageDataModule, image_size: int) -> None:
        """Refuse, before any long work, what the head cannot learn.

        Args:
            shape: (D, h, w) of an embedding.
            images: Images to embed.
            image_size: Side S of the encoder's input, pixels.

        Raises:
            ValueError: The head or the task refuses.
        """
        head = self.head(shape, len(self.task.classes_of(images)))
        self.task.check(head, images, image_size)

    def __call__(
        self, store: Path, name: str, device: torch.device, images: ImageDataModule
    ) -> Predictions:
        """Train on a device and test on one store; what is read is what was decoded from it."""
        data = self._data(store, images)
        answers = self._answers(data, name, device)
        train, test = data.datasets["train"], data.datasets["test"]
        native, classes = images.datasets["test"].images, self.task.classes_of(data)
        groups = dict(zip(native.ids, native.groups, strict=True))
        predicted = [answer.predicted.numpy() for answer in answers if answer.predicted is not None]
        return Predictions(
            task=self.task,
            classes=classes,
            ids=test.ids,
            groups=[groups[name] for name in test.ids],
            label=test.labels.numpy(),
            predicted=np.stack(predicted) if predicted else None,
            statistics=np.stack([answer.statistics.numpy() for answer in answers]),
            majority=self.task.majority(train, test, len(classes)).numpy()[None],
        )

    def _data(self, store: Path, images: ImageDataModule) -> EmbeddingDataModule:
        return EmbeddingDataModule(str(store), images=images)

    @abstractmethod
    def _answers(self, data: EmbeddingDataModule, name: str, device: torch.device) -> list[Answer]:
        """Return the answer of each head."""


class Probe(Evaluation):
    """Train a head by gradient several times, its weights and its weight decay chosen on val.

    Args:
        head: Builds a head, called with the shape of an embedding and the number of classes.
        lr: Peak learning rate.
        weight_decay: Weight decay of AdamW; of several, each seed's head takes the best on val.
        epochs: Number of epochs.
        batch_size: Images per step.
        seeds: Number of heads trained, each in another order of images, and from another start
            unless its fit sets the weights, as those on codes do.

    Raises:
        ValueError: A number is out of range.
    """

    task = SceneClassification

    def __init__(
        self,
        head: Callable[..., Head],
        lr: float,
        weight_decay: float | Sequence[float],
        epochs: int = 60,
        batch_size: int = BATCH_SIZE,
        seeds: int = 5,
    ) -> None:
        super().__init__(head)
        single = isinstance(weight_decay, int | float)
        self.weight_decays = [float(weight_decay)] if single else list(map(float, weight_decay))
        for name, value in (("epochs", epochs), ("batch_size", batch_size), ("seeds", seeds)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it is 1 or more, as in task.NAME.{name}=1")
        if not 0 < lr < math.inf:
            raise ValueError(f"lr is {lr}; it is a number > 0, as in task.NAME.lr=0.01")
        if not self.weight_decays or not all(0 <= decay < math.inf for decay in self.weight_decays):
            raise ValueError(
                f"weight_decay is {weight_decay}; it is a number >= 0 or several, as in "
                "task.NAME.weight_decay=[0.1,1]"
            )
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.seeds = seeds

    @property
    def chosen(self) -> dict[str, str]:
        """Options that decide which of the weights at all validations are kept."""
        return {"monitor": f"val/{self.task.utility}", "mode": "max"}

    def trainer_options(self) -> dict[str, Any]:
        """Return how long a head trains, and how often val may choose its weights."""
        most = max(1, self.epochs // VALIDATIONS)
        between = next(n for n in range(most, 0, -1) if self.epochs % n == 0)  # ends with the last
        return {"max_epochs": self.epochs, "check_val_every_n_epoch": between}

    def _data(self, store: Path, images: ImageDataModule) -> EmbeddingDataModule:
        return EmbeddingDataModule(str(store), self.batch_size, images=images)

    def _answers(self, data: EmbeddingDataModule, name: str, device: torch.device) -> list[Answer]:
        answers = []
        for seed in track(range(self.seeds), f"heads ({name})"):
            data.seed = seed
            decays = self.weight_decays
            trained = [self._train(data, seed, decay, device) for decay in decays]
            best = max(trained, key=lambda one: one.utility)  # the first of equals
            answers.append(best.answer)
        return answers

    def _train(
        self, data: EmbeddingDataModule, seed: int, weight_decay: float, device: torch.device
    ) -> "Trained":
        task = self.task(self.head, self.lr, weight_decay, seed)
        with tempfile.TemporaryDirectory() as folder, quiet():
            best = ModelCheckpoint(Path(folder), **self.chosen, save_weights_only=True)
            trainer = Trainer(
                **self.trainer_options(),
                callbacks=[best],
                **devices.options(device),
                plugins=[LightningEnvironment()],  # one process, also where a launcher has many
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            trainer.fit(task, datamodule=data)
            state = torch.load(best.best_model_path, weights_only=True)
            task.load_state_dict(state["state_dict"])
            batches = trainer.predict(task, data.loader("test"))
        return Trained(float(best.best_model_score), Answer.of(batches))


class ClosedForm(Evaluation):
    """Fit a scene head that has nothing to learn by gradient: once, as nothing is random.

    Args:
        head: Builds a head, called with the shape of an embedding and the number of classes.
    """

    task = SceneClassification

    def _answers(self, data: EmbeddingDataModule, name: str, device: torch.device) -> list[Answer]:
        head = self.head(data.shape, len(self.task.classes_of(data)))
        self.task.prepare(data, head)
        head.fit(data.datasets["train"], data.datasets["val"])
        with torch.inference_mode():
            batches = [self.task.answer(head, batch) for batch in data.loader("test")]
        return [Answer.of(batches)]


class SegmentationClosedForm(ClosedForm):
    """Fit, like `ClosedForm`, a head that answers for every place of an image.

    Args:
        head: Builds a head, called with the shape of an embedding and the number of classes.
    """

    task = SemanticSegmentation


class Trained(NamedTuple):
    """A head's utility on val, and what it says about test."""

    utility: float
    answer: Answer


class SegmentationProbe(Probe):
    """Train, like `Probe`, a head that answers for every place of an image.

    Args:
        head: Builds a head, called with the shape of an embedding and the number of classes.
        lr: Peak learning rate.
        weight_decay: Weight decay of AdamW; of several, each seed's head takes the best on val.
        epochs: Number of epochs.
        batch_size: Images per step.
        seeds: Number of heads trained, each in another order of images, and from another start
            unless its fit sets the weights, as those on codes do.
    """

    task = SemanticSegmentation

    def __init__(
        self,
        head: Callable[..., Head],
        lr: float,
        weight_decay: float | Sequence[float],
        epochs: int = 8,
        batch_size: int = 32,
        seeds: int = 3,
    ) -> None:
        super().__init__(head, lr, weight_decay, epochs, batch_size, seeds)


class quiet:
    """Keep Lightning's advice on workers and devices out of the terminal for a while."""

    def __enter__(self) -> None:
        self.filters = warnings.catch_warnings()
        self.filters.__enter__()
        warnings.filterwarnings("ignore", module="lightning")
        self.logger = logging.getLogger("lightning.pytorch")
        self.level = self.logger.level
        self.logger.setLevel(logging.ERROR)

    def __exit__(self, *error: object) -> None:
        self.logger.setLevel(self.level)
        self.filters.__exit__(*error)
