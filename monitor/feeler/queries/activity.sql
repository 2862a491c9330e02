-- families: connections activity
-- cost: one walk over the sessions, 0.13 ms; 2 ms at 1,000 of them
-- cadence: fast
-- privilege: none for connections; pg_read_all_stats (pg_monitor has it) for activity, which is `denied` without
-- locks: none: the view of this name would join pg_database and pg_authid
-- least: 100000
-- Without the privilege other users' rows show who and where, nothing more: parallel workers then count as sessions.
SELECT count(*) FILTER (WHERE datid IS NOT NULL AND usesysid IS NOT NULL
                        AND coalesce(backend_type, 'client backend') = 'client backend') AS connections,
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
         - coalesce(current_setting('reserved_connections', true), '0')::int AS connections_max,
       pg_has_role('pg_read_all_stats', 'USAGE') AS visible,
       greatest(coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)
         FILTER (WHERE backend_type = 'client backend' AND pid <> pg_backend_pid())), 0), 0)::float8
         AS longest_transaction,
       greatest(coalesce(extract(epoch FROM max(clock_timestamp() - state_change)
         FILTER (WHERE state IN ('idle in transaction', 'idle in transaction (aborted)'))), 0), 0)::float8
         AS longest_idle_in_transaction,
       count(*) FILTER (WHERE wait_event_type = 'Lock') AS blocked_sessions
FROM pg_stat_get_activity(NULL)
