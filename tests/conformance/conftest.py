from tests.integration.platform.conftest import platform as platform
