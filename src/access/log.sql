

/* What was done about access, and by whom; see src/access/. */

CREATE TABLE imgpipe.access_log (
	entry bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	logged_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	session_role name NOT NULL DEFAULT SESSION_USER,
	acting_role name NOT NULL DEFAULT CURRENT_USER,
	client inet DEFAULT pg_catalog.inet_client_addr(),
	action text NOT NULL,
	role_name name,
	detail text,
	statements text[]
);
COMMENT ON TABLE imgpipe.access_log IS
'Each change of roles, memberships, uses, exceptions and masks, and each apply with its statements. An attempt that is refused leaves no row, for its transaction is rolled back: it is in the server log, as imgpipe access: refused.';
SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_log', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_log_entry_seq', '');

CREATE FUNCTION imgpipe.log_access(action text, role_name name DEFAULT NULL, detail text DEFAULT NULL, statements text[] DEFAULT NULL) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO imgpipe.access_log (action, role_name, detail, statements) VALUES (action, role_name, detail, statements)
$$;
COMMENT ON FUNCTION imgpipe.log_access(text, name, text, text[]) IS
'Enters a row in imgpipe.access_log. Needs INSERT on its columns action, role_name, detail and statements.';
