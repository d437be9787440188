"""Upload an export to a private repository of a Hugging Face hub: `make push-hub REPO=me/model [MODEL=FOLDER]`.

The token comes from HF_TOKEN and nowhere else; HF_ENDPOINT names another hub, or a mirror of one. A file that the
repository has already is not sent again.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import BadRequestError, HfHubHTTPError, HFValidationError

from lib.export.lineage import read
from lib.lineage import find_weights
from lib.pipeline.errors import SmeltError

DEFAULT = Path("models/export/hf")


def push(folder: Path, repo: str, message: str) -> str:
    """Upload the folder of one export as one commit; the commit's address.

    Raises:
        SmeltError: it is no export, there is no token, the repository is public, or the hub refuses.
    """
    if not folder.is_dir():
        raise SmeltError(f"{folder} is no folder; an export is a folder of models/export, which `make repro` makes")
    lineage = read(find_weights(folder))
    if not (folder / "README.md").is_file():
        raise SmeltError(f"{folder} has no README.md, the model card; take the whole folder of an export")
    token = os.environ.get("HF_TOKEN")
    if not token:
        raise SmeltError(
            "an upload needs a token that may write: put one of your account into the environment as HF_TOKEN"
        )
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)
    try:
        api.create_repo(repo, private=True, exist_ok=True)
        if not api.model_info(repo).private:
            raise SmeltError(
                f"{repo} is public, and these weights were made from {lineage.licence}. Nothing was uploaded: make it "
                f"private on the hub, or name another"
            )
        done = api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
    except HFValidationError as error:
        raise SmeltError(f"{repo!r} is no name of a repository, such as me/model: {error}") from None
    except BadRequestError as error:
        raise SmeltError(f"the hub refuses {folder}: {error.server_message or error}") from None
    except HfHubHTTPError as error:
        raise SmeltError(_explain(error, repo, api.endpoint)) from None
    except (httpx2.HTTPError, OSError) as error:
        raise SmeltError(f"{api.endpoint} cannot be reached ({error}); run the same command again") from None
    return done.commit_url


def _explain(error: HfHubHTTPError, repo: str, endpoint: str) -> str:
    status = error.response.status_code
    if status == 401:
        return f"{endpoint} does not know the token in HF_TOKEN; make one in the settings of your account there"
    if status in (403, 404):
        return f"the token in HF_TOKEN may not write to {repo}; it needs the right to write, and the name must be yours"
    return f"{endpoint} answers {status} to the upload of {repo}: {error.server_message or error}; try again later"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make push-hub", description=__doc__)
    parser.add_argument("repo", help="owner/name; made, private, if it is not there")
    parser.add_argument("model", nargs="?", type=Path, default=DEFAULT, help=f"a folder of models/export ({DEFAULT})")
    parser.add_argument("--message", default="Upload by Smelt", help="of the commit")
    arguments = parser.parse_args()
    try:
        print(push(arguments.model, arguments.repo, arguments.message))
    except SmeltError as error:
        sys.exit(f"push-hub: error: {error}")


if __name__ == "__main__":
    main()
