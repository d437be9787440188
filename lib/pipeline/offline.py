"""Hugging Face's libraries without a hub, for stages that read nothing but what the line made."""

import os


def stay_offline() -> None:
    """Ask no hub from here on. Before transformers and datasets are imported, which look for it then."""
    os.environ["HF_HUB_OFFLINE"] = "1"
