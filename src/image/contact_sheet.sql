
/* The aggregate contact_sheet(), once for each number of arguments: aggregates have no defaults. */

CREATE FUNCTION imgpipe.contact_sheet_add(internal, content imgpipe.image) RETURNS internal
	AS 'MODULE_PATHNAME', 'imgpipe_contact_sheet_add'
	LANGUAGE C STABLE PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION imgpipe.contact_sheet_add(internal, imgpipe.image) IS
'Transition function of contact_sheet(): makes a tile of an image.';

CREATE FUNCTION imgpipe.contact_sheet_add(internal, content imgpipe.image, columns integer) RETURNS internal
	AS 'MODULE_PATHNAME', 'imgpipe_contact_sheet_add'
	LANGUAGE C STABLE PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION imgpipe.contact_sheet_add(internal, imgpipe.image, integer) IS
'Transition function of contact_sheet(): makes a tile of an image.';

CREATE FUNCTION imgpipe.contact_sheet_add(internal, content imgpipe.image, columns integer, tile_width integer, tile_height integer) RETURNS internal
	AS 'MODULE_PATHNAME', 'imgpipe_contact_sheet_add'
	LANGUAGE C STABLE PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION imgpipe.contact_sheet_add(internal, imgpipe.image, integer, integer, integer) IS
'Transition function of contact_sheet(): makes a tile of an image.';

CREATE FUNCTION imgpipe.contact_sheet_add(internal, content imgpipe.image, columns integer, tile_width integer, tile_height integer, gap integer, background text) RETURNS internal
	AS 'MODULE_PATHNAME', 'imgpipe_contact_sheet_add'
	LANGUAGE C STABLE PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION imgpipe.contact_sheet_add(internal, imgpipe.image, integer, integer, integer, integer, text) IS
'Transition function of contact_sheet(): makes a tile of an image.';

CREATE FUNCTION imgpipe.contact_sheet_end(internal) RETURNS imgpipe.image
	AS 'MODULE_PATHNAME', 'imgpipe_contact_sheet_end'
	LANGUAGE C STABLE PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION imgpipe.contact_sheet_end(internal) IS
'Final function of contact_sheet(): joins the tiles.';

CREATE AGGREGATE imgpipe.contact_sheet(content imgpipe.image) (
	SFUNC = imgpipe.contact_sheet_add,
	STYPE = internal,
	SSPACE = 1000000,
	FINALFUNC = imgpipe.contact_sheet_end,
	PARALLEL = SAFE
);
COMMENT ON AGGREGATE imgpipe.contact_sheet(imgpipe.image) IS
'As contact_sheet(image, columns, tile_width, tile_height, gap, background), with defaults for what is left out.';

CREATE AGGREGATE imgpipe.contact_sheet(content imgpipe.image, columns integer) (
	SFUNC = imgpipe.contact_sheet_add,
	STYPE = internal,
	SSPACE = 1000000,
	FINALFUNC = imgpipe.contact_sheet_end,
	PARALLEL = SAFE
);
COMMENT ON AGGREGATE imgpipe.contact_sheet(imgpipe.image, integer) IS
'As contact_sheet(image, columns, tile_width, tile_height, gap, background), with defaults for what is left out.';

CREATE AGGREGATE imgpipe.contact_sheet(content imgpipe.image, columns integer, tile_width integer, tile_height integer) (
	SFUNC = imgpipe.contact_sheet_add,
	STYPE = internal,
	SSPACE = 1000000,
	FINALFUNC = imgpipe.contact_sheet_end,
	PARALLEL = SAFE
);
COMMENT ON AGGREGATE imgpipe.contact_sheet(imgpipe.image, integer, integer, integer) IS
'As contact_sheet(image, columns, tile_width, tile_height, gap, background), with defaults for what is left out.';

CREATE AGGREGATE imgpipe.contact_sheet(content imgpipe.image, columns integer, tile_width integer, tile_height integer, gap integer, background text) (
	SFUNC = imgpipe.contact_sheet_add,
	STYPE = internal,
	SSPACE = 1000000,
	FINALFUNC = imgpipe.contact_sheet_end,
	PARALLEL = SAFE
);
COMMENT ON AGGREGATE imgpipe.contact_sheet(imgpipe.image, integer, integer, integer, integer, text) IS
'One picture of many: each image, its first page, is scaled down into a box of tile_width x tile_height pixels (256 x 256), smaller ones stay as they are, and the tiles stand side by side in rows of so many columns (about as many as there are rows), with a gap of pixels between and around them (8) on a background, a color as in pipelines (white). Places are as large as the largest tile. Order them by contact_sheet(content, ... ORDER BY ...). Null images are left out; null without any. The other arguments count in the first row of a group; null is the default. The result is PNG: process_image(contact_sheet(content), ''webp'') makes it another. Raises 54000 over 240 images or a limit, 22023 for an argument out of range, and what process_image() raises. Each tile is made as its row comes, so images need not fit in memory together; a group is computed by one process, in parallel queries too.';
