"""Licences as facts: what each allows, for what it asks, and whose it is. Pure but for one file.

``licences.toml`` holds the facts with clause, source and the date when they were read. What no fact
covers is unknown: a licence is never guessed from a family's name, nor believed from a model card.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from typing import Any, Final, Literal

UNKNOWN: Final = "unknown"

Purpose = Literal["sale", "publication"]
Answer = Literal["allowed", "refused", "ask"]
Measure = Literal["monthly-users", "monthly-revenue", "yearly-revenue"]


@dataclass(frozen=True, slots=True)
class Threshold:
    """A size of the operator above which a licence asks for more.

    ``measure`` counts users in a month, or US dollars in a month or in any twelve months, of the
    operator and its affiliates. ``effect``: a separate ``licence`` is needed, or a ``notice`` is to
    be shown.
    """

    measure: Measure
    over: int
    effect: Literal["licence", "notice"]
    clause: str
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Licence:
    """What a licence says.

    ``sale`` (of outputs, through an API), ``publication`` (of weights that came of it) and
    ``teaching`` (another model on its outputs) are allowed, refused, or ask (a person decides).
    ``name_prefix`` is what the name of a model that came of it must begin with.
    """

    id: str
    name: str
    sale: Answer
    publication: Answer
    teaching: Answer
    clause: str
    source: str
    read: str
    aliases: tuple[str, ...] = ()
    terms_sha256: tuple[str, ...] = ()
    file_sha256: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    thresholds: tuple[Threshold, ...] = ()
    name_prefix: str = ""

    def answer(self, purpose: Purpose, role: str) -> Answer:
        """What it says of a component in this ``role``."""
        if role in ("teacher", "judge"):
            return self.teaching
        return self.sale if purpose == "sale" else self.publication


@cache
def _facts() -> Mapping[str, Any]:
    text = resources.files("avocado.terms").joinpath("licences.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


@cache
def licences() -> Mapping[str, Licence]:
    """Every licence that we have read, by SPDX id (or ``LicenseRef-…``)."""
    return {key: _licence(key, entry) for key, entry in _facts()["licences"].items()}


def _licence(key: str, entry: Mapping[str, Any]) -> Licence:
    lists = ("aliases", "terms_sha256", "file_sha256", "notices")
    thresholds = tuple(Threshold(**each) for each in entry.get("thresholds", ()))
    plain = {**entry, **{name: tuple(entry.get(name, ())) for name in lists}}
    return Licence(id=key, **{**plain, "thresholds": thresholds})


@cache
def _by_word() -> Mapping[str, str]:
    """Every way to write an id, in lower case, to the id: SPDX ids ignore case."""
    found: dict[str, str] = {}
    for each in licences().values():
        for word in (each.id, *each.aliases):
            found[word.lower()] = each.id
    return found


def find(word: str) -> Licence | None:
    """The licence that ``word`` names: an SPDX id or a hub's tag, in any case."""
    id_ = _by_word().get(word.strip().lower())
    return licences()[id_] if id_ else None


@cache
def _checkpoints() -> Mapping[str, str]:
    return {
        repository.lower(): id_
        for id_, repositories in _facts()["checkpoints"].items()
        for repository in repositories
    }


def checkpoints() -> Iterator[tuple[str, str]]:
    """Every repository that we know, and its licence."""
    for id_, repositories in _facts()["checkpoints"].items():
        for repository in repositories:
            yield str(repository), str(id_)


def services() -> Iterator[tuple[str, str]]:
    """Name patterns of models that are served and not published, and the terms they come under."""
    for id_, patterns in _facts()["services"].items():
        for pattern in patterns:
            yield str(pattern), str(id_)


def licence_of_checkpoint(name: str) -> str | None:
    """The licence of a known repository such as ``Qwen/Qwen3-8B``, or of a served model; or None.

    Names are compared without case, as the hub does.
    """
    wanted = name.partition("@")[0].strip().lower()
    known = _checkpoints().get(wanted)
    if known is not None:
        return known
    return next((id_ for pattern, id_ in services() if fnmatchcase(wanted, pattern)), None)


_SHORT: Final = (
    ("Apache License Version 2.0", "END OF TERMS AND CONDITIONS"),
    ("Permission is hereby granted, free of charge", "DEALINGS IN THE SOFTWARE."),
    ("Redistribution and use in source and binary forms", "POSSIBILITY OF SUCH DAMAGE."),
)
"""Where the terms of licences begin and end that are shipped with copyright lines around them."""

_TITLE: Final = re.compile(
    r"(the )?(mit|apache|(new |modified )?bsd)( [23]-clause)?( license)?( \(mit\))?:?",
    re.IGNORECASE,
)
_COPYRIGHT: Final = re.compile(r"[\s*#/-]*(copyright|\(c\)|©|all rights reserved)", re.IGNORECASE)
_TERMS: Final = re.compile(
    r"licen[cs]|commerc|grant|permi|condition|restrict|terms|must|shall|may not|only|except",
    re.IGNORECASE,
)
_APPENDIX: Final = re.compile(
    r"APPENDIX: How to apply the Apache License to your work\. To apply the Apache License to your "
    r"work, attach .{0,500}? within third-party archives\. Copyright .{0,120}? Licensed under the "
    r'Apache License, Version 2\.0 \(the "License"\); you may not use .{0,700}? governing '
    r"permissions and limitations under the License\."
)


def fingerprint(text: str) -> str:
    """SHA-256 of a licence's terms: white space folded, from the title to the end of the terms.

    Copies of one licence differ in copyright lines before the terms and in an appendix after them,
    and those are not terms. A text with anything else around its terms is another text: a rider
    such as "non-commercial use only" changes all of it.
    """
    folded = " ".join(text.split())
    for first, last in _SHORT:
        start = folded.find(first)
        end = folded.find(last, start) + len(last)
        if start >= 0 and end > start + len(last) and _bare(text, folded[end:], first):
            folded = folded[start:end]
            break
    return hashlib.sha256(folded.encode()).hexdigest()


def _bare(text: str, after: str, first: str) -> bool:
    """Whether around the terms there are only titles, copyright lines and Apache's appendix."""
    words = r"\s+".join(map(re.escape, first.split()))
    found = re.search(words, text)
    before = text[: found.start()] if found else text
    lines = [line.strip() for line in before.splitlines() if line.strip()]
    if not all(_TITLE.fullmatch(line) or _says_whose(line) for line in lines):
        return False
    rest = _APPENDIX.sub("", after, count=1).strip()
    return not rest or _says_whose(rest)


def _says_whose(line: str) -> bool:
    return len(line) <= 300 and bool(_COPYRIGHT.match(line)) and not _TERMS.search(line)


def licence_of_text(text: str) -> str | None:
    """The id of the licence whose terms these are, or None: unknown text is never guessed."""
    mark = fingerprint(text)
    raw = hashlib.sha256(text.encode()).hexdigest()
    return next(
        (
            each.id
            for each in licences().values()
            if mark in each.terms_sha256 or raw in each.file_sha256
        ),
        None,
    )


def licence_of_files(texts: Mapping[str, str], repository: str | None) -> str:
    """What holds for a model with these licence ``texts`` (file → text) in a known ``repository``.

    Every text must be known, and all of them hold, with what is known of the repository: where they
    disagree the more restrictive wins (``A AND B``). What a model card declares counts for nothing.
    """
    found = [licence_of_text(text) or UNKNOWN for _, text in sorted(texts.items())]
    known = licence_of_checkpoint(repository) if repository else None
    if known is not None:
        found.append(known)
    return " AND ".join(dict.fromkeys(found)) or UNKNOWN
