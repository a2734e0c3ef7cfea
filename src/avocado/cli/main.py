"""The ``avocado`` command. Verbs load when they run, so that ``--help`` answers at once.

Exit codes: 0 done, 1 refused (each reason on its own line), 2 wrong usage.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import warnings

import click

from avocado import __version__
from avocado.errors import Refused

VERBS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "The whole path on the seedling, in a scratch workspace."),
    "init": ("init", "Make a workspace: avocado.toml and .avocado/."),
    "data": ("data", "Check and freeze training data."),
    "recipe": ("recipe", "The JSON Schema of recipes, for editors."),
    "plan": ("train", "Tokens, FLOPs, memory, time and money of a recipe, before it runs."),
    "train": ("train", "Refine a base on a recipe's data: makes a checkpoint."),
    "runs": ("runs", "List, show and compare training runs."),
    "evaluate": ("evaluate", "Score a checkpoint against its base: makes a scorecard."),
    "licence": ("licence", "What may be sold and published; attest what a person has read."),
    "gate": ("gate", "Would the gate let a checkpoint out? Releases nothing."),
    "release": ("release", "Let a checkpoint out, paid or open, if the gate approves."),
    "offer": ("offers", "What is sold under which name; swap it while it is served."),
    "serve": ("serve", "Serve the workspace's offers behind an OpenAI-compatible API."),
    "console": ("console", "Serve the pages of customers and of the operator."),
    "customer": ("customers", "Add, list and limit customers."),
    "key": ("customers", "Create, list, limit, rotate and revoke API keys."),
    "credit": ("customers", "Give a customer credit."),
    "plans": ("plans", "Publish and show plans: prepaid packs, subscriptions, trials."),
    "subscriptions": ("subscriptions", "Put customers on plans, move them, end it."),
    "coupons": ("coupons", "Create, list and redeem coupons."),
    "alerts": ("alerts", "Tell customers of their spend and balance, by mail and webhook."),
    "billing": ("billing", "Do what is due: renewals, fees, alerts, top-ups, invoices."),
    "payments": ("payments", "Money by card: top-ups, refunds, disputes."),
    "ledger": ("ledger", "Back up, export and correct the ledger."),
    "batches": ("batches", "List, show and cancel customers' batches of requests."),
    "usage": ("accounts", "What each customer used."),
    "invoice": ("accounts", "What a customer used in a month, line by line."),
    "invoices": ("invoices", "Close, list, show, export and credit invoices; record payments."),
    "profile": ("profile", "Who a customer is for its invoices: company, address, VAT id."),
    "cost": ("statements", "What engines and training cost, for statements."),
    "statement": ("statements", "What a month earned and cost, by release or customer."),
    "trace": ("trace", "The chain behind an invoice line, request, release or checkpoint."),
    "verify": ("trace", "Prove the ledger and every stored file."),
}
"""Verb → (module of ``avocado.cli``, one line of help), in the order of the path."""


EXTRAS = {
    **dict.fromkeys(("torch", "transformers", "trl", "peft", "datasets", "numpy"), "models"),
    **dict.fromkeys(("tokenizers", "safetensors", "huggingface_hub", "llguidance"), "models"),
    **dict.fromkeys(("babel", "stripe", "stdnum", "typst", "facturx", "segno"), "billing"),
    **dict.fromkeys(("fontpkg_source_sans_3", "standardwebhooks"), "billing"),
    "psycopg": "postgres",
    "aiohttp": "remote",
    "opentelemetry": "telemetry",
    **dict.fromkeys(("matplotlib", "plotext", "openai", "pyarrow", "py3langid"), "models"),
    **dict.fromkeys(("jsonschema", "regex", "rensa"), "models"),
    "tensorboard": "tracking",
    **dict.fromkeys(
        ("starlette", "jinja2", "markupsafe", "argon2", "authlib", "joserfc"), "console"
    ),
    **dict.fromkeys(("cryptography", "model_signing", "OpenSSL"), "release"),
}
"""Package that a verb may miss in a light installation → the extra that brings it."""


class Verbs(click.Group):
    """Imports a verb's module only when that verb is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"avocado.cli.{VERBS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, help_) for verb, (_, help_) in VERBS.items()])


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="avocado")
def cli() -> None:
    """Refine an open-weight Qwen model on your data, prove that it got better, and sell it by the
    token.

    base + data → corpus → training → checkpoint → evaluation → gate → release → offer → request →
    usage → charge → invoice
    """


def run(arguments: list[str] | None = None) -> int:
    """Runs one command line and returns its exit code."""
    # PyTorch's threads spin while they wait: on a busy machine that costs ten times the speed.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Libraries warn their programmers of what will change; our users can do nothing about it.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft)\.")
    # It says at each import that 4 bits could be faster on a CPU, whoever uses them or not.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = cli.main(words, prog_name="avocado", standalone_mode=False)
    except click.Abort:
        click.echo("stopped", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return 2
    except Refused as refusal:
        return _refuse(refusal.reasons, "--json" in words, refusal.word)
    except ModuleNotFoundError as error:
        if (extra := EXTRAS.get((error.name or "").partition(".")[0])) is None:
            raise
        reason = f"this needs {error.name}: pip install 'avocado-llm[{extra}]'"
        return _refuse((reason,), "--json" in words)
    except BrokenPipeError:
        return 0  # the reader of our output has had enough, as `head` does
    return code if isinstance(code, int) else 0


def _refuse(reasons: tuple[str, ...], as_json: bool, word: str = "refused") -> int:
    if as_json:
        click.echo(json.dumps({word: list(reasons)}, ensure_ascii=False))
    for reason in reasons:
        click.echo(f"{word}: {reason}", err=True)
    return 1


def main() -> None:
    sys.exit(run())


if __name__ == "__main__":
    main()
