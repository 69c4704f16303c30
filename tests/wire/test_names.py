"""Names that travel: one rule for one name and for thousands at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv.errors import UsageError
from fedpriv.ids import checked_name, checked_names

ANY = st.text(st.sampled_from("ab09._-A\n\x00ä "), max_size=4) | st.sampled_from(
    ["a" * 63, "a" * 64, "a-", "a\nb", "b\n"]
)


@given(st.lists(ANY, max_size=5))
def test_a_list_stands_where_each_of_its_names_does(names):
    def refused(check, *arguments):
        try:
            check("worker", *arguments)
        except UsageError as error:
            return str(error)
        return None

    each = [refused(checked_name, name) for name in names]
    assert refused(checked_names, names) == next((said for said in each if said), None)


def test_the_name_that_cannot_stand_is_told():
    with pytest.raises(UsageError, match=r"worker name 'b\\nc' is not usable"):
        checked_names("worker", ["a", "b\nc", "d"])
