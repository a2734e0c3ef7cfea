"""May it be sold, may it be published, and what must be said: judged over all that it is made of.

The most restrictive answer wins. What is unknown, or left to a person, is refused until somebody
attests it; an attestation holds for one thing, and never over a licence that we know. Pure, and not
legal advice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from avocado.terms.attestation import Attestation
from avocado.terms.licence_facts import (
    UNKNOWN,
    Licence,
    Purpose,
    Threshold,
    find,
    licence_of_checkpoint,
)

_DOES: Final = {"sale": "sell its outputs", "publication": "publish what came of it"}
_TEACH: Final = "train another model on its outputs"
_TOLD: Final = {
    "monthly-users": "monthly active users",
    "monthly-revenue": "US dollars of revenue in a month",
    "yearly-revenue": "US dollars of revenue in twelve months",
}


@dataclass(frozen=True, slots=True)
class Component:
    """Something that a release is made of: its ``role`` (base, data, teacher …) and its licence."""

    role: str
    name: str
    licence: str
    """An SPDX expression, a hub's tag, or ``unknown``."""
    text_sha256: str | None = None
    """SHA-256 of the LICENSE file that lay beside it, where there was one."""
    scope: str = ""
    """Its revision, or the hash of its content: what an attestation of it is about."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one component: the licences that hold, why not, and what must be shown."""

    component: Component
    licences: tuple[Licence, ...]
    reasons: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    cited: tuple[Attestation, ...] = ()

    @property
    def allowed(self) -> bool:
        return not self.reasons


