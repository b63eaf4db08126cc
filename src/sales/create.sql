
/* Creates the example sales schema; see src/sales/. */

CREATE FUNCTION imgpipe.create_sales_schema(schema_name name DEFAULT 'sales',
	time_zone text DEFAULT pg_catalog.current_setting('TimeZone')) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	script text := imgpipe.sales_schema_script();
BEGIN
	IF schema_name IS NULL OR time_zone IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
			MESSAGE = 'the sales schema needs a name and a time zone',
			DETAIL = 'One of them is NULL.',
			HINT = 'For example: SELECT imgpipe.create_sales_schema(''shop'', time_zone => ''Europe/Berlin'');';
	END IF;
	IF NOT EXISTS (SELECT FROM pg_timezone_names z WHERE lower(z.name) = lower(time_zone)) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = format('time zone "%s" is not known', time_zone),
			HINT = 'SELECT name FROM pg_timezone_names; shows those that are.';
	END IF;
	IF to_regnamespace(quote_ident(schema_name)) IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'duplicate_schema',
			MESSAGE = format('schema "%s" already exists', schema_name),
			HINT = 'Give the sales schema another name: SELECT imgpipe.create_sales_schema(''shop'');';
	END IF;
	-- First the tag, which the name then cannot hold.
	script := replace(script, '$body$', '$body_' || md5(schema_name) || '$');
	script := replace(script, '@time_zone@', quote_literal(time_zone));
	EXECUTE replace(script, '@sales@', quote_ident(schema_name));
	EXECUTE format('COMMENT ON SCHEMA %I IS %L', schema_name,
		'Example shop, made by imgpipe.create_sales_schema(). Its days go by the clock of ' || time_zone || '.');
END
$$;
COMMENT ON FUNCTION imgpipe.create_sales_schema(name, text) IS
'Creates a schema with an example shop: tables members, items (with their history), transactions, transaction_items and transaction_log; functions add_item(), update_item(), retire_item(), items_as_of() and complete_transaction(); views sale_items, sold_pictures, sales_details, unfulfilled_orders_today, daily_sales, top_members, top_items and spending_by_membership_status. All of it belongs to the caller, not to the extension: it is dumped, changed and dropped (DROP SCHEMA ... CASCADE) like anything else, stays when imgpipe is dropped, and nobody else may use it until the caller grants that. See docs/sales.md.
time_zone: whose clock the days of unfulfilled_orders_today and daily_sales go by, for every reader; by default that of the session. The caller needs CREATE on the database. Raises 22004 for NULL, 22023 for a time zone that is not known, 42P06 where there is a schema of that name.';
