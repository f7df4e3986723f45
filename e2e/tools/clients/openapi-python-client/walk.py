"""Walks through the API with the client that openapi-python-client generates."""

import re
import sys
from http import HTTPStatus
from urllib.parse import unquote

from task_api_client import Client
from task_api_client.api.tasks import (
    create_task,
    create_tasks,
    delete_task,
    get_task,
    list_tasks,
    patch_task,
)
from task_api_client.models import InvalidCode, NewTask, Priority, Problem, Status, TaskPatch

client = Client(base_url=sys.argv[1], raise_on_unexpected_status=True)

created = create_task.sync_detailed(client=client, body=NewTask(title="one", description="all"))
assert created.status_code == HTTPStatus.CREATED, created
task = created.parsed
assert (task.title, task.status, task.priority) == ("one", Status.TODO, Priority.NORMAL), task
assert (task.description, task.due_at, task.tags, task.version) == ("all", None, [], 1), task

read = get_task.sync_detailed(task.id, client=client)
assert read.parsed == task, read
etag = read.headers["ETag"]
unchanged = get_task.sync_detailed(task.id, client=client, if_none_match=etag)
assert unchanged.status_code == HTTPStatus.NOT_MODIFIED, unchanged

batch = create_tasks.sync(client=client, body=[NewTask(title="two"), NewTask(title="three")])
assert [task.title for task in batch] == ["two", "three"], batch

first = list_tasks.sync_detailed(client=client, limit=2)
cursor = unquote(re.search("[?&]cursor=([^&>]+)", first.headers["Link"])[1])
second = list_tasks.sync_detailed(client=client, limit=2, cursor=cursor)
assert "Link" not in second.headers, second
titles = [task.title for task in first.parsed + second.parsed]
assert sorted(titles) == ["one", "three", "two"], titles

done = TaskPatch(status=Status.DONE, description=None)
patched = patch_task.sync(task.id, client=client, body=done, if_match=etag)
assert (patched.status, patched.description, patched.version) == (Status.DONE, None, 2), patched
assert patched.title == "one", patched

late = patch_task.sync_detailed(task.id, client=client, body=done, if_match=etag)
assert late.status_code == HTTPStatus.PRECONDITION_FAILED, late
assert isinstance(late.parsed, Problem) and late.parsed.status == 412, late

blank = create_task.sync_detailed(client=client, body=NewTask(title=" "))
assert blank.status_code == HTTPStatus.UNPROCESSABLE_ENTITY, blank
[error] = blank.parsed.errors
assert (error.pointer, error.code) == ("/title", InvalidCode.LENGTH), error
assert blank.parsed.request_id == blank.headers["X-Request-Id"], blank

deleted = delete_task.sync_detailed(task.id, client=client)
assert deleted.status_code == HTTPStatus.NO_CONTENT, deleted
gone = get_task.sync_detailed(task.id, client=client)
assert gone.status_code == HTTPStatus.NOT_FOUND, gone
assert gone.parsed.title == "Not Found", gone
