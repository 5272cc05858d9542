"""The loop of every training stage: a budget, progress lines, checkpoints and exact resume.

A checkpoint holds all that the next step depends on: weights, averaged weights, optimizer,
random generators, the position in the data and the schedule. A stage with a budget in steps
therefore ends with the same weights, bit for bit, whether it was interrupted or not. With a
budget in seconds the schedule follows the clock; the clock goes on from the checkpoint too,
but no two runs make the same number of steps.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import torch

State: TypeAlias = dict[str, Any]

CHECKPOINT_SECONDS = 60.0
REPORT_STEPS = 50


@dataclass(frozen=True)
class Budget:
    """How long a stage trains: a number of steps, or else of seconds."""

    seconds: float = 0.0
    steps: int = 0

    def part(self, step: int, elapsed: float) -> float:
        """The share of the budget that is used up; the stage is finished at 1."""
        if self.steps:
            return step / self.steps
        return elapsed / self.seconds if self.seconds > 0 else 1.0


class Trainer(Protocol):
    """A stage: one call is one step, and its state can be taken and put back."""

    def train_step(self, step: int, part: float) -> float:
        """Makes a step at that part of the budget and returns the loss."""

    def state(self) -> State:
        """All that later steps depend on."""

    def restore(self, state: State) -> None:
        """Goes back to where the state was taken."""


def save(path: Path, state: State) -> None:
    """Writes the file whole or not at all: a reader never sees half a checkpoint."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load(path: Path) -> State | None:
    """The state in the file; None where there is no such file."""
    if not path.exists():
        return None
    state: State = torch.load(path, weights_only=True)
    return state


def run(
    trainer: Trainer,
    budget: Budget,
    path: Path,
    report: Callable[[str], None],
    stop_at: int | None = None,
) -> None:
    """Trains until the budget is used up, from the checkpoint at the path if there is one.

    `stop_at` interrupts the stage at that step, as if the process had been stopped.
    """
    step, elapsed = 0, 0.0
    saved = load(path)
    if saved is not None:
        step, elapsed = saved["step"], saved["elapsed"]
        trainer.restore(saved["trainer"])
        report(f"{path.stem}: goes on at step {step}")
    started, checkpoint = time.perf_counter() - elapsed, elapsed
    losses: list[float] = []
    while (part := budget.part(step, elapsed)) < 1 and step != stop_at:
        losses.append(trainer.train_step(step, part))
        step += 1
        elapsed = time.perf_counter() - started
        if step % REPORT_STEPS == 0:
            mean = sum(losses) / len(losses)
            report(f"{path.stem}: step {step}, {elapsed:.0f} s, {part:.0%}, loss {mean:.4f}")
            losses.clear()
        if elapsed - checkpoint > CHECKPOINT_SECONDS:
            save(path, {"step": step, "elapsed": elapsed, "trainer": trainer.state()})
            checkpoint = elapsed
    save(path, {"step": step, "elapsed": elapsed, "trainer": trainer.state()})
    report(f"{path.stem}: at step {step} after {elapsed:.0f} s")
