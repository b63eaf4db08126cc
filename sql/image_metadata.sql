-- Metadata: image_info from the value's header, EXIF, IPTC, XMP and ICC profiles by the decoder.
\set SHOW_CONTEXT never
SET search_path = imgpipe, public;

-- the header knows these
SELECT name, format, width, height, stored_width, stored_height, pages, depth, color_space, orientation,
	is_animated, is_progressive, has_exif, has_xmp, has_iptc
	FROM samples, image_info(file::image)
	WHERE name IN ('jpeg', 'png', 'webp', 'gif', 'tiff', 'heic', 'avif', 'turned jpeg')
	ORDER BY name COLLATE "C";
SELECT bands, has_alpha, has_icc_profile FROM samples, image_info(file::image) WHERE name = 'jpeg';
SELECT image_info(NULL);

-- A photograph with everything: segments behind the first two bytes of a JPEG.
CREATE FUNCTION segment(marker integer, content bytea) RETURNS bytea LANGUAGE sql AS
	$$SELECT '\xff'::bytea || set_byte('\x00', 0, marker) || substr(int4send(length(content) + 2), 3) || content$$;
CREATE FUNCTION jpeg_with(segments bytea) RETURNS image LANGUAGE sql AS
	$$SELECT (substr(file, 1, 2) || segments || substr(file, 3))::image FROM samples WHERE name = 'jpeg'$$;
CREATE TABLE blocks (name text PRIMARY KEY, content bytea);
INSERT INTO blocks VALUES ('exif', '\x'
	'4d4d002a000000080009010f00020000000d0000007a011000020000000900000088011200030000000100060000011a00050000000100000092011b'
	'0005000000010000009a0128000300000001000200000132000200000014000000a28769000400000001000000b68825000400000001000003880000'
	'000043616d65726120576f726b7300004dfc6c6c6572203100000000012c000000010000012c00000001323032343a30363a30322030303a30303a30'
	'3000000b829a00050000000100000140829d000500000001000001488827000300000001019000009000000700000004303233329003000200000014'
	'000001509011000200000007000001649101000700000004010203009204000a000000010000016c927c000700000200000001749286000700000013'
	'000003749291000200000003323500000000000000000001000000c80000001c0000000a323032343a30363a30312031323a33343a3536002b30323a'
	'30300000ffffffff00000003000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f'
	'303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b'
	'6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7'
	'a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedfe0e1e2e3'
	'e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f'
	'202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f505152535455565758595a5b'
	'5c5d5e5f606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f9091929394959697'
	'98999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3'
	'd4d5d6d7d8d9dadbdcdddedfe0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff4153434949000000612022636f6d6d65'
	'6e742200000900000001000000040203000000010002000000024e0000000002000500000003000003fa000300020000000257000000000400050000'
	'00030000041200050001000000010000000000060005000000010000042a000700050000000300000432001d00020000000b0000044a000000000000'
	'002f00000001000000160000000100000bc40000006400000008000000010000002000000001000000180000000100009f92000000640000000a0000'
	'000100000022000000010000003800000001323032343a30363a30310000');
INSERT INTO blocks VALUES ('iptc', '\x'
	'50686f746f73686f7020332e30003842494d04040000000000361c015a00031b25471c020500055469746c651c021900037365611c0219000473c3a4'
	'791c02500003416e6e1c025a00065afc72696368');
INSERT INTO blocks VALUES ('icc', '\x'
	'0000008400000000021000006d6e74725247422058595a20000000000000000000000000616373700000000000000000000000000000000000000000'
	'000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000'
	'000000000000000000000000');
INSERT INTO blocks VALUES ('xmp', convert_to('<x:xmpmeta xmlns:x="adobe:ns:meta/">Zürich</x:xmpmeta>', 'UTF8'));
CREATE TABLE photograph AS
	SELECT jpeg_with(segment(225, '\x457869660000'::bytea || (SELECT content FROM blocks WHERE name = 'exif'))
		|| segment(225, 'http://ns.adobe.com/xap/1.0/'::bytea || '\x00'::bytea || (SELECT content FROM blocks WHERE name = 'xmp'))
		|| segment(226, 'ICC_PROFILE'::bytea || '\x000101'::bytea || (SELECT content FROM blocks WHERE name = 'icc'))
		|| segment(237, (SELECT content FROM blocks WHERE name = 'iptc'))) AS content;
SELECT width, height, stored_width, stored_height, orientation, has_icc_profile, has_exif, has_xmp, has_iptc
	FROM photograph, image_info(content);
SELECT jsonb_pretty(image_exif(content) #- '{MakerNote,hex}') FROM photograph;
SELECT left(image_exif(content) #>> '{MakerNote,hex}', 14), length(image_exif(content) #>> '{MakerNote,hex}') FROM photograph;
SELECT jsonb_pretty(image_iptc(content)), image_xmp(content) FROM photograph;
SELECT image_icc_profile(p.content) = b.content FROM photograph p, blocks b WHERE name = 'icc';

-- typed: what is cast and compared
SET timezone = 'UTC';
SELECT (image_exif(content) ->> 'DateTimeOriginal')::timestamptz, (image_exif(content) ->> 'DateTime')::timestamp,
	(image_exif(content) ->> 'GPSDateTime')::timestamptz, (image_exif(content) -> 'FNumber')::numeric * 2,
	point((image_exif(content) -> 'longitude')::float, (image_exif(content) -> 'latitude')::float)
	FROM photograph;

-- a TIFF has its tags in itself
SELECT jsonb_pretty(image_exif(file::image)) FROM samples WHERE name = 'tiff';

-- null where there is none
SELECT image_exif(file::image) IS NULL AS exif, image_iptc(file::image) IS NULL AS iptc,
	image_xmp(file::image) IS NULL AS xmp, image_icc_profile(file::image) IS NULL AS icc_profile
	FROM samples WHERE name = 'png';
SELECT image_exif(NULL), image_iptc(NULL), image_xmp(NULL), image_icc_profile(NULL);

-- nonsense in a block harms nobody
SELECT image_exif(jpeg_with(segment(225, '\x457869660000'::bytea || 'no EXIF at all')));
SELECT image_exif(jpeg_with(segment(225, '\x457869660000'::bytea || substr(content, 1, 120)))) FROM blocks WHERE name = 'exif';
SELECT image_iptc(jpeg_with(segment(237, substr(content, 1, 48)))) FROM blocks WHERE name = 'iptc';
SELECT image_xmp(jpeg_with(segment(225, 'http://ns.adobe.com/xap/1.0/'::bytea || '\x00ff416200420000'::bytea)));

-- limits hold for metadata, too
SET imgpipe.allowed_formats = 'png';
SELECT image_exif(content) FROM photograph;
RESET imgpipe.allowed_formats;

DROP TABLE blocks, photograph;
DROP FUNCTION jpeg_with(bytea), segment(integer, bytea);
