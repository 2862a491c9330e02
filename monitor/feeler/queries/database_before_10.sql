-- families: database
-- cost: one row of shared statistics
-- cadence: fast
-- privilege: none
-- least: 90600
SELECT current_setting('server_version_num')::int AS server_version_num,
       CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary' END AS role,
       CASE WHEN NOT pg_is_in_recovery() THEN NULL
            WHEN pg_last_xlog_receive_location() = pg_last_xlog_replay_location()
              AND EXISTS (SELECT FROM pg_stat_wal_receiver) THEN 0
            WHEN pg_last_xact_replay_timestamp() IS NOT NULL
              THEN greatest(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0)
       END::float8 AS replication_lag,
       (SELECT max(age(datfrozenxid)) FROM pg_database) AS xid_age,
       xact_commit + xact_rollback AS transactions, blks_hit AS hits, blks_read AS reads,
       coalesce(extract(epoch FROM stats_reset), 0)::float8 AS reset_at
FROM pg_stat_database WHERE datname = current_database()
