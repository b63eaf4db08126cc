-- The type pipeline: canonical form, errors with position and hint, operators.
\set VERBOSITY default

-- Canonical form: lower case, arguments in the table's order, only those given.
SELECT 'RESIZE(fit=Cover,height=6e2 , width=800)|sharpen()|webp( quality = 80 )'::imgpipe.pipeline;
SELECT 'resize(width=800, height=600, fit=cover) | sharpen | webp(quality=80)'::imgpipe.pipeline;
SELECT p::imgpipe.pipeline
FROM (VALUES (1, 'resize(height=10)'),
             (2, 'resize(width=10,enlarge=yes)'),
             (3, 'crop(height=20,width=10)'),
             (4, 'crop(height=20,top=0,left=3,width=10)'),
             (5, 'rotate(angle=270)|flip|FLOP'),
             (6, E'grayscale\n\t| blur ( sigma = .50 )'),
             (7, 'sharpen(edges=2.50, flat=0, sigma=1.0)'),
             (8, 'jpeg(quality=90)'),
             (9, 'png'),
             (10, 'png(compression=9)')) AS v (n, p)
ORDER BY n;

-- The canonical text is its own canonical text.
SELECT bool_and(p::imgpipe.pipeline::text = p::imgpipe.pipeline::text::imgpipe.pipeline::text) AS stable
FROM (VALUES ('resize( width=1 )|webp'), ('blur(sigma=1e0)'), ('sharpen(sigma=0.33333333333333331)')) AS v (p);

-- Names: what was probably meant, or what there is.
SELECT 'resise(width=800)'::imgpipe.pipeline;
SELECT 'resize(width=800) | greyscale'::imgpipe.pipeline;
SELECT 'resize(widht=800)'::imgpipe.pipeline;
SELECT 'resize(size=800)'::imgpipe.pipeline;
SELECT 'grayscale(gamma=2)'::imgpipe.pipeline;
SELECT 'resize(width=800, height=600, fit=covr)'::imgpipe.pipeline;
SELECT 'resize(width=800, height=600, fit=nicely)'::imgpipe.pipeline;

-- Grammar.
SELECT ''::imgpipe.pipeline;
SELECT 'resize(width=800'::imgpipe.pipeline;
SELECT 'resize(800)'::imgpipe.pipeline;
SELECT 'resize width=800'::imgpipe.pipeline;
SELECT 'flip |'::imgpipe.pipeline;
SELECT 'flip; DROP TABLE images'::imgpipe.pipeline;
SELECT 'resize(width=1, height=1, fit=''cover'')'::imgpipe.pipeline;
SELECT 'flip(''vertical'::imgpipe.pipeline;
SELECT 'resize(width=1, height=2, width=3)'::imgpipe.pipeline;
SELECT 'webp | resize(width=800)'::imgpipe.pipeline;

