"""The smallest change: your PML loss, with SymmMiner's negatives."""

import torch
from pytorch_metric_learning.losses import MultiSimilarityLoss

from pml_symm import SymmMiner

torch.manual_seed(0)
model = torch.nn.Linear(32, 16)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
loss_func, miner = MultiSimilarityLoss(), SymmMiner()

centres = 2 * torch.randn(16, 32)  # stands in for your dataset
labels = torch.arange(16).repeat(2)  # two samples of each class
for step in range(50):
    embeddings = model(centres[labels] + torch.randn(32, 32))
    loss = loss_func(embeddings, labels, miner(embeddings, labels))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 0:
        print(f"step {step}: {loss.item():.3f}")
