"""A second implementation of docs/mathematics.md, in plain loops over points.

It is independent of pml_symm. Vectors are rows of float64 tensors, so that gradients can
be compared too; classes are Python dictionaries, points are Python tuples, and every
maximum is found by sorting a list.
"""

import math
from dataclasses import dataclass
from itertools import combinations, product

import torch


@dataclass
class Point:
    vector: torch.Tensor
    original: int  # itself, or the axis of a synthetic point
    synthetic: bool
    position: int  # in the pool


def mirror(source, axis, alpha=2.0, beta=1.0):
    dot = sum(axis[d] * source[d] for d in range(len(axis)))
    norm = sum(axis[d] * axis[d] for d in range(len(axis)))
    projection = axis * 0 if norm == 0 else dot / norm * axis
    return beta * (alpha * projection - source)


def normalized(x, on):
    return x / x.norm() if on else x


@dataclass
class Metric:
    """How points are compared: "dot", "euclidean" or "snr", which is not symmetric."""

    kind: str
    normalize: bool

    def value(self, x, y):
        x, y = normalized(x, self.normalize), normalized(y, self.normalize)
        if self.kind == "snr":
            return (x - y).var() / x.var()
        return (x * y).sum() if self.kind == "dot" else (x - y).norm()

    def similarity(self, x, y):
        return self.value(x, y) if self.kind == "dot" else -self.value(x, y)


def ordered_pairs(members, pairing):
    if pairing == "all":
        return [(k, m) for k in members for m in members if k != m]
    if pairing == "none" or len(members) == 1:
        return []
    return [(k, members[(i + 1) % len(members)]) for i, k in enumerate(members)]


def class_points(embeddings, labels, alpha=2.0, beta=1.0, pairing="all"):
    """label -> points of the class, originals and synthetic, and the pool's order."""
    labels = labels.tolist()
    members = {c: [i for i, x in enumerate(labels) if x == c] for c in labels}
    pairs = sorted(p for c in members for p in ordered_pairs(members[c], pairing))
    points = {c: [Point(embeddings[i], i, False, i) for i in members[c]] for c in members}
    for position, (source, axis) in enumerate(pairs, start=len(labels)):
        vector = mirror(embeddings[source], embeddings[axis], alpha, beta)
        points[labels[source]].append(Point(vector, axis, True, position))
    return points


@dataclass
class Candidate:
    similarity: torch.Tensor
    row_synthetic: bool
    column_synthetic: bool
    value: torch.Tensor | None = None
    column: Point | None = None


def choose(candidates, hardness, positive_similarity):
    """The candidate that hardness selects, or None.

    A rule is a function of a candidate's similarity, of which ends are synthetic, and of
    the similarity of the positive pair; it returns a priority.
    """
    ranked = sorted(candidates, key=lambda c: -c.similarity.item())
    if callable(hardness):
        positive = positive_similarity.item()
        priorities = [
            hardness(c.similarity.item(), c.row_synthetic, c.column_synthetic, positive)
            for c in ranked
        ]
        if not priorities or max(priorities) == -math.inf:
            return None
        return ranked[priorities.index(max(priorities))]
    if hardness == "semihard":
        ranked = [c for c in ranked if c.similarity < positive_similarity]
        return ranked[0] if ranked else None
    k = 1 if hardness == "hardest" else hardness
    return ranked[min(k, len(ranked)) - 1]


def candidates_of(metric, z_u, z_v):
    found = []
    for x, y in product(z_u, z_v):
        value = metric.value(x.vector, y.vector)
        similarity = value if metric.kind == "dot" else -value
        found.append(Candidate(similarity, x.synthetic, y.synthetic, value, y))
    return found


def positive_pairs(labels, ref_labels, same):
    return [
        (i, j)
        for i in range(len(labels))
        for j in range(len(ref_labels))
        if labels[i] == ref_labels[j] and not (same and i == j)
    ]


