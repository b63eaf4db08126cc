-- What each operation of process_image() makes: formats, sizes, and what it refuses.  How it looks
-- is compared with references in test/t/034_operations.pl.
\set SHOW_CONTEXT never
SET search_path = public, imgpipe;
SET client_encoding = 'UTF8';

CREATE TABLE pictures (name text PRIMARY KEY, content image);
INSERT INTO pictures
	SELECT 'rgb', process_image(file::image, 'resize(width=120, enlarge=true) | png') FROM samples WHERE name = 'png';
INSERT INTO pictures
	SELECT v.name, process_image(content, v.pipeline)
	FROM pictures, (VALUES ('gray', 'grayscale'::pipeline), ('alpha', 'extend(left=10, right=20)'),
		('gray alpha', 'grayscale | extend(left=10, right=20)'), ('border', 'extend(left=30, top=20, right=10, bottom=5, background=red)'),
		('photo', 'resize(width=600, enlarge=true) | jpeg')) AS v (name, pipeline)
	WHERE pictures.name = 'rgb';
SELECT name, image_format(content), image_width(content), image_height(content) FROM pictures ORDER BY name COLLATE "C";

CREATE FUNCTION shape(image) RETURNS text LANGUAGE sql AS $$
	SELECT format('%s %sx%s', format, width, height) || CASE WHEN pages > 1 THEN format(', %s pages', pages) ELSE '' END
	FROM imgpipe.image_info($1)
$$;
CREATE FUNCTION try(content image, pipeline text, layer image DEFAULT NULL) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
BEGIN
	IF layer IS NULL THEN
		RETURN public.shape(imgpipe.process_image(content, pipeline::imgpipe.pipeline));
	END IF;
	RETURN public.shape(imgpipe.process_image(content, pipeline::imgpipe.pipeline, layer));
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
	RETURN format('%s %s: %s', SQLSTATE, SQLERRM, detail);
END $$;

-- sizes, on 120 x 80
SELECT pipeline, try(content, pipeline)
FROM pictures, unnest(ARRAY[
	'resize(width=60)', 'resize(height=60)', 'resize(width=60, height=60)', 'resize(width=240)', 'resize(width=240, enlarge=true)',
	'resize(width=50, height=60, fit=cover)', 'resize(width=50, height=60, fit=cover, gravity=attention)',
	'resize(width=50, height=60, fit=cover, gravity=entropy)', 'resize(width=50, height=60, fit=cover, gravity=southeast)',
	'resize(width=50, height=60, fit=fill)', 'resize(width=50, height=60, fit=contain)', 'resize(width=50, height=60, fit=outside)',
	'resize(width=500, height=500, fit=contain, background=white)', 'resize(width=500, height=40, fit=cover)',
	'resize(width=60, kernel=nearest)', 'resize(width=60, kernel=linear)',
	'crop(width=50, height=60)', 'crop(width=120, height=80, gravity=west)', 'crop(left=70, top=0, width=50, height=60)',
	'crop(width=50, height=60, gravity=entropy)', 'crop(left=71, top=0, width=50, height=60)', 'crop(width=121, height=1)',
	'extend(left=1, top=2, right=3, bottom=4)', 'extend(left=200, fill=mirror)', 'extend(bottom=200, fill=repeat)', 'extend(top=9, fill=copy)',
	'trim', 'rotate(angle=90)', 'rotate(angle=-180)', 'rotate(angle=360)', 'flip', 'flop',
	'blur(sigma=20)', 'sharpen', 'median(radius=10)', 'pixelate(size=1000)', 'modulate(saturation=0)', 'gamma', 'normalize', 'clahe', 'grayscale',
	'tint(color=#704214)', 'invert', 'flatten', 'text(text=''imgpipe'')', 'text(text=''imgpipe'', width=0.5, tile=true, angle=30)',
	'join', 'join(columns=3, gap=5)', 'keep', 'autorotate(enabled=no)', 'pages', 'pages(first=1, last=9)', 'pages(first=2)']) WITH ORDINALITY AS u (pipeline, n)
WHERE name = 'rgb' ORDER BY n;

-- other angles make room for the corners; how pixels are rounded is the library's
SELECT image_width(i) BETWEEN 141 AND 143 AS width, image_height(i) BETWEEN 141 AND 143 AS height
FROM pictures, process_image(content, 'rotate(angle=45)') i WHERE name = 'rgb';

