/* imgpipe's install script, put together by make from the parts in src/: edit those. */

\echo This is an extension script: run CREATE EXTENSION imgpipe instead. \quit

CREATE FUNCTION imgpipe.setting(name text) RETURNS text
	AS 'MODULE_PATHNAME', 'imgpipe_setting'
	LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.setting(text) IS
'The value of a setting, as current_setting() gives it; but the settings of imgpipe are known also in a session that has not loaded the library yet. Raises 42704 for an unknown one.';

