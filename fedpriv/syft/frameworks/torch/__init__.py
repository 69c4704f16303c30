"""What programs of 0.2 import for torch: `from fedpriv.syft.frameworks.torch.fl import utils`."""
