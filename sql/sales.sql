-- The example sales schema: items with history, sales, their views, sample data; whose it is.
\set SHOW_CONTEXT never
DO $$BEGIN IF imgpipe.workers_available() THEN PERFORM imgpipe.stop_workers(); END IF; END$$;
SET timezone = 'UTC';
CREATE ROLE regress_sales_owner;
CREATE ROLE regress_sales_clerk;
GRANT USAGE ON SCHEMA imgpipe TO regress_sales_owner;
SELECT format('GRANT CREATE ON DATABASE %I TO regress_sales_owner', current_database()) \gexec

-- it belongs to who creates it, and nobody else has anything
SET ROLE regress_sales_owner;
SELECT imgpipe.create_sales_schema(time_zone => 'Europe/Berlin');
RESET ROLE;
SELECT relkind, relname, relowner::regrole, relacl FROM pg_class WHERE relnamespace = 'sales'::regnamespace AND relkind IN ('r', 'v', 'S') ORDER BY 1, 2;
SELECT oid::regprocedure, prosecdef, proacl, proconfig FROM pg_proc WHERE pronamespace = 'sales'::regnamespace ORDER BY oid::regprocedure::text;
SELECT nspowner::regrole, nspacl, obj_description(oid) FROM pg_namespace WHERE nspname = 'sales';
SELECT count(*) AS members_of_the_extension FROM pg_depend d JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND e.extname = 'imgpipe'
	WHERE d.classid = 'pg_class'::regclass AND d.objid IN (SELECT oid FROM pg_class WHERE relnamespace = 'sales'::regnamespace);
SELECT relname FROM pg_class WHERE relnamespace = 'sales'::regnamespace AND relkind IN ('r', 'v') AND obj_description(oid) IS NULL;
SELECT oid::regprocedure FROM pg_proc WHERE pronamespace = 'sales'::regnamespace AND obj_description(oid) IS NULL;
SET ROLE regress_sales_owner;
SET search_path = sales;

-- items: adding, changing, retiring
SELECT add_item('Tripod', price => 90, cost => 40.5, weight => 1.6, manufacturer => 'Oriel') AS tripod \gset
SELECT add_item('Lens', 350, 200, 0.5, 'Kestrel', '0196f0c2-0000-8000-8000-000000000001') AS lens \gset
SELECT update_item(:tripod, price => 95);
SELECT update_item(:tripod, price => 95.001, name => 'Tripod') AS nothing_new;
SELECT update_item(:tripod, weight => 1.75, manufacturer => 'Alba');
SELECT update_item(:lens, image_id => '0196f0c2-0000-8000-8000-000000000002'), update_item(:lens, remove_image => true);
SELECT retire_item(:lens), retire_item(:lens) AS again;
SELECT update_item(:lens, is_active => true) AS back;
SELECT item_id, version, is_current, is_active, name, manufacturer, price, cost, weight, image_id,
	lower(validity) = lag(upper(validity)) OVER (PARTITION BY item_id ORDER BY version) AS follows
	FROM items ORDER BY 1, 2;
SELECT version, price, weight FROM items_as_of((SELECT lower(validity) FROM items WHERE item_id = :tripod AND version = 2)) WHERE item_id = :tripod;
SELECT count(*) FROM items_as_of('2000-01-01');
SELECT array_agg(version) FROM items_as_of('infinity');

