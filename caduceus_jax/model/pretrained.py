"""The base class of all models: loading, saving, and the Hugging Face hub."""

import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flax import nnx

from caduceus_jax.model import checkpoint
from caduceus_jax.model.checkpoint import StoredModel
from caduceus_jax.model.config import CaduceusConfig
from caduceus_jax.model.files.model_card import ModelCard
from caduceus_jax.model.files.task import TaskDescription
from caduceus_jax.tokenizer import Tokenizer

M = TypeVar("M", bound=nnx.Module)


class PretrainedModel(nnx.Module):
    """A model that is stored in folders and on the hub.

    Attributes:
        config: the architecture.
        tokenizer: the tokenizer that the model was made for; None where it is not known.
        task: meaning of the outputs of a fine-tuned head; None without one.
    """

    config: CaduceusConfig
    tokenizer: Tokenizer | None
    task: TaskDescription | None = None

    def save_pretrained(
        self,
        path: str | os.PathLike[str],
        *,
        card: ModelCard | None = None,
        code: str | os.PathLike[str] | None = None,
    ) -> None:
        """Writes a folder that the original's `from_pretrained` and ours load.

        Args:
            path: the folder, made if it is not there: `config.json`, `model.safetensors`, the
                files of the tokenizer, and a model card `README.md` (one that is there and was
                written by somebody else is left as it is).
            card: facts for the model card that the files do not tell.
            code: folder with the original's modelling code, which is copied, so that `AutoModel`
                of `transformers` loads the model without a network.
        """
        checkpoint.save(
            path,
            self.config,
            self,
            tokenizer=self.tokenizer,
            task=self.task,
            card=card,
            code=code,
        )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        revision: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        commit_message: str = "Upload a Caduceus model",
        card: ModelCard | None = None,
    ) -> str:
        """Uploads what `save_pretrained` writes to a repository on the Hugging Face hub.

        Args:
            repo_id: "owner/name"; made if it is not there.
            revision: the branch to commit to; the main one by default.
            private: whether a new repository is private; by default as the owner's are.
            token: access token of the hub; by default that of the account that is logged in.
            commit_message: message of the commit.
            card: facts for the model card that the files do not tell; without a name it gets that
                of the repository.

        Returns:
            The address of the commit.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            card = card or ModelCard()
            named = dataclasses.replace(card, name=card.name or repo_id.rpartition("/")[2])
            self.save_pretrained(folder, card=named)
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                revision=revision,
                commit_message=commit_message,
            )
        return commit.commit_url


def build(make: Callable[[], M], stored: StoredModel, heads: Mapping[str, Any] | None = None) -> M:
    """Makes a model and puts stored parameters into it, without drawing any.

    Args:
        make: calls the model's class.
        stored: the stored model.
        heads: parameters of heads by name, in place of the stored ones.
    """
    model = nnx.eval_shape(make)
    flat = {tuple(path): leaf for path, leaf in nnx.to_flat_state(stored.state)}
    if heads is not None:
        flat = {path: leaf for path, leaf in flat.items() if path[0] == "caduceus"}
        flat |= {(name,): leaf for name, leaf in heads.items() if leaf is not None}
    if not hasattr(model, "caduceus"):  # a backbone alone
        flat = {path[1:]: leaf for path, leaf in flat.items() if path[0] == "caduceus"}
    nnx.update(model, nnx.from_flat_state(list(flat.items())))
    return model
