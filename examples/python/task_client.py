"""A client of the task API, on httpx: what an application needs, and no more.

    with TaskClient("http://127.0.0.1:3000") as tasks:
        task = tasks.create({"title": "buy milk"})
        tasks.patch(task, {"status": "done"})
"""

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

RECEIPT = re.compile(r'topic="(?P<topic>[^"]+)", partition=(?P<partition>\d+), offset=(?P<offset>\d+)')


@dataclass(frozen=True)
class Task:
    """A task as the API showed it, with the entity tag of that state."""

    fields: dict[str, Any]
    etag: str

    @property
    def path(self) -> str:
        return f"/api/tasks/{self.fields['id']}"


@dataclass(frozen=True)
class Receipt:
    """Where a task's event is on the topic."""

    topic: str
    partition: int
    offset: int


class Problem(Exception):
    """An error as the API describes it: problem details (RFC 9457)."""

    def __init__(self, details: dict[str, Any]):
        self.status: int = details["status"]
        self.detail: str = details["detail"]
        self.request_id: str = details["request_id"]
        self.errors: list[dict[str, str]] = details.get("errors", [])
        super().__init__(f"{self.status} {details['title']}: {self.detail}")


class TaskClient:
    def __init__(self, base_url: str, token: str | None = None, attempts: int = 3):
        """`attempts` is how often a creation is sent at most, if no answer comes."""
        headers = {"Accept": "application/json, application/problem+json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        # Longer than the longest wait for the broker.
        self._http = httpx.Client(base_url=base_url, headers=headers, timeout=40)
        self._attempts = attempts

    def __enter__(self) -> "TaskClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def create(self, fields: dict[str, Any], key: str | None = None) -> Task:
        """Creates a task, once. The key makes it safe to send the request again when its answer was lost;
        give one of your own to repeat a creation in another process."""
        return _task(self._post_once("/api/tasks", fields, key))

    def create_many(self, tasks: list[dict[str, Any]], key: str | None = None) -> list[dict[str, Any]]:
        """Creates up to 500 tasks, all or none, and once like `create`."""
        return _checked(self._post_once("/api/tasks:batch", tasks, key)).json()

    def _post_once(self, path: str, body: Any, key: str | None) -> httpx.Response:
        headers = {"Idempotency-Key": f'"{key or uuid.uuid4()}"'}
        for attempt in range(1, self._attempts + 1):
            try:
                return self._http.post(path, json=body, headers=headers)
            except httpx.TransportError:
                if attempt == self._attempts:
                    raise
        raise ValueError("attempts must be at least 1")

    def get(self, task_id: str) -> Task:
        return _task(self._http.get(f"/api/tasks/{task_id}"))

    def list(self, **filters: Any) -> Iterator[dict[str, Any]]:
        """All tasks that match, page by page as they are asked for."""
        response = _checked(self._http.get("/api/tasks", params=filters))
        yield from response.json()
        while "next" in response.links:
            response = _checked(self._http.get(response.links["next"]["url"]))
            yield from response.json()

    def patch(self, task: Task, changes: dict[str, Any]) -> Task:
        """Changes the task if it is still as it was read; else a `Problem` with status 412."""
        headers = {"If-Match": task.etag, "Content-Type": "application/merge-patch+json"}
        return _task(self._http.patch(task.path, json=changes, headers=headers))

    def patch_and_wait(
        self, task: Task, changes: dict[str, Any], wait_s: int = 10
    ) -> tuple[Task, Receipt | None]:
        """The same, and waits for the broker to have the event; no receipt if that took longer, or if
        there was nothing to change. The event is published in any case."""
        headers = {
            "If-Match": task.etag,
            "Content-Type": "application/merge-patch+json",
            "Prefer": f"wait={wait_s}",
        }
        response = self._http.patch(task.path, json=changes, headers=headers)
        changed = _task(response)
        found = RECEIPT.fullmatch(response.headers.get("Event-Receipt", ""))
        if found is None:
            return changed, None
        return changed, Receipt(found["topic"], int(found["partition"]), int(found["offset"]))

    def delete(self, task: Task) -> None:
        """Deletes the task if it is still as it was read; else a `Problem` with status 412."""
        _checked(self._http.delete(task.path, headers={"If-Match": task.etag}))


def _task(response: httpx.Response) -> Task:
    _checked(response)
    return Task(response.json(), response.headers["ETag"])


def _checked(response: httpx.Response) -> httpx.Response:
    media_type = response.headers.get("Content-Type", "")
    if response.is_error and media_type == "application/problem+json":
        raise Problem(response.json())
    # Not the API's own error: of a proxy in front of it, perhaps.
    return response.raise_for_status()
