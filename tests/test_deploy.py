"""What `make deploy` says when AWS refuses or rolls back. test_operations.py asks the emulator."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

import emulator.emulator
import scripts.deploy
from scripts import Failure
from scripts.deploy import deploy

NUMBERS = count()
Event = dict[str, Any]


def event(resource: str, status: str, reason: str = "") -> Event:
    return {
        "EventId": str(next(NUMBERS)),
        "StackId": "id of Chat",
        "PhysicalResourceId": "id of Chat" if resource == "Chat" else f"id of {resource}",
        "LogicalResourceId": resource,
        "ResourceStatus": status,
        "ResourceStatusReason": reason,
    }


def history(*events: Event) -> list[Event]:
    """As AWS lists them: the newest first."""
    return list(reversed(events))


AN_OLDER_FAILURE = (
    event("Chat", "UPDATE_IN_PROGRESS", "User Initiated"),
    event("OldFunction", "UPDATE_FAILED", "an older mistake"),
    event("Chat", "UPDATE_ROLLBACK_COMPLETE"),
)
EXPORT_IN_USE = "Export Chat-FanOut cannot be deleted as it is in use by Chat-monitoring"
A_NEW_FAILURE = (
    event("Stage", "CREATE_IN_PROGRESS"),
    event("Stage", "CREATE_FAILED", "CloudWatch Logs role ARN must be set in account settings"),
    event("Table", "CREATE_FAILED", "Resource creation cancelled"),
)


@pytest.mark.parametrize(
    ("before", "of_this_deployment", "said"),
    [
        (
            (),
            (*A_NEW_FAILURE, event("Chat", "ROLLBACK_COMPLETE")),
            "Stage: CloudWatch Logs role ARN must be set in account settings\n"
            "The stack Chat is ROLLBACK_COMPLETE. Before you deploy again: "
            "aws cloudformation delete-stack --stack-name Chat",
        ),
        (
            AN_OLDER_FAILURE,
            (
                *A_NEW_FAILURE,
                event("Chat", "UPDATE_ROLLBACK_IN_PROGRESS", "These resources failed: [Stage]"),
                event("Chat", "UPDATE_ROLLBACK_COMPLETE"),
            ),
            "Stage: CloudWatch Logs role ARN must be set in account settings",
        ),
        (
            AN_OLDER_FAILURE,
            (*A_NEW_FAILURE, event("Chat", "UPDATE_ROLLBACK_FAILED")),
            "Stage: CloudWatch Logs role ARN must be set in account settings\n"
            "The stack Chat is UPDATE_ROLLBACK_FAILED. Before you deploy again: "
            "aws cloudformation continue-update-rollback --stack-name Chat",
        ),
        (
            (),
            (
                event("Chat", "UPDATE_IN_PROGRESS", "User Initiated"),
                event("Chat", "UPDATE_ROLLBACK_IN_PROGRESS", EXPORT_IN_USE),
                event("Chat", "UPDATE_ROLLBACK_COMPLETE"),
            ),
            f"Chat: {EXPORT_IN_USE}",
        ),
        (AN_OLDER_FAILURE, (), "Failed to create the changeset: Template format error"),
    ],
    ids=["created", "updated", "rolled back halfway", "for no resource", "refused before it began"],
)
def test_the_reason_is_the_first_failure_of_this_deployment(
    monkeypatch: pytest.MonkeyPatch,
    before: tuple[Event, ...],
    of_this_deployment: tuple[Event, ...],
    said: str,
) -> None:
    happened = list(before)

    def events(cloudformation: object, stack: str) -> Iterator[Event]:
        return iter(history(*happened))

    def aws(*command: str) -> None:
        happened.extend(of_this_deployment)
        raise Failure("Failed to create the changeset: Template format error")

    monkeypatch.setattr(emulator.emulator, "events", events)
    monkeypatch.setattr(scripts.deploy, "events", events)
    monkeypatch.setattr(scripts.deploy, "aws", aws)
    with pytest.raises(Failure) as failure:
        deploy("Chat", "template.yml", [])
    assert str(failure.value) == said
