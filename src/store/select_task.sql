select task_document(tasks), version from tasks where id = $1::uuid
