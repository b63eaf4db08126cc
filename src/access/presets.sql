

/* The templates that come with imgpipe; see src/access/.  The names are those of create_sales_schema() and of imgpipe's own tables. */

INSERT INTO imgpipe.access_templates (template, description, shipped) VALUES
	('strict', 'Sales: each team sees and changes what its work needs. Logistics checks orders off, analytics has masked views only, sales adds, updates and retires items.', true),
	('table_level', 'Sales, classical: logistics reads and updates orders, analytics reads, sales may also delete and truncate orders and products.', true),
	('item_level', 'Sales, classical: each team has its privileges on members, items, transactions and their items.', true),
	('read_for_all', 'Sales: every team reads everything, that of later, too; logistics updates orders, sales writes items.', true),
	('images', 'Image tables: uploaders see their own, analytics has masked facts, operators run sources and processors, auditors read ledger, grants and runs, workers own sources.', true),
	('item_pictures', 'Image tables, for the teams of a sales schema: logistics sees renditions and facts of pictures of its orders, sales uploads pictures and sees those of items.', true);

INSERT INTO imgpipe.access_rules (template, rule, team, place, kind, object, privileges, columns, masked, row_filter, future, shipped) VALUES
	('strict', 1, 'logistics', 'sales', 'table', 'sales_details', '{SELECT}', NULL, false, NULL, false, true),
	('strict', 2, 'logistics', 'sales', 'table', 'sale_items', '{SELECT}', '{transaction_id,created_at,status,item_id,name,quantity,weight,total_weight,image_id}', false, NULL, false, true),
	('strict', 3, 'logistics', 'sales', 'table', 'unfulfilled_orders_today', '{SELECT}', NULL, false, NULL, false, true),
	('strict', 4, 'logistics', 'sales', 'table', 'transactions', '{SELECT}', '{transaction_id,status,created_at,completed_at}', false, NULL, false, true),
	('strict', 5, 'logistics', 'sales', 'table', 'transactions', '{UPDATE}', '{status,completed_at}', false, NULL, false, true),
	('strict', 6, 'logistics', 'sales', 'function', 'complete_transaction', '{EXECUTE}', NULL, false, NULL, false, true),
	('strict', 7, 'analytics', 'sales', 'table', 'members', '{SELECT}', NULL, true, NULL, false, true),
	('strict', 8, 'analytics', 'sales', 'table', 'items', '{SELECT}', NULL, true, NULL, false, true),
	('strict', 9, 'analytics', 'sales', 'table', 'transactions', '{SELECT}', NULL, true, NULL, false, true),
	('strict', 10, 'analytics', 'sales', 'table', 'transaction_items', '{SELECT}', NULL, true, NULL, false, true),
	('strict', 11, 'analytics', 'sales', 'table', 'sale_items', '{SELECT}', NULL, true, NULL, false, true),
	('strict', 12, 'analytics', 'sales', 'table', 'sales_details', '{SELECT}', NULL, true, NULL, false, true),
	('strict', 13, 'analytics', 'sales', 'table', 'daily_sales', '{SELECT}', NULL, true, NULL, false, true),
	('strict', 14, 'analytics', 'sales', 'table', 'top_members', '{SELECT}', NULL, true, NULL, false, true),
	('strict', 15, 'analytics', 'sales', 'table', 'top_items', '{SELECT}', NULL, true, NULL, false, true),
	('strict', 16, 'analytics', 'sales', 'table', 'spending_by_membership_status', '{SELECT}', NULL, true, NULL, false, true),
	('strict', 17, 'sales', 'sales', 'table', 'items', '{SELECT,INSERT}', NULL, false, NULL, false, true),
	-- A new version of an item ends the one before it; nothing else of a version ever changes.
	('strict', 18, 'sales', 'sales', 'table', 'items', '{UPDATE}', '{validity}', false, NULL, false, true),
	('strict', 19, 'sales', 'sales', 'function', 'add_item', '{EXECUTE}', NULL, false, NULL, false, true),
	('strict', 20, 'sales', 'sales', 'function', 'update_item', '{EXECUTE}', NULL, false, NULL, false, true),
	('strict', 21, 'sales', 'sales', 'function', 'retire_item', '{EXECUTE}', NULL, false, NULL, false, true),
	('strict', 22, 'sales', 'sales', 'function', 'items_as_of', '{EXECUTE}', NULL, false, NULL, false, true),
	('strict', 23, 'sales', 'sales', 'table', 'top_items', '{SELECT}', NULL, false, NULL, false, true),

	('table_level', 1, 'logistics', 'sales', 'table', 'transactions', '{SELECT,UPDATE}', NULL, false, NULL, false, true),
	('table_level', 2, 'analytics', 'sales', 'table', 'transactions', '{SELECT}', NULL, false, NULL, false, true),
	('table_level', 3, 'analytics', 'sales', 'table', 'items', '{SELECT}', NULL, false, NULL, false, true),
	('table_level', 4, 'sales', 'sales', 'table', 'transactions', '{SELECT,UPDATE,DELETE,TRUNCATE}', NULL, false, NULL, false, true),
	('table_level', 5, 'sales', 'sales', 'table', 'items', '{SELECT,UPDATE,DELETE,TRUNCATE}', NULL, false, NULL, false, true),

	('item_level', 1, 'logistics', 'sales', 'table', 'items', '{SELECT}', NULL, false, NULL, false, true),
	('item_level', 2, 'logistics', 'sales', 'table', 'transaction_items', '{SELECT}', NULL, false, NULL, false, true),
	('item_level', 3, 'logistics', 'sales', 'table', 'transactions', '{SELECT,INSERT,UPDATE}', NULL, false, NULL, false, true),
	('item_level', 4, 'analytics', 'sales', 'table', 'members', '{SELECT}', NULL, false, NULL, false, true),
	('item_level', 5, 'analytics', 'sales', 'table', 'items', '{SELECT}', NULL, false, NULL, false, true),
	('item_level', 6, 'analytics', 'sales', 'table', 'transactions', '{SELECT}', NULL, false, NULL, false, true),
	('item_level', 7, 'analytics', 'sales', 'table', 'transaction_items', '{SELECT}', NULL, false, NULL, false, true),
	('item_level', 8, 'sales', 'sales', 'table', 'items', '{SELECT,INSERT,UPDATE,DELETE}', NULL, false, NULL, false, true),

	('read_for_all', 1, 'logistics', 'sales', 'table', '*', '{SELECT}', NULL, false, NULL, true, true),
	('read_for_all', 2, 'analytics', 'sales', 'table', '*', '{SELECT}', NULL, false, NULL, true, true),
	('read_for_all', 3, 'sales', 'sales', 'table', '*', '{SELECT}', NULL, false, NULL, true, true),
	('read_for_all', 4, 'logistics', 'sales', 'table', 'transactions', '{UPDATE}', NULL, false, NULL, false, true),
	('read_for_all', 5, 'logistics', 'sales', 'function', 'complete_transaction', '{EXECUTE}', NULL, false, NULL, false, true),
	('read_for_all', 6, 'sales', 'sales', 'table', 'items', '{INSERT,UPDATE}', NULL, false, NULL, false, true),
	('read_for_all', 7, 'sales', 'sales', 'function', 'add_item', '{EXECUTE}', NULL, false, NULL, false, true),
	('read_for_all', 8, 'sales', 'sales', 'function', 'update_item', '{EXECUTE}', NULL, false, NULL, false, true),
	('read_for_all', 9, 'sales', 'sales', 'function', 'retire_item', '{EXECUTE}', NULL, false, NULL, false, true),
	('read_for_all', 10, 'sales', 'sales', 'function', 'items_as_of', '{EXECUTE}', NULL, false, NULL, false, true),

	('images', 1, 'uploader', 'images', 'table', 'images', '{SELECT,INSERT}', '{image_id,content,source_key,batch_id,uploaded_by,received_at,headers,format,width,height,bytes}', false, 'own(uploaded_by)', false, true),
	('images', 2, 'analytics', 'images', 'table', 'images', '{SELECT}', '{image_id,source,source_key,source_timestamp,batch_id,uploaded_by,received_at,headers,format,width,height,bytes}', true, NULL, false, true),
	('images', 3, 'analytics', 'images', 'table', 'results', '{SELECT}', NULL, true, NULL, false, true),
	('images', 4, 'analytics', 'images', 'table', 'sealed_daily_volume', '{SELECT}', NULL, false, NULL, false, true),
	('images', 5, 'operator', 'images', 'table', 'sources', '{SELECT,INSERT,UPDATE,DELETE}', NULL, false, NULL, false, true),
	('images', 6, 'operator', 'images', 'table', 'processors', '{SELECT,INSERT,UPDATE,DELETE}', NULL, false, NULL, false, true),
	('images', 7, 'operator', 'images', 'table', 'jobs', '{SELECT,INSERT,UPDATE,DELETE}', NULL, false, NULL, false, true),
	('images', 8, 'operator', 'images', 'sequence', 'job_runs_run_id_seq', '{USAGE}', NULL, false, NULL, false, true),
	('images', 9, 'operator', 'images', 'table', 'job_runs', '{SELECT}', NULL, false, NULL, false, true),
	('images', 10, 'operator', 'images', 'table', 'job_status', '{SELECT}', NULL, false, NULL, false, true),
	('images', 11, 'operator', 'images', 'table', 'tasks', '{SELECT}', NULL, false, NULL, false, true),
	('images', 12, 'operator', 'images', 'table', 'source_status', '{SELECT}', NULL, false, NULL, false, true),
	('images', 13, 'operator', 'images', 'table', 'dead_letters', '{SELECT}', '{image_id,dead_letter_id,stage,source,source_partition,source_offset,processor,version,attempts,sqlstate,reason,created_at}', false, NULL, false, true),
	('images', 14, 'auditor', 'images', 'table', 'purge_ledger', '{SELECT}', NULL, false, NULL, false, true),
	('images', 15, 'auditor', 'images', 'table', 'access_*', '{SELECT}', NULL, false, NULL, false, true),
	('images', 16, 'auditor', 'images', 'table', 'template_masks', '{SELECT}', NULL, false, NULL, false, true),
	('images', 17, 'auditor', 'images', 'table', 'job_runs', '{SELECT}', NULL, false, NULL, false, true),
	('images', 18, 'worker', 'images', 'table', 'images', '{SELECT,INSERT}', NULL, false, NULL, false, true),
	('images', 19, 'worker', 'images', 'table', 'dead_letters', '{INSERT}', NULL, false, NULL, false, true),
	('images', 20, 'worker', 'images', 'table', 'sources', '{SELECT,INSERT,UPDATE,DELETE}', NULL, false, NULL, false, true),
	('images', 21, 'worker', 'images', 'table', 'processors', '{SELECT,INSERT,UPDATE,DELETE}', NULL, false, NULL, false, true),
	('images', 22, 'worker', 'images', 'table', 'processor_versions', '{SELECT,INSERT}', NULL, false, NULL, false, true),
	('images', 23, 'operator', 'images', 'table', 'processor_versions', '{SELECT,INSERT}', NULL, false, NULL, false, true),

	-- Its orders are those that strict shows it in sale_items.
	('item_pictures', 1, 'logistics', 'images', 'table', 'images', '{SELECT}', '{image_id,received_at,format,width,height,bytes}', false, 'referenced(image_id, sold_pictures.image_id)', false, true),
	('item_pictures', 2, 'logistics', 'images', 'table', 'renditions', '{SELECT}', NULL, false, 'referenced(image_id, sold_pictures.image_id)', false, true),
	('item_pictures', 3, 'sales', 'images', 'table', 'images', '{SELECT,INSERT}', '{image_id,content,uploaded_by,received_at,format,width,height,bytes}', false, 'own(uploaded_by)', false, true),
	('item_pictures', 4, 'sales', 'images', 'table', 'renditions', '{SELECT}', NULL, false, 'referenced(image_id, items.image_id)', false, true);

