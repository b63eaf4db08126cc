-- Database, extension, roles, source and processor.  Executed at each start: what is there stays as it is, and
-- certificates and passwords that were made anew are taken over.
\set ON_ERROR_STOP on
\set QUIET on
\o /dev/null
SELECT 'CREATE DATABASE images' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'images') \gexec
\connect images
-- Secrets of statements that fail stay out of the server log.
SET log_min_error_statement = panic;
SET log_statement = none;
SET client_min_messages = warning;

CREATE EXTENSION IF NOT EXISTS imgpipe;
SELECT 'ALTER EXTENSION imgpipe UPDATE' FROM pg_available_extensions
	WHERE name = 'imgpipe' AND installed_version <> default_version \gexec

-- pipeline owns the source and the processor, which work with its rights; it cannot log in: there is no password.
SELECT format('CREATE ROLE %I LOGIN %s', name, CASE name WHEN 'replica' THEN 'REPLICATION' END)
	FROM unnest('{pipeline,analyst,replica}'::name[]) AS name
	WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
\set password `cut -d : -f 5 /keys/analyst/pgpass`
ALTER ROLE analyst PASSWORD :'password';
REVOKE ALL ON DATABASE images FROM PUBLIC;
GRANT CONNECT ON DATABASE images TO pipeline, analyst;

-- Rights of teams, as a template: workers own sources and processors, analysts read everything but the images themselves.
SELECT NOT EXISTS (SELECT FROM imgpipe.access_templates WHERE template = 'house') AS new_template \gset
\if :new_template
BEGIN;
SELECT imgpipe.create_template('house', 'Who works with the images.');
SELECT imgpipe.add_rule('house', 'worker', 'table', object, privileges, place => 'images') FROM (VALUES
	('images', '{SELECT,INSERT}'::text[]), ('dead_letters', '{INSERT}'), ('processor_versions', '{SELECT,INSERT}'),
	('sources', '{SELECT,INSERT,UPDATE,DELETE}'), ('processors', '{SELECT,INSERT,UPDATE,DELETE}')) AS rule (object, privileges);
SELECT imgpipe.add_rule('house', 'analytics', 'table', object, '{SELECT}', place => 'images', columns => columns) FROM (VALUES
	('images', '{image_id,source,source_key,source_timestamp,batch_id,uploaded_by,received_at,format,width,height,bytes,sha256}'::text[]),
	('results', NULL), ('sealed_daily_volume', NULL), ('image_facts', NULL), ('daily_volume', NULL)) AS rule (object, columns);
SELECT imgpipe.use_template('house', 'team');
COMMIT;
\endif
SELECT imgpipe.apply_access(hash) FROM (SELECT hash FROM imgpipe.plan_access() LIMIT 1) AS plan;
SELECT imgpipe.add_team_member(team, login)
	FROM (VALUES ('team_worker'::name, 'pipeline'::name), ('team_analytics', 'analyst')) AS member (team, login)
	WHERE NOT pg_has_role(login, team, 'MEMBER');

-- The connection to Kafka.
\set ca `cat /keys/imgpipe/ca.pem`
\set certificate `cat /keys/imgpipe/certificate.pem`
\set key `cat /keys/imgpipe/key.pem`
BEGIN;
SELECT format('CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers ''broker:9093'', security_protocol ''ssl'', ssl_ca_pem %L)', :'ca')
	WHERE NOT EXISTS (SELECT FROM pg_foreign_server WHERE srvname = 'kafka') \gexec
ALTER SERVER kafka OPTIONS (SET ssl_ca_pem :'ca');
DROP USER MAPPING IF EXISTS FOR pipeline SERVER kafka;
CREATE USER MAPPING FOR pipeline SERVER kafka OPTIONS (ssl_certificate_pem :'certificate', ssl_key_pem :'key');
COMMIT;
GRANT USAGE ON FOREIGN SERVER kafka TO pipeline;

SET ROLE pipeline;
SELECT imgpipe.create_processor('web', '{"thumbnail": "resize(width=160, height=160, fit=cover) | sharpen | jpeg(quality=85)", "large": "resize(width=800) | webp(quality=80)"}')
	WHERE NOT EXISTS (SELECT FROM imgpipe.processors WHERE name = 'web');
SELECT imgpipe.create_source('photos', server => 'kafka', topic => 'photos', result_topic => 'results'), imgpipe.start_source('photos')
	WHERE NOT EXISTS (SELECT FROM imgpipe.sources WHERE name = 'photos');
