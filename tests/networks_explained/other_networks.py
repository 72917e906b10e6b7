"""Networks for tables, recommendations, sounds and signals: small, after published ones."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relprop.targets import At, Difference, Part
from small_transformers import drawn
from torchvision_shim import import_torchvision

SAMPLES, NUMBERS, WIDTH, CLASSES = 3, 6, 8, 3
CARDINALITIES = (3, 5)
USERS, ITEMS, HISTORY = 7, 9, 5

# ---- tables ----


class Embedded(nn.Module):
    """A multilayer perceptron on numbers and embedded categories."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(n, 4) for n in CARDINALITIES)
        self.norm = nn.BatchNorm1d(NUMBERS)
        self.body = nn.Sequential(
            *(nn.Linear(NUMBERS + 8, WIDTH), nn.ReLU(), nn.BatchNorm1d(WIDTH), nn.Dropout(0.1)),
            *(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES)),
        )

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        found = [table(categories[:, i]) for i, table in enumerate(self.tables)]
        return self.body(torch.cat([self.norm(numbers), *found], 1))


class OneHot(Embedded):
    """The same with one-hot categories, as TabM has them, Gorishniy et al. 2025."""

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        hot = [F.one_hot(categories[:, i], n) for i, n in enumerate(CARDINALITIES)]
        return self.body(torch.cat([self.norm(numbers), *hot], -1))


