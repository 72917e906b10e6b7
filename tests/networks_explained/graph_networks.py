"""Networks for graphs, small and with random weights, each with several spellings of its sums over edges.

Messages are added by an index, or by an adjacency matrix that is sparse or dense.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from small_transformers import drawn

FEATURES, OF_EDGES, WIDTH, CLASSES = 5, 2, 8, 3

SUMS = ("index_add", "scatter_add", "scatter_reduce", "index_put", "segment_reduce", "sparse", "dense")
"""How messages are added. All but the last two have the messages of edges as rows."""


def added(spelling: str, messages: Tensor, target: Tensor, nodes: int) -> Tensor:
    """Add messages (edges, ...) to the nodes where the edges end."""
    zeros = messages.new_zeros(nodes, *messages.shape[1:])
    rows = target.view(-1, *[1] * (messages.dim() - 1)).expand_as(messages)
    if spelling == "scatter_add":
        return zeros.scatter_add_(0, rows, messages)
    if spelling == "scatter_reduce":
        return zeros.scatter_reduce(0, rows, messages, "sum")
    if spelling == "index_put":
        return zeros.index_put((target,), messages, accumulate=True)
    if spelling == "segment_reduce":
        order, counts = target.argsort(stable=True), torch.bincount(target, minlength=nodes)
        return torch.segment_reduce(messages[order], "sum", lengths=counts)
    return zeros.index_add_(0, target, messages)


def spread(spelling: str, weights: Tensor, edges: Tensor, h: Tensor) -> Tensor:
    """Σ over edges of weight · h[source], (nodes, features), with weights that are constants."""
    source, target = edges
    nodes = len(h)
    if spelling == "sparse":
        places = torch.stack([target, source])
        return torch.sparse.mm(
            torch.sparse_coo_tensor(places, weights, (nodes, nodes), check_invariants=False), h
        )
    if spelling == "dense":
        return h.new_zeros(nodes, nodes).index_put((target, source), weights, accumulate=True) @ h
    return added(spelling, weights[:, None] * h[source], target, nodes)


def adjacency(edges: Tensor, nodes: int) -> Tensor:
    """Whether there is an edge to a node (row) from another one (column)."""
    there = torch.zeros(nodes, nodes, dtype=torch.bool)
    there[edges[1], edges[0]] = True
    return there


def softmax_of_edges(scores: Tensor, target: Tensor, nodes: int) -> Tensor:
    """The softmax of scores (edges, heads) over the edges that end in the same node."""
    rows = target[:, None].expand_as(scores)
    largest = scores.new_full((nodes, scores.shape[1]), -torch.inf).scatter_reduce(0, rows, scores, "amax")
    raised = (scores - largest[target]).exp()
    total = torch.zeros_like(largest).scatter_add_(0, rows, raised) + 1e-16
    return raised / total.index_select(0, target)


class Graphs(nn.Module):
    """Two layers, each followed by ReLU, and the mean of each graph's nodes."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        self.spelling = spelling
        self.head = nn.Linear(WIDTH, CLASSES)
        self.layers = nn.ModuleList(self.layer(inputs) for inputs in (FEATURES, WIDTH))

    def layer(self, inputs: int) -> nn.Module:
        raise NotImplementedError

    def messages(self, layer: nn.Module, h: Tensor, edges: Tensor, edge_attr: Tensor) -> Tensor:
        raise NotImplementedError

    def pooled(self, h: Tensor, batch: Tensor) -> Tensor:
        graphs = int(batch.max()) + 1
        count = torch.bincount(batch, minlength=graphs)
        return h.new_zeros(graphs, WIDTH).index_add(0, batch, h) / count[:, None]

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.dropout(self.messages(layer, x, edge_index, edge_attr).relu(), training=self.training)
        return self.head(self.pooled(x, batch))


class GCN(Graphs):
    """Kipf and Welling 2017: D^(-1/2) (A + 1) D^(-1/2) X W."""

    def layer(self, inputs: int) -> nn.Module:
        return nn.Linear(inputs, WIDTH)

    def messages(self, layer: nn.Module, h: Tensor, edges: Tensor, edge_attr: Tensor) -> Tensor:
        loops = torch.arange(len(h)).expand(2, -1)
        edges = torch.cat([edges, loops], 1)
        degree = h.new_zeros(len(h)).index_add_(0, edges[1], h.new_ones(edges.shape[1]))
        root = degree.pow_(-0.5)
        root.masked_fill_(root == torch.inf, 0)
        return spread(self.spelling, root[edges[0]] * root[edges[1]], edges, layer(h))


