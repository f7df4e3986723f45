delete from idempotency_keys
where key in (
    select key
    from idempotency_keys
    where created_at < now() - interval '24 hours'
    order by created_at
    limit $1
)
  and created_at < now() - interval '24 hours' -- unless it was taken anew meanwhile
