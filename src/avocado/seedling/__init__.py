"""The seedling: the tiny stand-in for a Qwen model that this project trains and ships.

It lets the whole path run offline in minutes. ``recipes/seedling`` makes it; its model card says
what it is and isn't. This module only says where it lies; loading is the business of the others.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

NAME: Final = "seedling"
"""What a recipe writes as ``base`` to get it."""

PATH: Final = Path(str(files(__name__))) / "model"
"""The model folder, ready for ``from_pretrained``; it is read-only for everybody."""
