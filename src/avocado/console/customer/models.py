"""What a customer may use: the offers that it is shown, as the gateway would show them to it."""

from __future__ import annotations

from dataclasses import dataclass

from avocado.cli.book import shelf
from avocado.cli.lineups import read_offer
from avocado.console.page import Visit
from avocado.gateway.access import Policy, read
from avocado.release.offer import Offer


@dataclass(frozen=True)
class Model:
    """``prompt`` and ``completion`` are nano-units of ``currency`` per million tokens."""

    name: str
    prompt: int
    completion: int
    currency: str
    deprecated: bool

    @property
    def free(self) -> bool:
        return not self.prompt and not self.completion


def policy_of(visit: Visit, *subjects: str) -> dict[str, Policy]:
    """The gateway's policies of some subjects; those without one are left out."""
    with shelf(visit.console.workspace) as database:
        return read(database, subjects)


def models_of(visit: Visit) -> list[Model]:
    """By name."""
    workspace = visit.console.workspace
    subject = f"customer:{visit.tenant}"
    plan = policy_of(visit, subject).get(subject, Policy()).plan
    found = []
    for name, ref in sorted(workspace.store.pointed("offer").items()):
        offer = read_offer(workspace, ref)
        state = offer.state(visit.now / 1e9)
        if offer.admits(visit.tenant, plan) and state in ("sold", "deprecated"):
            found.append(_model(name, offer, state == "deprecated"))
    return found


def _model(name: str, offer: Offer, deprecated: bool) -> Model:
    price = offer.price
    return Model(name, price.prompt, price.completion, price.currency, deprecated)
