"""What all tests of networks need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from test.support.threads import one_thread


@pytest.fixture(autouse=True, scope="module")
def at_one_thread() -> Iterator[None]:
    with one_thread():
        yield
