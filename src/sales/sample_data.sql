
/*
 * Sample data for the example sales schema; see src/sales/.
 *
 * No random(): what a row is like follows from the seed and its number, so that the
 * same call makes the same rows whatever plan PostgreSQL chooses.
 */

CREATE FUNCTION imgpipe.sample_fraction(seed bigint, property text, number bigint) RETURNS double precision
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (pg_catalog.hashint8extended(number, pg_catalog.hashtextextended(property, seed)) OPERATOR(pg_catalog.&) 9007199254740991)::double precision
	OPERATOR(pg_catalog./) 9007199254740992;
COMMENT ON FUNCTION imgpipe.sample_fraction(bigint, text, bigint) IS
'A number from 0 inclusive to 1 exclusive that looks like chance, and is the same for the same arguments.';

CREATE FUNCTION imgpipe.reserve_numbers(table_name text, column_name text, numbers bigint) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	sequence CONSTANT regclass := pg_get_serial_sequence(table_name, column_name);
	first bigint;
BEGIN
	EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', table_name);
	first := nextval(sequence);
	PERFORM setval(sequence, first + numbers - 1);
	RETURN first;
END
$$;
COMMENT ON FUNCTION imgpipe.reserve_numbers(text, text, bigint) IS
'Takes numbers in a row from the sequence of an identity column and returns the first. Locks the table against writers until the end of the transaction, so that nobody takes one of them. table_name is quoted as SQL wants it.';

CREATE FUNCTION imgpipe.load_sample_data(transactions integer, schema_name name DEFAULT 'sales', seed bigint DEFAULT 1,
	until timestamptz DEFAULT pg_catalog.now(),
	OUT members bigint, OUT items bigint, OUT item_versions bigint, OUT loaded_transactions bigint, OUT transaction_items bigint) RETURNS record
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
	period CONSTANT interval := '2160 hours';	-- 90 days, in no time zone
	began CONSTANT timestamptz := until - period;
	owner name;
	first_member bigint;
	first_item bigint;
	first_transaction bigint;