-- what items refuse
SELECT update_item(4711, price => 1);
SELECT update_item(NULL, price => 1);
SELECT retire_item(4711);
\set VERBOSITY terse
SELECT add_item('Tripod', price => -1, cost => 40, weight => 1.6, manufacturer => 'Oriel');
SELECT add_item('Tripod', price => 'NaN', cost => 40, weight => 1.6, manufacturer => 'Oriel');
SELECT add_item('Tripod', price => 1, cost => 40, weight => 0, manufacturer => 'Oriel');
SELECT add_item('Tripod', price => 1, cost => NULL, weight => 1, manufacturer => 'Oriel');
SELECT update_item(:tripod, price => -1);
\set VERBOSITY default
UPDATE items SET price = 1 WHERE item_id = :tripod AND version = 1;
UPDATE items SET validity = tstzrange('2000-01-01', NULL) WHERE item_id = :tripod AND is_current;
UPDATE items SET is_current = true WHERE item_id = :tripod;
\set VERBOSITY sqlstate
UPDATE items SET validity = tstzrange(lower(validity), NULL) WHERE item_id = :tripod AND version = 1;
INSERT INTO items (item_id, version, validity, name, manufacturer, price, cost, weight) SELECT item_id, 9, '[2000-01-01, infinity)', name, manufacturer, price, cost, weight FROM items WHERE item_id = :tripod AND is_current;
INSERT INTO items (item_id, version, validity, name, manufacturer, price, cost, weight) SELECT item_id, 9, 'empty', name, manufacturer, price, cost, weight FROM items WHERE item_id = :tripod AND is_current;
INSERT INTO items (item_id, version, validity, name, manufacturer, price, cost, weight) SELECT item_id, 9, '(,2000-01-01)', name, manufacturer, price, cost, weight FROM items WHERE item_id = :tripod AND is_current;
INSERT INTO items (item_id, version, validity, name, manufacturer, price, cost, weight) SELECT item_id, 9, '[2000-01-01,2000-01-01]', name, manufacturer, price, cost, weight FROM items WHERE item_id = :tripod AND is_current;
INSERT INTO items (item_id, version, validity, name, manufacturer, price, cost, weight) SELECT item_id, 9, tstzrange(now() + '1 year', NULL), name, manufacturer, price, cost, weight FROM items WHERE item_id = :tripod AND is_current;
\set VERBOSITY default
-- history from before is welcome, and so is an end
INSERT INTO items (item_id, version, validity, name, manufacturer, price, cost, weight) SELECT item_id, 100, '[2026-03-01, 2026-05-01)', name, manufacturer, 12.50, 6, 1.5 FROM items WHERE item_id = :tripod AND is_current;

-- sales find the item as it was
INSERT INTO members (name, email, membership_status) VALUES ('Ada Ito', 'ada@example.com', 'gold'), ('Ben Weber', 'ben@example.com', 'basic'), ('Eve Rossi', 'eve@example.com', 'silver');
INSERT INTO members (name, email) VALUES ('Ada Again', 'ADA@example.com');
INSERT INTO transactions (member_id, created_at) VALUES (1, '2026-03-28 23:30Z'), (1, '2026-03-29 21:59Z'), (2, '2026-03-29 22:00Z');
INSERT INTO transactions (member_id) VALUES (1), (2), (2), (3);
INSERT INTO transaction_items SELECT transaction_id, :tripod, transaction_id, 12.50 FROM transactions WHERE transaction_id <= 3;
INSERT INTO transaction_items VALUES (4, :tripod, 2, 95), (4, :lens, 1, 350), (5, :lens, 3, 340), (6, :tripod, 1, 95), (7, :tripod, 11, 95);
SELECT transaction_id, item_id, item_version, name, manufacturer, quantity, price, total_price, weight, total_weight FROM sale_items ORDER BY 1, 2;
SELECT update_item(:tripod, weight => 9, name => 'Heavy tripod');
SELECT transaction_id, member_id, status, completed_at, items, quantity, total_price, total_weight FROM sales_details ORDER BY 1;
INSERT INTO transaction_items VALUES (1, :lens, 1, 1);
\set VERBOSITY terse
INSERT INTO transaction_items VALUES (4, 4711, 1, 1);
UPDATE transaction_items SET item_id = 4711 WHERE transaction_id = 6;
SELECT retire_item(:lens);
INSERT INTO transactions (member_id) VALUES (3) RETURNING transaction_id \gset
INSERT INTO transaction_items VALUES (:transaction_id, :lens, 1, 350);
DELETE FROM transactions WHERE transaction_id = :transaction_id;
\set VERBOSITY default