class SAGE(Graphs):
    """GraphSAGE with the mean of neighbours, Hamilton et al. 2017, normalised to length one."""

    def layer(self, inputs: int) -> nn.Module:
        return nn.ModuleList([nn.Linear(inputs, WIDTH), nn.Linear(inputs, WIDTH, bias=False)])

    def messages(self, layer: nn.Module, h: Tensor, edges: Tensor, edge_attr: Tensor) -> Tensor:
        degree = torch.bincount(edges[1], minlength=len(h)).clamp(min=1)
        mean = spread(self.spelling, h.new_ones(edges.shape[1]), edges, h) / degree[:, None]
        return F.normalize(layer[0](mean) + layer[1](h), dim=-1)


class MaxSAGE(SAGE):
    """GraphSAGE with the maximum over neighbours, each behind a layer of its own."""

    def layer(self, inputs: int) -> nn.Module:
        return nn.ModuleList(nn.Linear(n, WIDTH) for n in (WIDTH, inputs, inputs))

    def messages(self, layer: nn.Module, h: Tensor, edges: Tensor, edge_attr: Tensor) -> Tensor:
        pooled = layer[2](h).relu()
        if self.spelling == "dense":
            there = adjacency(edges, len(h))[:, :, None]
            largest = pooled[None].masked_fill(~there, -torch.inf).amax(1)
            largest = torch.where(there.any(1), largest, 0)
        else:
            rows = edges[1][:, None].expand(-1, WIDTH)
            largest = torch.zeros_like(pooled).scatter_reduce(
                0, rows, pooled[edges[0]], "amax", include_self=False
            )
        return layer[0](largest) + layer[1](h)


class GIN(Graphs):
    """Xu et al. 2019: MLP((1 + ε) h + Σ neighbours)."""

    def layer(self, inputs: int) -> nn.Module:
        module = nn.Sequential(
            nn.Linear(inputs, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)
        )
        module.register_parameter("epsilon", nn.Parameter(torch.zeros(1)))
        return module

    def messages(self, layer: nn.Module, h: Tensor, edges: Tensor, edge_attr: Tensor) -> Tensor:
        neighbours = spread(self.spelling, h.new_ones(edges.shape[1]), edges, h)
        return layer((1 + layer.epsilon) * h + neighbours)


