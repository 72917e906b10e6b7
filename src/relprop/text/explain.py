"""Explaining a text: the relevance of its tokens for a label, for a token, or for generated text."""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from relprop.errors import InputError, quoted
from relprop.models.language import LanguageModel, load_language_model, quietly
from relprop.results.explanation import Explanation
from relprop.rules.choice import Rules
from relprop.runs.explain import explain
from relprop.targets.scores import logits_of
from relprop.targets.structured import At
from relprop.text.answers import Answer
from relprop.text.generation import explain_generation
from relprop.text.goals import Goal, TextTarget, goal_of, named, position_of, start_of_decoder
from relprop.text.result import TextExplanation
from relprop.text.tokens import Token, decoded, following, require_positions, tokens_of


def explain_text(
    model: LanguageModel | str,
    text: str,
    *,
    target: TextTarget = None,
    against: str | int | None = None,
    at: int | None = None,
    generate: int = 0,
    continuation: str | None = None,
    rules: Rules = None,
    words: bool = False,
    **options: Any,
) -> TextExplanation:
    """Explain which tokens of a text led to a language model's answer.

    Args:
        model: a language model, or its name (see `load_language_model`).
        text: the text. White space is kept.
        target: the label of a classifier, by name or number; a token of other models, by its text with the
            white space that it begins with, or by number; a target of `relprop.targets`, such as
            `RunnerUp()`; or None for the label or token with the highest score.
        against: another label or token, whose score is subtracted. It explains why the target, and not this
            one.
        at: number of the token whose output is explained, from 0, with special tokens counted; -1 is the
            last. Causal models predict the next token there, by default after the last one; masked models
            the token itself, by default the mask; taggers its label.
        generate: the largest number of tokens that a causal model or a decoder generates, each the most
            likely one. Each is explained, with a row of relevance of its own.
        continuation: a text to explain in place of a generated one.
        rules: the rules, as for `relprop.explain`.
        words: merge tokens into words.
        options: other options of `relprop.explain`, such as accept or progress.

    Raises:
        InputError: a text that is empty or too long, a target or position that the model does not have, or a
            model without a tokenizer.
        ModelError: the model cannot be loaded or explained.
        FileError: the model's folder is missing or damaged.
        CoverageError: relevance reaches operations that relprop does not cover.
    """
    if isinstance(model, str):
        model = load_language_model(model)
    if not isinstance(model, LanguageModel):
        raise InputError(
            f"explain_text({_kind(model)}, ...): give the name of a model, such as 'hf:./my-model', or a "
            "relprop.LanguageModel. relprop.load_language_model(name) returns one. For a module and a "
            "tokenizer in memory use relprop.models.language.language_model(module, tokenizer)."
        )
    tokens = tokens_of(model, text)
    options["rules"] = rules
    if generate or continuation is not None:
        _refuse_others(model, generate, continuation, target=target, against=against, at=at)
        result = _generation(model, text, tokens, generate, continuation, options)
    else:
        before = {"causal": text, "seq2seq": ""}.get(model.task) if at is None else None
        goal = goal_of(model, target, against, before)
        result = _single(model, tokens, goal, at, options)
    return result.words() if words else result


def _kind(given: Any) -> str:
    inside = f"({', '.join(type(part).__name__ for part in given)})" if isinstance(given, tuple) else ""
    return inside or type(given).__name__


def _refuse_others(model: LanguageModel, generate: int, continuation: str | None, **given: Any) -> None:
    """Refuse arguments that cannot be given together with `generate` or `continuation`.

    Raises:
        InputError: there is such an argument, `generate` is negative, or the model does not generate text.
    """
    asked = f"generate={generate}" if generate else f"continuation={continuation!r}"
    if model.task not in ("causal", "seq2seq"):
        raise InputError(f"{asked}: {model.name} ({model.task}) does not write texts. Leave it out.")
    if generate < 0 or (generate and continuation is not None):
        raise InputError(
            f"generate={generate}, continuation={continuation!r}: give one of them, the number of tokens to "
            "generate, 1 or more, or a text."
        )
    for name, value in given.items():
        if value is not None:
            raise InputError(
                f"{asked} explains every token that follows: leave out {name}={value!r}, or explain one "
                "token with target and at."
            )


