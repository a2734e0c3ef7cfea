"""Team: the processes that train one recipe together, and how they agree.

``torchrun`` starts them and says who is who. Process 0 alone reads and freezes data, writes and
prints; the others wait for what it found. One process is a team too, and costs nothing. Knows
nothing of models: what is split between processes is the trainer's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar, cast

from avocado.errors import Refused
from avocado.train.recipe import Compute

T = TypeVar("T")

PATIENCE: Final = timedelta(hours=6)
"""How long the others wait for process 0, which may be freezing terabytes."""


class Elsewhere(Exception):
    """Another process of the team has refused, and has said why."""


@dataclass(frozen=True)
class Team:
    """``rank`` of ``size`` processes."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def wait(self) -> None:
        """Returns when every process is here."""
        if self.size > 1:
            self._all(None)

    def once(self, make: Callable[[], T]) -> T:
        """What ``make`` returns to process 0, which alone calls it; it must be picklable.

        Raises:
            Elsewhere: it was refused there; process 0 itself gets the refusal.
        """
        return self._agree(make if self.leads else None)

    def together(self, make: Callable[[], T]) -> T:
        """Calls ``make`` in every process; each gets its own result, or all stop.

        Raises:
            Refused: it was refused in this process, and in none before it.
            Elsewhere: it was refused in another.
        """
        if self.size == 1:
            return make()
        made: T | None = None
        refusal: Refused | None = None
        try:
            made = make()
        except Refused as error:
            refusal = error
        failed = [rank for rank, said in enumerate(self._all(refusal is not None)) if said]
        if refusal is not None and failed[0] == self.rank:
            raise refusal
        if failed:
            raise Elsewhere
        return cast("T", made)

    def leave(self) -> None:
        """The team's work is done."""
        if self.size > 1:
            import torch.distributed as distributed

            distributed.destroy_process_group()

    def _agree(self, make: Callable[[], T] | None) -> T:
        if self.size == 1:
            assert make is not None
            return make()
        made: T | None = None
        refusal: Refused | None = None
        if make is not None:
            try:
                made = make()
            except Refused as error:
                refusal = error
        failed, result = self._all((refusal is not None, made))[0]
        if refusal is not None:
            raise refusal
        if failed:
            raise Elsewhere
        return cast("T", result)

    def _all(self, mine: object) -> list[Any]:
        """What each process gives, by rank."""
        import torch.distributed as distributed

        everybodys: list[Any] = [None] * self.size
        distributed.all_gather_object(everybodys, mine)
        return everybodys


ALONE: Final = Team()


def join(compute: Compute | None, environment: Mapping[str, str] = os.environ) -> Team:
    """The team that ``torchrun`` has started, or this process alone.

    Raises:
        Refused: there are not as many processes as the recipe's ``[compute]`` has devices.
    """
    size = int(environment.get("WORLD_SIZE", "1"))
    wanted = compute.nodes * compute.gpus if compute is not None else size
    if size != wanted:
        started = "1 process was" if size == 1 else f"{size} processes were"
        raise Refused(
            f"{started} started (WORLD_SIZE), and [compute] asks for {wanted}: change one of "
            "the two; `avocado train RECIPE --launch torchrun` writes what starts as many"
        )
    if size == 1:
        return ALONE
    import torch
    import torch.distributed as distributed
    from accelerate import PartialState  # type: ignore[import-untyped]

    if not distributed.is_initialized():
        gpu = torch.cuda.is_available()
        PartialState(cpu=not gpu, backend=None if gpu else "gloo", timeout=PATIENCE)
    return Team(distributed.get_rank(), size)
