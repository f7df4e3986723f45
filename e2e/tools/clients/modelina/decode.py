"""Reads the values of a task's three records, one a line, with the models of modelina."""

import json
import sys

from events.priority import Priority
from events.status import Status
from events.task_created import TaskCreated
from events.task_deleted import TaskDeleted
from events.task_updated import TaskUpdated

models = {"TASK_CREATED": TaskCreated, "TASK_UPDATED": TaskUpdated, "TASK_DELETED": TaskDeleted}
values = [json.loads(line) for line in sys.stdin]
created, updated, deleted = [models[value["event_type"]].model_validate(value) for value in values]

assert isinstance(created, TaskCreated) and isinstance(deleted, TaskDeleted), values
assert created.event_type.value == "TASK_CREATED", created
task = created.data
assert (task.title, task.status, task.priority) == ("one", Status.TODO, Priority.HIGH), task
assert (task.description, task.due_at, task.tags) == (None, None, ["home"]), task
assert updated.data.status == Status.DONE, updated
assert {task.id} == {updated.data.id, deleted.data.id}, values
assert [event.data.version for event in (created, updated, deleted)] == [1, 2, 2], values
for model, value in zip((created, updated, deleted), values):
    assert model.model_dump(mode="json") == value, model
