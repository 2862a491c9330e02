-- families: tables
-- cost: 0.8 ms at 50 tables, 6 ms at 1,000
-- cadence: slow
-- privilege: none
-- least: 90600
-- Statistics views only: they take no lock on a table, so a waiting ALTER TABLE does not hold us.
SELECT count(*) AS table_count, coalesce(sum(n_live_tup), 0)::int8 AS row_count,
       coalesce(sum(seq_scan), 0)::int8 AS seq_scans, coalesce(sum(idx_scan), 0)::int8 AS index_scans
FROM pg_stat_user_tables
