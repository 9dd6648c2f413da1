"""How to descend: what fits the rows that there are."""

from __future__ import annotations

import pytest

from mmtool.training.recipe import batch_size


@pytest.mark.parametrize(("rows", "size"), [(1, 64), (32_768, 64), (32_769, 128), (100_000, 256), (524_288, 1024),
                                            (10**7, 1024)])
def test_batches_grow_so_that_an_epoch_of_many_rows_is_not_all_steps(rows: int, size: int) -> None:
    assert batch_size(rows) == size