class TableResNet(nn.Module):
    """ResNet for tables, Gorishniy et al. 2021."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(NUMBERS, WIDTH)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, WIDTH)
            )
            for _ in range(2)
        )
        self.last = nn.Sequential(nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES))

    def forward(self, numbers: Tensor) -> Tensor:
        h = self.first(numbers)
        for block in self.blocks:
            h = h + block(h)
        return self.last(h)


class FTTransformer(nn.Module):
    """A token for each feature, and one to classify by, Gorishniy et al. 2021."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.randn(NUMBERS, WIDTH)) for _ in range(2))
        self.table = nn.Embedding(sum(CARDINALITIES), WIDTH)
        self.offsets = nn.Buffer(torch.tensor([0, *CARDINALITIES[:-1]]).cumsum(0))
        self.cls = nn.Parameter(torch.randn(WIDTH))
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))
        self.up, self.down, self.head = nn.Linear(WIDTH, 16), nn.Linear(8, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        tokens = numbers[..., None] * self.weight + self.bias
        cls = self.cls.expand(len(numbers), 1, -1)
        h = torch.cat([cls, tokens, self.table(categories + self.offsets)], 1)
        normed = self.norms[0](h)
        h = h + self.attention(normed, normed, normed, need_weights=False)[0]
        signal, gate = self.up(self.norms[1](h)).chunk(2, -1)
        h = h + self.down(signal * gate.relu())
        return self.head(self.norms[2](h[:, 0]).relu())


class TabTransformer(nn.Module):
    """Attention among categories alone, beside normalised numbers, Huang et al. 2020."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(sum(CARDINALITIES), WIDTH)
        self.offsets = nn.Buffer(torch.tensor([0, *CARDINALITIES[:-1]]).cumsum(0))
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(WIDTH, 2, 12, activation="gelu", batch_first=True), 2
        )
        self.norm = nn.LayerNorm(NUMBERS)
        self.head = nn.Sequential(nn.Linear(2 * WIDTH + NUMBERS, 12), nn.SELU(), nn.Linear(12, CLASSES))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        h = self.encoder(self.table(categories + self.offsets)).flatten(1)
        return self.head(torch.cat([h, self.norm(numbers)], 1))


def sparsemax(z: Tensor) -> Tensor:
    """Martins and Astudillo 2016, over the last dimension."""
    ordered, _ = z.sort(-1, descending=True)
    counts = torch.arange(1, z.shape[-1] + 1).to(z)
    sums = ordered.cumsum(-1)
    support = (1 + counts * ordered > sums).sum(-1, keepdim=True)
    threshold = (sums.gather(-1, support - 1) - 1) / support.to(z)
    return (z - threshold).clamp(min=0)


class TabNet(nn.Module):
    """Steps that choose features by sparsemax, Arık and Pfister 2021."""

    def __init__(self, steps: int = 2) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(NUMBERS)
        self.shared = nn.Linear(NUMBERS, 4 * WIDTH, bias=False)
        self.own = nn.ModuleList(nn.Linear(2 * WIDTH, 4 * WIDTH) for _ in range(steps + 1))
        self.choose = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, NUMBERS), nn.BatchNorm1d(NUMBERS)) for _ in range(steps)
        )
        self.head = nn.Linear(WIDTH, CLASSES)

    def transformed(self, x: Tensor, step: int) -> Tensor:
        h = F.glu(self.shared(x))
        return (h + F.glu(self.own[step](h))) * math.sqrt(0.5)

    def forward(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(numbers)
        h = self.transformed(x, 0)[:, WIDTH:]
        prior, decided, entropy = torch.ones_like(x), 0, 0
        for step, choose in enumerate(self.choose, 1):
            mask = sparsemax(choose(h) * prior)
            entropy = entropy + (mask * (mask + 1e-15).log()).sum(1).mean()
            prior = prior * (1.3 - mask)
            found = self.transformed(mask * x, step)
            decided, h = decided + found[:, :WIDTH].relu(), found[:, WIDTH:]
        return self.head(decided), entropy


class ObliviousTrees(nn.Module):
    """Trees whose levels ask one question each, Popov et al. 2020 (NODE)."""

    def __init__(self, trees: int = 4, depth: int = 3) -> None:
        super().__init__()
        self.choice = nn.Parameter(torch.randn(NUMBERS, trees, depth))
        self.threshold = nn.Parameter(torch.randn(trees, depth))
        self.scale = nn.Parameter(torch.randn(trees, depth) * 0.1)
        self.response = nn.Parameter(torch.randn(trees, CLASSES, 2**depth))
        codes = torch.arange(2**depth)[None] // 2 ** torch.arange(depth)[:, None] % 2
        self.codes = nn.Buffer(torch.stack([codes, 1 - codes], -1).float())

    def forward(self, numbers: Tensor) -> Tensor:
        chosen = sparsemax(self.choice.movedim(0, -1)).movedim(-1, 0)
        values = torch.einsum("bi,itd->btd", numbers, chosen)
        logits = (values - self.threshold) * torch.exp(-self.scale)
        bins = (0.5 * torch.stack([-logits, logits], -1) + 0.5).clamp(0, 1)
        leaves = torch.einsum("btds,dcs->btdc", bins, self.codes).prod(-2)
        return torch.einsum("btc,toc->bto", leaves, self.response).mean(1)


class DCN(nn.Module):
    """Crosses x0 · (W x + b) + x beside a deep network, Wang et al. 2021 (version 2)."""

    def __init__(self) -> None:
        super().__init__()
        size = NUMBERS + 2 * 4
        self.tables = nn.ModuleList(nn.Embedding(n, 4) for n in CARDINALITIES)
        self.crosses = nn.ModuleList(nn.Linear(size, size) for _ in range(2))
        self.deep = nn.Sequential(nn.Linear(size, WIDTH), nn.ReLU())
        self.head = nn.Linear(size + WIDTH, 1)

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        first = x = torch.cat([numbers, *(t(c) for t, c in zip(self.tables, categories.T, strict=True))], 1)
        for cross in self.crosses:
            x = first * cross(x) + x
        return self.head(torch.cat([x, self.deep(first)], 1)).squeeze(-1)


# ---- recommendations ----


class Factors(nn.Module):
    """Matrix factorisation with biases, Koren et al. 2009."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(USERS, WIDTH), nn.Embedding(ITEMS, WIDTH)
        self.of_user, self.of_item = nn.Embedding(USERS, 1), nn.Embedding(ITEMS, 1)
        self.mean = nn.Parameter(torch.zeros(1))

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        product = (self.users(user) * self.items(item)).sum(1)
        return product + self.of_user(user)[:, 0] + self.of_item(item)[:, 0] + self.mean


class NeuMF(nn.Module):
    """A product and a multilayer perceptron of two pairs of embeddings, He et al. 2017."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(USERS, 2 * WIDTH), nn.Embedding(ITEMS, 2 * WIDTH)
        self.deep = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())
        self.head = nn.Linear(2 * WIDTH, 1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        (u, of_user), (i, of_item) = self.users(user).chunk(2, 1), self.items(item).chunk(2, 1)
        return self.head(torch.cat([u * i, self.deep(torch.cat([of_user, of_item], 1))], 1))


class DeepFM(nn.Module):
    """Linear, factorisation machine and deep network on hashed fields, Guo et al. 2017."""

    def __init__(self, buckets: int = 20) -> None:
        super().__init__()
        self.buckets = buckets
        self.linear, self.table = nn.Embedding(buckets, 1), nn.Embedding(buckets, WIDTH)
        self.deep = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))

    def forward(self, fields: Tensor) -> Tensor:
        hashed = (fields * 7 + 3) % self.buckets
        h = self.table(hashed)
        pairs = 0.5 * (h.sum(1).square() - h.square().sum(1)).sum(1, keepdim=True)
        return self.linear(hashed).sum(1) + pairs + self.deep(h.flatten(1))


class DLRM(nn.Module):
    """Products of all pairs of embeddings and of the numbers' layer, Naumov et al. 2019."""

    def __init__(self) -> None:
        super().__init__()
        self.bottom = nn.Sequential(nn.Linear(NUMBERS, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())
        self.bags = nn.ModuleList(nn.EmbeddingBag(n, WIDTH, mode="sum") for n in CARDINALITIES)
        self.top = nn.Sequential(nn.Linear(WIDTH + 3, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        x = self.bottom(numbers)
        found = [bag(categories[:, i : i + 1]) for i, bag in enumerate(self.bags)]
        h = torch.stack([x, *found], 1)
        rows, columns = torch.tril_indices(3, 3, offset=-1)
        products = torch.bmm(h, h.transpose(1, 2))[:, rows, columns]
        return self.top(torch.cat([x, products], 1))


class WideDeep(nn.Module):
    """A linear layer on one-hot crosses, beside a deep network, Cheng et al. 2016."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Linear(math.prod(CARDINALITIES), 1)
        self.tables = nn.ModuleList(nn.Embedding(n, 4) for n in CARDINALITIES)
        self.deep = nn.Sequential(nn.Linear(NUMBERS + 8, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        one, other = (F.one_hot(c, n) for c, n in zip(categories.T, CARDINALITIES, strict=True))
        crosses = (one.double()[:, :, None] * other.double()[:, None]).flatten(1)
        found = [t(c) for t, c in zip(self.tables, categories.T, strict=True)]
        return self.wide(crosses) + self.deep(torch.cat([numbers, *found], 1))


class DIN(nn.Module):
    """Attention of a candidate over a history, padded by 0, Zhou et al. 2018."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS, WIDTH, padding_idx=0)
        self.score = nn.Sequential(nn.Linear(4 * WIDTH, WIDTH), nn.PReLU(), nn.Linear(WIDTH, 1))
        self.head = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.PReLU(), nn.Linear(WIDTH, 1))

    def forward(self, item: Tensor, history: Tensor) -> Tensor:
        h, candidate = self.items(history), self.items(item)
        each = candidate[:, None].expand_as(h)
        scores = self.score(torch.cat([each, h, each - h, each * h], -1)).squeeze(-1)
        weights = scores.masked_fill(history == 0, -1e9).softmax(1)
        interest = torch.bmm(weights[:, None], h)[:, 0]
        return self.head(torch.cat([interest, candidate], 1))


class Towers(nn.Module):
    """Cosine of a user and an item over a temperature, Yi et al. 2019."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(USERS, WIDTH), nn.Embedding(ITEMS, WIDTH)
        self.one, self.two = (
            nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 4)),
            nn.Linear(WIDTH, 4),
        )

    def forward(self, user: Tensor, history: Tensor, candidates: Tensor) -> Tensor:
        known = torch.cat([self.users(user), self.items(history).mean(1)], 1)
        return F.cosine_similarity(self.one(known)[:, None], self.two(self.items(candidates)), dim=-1) / 0.07


class SASRec(nn.Module):
    """Causal attention over a history, scored against all items, Kang and McAuley 2018."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.places = nn.Embedding(ITEMS, WIDTH, padding_idx=0), nn.Embedding(HISTORY, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.one, self.two = nn.Conv1d(WIDTH, WIDTH, 1), nn.Conv1d(WIDTH, WIDTH, 1)

    def forward(self, history: Tensor) -> Tensor:
        seen = (history != 0)[..., None]
        h = (self.items(history) * WIDTH**0.5 + self.places(torch.arange(HISTORY))) * seen
        causal = torch.ones(HISTORY, HISTORY, dtype=torch.bool).triu(1)
        h = self.norms[0](h)
        h = h + self.attention(self.norms[1](h), h, h, attn_mask=causal, need_weights=False)[0]
        h = h + self.two(self.one(h.transpose(1, 2)).relu()).transpose(1, 2)
        return self.norms[2](h * seen)[:, -1] @ self.items.weight.T


class GRU4Rec(nn.Module):
    """A GRU over a session, Hidasi et al. 2016."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.gru = nn.Embedding(ITEMS, WIDTH), nn.GRU(WIDTH, WIDTH, 2, batch_first=True)
        self.head = nn.Linear(WIDTH, ITEMS)

    def forward(self, history: Tensor) -> Tensor:
        return self.head(self.gru(self.items(history))[0][:, -1]).tanh()


# ---- sounds and signals ----


def m5() -> nn.Module:
    """A convolutional network on the waveform, Dai et al. 2017."""

    def block(inputs: int, outputs: int, kernel: int, stride: int = 1) -> tuple[nn.Module, ...]:
        return (
            *(nn.Conv1d(inputs, outputs, kernel, stride), nn.BatchNorm1d(outputs), nn.ReLU()),
            nn.MaxPool1d(2),
        )

    return nn.Sequential(
        *(*block(1, 6, 40, 8), *block(6, 6, 3), *block(6, 10, 3)),
        *(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(10, CLASSES)),
    )


class LogMel(nn.Module):
    """A convolutional network on a log-mel spectrogram that it makes of the waveform."""

    def __init__(self, size: int = 64, bands: int = 12) -> None:
        super().__init__()
        self.size = size
        self.window = nn.Buffer(torch.hann_window(size))
        self.mel = nn.Buffer(torch.rand(bands, size // 2 + 1))
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES)),
        )

    def forward(self, wave: Tensor) -> Tensor:
        spectrum = torch.stft(wave, self.size, self.size // 2, window=self.window, return_complex=True)
        mel = (self.mel @ spectrum.abs().pow(2)).clamp(min=1e-10).log10()
        return self.body(mel.unsqueeze(1))


class XVector(nn.Module):
    """Dilated convolutions over time, then mean and deviation of them, Snyder et al. 2018."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = nn.Sequential(
            *(nn.Conv1d(NUMBERS, WIDTH, 5), nn.ReLU(), nn.BatchNorm1d(WIDTH)),
            *(nn.Conv1d(WIDTH, WIDTH, 3, dilation=2), nn.ReLU(), nn.BatchNorm1d(WIDTH)),
        )
        self.head = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES))

    def forward(self, features: Tensor) -> Tensor:
        h = self.frames(features.transpose(1, 2))
        return self.head(torch.cat([h.mean(2), h.std(2)], 1))


