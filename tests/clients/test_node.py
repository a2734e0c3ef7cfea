"""OpenAI's official client for Node, in ``node/client.test.mjs``."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("node")


def test_the_node_client(address: dict[str, Any]) -> None:
    node = shutil.which("node")
    assert node, "this test needs Node 20 or later on the PATH"
    assert (FOLDER / "node_modules").is_dir(), "run npm ci in tests/clients/node first"
    ran = subprocess.run(
        [node, "--test", "--test-reporter=tap", "client.test.mjs"],
        cwd=FOLDER,
        env=address,
        capture_output=True,
        text=True,
        timeout=120,
    )
    passed = re.search(r"^# pass (\d+)$", ran.stdout, re.MULTILINE)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert passed
    assert int(passed[1]) == (FOLDER / "client.test.mjs").read_text().count("\ntest(")
