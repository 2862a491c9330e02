-- families: connections activity
-- cost: one walk over the sessions
-- cadence: fast
-- privilege: none for connections; superuser for activity, which is `denied` without
-- locks: none: the view of this name would join pg_database and pg_authid
-- least: 90600
-- No backend_type and no pg_monitor yet; walsenders have no datid.
SELECT count(*) FILTER (WHERE datid IS NOT NULL) AS connections,
       current_setting('max_connections')::int
         - current_setting('superuser_reserved_connections')::int AS connections_max,
       current_setting('is_superuser')::bool AS visible,
       greatest(coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)
         FILTER (WHERE datid IS NOT NULL AND pid <> pg_backend_pid())), 0), 0)::float8 AS longest_transaction,
       greatest(coalesce(extract(epoch FROM max(clock_timestamp() - state_change)
         FILTER (WHERE state IN ('idle in transaction', 'idle in transaction (aborted)'))), 0), 0)::float8
         AS longest_idle_in_transaction,
       count(*) FILTER (WHERE wait_event_type = 'Lock') AS blocked_sessions
FROM pg_stat_get_activity(NULL)
