
/* Dead letters of both stages: another try, or out with them. */

CREATE FUNCTION imgpipe.own_dead_letter(dead_letter_id bigint) RETURNS imgpipe.dead_letters
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	letter imgpipe.dead_letters;
BEGIN
	SELECT * INTO letter FROM imgpipe.dead_letters d
		WHERE d.dead_letter_id = own_dead_letter.dead_letter_id AND d.image_id >= imgpipe.fence()
		FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('dead letter %s does not exist', coalesce(dead_letter_id::text, 'NULL')),
			DETAIL = 'It is not there, not any more, or past its deadline.',
			HINT = 'SELECT dead_letter_id, reason FROM imgpipe.dead_letters; shows those that are.';
	END IF;
	RETURN letter;
END
$$;
COMMENT ON FUNCTION imgpipe.own_dead_letter(bigint) IS
'The dead letter with that number, locked until the end of the transaction. Raises 42704 where there is none.';

CREATE FUNCTION imgpipe.retry_dead_letter(dead_letter_id bigint) RETURNS uuid
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	letter imgpipe.dead_letters := imgpipe.own_dead_letter(dead_letter_id);
	processor imgpipe.processors;
	source imgpipe.sources;
	envelope jsonb;
BEGIN
	IF letter.stage = 'ingest' THEN
		SELECT * INTO source FROM imgpipe.sources s WHERE s.name = letter.source;
		IF source.format = 'chunked' AND letter.headers ? 'imgpipe-chunk-id' THEN
			PERFORM imgpipe.check_chunks(letter);
		END IF;
		IF letter.value IS NULL THEN
			RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
				MESSAGE = format('dead letter %s has no value to try again', dead_letter_id),
				DETAIL = 'Its message was a tombstone: a key with a null value.',
				HINT = format('SELECT imgpipe.discard_dead_letter(%s);', dead_letter_id);
		END IF;
		IF source.format = 'json' THEN
			envelope := convert_from(letter.value, 'UTF8')::jsonb;
			letter.value := decode(envelope ->> source.content_field, 'base64');
			letter.headers := envelope - source.content_field || coalesce(letter.headers, '{}');
		END IF;
		INSERT INTO imgpipe.images (image_id, content, source, source_partition, source_offset, source_key, source_timestamp,
				headers, batch_id, uploaded_by)
			VALUES (letter.image_id, letter.value::imgpipe.image, letter.source, letter.source_partition, letter.source_offset,
				letter.source_key, letter.source_timestamp, letter.headers, coalesce(letter.headers #>> '{batch_id,0}', letter.headers ->> 'batch_id'),
				coalesce(letter.headers #>> '{uploaded_by,0}', letter.headers ->> 'uploaded_by',
					pg_get_userbyid(source.owner::oid)::text, session_user));
	ELSE
		processor := imgpipe.own_processor(letter.processor);
		PERFORM FROM imgpipe.images i WHERE i.image_id = letter.image_id;
		IF NOT FOUND THEN
			RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
				MESSAGE = format('the image of dead letter %s is gone', dead_letter_id),
				DETAIL = format('It was image %s.', letter.image_id),
				HINT = format('SELECT imgpipe.discard_dead_letter(%s);', dead_letter_id);
		END IF;
		INSERT INTO imgpipe.tasks AS t (image_id, processor_id, version)
			VALUES (letter.image_id, processor.processor_id, processor.version)
			ON CONFLICT ON CONSTRAINT tasks_image_id_processor_id_key DO NOTHING;
		PERFORM imgpipe.wake_controller();
		PERFORM imgpipe.require_workers(format('processor "%s" waits for workers', letter.processor), or_wait => true);
	END IF;
	DELETE FROM imgpipe.dead_letters d WHERE d.image_id = letter.image_id AND d.dead_letter_id = letter.dead_letter_id;
	PERFORM imgpipe.renew_result(letter.image_id, letter.source);
	RETURN letter.image_id;
END
$$;
COMMENT ON FUNCTION imgpipe.retry_dead_letter(bigint) IS
'Tries a dead letter again, and returns the image''s id. Of stage ingest: its value becomes an image with all that is known of where it came from, and with the deadline that the dead letter has; one that came in chunks only if all of them came (the rest may still be sent, and then it becomes an image by itself). Of stage processing: its image is queued again for the processor, in the present version. The dead letter is gone when the transaction commits, and stays as it is where this raises. Where the source has a result_topic or a notify_channel, the image gives another message, provided that the session''s user is a member of the source''s owner. Needs SELECT, UPDATE and DELETE on dead_letters and, by stage, INSERT on images, or SELECT on images, membership in the processor''s owner and INSERT on tasks; for images in chunks SELECT on chunks and chunked_images. Raises what an INSERT of the image raises (22P03, 54000 ...), 42704 where there is no such dead letter or processor, 55000 where there is no value or no image any more, 42501 for missing rights.';

CREATE FUNCTION imgpipe.retry_dead_letters(source text DEFAULT NULL, stage text DEFAULT NULL, processor text DEFAULT NULL,
	code text DEFAULT NULL, at_most integer DEFAULT 1000, OUT retried bigint, OUT failed bigint) RETURNS record
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	letter record;
	error_code text;
	error_message text;
	error_detail text;
BEGIN
	retried := 0;
	failed := 0;
	FOR letter IN SELECT d.image_id, d.dead_letter_id FROM imgpipe.dead_letters d
		WHERE d.image_id >= imgpipe.fence()
			AND (retry_dead_letters.source IS NULL OR d.source = retry_dead_letters.source)
			AND (retry_dead_letters.stage IS NULL OR d.stage = retry_dead_letters.stage)
			AND (retry_dead_letters.processor IS NULL OR d.processor = retry_dead_letters.processor)
			AND (code IS NULL OR d.sqlstate = code)
		ORDER BY d.attempts, d.dead_letter_id LIMIT at_most
	LOOP
		BEGIN
			PERFORM imgpipe.retry_dead_letter(letter.dead_letter_id);
			retried := retried + 1;
		EXCEPTION WHEN data_exception OR program_limit_exceeded OR integrity_constraint_violation OR undefined_object
				OR object_not_in_prerequisite_state THEN
			GET STACKED DIAGNOSTICS error_code = RETURNED_SQLSTATE, error_message = MESSAGE_TEXT, error_detail = PG_EXCEPTION_DETAIL;
			UPDATE imgpipe.dead_letters d SET attempts = d.attempts + 1, sqlstate = error_code, reason = error_message, detail = nullif(error_detail, '')
				WHERE d.image_id = letter.image_id AND d.dead_letter_id = letter.dead_letter_id;
			failed := failed + 1;
		END;
	END LOOP;
END
$$;
COMMENT ON FUNCTION imgpipe.retry_dead_letters(text, text, text, text, integer) IS
'retry_dead_letter() for the dead letters of a source, stage (ingest, processing), processor and SQLSTATE, each NULL for all, at most so many in this transaction, those first that were tried least. Returns how many could be tried again and how many could not: these stay, with one attempt more and the reason of now. Anything but a fault of the data itself, missing rights among them, is raised.';

CREATE FUNCTION imgpipe.discard_dead_letter(dead_letter_id bigint) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	letter imgpipe.dead_letters := imgpipe.own_dead_letter(dead_letter_id);
BEGIN
	IF letter.stage = 'ingest' AND letter.headers ? 'imgpipe-chunk-id' THEN
		DELETE FROM imgpipe.chunks c WHERE c.image_id = letter.image_id;
		DELETE FROM imgpipe.chunked_images c WHERE c.image_id = letter.image_id;
	END IF;
	DELETE FROM imgpipe.dead_letters d WHERE d.image_id = letter.image_id AND d.dead_letter_id = letter.dead_letter_id;
END
$$;
COMMENT ON FUNCTION imgpipe.discard_dead_letter(bigint) IS
'Deletes a dead letter before its deadline. Needs SELECT, UPDATE and DELETE on imgpipe.dead_letters, and for an image in chunks, which are deleted with it, SELECT and DELETE on imgpipe.chunks and chunked_images. Raises 42704 where there is none.';
