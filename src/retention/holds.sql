
/*
 * Legal holds; see src/retention/.
 *
 * A hold delays no purge.  When a partition is due, and before it is dropped,
 * the images in it that a hold is on are copied to held_images, whose
 * partitions are one for each hold: its release drops that.
 */

CREATE TABLE imgpipe.holds (
	hold_id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	case_reference text NOT NULL CHECK (case_reference OPERATOR(pg_catalog.<>) ''),
	until timestamptz,
	source text,
	source_key text,
	uploaded_by text,
	batch_id text,
	image_ids uuid[],
	received_from timestamptz,
	received_to timestamptz,
	held_by text NOT NULL DEFAULT SESSION_USER,
	held_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	ended boolean NOT NULL DEFAULT false,
	attempts integer NOT NULL DEFAULT 0,
	retry_at timestamptz NOT NULL DEFAULT '-infinity',
	last_error text,
	last_detail text,
	CHECK (source IS NOT NULL OR source_key IS NOT NULL OR uploaded_by IS NOT NULL OR batch_id IS NOT NULL
		OR image_ids IS NOT NULL OR received_from IS NOT NULL OR received_to IS NOT NULL)
);
COMMENT ON TABLE imgpipe.holds IS
'Legal holds in force; see hold_images(). An image is held where it meets all that is not NULL. A row goes with its release, together with what it says of persons.';
COMMENT ON COLUMN imgpipe.holds.until IS 'When the hold is released by itself; NULL: by release_hold().';
COMMENT ON COLUMN imgpipe.holds.ended IS 'What was held is gone and in the ledger; left is an empty table that could not be dropped.';
COMMENT ON COLUMN imgpipe.holds.retry_at IS 'Where its end failed: when it is tried again.';

CREATE TABLE imgpipe.held_images (
	hold_id integer NOT NULL,
	case_reference text NOT NULL,
	image_id uuid NOT NULL,
	content imgpipe.image NOT NULL,
	source text NOT NULL,
	source_partition integer,
	source_offset bigint,
	source_key text,
	source_timestamp timestamptz,
	batch_id text,
	uploaded_by text NOT NULL,
	received_at timestamptz NOT NULL,
	headers jsonb,
	results jsonb,
	held_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (hold_id, image_id)
) PARTITION BY LIST (hold_id);
ALTER TABLE imgpipe.held_images
	ALTER content SET STATISTICS 0, ALTER source_key SET STATISTICS 0, ALTER batch_id SET STATISTICS 0,
	ALTER uploaded_by SET STATISTICS 0, ALTER headers SET STATISTICS 0, ALTER results SET STATISTICS 0;
COMMENT ON TABLE imgpipe.held_images IS
'Images past their deadline that a legal hold keeps, once for each hold. Not fenced: grant SELECT to the role that may see them, and to nobody else. Renditions are not kept, they can be made again.';
COMMENT ON COLUMN imgpipe.held_images.results IS 'What processors returned for it: an array of the rows of imgpipe.results. Where these are too much for one jsonb, those of a megabyte and more have left_out_bytes, their size, in place of result.';

