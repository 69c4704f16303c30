"""Every operation gives what its inference foresaw: shape, dtype, and no gaps where none were foreseen."""

from __future__ import annotations

import pytest
import torch

from fedpriv.errors import PlanRefused
from fedpriv.plans.engine import Engine
from fedpriv.plans.lowering import lowered
from fedpriv.plans.operations import Operation, Parameter, table
from fedpriv.plans.plan import Dtype, Input, InputRole, Output, OutputRole, Plan, Slot, Step
from fedpriv.plans.validation import torch_minor, validate


class Shape(tuple):
    """A tensor argument of this shape, float32."""

    dtype = "float32"


class Whole(Shape):
    """A tensor argument of indices."""

    dtype = "int64"


class Complex(Shape):
    """A tensor argument of complex numbers."""

    dtype = "complex64"


class Flags(Shape):
    """A tensor argument of flags."""

    dtype = "bool"


SQUARE, ROW, ONE = Shape((4, 4)), Shape((4,)), Shape(())
IMAGE, CHANNELS, SMALL = Shape((2, 4, 6, 6)), Shape((4,)), Shape((2, 4, 3, 3))
INDEX = Whole((4, 4))
POOL = ((2, 2), (2, 2), (0, 0))
VOLUME, CUBE = Shape((2, 3, 4, 4, 4)), Shape((2, 3, 2, 2, 2))
POOL3 = ((2, 2, 2), (2, 2, 2), (0, 0, 0))
LINE, LONG, WIDE = Shape((2, 4, 6)), Shape((2, 4, 12)), Shape((2, 4, 12, 12))
TALL = Shape((2, 3, 8, 8, 8))
GRID, PLACES = Shape((2, 5, 5, 2)), Shape((2, 4, 5, 5))
NEAREST = ("upsample_nearest", "_upsample_nearest_exact")
LOSSES = ("mse_loss", "smooth_l1_loss", "huber_loss")
SAMPLES: dict[str, list] = {
    "_adaptive_avg_pool2d.default": [IMAGE, (3, 3)],
    "_adaptive_avg_pool2d_backward.default": [SMALL, IMAGE],
    "adaptive_max_pool2d.default": [IMAGE, (3, 3)],
    "adaptive_max_pool2d_backward.default": [SMALL, IMAGE, Whole(SMALL)],
    "avg_pool2d.default": [IMAGE, *POOL],
    "avg_pool2d_backward.default": [SMALL, IMAGE, *POOL, False, True, None],
    "max_pool2d_with_indices.default": [IMAGE, *POOL],
    "max_pool2d_with_indices_backward.default": [SMALL, IMAGE, *POOL, (1, 1), False, Whole(SMALL)],
    "addmm.default": [SQUARE, SQUARE, SQUARE],
    "baddbmm.default": [Shape((2, 4, 4))] * 3,
    "bmm.default": [Shape((2, 4, 4))] * 2,
    "dot.default": [ROW, ROW],
    "mv.default": [SQUARE, ROW],
    "bitwise_and.Tensor": [INDEX, INDEX],
    "bitwise_or.Tensor": [INDEX, INDEX],
    "bitwise_xor.Tensor": [INDEX, INDEX],
    "bitwise_not.default": [INDEX],
    "binary_cross_entropy_backward.default": [ONE, SQUARE, SQUARE],
    "clamp.default": [SQUARE, 0, 1],
    "clamp.Tensor": [SQUARE, SQUARE, SQUARE],
    "constant_pad_nd.default": [SQUARE, (1, 2), 1.0],
    "convolution.default": [IMAGE, Shape((4, 4, 3, 3)), CHANNELS, (1, 1), (1, 1), (1, 1), False, (0, 0), 1],
    "convolution_backward.default": [
        IMAGE, IMAGE, Shape((4, 4, 3, 3)), (4,), (1, 1), (1, 1), (1, 1), False, (0, 0), 1, (True, True, True),
    ],
    "embedding.default": [SQUARE, INDEX],
    "embedding_dense_backward.default": [Shape((4, 4, 4)), INDEX, 4, -1, False],
    "expand.default": [Shape((1, 4)), (4, 4)],
    "gather.default": [SQUARE, 0, INDEX],
    "glu_backward.default": [Shape((4, 2)), SQUARE, 1],
    "index.Tensor": [SQUARE, (Whole((4,)), None)],
    "_unsafe_index.Tensor": [SQUARE, (Whole((4,)), None)],
    "index_put.default": [SQUARE, (Whole((4,)), None), SQUARE],
    "_unsafe_index_put.default": [SQUARE, (Whole((4,)), None), SQUARE],
    "index_select.default": [SQUARE, 0, Whole((4,))],
    "lerp.Scalar": [SQUARE, SQUARE, 0.5],
    "masked_fill.Scalar": [SQUARE, Flags((4, 4)), 1.0],
    "masked_fill.Tensor": [SQUARE, Flags((4, 4)), ONE],
    "_native_batch_norm_legit.no_stats": [IMAGE, CHANNELS, CHANNELS, True, 0.1, 1e-5],
    "_native_batch_norm_legit_functional.default": [IMAGE, *[CHANNELS] * 4, True, 0.1, 1e-5],
    "_native_batch_norm_legit_no_training.default": [IMAGE, *[CHANNELS] * 4, 0.1, 1e-5],
    "native_batch_norm_backward.default": [IMAGE, IMAGE, *[CHANNELS] * 5, True, 1e-5, (True, True, True)],
    "native_dropout_backward.default": [SQUARE, Flags((4, 4)), 2.0],
    "native_group_norm.default": [IMAGE, CHANNELS, CHANNELS, 2, 4, 36, 2, 1e-5],
    "native_group_norm_backward.default": [
        IMAGE, IMAGE, Shape((2, 2)), Shape((2, 2)), CHANNELS, 2, 4, 36, 2, (True, True, True),
    ],
    "native_layer_norm.default": [SQUARE, (4,), ROW, ROW, 1e-5],
    "native_layer_norm_backward.default": [
        SQUARE, SQUARE, (4,), Shape((4, 1)), Shape((4, 1)), ROW, ROW, (True, True, True),
    ],
    "nll_loss_forward.default": [SQUARE, Whole((4,)), None, 1, -100],
    "nll_loss_backward.default": [ONE, SQUARE, Whole((4,)), None, 1, -100, ONE],
    "nll_loss2d_forward.default": [IMAGE, Whole((2, 6, 6)), CHANNELS, 1, -100],
    "nll_loss2d_backward.default": [ONE, IMAGE, Whole((2, 6, 6)), CHANNELS, 1, -100, ONE],
    "normal_functional.default": [SQUARE, 0.0, 1.0],
    "permute.default": [SQUARE, (1, 0)],
    "reflection_pad1d.default": [SQUARE, (1, 1)],
    "reflection_pad2d.default": [IMAGE, (1, 1, 1, 1)],
    "replication_pad1d.default": [SQUARE, (1, 1)],
    "replication_pad2d.default": [IMAGE, (1, 1, 1, 1)],
    "repeat.default": [SQUARE, (2, 1)],
    "rrelu_with_noise_backward.default": [SQUARE, SQUARE, SQUARE, 0.1, 0.3, True, False],
    "scatter.src": [SQUARE, 0, INDEX, SQUARE],
    "scatter.value": [SQUARE, 0, INDEX, 2],
    "scatter_add.default": [SQUARE, 0, INDEX, SQUARE],
    "select_backward.default": [ROW, (4, 4), 0, 1],
    "slice_backward.default": [Shape((2, 4)), (4, 4), 0, 0, 2, 1],
    "split_with_sizes.default": [SQUARE, (1, 3)],
    "split.Tensor": [SQUARE, 2],
    "_softmax_backward_data.default": [SQUARE, SQUARE, 1, Dtype("float32")],
    "_log_softmax_backward_data.default": [SQUARE, SQUARE, 1, Dtype("float32")],
    "topk.default": [SQUARE, 2],
    "view.default": [SQUARE, (2, 8)],
    "_unsafe_view.default": [SQUARE, (2, 8)],
    "where.Scalar": [Flags((4, 4)), 1.0, 2.0],
    "where.ScalarOther": [Flags((4, 4)), SQUARE, 2.0],
    "where.ScalarSelf": [Flags((4, 4)), 1.0, SQUARE],
    "where.self": [Flags((4, 4)), SQUARE, SQUARE],
    "_adaptive_avg_pool3d.default": [VOLUME, (2, 2, 2)],
    "_adaptive_avg_pool3d_backward.default": [CUBE, VOLUME],
    "adaptive_max_pool3d.default": [VOLUME, (2, 2, 2)],
    "adaptive_max_pool3d_backward.default": [CUBE, VOLUME, Whole(CUBE)],
    "avg_pool3d.default": [VOLUME, *POOL3],
    "avg_pool3d_backward.default": [CUBE, VOLUME, *POOL3, False, True, None],
    "max_pool3d_with_indices.default": [VOLUME, *POOL3],
    "max_pool3d_with_indices_backward.default": [CUBE, VOLUME, *POOL3, (1, 1, 1), False, Whole(CUBE)],
    "bitwise_and.Scalar": [INDEX, 3],
    "bitwise_or.Scalar": [INDEX, 3],
    "bitwise_xor.Scalar": [INDEX, 3],
    "bitwise_left_shift.Tensor": [INDEX, INDEX],
    "bitwise_right_shift.Tensor": [INDEX, INDEX],
    "_cdist_forward.default": [SQUARE, SQUARE, 2.0, None],
    "_cdist_backward.default": [SQUARE, SQUARE, SQUARE, 2.0, SQUARE],
    "diagonal.default": [SQUARE],
    "_fft_r2c.default": [SQUARE, (1,), 0, True],
    "_fft_c2c.default": [Complex((4, 4)), (0, 1), 0, True],
    "_fft_c2r.default": [Complex((4, 3)), (1,), 0, 4],
    "view_as_real.default": [Complex((4, 4))],
    "view_as_complex.default": [Shape((4, 2))],
    "grid_sampler_2d.default": [IMAGE, GRID, 0, 0, False],
    "grid_sampler_2d_backward.default": [PLACES, IMAGE, GRID, 0, 0, False, (True, True)],
    "grid_sampler_3d.default": [VOLUME, Shape((2, 5, 5, 5, 3)), 0, 0, False],
    "grid_sampler_3d_backward.default": [
        Shape((2, 3, 5, 5, 5)), VOLUME, Shape((2, 5, 5, 5, 3)), 0, 0, False, (True, True),
    ],
    "index_reduce.default": [SQUARE, 0, Whole((4,)), SQUARE, "prod"],
    "replication_pad3d.default": [VOLUME, (1,) * 6],
    "replication_pad1d_backward.default": [Shape((4, 6)), SQUARE, (1, 1)],
    "replication_pad2d_backward.default": [Shape((2, 4, 8, 8)), IMAGE, (1, 1, 1, 1)],
    "replication_pad3d_backward.default": [Shape((2, 3, 6, 6, 6)), VOLUME, (1,) * 6],
    "scatter_reduce.two": [SQUARE, 0, INDEX, SQUARE, "mean"],
    "searchsorted.Scalar": [ROW, 0.5],
    "searchsorted.Tensor": [ROW, SQUARE],
    "bucketize.Tensor": [SQUARE, ROW],
    "unfold.default": [SQUARE, 1, 2, 1],
    **{f"{name}1d.default": [LINE, (12,)] for name in NEAREST},
    **{f"{name}2d.default": [IMAGE, (12, 12)] for name in NEAREST},
    **{f"{name}3d.default": [VOLUME, (8, 8, 8)] for name in NEAREST},
    **{f"{name}1d_backward.default": [LONG, (12,), (2, 4, 6)] for name in NEAREST},
    **{f"{name}2d_backward.default": [WIDE, (12, 12), (2, 4, 6, 6)] for name in NEAREST},
    **{f"{name}3d_backward.default": [TALL, (8, 8, 8), (2, 3, 4, 4, 4)] for name in NEAREST},
    "upsample_linear1d.default": [LINE, (12,), False],
    "upsample_linear1d_backward.default": [LONG, (12,), (2, 4, 6), False],
    "upsample_trilinear3d.default": [VOLUME, (8, 8, 8), False],
    "upsample_trilinear3d_backward.default": [TALL, (8, 8, 8), (2, 3, 4, 4, 4), False],
    **{f"{name}.default": [IMAGE, (12, 12), False] for name in ("upsample_bilinear2d", "upsample_bicubic2d")},
    **{
        f"{name}_backward.default": [WIDE, (12, 12), (2, 4, 6, 6), False]
        for name in ("upsample_bilinear2d", "upsample_bicubic2d")
    },
    **{f"{name}_backward.default": [SQUARE, SQUARE, SQUARE, 0] for name in LOSSES},
}  # fmt: skip
SAMPLES["smooth_l1_loss_backward.default"] += [1.0]
SAMPLES["huber_loss_backward.default"] += [1.0]
COUNTS = {"split.Tensor": 2, "split_with_sizes.default": 2, "unbind.int": 4}
NAMES = sorted(name for name, known in table().items() if known.overload is not None)
WORDS = {"rounding_mode": "floor"}