class ConvTasNet(nn.Module):
    """Masks on learned bases, by dilated separable convolutions, Luo and Mesgarani 2019."""

    def __init__(self, sources: int = 2) -> None:
        super().__init__()
        self.sources = sources
        self.encoder = nn.Conv1d(1, WIDTH, 8, 4, bias=False)
        self.decoder = nn.ConvTranspose1d(WIDTH, 1, 8, 4, bias=False)
        self.norm = nn.GroupNorm(1, WIDTH, eps=1e-8)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(nn.Conv1d(WIDTH, 12, 1), nn.PReLU(), nn.GroupNorm(1, 12)),
                *(nn.Conv1d(12, 12, 3, padding=d, dilation=d, groups=12), nn.PReLU(), nn.GroupNorm(1, 12)),
                nn.Conv1d(12, WIDTH, 1),
            )
            for d in (1, 2)
        )
        self.masks = nn.Sequential(nn.PReLU(), nn.Conv1d(WIDTH, sources * WIDTH, 1), nn.Sigmoid())

    def forward(self, wave: Tensor) -> Tensor:
        encoded = self.encoder(wave).relu()
        h = self.norm(encoded)
        for block in self.blocks:
            h = h + block(h)
        masked = self.masks(h).unflatten(1, (self.sources, WIDTH)) * encoded[:, None]
        return self.decoder(masked.flatten(0, 1)).view(len(wave), self.sources, -1)