-- completing: once, and it is in the log; so is any other way to do it
SELECT complete_transaction(4), complete_transaction(4) AS again;
UPDATE transactions SET status = 'cancelled' WHERE transaction_id = 6;
SELECT complete_transaction(6);
SELECT complete_transaction(4711);
SELECT complete_transaction(NULL);
SELECT transaction_id, status, completed_at >= created_at AS after FROM transactions WHERE transaction_id IN (4, 6) ORDER BY 1;
\set VERBOSITY terse
UPDATE transactions SET status = 'completed' WHERE transaction_id = 5;
\set VERBOSITY default
RESET ROLE;
GRANT USAGE ON SCHEMA sales TO regress_sales_clerk;
GRANT SELECT (transaction_id, status, created_at), UPDATE (status, completed_at) ON sales.transactions TO regress_sales_clerk;
SET ROLE regress_sales_clerk;
SELECT sales.complete_transaction(5);
RESET ROLE;
GRANT EXECUTE ON FUNCTION sales.complete_transaction TO regress_sales_clerk;
SET ROLE regress_sales_clerk;
SELECT sales.complete_transaction(5);
SELECT * FROM sales.transaction_log;
RESET ROLE;
SELECT transaction_id, old_status, new_status, login = session_user AS login, role FROM sales.transaction_log ORDER BY log_id;
SET ROLE regress_sales_owner;

-- the views: the day is the shop's
SET timezone = 'Asia/Tokyo';
SELECT day, transactions, pending, completed, cancelled, quantity, revenue, total_weight FROM daily_sales WHERE day < '2026-06-01' ORDER BY day;
SET timezone = 'UTC';
SELECT * FROM top_members;
SELECT * FROM top_items;
SELECT * FROM spending_by_membership_status;
BEGIN;
DELETE FROM transactions;
INSERT INTO transactions (member_id, created_at)
	SELECT 1, (date_trunc('day', now() AT TIME ZONE 'Europe/Berlin') + shift) AT TIME ZONE 'Europe/Berlin'
	FROM unnest('{-1 microsecond,0,23:59:59.999999,1 day}'::interval[]) shift RETURNING transaction_id \g /dev/null
SELECT count(*), min(created_at AT TIME ZONE 'Europe/Berlin')::time, max(created_at AT TIME ZONE 'Europe/Berlin')::time FROM unfulfilled_orders_today;
SET timezone = 'Pacific/Kiritimati';
SELECT count(*) AS same_elsewhere FROM unfulfilled_orders_today;
SELECT complete_transaction(transaction_id) FROM unfulfilled_orders_today WHERE created_at <= now();
SELECT count(*) AS one_fewer FROM unfulfilled_orders_today;
ROLLBACK;

-- sample data
SELECT * FROM imgpipe.load_sample_data(0);
SELECT * FROM imgpipe.load_sample_data(10, 'public');
SELECT * FROM imgpipe.load_sample_data(10, until => 'infinity');
RESET ROLE;
SELECT * FROM imgpipe.load_sample_data(10, 'sales');
SET ROLE regress_sales_owner;
SELECT imgpipe.create_sales_schema('one', 'UTC'), imgpipe.create_sales_schema('two', 'UTC');
SELECT * FROM imgpipe.load_sample_data(1000, 'one', seed => 7, until => '2026-07-01 12:00Z');
SET timezone = 'America/New_York';
SET enable_hashjoin = off;
SELECT * FROM imgpipe.load_sample_data(1000, 'two', seed => 7, until => '2026-07-01 12:00Z');
RESET enable_hashjoin;
SET timezone = 'UTC';
SELECT (SELECT count(*) FROM (TABLE one.members EXCEPT TABLE two.members) d) AS members, (SELECT count(*) FROM (TABLE one.items EXCEPT TABLE two.items) d) AS items,
	(SELECT count(*) FROM (TABLE one.transactions EXCEPT TABLE two.transactions) d) AS transactions,
	(SELECT count(*) FROM (TABLE one.transaction_items EXCEPT TABLE two.transaction_items) d) AS transaction_items;
SELECT status, count(*), count(completed_at) AS completed, min(created_at) > '2026-04-02' AND max(completed_at) <= '2026-07-01 12:00Z' AS in_time FROM one.transactions GROUP BY 1 ORDER BY 1;
SELECT count(*) FILTER (WHERE l.price <> i.price) AS wrong_prices, count(*) FILTER (WHERE s.item_version IS NULL) AS orphans, count(*) FILTER (WHERE NOT i.is_current) AS of_old_versions
	FROM one.sale_items s JOIN one.transaction_items l USING (transaction_id, item_id) JOIN one.items i ON i.item_id = s.item_id AND i.version = s.item_version;
SELECT count(*) AS items, count(*) FILTER (WHERE NOT is_active) AS retired FROM one.items_as_of('2026-07-01 12:00Z');
SELECT sum(revenue) = (SELECT sum(total_price) FROM one.sales_details WHERE status <> 'cancelled') AS revenue,
	sum(revenue) = (SELECT sum(spending) FROM one.spending_by_membership_status) AS spending, sum(transactions) AS transactions FROM one.daily_sales;
