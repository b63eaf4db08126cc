-- For tests that throw hostile files at one backend: what becomes of each, and what the backend holds then.
CREATE SCHEMA trial;

-- Which pipeline, by the number of the file.
CREATE FUNCTION trial.pipelines(number bigint) RETURNS imgpipe.pipeline[] LANGUAGE sql AS $$
	SELECT CASE number % 5
		WHEN 0 THEN '{resize(width=64) | webp}'
		WHEN 1 THEN '{png}'
		WHEN 2 THEN '{blur(sigma=2) | grayscale | jpeg, "resize(width=40, height=30, fit=cover) | rotate(angle=90) | png"}'
		WHEN 3 THEN '{sharpen | jpeg(quality=50)}'
		ELSE '{resize(width=300) | png}'
	END::imgpipe.pipeline[]
$$;

-- "done", or the SQLSTATE with which the bytes were refused as an image or later.
CREATE FUNCTION trial.outcome(bytes bytea, number bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	content imgpipe.image;
BEGIN
	BEGIN
		content := imgpipe.image(bytes);
	EXCEPTION WHEN OTHERS THEN
		RETURN 'not taken: ' || SQLSTATE;
	END;
	CASE number % 3
		WHEN 0 THEN PERFORM imgpipe.verify_image(content);
		WHEN 1 THEN PERFORM imgpipe.image_exif(content), imgpipe.image_iptc(content);
		ELSE PERFORM imgpipe.image_xmp(content), imgpipe.image_icc_profile(content), imgpipe.image_info(content);
	END CASE;
	PERFORM imgpipe.process_image(content, trial.pipelines(number));
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	RETURN 'not processed: ' || SQLSTATE;
END$$;

-- What the pipeline makes of a file, in hexadecimal, or why it does not.
CREATE FUNCTION trial.process(path text, pipeline imgpipe.pipeline) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	RETURN 'done ' || encode(imgpipe.bytea(imgpipe.process_image(imgpipe.image(pg_read_binary_file(path)), pipeline)), 'hex');
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END$$;

CREATE FUNCTION trial.descriptors() RETURNS bigint LANGUAGE sql VOLATILE AS $$
	SELECT count(*) FROM pg_ls_dir('/proc/self/fd')
$$;

CREATE FUNCTION trial.children() RETURNS SETOF text LANGUAGE sql VOLATILE AS $$
	SELECT pid FROM string_to_table(pg_read_file(format('/proc/self/task/%s/children', pg_backend_pid())), ' ') AS pid WHERE pid <> ''
$$;

-- Most memory that the decoder of this backend has had, in kB.
CREATE FUNCTION trial.decoder_peak() RETURNS bigint LANGUAGE sql VOLATILE AS $$
	SELECT max(substring(pg_read_file(format('/proc/%s/status', pid)) FROM 'VmHWM:\s*(\d+)')::bigint) FROM trial.children() AS pid
$$;