def reference(embeddings, labels, ref_emb, ref_labels):
    if ref_emb is None:
        return embeddings, labels, True
    return ref_emb, ref_labels, False


def n_pairs(
    embeddings,
    labels,
    metric,
    hardness="hardest",
    alpha=2.0,
    beta=1.0,
    synthesize=True,
):
    classes = sorted(set(labels.tolist()))
    pairs = {}
    for c in classes:
        members = [i for i, x in enumerate(labels.tolist()) if x == c]
        if len(members) > 1:
            pairs[c] = members[0], members[1]
    points = {}
    for c, (a, p) in pairs.items():
        a, p = embeddings[a], embeddings[p]
        four = [a, p]
        if synthesize:
            four += [mirror(a, p, alpha, beta), mirror(p, a, alpha, beta)]
        points[c] = [Point(x, -1, i > 1, -1) for i, x in enumerate(four)]
    losses = []
    for u, (a, p) in pairs.items():
        positive = metric.similarity(embeddings[a], embeddings[p])
        total = torch.ones((), dtype=embeddings.dtype)
        for v in pairs:
            if v == u:
                continue
            candidates = candidates_of(metric, points[u], points[v])
            chosen = choose(candidates, hardness, positive)
            if chosen is not None:
                total = total + torch.exp(chosen.similarity - positive)
        losses.append(torch.log(total))
    return sum(losses) / len(losses)


def terms(embeddings, labels, metric, hardness, ref_emb, ref_labels, pairs, synthesis):
    """For every positive pair: its value, and the values H(u, v) that it competes with."""
    ref_emb, ref_labels, same = reference(embeddings, labels, ref_emb, ref_labels)
    points = class_points(ref_emb, ref_labels, **synthesis)
    if pairs is None:
        pairs = positive_pairs(labels, ref_labels, same)
    candidates = {
        (u, v): candidates_of(metric, points[u], points[v])
        for u, v in product({ref_labels[j].item() for _, j in pairs}, points)
        if u != v
    }
    for i, j in pairs:
        u = ref_labels[j].item()
        positive = metric.similarity(embeddings[i], ref_emb[j])
        chosen = [choose(candidates[u, v], hardness, positive) for v in points if v != u]
        values = [candidate.value for candidate in chosen if candidate is not None]
        yield metric.value(embeddings[i], ref_emb[j]), values


def triplet(
    embeddings,
    labels,
    metric,
    hardness="hardest",
    margin=0.05,
    ref_emb=None,
    ref_labels=None,
    pairs=None,
    **synthesis,
):
    sign = -1 if metric.kind == "dot" else 1
    found = []
    for positive, values in terms(
        embeddings, labels, metric, hardness, ref_emb, ref_labels, pairs, synthesis
    ):
        found += [sign * (positive - value) + margin for value in values]
    found = [x for x in found if x > 0]
    return sum(found) / len(found) if found else (embeddings * 0).sum()


def lifted(
    embeddings,
    labels,
    metric,
    hardness="hardest",
    neg_margin=1.0,
    pos_margin=0.0,
    ref_emb=None,
    ref_labels=None,
    pairs=None,
    **synthesis,
):
    sign = -1 if metric.kind == "dot" else 1
    losses = []
    for positive, values in terms(
        embeddings, labels, metric, hardness, ref_emb, ref_labels, pairs, synthesis
    ):
        if not values:
            losses.append((embeddings * 0).sum())
            continue
        total = sum(torch.exp(sign * (neg_margin - value)) for value in values)
        j = torch.log(total) + sign * (positive - pos_margin)
        losses.append(j.clamp(min=0) ** 2 / 2)
    return sum(losses) / len(losses)


