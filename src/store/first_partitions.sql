
/*
 * Last: partitions, so that an INSERT works from the first moment, with or
 * without workers.  Not while a dump is restored, which brings its own of all this: dumps
 * are the one place that runs with row_security off.  The partitions must not
 * belong to the extension, or they could never be dropped and would not be
 * dumped.
 */
DO $$
DECLARE
	partition regclass;
BEGIN
	IF pg_catalog.current_setting('row_security')::boolean THEN
		PERFORM imgpipe.create_partitions();
		FOR partition IN SELECT p.partition FROM imgpipe.partitions p LOOP
			EXECUTE pg_catalog.format('ALTER EXTENSION imgpipe DROP TABLE %s', partition);
		END LOOP;
		INSERT INTO imgpipe.installation DEFAULT VALUES;
		INSERT INTO imgpipe.purge_ledger_head DEFAULT VALUES;
		INSERT INTO imgpipe.erasure_secret DEFAULT VALUES;
	END IF;
	PERFORM imgpipe.wake_controller();
END
$$;