class Sleep(nn.Module):
    """Two scales of convolutions for each epoch, and an LSTM over the night, Supratak et al. 2017."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = (
            nn.Sequential(nn.Conv1d(1, 5, k, k // 4), nn.BatchNorm1d(5), nn.ReLU(), nn.AdaptiveMaxPool1d(3))
            for k in (8, 40)
        )
        self.lstm = nn.LSTM(30, WIDTH, batch_first=True, bidirectional=True)
        self.skip, self.head = nn.Linear(30, 2 * WIDTH), nn.Linear(2 * WIDTH, 5)

    def forward(self, epochs: Tensor) -> Tensor:
        x = epochs.flatten(0, 1)[:, None]
        h = torch.cat([self.fine(x).flatten(1), self.coarse(x).flatten(1)], 1).unflatten(0, epochs.shape[:2])
        return self.head(self.lstm(h)[0] + self.skip(h).relu())


class DeepSpeech(nn.Module):
    """Clipped layers and a recurrent one, with log-probabilities for CTC, Hannun et al. 2014."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(n, WIDTH) for n in (NUMBERS, WIDTH))
        self.rnn = nn.RNN(WIDTH, WIDTH, nonlinearity="relu", bidirectional=True)
        self.head = nn.Linear(WIDTH, CLASSES + 1)

    def forward(self, features: Tensor) -> Tensor:
        for layer in self.layers:
            features = layer(features).clamp(0, 20)
        states, _ = self.rnn(features.transpose(0, 1))
        one, other = states.chunk(2, -1)
        return self.head(one + other).transpose(0, 1).log_softmax(-1)


_SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}


def _of_hub(model: str, **settings: Any) -> nn.Module:
    import_torchvision()  # which transformers imports
    kind = getattr(import_module("transformers"), model)
    module: nn.Module = kind(kind.config_class(**settings))
    return module


class Wav2Vec2(nn.Module):
    """wav2vec 2.0 with letters as classes, Baevski et al. 2020."""

    def __init__(self) -> None:
        super().__init__()
        convolutions = {"conv_dim": (8, 8), "conv_kernel": (10, 3), "conv_stride": (5, 2)}
        positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
        self.model = _of_hub("Wav2Vec2ForCTC", vocab_size=6, **_SIZES, **convolutions, **positions)

    def forward(self, wave: Tensor) -> Tensor:
        logits: Tensor = self.model(wave).logits
        return logits


class AST(nn.Module):
    """A transformer on patches of a spectrogram, Gong et al. 2021."""

    def __init__(self) -> None:
        super().__init__()
        patches = {"patch_size": 8, "frequency_stride": 6, "time_stride": 6, "max_length": 24}
        self.model = _of_hub("ASTForAudioClassification", num_mel_bins=16, **patches, **_SIZES)

    def forward(self, spectrogram: Tensor) -> Tensor:
        logits: Tensor = self.model(spectrogram).logits
        return logits


