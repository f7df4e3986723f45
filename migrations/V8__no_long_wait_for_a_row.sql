-- Whoever holds a task's row for long, such as a person at a terminal, holds up those who share a connection with a change
-- of it, and would be waited for by sessions whose requests were given up long ago. Past this time the change is answered
-- 503, and can be repeated.
alter function change_task set lock_timeout = '2s';
alter function delete_task set lock_timeout = '2s';
