import unittest

import torch

from pytorch_metric_learning.utils.symm import SymmSynthesizer

from .. import TEST_DEVICE, TEST_DTYPES


class TestSymmSynthesizer(unittest.TestCase):
    def test_mirror_images_keep_norm_and_similarity_to_the_axis(self):
        for dtype in TEST_DTYPES:
            tolerance = 1e-9 if dtype == torch.float64 else 1e-5
            if dtype == torch.float16:
                tolerance = 1e-2
            torch.manual_seed(0)
            embeddings = torch.randn(6, 8, dtype=torch.float64)
            embeddings = embeddings.to(TEST_DEVICE).type(dtype)
            pool = SymmSynthesizer()(embeddings, torch.arange(2).repeat(3))
            self.assertEqual(len(pool.synthetic), 2 * 3 * 2)
            source, axis = embeddings[pool.source], embeddings[pool.axis]
            for of_image, of_source in (
                (pool.synthetic.norm(dim=1), source.norm(dim=1)),
                ((pool.synthetic * axis).sum(1), (source * axis).sum(1)),
            ):
                self.assertTrue(
                    torch.allclose(of_image, of_source, rtol=tolerance, atol=tolerance)
                )

    def test_ring(self):
        for dtype in TEST_DTYPES:
            embeddings = torch.randn(5, 4, device=TEST_DEVICE).type(dtype)
            pool = SymmSynthesizer(pairing="ring")(
                embeddings, torch.LongTensor([0, 0, 0, 1, 2])
            )
            self.assertEqual(pool.source.tolist(), [0, 1, 2])
            self.assertEqual(pool.axis.tolist(), [1, 2, 0])
