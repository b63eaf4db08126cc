-- Masked and filtered views of teams, shipped templates and reports.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE ROLE regress_carol LOGIN;
CREATE ROLE regress_dave LOGIN;

-- the masks themselves
SELECT v AS value, imgpipe.mask_partial(v), imgpipe.mask_email(v), imgpipe.mask_phone(v) FROM unnest('{anna.berg@example.com,+49 30 1234567,Ab,"",a@b@c,12345,Äh…x}'::text[]) v;
SELECT imgpipe.mask_year(d) FROM unnest('{1980-02-29,infinity,NULL}'::date[]) d;
SELECT imgpipe.mask_coordinate(52.520008), imgpipe.mask_coordinate(-0.04);
SELECT imgpipe.mask_exif('{"Make": "Canon", "latitude": 52.5, "GPSDateTime": "2020-01-01", "BodySerialNumber": "123", "LensSerialNumber": "4", "CameraOwnerName": "Anna",
	"thumbnail": {"ImageUniqueID": "7", "Width": 160}, "list": [{"longitude": 13.4}, 1, "x"], "Model": null}');
-- RFC 4231, test case 2: the key Jefe, padded to a block and combined with the two constants
SELECT imgpipe.mask_hash('what do ya want for nothing?',
	decode('7c535053' || repeat('36', 60), 'hex'), decode('16393a39' || repeat('5c', 60), 'hex'))
	= '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843' AS hmac_sha_256;

-- strict, on the example schema
SELECT imgpipe.create_sales_schema('regress_sales', 'UTC');
INSERT INTO regress_sales.members (name, email, phone, birth_date, street, postal_code, city, country, latitude, longitude)
	VALUES ('Anna Berg', 'anna@example.com', '+49 30 1234567', '1980-02-03', 'Am Weg 1', '10115', 'Berlin', 'DE', 52.520008, 13.404954);
