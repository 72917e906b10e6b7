"""Which letters does a network read when it says a word? A trained recurrent network, explained as it is.

The network is that of g2p-en (Park and Kim; Apache-2.0): a GRU reads the letters of an English word, and
another one says its sounds, one after the other. Each sound gets a row: how much each letter spoke for it
rather than for the mean of all sounds, in hundredths of the largest share.

    pip install relprop
    pip install --no-deps g2p-en
    python examples/letters_to_sounds.py phonograph knight thought
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import relprop

WORDS = ("knight", "phone", "thought", "chaos")
LETTERS = ("<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz")
BEGIN, END, LONGEST = 2, 3, 20
_ARPABET = (
    "AA0 AA1 AA2 AE0 AE1 AE2 AH0 AH1 AH2 AO0 AO1 AO2 AW0 AW1 AW2 AY0 AY1 AY2 B CH D DH EH0 EH1 EH2 ER0 ER1 "
    "ER2 EY0 EY1 EY2 F G HH IH0 IH1 IH2 IY0 IY1 IY2 JH K L M N NG OW0 OW1 OW2 OY0 OY1 OY2 P R S SH T TH UH0 "
    "UH1 UH2 UW UW0 UW1 UW2 V W Y Z ZH"
)
SOUNDS = ("<pad>", "<unk>", "<s>", "</s>", *_ARPABET.split())


class Speaker(nn.Module):
    """A GRU that reads letters, and a GRU cell that says sounds.

    Args:
        weights: the arrays of g2p-en, by name.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        width = weights["enc_w_hh"].shape[1]
        self.letters = nn.Embedding.from_pretrained(weights["enc_emb"])
        self.sounds = nn.Embedding.from_pretrained(weights["dec_emb"])
        self.reads = nn.GRU(self.letters.embedding_dim, width, batch_first=True)
        self.says = nn.GRUCell(self.sounds.embedding_dim, width)
        self.scores = nn.Linear(width, len(SOUNDS))
        parts = ("w_ih", "w_hh", "b_ih", "b_hh")
        named = [name.replace("w_", "weight_").replace("b_", "bias_") for name in parts]
        self.reads.load_state_dict(
            {f"{n}_l0": weights[f"enc_{part}"] for n, part in zip(named, parts, strict=True)}
        )
        self.says.load_state_dict({n: weights[f"dec_{part}"] for n, part in zip(named, parts, strict=True)})
        self.scores.load_state_dict({"weight": weights["fc_w"], "bias": weights["fc_b"]})

    def forward(self, letters: Tensor, sounds: Tensor) -> Tensor:
        """Letters (N, letters) and the sounds so far (N, sounds) to scores of the next (N, sounds, 74)."""
        state = self.reads(self.letters(letters))[1][0]
        scores = []
        for sound in sounds.unbind(1):
            state = self.says(self.sounds(sound), state)
            scores.append(self.scores(state))
        return torch.stack(scores, 1)

    def say(self, word: str) -> list[str]:
        """Return the sounds of a word, as in the CMU dictionary: "N", "AY1", "T"."""
        said = [BEGIN]
        while len(said) < LONGEST:
            with torch.no_grad():
                scores = self(numbers_of(word), torch.tensor([said]))
            said.append(int(scores[0, -1].argmax()))
            if said[-1] == END:
                break
        return [SOUNDS[number] for number in said[1:] if number != END]


def numbers_of(word: str) -> Tensor:
    """Return the letters of a word as numbers, (1, letters + 1): the last one ends the word."""
    unknown = LETTERS.index("<unk>")
    return torch.tensor([[LETTERS.index(c) if c in LETTERS else unknown for c in word.lower()] + [2]])


def load_speaker() -> Speaker:
    """Load the network of the package g2p-en, of which nothing is imported.

    Raises:
        SystemExit: the package is not installed.
    """
    try:
        file = Path(str(metadata.distribution("g2p-en").locate_file("g2p_en/checkpoint20.npz")))
    except metadata.PackageNotFoundError:
        sys.exit("The network comes with g2p-en: pip install --no-deps g2p-en")
    with np.load(file, allow_pickle=False) as arrays:
        weights = {name: torch.from_numpy(arrays[name]) for name in arrays}
    return Speaker(weights).eval()


def explain_sounds(speaker: Speaker, word: str, rules: str = "cp-lrp") -> list[tuple[str, Tensor]]:
    """Return the sounds of a word, each with the relevance of the letters, (letters,)."""
    sounds, said, rows = speaker.say(word), [BEGIN], []
    for sound in sounds:
        so_far, number = torch.tensor([said]), SOUNDS.index(sound)

        def rather_than_others(scores: Tensor, number: int = number) -> Tensor:
            return scores[:, -1, number] - scores[:, -1].mean(1)

        e = relprop.explain(speaker, numbers_of(word), so_far, target=rather_than_others, rules=rules)
        rows.append((sound, e.inputs["letters"][0, :-1]))
        said.append(number)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print which letters speak for each sound of some words."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", default=WORDS, help="English words (default: four)")
    parser.add_argument("--rules", default="cp-lrp", help="a preset (default: cp-lrp)")
    options = parser.parse_args(arguments)
    speaker = load_speaker()
    for word in options.words:
        rows = explain_sounds(speaker, word, options.rules)
        print(f"\n{'':5s}" + "".join(f"{letter:>6s}" for letter in word))
        for sound, R in rows:
            shares = (100 * R / R.abs().max()).round().int().tolist()
            print(f"{sound:5s}" + "".join(f"{share:+6d}" for share in shares))


if __name__ == "__main__":
    main()
