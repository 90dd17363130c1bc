"""`make logs`: prints the log of a chat's functions, here or on AWS."""

from __future__ import annotations

import argparse
import time

import boto3

from scripts.address import emulator_of, outputs_of, required, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stack", required=True)
    parser.add_argument("--minutes", type=float, default=60, help="how far back; 60 by default")
    arguments = parser.parse_args()
    emulator = emulator_of(arguments.stack)
    group = required("FunctionLogs", outputs_of(arguments.stack, emulator))
    pages = (emulator or boto3).client("logs").get_paginator("filter_log_events")
    start = int((time.time() - 60 * arguments.minutes) * 1000)
    for page in pages.paginate(logGroupName=group, startTime=start):
        for event in page["events"]:
            print(event["message"].rstrip("\n"))


if __name__ == "__main__":
    run(main)
