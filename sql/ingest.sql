-- Options of Kafka servers and user mappings, and what the functions of sources refuse; no broker is asked.
\set VERBOSITY default
DO $$BEGIN IF NOT imgpipe.workers_available() THEN SET client_min_messages = error; END IF; END$$;	-- what waits for workers says so

-- every option that is there
CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (
	bootstrap_servers 'one.example.com:9092, [::1]:9093', security_protocol 'sasl_ssl',
	ssl_ca_pem '-----BEGIN CERTIFICATE-----', ssl_endpoint_identification_algorithm 'https', sasl_mechanism 'SCRAM-SHA-512',
	client_id 'images', client_rack 'a', broker_address_family 'any', isolation_level 'read_committed', check_crcs 'true',
	socket_keepalive_enable 'false', socket_timeout_ms '1000', reconnect_backoff_ms '1', reconnect_backoff_max_ms '60000',
	fetch_wait_max_ms '5000', fetch_min_bytes '1', fetch_max_bytes '1048576', max_partition_fetch_bytes '1024',
	receive_message_max_bytes '268435456');
CREATE USER MAPPING FOR CURRENT_USER SERVER kafka OPTIONS (sasl_username 'u', sasl_password 'secret', ssl_certificate_pem '-----BEGIN CERTIFICATE-----',
	ssl_key_pem '-----BEGIN PRIVATE KEY-----', ssl_key_password 'secret');

-- every option that is refused, with its reason
CREATE FUNCTION pg_temp.refusal(option text, value text DEFAULT 'x', command text DEFAULT 'CREATE SERVER s FOREIGN DATA WRAPPER imgpipe_kafka')
	RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE format('%s OPTIONS (%I %L)', command, option, value);
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', SQLSTATE, message, nullif(detail, ''), nullif(hint, ''));
END
$$;
SELECT pg_temp.refusal(option) FROM unnest(ARRAY['plugin_library_paths', 'sasl_kerberos_kinit_cmd', 'sasl_kerberos_keytab',
	'sasl_oauthbearer_config', 'enable_sasl_oauthbearer_unsecure_jwt', 'ssl_ca_location', 'ssl_certificate_location', 'ssl_key_location',
	'ssl_keystore_location', 'ssl_keystore_password', 'ssl_crl_location', 'ssl_engine_location', 'ssl_providers',
	'enable_ssl_certificate_verification', 'enable_auto_commit', 'enable_auto_offset_store', 'auto_offset_reset', 'auto_commit_interval_ms',
	'offset_store_path', 'enable_partition_eof', 'group_id', 'group_instance_id', 'session_timeout_ms', 'heartbeat_interval_ms',
	'max_poll_interval_ms', 'partition_assignment_strategy', 'queued_max_messages_kbytes', 'debug', 'log_level', 'log_queue']) option;
-- nor are they in a user mapping
SELECT pg_temp.refusal(option, command => 'ALTER USER MAPPING FOR CURRENT_USER SERVER kafka')
	FROM unnest(ARRAY['ssl_key_location', 'debug', 'bootstrap_servers', 'sasl_user', 'wonderful']) option;
-- names
SELECT pg_temp.refusal(option) FROM unnest(ARRAY['bootstrap_server', 'bootstrap.servers', 'BOOTSTRAP_SERVERS', 'wonderful',
	'sasl_username', 'sasl_password', 'ssl_key_pem']) option;
SELECT pg_temp.refusal('bootstrap_servers', command => 'CREATE FOREIGN DATA WRAPPER w VALIDATOR imgpipe.kafka_validator');
-- values
SELECT option, pg_temp.refusal(option, value) FROM (VALUES
	('bootstrap_servers', ''), ('bootstrap_servers', ','), ('bootstrap_servers', 'a;b'), ('bootstrap_servers', 'a,,b'),
	('security_protocol', 'tls'), ('security_protocol', ''), ('security_protocol', 'ssl,sasl_ssl'), ('security_protocol', 'sasl'),
	('ssl_ca_pem', '/etc/ssl/ca.pem'), ('sasl_mechanism', 'GSSAPI'), ('sasl_mechanism', 'OAUTHBEARER'), ('client_id', ''),
	('check_crcs', 'yes'), ('check_crcs', '1'), ('fetch_wait_max_ms', '10s'), ('fetch_wait_max_ms', ''), ('fetch_wait_max_ms', '0'),
	('fetch_wait_max_ms', '99999999999999999999'), ('receive_message_max_bytes', '1')) v (option, value);
-- no secret in an error
SELECT pg_temp.refusal(option, 'hunter2', 'CREATE USER MAPPING FOR PUBLIC SERVER kafka') FROM unnest(ARRAY['ssl_key_pem', 'ssl_certificate_pem']) option;
SELECT pg_temp.refusal('sasl_password', '', 'CREATE USER MAPPING FOR PUBLIC SERVER kafka');

