"""The N-pairs loss as in the paper: with dot products and an L2 term."""

import torch
from pytorch_metric_learning.distances import DotProductSimilarity
from pytorch_metric_learning.regularizers import LpRegularizer

from pml_symm import SymmNPairsLoss

torch.manual_seed(0)
model = torch.nn.Linear(32, 16)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
loss_func = SymmNPairsLoss(
    distance=DotProductSimilarity(normalize_embeddings=False),
    embedding_regularizer=LpRegularizer(p=2, power=2),
    embedding_reg_weight=0.001,
)

centres = 2 * torch.randn(16, 32)  # stands in for your dataset
labels = torch.arange(16).repeat(2)  # two samples of each class
for step in range(50):
    embeddings = model(centres[labels] + torch.randn(32, 32))
    loss = loss_func(embeddings, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 0:
        print(f"step {step}: {loss.item():.3f}")
