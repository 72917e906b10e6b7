"""Loading language models of transformers: "hf:" and a folder, or "hf:" and a name on the Hugging Face hub.

Code that comes with a model is not run, unless the user allows it. Weights are read from safetensors only,
which have tensors and no code.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from relprop.errors import FileError, ModelError
from relprop.models.request import RANDOM, seeded
from relprop.zoo.huggingface import import_transformers

PREFIX = "hf:"

# For each task: its name, the endings of the names of its model classes, and the class of transformers that
# loads such models.
_TASKS = (
    ("classification", ("ForSequenceClassification",), "AutoModelForSequenceClassification"),
    ("tagging", ("ForTokenClassification",), "AutoModelForTokenClassification"),
    ("masked", ("ForMaskedLM",), "AutoModelForMaskedLM"),
    ("causal", ("ForCausalLM", "LMHeadModel"), "AutoModelForCausalLM"),
    ("seq2seq", ("ForConditionalGeneration", "MTModel"), "AutoModelForSeq2SeqLM"),
)

_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.gguf")


@dataclass(frozen=True, eq=False, repr=False)
class LanguageModel:
    """A language model and its tokenizer.

    Attributes:
        name: its name, as the user wrote it.
        module: the module, in evaluation mode.
        tokenizer: a tokenizer of transformers.
        task: "classification" of the whole text, "tagging" of every token, "masked" (predicts the token at a
            mask), "causal" (predicts the next token), or "seq2seq" (a decoder answers an encoder's text).
        labels: names of the classes of a classification or tagging; None if the classes are tokens.
        positions: the largest number of tokens that it can read, or None without a limit.
    """

    name: str
    module: nn.Module
    tokenizer: Any
    task: str
    labels: tuple[str, ...] | None
    positions: int | None

    def __repr__(self) -> str:
        count = sum(weight.numel() for weight in self.module.parameters())
        kind = type(self.module).__name__
        return f"LanguageModel({self.name!r}: {self.task}, {kind} of {count:,} parameters)"


def load_language_model(
    name: str,
    *,
    weights: str | None = None,
    dtype: torch.dtype | None = torch.float32,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Load a language model and its tokenizer.

    Args:
        name: "hf:" and a folder, which needs no network, or "hf:" and the name of a model on the Hugging Face
            hub.
        weights: None for the model's own weights, or "random" for its initial ones, always the same, for
            trying things out.
        dtype: dtype of the weights. Many models are stored in half precision, in which relevance is rough.
            None keeps the stored dtype, for half the memory.
        trust_remote_code: run Python code that comes with the model. Such code can do everything that you can
            do on this machine.

    Raises:
        ModelError: transformers is missing; the model is of a kind that is not explained, comes with code or
            is quantised; or the hub cannot be reached.
        FileError: the folder is missing or damaged, or its weights are not in safetensors; or weights or the
            tokenizer are missing.
    """
    kind, colon, place = name.partition(":")
    if kind + colon != PREFIX or not place:
        raise ModelError(
            f"there is no language model {name!r}. Give hf: and a folder, as hf:./my-model, or the name of a "
            "model on the Hugging Face hub, as hf:openai-community/gpt2."
        )
    if weights not in (None, RANDOM):
        raise ModelError(
            f"{name}: weights={weights!r} cannot be given apart from the model. Name a folder "
            f"with config.json and these weights as model.safetensors; or give weights={RANDOM!r}, to try "
            "things out."
        )
    where = _place(name, place)
    transformers = _transformers()
    options: dict[str, Any] = {
        "local_files_only": isinstance(where, Path),
        "trust_remote_code": trust_remote_code,
    }
    with quietly(), _errors_of(name, where):
        told, _ = transformers.PreTrainedConfig.get_config_dict(where, **options)
        _refuse_what_is_told(name, told, trust_remote_code, transformers)
        config = transformers.AutoConfig.from_pretrained(where, **options)
        task, maker = _task(name, config)
        tokenizer = _tokenizer(name, where, options, transformers)
        make = getattr(transformers, maker)
        if weights == RANDOM:
            with seeded():
                module = make.from_config(config, trust_remote_code=trust_remote_code)
                module = module.to(dtype) if dtype is not None else module
        else:
            _require_safetensors(where)
            module, found = make.from_pretrained(
                where,
                config=config,
                dtype="auto" if dtype is None else dtype,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
            _require_all(name, found["missing_keys"])
    return language_model(module.eval().requires_grad_(False), tokenizer, name=name, task=task)


def language_model(
    module: nn.Module,
    tokenizer: Any,
    *,
    name: str | None = None,
    task: str | None = None,
    labels: Sequence[str] | None = None,
) -> LanguageModel:
    """Return a `LanguageModel` of a module and a tokenizer that are in memory.

    Args:
        module: a module in evaluation mode, of transformers or your own. It is used as it is. Called with
            input_ids, (samples, tokens), it returns scores, or an output with `logits`.
        tokenizer: the model's tokenizer, of transformers.
        name: the name for results and errors, by default that of the module's class.
        task: the model's task (see `LanguageModel`), if the name of its class does not show it.
        labels: names of the classes of a classification or tagging, by default those of its config.

    Raises:
        ModelError: the model is of a kind that is not explained, or its task or labels are not known.
    """
    config: Any = getattr(module, "config", None)
    name = name or type(module).__name__
    known = [each for each, _, _ in _TASKS]
    if task not in (known if config is None else [None, *known]):
        raise ModelError(f"{name}, task={task!r}: give the model's task, one of {', '.join(known)}.")
    task = task or _task_of(name, type(module).__name__, config)[0]
    if task not in ("classification", "tagging"):
        labels = None
    elif labels is None:
        if not hasattr(config, "id2label"):
            raise ModelError(f"{name} has no names for its classes. Give them by labels=[...].")
        labels = [config.id2label[i] for i in range(config.num_labels)]
    positions = None if config is None else _positions(module, config)
    return LanguageModel(
        name, module, tokenizer, task, None if labels is None else tuple(map(str, labels)), positions
    )


def _place(name: str, place: str) -> Path | str:
    """Return the folder of this name, if there is one, otherwise the name on the hub.

    Raises:
        FileError: the folder has no config.json; or there is no such folder, and the name is not one of the
            hub.
    """
    folder = Path(place).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileError(
                f"{name}: the folder has no config.json. Give a folder that save_pretrained of transformers "
                "has written."
            )
        return folder
    if place.startswith((".", "/", "~")) or place.count("/") > 1 or "\\" in place or folder.exists():
        raise FileError(f"{name}: there is no folder {place}. Give one with config.json and *.safetensors.")
    return place


def _transformers() -> Any:
    return import_transformers("language models run", "PreTrainedModel")


@contextmanager
def quietly() -> Iterator[None]:
    """Switch off the progress bars and reports of transformers. relprop raises errors of its own instead."""
    logging = _transformers().utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _errors_of(name: str, where: Path | str) -> Iterator[None]:
    """Turn an error of transformers into an error of one line with a remedy.

    Raises:
        FileError: a folder could not be loaded.
        ModelError: a model of the hub could not be loaded.
    """
    try:
        yield
    except (ModelError, FileError):
        raise
    except Exception as error:  # a damaged file, or a missing or broken package, can raise any exception
        said = " ".join(str(error).split()).rstrip(".")
        if isinstance(where, Path):
            raise FileError(
                f"cannot load {name}: {type(error).__name__}: {said}. Check that the folder is a whole copy, "
                "and that transformers is recent enough for it."
            ) from error
        if not _is_of_network(error):
            raise ModelError(f"cannot load {name}: {type(error).__name__}: {said}.") from error
        raise ModelError(
            f"cannot load {name}: there is no folder of this name, and getting it from the Hugging Face hub "
            f"failed: {said}. Check the name and the network, or copy the model's folder to this machine and "
            "give that."
        ) from error


def _is_of_network(error: Exception) -> bool:
    """Whether a download failed. Some errors of the hub's clients are no OSError."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in (
        "httpx",
        "huggingface_hub",
    )


def _refuse_what_is_told(name: str, told: dict[str, Any], trusted: bool, transformers: Any) -> None:
    """Refuse a model that comes with code or has quantised weights. Only config.json is needed for this.

    Args:
        name: the model's name, for errors.
        told: the content of config.json.
        trusted: whether the user allows code.
        transformers: the library.

    Raises:
        ModelError: the model is refused.
    """
    known = told.get("model_type") in transformers.CONFIG_MAPPING
    # The config may name a repository for attention. Its compiled code would be downloaded and run.
    elsewhere = [
        v for key in ("attn_implementation", "experts_implementation") if "/" in str(v := told.get(key))
    ]
    if not trusted and (elsewhere or (told.get("auto_map") and not known)):
        raise ModelError(
            f"{name} comes with its own Python code, which is not run. If you have read the code and trust "
            "its source, allow it: --trust-remote-code, in Python trust_remote_code=True."
        )
    quantised = told.get("quantization_config")
    if quantised:
        how = quantised.get("quant_method") if isinstance(quantised, dict) else None
        method = f" ({how})" if how else ""
        raise ModelError(
            f"{name} has quantised weights{method}, which are not explained: the rules need floating-point "
            "weights. Take the model before quantisation, or store this one in floating point: "
            "model.dequantize() of transformers, then save_pretrained."
        )


def _task(name: str, config: Any) -> tuple[str, str]:
    architectures = getattr(config, "architectures", None) or []
    if not architectures:
        raise ModelError(
            f"{name}: its config.json does not name the model's class. Add it, for instance "
            '"architectures": ["BertForSequenceClassification"].'
        )
    return _task_of(name, architectures[0], config)


def _task_of(name: str, architecture: str, config: Any) -> tuple[str, str]:
    for task, endings, maker in _TASKS:
        if architecture.endswith(endings) and (task != "seq2seq" or config.is_encoder_decoder):
            return task, maker
    kinds = ", ".join(f"*{endings[0]}" for _, endings, _ in _TASKS)
    raise ModelError(
        f"{name} is a {architecture}. relprop knows models with scores of labels or tokens: {kinds}. Explain "
        "other models in Python: relprop.explain(model, input_ids=..., target=lambda output: ...)."
    )


def _tokenizer(name: str, where: Path | str, options: dict[str, Any], transformers: Any) -> Any:
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(where, **options)
        words: set[str] = set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
        said = "it has no vocabulary"
    except (OSError, ValueError, ImportError) as error:
        words, said = set(), " ".join(str(error).split()).rstrip(".")
    # If its files are missing, transformers makes some tokenizers with an empty vocabulary.
    if not words:
        raise FileError(
            f"{name} has no tokenizer that can be read: {said}. Put the files of its tokenizer beside "
            "config.json, mostly tokenizer.json and tokenizer_config.json: tokenizer.save_pretrained(folder)."
        )
    return tokenizer


def _require_safetensors(where: Path | str) -> None:
    if not isinstance(where, Path) or any(where.glob("*.safetensors")):
        return
    others = sorted(file.name for pattern in _OTHER_WEIGHTS for file in where.glob(pattern))
    if others:
        raise FileError(
            f"{where} has its weights as {', '.join(others[:3])} and not as safetensors. Loading such files "
            "may run code. If you trust them, convert them: load the model with transformers, then "
            "model.save_pretrained(folder)."
        )
    raise FileError(f"{where} has no weights: put model.safetensors beside config.json.")


def _require_all(name: str, missing: set[str]) -> None:
    if missing:
        few = ", ".join(sorted(missing)[:4]) + (", ..." if len(missing) > 4 else "")
        raise FileError(
            f"{name} is incomplete: its files lack {len(missing)} of the weights ({few}), which would be "
            "random. Give a model that was trained for this task."
        )


def _positions(module: nn.Module, config: Any) -> int | None:
    """Return the largest number of tokens that a model can read, from its config, or None.

    RoBERTa's family does not use the first positions, so there it is smaller than the config says.
    """
    for path, part in module.named_modules():
        if path.endswith("position_embeddings") and getattr(part, "padding_idx", None) is not None:
            return int(part.num_embeddings) - int(part.padding_idx) - 1
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    limit = getattr(text, "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None
