"""Attention and transformers through pointers give what local torch gives, trained and evaluated."""

from __future__ import annotations

import copy

import pytest
import torch
from sites import Site
from torch import Tensor, nn

import fedpriv as fp

CAUSAL = nn.Transformer.generate_square_subsequent_mask(5)
PADDED = torch.tensor([[False] * 5, [False] * 3 + [True] * 2, [False] * 4 + [True]])


def here(value: Tensor) -> Tensor:
    return value.get() if isinstance(value, fp.RemoteTensor) else value


def both(site: Site, module: nn.Module, inputs: tuple[Tensor, ...], **options: Tensor) -> None:
    """Compare a module and its gradients here and there, then evaluated."""
    there = fp.send_module(copy.deepcopy(module), site.pointed)
    sent = tuple(site.pointed.send(each) for each in inputs)
    ours, theirs = module(*inputs, **options), there(*sent, **options)
    ours, theirs = (each[0] if isinstance(each, tuple) else each for each in (ours, theirs))
    assert torch.allclose(theirs.get(), ours, atol=1e-5)
    ours.pow(2).sum().backward()
    theirs.pow(2).sum().backward()
    for (name, one), (_, other) in zip(module.named_parameters(), there.named_parameters(), strict=True):
        assert torch.allclose(other.grad.get(), one.grad, atol=1e-4, rtol=1e-4), name
    module.eval()
    there.eval()
    with torch.no_grad():
        ours, theirs = module(*inputs, **options), there(*sent, **options)
    for one, other in zip(*(each if isinstance(each, tuple) else (each,) for each in (ours, theirs)), strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.allclose(here(other), one, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"src_mask": CAUSAL}, {"src_key_padding_mask": PADDED}], ids=["", "c", "p"])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_layer_of_an_encoder(site: Site, options: dict[str, Tensor], activation: str, *, norm_first: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        8, 2, 16, dropout=0.0, activation=activation, batch_first=True, norm_first=norm_first
    )
    both(site, layer, (torch.randn(3, 5, 8),), **options)


@pytest.mark.parametrize("need_weights", [False, True])
def test_attention_of_several_heads(site: Site, *, need_weights: bool) -> None:
    torch.manual_seed(0)
    places = torch.randn(3, 5, 8)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    both(site, attention, (places, places, places), need_weights=need_weights)


def test_a_whole_transformer(site: Site) -> None:
    torch.manual_seed(0)
    both(
        site,
        nn.Transformer(8, 2, 1, 1, 16, dropout=0.0, batch_first=True),
        (torch.randn(3, 5, 8), torch.randn(3, 4, 8)),
    )


@pytest.mark.parametrize("heads", [4, 2])
def test_scaled_dot_products_with_as_many_heads_or_fewer_keys(site: Site, heads: int) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(2, count, 5, 8, requires_grad=True) for count in (4, heads, heads)]
    sent = [site.pointed.send(each) for each in inputs]
    for each, options in (inputs, {}), (sent, {}):
        attended = nn.functional.scaled_dot_product_attention(
            *each, is_causal=True, scale=0.3, enable_gqa=heads != 4, **options
        )
        attended.pow(2).sum().backward()
    for one, other in zip(inputs, sent, strict=True):
        assert torch.allclose(other.grad.get(), one.grad, atol=1e-4)


def test_a_transformer_that_learns_with_dropout(site: Site) -> None:
    torch.manual_seed(0)
    layer = fp.send_module(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True), site.pointed)
    places = site.pointed.send(torch.randn(3, 5, 8))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (layer(places) - places.roll(1, 1)).pow(2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.get().item())
    assert losses[-1] < losses[0]
