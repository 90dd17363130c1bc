"""Stands in for Lambda's bootstrap: imports a package's `app` and hands it texts.

    python -I -S -B bootstrap.py {package} {members} {address of the posts} [{control group}]

`cold.py` starts it with nothing but the standard library and the package on its path. It prints a
line once the app is imported. Then it waits for a line on its standard input before each text, and
prints its times and its memory as JSON afterwards. It joins the control group, if one is given,
after the import, because Lambda initialises a function with a whole CPU.
"""

import time

READY = time.monotonic(), time.process_time()

import importlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402


class Context:
    aws_request_id = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"
    function_name = "message"

    def get_remaining_time_in_millis(self) -> int:
        return 29_000


def event(members: str) -> dict[str, object]:
    """An event of the route $default, as API Gateway sends it."""
    return {
        "requestContext": {
            "routeKey": "$default",
            "messageId": "Lc7UvfTVjoECJ2A=",
            "eventType": "MESSAGE",
            "extendedRequestId": "Lc7UvG8oDoEFQxQ=",
            "requestTime": "01/Jul/2026:12:00:00 +0000",
            "messageDirection": "IN",
            "stage": "api",
            "connectedAt": 1782907200000,
            "requestTimeEpoch": 1782907201000,
            "identity": {"sourceIp": "192.0.2.1"},
            "requestId": "Lc7UvG8oDoEFQxQ=",
            "domainName": "a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com",
            "connectionId": f"{members}-000000000c=",
            "apiId": "a1b2c3d4e5",
        },
        "body": "Hi",
        "isBase64Encoded": False,
    }


def peak() -> float:
    """The most memory that this process has had, in MB; 0 where the system does not say."""
    try:
        with open("/proc/self/status") as status:
            return int(status.read().partition("VmHWM:")[2].split()[0]) / 1024
    except OSError:
        return 0.0


def main(package: str, members: str, address: str, group: str = "") -> None:
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the app's log goes to standard error
    sys.path.insert(0, package)
    app = importlib.import_module("app")
    imported = time.monotonic(), time.process_time()
    type(app.app.websocket_api)._WEBSOCKET_ENDPOINT_TEMPLATE = address  # for Chalice's own client
    if group:
        with open(group, "w") as processes:
            processes.write("0")
    print("imported", file=results, flush=True)
    while sys.stdin.readline():
        started = time.monotonic(), time.process_time()
        app.message(event(members), Context())
        ended = time.monotonic(), time.process_time()
        times = {"ready": READY, "imported": imported, "started": started, "ended": ended}
        print(json.dumps({"times": times, "peak": peak()}), file=results, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
