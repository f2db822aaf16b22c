import math
import unittest
from itertools import permutations

import torch

from pytorch_metric_learning.distances import DotProductSimilarity, LpDistance
from pytorch_metric_learning.losses import (
    AngularLoss,
    ContrastiveLoss,
    MultiSimilarityLoss,
    NPairsLoss,
    SymmAngularLoss,
    SymmLiftedStructureLoss,
    SymmLoss,
    SymmNPairsLoss,
    SymmTripletMarginLoss,
    TripletMarginLoss,
)
from pytorch_metric_learning.miners import SymmMiner
from pytorch_metric_learning.reducers import MeanReducer
from pytorch_metric_learning.utils.symm import SymmSynthesizer

from .. import TEST_DEVICE, TEST_DTYPES

ALL_LOSSES = [
    SymmAngularLoss,
    SymmLiftedStructureLoss,
    SymmNPairsLoss,
    SymmTripletMarginLoss,
    lambda: SymmLoss(MultiSimilarityLoss()),
]


def reflect(source, axis):
    return 2 * (source @ axis) / (axis @ axis) * axis - source


def points_of_classes(embeddings, labels):
    """Class -> its points, originals and synthetic, by plain loops."""
    points = {}
    for label in labels.unique().tolist():
        members = list(embeddings[labels == label])
        images = [reflect(x, y) for x, y in permutations(members, 2)]
        points[label] = members + images
    return points