def _generation(
    model: LanguageModel,
    text: str,
    tokens: list[Token],
    generate: int,
    continuation: str | None,
    options: dict[str, Any],
) -> TextExplanation:
    """Explain each token after the prompt, or each token of a decoder's answer."""
    start = start_of_decoder(model)
    given = [] if continuation is None else following(model, "" if start else text, continuation)
    length = (1 if start else len(tokens)) + (len(given) or generate)
    require_positions(model, length, "the answer" if start else "the text with what follows it")
    ids = _ids(model, tokens)
    with quietly():  # transformers reports the tokens that it uses for the end and for padding
        found = explain_generation(
            model.module,
            ids,
            attention_mask=torch.ones_like(ids),
            continuation=_ids(model, given) if given else None,
            max_new_tokens=generate,
            **options,
        )
    prompt = [*tokens, *_numbered_on(start, tokens)]
    after = decoded(model, found.ids.tolist()[found.prompt :], [] if start else ids[0].tolist())
    # Position of the first answer in the output of the decoder or, without a decoder, of the model.
    first = 0 if start else found.prompt - 1
    answers = [
        _answer(explained, quoted(token.text), token.id, found.prompt + row, first + row)
        for row, (token, explained) in enumerate(zip(after, found.explanations, strict=True))
    ]
    return TextExplanation(
        model.name,
        model.task,
        found.explanations[0].preset,
        (*prompt, *_numbered_on(after, prompt)),
        found.prompt,
        found.relevance.detach().cpu(),
        tuple(answers),
        tuple(found.explanations),
    )


def _single(
    model: LanguageModel, tokens: list[Token], goal: Goal, at: int | None, options: dict[str, Any]
) -> TextExplanation:
    """Explain one label or token."""
    start = start_of_decoder(model)
    inputs: dict[str, Any] = {**inputs_of(model, tokens)}
    position = position_of(model, start or tokens, at)
    explained = explain(
        model.module,
        target=goal.target if position is None else At(position, goal.target),
        **inputs,
        **options,
    )
    index = goal.index
    if index is None:
        index = int(_scores(explained, position).argmax())
        goal.require_two(model, index)
    answer = _answer(
        explained,
        goal.words.format(named(model, index)),
        index if goal.plain else None,
        None if position is None else position + (len(tokens) if start else 0),
        position,
    )
    prompt = (*tokens, *_numbered_on(start, tokens))
    relevance = _relevance(explained)
    return TextExplanation(
        model.name, model.task, explained.preset, prompt, len(prompt), relevance, (answer,), (explained,)
    )


def inputs_of(model: LanguageModel, tokens: Sequence[Token]) -> dict[str, Tensor]:
    """Return the model's arguments for a text, each (1, tokens) int64. A decoder gets its first token."""
    ids, start = _ids(model, tokens), start_of_decoder(model)
    inputs = {"input_ids": ids}
    if _takes(model, "attention_mask"):
        inputs["attention_mask"] = torch.ones_like(ids)
    return inputs | {"decoder_input_ids": _ids(model, start)} if start else inputs


def _takes(model: LanguageModel, name: str) -> bool:
    """Whether a model has an argument. Models of the user's own often have no mask."""
    parameters = inspect.signature(model.module.forward).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _ids(model: LanguageModel, tokens: Sequence[Token]) -> Tensor:
    """Return the ids of tokens, (1, tokens) int64, on the model's device."""
    device = next(model.module.parameters()).device
    return torch.tensor([[token.id for token in tokens]], device=device)


def _numbered_on(tokens: Sequence[Token], before: Sequence[Token]) -> tuple[Token, ...]:
    """Return tokens whose words are numbered after those of other tokens."""
    start = before[-1].word + 1
    return tuple(replace(token, word=start + token.word) for token in tokens)


def _relevance(explained: Explanation) -> Tensor:
    """Return the relevance of all tokens, (tokens,), an encoder's before a decoder's, on the CPU."""
    return torch.cat([part[0] for part in explained.inputs.values()]).detach().cpu()


def _scores(explained: Explanation, position: int | None) -> Tensor:
    """Return the scores of all labels or tokens, (classes,), at a position or for the whole text."""
    logits: Tensor = logits_of(explained.output)
    return logits[0] if position is None else logits[0, position]


def _answer(
    explained: Explanation, words: str, index: int | None, place: int | None, position: int | None
) -> Answer:
    probability = None
    if index is not None:
        scores = _scores(explained, position).double()
        probability = float(scores.softmax(0)[index]) if len(scores) > 1 else None
    return Answer(
        words,
        float(explained.score[0]),
        explained.measure,
        probability,
        place,
        float(explained.ledger.inputs[0]),
        {name: float(amount[0]) for name, amount in explained.ledger.absorbed.items()},
    )