SELECT * FROM imgpipe.load_sample_data(100, 'one', seed => 8, until => '2026-07-01 12:00Z');
SELECT add_item('Next', 1, 1, 1, 'Next') > :tripod AS numbers_go_on FROM (SELECT) x;
INSERT INTO one.transactions (member_id) VALUES (1) RETURNING transaction_id;
-- equals have the same rank, and come in the order of their numbers
INSERT INTO two.items (item_id, name, manufacturer, price, cost, weight, validity) SELECT 1000 + n, 'Twin ' || n, 'Twins', 1, 1, 1, '[2026-01-01,)' FROM generate_series(1, 3) n;
INSERT INTO two.transaction_items SELECT 1, 1000 + n, 5000 - n / 2, 0 FROM generate_series(1, 3) n;
SELECT * FROM two.top_items;

-- wrong arguments, odd names
SELECT imgpipe.create_sales_schema();
SELECT imgpipe.create_sales_schema(NULL);
SELECT imgpipe.create_sales_schema('three', 'Mars/Olympus');
SELECT imgpipe.create_sales_schema('pg_sales');
SET ROLE regress_sales_clerk;
SELECT imgpipe.create_sales_schema('clerk');
RESET ROLE;
GRANT USAGE ON SCHEMA imgpipe TO regress_sales_clerk;
SET ROLE regress_sales_clerk;
SELECT imgpipe.create_sales_schema('clerk');
SET ROLE regress_sales_owner;
SET standard_conforming_strings = off;
SET client_min_messages = error;
SELECT imgpipe.create_sales_schema($$O'Neil "\$body$; DROP SCHEMA one -- %s @time_zone@ @sales@$$, 'UTC');
RESET standard_conforming_strings;
SELECT transaction_items > 0 AS loaded FROM imgpipe.load_sample_data(100, $$O'Neil "\$body$; DROP SCHEMA one -- %s @time_zone@ @sales@$$);
SET search_path = "O'Neil ""\$body$; DROP SCHEMA one -- %s @time_zone@ @sales@";
SELECT update_item(1, price => 3.33) > 0 AS updated, retire_item(2) > 0 AS retired;
SELECT count(*) FROM sales_details;
UPDATE transactions SET status = 'pending', completed_at = NULL WHERE transaction_id = 1;
SELECT count(*) FROM transaction_log;
DROP SCHEMA "O'Neil ""\$body$; DROP SCHEMA one -- %s @time_zone@ @sales@" CASCADE;

-- nothing that is planted in another schema is used
CREATE SCHEMA planted;
CREATE FUNCTION planted.fake(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'planted'; END$$;
CREATE OPERATOR planted.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = planted.fake);
CREATE FUNCTION planted.now() RETURNS timestamptz LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'planted'; END$$;
CREATE FUNCTION planted.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'planted'; END$$;
CREATE TEMP TABLE items (item_id bigint);
CREATE TEMP TABLE transactions (transaction_id bigint);
SET search_path = planted, pg_temp, pg_catalog;
SELECT one.update_item(1, price => 4) > 1 AS updated, one.complete_transaction(1101) AS completed;
INSERT INTO one.transactions (member_id) VALUES (1) RETURNING transaction_id;
INSERT INTO one.transaction_items VALUES (1102, 1, 1, 4);
SELECT total_price FROM one.sales_details WHERE transaction_id OPERATOR(pg_catalog.=) 1102;
RESET search_path;
DROP TABLE pg_temp.items, pg_temp.transactions;
DROP SCHEMA planted CASCADE;

-- the extension goes, the schema stays and works
RESET ROLE;
DROP SCHEMA two, one CASCADE;
BEGIN;
SET LOCAL client_min_messages = error;
DROP TABLE IF EXISTS samples CASCADE;
DROP EXTENSION imgpipe CASCADE;
SELECT sales.update_item(1, price => 1), sales.complete_transaction(7), (SELECT count(*) FROM sales.sales_details);
ROLLBACK;
DROP SCHEMA sales CASCADE;
DROP OWNED BY regress_sales_owner, regress_sales_clerk;
DROP ROLE regress_sales_owner, regress_sales_clerk;
