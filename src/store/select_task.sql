select task_document(tasks) from tasks where id = $1::uuid