INSERT INTO imgpipe.template_masks (template, place, table_name, column_name, mask, shipped) VALUES
	-- A column that somebody adds to members is hidden until a mask says otherwise.
	('strict', 'sales', 'members', '*', 'hide', true),
	('strict', 'sales', 'members', 'member_id', 'none', true),
	('strict', 'sales', 'members', 'membership_status', 'none', true),
	('strict', 'sales', 'members', 'joined_at', 'none', true),
	('strict', 'sales', 'members', 'name', 'partial', true),
	('strict', 'sales', 'members', 'email', 'email', true),
	('strict', 'sales', 'members', 'phone', 'phone', true),
	('strict', 'sales', 'members', 'birth_date', 'year_of_birth', true),
	('strict', 'sales', 'members', 'city', 'none', true),
	('strict', 'sales', 'members', 'country', 'none', true),
	('strict', 'sales', 'members', 'latitude', 'coordinates', true),
	('strict', 'sales', 'members', 'longitude', 'coordinates', true),
	('strict', 'sales', 'items', 'cost', 'hide', true),
	('images', 'images', 'images', 'source_key', 'hide', true),
	('images', 'images', 'images', 'uploaded_by', 'hash', true),
	('images', 'images', 'images', 'headers', 'hide', true),
	('images', 'images', 'results', 'result', 'exif', true);

CREATE TRIGGER keep_shipped BEFORE INSERT OR UPDATE OR DELETE ON imgpipe.access_rules
	FOR EACH ROW EXECUTE FUNCTION imgpipe.keep_shipped();
CREATE TRIGGER keep_shipped BEFORE INSERT OR UPDATE OR DELETE ON imgpipe.template_masks
	FOR EACH ROW EXECUTE FUNCTION imgpipe.keep_shipped();
CREATE TRIGGER keep_shipped BEFORE INSERT OR UPDATE OR DELETE ON imgpipe.access_templates
	FOR EACH ROW EXECUTE FUNCTION imgpipe.keep_shipped();