SELECT imgpipe.use_template('strict', 'regress_shop', '{"sales": "regress_sales"}');
SELECT imgpipe.set_authoritative('regress_sales');
SELECT hash FROM imgpipe.plan_access() LIMIT 1 \gset
SELECT imgpipe.apply_access(:'hash') > 0 AS applied;
SELECT * FROM imgpipe.plan_access();
SELECT * FROM imgpipe.access_drift();
SELECT imgpipe.add_team_member('regress_shop_analytics', 'regress_carol');
SET SESSION AUTHORIZATION regress_carol;
SELECT member_id, name, email, phone, birth_date, street, postal_code, city, latitude, longitude FROM regress_sales_regress_shop_analytics.members;
SELECT * FROM regress_sales.members;
-- a function of the reader's own, however cheap, sees masked values only
CREATE FUNCTION pg_temp.peek(value text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$BEGIN RAISE NOTICE 'saw %', value; RETURN true; END$$;
SET client_min_messages = notice;
SELECT count(*) FROM regress_sales_regress_shop_analytics.members WHERE pg_temp.peek(name) AND pg_temp.peek(street);
SET client_min_messages = warning;
INSERT INTO regress_sales_regress_shop_analytics.members (membership_status) VALUES ('gold');
RESET SESSION AUTHORIZATION;
SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a WHERE a.attrelid = 'regress_sales_regress_shop_analytics.items'::regclass AND a.attnum > 0
	AND a.attname IN ('cost', 'price') ORDER BY 1;
SELECT count(*) AS items_with_cost FROM regress_sales_regress_shop_analytics.items WHERE cost IS NOT NULL;
-- a change of a mask is a plan
SELECT imgpipe.set_mask('regress_sales.members', 'nothing', 'hide');
SELECT imgpipe.set_mask('regress_sales.members', 'email', 'upper');
SELECT imgpipe.set_mask('regress_sales.members', 'email', 'hash');
SELECT imgpipe.set_mask('regress_sales.members', 'latitude', 'phone');
SELECT imgpipe.set_mask('regress_sales.members', 'name', 'none');
SELECT substr(statement, 1, 60) AS statement, reason FROM imgpipe.plan_access();
SELECT hash FROM imgpipe.plan_access() LIMIT 1 \gset
SELECT imgpipe.apply_access(:'hash');
SELECT v.name, v.latitude, v.email = imgpipe.mask_hash(m.email, k.inner_pad, k.outer_pad) AS hashed
	FROM regress_sales_regress_shop_analytics.members v JOIN regress_sales.members m USING (member_id), imgpipe.mask_keys k WHERE k.schema_name = 'regress_sales';
SELECT imgpipe.new_mask_key('regress_sales');
SELECT v.email = imgpipe.mask_hash(m.email, k.inner_pad, k.outer_pad) AS hashed_again
	FROM regress_sales_regress_shop_analytics.members v JOIN regress_sales.members m USING (member_id), imgpipe.mask_keys k WHERE k.schema_name = 'regress_sales';
SELECT imgpipe.set_mask('regress_sales.members', 'email', NULL);
-- a column that comes later is hidden, and a view that somebody changed is made again
ALTER TABLE regress_sales.members ADD shoe_size integer DEFAULT 42;
CREATE OR REPLACE VIEW regress_sales_regress_shop_analytics.top_items AS SELECT rank, item_id, name, quantity FROM regress_sales.top_items WHERE rank < 3;
SELECT kind, object, detail FROM imgpipe.access_drift();
SELECT hash FROM imgpipe.plan_access() LIMIT 1 \gset
SELECT imgpipe.apply_access(:'hash');
SELECT name, email, shoe_size FROM regress_sales_regress_shop_analytics.members;
SELECT * FROM imgpipe.access_drift();

-- what it looks like
SELECT * FROM imgpipe.access_report_text('regress_sales');
SELECT max(length(line)) <= 60 AS narrow FROM imgpipe.access_report_text('regress_sales', 60) line;
SELECT role_name, object, privilege, columns, state FROM imgpipe.access_report('regress_sales') WHERE role_name = 'regress_shop_logistics' AND kind = 'table';
SELECT html ~ '^<!DOCTYPE html>' AS page, html ~ '<tr><th>regress_sales.transactions</th><td></td><td>r\*w\*</td><td></td></tr>' AS cell,
	html ~ 'timestamp with time zone' AS types FROM imgpipe.access_report_html('regress_sales') html;
SELECT imgpipe.html('<a href="x">&');

-- one template for another
SELECT imgpipe.stop_template('strict', 'regress_shop');
SELECT imgpipe.use_template('table_level', 'regress_shop', '{"sales": "regress_sales"}');
SELECT substr(statement, 1, 90) AS statement FROM imgpipe.plan_access();
SELECT hash FROM imgpipe.plan_access() LIMIT 1 \gset
SELECT imgpipe.apply_access(:'hash') > 0 AS applied;
SELECT * FROM imgpipe.access_report_text('regress_sales');
SELECT to_regnamespace('regress_sales_regress_shop_analytics') IS NULL AS views_are_gone;
SELECT imgpipe.stop_template('table_level', 'regress_shop');

-- filters of rows: uploaders and their own images, and what items refer to
SELECT imgpipe.use_template('images', 'regress_pics');
SELECT imgpipe.use_template('item_pictures', 'regress_shop', '{"sales": "regress_sales"}');
SELECT hash FROM imgpipe.plan_access() LIMIT 1 \gset
SELECT imgpipe.apply_access(:'hash') > 0 AS applied;
SELECT * FROM imgpipe.plan_access();
SELECT kind, object, role_name, privilege FROM imgpipe.access_drift() WHERE role_name ~ '^regress_(pics|shop)';
SELECT pg_get_viewdef('imgpipe_regress_pics_uploader.images'::regclass) ~ 'SESSION_USER' AS own, (SELECT check_option FROM information_schema.views
	WHERE (table_schema, table_name) = ('imgpipe_regress_pics_uploader', 'images'));
SELECT imgpipe.add_team_member('regress_pics_uploader', 'regress_carol'), imgpipe.add_team_member('regress_shop_logistics', 'regress_dave');
INSERT INTO imgpipe.images (content) SELECT '\x89504e470d0a1a0a0000000d4948445200000001000000010800000000 3a7e9b55 0000000a49444154789c6360000000020001 48afa471 0000000049454e44ae426082'::bytea RETURNING bytes;
SET SESSION AUTHORIZATION regress_carol;
INSERT INTO imgpipe_regress_pics_uploader.images (content) VALUES
	('\x89504e470d0a1a0a0000000d4948445200000001000000010800000000 3a7e9b55 0000000a49444154789c6360000000020001 48afa471 0000000049454e44ae426082'::bytea) RETURNING uploaded_by, width;
INSERT INTO imgpipe_regress_pics_uploader.images (content, uploaded_by) SELECT content, 'somebody' FROM imgpipe_regress_pics_uploader.images;
INSERT INTO imgpipe_regress_pics_uploader.images (content, image_id) SELECT content, 'ffffffff-ffff-8fff-bfff-ffffffffffff' FROM imgpipe_regress_pics_uploader.images;
SELECT uploaded_by, format FROM imgpipe_regress_pics_uploader.images;
DELETE FROM imgpipe_regress_pics_uploader.images;
SELECT count(*) FROM imgpipe.images;
RESET SESSION AUTHORIZATION;
SET SESSION AUTHORIZATION regress_dave;
SELECT count(*) AS before FROM imgpipe_regress_shop_logistics.images;
RESET SESSION AUTHORIZATION;
SELECT regress_sales.add_item('lamp', 20, 10, 1.5, 'Lumen', (SELECT image_id FROM imgpipe.images WHERE uploaded_by = 'regress_carol')) AS lamp \gset
SET SESSION AUTHORIZATION regress_dave;
SELECT count(*) AS before_it_is_sold FROM imgpipe_regress_shop_logistics.images;
RESET SESSION AUTHORIZATION;
INSERT INTO regress_sales.transactions (member_id) SELECT min(member_id) FROM regress_sales.members RETURNING transaction_id \gset
INSERT INTO regress_sales.transaction_items VALUES (:transaction_id, :lamp, 1, 20);
SET SESSION AUTHORIZATION regress_dave;
SELECT width, height, format FROM imgpipe_regress_shop_logistics.images;
SELECT content FROM imgpipe_regress_shop_logistics.images;
RESET SESSION AUTHORIZATION;

-- (the detail is the libraries that are loaded)
\set VERBOSITY terse
SELECT imgpipe.use_pgaudit();
\set VERBOSITY default
DELETE FROM imgpipe.images WHERE uploaded_by = 'regress_carol';
SELECT imgpipe.stop_template('images', 'regress_pics'), imgpipe.stop_template('item_pictures', 'regress_shop');
SELECT hash FROM imgpipe.plan_access() LIMIT 1 \gset
SELECT imgpipe.apply_access(:'hash') > 0 AS applied;
SELECT count(*) FROM imgpipe.actual_access() a JOIN imgpipe.access_teams t ON t.role_name = pg_get_userbyid(a.grantee);
DELETE FROM imgpipe.access_memberships;
DELETE FROM imgpipe.access_teams;
DELETE FROM imgpipe.access_schemas;
DELETE FROM imgpipe.access_masks;
DELETE FROM imgpipe.mask_keys;
DELETE FROM imgpipe.access_log;
DROP SCHEMA regress_sales CASCADE;
DO $$
DECLARE
	role text;
BEGIN
	FOR role IN SELECT quote_ident(rolname) FROM pg_roles WHERE rolname ~ '^regress_(shop|pics)_' OR rolname IN ('regress_carol', 'regress_dave') LOOP
		EXECUTE 'DROP OWNED BY ' || role;
		EXECUTE 'DROP ROLE ' || role;
	END LOOP;
END
$$;
