"""The demo's task, refined three ways: python benchmarks/three_ways.py [--json FILE] [--keep DIR]

full         every weight of the seedling, supervised (the demo's own recipe)
lora         adapters of rank 32 on every linear layer, the same data
distilled    from two teachers over HTTP that are given the questions only; what they answer is
             verified by a rule and the best is learnt. The teachers are scripted: one is right in
             80 of 100 answers, one in 50, each by a hash of the question and the seed.

Each is the command line of a user: train, then evaluate, in a scratch workspace. Prints right
answers of 100 by language, before and after, and what it took.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any, Final

from avocado.demo.task import write_task

ROWS: Final = 10_000
SKILL: Final = {"careful": 80, "hasty": 50}
"""Right answers of 100, by teacher."""

LORA: Final = 'weights = "lora"\nlora = {r = 32, alpha = 64.0}'


class Scripted(BaseHTTPRequestHandler):
    """Answers chat completions from ``server.answers``; wrong where the hash says so."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        question = body["messages"][-1]["content"]
        answer = self.server.answers[question]
        drawn = hashlib.sha256(f"{body['model']}/{body['seed']}/{question}".encode()).digest()
        if drawn[0] * 100 // 256 >= SKILL[body["model"]]:
            answer = re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), answer, count=1)
        said = {
            "id": "scripted",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": answer},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 60, "completion_tokens": 36, "total_tokens": 96},
        }
        data = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def teachers(answers: Mapping[str, str]) -> Iterator[str]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    server.answers = answers
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


def avocado(folder: Path, *words: str) -> Any:
    """A command of a user, with its JSON; its progress goes to this command's standard error."""
    command = [sys.executable, "-m", "avocado", *words, "--json"]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def recipes(url: str) -> dict[str, str]:
    full = resources.files("avocado.demo").joinpath("recipe.toml").read_text("utf-8")
    named = {way: full.replace('"dates-and-amounts"', f'"{way}"') for way in ("full", "lora")}
    lora = named["lora"].replace('weights = "full"', LORA)
    lora = lora.replace("learning_rate = 1.5e-3", "learning_rate = 4e-3")
    distilled = full.replace('"dates-and-amounts"', '"distilled"')
    distilled = distilled.replace('method = "supervised"', 'method = "distillation"')
    table = '\n[distillation]\nthreshold = 1.0\nrewards = [{kind = "exact"}]\n'
    for name in SKILL:
        table += (
            f'\n[[distillation.teachers]]\nmodel = "{name}"\nurl = "{url}"\nsamples = 2\n'
            'license = "Apache-2.0"\nat_once = 16\nprice_input = "0.1"\nprice_output = "0.4"\n'
        )
    return {"full": named["full"], "lora": lora, "distilled": distilled + table}


def refine(folder: Path, way: str, recipe: str) -> dict[str, Any]:
    (folder / f"{way}.toml").write_text(recipe, "utf-8")
    began = time.monotonic()
    checkpoint = avocado(folder, "train", f"{way}.toml")
    trained = time.monotonic()
    card = avocado(folder, "evaluate", checkpoint["checkpoint"])
    return {
        "way": way,
        "checkpoint": checkpoint["checkpoint"],
        "trainable": checkpoint["trainable"],
        "train_seconds": round(trained - began),
        "scorecard": card,
    }


def rates(card: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Language (and "all") to right answers of base and refined, in per cent."""
    (suite,) = card["suites"].values()
    rows = {"all": suite["overall"], **suite["languages"]}
    return {
        name: (100 * row["base"] / row["n"], 100 * row["other"] / row["n"])
        for name, row in rows.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="leave the workspace here")
    parser.add_argument("--rows", type=int, default=ROWS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch) / "workspace"
        subprocess.run([sys.executable, "-m", "avocado", "init", str(folder)], check=True)
        write_task(folder / "train.jsonl", folder / "evaluation.jsonl", train=given.rows)
        rows = [json.loads(line) for line in (folder / "train.jsonl").open(encoding="utf-8")]
        answers = {row["messages"][-2]["content"]: row["messages"][-1]["content"] for row in rows}
        with teachers(answers) as url:
            found = [refine(folder, way, recipe) for way, recipe in recipes(url).items()]
    names = list(rates(found[0]["scorecard"]))
    print(f"{'':10} {'trained weights':>16} {'seconds':>8} " + " ".join(f"{n:>6}" for n in names))
    base = [rates(found[0]["scorecard"])[name][0] for name in names]
    print(f"{'base':10} {'':>16} {'':>8} " + " ".join(f"{rate:6.1f}" for rate in base))
    for each in found:
        after = [rates(each["scorecard"])[name][1] for name in names]
        print(
            f"{each['way']:10} {each['trainable']:16,} {each['train_seconds']:8} "
            + " ".join(f"{rate:6.1f}" for rate in after)
        )
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
