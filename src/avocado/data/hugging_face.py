"""Hugging Face data sets: folders that ``save_to_disk`` wrote, and ``hf://owner/name`` by id.

Read in small batches through ``datasets``, which is imported only then. No code that comes with a
data set is run. Knows no shape of a row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from avocado.data.lines import Row
from avocado.data.rejection import Rejection
from avocado.data.tables import BATCH, batches
from avocado.errors import Refused

PREFIX: Final = "hf://"

_ID: Final = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<subset>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?"
)
TIMEOUT: Final = 10.0
"""Seconds that the hub has to answer what a data set's revision is."""


@dataclass(frozen=True, slots=True)
class HubData:
    """A split of a data set on the hub, at one commit."""

    repo: str
    subset: str | None
    revision: str
    split: str

    @property
    def name(self) -> str:
        subset = f"/{self.subset}" if self.subset else ""
        return f"{PREFIX}{self.repo}{subset}@{self.revision}"

    def rows(self, name: str) -> Iterator[Row | Rejection]:
        """Streams the rows, numbered from 1.

        Raises:
            Refused: the hub cannot be reached, or has no such split.
        """
        from datasets import load_dataset

        try:
            found = load_dataset(
                self.repo, self.subset, revision=self.revision, split=self.split, streaming=True
            )
            yield from batches(found.with_format("arrow").iter(BATCH), name)
        except Refused:
            raise
        except Exception as error:  # what each of its many readers and the network raise
            raise Refused(f"{self.name} cannot be read: {_first_line(error)}") from error


def at(path: str, split: str) -> HubData:
    """The data set that ``hf://owner/name[/subset][@revision]`` names, its revision resolved.

    Raises:
        Refused: it is no such name, ``datasets`` is not installed, the hub cannot be reached, or
            it has no such data set or revision.
    """
    found = _ID.fullmatch(path)
    if not found:
        raise Refused(f"{path} is no data set: write hf://owner/name, or hf://owner/name@revision")
    _need_datasets(path)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
    from huggingface_hub.errors import RevisionNotFoundError as NoRevision

    repo, revision = found["repo"], found["revision"]
    try:
        commit = HfApi().dataset_info(repo, revision=revision, timeout=TIMEOUT).sha
    except GatedRepoError:
        raise Refused(f"{path} is gated: accept its terms on the hub and set HF_TOKEN") from None
    except NoRevision:
        raise Refused(f"{path}: the data set has no revision {revision!r}") from None
    except RepositoryNotFoundError:
        raise Refused(f"{path}: the hub has no such data set, or HF_TOKEN may not see it") from None
    except Exception as error:  # offline mode, no route, no name, a proxy's page
        raise Refused(
            f"{path} cannot be reached ({_first_line(error)}): save it where there is a network "
            "(datasets.load_dataset(…).save_to_disk(folder)) and name that folder"
        ) from error
    return HubData(repo, found["subset"], commit or revision or "main", split)


def is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote ``folder``."""
    return (folder / "dataset_dict.json").is_file() or _is_one(folder)


def _is_one(folder: Path) -> bool:
    return (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()


def saved_split(folder: Path, split: str) -> Path:
    """The folder of ``split`` in one that ``save_to_disk`` wrote.

    Raises:
        Refused: it has splits, and this is none of them.
    """
    if _is_one(folder):
        return folder
    try:
        splits = json.loads((folder / "dataset_dict.json").read_bytes())["splits"]
    except (OSError, ValueError, KeyError) as error:
        raise Refused(f"{folder} is a damaged data set: {error}") from error
    if split not in splits:
        raise Refused(f"{folder} has no split {split!r} (it has: {', '.join(splits)})")
    return folder / split


def saved_rows(folder: Path, name: str) -> Iterator[Row | Rejection]:
    """The rows of a folder that ``save_to_disk`` wrote for one split, numbered from 1.

    Raises:
        Refused: ``datasets`` is not installed, or the folder is damaged.
    """
    _need_datasets(str(folder))
    from datasets import load_from_disk

    try:
        found: Any = load_from_disk(str(folder)).with_format("arrow")
        yield from batches(found.iter(BATCH), name)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(f"{folder} is a damaged data set: {_first_line(error)}") from error


def _need_datasets(path: str) -> None:
    from importlib.util import find_spec

    if find_spec("datasets") is None:
        raise Refused(f"{path} needs datasets: pip install 'avocado-llm[models]'")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
