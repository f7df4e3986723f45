"""Walks through the API with the Python client that openapi-generator generates."""

import re
import sys
from urllib.parse import unquote

from task_api_client import (
    ApiClient,
    ApiException,
    Configuration,
    FastApiError,
    FastApiValidationError,
    NewTask,
    Priority,
    Status,
    TaskPatch,
    TasksApi,
)

client = ApiClient(Configuration(host=sys.argv[1]))
api = TasksApi(client)


def refused(request, *arguments, **headers):
    """The exception that a request ends with."""
    try:
        answer = request(*arguments, **headers)
    except ApiException as error:
        return error
    raise AssertionError(answer)


task = api.create_task(NewTask(title="one", description="all"))
assert (task.title, task.status, task.priority) == ("one", Status.TODO, Priority.NORMAL), task
assert (task.description, task.due_at, task.tags, task.version) == ("all", None, [], 1), task

read = api.get_task_with_http_info(task.id)
assert read.data == task, read
etag = read.headers["etag"]
assert refused(api.get_task, task.id, if_none_match=etag).status == 304

batch = api.create_tasks([NewTask(title="two"), NewTask(title="three")])
assert [task.title for task in batch] == ["two", "three"], batch

first = api.list_tasks_with_http_info(limit=2)
cursor = unquote(re.search("[?&]cursor=([^&>]+)", first.headers["link"])[1])
second = api.list_tasks_with_http_info(limit=2, cursor=cursor)
assert "link" not in second.headers, second
titles = [task.title for task in first.data + second.data]
assert sorted(titles) == ["one", "three", "two"], titles

done = TaskPatch(status=Status.DONE, description=None)
patched = api.patch_task(task.id, done, if_match=etag)
assert (patched.status, patched.description, patched.version) == (Status.DONE, None, 2), patched
assert patched.title == "one", patched

late = refused(api.patch_task, task.id, done, if_match=etag)
assert late.status == 412 and late.data.title == "Precondition Failed", late

# A blank title does not leave the client, and only the API knows its cursors.
invalid = refused(api.list_tasks, cursor="none")
[error] = invalid.data.errors
assert (invalid.status, error.parameter, error.code) == (422, "cursor", "value"), invalid
assert invalid.data.request_id == invalid.headers["X-Request-Id"], invalid

api.delete_task(task.id)
gone = refused(api.get_task, task.id)
assert gone.status == 404 and gone.data.title == "Not Found", gone

# A client that asks for FastAPI's form finds a type for each of its errors.
client.set_default_header("Accept", "application/json")
invalid = refused(api.list_tasks, cursor="none")
[item] = FastApiValidationError.from_json(invalid.body).detail
assert [step.actual_instance for step in item.loc] == ["query", "cursor"], invalid
gone = refused(api.get_task, task.id)
assert FastApiError.from_json(gone.body).request_id == gone.headers["X-Request-Id"], gone