def angular(
    embeddings,
    labels,
    metric,
    hardness="hardest",
    degrees=40.0,
    ref_emb=None,
    ref_labels=None,
    pairs=None,
    **synthesis,
):
    ref_emb, ref_labels, same = reference(embeddings, labels, ref_emb, ref_labels)
    points = class_points(ref_emb, ref_labels, **synthesis)
    ratios = {k: v for k, v in synthesis.items() if k != "pairing"}
    t = math.tan(math.radians(degrees)) ** 2
    losses = []
    for points_of_class in points.values():
        for point in points_of_class:
            point.vector = normalized(point.vector, metric.normalize)
    for i, j in pairs or positive_pairs(labels, ref_labels, same):
        a, p = embeddings[i], ref_emb[j]
        four = [a, p]
        if synthesis.get("pairing") != "none":
            four += [mirror(a, p, **ratios), mirror(p, a, **ratios)]
        four = [normalized(x, metric.normalize) for x in four]
        positive = 2 * (1 + t) * (four[0] * four[1]).sum()
        twos = [(four[k] + four[m], m > 1) for k, m in combinations(range(len(four)), 2)]
        total = torch.ones((), dtype=embeddings.dtype)
        for v in points:
            if v == ref_labels[j].item():
                continue
            candidates = [
                Candidate(4 * t * (two * z.vector).sum(), synthetic, z.synthetic)
                for two, synthetic in twos
                for z in points[v]
            ]
            chosen = choose(candidates, hardness, positive)
            if chosen is not None:
                total = total + torch.exp(chosen.similarity - positive)
        losses.append(torch.log(total))
    return sum(losses) / len(losses)


def mine(
    embeddings,
    labels,
    metric,
    hardness="hardest",
    space="batch",
    ref_emb=None,
    ref_labels=None,
    **synthesis,
):
    """The pairs as sets, positives and negatives; or triplets, for semihard and rules."""
    ref_emb, ref_labels, same = reference(embeddings, labels, ref_emb, ref_labels)
    points = class_points(ref_emb, ref_labels, **synthesis)
    positives = positive_pairs(labels, ref_labels, same)

    queries = [Point(x, i, False, i) for i, x in enumerate(embeddings)]
    candidates = {
        (i, v): candidates_of(metric, [queries[i]], points[v])
        for i, v in product(range(len(labels)), points)
    }

    def winner(i, v, positive):
        chosen = choose(candidates[i, v], hardness, positive)
        if chosen is None:
            return None
        return chosen.column.position if space == "pool" else chosen.column.original

    if hardness == "semihard" or callable(hardness):
        triplets = set()
        for i, j in positives:
            positive = metric.similarity(embeddings[i], ref_emb[j])
            for v in points:
                if v != labels[i].item():
                    n = winner(i, v, positive)
                    if n is not None:
                        triplets.add((i, j, n))
        return triplets
    negatives = {
        (i, winner(i, v, None))
        for i in range(len(labels))
        for v in points
        if v != labels[i].item()
    }
    return set(positives), negatives


def contrastive_on_pool(embeddings, labels, metric, neg_margin, **synthesis):
    """SymmLoss(ContrastiveLoss(...)) with its AvgNonZeroReducer, from the geometry."""
    sign = -1 if metric.kind == "dot" else 1
    points = class_points(embeddings, labels, **synthesis)
    attraction, repulsion = [], []
    for i, j in positive_pairs(labels, labels, True):
        pos_margin = 1.0 if metric.kind == "dot" else 0.0
        value = metric.value(embeddings[i], embeddings[j])
        attraction.append(sign * (value - pos_margin))
    for i in range(len(labels)):
        for v in points:
            if v == labels[i].item():
                continue
            query = Point(embeddings[i], i, False, i)
            candidates = candidates_of(metric, [query], points[v])
            similarity = choose(candidates, "hardest", None).similarity
            value = similarity if metric.kind == "dot" else -similarity
            repulsion.append(sign * (neg_margin - value))
    total = 0
    for group in (attraction, repulsion):
        group = [x for x in group if x > 0]
        total = total + (sum(group) / len(group) if group else (embeddings * 0).sum())
    return total