-- trim finds the border, or is told its colour; a picture that is all border stays
SELECT try(content, 'trim'), try(content, 'trim(background=blue)'), try(content, 'trim(threshold=255)') FROM pictures WHERE name = 'border';
SELECT try(content, 'trim') FROM pictures WHERE name = 'alpha';

-- encoders
SELECT pipeline, try(content, pipeline)
FROM pictures, unnest(ARRAY['jpeg(quality=50, progressive=true, chroma=full)', 'jpeg(chroma=half)', 'png(palette=true, colors=16)', 'png(interlace=true, compression=0)',
	'webp(lossless=true)', 'webp(quality=30, effort=0)', 'gif(colors=4, dither=0, effort=1)', 'tiff', 'tiff(compression=lzw)', 'tiff(compression=none)',
	'tiff(compression=jpeg, quality=50)', 'auto', 'auto(quality=30)', 'auto(max_bytes=2000)']) WITH ORDINALITY AS u (pipeline, n)
WHERE name = 'alpha' ORDER BY n;
-- AVIF depends on what libheif was built with
SELECT try(content, 'avif(effort=0)') ~ '^(avif 150x80$|0A000 )' AS avif FROM pictures WHERE name = 'alpha';
-- quality and effort do what they say
SELECT image_bytes(process_image(content, 'jpeg(quality=30)')) < image_bytes(process_image(content, 'jpeg(quality=90)')) AS jpeg,
	image_bytes(process_image(content, 'webp(quality=30)')) < image_bytes(process_image(content, 'webp(quality=90)')) AS webp,
	image_bytes(process_image(content, 'png(compression=9)')) < image_bytes(process_image(content, 'png(compression=0)')) AS png,
	image_bytes(process_image(content, 'png(palette=true, colors=2)')) < image_bytes(process_image(content, 'png')) AS palette
FROM pictures WHERE name = 'photo';

-- max_bytes finds the quality that fits: the next one would not
SELECT image_bytes(fits) <= 6000 AS fits, image_bytes(fits) > 5000 AS not_wasted
FROM pictures, unnest(ARRAY['jpeg(max_bytes=6000)', 'webp(quality=100, max_bytes=6000)']::pipeline[]) p, process_image(content, p) fits WHERE name = 'photo';
SELECT image_bytes(process_image(content, 'jpeg(quality=50, max_bytes=1000000)')) = image_bytes(process_image(content, 'jpeg(quality=50)')) AS not_better_than_asked_for
FROM pictures WHERE name = 'photo';
SELECT regexp_replace(try(content, 'jpeg(max_bytes=100)'), '\d+ bytes', 'N bytes') FROM pictures WHERE name = 'photo';
SELECT regexp_replace(try(content, 'webp(max_bytes=100)'), '\d+ bytes', 'N bytes') FROM pictures WHERE name = 'photo';

-- a second image
SELECT pipeline, try(rgb.content, pipeline, gray.content)
FROM pictures rgb, pictures gray, unnest(ARRAY['composite', 'composite(width=0.2, gravity=southeast, x=5, y=5, opacity=0.5)', 'composite(tile=true, x=3, y=3)',
	'composite(x=1000)', 'composite(width=10, blend=screen)', 'join(columns=2, gap=10, background=#123)', 'join', 'flip']) WITH ORDINALITY AS u (pipeline, n)
WHERE rgb.name = 'rgb' AND gray.name = 'gray alpha' ORDER BY n;
\set VERBOSITY default
SELECT process_image(content, 'composite') FROM pictures WHERE name = 'rgb';
\set VERBOSITY terse

-- every kind of picture through every kind of operation keeps what it can
SELECT name, string_agg(shape(process_image(content, p)), ', ' ORDER BY n)
FROM pictures, unnest(ARRAY['resize(width=30) | blur | png', 'rotate(angle=270) | jpeg', 'clahe | modulate(hue=90) | webp',
	'text(text=''x'', color=red) | tiff', 'median | pixelate(size=7) | gif', 'normalize | invert | gamma | tint(color=blue) | trim | auto']::pipeline[]) WITH ORDINALITY AS u (p, n)
GROUP BY name ORDER BY name COLLATE "C";