class TestSymmLosses(unittest.TestCase):
    def batch(self, dtype, num_classes=4):
        torch.manual_seed(0)
        embeddings = torch.randn(2 * num_classes, 8, dtype=torch.float64)
        embeddings = embeddings.to(TEST_DEVICE).type(dtype).requires_grad_()
        return embeddings, torch.arange(num_classes).repeat(2)

    def tolerance(self, dtype):
        return 1e-9 if dtype == torch.float64 else 1e-5

    def compare(self, loss_func, expected_of):
        for dtype in TEST_DTYPES:
            embeddings, labels = self.batch(dtype)
            loss = loss_func(embeddings, labels)
            loss.backward()
            exact = embeddings.detach().double()
            expected = expected_of(exact, labels.to(TEST_DEVICE))
            self.assertTrue(
                torch.isclose(loss.double(), expected, rtol=self.tolerance(dtype))
            )
            self.assertTrue(torch.isfinite(embeddings.grad).all())
            self.assertTrue(embeddings.grad.dtype == dtype)

    def test_n_pairs(self):
        def expected(embeddings, labels):
            points = points_of_classes(embeddings, labels)
            losses = []
            for u in points:
                a, p = points[u][:2]
                logits = [a @ p]
                for v in points:
                    if v != u:
                        logits.append(max(x @ y for x in points[u] for y in points[v]))
                losses.append(torch.logsumexp(torch.stack(logits), dim=0) - a @ p)
            return torch.stack(losses).mean()

        distance = DotProductSimilarity(normalize_embeddings=False)
        self.compare(SymmNPairsLoss(distance=distance), expected)

    def test_triplet_margin(self):
        def expected(embeddings, labels):
            embeddings = torch.nn.functional.normalize(embeddings)
            points = points_of_classes(embeddings, labels)
            losses = []
            for u in points:
                a, p = points[u][:2]
                for v in points:
                    if v != u:
                        hardest = min(
                            torch.dist(x, y) for x in points[u] for y in points[v]
                        )
                        losses.append(torch.relu(torch.dist(a, p) - hardest + 0.05))
            return torch.stack(losses).mean()

        self.compare(SymmTripletMarginLoss(reducer=MeanReducer()), expected)

    def test_lifted_structure(self):
        def expected(embeddings, labels):
            embeddings = torch.nn.functional.normalize(embeddings)
            points = points_of_classes(embeddings, labels)
            losses = []
            for u in points:
                a, p = points[u][:2]
                terms = [
                    1 - min(torch.dist(x, y) for x in points[u] for y in points[v])
                    for v in points
                    if v != u
                ]
                repulsion = torch.logsumexp(torch.stack(terms), dim=0)
                losses.append(torch.relu(repulsion + torch.dist(a, p)) ** 2 / 2)
            return torch.stack(losses).mean()

        self.compare(SymmLiftedStructureLoss(neg_margin=1, pos_margin=0), expected)

    def test_angular(self):
        def expected(embeddings, labels):
            embeddings = torch.nn.functional.normalize(embeddings)
            points = points_of_classes(embeddings, labels)
            squared_tangent = math.tan(math.radians(40)) ** 2
            losses = []
            for u in points:
                a, p = points[u][:2]
                positive = 2 * (1 + squared_tangent) * (a @ p)
                terms = [torch.zeros_like(positive)]
                for v in points:
                    if v != u:
                        hardest = max(
                            (x + y) @ z
                            for x, y in permutations(points[u], 2)
                            for z in points[v]
                        )
                        terms.append(4 * squared_tangent * hardest - positive)
                losses.append(torch.logsumexp(torch.stack(terms), dim=0))
            return torch.stack(losses).mean()

        self.compare(SymmAngularLoss(), expected)

    def test_wrapper(self):
        for dtype in TEST_DTYPES:
            embeddings, labels = self.batch(dtype)
            wrapped = ContrastiveLoss()
            pool = SymmSynthesizer()(embeddings, labels)
            indices = SymmMiner(index_space="pool", distance=wrapped.distance)(
                embeddings, labels
            )
            self.assertTrue((indices[3] >= len(embeddings)).any())
            expected = wrapped(embeddings, labels, indices, pool.embeddings, pool.labels)
            loss = SymmLoss(ContrastiveLoss())(embeddings, labels)
            self.assertTrue(torch.equal(loss, expected))

    def test_losses_that_cannot_be_wrapped(self):
        for loss_func, instead in (
            (NPairsLoss(), "SymmNPairsLoss"),
            (AngularLoss(), "SymmAngularLoss"),
            (SymmLoss(TripletMarginLoss()), "synthesizes by itself"),
        ):
            with self.assertRaisesRegex(TypeError, instead):
                SymmLoss(loss_func)

    def test_nothing_to_compare(self):
        for dtype in TEST_DTYPES:
            for make in ALL_LOSSES[:4]:
                for labels in ([], [3], [1, 1], [1, 2, 3]):
                    embeddings = torch.randn(len(labels), 4, device=TEST_DEVICE)
                    embeddings = embeddings.type(dtype).requires_grad_()
                    loss = make()(embeddings, torch.LongTensor(labels))
                    loss.backward()
                    self.assertEqual(loss.item(), 0)
                    self.assertFalse(embeddings.grad.any())

    def test_bad_input(self):
        labels = torch.LongTensor([0, 0, 1, 1])
        for make in ALL_LOSSES:
            with self.assertRaisesRegex(ValueError, "labels must"):
                make()(torch.randn(5, 3, device=TEST_DEVICE), labels)
            with self.assertRaisesRegex(TypeError, "must be floating"):
                make()(torch.ones(4, 3, dtype=torch.long, device=TEST_DEVICE), labels)

    def test_samples_per_class(self):
        for dtype in TEST_DTYPES:
            embeddings, labels = self.batch(dtype)
            for make in ALL_LOSSES[:4]:
                self.assertTrue(
                    torch.isclose(
                        make(samples_per_class=2)(embeddings, labels),
                        make()(embeddings, labels),
                        rtol=self.tolerance(dtype),
                    )
                )

    def test_distance_power(self):
        for dtype in TEST_DTYPES:
            embeddings, labels = self.batch(dtype)
            loss = SymmTripletMarginLoss(distance=LpDistance(power=2))
            value = loss(embeddings, labels)
            value.backward()
            self.assertTrue(torch.isfinite(embeddings.grad).all())
            self.assertNotEqual(
                value.item(), SymmTripletMarginLoss()(embeddings, labels).item()
            )