-- what sources refuse, before anybody asks a broker
CREATE FUNCTION pg_temp.raised(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE statement;
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', SQLSTATE, message, nullif(detail, ''), nullif(hint, ''));
END
$$;
SELECT options, pg_temp.raised(format('SELECT imgpipe.create_source(%s)', options)) FROM unnest(ARRAY[
	$$'sql', 'kafka', 't'$$, $$'-x', 'kafka', 't'$$, $$NULL, 'kafka', 't'$$, $$'s', 'kafka', 'a topic'$$, $$'s', 'nowhere', 't'$$,
	$$'s', 'kafka', 't', retention => '59 seconds'$$, $$'s', 'kafka', 't', retention => '11 years'$$,
	$$'s', 'kafka', 't', parallelism => 65$$, $$'s', 'kafka', 't', batch_rows => 0$$, $$'s', 'kafka', 't', batch_bytes => 1$$,
	$$'s', 'kafka', 't', linger_ms => -1$$, $$'s', 'kafka', 't', linger_ms => NULL$$, $$'s', 'kafka', 't', max_backlog => -1$$,
	$$'s', 'kafka', 't', slices => 0$$, $$'s', 'kafka', 't', slice => 3, slices => 3$$, $$'s', 'kafka', 't', slice => -1$$,
	$$'s', 'kafka', 't', consumer_group => 'two words'$$, $$'s', 'kafka', 't', start_from => 'soon'$$, $$'s', 'kafka', 't', start_from => NULL$$,
	$$'s', 'kafka', 't', start_from => ''$$, $$'s', 'kafka', 't', start_from => '{}'$$, $$'s', 'kafka', 't', start_from => '{"a": 1}'$$,
	$$'s', 'kafka', 't', start_from => '{"0": -1}'$$, $$'s', 'kafka', 't', start_from => '{"0": "1"}'$$, $$'s', 'kafka', 't', start_from => '{"01": 1}'$$,
	$$'s', 'kafka', 't', start_from => '{"0": 1'$$, $$'s', 'kafka', 't', start_from => '[1]'$$, $$'s', 'kafka', 't', start_from => 'infinity'$$,
	$$'s', 'kafka', 't', start_from => '1969-12-31'$$]) options;
SELECT imgpipe.create_source('earliest', 'kafka', 't') > 0 AS made, imgpipe.create_source('latest', 'kafka', 't', start_from => 'latest') > 0 AS made,
	imgpipe.create_source('offsets', 'kafka', 't', start_from => ' {"1": 5, "0": 0}') > 0 AS made,
	imgpipe.create_source('time', 'kafka', 't', start_from => '2026-11-20 18:00:00.25+01', max_backlog => 5, slice => 1, slices => 2, consumer_group => 'g') > 0 AS made;
SELECT name, start_from, max_backlog, slice, slices, consumer_group, enabled FROM imgpipe.sources ORDER BY source_id;
SELECT pg_temp.raised($$SELECT imgpipe.create_source('time', 'kafka', 't')$$);

-- what changes and what stays
SELECT imgpipe.alter_source('time', retention => '2 days', batch_rows => 7);
SELECT imgpipe.alter_source('time', slice => 0, slices => 1, consumer_group => '', max_backlog => 0, parallelism => 2, batch_bytes => 1048576, linger_ms => 0);
SELECT retention, parallelism, batch_rows, batch_bytes, linger_ms, max_backlog, slice, slices, consumer_group FROM imgpipe.sources WHERE name = 'time';
SELECT imgpipe.alter_source('time', retention => '0');
SELECT retention FROM imgpipe.sources WHERE name = 'time';
SELECT pg_temp.raised(statement) FROM unnest(ARRAY[
	$$SELECT imgpipe.alter_source('nothing')$$, $$SELECT imgpipe.alter_source('time', retention => '1 second')$$,
	$$SELECT imgpipe.alter_source('time', slice => 1)$$, $$SELECT imgpipe.alter_source('time', parallelism => 0)$$,
	$$SELECT imgpipe.seek_source('time', 'soon')$$, $$SELECT imgpipe.seek_source('nothing', 'latest')$$, $$SELECT imgpipe.seek_source('time', NULL)$$,
	$$SELECT imgpipe.adopt_source('nothing')$$, $$SELECT imgpipe.drop_source('nothing')$$, $$SELECT imgpipe.stop_source('nothing')$$]) statement;

-- positions
SELECT imgpipe.seek_source('time', '{"0": 10, "7": 3}');
UPDATE imgpipe.ingest_positions SET last_offset = 9 WHERE partition = 0;
SELECT imgpipe.seek_source('time', '{"0": 4}');
SELECT partition, next_offset, ingested_to FROM imgpipe.source_partitions WHERE name = 'time' ORDER BY partition;
UPDATE imgpipe.ingest_positions SET last_offset = 2 WHERE partition = 7;
SELECT imgpipe.seek_source('time', '2026-11-20 18:00+00');
SELECT partition, next_offset, ingested_to, start_from FROM imgpipe.source_partitions JOIN imgpipe.sources USING (name) WHERE name = 'time' ORDER BY partition;
SELECT imgpipe.seek_source('time', '{"0": 2}', restore_expired => true);
SELECT partition, next_offset, ingested_to FROM imgpipe.source_partitions WHERE name = 'time' ORDER BY partition;
UPDATE imgpipe.sources SET enabled = true, started_in = '1/1' WHERE name = 'time';
SELECT pg_temp.raised(statement) FROM unnest(ARRAY[
	$$SELECT imgpipe.seek_source('time', 'latest')$$, $$SELECT imgpipe.alter_source('time', slices => 3)$$, $$SELECT imgpipe.drop_source('time')$$]) statement;
SELECT imgpipe.stop_source('time');
SELECT imgpipe.adopt_source('time');
SELECT started_in FROM imgpipe.sources WHERE name = 'time';

-- dead letters that cannot be tried again
SELECT pg_temp.raised(statement) FROM unnest(ARRAY[
	'SELECT imgpipe.retry_dead_letter(0)', 'SELECT imgpipe.retry_dead_letter(NULL)', 'SELECT imgpipe.discard_dead_letter(0)']) statement;

SELECT imgpipe.drop_source(name) FROM (SELECT name FROM imgpipe.sources ORDER BY name) s;
DROP USER MAPPING FOR CURRENT_USER SERVER kafka;
DROP SERVER kafka;
