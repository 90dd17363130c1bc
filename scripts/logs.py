"""`make logs`: prints the log of a chat's functions, here or on AWS."""

import time

import boto3

from scripts.address import above_0, chat_of, new_parser, required, run


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--minutes", type=above_0, default=60, help="how far back; 60 by default")
    arguments = parser.parse_args()
    chat = chat_of(arguments)
    group = required("FunctionLogs", chat.outputs)
    pages = (chat.emulator or boto3).client("logs").get_paginator("filter_log_events")
    start = max(0, int(time.time() - 60 * arguments.minutes) * 1000)
    for page in pages.paginate(logGroupName=group, startTime=start):
        for event in page["events"]:
            print(event["message"].rstrip("\n"))


if __name__ == "__main__":
    run(main)
