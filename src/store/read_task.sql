-- One task, if it is there (migrations/V7).
select document, version from read_task($1::uuid)