-- abuse is refused before it costs anything
SELECT pipeline, try(content, pipeline)
FROM pictures, unnest(ARRAY['resize(width=65535, height=65535, fit=fill, enlarge=true)', 'resize(width=65535, height=65535, fit=contain)',
	'extend(left=65535, bottom=65535)', 'extend(right=65535, fill=mirror) | extend(bottom=65535, fill=mirror)',
	'composite(width=10) | resize(width=65535, enlarge=true)',
	'resize(width=40000, height=1, fit=fill, enlarge=true) | webp']) WITH ORDINALITY AS u (pipeline, n)
WHERE name = 'rgb' ORDER BY n;
SET imgpipe.max_output_megapixels = 1;
SELECT try(content, 'text(text=''a lot of letters'', size=500)'), try(content, 'resize(width=1000, enlarge=true) | rotate(angle=45)') FROM pictures WHERE name = 'rgb';
SELECT try(content, 'resize(width=900, enlarge=true) | join', content) FROM pictures WHERE name = 'rgb';
RESET imgpipe.max_output_megapixels;

-- text: what cannot be written is an error, not a row of boxes
SELECT t, try(content, format('text(text=%L)', t))
FROM pictures, unnest(ARRAY['Grüße, Łódź, Ελλάδα, Москва', E'two\nlines', 'שלום', 'مرحبا', U&'\0378']) WITH ORDINALITY AS u (t, n)
WHERE name = 'rgb' ORDER BY n;

-- animations: every operation on every frame, each with its time; elsewhere the first frame
CREATE TABLE animations (name text, content image);
INSERT INTO animations VALUES ('gif', '\x4749463839610c00080081000047704cffffffff000000000021ff0b4e45545343415045322e30030100000021f904050a0000002c000000000c00080000020d8c8fa9292d1bdc5b125688b3290021f90405140000002c02000200060004008147704cffffff00800000000002074c8462a9979b0a0021f904051e0000002c04000200060004008147704c0000ffffffff0000000207948261a9979b0a003b'::bytea);
INSERT INTO animations SELECT 'webp', process_image(content, 'webp(lossless=true)') FROM animations;
INSERT INTO animations SELECT 'tiff', process_image(content, 'pages(first=1, last=3) | tiff') FROM animations WHERE name = 'gif';
SELECT name, shape(content) FROM animations ORDER BY name;
SELECT name, pipeline, try(content, pipeline)
FROM animations, unnest(ARRAY['resize(width=6)', 'resize(width=6) | webp', 'resize(width=6) | gif', 'resize(width=6) | png', 'trim', 'crop(width=8, height=8, gravity=attention)',
	'rotate(angle=90)', 'pages(first=2)', 'pages(first=2, last=3)', 'pages(first=3, last=9) | webp', 'pages(first=4)', 'pages(last=2) | tiff', 'pages(last=2) | jpeg']) WITH ORDINALITY AS u (pipeline, n)
ORDER BY name, n;
-- of the same input each output takes its own pages
SELECT shape(i)
FROM animations, unnest(process_image(content, ARRAY['gif', 'png', 'pages(first=2, last=3)', 'pages(first=3) | webp']::pipeline[])) WITH ORDINALITY AS u (i, n)
WHERE name = 'gif' ORDER BY n;
-- the delay of a frame stands in the fifth byte of a graphic control extension
SELECT (SELECT array_agg(get_byte(file, at) ORDER BY at)
	FROM generate_series(4, length(file) - 1) at WHERE substr(file, at - 3, 4) = '\x21f904'::bytea || substr(file, at, 1)) AS delays
FROM animations, LATERAL (SELECT process_image(content, p)::bytea FROM unnest(ARRAY['gif', 'pages(first=2, last=3) | flip | gif']::pipeline[]) p) AS v (file)
WHERE name = 'gif';

-- metadata: nothing without keep, and the place only when asked for; maker's notes may tell it too
INSERT INTO pictures
	SELECT 'camera', substr(file, 1, 2) || '\xffe1013e4578696600004d4d002a000000080006010e00020000000c00000056010f00020000000500000062011200030000000100010000829800020000000a000000688769000400000001000000728825000400000001000000d0000000004465736372697074696f6e004d616b6500002863292041434d452100000390030002000000140000009c829a000500000001000000b0927c000700000018000000b800000000323032343a30353a30362030373a30383a303900000000010000007d5345435245544d414b45524e4f54454750534d414b455200000400010002000000024e00000000020005000000030000010600030002000000024500000000040005000000030000011e000000000000003000000001000000330000000100000bb7000000640000000200000001000000110000000100000fb700000064ffe10107687474703a2f2f6e732e61646f62652e636f6d2f7861702f312e302f003c3f787061636b657420626567696e3d22223f3e3c783a786d706d65746120786d6c6e733a783d2261646f62653a6e733a6d6574612f223e3c7264663a52444620786d6c6e733a7264663d22687474703a2f2f7777772e77332e6f72672f313939392f30322f32322d7264662d73796e7461782d6e7323223e3c7264663a4465736372697074696f6e20786d6c6e733a657869663d22687474703a2f2f6e732e61646f62652e636f6d2f657869662f312e302f2220657869663a4750534c617469747564653d2234382c35312e344e222f3e3c2f7264663a5244463e3c2f783a786d706d6574613e'::bytea || substr(file, 3) FROM samples WHERE name = 'jpeg';
