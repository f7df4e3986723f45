-- Before the first record with it is published, so that `verify` always knows it.
update outbox_topic set sources = sources || $1::text where $1::text <> all (sources)