class GAT(Graphs):
    """Attention over neighbours with two heads, Veličković et al. 2018."""

    heads = 2

    def layer(self, inputs: int) -> nn.Module:
        module = nn.Linear(inputs, WIDTH, bias=False)
        for name in ("of_source", "of_target"):
            module.register_parameter(name, nn.Parameter(torch.randn(self.heads, WIDTH // self.heads)))
        return module

    def messages(self, layer: nn.Module, h: Tensor, edges: Tensor, edge_attr: Tensor) -> Tensor:
        nodes, (source, target) = len(h), torch.cat([edges, torch.arange(len(h)).expand(2, -1)], 1)
        values = layer(h).view(nodes, self.heads, -1)
        sent, received = ((values * a).sum(-1) for a in (layer.of_source, layer.of_target))
        if self.spelling == "dense":
            scores = F.leaky_relu(sent[None] + received[:, None], 0.2)
            there = adjacency(torch.stack([source, target]), nodes)
            weights = scores.masked_fill(~there[:, :, None], -torch.inf).softmax(1)
            return torch.einsum("ijh,jhd->ihd", weights, values).flatten(1)
        weights = softmax_of_edges(F.leaky_relu(sent[source] + received[target], 0.2), target, nodes)
        return added(self.spelling, weights[:, :, None] * values[source], target, nodes).flatten(1)


class GraphTransformer(Graphs):
    """Attention by queries and keys over neighbours, with layer norm and a skip, Dwivedi and Bresson 2021."""

    heads = 2

    def layer(self, inputs: int) -> nn.Module:
        shapes = {"q": inputs, "k": inputs, "v": inputs, "skip": inputs, "up": WIDTH}
        layers = {name: nn.Linear(n, WIDTH) for name, n in shapes.items()}
        return nn.ModuleDict({**layers, "one": nn.LayerNorm(WIDTH), "two": nn.LayerNorm(WIDTH)})

    def messages(self, layer: nn.Module, h: Tensor, edges: Tensor, edge_attr: Tensor) -> Tensor:
        nodes, (source, target) = len(h), edges
        q, k, v = (layer[name](h).view(nodes, self.heads, -1) for name in "qkv")
        if self.spelling == "dense":
            there = adjacency(edges, nodes)
            scores = torch.einsum("ihd,jhd->ijh", q, k) / q.shape[-1] ** 0.5
            scores = scores.masked_fill(~there[:, :, None], -torch.inf)
            weights = torch.where(there.any(1)[:, None, None], scores.softmax(1), 0)
            mixed = torch.einsum("ijh,jhd->ihd", weights, v).flatten(1)
        else:
            scores = (q[target] * k[source]).sum(-1) / q.shape[-1] ** 0.5
            weights = softmax_of_edges(scores, target, nodes)
            mixed = added(self.spelling, weights[:, :, None] * v[source], target, nodes).flatten(1)
        h = layer["one"](layer["skip"](h) + mixed)
        return layer["two"](h + layer["up"](h).relu())


class GatedGCN(Graphs):
    """Gates for edges, normalised over those of a node, Bresson and Laurent 2018."""

    def layer(self, inputs: int) -> nn.Module:
        shapes = {"a": inputs, "b": inputs, "c": OF_EDGES, "u": inputs, "v": inputs}
        return nn.ModuleDict({name: nn.Linear(n, WIDTH) for name, n in shapes.items()})

    def messages(self, layer: nn.Module, h: Tensor, edges: Tensor, edge_attr: Tensor) -> Tensor:
        source, target = edges
        gates = torch.sigmoid(layer["a"](h)[target] + layer["b"](h)[source] + layer["c"](edge_attr))
        total = added(self.spelling, gates, target, len(h))
        sent = added(self.spelling, gates * layer["v"](h)[source], target, len(h))
        return layer["u"](h) + sent / (total + 1e-6)


class Sets(Graphs):
    """Each node by itself, and attention over the nodes of a set, Ilse et al. 2018."""

    def __init__(self, spelling: str) -> None:
        super().__init__(spelling)
        self.hidden, self.score = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1)

    def layer(self, inputs: int) -> nn.Module:
        return nn.Linear(inputs, WIDTH)

    def messages(self, layer: nn.Module, h: Tensor, edges: Tensor, edge_attr: Tensor) -> Tensor:
        return layer(h)

    def pooled(self, h: Tensor, batch: Tensor) -> Tensor:
        scores, graphs = self.score(self.hidden(h).tanh()), int(batch.max()) + 1
        if self.spelling == "dense":
            of_set = batch[None] == torch.arange(graphs)[:, None]
            return scores.T.masked_fill(~of_set, -torch.inf).softmax(1) @ h
        return added(self.spelling, softmax_of_edges(scores, batch, graphs) * h, batch, graphs)


OF_ROWS = tuple(spelling for spelling in SUMS if spelling != "sparse")
"""The spellings of networks whose weights depend on the nodes."""

NETWORKS: Mapping[str, tuple[type[Graphs], tuple[str, ...]]] = MappingProxyType(
    {
        "gcn": (GCN, SUMS),
        "graphsage": (SAGE, SUMS),
        "graphsage-max": (MaxSAGE, ("index_add", "dense")),
        "gin": (GIN, SUMS),
        "gat": (GAT, OF_ROWS),
        "graph-transformer": (GraphTransformer, OF_ROWS),
        "gated-gcn": (GatedGCN, OF_ROWS[:-1]),
        "set-attention": (Sets, OF_ROWS),
    }
)
"""By name: the class, and the spellings that it has."""

Graph = dict[str, Tensor]


def made(name: str, spelling: str) -> Callable[..., Tensor]:
    """A network with the same weights in all spellings, in double precision."""
    torch.manual_seed(len(name))
    network: Callable[..., Tensor] = drawn(NETWORKS[name][0](spelling))
    return network


def graphs() -> list[Graph]:
    """Three graphs. In the first a node has no edge, in the last the edges go both ways."""
    generator = torch.Generator().manual_seed(3)
    found = []
    for nodes, pairs in ((4, [(0, 1), (1, 2), (2, 0), (0, 2)]), (2, [(0, 1), (1, 0)]), (5, None)):
        if pairs is None:
            line = [(i, i + 1) for i in range(nodes - 1)]
            pairs = [*line, *((b, a) for a, b in line), (0, 4)]
        found.append(
            {
                "x": torch.randn(nodes, FEATURES, generator=generator, dtype=torch.float64),
                "edge_index": torch.tensor(pairs).T.contiguous(),
                "edge_attr": torch.randn(len(pairs), OF_EDGES, generator=generator, dtype=torch.float64),
                "batch": torch.zeros(nodes, dtype=torch.int64),
            }
        )
    return found


def joined(parts: list[Graph]) -> Graph:
    """Several graphs as one that is not connected."""
    before, edges, batch = 0, [], []
    for number, part in enumerate(parts):
        edges.append(part["edge_index"] + before)
        batch.append(part["batch"] + number)
        before += len(part["x"])
    x, edge_attr = (torch.cat([part[name] for part in parts]) for name in ("x", "edge_attr"))
    return {"x": x, "edge_index": torch.cat(edges, 1), "edge_attr": edge_attr, "batch": torch.cat(batch)}
