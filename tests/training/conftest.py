"""Settings under which training is tested."""

import pytest

from tests import quick


@pytest.fixture(autouse=True, scope='module')
def quick_compilation():
  """A run is compared with others that are compiled alike."""
  yield from quick.of_the_library()
