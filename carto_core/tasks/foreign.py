"""A causal language model that somebody else trained, from a folder of this machine in the form that transformers saves.

Nothing is fetched and nothing of the folder is run: weights from safetensors alone, no code of the model's own. Shape
suffixes: B rows of a batch, T positions, V vocabulary.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from carto_core.config import Precision
from carto_core.errors import ConfigError, ModelError
from carto_core.tasks.language import MEASURE_SCORES

DEFAULT_CONTEXT = 1024
LEAST_CONTEXT = 67  # BOS, a prefix of 16 tokens and a continuation of 50: what the audits read
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
CAUSAL_TOKENS = 8
NO_CHANGE = 1e-4  # of the scores before a token that is changed, against those after it


class ForeignTokenizer:
    """A model's own tokenizer, as ours are used. Special tokens that a text spells out are read as such, as in its training.

    Args:
        tokenizer: of transformers.
        vocab_size: rows of the model's output.

    Raises:
        ModelError: nothing is known that a text begins with, or an id has no row in the model.
    """

    def __init__(self, tokenizer: Any, *, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        found = (tokenizer.bos_token_id, tokenizer.eos_token_id)
        bos_id = next((token for token in found if token is not None), None)
        if bos_id is None:
            raise ModelError(
                "the tokenizer names no token that a text begins with, so that its first token cannot be predicted; set "
                "bos_token or eos_token in its tokenizer_config.json"
            )
        self.bos_id = int(bos_id)
        self.begins_with = str(tokenizer.convert_ids_to_tokens(self.bos_id))
        if self.bos_id >= vocab_size:
            raise ModelError(f"the tokenizer is of another model: its id {self.bos_id} has no row in {vocab_size:,}")

    def __len__(self) -> int:
        return self._vocab_size

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without `bos_id`."""
        return self.encode_many([text])[0]

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Return `encode` of each text.

        Raises:
            ModelError: an id has no row in the model.
        """
        if not texts:
            return []
        found: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        highest = max((max(ids) for ids in found if ids), default=0)
        if highest >= self._vocab_size:
            raise ModelError(f"the tokenizer is of another model: its id {highest} has no row in {self._vocab_size:,}")
        return found

    def pieces(self, text: str) -> list[str]:
        """Return the slices of a text that its tokens stand for; what no token stands for is with the token after it."""
        found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ends = [0]
        for _, end in found["offset_mapping"]:
            ends.append(max(ends[-1], end))
        return [text[a:b] for a, b in itertools.pairwise(ends)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of some ids."""
        return self._tokenizer.decode([int(i) for i in ids], clean_up_tokenization_spaces=False)


