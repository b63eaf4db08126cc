

/*
 * Masks, and the views that apply them; see src/access/.
 *
 * The set of masks is closed: expressions of users' would run with the rights
 * of the views' owner.  What does not fit a column's type hides it.  A masked
 * value is made of nothing but built-in types, functions and operators, and a
 * view is a security barrier: a reader's own function sees masked values only.
 */

CREATE FUNCTION imgpipe.mask_partial(value text) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN pg_catalog.left(value, CASE WHEN pg_catalog.length(value) OPERATOR(pg_catalog.>) 2 THEN 1 ELSE 0 END) OPERATOR(pg_catalog.||) '***';
COMMENT ON FUNCTION imgpipe.mask_partial(text) IS
'The first character, and *** for the others, however many they are; *** alone for up to two characters.';

CREATE FUNCTION imgpipe.mask_email(value text) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN CASE WHEN value OPERATOR(pg_catalog.~) '^[^@]+@[^@]+$'
		THEN pg_catalog.left(value, 1) OPERATOR(pg_catalog.||) '***@' OPERATOR(pg_catalog.||) pg_catalog.split_part(value, '@', 2)
		ELSE '***' END;
COMMENT ON FUNCTION imgpipe.mask_email(text) IS
'The first character and the domain of an e-mail address: a***@example.com; *** for what is none.';

CREATE FUNCTION imgpipe.mask_phone(value text) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN '***' OPERATOR(pg_catalog.||) CASE WHEN pg_catalog.length(pg_catalog.regexp_replace(value, '[^0-9]', '', 'g')) OPERATOR(pg_catalog.>=) 6
		THEN pg_catalog.right(pg_catalog.regexp_replace(value, '[^0-9]', '', 'g'), 2) ELSE '' END;
COMMENT ON FUNCTION imgpipe.mask_phone(text) IS
'*** and the last two digits of a telephone number; *** alone where it has less than six.';

CREATE FUNCTION imgpipe.mask_hash(value text, inner_pad bytea, outer_pad bytea) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN pg_catalog.encode(pg_catalog.sha256(outer_pad OPERATOR(pg_catalog.||)
		pg_catalog.sha256(inner_pad OPERATOR(pg_catalog.||) pg_catalog.convert_to(value, 'UTF8'))), 'hex');
COMMENT ON FUNCTION imgpipe.mask_hash(text, bytea, bytea) IS
'HMAC-SHA-256 (RFC 2104) of a value, in hexadecimal, by the two padded forms of a key in imgpipe.mask_keys: equal values have equal hashes, and who does not know the key cannot try values.';

CREATE FUNCTION imgpipe.mask_year(value date) RETURNS integer
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN CASE WHEN pg_catalog.isfinite(value) THEN pg_catalog.date_part('year', value)::integer END;
COMMENT ON FUNCTION imgpipe.mask_year(date) IS 'The year of a date.';

CREATE FUNCTION imgpipe.mask_coordinate(value numeric) RETURNS numeric
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN pg_catalog.round(value, 1);
COMMENT ON FUNCTION imgpipe.mask_coordinate(numeric) IS
'A latitude or longitude in degrees, rounded to a tenth: 11 km.';

CREATE FUNCTION imgpipe.mask_exif(value jsonb) RETURNS jsonb
	LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN CASE jsonb_typeof(value)
		WHEN 'object' THEN (SELECT coalesce(jsonb_object_agg(e.key, imgpipe.mask_exif(e.value)), '{}') FROM jsonb_each(value) e
			WHERE e.key !~* '^gps|gps$|latitude|longitude|^altitude$|serial|makernote|^imageuniqueid$|^(camera)?ownername$|location|address')
		WHEN 'array' THEN (SELECT coalesce(jsonb_agg(imgpipe.mask_exif(e.value) ORDER BY e.position), '[]') FROM jsonb_array_elements(value) WITH ORDINALITY e (value, position))
		ELSE value END;