# ---- what they take ----


def _numbers(*shape: int) -> Callable[[torch.Generator], Tensor]:
    return lambda g: torch.randn(SAMPLES, *shape, generator=g, dtype=torch.float64).clamp(-3, 3)


def _ids(high: int, *shape: int) -> Callable[[torch.Generator], Tensor]:
    return lambda g: torch.randint(1, high, (SAMPLES, *shape), generator=g)


def _categories(g: torch.Generator) -> Tensor:
    return torch.stack([torch.randint(n, (SAMPLES,), generator=g) for n in CARDINALITIES], 1)


@dataclass(frozen=True)
class Kind:
    """A network, what it takes, and what is explained.

    Args:
        network: makes it.
        inputs: make its arguments from a generator, by name.
        target: the score.
    """

    network: Callable[[], nn.Module]
    inputs: Mapping[str, Callable[[torch.Generator], Tensor]]
    target: Any = None

    def make(self) -> tuple[nn.Module, dict[str, Tensor]]:
        """The network in evaluation mode, in double precision, and its arguments."""
        torch.manual_seed(5)
        module: nn.Module = drawn(self.network())
        generator = torch.Generator().manual_seed(7)
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.get_buffer("running_mean").normal_(0, 0.2, generator=generator)
                part.get_buffer("running_var").uniform_(0.5, 2, generator=generator)
        return module, {name: draw(generator) for name, draw in self.inputs.items()}


_TABLE = {"numbers": _numbers(NUMBERS)}
_BOTH = {**_TABLE, "categories": _categories}
_PAIR = {"user": _ids(USERS), "item": _ids(ITEMS)}
_HISTORY = {"history": _ids(ITEMS, HISTORY)}

KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "mlp-embedded": Kind(Embedded, _BOTH),
        "mlp-one-hot": Kind(OneHot, _BOTH),
        "table-resnet": Kind(TableResNet, _TABLE),
        "ft-transformer": Kind(FTTransformer, _BOTH),
        "tab-transformer": Kind(TabTransformer, _BOTH),
        "tabnet": Kind(TabNet, _TABLE, Part(0)),
        "oblivious-trees": Kind(ObliviousTrees, _TABLE),
        "dcn-v2": Kind(DCN, _BOTH),
        "factorisation": Kind(Factors, _PAIR),
        "neumf": Kind(NeuMF, _PAIR),
        "deepfm": Kind(DeepFM, {"fields": _ids(500, 2)}),
        "dlrm": Kind(DLRM, _BOTH),
        "wide-deep": Kind(WideDeep, _BOTH),
        "din": Kind(DIN, {"item": _ids(ITEMS), **_HISTORY}),
        "two-towers": Kind(Towers, {"user": _ids(USERS), **_HISTORY, "candidates": _ids(ITEMS, 4)}),
        "sasrec": Kind(SASRec, _HISTORY),
        "gru4rec": Kind(GRU4Rec, _HISTORY),
        "m5": Kind(m5, {"input": _numbers(1, 600)}),
        "log-mel": Kind(LogMel, {"wave": _numbers(512)}),
        "x-vector": Kind(XVector, {"features": _numbers(20, NUMBERS)}),
        "conv-tasnet": Kind(ConvTasNet, {"wave": _numbers(1, 120)}, lambda y: y[:, 0, 20:40].sum(1)),
        "sleep": Kind(Sleep, {"epochs": _numbers(4, 120)}, At(2)),
        "deep-speech": Kind(DeepSpeech, {"features": _numbers(9, NUMBERS)}, At(4, Difference(3, 0))),
        "wav2vec2-ctc": Kind(Wav2Vec2, {"wave": _numbers(150)}, At(3, Difference(3, 0))),
        "ast": Kind(AST, {"spectrogram": _numbers(24, 16)}),
    }
)
"""By name."""
