"""How large one message of a peer may be: as large as the plans that were accepted from it need, and not larger.

A message is taken into memory before anything is known of it but its length. Who may hold values here may send one
tensor of `MAXIMUM_PUT_BYTES`; a larger message can only be the model of a plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from fedpriv.plans.plan import InputRole, Plan
from fedpriv.updates import DTYPES
from fedpriv.wire.framing import MAXIMUM_HEADER_BYTES, MAXIMUM_MESSAGE_BYTES
from fedpriv.wire.values import MAXIMUM_PUT_BYTES


def largest_message(plans: Iterable[Plan] = ()) -> int:
    """Return how many bytes one message may have, header included, of a peer whose `plans` were accepted."""
    largest = max((MAXIMUM_PUT_BYTES, *map(model_bytes, plans)))
    return min(MAXIMUM_HEADER_BYTES + largest, MAXIMUM_MESSAGE_BYTES)


def model_bytes(plan: Plan) -> int:
    """Return the length of the model that an order for `plan` brings along."""
    model = plan.inputs_of(InputRole.PARAMETER, InputRole.STATE, InputRole.FROZEN)
    return sum(math.prod(each.shape) * DTYPES[each.dtype].itemsize for each in model)
