"""Keys, and a client of the product for each; each module has a product of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.security.stage import Clients, clients_of, make_keys
from tests.support.stack import Stack


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The keys file, and the keys by what they are for."""
    file = tmp_path_factory.mktemp("keys") / "keys.yaml"
    return file, make_keys(file)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clients(stack: Stack, keys: tuple[Path, dict[str, str]]) -> AsyncIterator[Clients]:
    """Clients of the product's API."""
    async with clients_of(stack, keys[1]) as made:
        yield made
