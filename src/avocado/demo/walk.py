"""The whole path on the seedling: data, corpus, training, evaluation, release, server, invoice.

Each step is what the command of the same name does, on a workspace that is kept, so that everything
can be looked at afterwards.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from avocado.cli import accounts, customers, links
from avocado.cli.arguments import this_month
from avocado.cli.book import reading, writing
from avocado.cli.data import corpus_lines, freeze_corpus, place_base, recipe_base
from avocado.cli.evaluate import evaluate_checkpoint, show_scorecard
from avocado.cli.output import Output
from avocado.cli.release import Request, make_release, release_lines
from avocado.cli.stages import train_recipe
from avocado.cli.train import checkpoint_lines
from avocado.demo import customer as person
from avocado.demo.server import running_server
from avocado.errors import Refused
from avocado.ledger.entry import Deposited
from avocado.lineage import short
from avocado.terms.money import Money
from avocado.terms.price import PriceSheet
from avocado.workspace import Artifact, Workspace

if TYPE_CHECKING:
    from avocado.billing.invoice import Invoice

MODEL: Final = "avocado-1"
EXAMPLES: Final = 10_000
"""Once through ten thousand taught more than twice through five (docs/log.md)."""

TENANT: Final = "acme"
CREDIT: Final = Money.parse("1.00")
BUYER: Final = {
    "company": "Acme GmbH",
    "address": ("Hauptstraße 5",),
    "postcode": "20095",
    "city": "Hamburg",
    "country": "DE",
    "email": "ada@acme.example",
    "language": "en",
}
PRICE: Final = PriceSheet(Money.parse("0.20").nanos, Money.parse("0.80").nanos)


@dataclass
class Demo:
    """One walk. ``made`` collects what each step made, for ``--json``."""

    out: Output
    workspace: Workspace
    made: dict[str, Any] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)
    _step: int = 0

    @property
    def folder(self) -> Path:
        return self.workspace.folder

    def title(self, text: str) -> None:
        self._step += 1
        elapsed = time.monotonic() - self._began
        self.out.say(f"\n{self._step}. {text}  [{elapsed:.0f} s]")

    def say(self, *lines: str) -> None:
        for line in lines:
            self.out.say(f"   {line}")

    def run(self) -> dict[str, Any]:
        """All steps. Returns what was made, with the seconds that it took."""
        self.out.say("Avocado's whole path, on the seedling: a stand-in of two million parameters")
        self.out.say("for a Qwen model, trained and shipped by this project.")
        self.write_data()
        checkpoint = self.train()
        self.evaluate(checkpoint)
        self.release(checkpoint)
        self.sell()
        self.account()
        self.invoice()
        self.made["seconds"] = round(time.monotonic() - self._began, 1)
        self.out.say(f"\nDone in {self.made['seconds']:.0f} s. Look around:")
        self.say(f"cd {self.folder}", f"avocado trace {MODEL}", "avocado verify", "avocado serve")
        self.say("avocado console --open")
        return self.made

    def write_data(self) -> None:
        from avocado.demo.task import write_task

        self.title("Data: dates and amounts in five languages, as JSON")
        counts = write_task(
            self.folder / "train.jsonl", self.folder / "evaluation.jsonl", train=EXAMPLES
        )
        recipe = resources.files("avocado.demo").joinpath("recipe.toml").read_text("utf-8")
        (self.folder / "recipe.toml").write_text(recipe, "utf-8")
        self.say(
            f"{sum(counts.train.values()):,} training examples in train.jsonl",
            f"{sum(counts.evaluate.values()):,} held-out items in evaluation.jsonl, none in common",
        )

    def train(self) -> Artifact:
        from avocado.train.recipe import load

        path = self.folder / "recipe.toml"
        recipe = load(path)
        self.title("Check and freeze the data")
        base = recipe_base(recipe, path)
        placed = place_base(self.workspace, base)
        frozen = freeze_corpus(self.workspace, recipe, path, base)
        self.say(*corpus_lines(frozen))
        self.title(f"Train {recipe.base} ({short(placed.id)})")
        checkpoint = train_recipe(self.out, self.workspace, recipe, path, corpus=frozen)
        self.say(*checkpoint_lines(checkpoint))
        self.made |= {"base": placed.id, "corpus": frozen.id, "checkpoint": checkpoint.id}
        return checkpoint

    def evaluate(self, checkpoint: Artifact) -> None:
        self.title("Evaluate base and checkpoint on the held-out items")
        artifact, card = evaluate_checkpoint(self.out, self.workspace, checkpoint, None, 100)
        show_scorecard(self.out, self.workspace, artifact, card)
        self.made |= {
            "scorecard": artifact.id,
            "scores": {
                name: {"base": each.base / each.n, "refined": each.other / each.n}
                for name, each in card.languages.items()
            },
        }

    def release(self, checkpoint: Artifact) -> None:
        self.title(f"Gate and release it as {MODEL}, paid")
        ask = Request(MODEL, "sale", PRICE)
        release, offer = make_release(self.workspace, checkpoint, ask)
        self.say(*release_lines(release, offer, release.manifest.facts["gate"]))
        self.made |= {"release": release.id, "offer": offer.id}

    def sell(self) -> None:
        self.title("Serve it, and ask it with the official openai client")
        questions = self._questions()
        with running_server(self.folder) as url:
            self.say(f"serving at {url}/v1")
            customers.add_customer(self.workspace, TENANT, "Acme", CREDIT, Money(0))
            key = customers.create_key(self.workspace, TENANT, "demo")
            self.say(f"customer {TENANT} has {CREDIT} and a key {key[:20]}…")
            self._show("plain", questions[0], person.ask(url, key, MODEL, questions[0]))
            streamed = person.ask_streamed(url, key, MODEL, questions[1])
            self._show(f"streamed in {streamed.pieces} pieces", questions[1], streamed)
            self.say(f"wrong key: {person.ask_with_a_wrong_key(url, MODEL)}")
        self.say("server stopped in good order")

    def _questions(self) -> list[str]:
        """The first held-out question in German and in Chinese."""
        from avocado.evaluate.suite import Suite

        items = Suite.read(self.folder / "evaluation.jsonl").items
        return [
            next(item.messages[-1]["content"] for item in items if item.language == language)
            for language in ("de", "zh")
        ]

    def _show(self, how: str, question: str, answer: person.Answer) -> None:
        self.say(
            f"{how}: {question}",
            f"  → {answer.text}",
            f"  {answer.prompt_tokens} + {answer.completion_tokens} tokens, cost {answer.cost}",
        )

    def account(self) -> None:
        self.title("The money")
        period = this_month()
        with reading(self.workspace) as reader:
            balance = reader.balance(TENANT)
            charges = list(reader.charges(TENANT, *period))
            invoice = accounts.invoice_of(reader, TENANT, period)
        for charge in charges:
            usage = charge.usage
            self.say(
                f"{charge.request}: {usage.prompt} + {usage.completion} tokens, "
                f"{Money(charge.charge, charge.currency)}"
            )
        self._check_sums(invoice, sum(each.charge for each in charges), balance.available)
        self.out.table(accounts.INVOICE_COLUMNS, accounts.invoice_rows(invoice))
        self.say(
            f"{CREDIT} − {Money(invoice.total)} = {Money(balance.available)} left, to the last "
            "nano-unit"
        )
        self.title(f"Trace the invoice line {invoice.lines[0].id}")
        chain = links.trace_links(self.workspace, invoice.lines[0].id, period)
        self.say(*(line for link in chain for line in link.lines()))
        self.made |= {"invoice": invoice.to_json(), "balance": Money(balance.available).decimal()}

    def invoice(self) -> None:
        """The month is not over, so its invoice can't be closed; that of the credit can."""
        from avocado.billing.invoices import invoice_from, shown_number
        from avocado.billing.pdf import facturx_pdf
        from avocado.billing.profile import change_profile
        from avocado.billing.topups import issue_topup_invoice
        from avocado.cli.issuer import issuer_of

        self.title("The invoice of its credit, as the customer gets it")
        with reading(self.workspace) as reader, writing(self.workspace) as do:
            change_profile(reader, do, TENANT, BUYER, "demo")
            deposit = next(each.entry for each in reader.postings(TENANT))
            assert isinstance(deposit, Deposited)
            issuer, now = issuer_of(self.workspace), time.time_ns()
            issued = issue_topup_invoice(reader, do, issuer, TENANT, deposit.id, now, actor="demo")
        path = self.folder / f"{shown_number(issued)}.pdf"
        path.write_bytes(facturx_pdf(invoice_from(issued), shown_number(issued)))
        self.say(str(path), "PDF/A-3 with an EN 16931 e-invoice (Factur-X) in it")
        self.made["invoice_file"] = str(path)

    def _check_sums(self, invoice: Invoice, charged: int, available: int) -> None:
        lines = sum(line.nanos for line in invoice.lines)
        if not lines == invoice.total == charged == CREDIT.nanos - available:
            raise Refused(
                f"the money does not add up: lines {lines}, invoice {invoice.total}, charges "
                f"{charged}, balance {available}: this is a bug"
            )