END
$$;
COMMENT ON FUNCTION imgpipe.mask_exif(jsonb) IS
'EXIF data, as image_exif() returns it or anywhere within other JSON, without places (GPS, latitude, longitude, altitude) and without what tells one camera or owner from another (serial numbers, MakerNote, ImageUniqueID, CameraOwnerName).';


/* Which mask is where. */

CREATE TABLE imgpipe.access_masks (
	schema_name name NOT NULL,
	table_name name NOT NULL,
	column_name name NOT NULL,
	mask text NOT NULL CHECK (mask OPERATOR(pg_catalog.=) ANY ('{none,hide,partial,email,phone,hash,year_of_birth,coordinates,exif}')),
	PRIMARY KEY (schema_name, table_name, column_name)
);
COMMENT ON TABLE imgpipe.access_masks IS
'How columns appear in the views of masked rules; set by set_mask(), goes before what templates say in imgpipe.template_masks.';

CREATE TABLE imgpipe.mask_keys (
	schema_name name PRIMARY KEY,
	inner_pad bytea NOT NULL,
	outer_pad bytea NOT NULL
);
COMMENT ON TABLE imgpipe.mask_keys IS
'The keys of the mask hash, one for each schema. Grant nobody SELECT here but the owners of schemas with masks: who knows the key can try which value a hash is of.';
REVOKE ALL ON imgpipe.mask_keys FROM PUBLIC;

CREATE TABLE imgpipe.access_views (
	schema_name name NOT NULL,
	view_name name NOT NULL,
	base_schema name NOT NULL,
	definition text NOT NULL,
	stored text NOT NULL,
	PRIMARY KEY (schema_name, view_name)
);
COMMENT ON TABLE imgpipe.access_views IS
'The views that apply_access() has made: as it wrote them, and as PostgreSQL stored them, to see whether somebody changed one.';

SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_masks', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.mask_keys', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_views', '');

CREATE FUNCTION imgpipe.new_mask_key(schema_name name) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	key CONSTANT bytea := sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
	inner_pad bytea := decode(repeat('36', 64), 'hex');
	outer_pad bytea := decode(repeat('5c', 64), 'hex');
