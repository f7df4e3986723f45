"""Walks through the API of a running application, and stops with an error where it is not as expected.

    pip install httpx
    python walkthrough.py http://127.0.0.1:3000
"""

import sys
import uuid

from task_client import Problem, TaskClient


def main(base_url: str) -> None:
    with TaskClient(base_url) as tasks:
        print("Creating three tasks, each request twice with the same key:")
        key = str(uuid.uuid4())
        tag = key[:8]
        milk = tasks.create({"title": "buy milk", "tags": [tag]}, key=key)
        again = tasks.create({"title": "buy milk", "tags": [tag]}, key=key)
        assert again == milk, "the same key gives the first answer again"
        for _ in range(2):
            others = [{"title": title, "tags": [tag]} for title in ("bake bread", "call home")]
            tasks.create_many(others, key=key)

        print("Reading them page by page:")
        titles = [task["title"] for task in tasks.list(tag=tag, limit=1)]
        print("   ", ", ".join(titles))
        assert titles == ["call home", "bake bread", "buy milk"], "the newest first, and no more than three"

        print("Changing one, and waiting until its event is on the topic:")
        done, receipt = tasks.patch_and_wait(milk, {"status": "done"})
        assert done.fields["version"] == 2, done
        assert receipt is not None, "the broker had ten seconds"
        print(f"    version 2 is in {receipt.topic}, partition {receipt.partition}, offset {receipt.offset}")

        print("Changing it again as if nobody else had:")
        try:
            tasks.patch(milk, {"status": "in_progress"})
        except Problem as problem:
            print("   ", problem)
            assert problem.status == 412, problem
        else:
            raise AssertionError("the first version is not the latest any more")

        print("Sending what is no task:")
        try:
            tasks.create({"title": "", "colour": "red"})
        except Problem as problem:
            for error in problem.errors:
                print(f"    {error['pointer']} {error['detail']}")
            assert [error["code"] for error in problem.errors] == ["length", "unknown"], problem.errors
        else:
            raise AssertionError("a task without a title was taken")

        print("Deleting it:")
        tasks.delete(tasks.get(done.fields["id"]))
        try:
            tasks.get(done.fields["id"])
        except Problem as problem:
            print("   ", problem)
            assert problem.status == 404, problem
        else:
            raise AssertionError("it is still there")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