BEGIN
	IF (transactions BETWEEN 1 AND 10000000) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'the number of transactions must be between 1 and 10000000',
			DETAIL = format('It is %s.', coalesce(transactions::text, 'NULL')),
			HINT = 'For example: SELECT * FROM imgpipe.load_sample_data(1000);';
	END IF;
	IF seed IS NULL OR isfinite(until) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'sample data needs a seed and a time',
			DETAIL = format('seed is %s, until is %s.', coalesce(seed::text, 'NULL'), coalesce(until::text, 'NULL')),
			HINT = 'Leave them out for 1 and now.';
	END IF;
	IF to_regclass(quote_ident(schema_name) || '.transaction_items') IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_schema_name',
			MESSAGE = format('there is no sales schema %s', coalesce('"' || schema_name || '"', 'NULL')),
			DETAIL = 'It has no table transaction_items.',
			HINT = 'imgpipe.create_sales_schema() creates one.';
	END IF;
	-- A superuser would run what others have put on their tables: triggers, checks, defaults.
	SELECT r.rolname INTO owner FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
		WHERE c.oid = ANY (ARRAY(SELECT to_regclass(format('%I.%I', schema_name, t)) FROM unnest('{members,items,transactions,transaction_items}'::text[]) t))
			AND r.rolname <> current_user
			AND (NOT pg_has_role(r.oid, 'USAGE') OR (SELECT u.rolsuper FROM pg_roles u WHERE u.rolname = current_user))
		LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = format('sample data for schema "%s" must be loaded by its owner', schema_name),
			DETAIL = format('Tables in it belong to role %I.', owner),
			HINT = format('SET ROLE %I; first.', owner);
	END IF;

	members := greatest(10, transactions / 8);
	items := least(2000, greatest(20, transactions / 50));
	first_member := imgpipe.reserve_numbers(format('%I.members', schema_name), 'member_id', members);
	first_item := imgpipe.reserve_numbers(format('%I.items', schema_name), 'item_id', items);
	first_transaction := imgpipe.reserve_numbers(format('%I.transactions', schema_name), 'transaction_id', transactions);

	-- $1 seed, $2 the first number, $3 how many, $4 until
	EXECUTE format($sql$
		INSERT INTO %I.members (member_id, membership_status, joined_at, name, email, phone, birth_date,
			street, postal_code, city, country, latitude, longitude) OVERRIDING SYSTEM VALUE
		SELECT n, (ARRAY['basic', 'basic', 'basic', 'basic', 'basic', 'basic', 'silver', 'silver', 'gold', 'platinum'])[1 + floor(10 * chance.status)::integer],
			$4 - (90 + 2000 * chance.joined) * interval '24 hours', person.first || ' ' || person.last,
			lower(person.first || '.' || person.last) || n || '@example.com',
			format('+1 %%s 555 01%%s', 201 + floor(700 * chance.area), lpad(floor(100 * chance.phone)::text, 2, '0')), date '1940-01-01' + floor(25000 * chance.birth)::integer,
			format('%%s %%s', (ARRAY['Station Road', 'Mill Lane', 'Park Street', 'Harbour Way', 'Church Street', 'Garden Row',
				'Bridge Street', 'Market Square', 'Orchard Close', 'High Street'])[1 + floor(10 * chance.street)::integer], 1 + floor(180 * chance.house)::integer),
			lpad(floor(100000 * chance.postal)::text, 5, '0'), place.city, place.country,
			place.latitude + round((0.1 * (chance.north - 0.5))::numeric, 6), place.longitude + round((0.1 * (chance.east - 0.5))::numeric, 6)
		FROM generate_series($2, $2 + $3 - 1) n,
			LATERAL (SELECT imgpipe.sample_fraction($1, 'status', n) AS status, imgpipe.sample_fraction($1, 'joined', n) AS joined,
				imgpipe.sample_fraction($1, 'area', n) AS area, imgpipe.sample_fraction($1, 'phone', n) AS phone,
				imgpipe.sample_fraction($1, 'birth', n) AS birth, imgpipe.sample_fraction($1, 'street', n) AS street, imgpipe.sample_fraction($1, 'house', n) AS house,
				imgpipe.sample_fraction($1, 'postal', n) AS postal, imgpipe.sample_fraction($1, 'north', n) AS north,
				imgpipe.sample_fraction($1, 'east', n) AS east) chance,
			LATERAL (SELECT (ARRAY['Ada', 'Ben', 'Carla', 'Dinesh', 'Elif', 'Farid', 'Grace', 'Hiro', 'Ines', 'Jonas', 'Katja', 'Liam',
					'Mei', 'Nadia', 'Omar', 'Paula', 'Quentin', 'Rosa', 'Sven', 'Tomoko'])[1 + floor(20 * imgpipe.sample_fraction($1, 'first', n))::integer] AS first,
				(ARRAY['Almeida', 'Becker', 'Chen', 'Dubois', 'Eriksen', 'Fischer', 'Garcia', 'Haddad', 'Ito', 'Jensen', 'Kowalski', 'Lopez',
					'Moreau', 'Novak', 'Okafor', 'Patel', 'Rossi', 'Silva', 'Tanaka', 'Weber'])[1 + floor(20 * imgpipe.sample_fraction($1, 'last', n))::integer] AS last) person,
			(VALUES
				(0, 'Berlin', 'DE', 52.52, 13.405), (1, 'Hamburg', 'DE', 53.551, 9.994), (2, 'Paris', 'FR', 48.857, 2.352),
				(3, 'Lyon', 'FR', 45.764, 4.836), (4, 'Madrid', 'ES', 40.417, -3.704), (5, 'Milan', 'IT', 45.464, 9.19),
				(6, 'Vienna', 'AT', 48.208, 16.373), (7, 'Warsaw', 'PL', 52.23, 21.012), (8, 'Lisbon', 'PT', 38.722, -9.139),
				(9, 'Copenhagen', 'DK', 55.676, 12.568), (10, 'London', 'GB', 51.507, -0.128), (11, 'Dublin', 'IE', 53.35, -6.26))
				place (number, city, country, latitude, longitude)
		WHERE place.number = floor(12 * power(imgpipe.sample_fraction($1, 'place', n), 1.5))::integer
		$sql$, schema_name) USING seed, first_member, members, until;

	-- From one to three versions each, the first of them from before the first sale; one in twenty is retired at the end.
	EXECUTE format($sql$
		INSERT INTO %I.items (item_id, version, validity, is_active, name, manufacturer, price, cost, weight)
		SELECT n, version, tstzrange(begins, lead(begins) OVER (PARTITION BY n ORDER BY version)), version <> retired, name, manufacturer,
			round(base * 1.06 ^ (version - 1), 2), round(base * share, 2), weight
		FROM (SELECT n, thing.kind || ' ' || (ARRAY['Basic', 'Classic', 'Compact', 'Pro', 'Travel', 'Home', 'Studio', 'Max'])[1 + floor(8 * chance.line)::integer] AS name,
				(ARRAY['Nordwerk', 'Alba', 'Kestrel', 'Oriel', 'Tanuki', 'Brightfield'])[1 + floor(6 * chance.maker)::integer] AS manufacturer,
				(thing.price * (0.6 + 0.9 * chance.price))::numeric AS base, (0.4 + 0.3 * chance.cost)::numeric AS share,
				(thing.weight * (0.8 + 0.4 * chance.weight))::numeric(10, 3) AS weight, 1 + floor(3 * chance.versions)::integer AS versions,
				CASE WHEN chance.retirement < 0.05 THEN 2 + floor(3 * chance.versions)::integer ELSE 0 END AS retired
			FROM generate_series($2, $2 + $3 - 1) n,
				LATERAL (SELECT imgpipe.sample_fraction($1, 'line', n) AS line, imgpipe.sample_fraction($1, 'maker', n) AS maker,
					imgpipe.sample_fraction($1, 'price', n) AS price, imgpipe.sample_fraction($1, 'cost', n) AS cost,
					imgpipe.sample_fraction($1, 'weight', n) AS weight, imgpipe.sample_fraction($1, 'versions', n) AS versions,
					imgpipe.sample_fraction($1, 'retirement', n) AS retirement) chance,
				(VALUES
					(0, 'Camera', 480, 0.65), (1, 'Tripod', 90, 1.6), (2, 'Lens', 350, 0.5), (3, 'Camera bag', 70, 0.9), (4, 'Memory card', 30, 0.012),
					(5, 'Flash', 140, 0.4), (6, 'Photo printer', 260, 7.8), (7, 'Picture frame', 25, 0.7), (8, 'Photo paper', 18, 0.45), (9, 'Monitor', 390, 5.2),
					(10, 'Battery', 35, 0.08), (11, 'Studio lamp', 160, 2.3))
					thing (number, kind, price, weight)
			WHERE thing.number = floor(12 * imgpipe.sample_fraction($1, 'thing', n))::integer) item,
			LATERAL (SELECT version, CASE version WHEN retired THEN $4
					ELSE $5 + $6 * ((version - 1.0 + 0.5 * imgpipe.sample_fraction($1, 'begin', 4 * n + version) * least(version - 1, 1)) / versions) END AS begins
				FROM generate_series(1, greatest(versions, retired)) version) history
		$sql$, schema_name) USING seed, first_item, items, until, began, period;
	GET DIAGNOSTICS item_versions = ROW_COUNT;

	-- Evenly over the time, and sent within two days; a few members buy more than others.
	EXECUTE format($sql$
		INSERT INTO %I.transactions (transaction_id, member_id, status, created_at, completed_at) OVERRIDING SYSTEM VALUE
		SELECT n, member_id, CASE WHEN cancelled THEN 'cancelled' WHEN sent_at <= $4 THEN 'completed' ELSE 'pending' END, created_at,
			CASE WHEN NOT cancelled AND sent_at <= $4 THEN sent_at END
		FROM (SELECT n, $7 + floor($8 * power(imgpipe.sample_fraction($1, 'member', n), 1.6))::bigint AS member_id,
				imgpipe.sample_fraction($1, 'cancelled', n) < 0.04 AS cancelled, created_at,
				created_at + (1 + 47 * imgpipe.sample_fraction($1, 'sent', n)) * interval '1 hour' AS sent_at
			FROM generate_series($2, $2 + $3 - 1) n,
				LATERAL (SELECT least($5 + $6 * ((n - $2 + imgpipe.sample_fraction($1, 'created', n)) / $3), $4 - interval '1 microsecond') AS created_at) moment) sale
		$sql$, schema_name) USING seed, first_transaction, transactions, until, began, period, first_member, members;
	GET DIAGNOSTICS loaded_transactions = ROW_COUNT;

	EXECUTE format('ANALYZE %1$I.members, %1$I.items, %1$I.transactions', schema_name);

	-- From one to five items each, at the price of that moment; a few items sell best.
	EXECUTE format($sql$
		INSERT INTO %1$I.transaction_items (transaction_id, item_id, quantity, price)
		SELECT line.transaction_id, line.item_id, line.quantity, i.price
		FROM (SELECT n AS transaction_id, $4 + floor($5 * power(imgpipe.sample_fraction($1, 'item', 8 * n + line), 2))::bigint AS item_id,
				sum(1 + floor(3 * power(imgpipe.sample_fraction($1, 'quantity', 8 * n + line), 3)))::integer AS quantity
			FROM generate_series($2, $2 + $3 - 1) n, generate_series(1, 1 + floor(5 * power(imgpipe.sample_fraction($1, 'lines', n), 2))::integer) line
			GROUP BY 1, 2) line
		JOIN %1$I.transactions t ON t.transaction_id = line.transaction_id
		JOIN %1$I.items i ON i.item_id = line.item_id AND i.validity @> t.created_at
		ORDER BY 1, 2
		$sql$, schema_name) USING seed, first_transaction, transactions, first_item, items;
	GET DIAGNOSTICS transaction_items = ROW_COUNT;

	EXECUTE format('ANALYZE %I.transaction_items', schema_name);
END
$function$;
COMMENT ON FUNCTION imgpipe.load_sample_data(integer, name, bigint, timestamptz) IS
'Fills a schema of create_sales_schema() with that many made-up transactions of the 90 days before until, with members (one for each 8 transactions), items with their history (one for each 50, at most 2000) and lines, and returns how many rows of each were added. The same arguments make the same rows in an empty schema; what is there already stays. No name, address (example.com) or telephone number is anybody''s. The items have no pictures. Others cannot write to these tables meanwhile. transactions: 1 to 10000000. Raises 22023 for arguments out of bounds, 3F000 where there is no such schema, 42501 where its tables are another role''s: triggers that somebody has put on them would run as the caller.';
