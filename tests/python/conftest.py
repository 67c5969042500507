import pytest

from support import Folder


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)
