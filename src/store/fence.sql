
/*
 * The read fence: from its deadline on, no one but the owner sees a row, and
 * no one can write one that is past its deadline, or whose deadline is beyond
 * the longest retention.  GRANT decides who may read and write at all.
 */

ALTER TABLE imgpipe.images ENABLE ROW LEVEL SECURITY;
CREATE POLICY granted ON imgpipe.images USING (true);
CREATE POLICY fence ON imgpipe.images AS RESTRICTIVE USING (image_id OPERATOR(pg_catalog.>=) imgpipe.fence());
CREATE POLICY horizon ON imgpipe.images AS RESTRICTIVE USING (true) WITH CHECK (image_id OPERATOR(pg_catalog.<) imgpipe.horizon());

ALTER TABLE imgpipe.renditions ENABLE ROW LEVEL SECURITY;
CREATE POLICY granted ON imgpipe.renditions USING (true);
CREATE POLICY fence ON imgpipe.renditions AS RESTRICTIVE USING (image_id OPERATOR(pg_catalog.>=) imgpipe.fence());
CREATE POLICY horizon ON imgpipe.renditions AS RESTRICTIVE USING (true) WITH CHECK (image_id OPERATOR(pg_catalog.<) imgpipe.horizon());

ALTER TABLE imgpipe.results ENABLE ROW LEVEL SECURITY;
CREATE POLICY granted ON imgpipe.results USING (true);
CREATE POLICY fence ON imgpipe.results AS RESTRICTIVE USING (image_id OPERATOR(pg_catalog.>=) imgpipe.fence());
CREATE POLICY horizon ON imgpipe.results AS RESTRICTIVE USING (true) WITH CHECK (image_id OPERATOR(pg_catalog.<) imgpipe.horizon());

ALTER TABLE imgpipe.dead_letters ENABLE ROW LEVEL SECURITY;
CREATE POLICY granted ON imgpipe.dead_letters USING (true);
CREATE POLICY fence ON imgpipe.dead_letters AS RESTRICTIVE USING (image_id OPERATOR(pg_catalog.>=) imgpipe.fence());
CREATE POLICY horizon ON imgpipe.dead_letters AS RESTRICTIVE USING (true) WITH CHECK (image_id OPERATOR(pg_catalog.<) imgpipe.horizon());

