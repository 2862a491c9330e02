-- families: size
-- cost: asks the file system for every file: 1.2 ms at 50 tables, 8 ms at 1,000
-- cadence: slow
-- privilege: CONNECT on the database, which a login has
-- least: 90600
SELECT pg_database_size(current_database()) AS db_size