BEGIN
	PERFORM imgpipe.check_schema(schema_name);
	FOR i IN 0 .. length(key) - 1 LOOP
		inner_pad := set_byte(inner_pad, i, get_byte(inner_pad, i) # get_byte(key, i));
		outer_pad := set_byte(outer_pad, i, get_byte(outer_pad, i) # get_byte(key, i));
	END LOOP;
	INSERT INTO imgpipe.mask_keys VALUES (schema_name, inner_pad, outer_pad)
		ON CONFLICT ON CONSTRAINT mask_keys_pkey DO UPDATE SET inner_pad = EXCLUDED.inner_pad, outer_pad = EXCLUDED.outer_pad;
	PERFORM imgpipe.log_access('new mask key', NULL, format('%I', schema_name));
END
$$;
COMMENT ON FUNCTION imgpipe.new_mask_key(name) IS
'Gives a schema a new secret key for the mask hash: from now on, all hashes in its views are others. The first key is made by apply_access(). Raises 3F000 for a schema.';

CREATE FUNCTION imgpipe.set_mask(masked_table regclass, column_name name, mask text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	place record;
BEGIN
	IF mask IS NOT NULL AND mask <> ALL ('{none,hide,partial,email,phone,hash,year_of_birth,coordinates,exif}') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = format('there is no mask "%s"', mask),
			HINT = 'Give none, hide, partial, email, phone, hash, year_of_birth, coordinates or exif; NULL for what the template says.';
	END IF;
	IF masked_table IS NULL OR (column_name = '*'
			OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = masked_table AND a.attname = set_mask.column_name AND a.attnum > 0 AND NOT a.attisdropped)) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_column',
			MESSAGE = format('column %s of %s does not exist', coalesce('"' || column_name || '"', 'NULL'), coalesce(masked_table::text, 'NULL')),
			HINT = 'Give a column of the table, or * for all that have no mask of their own.';
	END IF;
	SELECT n.nspname, c.relname INTO place FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = masked_table;
	IF mask IS NULL THEN
		DELETE FROM imgpipe.access_masks m WHERE (m.schema_name, m.table_name, m.column_name) = (place.nspname, place.relname, set_mask.column_name);
	ELSE
		INSERT INTO imgpipe.access_masks AS m VALUES (place.nspname, place.relname, set_mask.column_name, mask)
			ON CONFLICT ON CONSTRAINT access_masks_pkey DO UPDATE SET mask = EXCLUDED.mask;
	END IF;
	PERFORM imgpipe.log_access('set mask', NULL, format('%s (%I): %s', masked_table, column_name, coalesce(mask, 'as the template says')));
END
$$;
COMMENT ON FUNCTION imgpipe.set_mask(regclass, name, text) IS
'Says how a column appears in the views of masked rules; the next plan changes these views. Masks: none; hide (NULL); partial, email, phone (of text; see mask_partial(), mask_email(), mask_phone()); hash (HMAC-SHA-256 with a key that readers do not know); year_of_birth (of a date or a timestamp); coordinates (of numbers and points, to a tenth of a degree); exif (of jsonb; see mask_exif()). One that does not fit the type of the column hides it. Column * is for those without a mask of their own. NULL: what the template says. Raises 22023 for a mask, 42703 for a column.';

CREATE FUNCTION imgpipe.masked_expression(column_name name, mask text, type oid, base_schema name) RETURNS text
	LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	-- Of a domain the type below it; what is no built-in type has casts and output functions that are none either.
	base oid := (SELECT CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END FROM pg_type t WHERE t.oid = type);
	plain CONSTANT text := format('b.%I', column_name);
	expression text;
BEGIN
	IF mask = 'none' THEN
		RETURN plain;
	END IF;
	IF (SELECT t.typnamespace <> 'pg_catalog'::regnamespace OR t.typtype <> 'b' FROM pg_type t WHERE t.oid = base) THEN
		base := 'text'::regtype;
	ELSE
		expression := CASE
			WHEN mask IN ('partial', 'email', 'phone') AND base = ANY ('{text,varchar,bpchar,name}'::regtype[])
				THEN format('imgpipe.mask_%s(%s::pg_catalog.text)', mask, plain)
			WHEN mask = 'hash'
				THEN format('imgpipe.mask_hash(%s::pg_catalog.text, (SELECT k.inner_pad FROM imgpipe.mask_keys k WHERE k.schema_name OPERATOR(pg_catalog.=) %2$L::pg_catalog.name), (SELECT k.outer_pad FROM imgpipe.mask_keys k WHERE k.schema_name OPERATOR(pg_catalog.=) %2$L::pg_catalog.name))', plain, base_schema)
			WHEN mask = 'year_of_birth' AND base = ANY ('{date,timestamp,timestamptz}'::regtype[])
				THEN format('imgpipe.mask_year(%s::pg_catalog.date)', plain)
			WHEN mask = 'coordinates' AND base = ANY ('{numeric,float8,float4}'::regtype[])
				THEN format('imgpipe.mask_coordinate(%s::pg_catalog.numeric)', plain)
			WHEN mask = 'coordinates' AND base = 'point'::regtype
				THEN format('pg_catalog.point(imgpipe.mask_coordinate((%s)[0]::pg_catalog.numeric)::pg_catalog.float8, imgpipe.mask_coordinate((%1$s)[1]::pg_catalog.numeric)::pg_catalog.float8)', plain)
			WHEN mask = 'exif' AND base = 'jsonb'::regtype
				THEN format('imgpipe.mask_exif(%s)', plain) END;
	END IF;
	RETURN format('%s AS %I', coalesce(expression, 'NULL::' || format_type(base, NULL)), column_name);
END
$$;
COMMENT ON FUNCTION imgpipe.masked_expression(name, text, oid, name) IS
'A column b.column_name of that type, masked, for the SELECT list of a view.';