class ForeignModel(nn.Module):
    """A model of transformers as our tasks and audits read one.

    A state is int64[1, B, T], the tokens read so far, which are read again with those that follow: slower than a cache,
    and the same for every architecture.

    Args:
        model: in evaluation mode.
        tokenizer: its own.
        context: tokens that are read in one go.

    Attributes:
        vocab_size: how many scores there are for a token.
    """

    def __init__(self, model: Any, tokenizer: ForeignTokenizer, *, context: int) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.context = context
        self.vocab_size = len(tokenizer)

    def forward(self, tokens_BT: torch.Tensor, state: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return float[B, T, V] and the state.

        Raises:
            ConfigError: more than `context` tokens would be read.
        """
        read_BT = tokens_BT if state is None else torch.cat([state[0], tokens_BT], dim=1)
        if read_BT.shape[1] > self.context:
            raise ConfigError(
                f"the model reads at most {self.context} tokens in one go, and was given {read_BT.shape[1]}"
            )
        new = tokens_BT.shape[1]
        rows = max(1, MEASURE_SCORES // (read_BT.shape[1] * self.vocab_size))
        # copies, or every part would hold the scores of what was read before
        parts = [self._scores(part)[:, -new:].clone() for part in read_BT.split(rows)]
        return torch.cat(parts), read_BT[None]

    def _scores(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=tokens_BT, use_cache=False).logits


def require_safe(folder: str | Path) -> Path:
    """Return a folder that holds a model whose weights can be read without running anything.

    Raises:
        ModelError: there is no such folder, or it holds no model, a part of one, or weights as pickles alone.
    """
    path = Path(folder)
    try:
        names = sorted(p.name for p in path.iterdir())
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ModelError(
            f"no model at {str(folder)[:200]!r}: {why}; give a folder of this machine, nothing is fetched"
        ) from None
    if "adapter_config.json" in names:
        raise ModelError(
            f"{folder} holds an adapter; merge it into its model (merge_and_unload), save that and give it here"
        )
    if "config.json" not in names:
        raise ModelError(f"{folder} holds no config.json; give a folder that save_pretrained wrote")
    if not any(name.endswith(".safetensors") for name in names):
        pickled = next((name for name in names if name.endswith(PICKLES)), None)
        said = f"its weights as {pickled}, a pickle, which can run code when it is read" if pickled else "no weights"
        raise ModelError(f"{folder} holds {said}; save the model as safetensors (save_pretrained does)")
    return path


def model_sha256(folder: Path) -> str:
    """Return SHA-256 over the names and contents of the folder's config, tokenizer and safetensors files, in order of name."""
    digest = hashlib.sha256()
    for path in sorted(
        p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".txt", ".model") and p.is_file()
    ):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def load_foreign(
    folder: Path, tokenizer_folder: Path, device: torch.device, *, precision: Precision, context: int | None
) -> ForeignModel:
    """Return the model of a folder with the tokenizer of a folder.

    Args:
        folder: see `require_safe`.
        tokenizer_folder: likewise; may be the same.
        device: where to put the model.
        precision: of its weights.
        context: tokens that are read in one go; None takes what the model allows, at most 1,024.

    Raises:
        ModelError: transformers is not installed, or the folder holds no causal language model that can be loaded whole.
        ConfigError: the context is beyond the model's, or below what the audits read.
    """
    transformers = _transformers()
    how = {"local_files_only": True, "trust_remote_code": False}
    weights = torch.bfloat16 if precision == "bf16" else torch.float32
    try:
        model, told = transformers.AutoModelForCausalLM.from_pretrained(
            str(folder), use_safetensors=True, dtype=weights, output_loading_info=True, **how
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(tokenizer_folder), use_fast=True, **how)
    except Exception as error:  # noqa: BLE001 (the library raises whatever it meets)
        said = " ".join(str(error).split())
        raise ModelError(f"the model in {folder} cannot be loaded: {said[:300] or type(error).__name__}") from None
    if missing := sorted(told["missing_keys"]):
        raise ModelError(
            f"the weights in {folder} lack {len(missing)} tensors that the model has ({missing[0]}), which would be random; "
            "copy all of its files"
        )
    model = model.to(device).eval()
    rows = int(model.get_output_embeddings().weight.shape[0])
    _require_causal(model, folder, rows, device)
    return ForeignModel(model, ForeignTokenizer(tokenizer, vocab_size=rows), context=_context(model, context)).eval()


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise ModelError(
            "a model of transformers needs that package; install it with: pip install transformers"
        ) from None
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


@torch.no_grad()
def _require_causal(model: Any, folder: Path, vocab_size: int, device: torch.device) -> None:
    """Raise ModelError where a token changes what was thought before it, as in a model that reads both ways."""
    tokens = torch.arange(CAUSAL_TOKENS, device=device)[None] % vocab_size
    other = tokens.clone()
    other[0, -1] = CAUSAL_TOKENS % vocab_size
    first, second = (model(input_ids=t, use_cache=False).logits[0].float() for t in (tokens, other))
    change_T = (first - second).abs().amax(-1)
    if not (change_T[:-1] <= NO_CHANGE * change_T[-1]).all():
        raise ModelError(f"the model in {folder} reads both ways, and its losses would not be those of the next token")


def _context(model: Any, wanted: int | None) -> int:
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None) or (wanted or DEFAULT_CONTEXT)
    context = min(most, DEFAULT_CONTEXT) if wanted is None else wanted
    if context > most:
        raise ConfigError(f"--context {context}: the model reads at most {most} tokens")
    if context < LEAST_CONTEXT:
        raise ConfigError(f"--context {context}: the audits read {LEAST_CONTEXT} tokens in one go; use that or more")
    return int(context)
