-- How many rows there are, up to a limit, from where the oldest may be.
select count(*) from (select from outbox where id > $1 order by id limit $2) as counted