def _value(parameter: Parameter) -> object:
    match parameter.kind:
        case "Tensor":
            return (SQUARE, SQUARE) if parameter.listed else SQUARE
        case "int":
            return (4, 4) if parameter.name == "size" else (0,) if parameter.listed else 1
        case "float" | "number":
            return 0.25
        case "bool":
            return False
        case "ScalarType":
            return Dtype("float32")
    return WORDS.get(parameter.name)


def _arguments(known: Operation) -> list:
    given = SAMPLES.get(known.name.removeprefix("aten."))
    if given is not None:
        return given
    wanted = [each for each in known.parameters if not each.keyword]
    return [_value(each) for each in wanted if each.required]


def _plan(known: Operation, how: str) -> tuple[Plan, list[torch.Tensor]]:
    inputs: list[Input] = []
    held: list[torch.Tensor] = []
    views: list[Step] = []
    source = torch.Generator().manual_seed(1)

    def taken(value: object) -> object:
        if isinstance(value, Shape):
            shape = tuple(value)
            spread = how == "spread" and len(shape) > 0
            turned = how == "turned" and len(shape) > 1
            own = (1,) * len(shape) if spread else (*shape[:-2], shape[-1], shape[-2]) if turned else shape
            inputs.append(Input(f"x{len(inputs)}", InputRole.ARGUMENT, value.dtype, own))
            made = torch.rand(own, generator=source)
            held.append(made if value.dtype == "float32" else (made * 4).to(getattr(torch, value.dtype)))
            views.append(
                Step("aten.expand.default", (Slot(len(inputs) - 1), shape)) if spread
                else Step("aten.transpose.int", (Slot(len(inputs) - 1), -2, -1)) if turned
                else Step("aten.detach.default", (Slot(len(inputs) - 1),))
            )  # fmt: skip
            return ("of", len(inputs) - 1)
        return tuple(map(taken, value)) if isinstance(value, tuple) else value

    def placed(value: object) -> object:
        if isinstance(value, tuple):
            return Slot(len(inputs) + value[1]) if value[:1] == ("of",) else tuple(map(placed, value))
        return value

    arguments = [placed(each) for each in [taken(value) for value in _arguments(known)]]
    keywords = tuple(
        (each.name, _value(each)) for each in known.parameters if (each.keyword and each.required) or each.name in WORDS
    )
    count = COUNTS.get(known.name.removeprefix("aten."), len(known.overload._schema.returns))
    first = len(inputs) + len(views)
    outputs = tuple(Output(f"o{each}", OutputRole.RESULT, first + each) for each in range(count))
    step = Step(known.name, tuple(arguments), keywords, count)
    return Plan(tuple(inputs), outputs, (), (*views, step), torch_minor(torch.__version__)), held


@pytest.mark.parametrize("how", ["plain", "turned", "spread"])
@pytest.mark.parametrize("name", NAMES)
def test_what_a_kernel_gives_is_what_was_foreseen(name, how):
    plan, held = _plan(table()[name], how)
    try:
        inference = validate(plan).at(1)
    except PlanRefused:
        if how != "plain":  # such as a view that strides do not allow
            return
        raise
    block = lowered(plan, inference)
    found = Engine(block, {}, torch.Generator(), torch.device("cpu")).run(held)
    for output, real in zip(plan.outputs, found, strict=True):
        foreseen = inference.slots[output.slot]
        assert (tuple(real.shape), real.dtype) == (tuple(foreseen.shape), foreseen.dtype)
        assert real.is_contiguous() or not foreseen.is_contiguous()
