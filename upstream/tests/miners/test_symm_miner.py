import unittest
from itertools import permutations

import torch

from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import SymmMiner

from .. import TEST_DEVICE, TEST_DTYPES


def reflect(source, axis):
    return 2 * (source @ axis) / (axis @ axis) * axis - source


class TestSymmMiner(unittest.TestCase):
    def batch(self, dtype):
        torch.manual_seed(0)
        embeddings = torch.randn(12, 6, dtype=torch.float64).to(TEST_DEVICE).type(dtype)
        labels = torch.LongTensor([0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 4, 4])
        return embeddings, labels

    def hardest(self, embeddings, labels, distance):
        """(row, axis of the hardest point) for every row and other class."""
        found = set()
        for i, query in enumerate(embeddings):
            for v in set(labels.tolist()) - {labels[i].item()}:
                rows = torch.where(labels == v)[0].tolist()
                points = [(embeddings[x], x) for x in rows]
                points += [
                    (reflect(embeddings[x], embeddings[y]), y)
                    for x, y in permutations(rows, 2)
                ]
                values = [distance(query[None], x[None]).item() for x, _ in points]
                best = max(values) if distance.is_inverted else min(values)
                found.add((i, points[values.index(best)][1]))
        return found

    def test_against_plain_loops(self):
        for dtype in TEST_DTYPES:
            if dtype == torch.float16:
                continue
            for distance in (LpDistance(), CosineSimilarity()):
                embeddings, labels = self.batch(dtype)
                a1, p, a2, n = SymmMiner(distance=distance)(embeddings, labels)
                expected = self.hardest(embeddings.double(), labels, distance)
                self.assertEqual(set(zip(a2.tolist(), n.tolist())), expected)
                self.assertEqual(len(a2), len(expected))
                labels = labels.to(TEST_DEVICE)
                self.assertTrue((labels[a1] == labels[p]).all())
                self.assertTrue((a1 != p).all())

    def test_semihard(self):
        for dtype in TEST_DTYPES:
            embeddings, labels = self.batch(dtype)
            a, p, n = SymmMiner("semihard", index_space="pool")(embeddings, labels)
            labels = labels.to(TEST_DEVICE)
            self.assertTrue((labels[a] == labels[p]).all())
            self.assertTrue((n < 12 + 6 + 12 + 2 + 2).all())

    def test_feeds_a_loss(self):
        for dtype in TEST_DTYPES:
            embeddings, labels = self.batch(dtype)
            embeddings.requires_grad_()
            loss = TripletMarginLoss()(
                embeddings, labels, SymmMiner()(embeddings, labels)
            )
            loss.backward()
            self.assertTrue(embeddings.grad.any())

    def test_nothing_to_mine(self):
        for dtype in TEST_DTYPES:
            for labels in ([], [1]):
                embeddings = torch.randn(len(labels), 4, device=TEST_DEVICE).type(dtype)
                mined = SymmMiner()(embeddings, torch.LongTensor(labels))
                self.assertEqual([len(x) for x in mined], [0, 0, 0, 0])

    def test_bad_arguments(self):
        with self.assertRaisesRegex(ValueError, "hardness must be"):
            SymmMiner("hard")
        with self.assertRaisesRegex(ValueError, "index_space must be"):
            SymmMiner(index_space="ref")