@dataclass(frozen=True, slots=True)
class Verdict:
    """The most restrictive answer over all components, with a reason for each no."""

    purpose: Purpose
    reasons: tuple[str, ...]
    notices: tuple[str, ...]
    components: tuple[Component, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def allowed(self) -> bool:
        return not self.reasons

    @property
    def cited(self) -> tuple[Attestation, ...]:
        """Every attestation that it rests on, once, in order."""
        found = {each.seq: each for finding in self.findings for each in finding.cited}
        return tuple(found[seq] for seq in sorted(found))


@dataclass(frozen=True, slots=True)
class Ground:
    """What a judgement rests on besides the facts: the log, the day, the public name if known."""

    attestations: Sequence[Attestation] = ()
    today: str = "9999-12-31"
    name: str | None = None


NOTHING: Final = Ground()


def judge(components: Iterable[Component], purpose: Purpose, ground: Ground = NOTHING) -> Verdict:
    """May a model made of ``components`` be sold (or published)? The most restrictive wins."""
    findings = tuple(_find(part, purpose, ground) for part in components)
    return Verdict(
        purpose,
        tuple(dict.fromkeys(reason for each in _told(findings) for reason in each.reasons)),
        tuple(
            dict.fromkeys(
                f"{each.component.name}: {notice}" for each in findings for notice in each.notices
            )
        ),
        tuple(each.component for each in findings),
        findings,
    )


def _told(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Findings whose reasons are worth telling: a tokenizer that came with a base, under the same
    licence, has nothing to add."""
    told: set[tuple[str, str, str]] = set()
    for each in findings:
        thing = (each.component.name, each.component.scope, each.component.licence)
        if each.component.role not in ("tokenizer", "chat template") or thing not in told:
            yield each
        told.add(thing)


def _find(part: Component, purpose: Purpose, ground: Ground) -> Finding:
    attested = [
        each
        for each in ground.attestations
        if each.statement.kind == "licence"
        and (each.statement.subject, each.statement.scope, each.statement.text_sha256)
        == (part.name, part.scope, part.text_sha256)
    ]
    held = [each for each in attested if each.statement.holds(ground.today)]
    latest = held[-1] if held else None
    over = None
    if latest is None and attested:
        over = f" (the attestation of {attested[-1].statement.date} is over)"
    stated = part.licence if latest is None else latest.statement.licence
    own = latest is not None and find(stated) is None
    if not own:  # a licence of one's own replaces what is known; a word about a known one does not
        stated = " AND ".join(_together(part, stated))
    case = _Case(replace(part, licence=stated), purpose, ground, latest, over or "")
    ways = [case.all_of(way.split(" AND ")) for way in _split(stated)]
    best = next((each for each in ways if each.allowed), ways[0])
    if latest is None or latest in best.cited:
        return best
    return replace(best, cited=(*best.cited, latest))


def _together(part: Component, stated: str) -> list[str]:
    """What holds at once: what is stated, what the component itself says, and what is known of it
    under its name."""
    found = [stated]
    if stated != part.licence and " or " not in part.licence.lower():
        found += sorted(_ids(part.licence) - _ids(stated))
    known = licence_of_checkpoint(part.name)
    if known is not None and known not in _ids(" AND ".join(found)):
        found.append(known)
        if stated == UNKNOWN and part.text_sha256 is None:
            found.remove(UNKNOWN)
    return found


def _split(expression: str) -> list[str]:
    """The alternatives of an SPDX expression: OR binds looser than AND."""
    folded = " ".join(expression.replace("(", " ").replace(")", " ").split())
    if "(" in expression:  # grouping is not understood: every part must then hold
        folded = re.sub(r" OR ", " AND ", folded, flags=re.IGNORECASE)
    folded = re.sub(r" AND ", " AND ", folded, flags=re.IGNORECASE)
    return re.split(r" OR ", folded, flags=re.IGNORECASE)


def _ids(expression: str) -> set[str]:
    words = [word for way in _split(expression) for word in way.split(" AND ")]
    return {found.id for word in words if (found := find(word)) is not None}


@dataclass
class _Case:
    """One component before the law: collects reasons, notices and what was cited."""

    part: Component
    purpose: Purpose
    ground: Ground
    attested: Attestation | None
    over: str
    reasons: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    cited: list[Attestation] = field(default_factory=list)

    def all_of(self, words: Sequence[str]) -> Finding:
        self.reasons, self.notices, self.cited = [], [], []
        found = []
        for word in words:
            licence = find(word)
            if licence is None:
                self._unknown(word)
            else:
                found.append(licence)
                self._known(licence)
        names = [each.id if (each := find(word)) else word for word in words]
        return Finding(
            replace(self.part, licence=" AND ".join(dict.fromkeys(names))),
            tuple(found),
            tuple(self.reasons),
            tuple(dict.fromkeys(self.notices)),
            tuple(self.cited),
        )

    @property
    def _who(self) -> str:
        return f"licence: {self.part.role} {self.part.name}"

    @property
    def _does(self) -> str:
        return _TEACH if self.part.role in ("teacher", "judge") else _DOES[self.purpose]

    def _answered(self) -> bool:
        """Whether a person answers for this purpose."""
        return self.attested is not None and self.purpose in self.attested.statement.allows

    def _unknown(self, word: str) -> None:
        if self._answered():
            return
        if self.attested is not None:
            self.reasons.append(
                f"{self._who} is attested as {word}, which nobody has answered for: attest it "
                f"again with --allow {self.purpose}"
            )
            return
        self.reasons.append(
            f"{self._who} has the licence {word!r}, which is not known{self.over}: a person must "
            f"read it before anyone may {self._does} (avocado licence attest)"
        )

    def _known(self, licence: Licence) -> None:
        answer = licence.answer(self.purpose, self.part.role)
        if answer == "refused":
            self.reasons.append(
                f"{self._who} is under {licence.name}, which does not let "
                f"you {self._does} ({licence.clause}; {licence.source}, read {licence.read})"
            )
        elif answer == "ask" and not self._answered():
            self.reasons.append(
                f"{self._who} is under {licence.name}: a person must decide "
                f"whether you may {self._does} ({licence.clause}; {licence.source})"
            )
        self.notices += licence.notices
        for threshold in licence.thresholds:
            self._measure(licence, threshold)
        self._named(licence)

    def _named(self, licence: Licence) -> None:
        prefix = licence.name_prefix
        if not prefix:
            return
        if self.ground.name is None:
            self.notices.append(f"the model's name must begin with {prefix!r}")
        elif not self.ground.name.startswith(prefix):
            self.reasons.append(
                f"{self._who} is under {licence.name}: the name of a model that came of it must "
                f"begin with {prefix!r}, and {self.ground.name!r} does not ({licence.source})"
            )

    def _measure(self, licence: Licence, threshold: Threshold) -> None:
        if threshold.effect == "licence" and self.part.role == "data":
            return
        stated = self._size(threshold)
        if stated is not None:
            value, attestation = stated
            self.cited.append(attestation)
            if value <= threshold.over:
                return
        over = f"{threshold.over:,} {_TOLD[threshold.measure]}"
        if threshold.effect == "notice":
            self.notices.append(f"{threshold.notice} (above {over}; {threshold.clause})")
        elif stated is None:
            self.reasons.append(
                f"{self._who} is under {licence.name}, which asks for a separate licence above "
                f"{over} ({threshold.clause}; {licence.source}): state yours with: avocado licence "
                "attest threshold"
            )
        else:
            by, day = attestation.statement.by, attestation.statement.date
            self.reasons.append(
                f"{self._who} is under {licence.name}, which asks for a separate licence above "
                f"{over} ({threshold.clause}; {licence.source}): {by} stated {value:,} on {day}"
            )

    def _size(self, threshold: Threshold) -> tuple[int, Attestation] | None:
        """The newest statement that holds. A year's revenue bounds that of each of its months."""
        wanted = "yearly-revenue" if "revenue" in threshold.measure else threshold.measure
        for each in reversed(self.ground.attestations):
            said: Mapping[str, int] = dict(each.statement.values)
            if each.statement.holds(self.ground.today) and wanted in said:
                return said[wanted], each
        return None