SELECT pg_catalog.pg_extension_config_dump('imgpipe.holds', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.holds_hold_id_seq', '');

-- One text for three statements, and not a function of the row: that would read the bytes of every image.
CREATE FUNCTION imgpipe.hold_condition() RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT '(h.source IS NULL OR h.source = i.source)
		AND (h.source_key IS NULL OR h.source_key = i.source_key)
		AND (h.uploaded_by IS NULL OR h.uploaded_by = i.uploaded_by)
		AND (h.batch_id IS NULL OR h.batch_id = i.batch_id)
		AND (h.image_ids IS NULL OR i.image_id = ANY (h.image_ids))
		AND (h.received_from IS NULL OR i.received_at >= h.received_from)
		AND (h.received_to IS NULL OR i.received_at < h.received_to)
		AND (h.until IS NULL OR h.until > clock_timestamp())'
$$;
COMMENT ON FUNCTION imgpipe.hold_condition() IS
'The condition, in SQL, that a hold h is on an image i.';
REVOKE EXECUTE ON FUNCTION imgpipe.hold_condition() FROM PUBLIC;

CREATE FUNCTION imgpipe.copy_held_images(images text, results text, only_images uuid[] DEFAULT NULL) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	-- An image that was erased while two holds are on it, and came back, is there already.
	statement CONSTANT text := 'WITH copied AS (
			INSERT INTO imgpipe.held_images (hold_id, case_reference, image_id, content, source, source_partition, source_offset,
				source_key, source_timestamp, batch_id, uploaded_by, received_at, headers, results)
			SELECT h.hold_id, h.case_reference, i.image_id, i.content, i.source, i.source_partition, i.source_offset,
				i.source_key, i.source_timestamp, i.batch_id, i.uploaded_by, i.received_at, i.headers, %s
			FROM %s i JOIN imgpipe.holds h ON %s
			WHERE $1 IS NULL OR i.image_id = ANY ($1)
			ON CONFLICT DO NOTHING
			RETURNING image_id)
		SELECT count(DISTINCT image_id) FROM copied';
	copied bigint;
