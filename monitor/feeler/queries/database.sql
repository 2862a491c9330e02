-- families: database
-- cost: one row of shared statistics, 0.12 ms
-- cadence: fast
-- privilege: none
-- least: 100000
-- Replay age grows on a standby of an idle primary: it is 0 while a receiver runs and all it received is replayed.
SELECT current_setting('server_version_num')::int AS server_version_num,
       CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary' END AS role,
       CASE WHEN NOT pg_is_in_recovery() THEN NULL
            WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() AND EXISTS (SELECT FROM pg_stat_wal_receiver)
              THEN 0
            WHEN pg_last_xact_replay_timestamp() IS NOT NULL
              THEN greatest(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0)
       END::float8 AS replication_lag,
       (SELECT max(age(datfrozenxid)) FROM pg_database) AS xid_age,
       xact_commit + xact_rollback AS transactions, blks_hit AS hits, blks_read AS reads,
       coalesce(extract(epoch FROM stats_reset), 0)::float8 AS reset_at
FROM pg_stat_database WHERE datname = current_database()