-- What an operation needs.
SELECT 'resize'::imgpipe.pipeline;
SELECT 'resize(width=800, fit=fill)'::imgpipe.pipeline;
SELECT 'flip | crop(width=10)'::imgpipe.pipeline;
SELECT 'rotate(angle=400)'::imgpipe.pipeline;
SELECT 'resize(width=800, height=600, gravity=north)'::imgpipe.pipeline;
SELECT 'keep(metadata=icc, gps=true)'::imgpipe.pipeline;
SELECT 'text(text='''')'::imgpipe.pipeline;

-- Where operations may stand.
SELECT 'pages(last=3) | autorotate(enabled=off) | keep | flip | auto'::imgpipe.pipeline;
SELECT 'flip | pages(last=3)'::imgpipe.pipeline;
SELECT 'keep | flip | keep'::imgpipe.pipeline;

-- A name that is like none of them: all there are.
SELECT 'explode'::imgpipe.pipeline;

-- Values: of the wrong type, out of range.
SELECT 'webp(quality=high)'::imgpipe.pipeline;
SELECT 'webp(quality=80.5)'::imgpipe.pipeline;
SELECT 'webp(quality=80%)'::imgpipe.pipeline;
SELECT 'webp(quality=80px)'::imgpipe.pipeline;
SELECT 'webp(quality=0)'::imgpipe.pipeline;
SELECT 'webp(quality=101)'::imgpipe.pipeline;
SELECT 'resize(width=-1)'::imgpipe.pipeline;
SELECT 'resize(width=1e300)'::imgpipe.pipeline;
SELECT 'blur(sigma=0.29)'::imgpipe.pipeline;

-- Limits.
SELECT length((repeat('flip|', 31) || 'webp')::imgpipe.pipeline::text);
SELECT (repeat('flip|', 32) || 'webp')::imgpipe.pipeline;
SELECT (repeat(' ', 8187) || 'flip')::imgpipe.pipeline;
SELECT (repeat(' ', 8188) || 'flip')::imgpipe.pipeline;

-- SQLSTATEs.
CREATE FUNCTION pg_temp.state_of(p text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM p::imgpipe.pipeline;
	RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END $$;
SELECT left(p, 30) AS p, pg_temp.state_of(p)
FROM (VALUES ('flip'), ('flap'), ('resize(width=1,enlarge=up)'), ('webp(quality=0)'), ('webp(quality=1)'),
             ('rotate'), ('rotate(angle=361)'), ('webp|png'), (repeat('flip|', 32) || 'flip')) AS v (p);

-- Only so much is quoted of what was typed.
SELECT repeat('x', 5000)::imgpipe.pipeline;

-- Casts: to text by assignment, from text only when asked.
CREATE TEMP TABLE pipelines (p imgpipe.pipeline, t text);
INSERT INTO pipelines VALUES ('webp', 'flip|webp'::imgpipe.pipeline);
INSERT INTO pipelines VALUES ('webp'::text, NULL);
INSERT INTO pipelines VALUES ('webp'::text::imgpipe.pipeline, NULL);
SELECT p, t FROM pipelines;
SELECT ARRAY['flip', 'resize(width=1)|png']::imgpipe.pipeline[];
SELECT ARRAY['resize(width=1, fit=inside)']::text[]::imgpipe.pipeline[]::text[];
PREPARE with_parameter(imgpipe.pipeline) AS SELECT $1, pg_typeof($1);
EXECUTE with_parameter('FLIP|WEBP');
DEALLOCATE with_parameter;

-- Comparison: by canonical text, byte by byte.
SET search_path = imgpipe, public;
SELECT 'resize(width=1,height=2)'::pipeline = 'RESIZE(height=2, width=1)' AS same,
       'webp'::pipeline = 'webp(quality=80)' AS same_as_default,
       'webp'::pipeline <> 'png' AS different,
       'jpeg'::pipeline < 'webp' AS lt, 'jpeg'::pipeline <= 'jpeg' AS le,
       'webp'::pipeline > 'webp' AS gt, 'webp'::pipeline >= 'jpeg' AS ge;
RESET search_path;

CREATE TEMP TABLE requests (p imgpipe.pipeline PRIMARY KEY, n integer);
INSERT INTO requests VALUES ('webp(quality=80)', 1), ('WEBP( quality=8e1 )', 2)
ON CONFLICT DO NOTHING;
INSERT INTO requests VALUES ('blur(sigma=2)|webp', 3), ('flip', 4)
ON CONFLICT (p) DO UPDATE SET n = excluded.n;
INSERT INTO requests VALUES ('webp(quality=80.0)', 5);
SELECT p, n FROM requests ORDER BY p DESC;
SELECT p, count(*)
FROM (VALUES ('flip | webp'::imgpipe.pipeline), ('FLIP|webp'), ('webp')) AS v (p)
GROUP BY p ORDER BY p;
SELECT count(DISTINCT p) FROM (VALUES ('flip | webp'::imgpipe.pipeline), ('FLIP|webp'), ('webp')) AS v (p);
SET enable_sort = off;
EXPLAIN (COSTS OFF) SELECT DISTINCT p FROM pipelines;
RESET enable_sort;
CREATE TEMP TABLE hashed (p imgpipe.pipeline, n integer);
INSERT INTO hashed SELECT p, n FROM requests;
CREATE INDEX ON hashed USING hash (p);
SET enable_seqscan = off;
SET enable_bitmapscan = off;
EXPLAIN (COSTS OFF) SELECT n FROM hashed WHERE p OPERATOR(imgpipe.=) 'FLIP()';
SELECT n FROM hashed WHERE p OPERATOR(imgpipe.=) 'FLIP()';
EXPLAIN (COSTS OFF) SELECT n FROM requests WHERE p OPERATOR(imgpipe.>=) 'flip' ORDER BY p;
SELECT n FROM requests WHERE p OPERATOR(imgpipe.>=) 'flip' ORDER BY p;
RESET enable_seqscan;
RESET enable_bitmapscan;
CREATE TEMP TABLE parted (p imgpipe.pipeline) PARTITION BY HASH (p);
CREATE TEMP TABLE parted_0 PARTITION OF parted FOR VALUES WITH (MODULUS 1, REMAINDER 0);
INSERT INTO parted VALUES ('flip');
SELECT p FROM parted WHERE p OPERATOR(imgpipe.=) 'flip';
SELECT opcname, amname, amvalidate(o.oid)
FROM pg_opclass o JOIN pg_am a ON a.oid = opcmethod
WHERE opcintype = 'imgpipe.pipeline'::regtype ORDER BY amname;
SELECT jsonb_object_agg(p, n ORDER BY n), to_jsonb(min(p::text)) FROM requests;

-- Binary form: the text, read again.
SELECT imgpipe.pipeline_send('flip|webp');
CREATE TEMP TABLE copied (p imgpipe.pipeline);
\copy requests (p) TO 'results/pipeline.copy' (FORMAT binary)
\copy copied FROM 'results/pipeline.copy' (FORMAT binary)
SELECT p FROM copied ORDER BY p;
\copy (SELECT 'FLIP|webp'::text) TO 'results/pipeline.copy' (FORMAT binary)
\copy copied FROM 'results/pipeline.copy' (FORMAT binary)
SELECT count(*) FROM copied WHERE p::text = 'flip | webp';
\copy (SELECT 'flip | wepb'::text) TO 'results/pipeline.copy' (FORMAT binary)
\set VERBOSITY terse
\copy copied FROM 'results/pipeline.copy' (FORMAT binary)
\set VERBOSITY default

-- The type.
SELECT typstorage, typlen, typalign, typcollation FROM pg_type WHERE oid = 'imgpipe.pipeline'::regtype;

-- The reference; docs/operations.md is made of the same table.
SELECT operation, kind FROM imgpipe.pipeline_operations() WHERE argument IS NULL;
SELECT operation, argument, type, required, default_value, minimum, maximum, words
FROM imgpipe.pipeline_operations() WHERE operation IN ('crop', 'text', 'jpeg') AND argument IS NOT NULL;
SELECT count(*) FILTER (WHERE description !~ '\.$') AS not_sentences,
       count(*) FILTER (WHERE argument IS NULL AND type IS NOT NULL) AS odd
FROM imgpipe.pipeline_operations();
-- Every default is a value that the argument takes.
SELECT count(*) AS defaults,
       count(*) FILTER (WHERE pg_temp.state_of(format('%s(%s%s=%s)', operation, needed, argument, default_value)) <> 'accepted') AS refused
FROM imgpipe.pipeline_operations(),
     LATERAL (SELECT CASE WHEN operation = 'resize' AND argument IN ('gravity', 'background') THEN 'width=1, height=1, fit=contain, '
                          WHEN operation = 'resize' THEN 'width=1, height=1, '
                          WHEN operation = 'crop' THEN 'width=1, height=1, '
                          WHEN operation = 'extend' AND argument NOT IN ('left', 'top', 'right', 'bottom') THEN 'left=1, '
                          WHEN operation = 'rotate' THEN 'angle=1, '
                          WHEN operation = 'text' THEN 'text=''a'', '
                          WHEN operation = 'png' AND argument = 'colors' THEN 'palette=true, '
                          WHEN operation = 'tiff' AND argument = 'quality' THEN 'compression=jpeg, ' END) AS c (needed)
WHERE default_value IS NOT NULL;
