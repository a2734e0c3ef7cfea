"""Open weights on a hub: a release's bundle pushed to a Hugging Face repository, as one commit.

Large files go first, by their hash: what the hub has already is not sent again, so a push that was
cut off goes on where it stopped. Then one commit makes all of it appear, and takes away what is not
of the release. ``HF_ENDPOINT`` names another hub; the token comes from ``HF_TOKEN`` alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from avocado.errors import Refused
from avocado.release.signature import SIGNATURE

DEFAULT: Final = "https://huggingface.co"
KEPT: Final = ".gitattributes"
"""The hub's own file in every repository: not of the release, and left where it is."""
_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Pushed:
    """Where a release lies now: the repository's page, and the commit."""

    url: str
    commit: str


def check_destination(repository: str) -> str:
    """The token, if a push to ``repository`` can be tried at all.

    Raises:
        Refused: the name is none, or there is no token.
    """
    if not _NAME.fullmatch(repository):
        raise Refused(f"{repository!r} is no repository: write owner/name")
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        raise Refused("HF_TOKEN is not set: make a token that may write, and export it")
    return token


def push(bundle: Path, signature: Path, repository: str, *, private: bool) -> Pushed:
    """Pushes ``bundle`` with its signature to ``repository`` (owner/name), made if it is not there.

    Raises:
        Refused: the hub says no or cannot be reached; the sentence says what to do. Nothing of the
            release has appeared then, and a repetition sends only what is missing.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    token = check_destination(repository)
    endpoint = os.environ.get("HF_ENDPOINT", DEFAULT).rstrip("/")
    api = HfApi(endpoint=endpoint, token=token)
    files = {
        path.relative_to(bundle).as_posix(): path
        for path in sorted(bundle.rglob("*"))
        if path.is_file()
    }
    files[SIGNATURE] = signature

    def ask(act: Callable[[], Any]) -> Any:
        return _asked(act, repository, endpoint)

    ask(lambda: api.create_repo(repository, private=private, exist_ok=True))
    found = ask(lambda: api.model_info(repository))
    if bool(found.private) != private:
        is_now, wanted = ("private", "public") if found.private else ("public", "private")
        raise Refused(
            f"{repository} is {is_now} already: make it {wanted} at {endpoint}, or push as it is"
        )
    there = set(ask(lambda: api.list_repo_files(repository)))
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(path))
        for name, path in files.items()
    ]
    operations += [
        CommitOperationDelete(path_in_repo=name, is_folder=False)
        for name in sorted(there - files.keys() - {KEPT})
    ]
    title = f"Release {bundle.parent.name[:12]}"
    done = ask(
        lambda: api.create_commit(
            repository, operations, commit_message=title, parent_commit=found.sha
        )
    )
    return Pushed(f"{endpoint}/{repository}", str(done.oid))


def _asked(act: Callable[[], Any], repository: str, endpoint: str) -> Any:
    """What ``act`` gives, or its failure in one sentence."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return act()
    except HfHubHTTPError as error:
        raise Refused(_why(error, repository, endpoint)) from error
    except (HFValidationError, ValueError) as error:
        raise Refused(f"{endpoint} does not take {repository}: {_line(error)}") from error
    except Exception as error:  # the HTTP client's own errors, and those of its threads
        cause = error.__cause__ if isinstance(error, RuntimeError) else None
        if isinstance(cause, HfHubHTTPError):
            raise Refused(_why(cause, repository, endpoint)) from error
        raise Refused(
            f"{endpoint} cannot be reached ({_line(cause or error)}): nothing has appeared there; "
            "push again, and only what is missing is sent"
        ) from error


def _why(error: Any, repository: str, endpoint: str) -> str:
    status = error.response.status_code if error.response is not None else 0
    said = _line(getattr(error, "server_message", None) or error)
    if status == 401:
        return f"{endpoint} does not accept HF_TOKEN: make a token that may write to {repository}"
    if status == 403:
        return f"HF_TOKEN may not write to {repository} at {endpoint}: {said}"
    if status == 404:
        return f"{endpoint} has no {repository}, or HF_TOKEN may not see it"
    if status in (409, 412):
        return (
            f"{repository} at {endpoint} was changed by somebody else meanwhile ({said}): "
            "look at it, and push again"
        )
    if status >= 500 or status == 429:
        return f"{endpoint} fails at the moment ({status}): push again, what was sent is kept"
    return f"{endpoint} says no ({status}): {said}"


def _line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
