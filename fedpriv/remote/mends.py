"""What to write in place of an operation that no worker runs."""

from __future__ import annotations

from fedpriv.errors import OperationNotAllowed, nearest
from fedpriv.plans.operations import denied, table

_FLAGS = "keep the shape: torch.where(flags, x, 0), x.masked_fill(~flags, 0), or a sum over flags"
_COUNTS = "count with flags: (x.unsqueeze(-1) == torch.arange(bins)).sum(0)"
_MATRIX = "use matrix products in its place; on a matrix of your own, get() it, compute it here, and send() the result"
_BY_REASON = {
    "output shape depends on values": _FLAGS,
    "fails on values": _MATRIX,
    "is not reviewed: a LAPACK kernel": _MATRIX,
    "takes as long as a value says": "express it with operations that take as long whatever the values are; on values "
    "of your own, get() them, compute it here, and send() the result",
    "reads or writes outside its tensor": "use slices, view(), index_select(), gather() or scatter()",
}
_BY_NAME = {
    "bernoulli": "compare: torch.rand_like(p) < p",
    "bincount": _COUNTS,
    "histc": _COUNTS,
    "histogram": _COUNTS,
    "_histogramdd_bin_edges": _COUNTS,
    "_histogramdd_from_bin_tensors": _COUNTS,
    "median": "quantile(0.5) does nearly the same",
    "nanmedian": "nanquantile(0.5) does nearly the same",
    "index": _FLAGS,
    "kthvalue": "sort() and take one place of it",
    "mode": "sort() and compare neighbours",
    "multinomial": "compare cumulative sums: (torch.rand_like(p[..., :1]) > p.cumsum(-1)).sum(-1)",
    "poisson": "draw it here, where you may know the rates, and send() it",
    "binomial": "draw it here, where you may know the counts, and send() it",
    "_embedding_bag": "F.embedding(x, weight).sum(1), or mean(1)",
    "_embedding_bag_forward_only": "F.embedding(x, weight).sum(1), or mean(1)",
    "repeat_interleave": "give the number of repeats as an int",
    "_pdist_forward": "torch.cdist(x, x)",
}


def mend(name: str) -> str:
    """Return what to write in place of the operation `name`."""
    _, packet, *_ = name.split(".") if name.count(".") else ("", name)
    return _BY_NAME.get(packet) or _BY_REASON.get(denied().get(name, ""), "express it with other operations")


def not_allowed(name: str) -> OperationNotAllowed:
    """Return the error for an operation that no worker runs: why, and the nearest that one runs or what to write."""
    reason = denied().get(name)
    why = f": {reason}" if reason else nearest(name, table())
    return OperationNotAllowed(f"no worker runs {short(name)} ({name}){why}; {mend(name)}", operation=name)


def short(name: str) -> str:
    """Return the part of an operation's name that people know: "mm" of "aten.mm.default"."""
    return name.split(".")[1] if name.count(".") > 1 else name
