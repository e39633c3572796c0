"""Trains the same U-Net with PyTorch, for `against_torch`.

Written to be fast, as far as one gets in plain PyTorch: channels-last memory, examples
on the device as uint8 and scaled there, the fused Adam, no gradients for a frozen
encoder, autocast for bfloat16, denormal numbers flushed to zero as TensorFlow does.
"""

import argparse
import sys

import numpy as np
import torch
from torch.nn import functional

from data import schema
from data.sources import synthetic
from tests.benchmarks import torch_unet, turns

_SPLIT = "validation"
_NUM_CLASSES = synthetic.INFO.num_classes


class _Trainer:
    """Model, optimizer and examples, on the GPU if there is one."""

    def __init__(
        self,
        *,
        batch_size: int,
        image_size: int,
        precision: str,
        freeze_encoder: bool,
    ):
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._batch_size = batch_size
        self._is_autocast = precision == "bfloat16"
        self.model = torch_unet.UNet(_NUM_CLASSES, freeze_encoder=freeze_encoder)
        self.model.to(self.device, memory_format=torch.channels_last).train()
        self._optimizer = torch.optim.Adam(
            [p for p in self.model.parameters() if p.requires_grad],
            lr=1e-3,
            eps=1e-7,  # Keras' default.
            fused=True,
        )
        self._images, self._labels = (
            torch.from_numpy(array).to(self.device)
            for array in _draw_examples(image_size)
        )
        self._confusion = torch.zeros(
            _NUM_CLASSES**2, dtype=torch.int64, device=self.device
        )

    def train(self, num_steps: int) -> None:
        """Runs steps on random batches and waits for the device."""
        for _ in range(num_steps):
            loss = self._step()
        print(f"loss {loss.item():.4f}", file=sys.stderr)

    def _step(self) -> torch.Tensor:
        ids = torch.randint(len(self._images), (self._batch_size,), device=self.device)
        labels = self._labels[ids].long()  # [batch, height, width]
        images = self._images[ids].permute(0, 3, 1, 2)  # A view: channels last.
        images = images.float().mul_(1 / 127.5).sub_(1)
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device, torch.bfloat16, enabled=self._is_autocast):
            logits = self.model(images)  # [batch, classes, height, width]
        logits = logits.float()
        loss = functional.cross_entropy(
            logits, labels, ignore_index=schema.IGNORE_LABEL
        )
        loss.backward()
        self._optimizer.step()
        self._count_confusions(labels, logits.detach())
        return loss.detach()

    def _count_confusions(self, labels: torch.Tensor, logits: torch.Tensor) -> None:
        """Counts pixels by true and predicted class, as segloop does in each step."""
        num_cells = _NUM_CLASSES**2
        cells = labels * _NUM_CLASSES + logits.argmax(1)
        # Ignored pixels go to one more bin, which is cut off.
        cells = torch.where(labels == schema.IGNORE_LABEL, num_cells, cells)
        counts = torch.bincount(cells.flatten(), minlength=num_cells + 1)
        self._confusion += counts[:num_cells]


def _draw_examples(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws the pictures that segloop's worker trains on, too.

    Returns:
      uint8 [num_examples, size, size, 3], 0..255, and uint8 [num_examples, size, size].
    """
    examples = [
        synthetic.draw_example(0, _SPLIT, index, size)
        for index in range(synthetic.NUM_EXAMPLES[_SPLIT])
    ]
    images, labels = zip(*examples, strict=True)
    return np.stack(images), np.stack(labels)


def main() -> None:
    """Serves steps of the training that the command line asks for."""
    channel = turns.open_channel()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch_size", type=int, required=True)
    parser.add_argument("--image_size", type=int, required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--freeze_encoder", action="store_true")
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = True
    trainer = _Trainer(**vars(parser.parse_args()))
    parameters, trainable = torch_unet.count_parameters(trainer.model)
    description = {
        "framework": f"PyTorch {torch.__version__}",
        "device": "GPU" if trainer.device == "cuda" else "CPU",
        "threads": torch.get_num_threads(),
        "parameters": parameters,
        "trainable": trainable,
    }
    turns.serve(trainer.train, description, orders=sys.stdin, channel=channel)


if __name__ == "__main__":
    main()
