-- All that the extension imgpipe is in the catalogs, a line a fact: what a fresh and an upgraded installation are compared by.
-- Partitions are left out: they are no members, and differ by when they were made.
SET search_path = pg_catalog;
SET quote_all_identifiers = off;

CREATE TEMPORARY VIEW member AS
	SELECT d.classid, d.objid, (pg_identify_object(d.classid, d.objid, 0)).type, (pg_identify_object(d.classid, d.objid, 0)).identity
		FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
		WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'imgpipe';
CREATE TEMPORARY VIEW relation AS
	SELECT c.*, m.identity FROM member m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid;
-- Rights in the order of who has them; by name, because oids differ.  No list is the default one.
CREATE FUNCTION pg_temp.rights(list aclitem[]) RETURNS text LANGUAGE sql AS $$
	SELECT coalesce(string_agg(format('%s=%s%s', coalesce(nullif(a.grantee, 0)::regrole::text, 'PUBLIC'), a.privilege_type, CASE WHEN a.is_grantable THEN '*' END), ' '
		ORDER BY coalesce(nullif(a.grantee, 0)::regrole::text, 'PUBLIC') COLLATE "C", a.privilege_type COLLATE "C"), 'none')
		FROM aclexplode(list) a $$;
CREATE FUNCTION pg_temp.rights(list aclitem[], kind "char", owner oid) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.rights(coalesce(list, acldefault(kind, owner))) $$;

CREATE TEMPORARY VIEW fact (about, said) AS
	SELECT 'member ' || type || ' ' || identity, '' FROM member
UNION ALL
	SELECT 'comment on ' || m.type || ' ' || m.identity || coalesce('.' || a.attname, ''), d.description
		FROM member m JOIN pg_description d ON d.classoid = m.classid AND d.objoid = m.objid
		LEFT JOIN pg_attribute a ON m.classid = 'pg_class'::regclass AND a.attrelid = m.objid AND a.attnum = d.objsubid AND d.objsubid <> 0
UNION ALL
	SELECT 'first rights on ' || m.type || ' ' || m.identity || ' ' || i.objsubid, concat_ws(' ', i.privtype, pg_temp.rights(i.initprivs))
		FROM member m JOIN pg_init_privs i ON i.classoid = m.classid AND i.objoid = m.objid
UNION ALL
	SELECT 'function ' || m.identity, pg_get_functiondef(p.oid) || pg_temp.rights(p.proacl, 'f', p.proowner) || ' ' || p.proowner::regrole
		FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid WHERE p.prokind <> 'a'
UNION ALL
	SELECT 'aggregate ' || m.identity, concat_ws(' ', a.aggkind, a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn,
			a.aggfinalmodify, a.aggtranstype::regtype, a.aggtransspace, a.agginitval, p.proparallel, pg_temp.rights(p.proacl, 'f', p.proowner))
		FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid JOIN pg_aggregate a ON a.aggfnoid = p.oid
UNION ALL
	SELECT 'relation ' || c.identity, concat_ws(' ', c.relkind, c.relpersistence, c.reloptions, c.relrowsecurity, c.relforcerowsecurity, c.relreplident,
			pg_temp.rights(c.relacl, CASE c.relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, c.relowner), c.relowner::regrole, pg_get_partkeydef(c.oid), pg_get_viewdef(c.oid), toast.reloptions)
		FROM relation c LEFT JOIN pg_class toast ON toast.oid = c.reltoastrelid
UNION ALL
	SELECT 'column ' || c.identity || '.' || a.attname, concat_ws(' ',
			row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum), format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated,
			a.attstorage, a.attcompression, nullif(a.attcollation, 0)::regcollation, nullif(a.attstattarget, -1),
			(SELECT string_agg(o, ' ' ORDER BY o) FROM unnest(a.attoptions) o WHERE o ~ '^n_distinct'),
			pg_temp.rights(a.attacl), pg_get_expr(d.adbin, d.adrelid))
		FROM relation c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
UNION ALL
	SELECT 'constraint ' || o.conname || ' on ' || coalesce(c.identity, o.contypid::regtype::text), concat_ws(' ', pg_get_constraintdef(o.oid), o.convalidated, o.connoinherit)
		FROM pg_constraint o LEFT JOIN relation c ON c.oid = o.conrelid
		WHERE c.oid IS NOT NULL OR o.contypid IN (SELECT objid FROM member WHERE classid = 'pg_type'::regclass)
UNION ALL
	SELECT 'index ' || i.indexrelid::regclass, concat_ws(' ', pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisunique, i.indisreplident, i.indisclustered, x.reloptions)
		FROM pg_index i JOIN relation c ON c.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid
UNION ALL
	SELECT 'trigger ' || t.tgname || ' on ' || c.identity, concat_ws(' ', t.tgenabled, pg_get_triggerdef(t.oid))
		FROM pg_trigger t JOIN relation c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal
