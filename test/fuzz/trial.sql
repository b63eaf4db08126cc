-- For tests that throw hostile files at one backend: what becomes of each, and what the backend holds then.
CREATE SCHEMA trial;

-- From 0 to 1, the same for the same number and word.
CREATE FUNCTION trial.random(number bigint, word text) RETURNS double precision LANGUAGE sql AS $$
	SELECT hashtextextended(word, number) / 2.0 ^ 64 + 0.5
$$;

-- A step of the operation with arguments by chance, as text; those that do not go together are tried again.
CREATE FUNCTION trial.step(name text, number bigint) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	step text;
BEGIN
	FOR attempt IN 0 .. 500 LOOP
		SELECT name || coalesce('(' || string_agg(argument || '=' || CASE type
				WHEN 'integer' THEN floor(lowest + r * (highest - lowest))::text
				WHEN 'number' THEN round((lowest + r * (highest - lowest))::numeric, 3)::text
				WHEN 'boolean' THEN (r < 0.5)::text
				WHEN 'word' THEN words[1 + floor(r * cardinality(words))]
				WHEN 'color' THEN left('#' || lpad(to_hex((r * 4294967295)::bigint), 8, '0'), 7 + 2 * (attempt % 2))
				WHEN 'text' THEN quote_literal(left('Aé 7?Ωx', 1 + (r * 6)::integer)) END, ', ') || ')', '')
			INTO step
			FROM (SELECT *, trial.random(number * 512 + attempt, name || argument) AS r,
					greatest(minimum, -200) AS lowest, least(maximum, CASE
						WHEN argument = 'max_bytes' THEN 20000
						WHEN name = 'pages' THEN 3
						WHEN name = 'crop' THEN 12
						ELSE 200 END) AS highest
				FROM imgpipe.pipeline_operations()
				WHERE operation = name AND argument IS NOT NULL AND
					(required OR name = 'resize' OR trial.random(number * 512 + attempt, argument || name) < 0.4)) chosen;
		BEGIN
			PERFORM step::imgpipe.pipeline;
			RETURN step;
		EXCEPTION WHEN OTHERS THEN
			CONTINUE;
		END;
	END LOOP;
	RAISE 'no valid step of %, such as %', name, step;
END$$;

-- The names of a kind of operations, in an order of their own.
CREATE FUNCTION trial.operations(kind text) RETURNS text[] LANGUAGE sql AS $$
	SELECT array_agg(DISTINCT operation ORDER BY operation) FROM imgpipe.pipeline_operations() o WHERE o.kind = operations.kind
$$;

-- A pipeline by chance, most often on a small image: the number goes round all transforms and all encoders.
CREATE FUNCTION trial.pipeline(number bigint) RETURNS imgpipe.pipeline LANGUAGE sql AS $$
	SELECT string_agg(CASE name WHEN 'small' THEN 'resize(width=300, height=300)' ELSE trial.step(name, number) END,
		' | ' ORDER BY place)::imgpipe.pipeline
	FROM (SELECT trial.operations('transform') AS transforms, trial.operations('encoder') AS encoders) o,
		LATERAL (VALUES
			(1, CASE WHEN number % 5 = 0 THEN 'pages' END), (2, CASE WHEN number % 7 = 0 THEN 'autorotate' END),
			(3, CASE WHEN number % 8 > 0 THEN 'small' END),
			(4, transforms[1 + number % cardinality(transforms)]),
			(5, CASE WHEN number % 2 = 0 THEN transforms[1 + number / 2 % cardinality(transforms)] END),
			(6, CASE WHEN number % 3 = 0 THEN 'keep' END),
			(7, encoders[1 + number / 3 % cardinality(encoders)])) steps(place, name)
	WHERE name IS NOT NULL
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
	IF number % 4 = 0 THEN
		PERFORM imgpipe.process_image(content, ARRAY[trial.pipeline(number), 'resize(width=64) | webp', 'keep | png']);
	ELSE
		PERFORM imgpipe.process_image(content, trial.pipeline(number), imgpipe.thumbnail(content, 50, 50));
	END IF;
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
