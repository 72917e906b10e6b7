"""Folders as Hugging Face's: tiny models with random weights, and tokenizers of a few words.

transformers is imported where it is needed, so that tests without it can be collected quickly.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from torchvision_shim import import_torchvision

import_torchvision()  # transformers imports it, where it is installed

SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
POSITIONS = 96

FRANCE = "The capital of France is"

# Each of them is one token of every vocabulary.
WORDS = ["capital", "of", "France", "Germany", "is", "Paris", "Berlin", "film", "was", "good", "bad", "not"]


def wordpiece() -> Any:
    """As BERT's: words of lower case, in pieces such as "play" and "##ing"."""
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = ["the", "play", "##ing", "##ed", "un", "##believ", "##able", *".,!?';"]
    words = [*special, *pieces, *(word.lower() for word in WORDS)]
    words += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    words += list("abcdefghijklmnopqrstuvwxyz")
    found = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    found.normalizer = normalizers.BertNormalizer(lowercase=True)
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    found.decoder = decoders.WordPiece()
    found.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=found,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _pairs(words: list[str]) -> list[tuple[str, str]]:
    """What byte-pair encoding joins, letter by letter, so that each word becomes one token."""
    return list(dict.fromkeys((word[:i], word[i]) for word in words for i in range(1, len(word))))


def _pair_encoding(start: list[str], words: list[str], **options: Any) -> Tokenizer:
    joined = _pairs(words)
    vocabulary = dict.fromkeys([*start, *(a + b for a, b in joined)])
    return Tokenizer(models.BPE({name: i for i, name in enumerate(vocabulary)}, joined, **options))


def byte_level() -> Any:
    """As GPT-2's: bytes, with a word's white space in its first piece; nothing is unknown."""
    from transformers import PreTrainedTokenizerFast

    end = "<|endoftext|>"
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    found = _pair_encoding([end, *letters], ["The", *(f"Ġ{word}" for word in [*WORDS, "un"])])
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    found.post_processor = processors.ByteLevel(trim_offsets=True)
    return PreTrainedTokenizerFast(tokenizer_object=found, bos_token=end, eos_token=end)


def with_byte_fallback() -> Any:
    """As LLaMA's: "▁" for a space, one before the text, and bytes for what the vocabulary lacks."""
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = [*"abcdefghijklmnopqrstuvwxyz", *"BFGPT", *".,!?';▁"]
    found = _pair_encoding(
        [*special, *letters],
        [f"▁{word}" for word in ["The", *WORDS, "un"]],
        byte_fallback=True,
        unk_token="<unk>",
        fuse_unk=True,
    )
    found.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    found.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    found.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=found, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def with_spaces() -> Any:
    """As Pegasus' and mBART's: likely pieces, "▁" for a space and one before every word; letters may lack."""
    from transformers import PegasusTokenizer

    special = ["<pad>", "</s>", "<unk>", "<mask_2>"]
    words = [f"▁{word}" for word in ["The", *WORDS] if word != "France"]
    letters = [*"abcdefghijklmnopqrstuvwxyz", *"FT.,!é"]
    scores = [(special, 0.0), (["▁"], -2.0), (words, -3.0), (letters, -5.0)]
    return PegasusTokenizer([(name, score) for names, score in scores for name in names], offset=5)


def byte_level_across_characters() -> Any:
    """As GPT-2's, with pieces that end and begin in the middle of "ï"."""
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [("a", "Ã"), ("¯", "v"), ("¯v", "e"), ("Ġ", "w"), ("Ġw", "a"), ("Ġwa", "s")]
    vocabulary = [*letters, *(a + b for a, b in pairs)]
    found = Tokenizer(models.BPE({name: i for i, name in enumerate(vocabulary)}, pairs))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=found)


def _saved(folder: Path, module: Any, tokenizer: Any) -> Path:
    module.eval().save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def _louder(module: Any) -> Any:
    """Larger weights than a model begins with, so that scores differ and relevance is no noise."""
    with torch.no_grad():
        for weight in module.parameters():
            if weight.dim() > 1:
                weight.mul_(8)
    return module


def bert_config(tokenizer: Any, **more: Any) -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=len(tokenizer),
        intermediate_size=48,
        max_position_embeddings=POSITIONS,
        pad_token_id=tokenizer.pad_token_id,
        **SIZES,
        **more,
    )


def bert_classifier(folder: Path) -> Path:
    """Three classes with names."""
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    tokenizer = wordpiece()
    labels = {0: "negative", 1: "neutral", 2: "positive"}
    config = bert_config(tokenizer, id2label=labels, label2id={name: i for i, name in labels.items()})
    return _saved(folder, _louder(BertForSequenceClassification(config)), tokenizer)


def bert_masked(folder: Path) -> Path:
    from transformers import BertForMaskedLM

    torch.manual_seed(0)
    tokenizer = wordpiece()
    return _saved(folder, _louder(BertForMaskedLM(bert_config(tokenizer))), tokenizer)


def bert_tagger(folder: Path) -> Path:
    """Two labels of each token."""
    from transformers import BertForTokenClassification

    torch.manual_seed(0)
    tokenizer = wordpiece()
    config = bert_config(tokenizer, id2label={0: "O", 1: "PLACE"}, label2id={"O": 0, "PLACE": 1})
    return _saved(folder, _louder(BertForTokenClassification(config)), tokenizer)


def gpt2(folder: Path) -> Path:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    tokenizer = byte_level()
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=POSITIONS,
        n_embd=32,
        n_layer=2,
        n_head=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return _saved(folder, _louder(GPT2LMHeadModel(config)), tokenizer)


def llama(folder: Path) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = with_byte_fallback()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        intermediate_size=48,
        max_position_embeddings=POSITIONS,
        num_key_value_heads=2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **SIZES,
    )
    return _saved(folder, _louder(LlamaForCausalLM(config)), tokenizer)


def t5(folder: Path) -> Path:
    """Reads with an encoder and answers with a decoder."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    tokenizer = wordpiece()
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.sep_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    return _saved(folder, _louder(T5ForConditionalGeneration(config)), tokenizer)


def pegasus(folder: Path) -> Path:
    """Likewise, with a tokenizer that puts a space before every word."""
    from transformers import PegasusConfig, PegasusForConditionalGeneration

    torch.manual_seed(0)
    tokenizer = with_spaces()
    config = PegasusConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=POSITIONS,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        forced_eos_token_id=None,
    )
    return _saved(folder, _louder(PegasusForConditionalGeneration(config)), tokenizer)


MAKERS = {
    "bert_classifier": bert_classifier,
    "bert_masked": bert_masked,
    "bert_tagger": bert_tagger,
    "gpt2": gpt2,
    "llama": llama,
    "t5": t5,
    "pegasus": pegasus,
}
