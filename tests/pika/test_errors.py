"""What pika makes of a login or a virtual host that is refused. All other errors are in tests/contract."""

import pika
import pytest
from pika.exceptions import ConnectionClosedByBroker, ProbableAccessDeniedError, ProbableAuthenticationError


def test_wrong_credentials_are_refused(connect):
    credentials = pika.PlainCredentials("guest", "wrong")
    with pytest.raises((ProbableAuthenticationError, ConnectionClosedByBroker)) as caught:
        connect(credentials=credentials)
    assert "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN" in str(caught.value)


def test_an_unknown_virtual_host_is_refused(connect):
    with pytest.raises((ProbableAccessDeniedError, ConnectionClosedByBroker)) as caught:
        connect(virtual_host="nowhere")
    assert "(530)" in str(caught.value) and "NOT_ALLOWED - vhost nowhere not found" in str(caught.value)