UNION ALL
	SELECT 'policy ' || p.polname || ' on ' || c.identity, concat_ws(' ', p.polcmd, p.polpermissive, (SELECT array_agg(coalesce(nullif(r, 0)::regrole::text, 'PUBLIC')) FROM unnest(p.polroles) r),
			pg_get_expr(p.polqual, p.polrelid), 'check', pg_get_expr(p.polwithcheck, p.polrelid))
		FROM pg_policy p JOIN relation c ON c.oid = p.polrelid
UNION ALL
	SELECT 'sequence ' || c.identity, concat_ws(' ', s.seqtypid::regtype, s.seqstart, s.seqincrement, s.seqmax, s.seqmin, s.seqcache, s.seqcycle,
			(SELECT d.refobjid::regclass || '.' || d.refobjsubid FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0))
		FROM pg_sequence s JOIN relation c ON c.oid = s.seqrelid
UNION ALL
	SELECT 'statistics ' || m.identity, pg_get_statisticsobjdef(m.objid) FROM member m WHERE m.classid = 'pg_statistic_ext'::regclass
UNION ALL
	SELECT 'type ' || m.identity, concat_ws(' ', t.typtype, t.typcategory, t.typlen, t.typbyval, t.typalign, t.typstorage, t.typinput, t.typoutput, t.typreceive, t.typsend,
			t.typmodin, t.typmodout, t.typanalyze, t.typdelim, t.typispreferred, t.typcollation, t.typnotnull, t.typdefault, format_type(t.typbasetype, t.typtypmod), pg_temp.rights(t.typacl, 'T', t.typowner),
			(SELECT string_agg(e.enumlabel, ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid))
		FROM member m JOIN pg_type t ON m.classid = 'pg_type'::regclass AND t.oid = m.objid
UNION ALL
	SELECT 'cast ' || m.identity, concat_ws(' ', c.castfunc::regprocedure, c.castcontext, c.castmethod)
		FROM member m JOIN pg_cast c ON m.classid = 'pg_cast'::regclass AND c.oid = m.objid
UNION ALL
	SELECT 'operator ' || m.identity, concat_ws(' ', o.oprcode, o.oprcom::regoperator, o.oprnegate::regoperator, o.oprrest, o.oprjoin, o.oprcanmerge, o.oprcanhash)
		FROM member m JOIN pg_operator o ON m.classid = 'pg_operator'::regclass AND o.oid = m.objid
UNION ALL
	SELECT 'operator class ' || m.identity, concat_ws(' ', c.opcintype::regtype, c.opcdefault, nullif(c.opckeytype, 0)::regtype,
			(SELECT string_agg(concat_ws(' ', a.amopstrategy, a.amopopr::regoperator), ', ' ORDER BY a.amopstrategy, a.amopopr::regoperator::text) FROM pg_amop a WHERE a.amopfamily = c.opcfamily),
			(SELECT string_agg(concat_ws(' ', a.amprocnum, a.amproc), ', ' ORDER BY a.amprocnum, a.amproc::text) FROM pg_amproc a WHERE a.amprocfamily = c.opcfamily))
		FROM member m JOIN pg_opclass c ON m.classid = 'pg_opclass'::regclass AND c.oid = m.objid
UNION ALL
	SELECT 'wrapper ' || w.fdwname, concat_ws(' ', w.fdwhandler::regproc, w.fdwvalidator::regproc, w.fdwoptions, pg_temp.rights(w.fdwacl, 'F', w.fdwowner))
		FROM member m JOIN pg_foreign_data_wrapper w ON m.classid = 'pg_foreign_data_wrapper'::regclass AND w.oid = m.objid
UNION ALL
	SELECT 'schema ' || n.nspname, n.nspowner::regrole || ' ' || pg_temp.rights(n.nspacl, 'n', n.nspowner) || ' ' || coalesce(obj_description(n.oid, 'pg_namespace'), '')
		FROM pg_namespace n WHERE n.nspname ~ '^imgpipe'
UNION ALL
	SELECT 'event trigger ' || t.evtname, concat_ws(' ', t.evtevent, t.evtfoid::regproc, t.evtenabled, t.evttags)
		FROM member m JOIN pg_event_trigger t ON m.classid = 'pg_event_trigger'::regclass AND t.oid = m.objid
UNION ALL
	SELECT 'rows dumped of ' || c.table_name, c.condition
		FROM pg_extension e, unnest(e.extconfig::regclass[]::text[], e.extcondition) c (table_name, condition) WHERE e.extname = 'imgpipe'
UNION ALL
	SELECT 'extension', concat_ws(' ', e.extversion, e.extrelocatable, e.extowner::regrole, e.extnamespace::regnamespace) FROM pg_extension e WHERE e.extname = 'imgpipe'
UNION ALL
	SELECT 'row of access_templates', t::text FROM imgpipe.access_templates t WHERE t.shipped
UNION ALL
	SELECT 'row of access_rules', (to_jsonb(t) - 'rule_id')::text FROM imgpipe.access_rules t WHERE t.shipped
UNION ALL
	SELECT 'row of template_masks', to_jsonb(t)::text FROM imgpipe.template_masks t WHERE t.shipped;

SELECT line FROM (SELECT regexp_replace(about || ': ' || coalesce(said, ''), '\s+', ' ', 'g') AS line FROM fact) f ORDER BY line COLLATE "C";