BEGIN
	IF NOT EXISTS (SELECT FROM imgpipe.holds) THEN
		RETURN 0;
	END IF;
	BEGIN
		EXECUTE format(statement, coalesce('(SELECT jsonb_agg(to_jsonb(r) ORDER BY r.processor) FROM ' || results || ' r WHERE r.image_id = i.image_id)', 'NULL::jsonb'),
			images, imgpipe.hold_condition()) INTO copied USING only_images;
	EXCEPTION WHEN program_limit_exceeded THEN
		-- Nothing that a processor returns keeps an image from being purged: where it is too much for one jsonb, the large ones are left out.
		EXECUTE format(statement, format('(SELECT jsonb_agg(CASE WHEN k.together < 200000000 OR k.size < 1000000 THEN to_jsonb(k.r)
					ELSE jsonb_build_object(''image_id'', i.image_id, ''processor'', (k.r).processor, ''version'', (k.r).version, ''left_out_bytes'', k.size) END ORDER BY (k.r).processor)
				FROM (SELECT r, s.size, sum(s.size) OVER () AS together
					FROM %s r CROSS JOIN LATERAL (SELECT coalesce(pg_column_size(r.result #> ''{}''), 0) AS size) s WHERE r.image_id = i.image_id) k)', results),
			images, imgpipe.hold_condition()) INTO copied USING only_images;
	END;
	RETURN copied;
END
$$;
COMMENT ON FUNCTION imgpipe.copy_held_images(text, text, uuid[]) IS
'Copies the images that holds are on from a table like imgpipe.images (and their results from one like imgpipe.results) to held_images, and returns how many they are.';
REVOKE EXECUTE ON FUNCTION imgpipe.copy_held_images(text, text, uuid[]) FROM PUBLIC;

CREATE FUNCTION imgpipe.hold_images(case_reference text, until timestamptz DEFAULT NULL, source text DEFAULT NULL,
	source_key text DEFAULT NULL, uploaded_by text DEFAULT NULL, batch_id text DEFAULT NULL, image_ids uuid[] DEFAULT NULL,
	received_from timestamptz DEFAULT NULL, received_to timestamptz DEFAULT NULL) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	SET session_replication_role = replica
	SET lock_timeout = '1s'
AS $$
DECLARE
	new_id integer;
	matched bigint;
BEGIN
	IF coalesce(case_reference, '') = '' THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
			MESSAGE = 'a hold needs a case reference',
			HINT = 'imgpipe.release_hold() ends it by that name.';
	END IF;
	IF coalesce(source, source_key, uploaded_by, batch_id, image_ids::text, received_from::text, received_to::text) IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'a hold must say which images it is on',
			DETAIL = 'None of source, source_key, uploaded_by, batch_id, image_ids, received_from and received_to was given.',
			HINT = 'For example: SELECT imgpipe.hold_images(''2024-17'', uploaded_by => ''ada'');';
	END IF;
	IF until <= clock_timestamp() THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'a hold cannot end in the past',
			DETAIL = format('It would end at %s.', until),
			HINT = 'Without until it stays in force until imgpipe.release_hold().';
	END IF;
	IF received_from >= received_to OR image_ids = '{}' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'no image can meet this hold',
			DETAIL = format('received_from is %s, received_to %s, image_ids %s.', coalesce(received_from::text, 'NULL'),
				coalesce(received_to::text, 'NULL'), coalesce(image_ids::text, 'NULL')),
			HINT = 'received_from is inclusive and received_to exclusive; leave out what does not matter.';
	END IF;
	INSERT INTO imgpipe.holds AS h (case_reference, until, source, source_key, uploaded_by, batch_id, image_ids, received_from, received_to)
		VALUES (case_reference, until, source, source_key, uploaded_by, batch_id, image_ids, received_from, received_to)
		RETURNING h.hold_id INTO new_id;
	EXECUTE format('CREATE TABLE imgpipe_partitions.%I PARTITION OF imgpipe.held_images FOR VALUES IN (%s)', 'held_images_' || new_id, new_id);
	EXECUTE format('ALTER TABLE imgpipe_partitions.%I ALTER content SET STATISTICS 0, ALTER source_key SET STATISTICS 0,
		ALTER batch_id SET STATISTICS 0, ALTER uploaded_by SET STATISTICS 0, ALTER headers SET STATISTICS 0, ALTER results SET STATISTICS 0',
		'held_images_' || new_id);
	EXECUTE format('SELECT count(*) FROM imgpipe.images i JOIN imgpipe.holds h ON %s WHERE h.hold_id = %s', imgpipe.hold_condition(), new_id)
		INTO matched;
	PERFORM imgpipe.wake_controller();
	RETURN matched;
END
$$;
COMMENT ON FUNCTION imgpipe.hold_images(text, timestamptz, text, text, text, text, uuid[], timestamptz, timestamptz) IS
'Puts a legal hold on the images that meet all of what is given, those that are there and those that arrive while it is in force, and returns how many there are now. Their deadlines, who sees them and when they are purged do not change: when their partition is dropped they are copied to imgpipe.held_images, until the hold is released, at until or by release_hold(case_reference). Several holds may have one case reference. Raises 22004 without a case reference, 22023 where nothing says which images, none can be meant, or until is past. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.hold_images(text, timestamptz, text, text, text, text, uuid[], timestamptz, timestamptz) FROM PUBLIC;

CREATE FUNCTION imgpipe.fail_hold(failed integer, reason text, detail text) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	UPDATE imgpipe.holds h
		SET attempts = h.attempts + 1, last_error = reason, last_detail = detail, retry_at = clock_timestamp() + imgpipe.purge_back_off(h.attempts)
		WHERE h.hold_id = failed
$$;
COMMENT ON FUNCTION imgpipe.fail_hold(integer, text, text) IS
'Notes why the end of a hold did not succeed, and when it is tried again.';
REVOKE EXECUTE ON FUNCTION imgpipe.fail_hold(integer, text, text) FROM PUBLIC;

CREATE FUNCTION imgpipe.end_hold(hold_id integer) RETURNS bigint
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	held CONSTANT text := format('imgpipe_partitions.%I', 'held_images_' || hold_id);
	released bigint := 0;
	groups jsonb;
	disk_bytes bigint;
	dependents text;
BEGIN
	UPDATE imgpipe.holds h SET until = least(h.until, clock_timestamp()) WHERE h.hold_id = end_hold.hold_id;
	IF NOT FOUND THEN
		RETURN 0;
	END IF;
	IF to_regclass(held) IS NOT NULL THEN
		EXECUTE format('LOCK TABLE imgpipe.held_images, %s IN ACCESS EXCLUSIVE MODE', held);
		-- By sources that there are: of others there can be any number.
		EXECUTE format('SELECT jsonb_agg(to_jsonb(g)), coalesce(sum(g.images), 0) FROM (
				SELECT s.name AS source, count(*) AS images, sum(imgpipe.image_bytes(i.content)) AS bytes
					FROM %s i LEFT JOIN (SELECT name FROM imgpipe.sources UNION SELECT ''sql'') s ON s.name = i.source GROUP BY 1) g', held)
			INTO groups, released;
		disk_bytes := pg_total_relation_size(held);
		dependents := imgpipe.drop_purged(held);
		IF released > 0 THEN
			PERFORM imgpipe.enter_purge('release', NULL, NULL, jsonb_build_object('held_images', released),
				imgpipe.sum_of(groups, 'bytes'), disk_bytes, imgpipe.by_known_source(groups));
		END IF;
	END IF;
	IF dependents IS NULL THEN
		DELETE FROM imgpipe.holds h WHERE h.hold_id = end_hold.hold_id;
	ELSE
		UPDATE imgpipe.holds h SET ended = true WHERE h.hold_id = end_hold.hold_id;
		PERFORM imgpipe.fail_hold(hold_id, 'what was held is gone, but the empty table cannot be dropped', dependents);
	END IF;
	RETURN released;
END
$$;
COMMENT ON FUNCTION imgpipe.end_hold(integer) IS
'Ends the hold of that hold_id, drops its copies, enters that into the ledger, and returns how many they were. Where somebody''s view keeps their table, it is emptied.';
REVOKE EXECUTE ON FUNCTION imgpipe.end_hold(integer) FROM PUBLIC;

CREATE FUNCTION imgpipe.release_hold(case_reference text) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	SET session_replication_role = replica
	SET lock_timeout = '1s'
AS $$
DECLARE
	holds integer[];
	released bigint := 0;
	hold integer;
BEGIN
	SELECT array_agg(h.hold_id ORDER BY h.hold_id) INTO holds
		FROM imgpipe.holds h WHERE h.case_reference = release_hold.case_reference AND NOT h.ended;
	IF holds IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('there is no hold for case %s', coalesce('"' || case_reference || '"', 'NULL')),
			HINT = 'SELECT case_reference FROM imgpipe.holds; shows those that there are.';
	END IF;
	FOREACH hold IN ARRAY holds LOOP
		released := released + imgpipe.end_hold(hold);
	END LOOP;
	PERFORM imgpipe.wake_controller();
	RETURN released;
END
$$;
COMMENT ON FUNCTION imgpipe.release_hold(text) IS
'Ends the holds of a case, drops what was copied for them, at once, and returns how many copies that were; where somebody''s view keeps a table of them, it is emptied, and retention_report() names the view. Raises 42704 where there is no hold for that case, 55P03 where somebody keeps reading the copies for a second. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.release_hold(text) FROM PUBLIC;

CREATE FUNCTION imgpipe.end_next_hold() RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	due integer;
	error_detail text;
BEGIN
	SELECT h.hold_id INTO due FROM imgpipe.holds h
		WHERE h.until <= clock_timestamp() AND h.retry_at <= clock_timestamp() ORDER BY h.until, h.hold_id LIMIT 1;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	PERFORM imgpipe.end_hold(due);
	RETURN true;
EXCEPTION WHEN OTHERS THEN
	-- It keeps no other from its end, and is not tried again at once.
	GET STACKED DIAGNOSTICS error_detail = PG_EXCEPTION_DETAIL;
	PERFORM imgpipe.fail_hold(due, SQLERRM, nullif(error_detail, ''));
	RETURN true;
END
$$;
COMMENT ON FUNCTION imgpipe.end_next_hold() IS
'Ends the hold whose until is longest past; false where there is none to be ended now. Where that fails, retention_report() says why and when it is tried again.';
REVOKE EXECUTE ON FUNCTION imgpipe.end_next_hold() FROM PUBLIC;