SELECT pipeline, has_exif AS exif, has_xmp AS xmp, exif ->> 'Copyright' AS copyright, exif ->> 'DateTimeOriginal' AS taken,
	exif -> 'latitude' AS latitude, file LIKE '%SECRET%'::bytea AS maker
FROM pictures, unnest(ARRAY['auto', 'keep(metadata=none) | webp', 'keep(metadata=icc) | jpeg', 'keep', 'keep(metadata=exif)', 'keep(metadata=exif, gps=true)', 'keep(gps=true)',
	'resize(width=6) | keep | webp', 'keep(gps=true) | webp', 'keep | png', 'keep(gps=true) | png']) WITH ORDINALITY AS u (pipeline, n),
	process_image(content, pipeline::pipeline) i, image_info(i), image_exif(i) AS e (exif), bytea(i) AS b (file)
WHERE name = 'camera' ORDER BY n;

-- contact sheets
SELECT shape(contact_sheet(content ORDER BY name)) FROM pictures WHERE name IN ('rgb', 'gray', 'alpha', 'border');
SELECT shape(contact_sheet(content, 4 ORDER BY name)) FROM pictures WHERE name IN ('rgb', 'gray', 'alpha', 'border');
SELECT shape(contact_sheet(content, 2, 60, 40)) FROM pictures WHERE name IN ('rgb', 'gray');
SELECT shape(contact_sheet(content, 2, 60, 40, 0, 'transparent')) FROM pictures WHERE name IN ('rgb', 'gray');
SELECT shape(contact_sheet(content, NULL, NULL, NULL, NULL, NULL)) FROM pictures WHERE name = 'rgb';
SELECT contact_sheet(content) IS NULL AS none, contact_sheet(NULL::image) IS NULL AS nulls FROM pictures WHERE false;
SELECT shape(contact_sheet(c)) FROM (SELECT content FROM pictures WHERE name = 'rgb' UNION ALL SELECT NULL) AS v (c);
-- the order decides, and the same order gives the same bytes
SELECT contact_sheet(content, 1 ORDER BY name)::bytea = contact_sheet(content, 1 ORDER BY name)::bytea AS same,
	contact_sheet(content, 1 ORDER BY name)::bytea = contact_sheet(content, 1 ORDER BY name DESC)::bytea AS reversed
FROM pictures WHERE name IN ('rgb', 'border');
SELECT name = 'photo' AS photo, shape(contact_sheet(content)) FROM pictures GROUP BY 1 ORDER BY 1;
SELECT shape(contact_sheet(content) OVER (ORDER BY name)) FROM pictures WHERE name IN ('rgb', 'gray');
\set VERBOSITY default
SELECT contact_sheet(content, 0) FROM pictures;
SELECT contact_sheet(content, 1, 5000, 1) FROM pictures;
SELECT contact_sheet(content, 1, 10, 10, 1, 'white) | blur(sigma=9') FROM pictures;
SELECT contact_sheet(content) FROM (SELECT content FROM pictures, generate_series(1, 241) WHERE name = 'rgb') many;
SELECT shape(contact_sheet(content, 16, 8, 8, 1, NULL)) FROM (SELECT content FROM pictures, generate_series(1, 240) WHERE name = 'rgb') many;
\set VERBOSITY terse
-- a parallel plan gives the same
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
SELECT shape(contact_sheet(content ORDER BY name)) FROM pictures WHERE name IN ('rgb', 'gray', 'alpha', 'border');
RESET parallel_setup_cost;
RESET parallel_tuple_cost;
RESET min_parallel_table_scan_size;
RESET max_parallel_workers_per_gather;

DROP TABLE pictures, animations;
DROP FUNCTION shape(image), try(image, text, image);
