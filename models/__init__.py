"""The papers, and only the papers: networks, geometry, losses, weights, animation of tensors."""
