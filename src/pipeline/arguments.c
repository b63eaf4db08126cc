/*
 * arguments.c
 *		The arguments of each operation: type, range, default, description.
 *
 * Descriptions are sentences for the reference and for the hint of an error:
 * units, what happens when the argument is left out, what happens to images
 * that do not fit.
 */
#include "pipeline/arguments.h"

#define MAX_SIDE	65535		/* pixels; the most that JPEG can hold */
#define MAX_FILE	1000000000	/* bytes; below what a value of PostgreSQL holds */

/* name, range, default, description; a required argument has no default */
#define INTEGER(n, low, high, default_, text) \
	{.name = n, .type = ARGUMENT_INTEGER, .minimum = low, .maximum = high, .fallback = default_, .description = text}
#define NUMBER(n, low, high, default_, text) \
	{.name = n, .type = ARGUMENT_NUMBER, .minimum = low, .maximum = high, .fallback = default_, .description = text}
#define WORD(n, list, default_, text) \
	{.name = n, .type = ARGUMENT_WORD, .words = list, .fallback = default_, .description = text}
#define BOOLEAN(n, default_, text) \
	{.name = n, .type = ARGUMENT_BOOLEAN, .fallback = default_, .description = text}
#define COLOR(n, default_, text) \
	{.name = n, .type = ARGUMENT_COLOR, .fallback = default_, .description = text}
#define REQUIRED_INTEGER(n, low, high, text) \
	{.name = n, .type = ARGUMENT_INTEGER, .required = true, .minimum = low, .maximum = high, \
	.fallback = NO_DEFAULT, .description = text}
#define END		{.name = NULL}

#define BLACK		0x000000FF
#define WHITE		0xFFFFFFFF
#define TRANSPARENT	0x00000000

#define BACKGROUND	"Color of what is new. The result has transparency where the color has it, or the image."
#define MAX_BYTES	"Most bytes that the result may have. Where it would have more, the best quality below the given one " \
	"that fits is looked for; it is an error if even the lowest does not."
#define GRAVITY		"Where in the image it stands."
#define OFFSET_X	"Distance in pixels from the edge that gravity names; from the middle, to the right, where it names none. " \
	"With tile: the space between columns."
#define OFFSET_Y	"Distance in pixels from the edge that gravity names; from the middle, down, where it names none. " \
	"With tile: the space between rows."

static const char *const fit_words[] = {
	[FIT_INSIDE] = "inside",
	[FIT_COVER] = "cover",
	[FIT_FILL] = "fill",
	[FIT_CONTAIN] = "contain",
	[FIT_OUTSIDE] = "outside",
	NULL
};

static const char *const kernel_words[] = {
	[KERNEL_LANCZOS3] = "lanczos3",
	[KERNEL_LANCZOS2] = "lanczos2",
	[KERNEL_CUBIC] = "cubic",
	[KERNEL_MITCHELL] = "mitchell",
	[KERNEL_LINEAR] = "linear",
	[KERNEL_NEAREST] = "nearest",
	NULL
};

#define PLACES \
	[GRAVITY_CENTER] = "center", \
	[GRAVITY_NORTH] = "north", \
	[GRAVITY_NORTHEAST] = "northeast", \
	[GRAVITY_EAST] = "east", \
	[GRAVITY_SOUTHEAST] = "southeast", \
	[GRAVITY_SOUTH] = "south", \
	[GRAVITY_SOUTHWEST] = "southwest", \
	[GRAVITY_WEST] = "west", \
	[GRAVITY_NORTHWEST] = "northwest"

static const char *const place_words[] = {PLACES, NULL};

static const char *const gravity_words[] = {
	PLACES,
	[GRAVITY_ATTENTION] = "attention",
	[GRAVITY_ENTROPY] = "entropy",
	NULL
};

static const char *const fill_words[] = {
	[FILL_COLOR] = "color",
	[FILL_COPY] = "copy",
	[FILL_MIRROR] = "mirror",
	[FILL_REPEAT] = "repeat",
	NULL
};

static const char *const blend_words[] = {
	[BLEND_OVER] = "over",
	[BLEND_MULTIPLY] = "multiply",
	[BLEND_SCREEN] = "screen",
	[BLEND_OVERLAY] = "overlay",
	[BLEND_DARKEN] = "darken",
	[BLEND_LIGHTEN] = "lighten",
	[BLEND_DIFFERENCE] = "difference",
	NULL
};

static const char *const metadata_words[] = {
	[KEEP_NONE] = "none",
	[KEEP_EXIF] = "exif",
	[KEEP_ICC] = "icc",
	[KEEP_ALL] = "all",
	NULL
};

static const char *const chroma_words[] = {
	[CHROMA_AUTO] = "auto",
	[CHROMA_FULL] = "full",
	[CHROMA_HALF] = "half",
	NULL
};

static const char *const tiff_compression_words[] = {
	[TIFF_DEFLATE] = "deflate",
	[TIFF_LZW] = "lzw",
	[TIFF_NONE] = "none",
	[TIFF_AS_JPEG] = "jpeg",
	NULL
};

const ArgumentSpec pages_arguments[] = {
	[PAGES_FIRST] = INTEGER("first", 1, 100000, 1,
							"Number of the first page, from 1 on. An image without such a page is an error."),
	[PAGES_LAST] = INTEGER("last", 1, 100000, NO_DEFAULT,
						   "Number of the last page; if left out, the first alone. "
						   "Where it is beyond the image's last page, all up to that."),
	END
};

const ArgumentSpec autorotate_arguments[] = {
	[AUTOROTATE_ENABLED] = BOOLEAN("enabled", true,
								   "false: pixels are taken as they are stored, whatever the EXIF orientation says."),
	END
};

const ArgumentSpec resize_arguments[] = {
	[RESIZE_WIDTH] = INTEGER("width", 1, MAX_SIDE, NO_DEFAULT,
							 "Width of the box in pixels. At least one of width and height is required; "
							 "the missing one follows from the image's proportions."),
	[RESIZE_HEIGHT] = INTEGER("height", 1, MAX_SIDE, NO_DEFAULT,
							  "Height of the box in pixels."),
	[RESIZE_FIT] = WORD("fit", fit_words, FIT_INSIDE,
						"inside: the whole image within the box, in its proportions. "
						"cover: the box is filled, in the image's proportions, and what stands out is cut off by gravity. "
						"fill: exactly the box, distorted if need be. "
						"contain: as inside, and what is left of the box is filled with the background. "
						"outside: as cover, but nothing is cut off. All but inside require width and height."),
	[RESIZE_ENLARGE] = BOOLEAN("enlarge", false,
							   "Whether an image smaller than the box is scaled up. If not, no side of the image grows; "
							   "fit=contain still fills the box with background."),
	[RESIZE_KERNEL] = WORD("kernel", kernel_words, KERNEL_LANCZOS3,
						   "How pixels are weighted: lanczos3 is sharpest, linear softest, nearest takes single pixels "
						   "and keeps hard edges."),
	[RESIZE_GRAVITY] = WORD("gravity", gravity_words, GRAVITY_CENTER,
							"For fit=cover the part that stays, for fit=contain where in the box the image stands. "
							"attention keeps what draws the eye, entropy what has most detail; both for cover only."),
	[RESIZE_BACKGROUND] = COLOR("background", TRANSPARENT,
								"Color that fit=contain fills the box with. JPEG turns transparency to white."),
	END
};

const ArgumentSpec crop_arguments[] = {
	[CROP_LEFT] = INTEGER("left", 0, MAX_SIDE, NO_DEFAULT,
						  "Distance of the area from the image's left edge in pixels; by gravity if left out."),
	[CROP_TOP] = INTEGER("top", 0, MAX_SIDE, NO_DEFAULT,
						 "Distance of the area from the image's top edge in pixels; by gravity if left out."),
	[CROP_WIDTH] = REQUIRED_INTEGER("width", 1, MAX_SIDE, "Width of the area in pixels."),
	[CROP_HEIGHT] = REQUIRED_INTEGER("height", 1, MAX_SIDE, "Height of the area in pixels."),
	[CROP_GRAVITY] = WORD("gravity", gravity_words, GRAVITY_CENTER,
						  "Where in the image the area lies, when left and top do not tell. "
						  "attention takes what draws the eye, entropy what has most detail."),
	END
};

const ArgumentSpec extend_arguments[] = {
	[EXTEND_LEFT] = INTEGER("left", 0, MAX_SIDE, 0, "Pixels to add at the left edge."),
	[EXTEND_TOP] = INTEGER("top", 0, MAX_SIDE, 0, "Pixels to add at the top edge."),
	[EXTEND_RIGHT] = INTEGER("right", 0, MAX_SIDE, 0, "Pixels to add at the right edge."),
	[EXTEND_BOTTOM] = INTEGER("bottom", 0, MAX_SIDE, 0, "Pixels to add at the bottom edge."),
	[EXTEND_FILL] = WORD("fill", fill_words, FILL_COLOR,
						 "color: the background. copy: the pixels of the edge. "
						 "mirror: the image mirrored at its edge. repeat: the image again."),
	[EXTEND_BACKGROUND] = COLOR("background", TRANSPARENT, BACKGROUND),
	END
};

const ArgumentSpec trim_arguments[] = {
	[TRIM_THRESHOLD] = NUMBER("threshold", 0, 255, 10,
							  "How much a pixel may differ from the background and still be taken for it, in steps of 255."),
	[TRIM_BACKGROUND] = COLOR("background", NO_DEFAULT,
							  "Color of the border; if left out, that of the pixel at the top left."),
	END
};

const ArgumentSpec rotate_arguments[] = {
	[ROTATE_ANGLE] = {
		.name = "angle",
		.type = ARGUMENT_NUMBER,
		.required = true,
		.minimum = -360,
		.maximum = 360,
		.fallback = NO_DEFAULT,
		.description = "Degrees, clockwise. Quarters are without loss; for others the image grows to hold its corners."
	},
	[ROTATE_BACKGROUND] = COLOR("background", TRANSPARENT, BACKGROUND),
	END
};

const ArgumentSpec blur_arguments[] = {
	[BLUR_SIGMA] = NUMBER("sigma", 0.3, 100, 1,
						  "Standard deviation of the Gaussian in pixels: the larger, the softer."),
	END
};

const ArgumentSpec sharpen_arguments[] = {
	[SHARPEN_SIGMA] = NUMBER("sigma", 0.3, 10, 0.5,
							 "Standard deviation of the Gaussian in pixels: the larger, the coarser the detail that is raised."),
	[SHARPEN_FLAT] = NUMBER("flat", 0, 100, 0,
							"Strength in flat areas; above 0 noise is sharpened too."),
	[SHARPEN_EDGES] = NUMBER("edges", 0, 100, 3, "Strength at edges."),
	END
};

const ArgumentSpec median_arguments[] = {
	[MEDIAN_RADIUS] = INTEGER("radius", 1, 10, 1,
							  "Pixels on each side of a pixel that it is compared with: 1 is a window of 3 by 3."),
	END
};

const ArgumentSpec pixelate_arguments[] = {
	[PIXELATE_SIZE] = INTEGER("size", 2, 1000, 10, "Side of a block in pixels."),
	END
};

const ArgumentSpec modulate_arguments[] = {
	[MODULATE_BRIGHTNESS] = NUMBER("brightness", 0, 10, 1,
								   "Factor of the lightness: 0 is black, 1 leaves it, above 1 is brighter."),
	[MODULATE_CONTRAST] = NUMBER("contrast", 0, 10, 1,
								 "Factor of the distance from middle gray: 0 is gray, 1 leaves it, above 1 is harder."),
	[MODULATE_SATURATION] = NUMBER("saturation", 0, 10, 1,
								   "Factor of the colourfulness: 0 is without colour, 1 leaves it."),
	[MODULATE_HUE] = NUMBER("hue", -360, 360, 0, "Degrees to turn the hue by."),
	END
};

const ArgumentSpec gamma_arguments[] = {
	[GAMMA_EXPONENT] = NUMBER("exponent", 0.1, 10, 2.2,
							  "Values, from 0 to 1, are raised to the power of 1/exponent: above 1 brightens the shadows."),
	END
};

const ArgumentSpec normalize_arguments[] = {
	[NORMALIZE_LOWER] = NUMBER("lower", 0, 99, 1, "Percentage of the darkest pixels that become black."),
	[NORMALIZE_UPPER] = NUMBER("upper", 1, 100, 99, "Percentage of the pixels that are not the brightest, which become white."),
	END
};

const ArgumentSpec clahe_arguments[] = {
	[CLAHE_TILES] = INTEGER("tiles", 1, 64, 8,
							"Parts along the longer side that are equalized by themselves."),
	[CLAHE_SLOPE] = NUMBER("slope", 1, 100, 3,
						   "Most that contrast is raised by, as a factor: lower keeps noise down."),
	END
};

const ArgumentSpec tint_arguments[] = {
	[TINT_COLOR] = {
		.name = "color",
		.type = ARGUMENT_COLOR,
		.required = true,
		.fallback = NO_DEFAULT,
		.description = "Color whose hue and saturation every pixel gets; lightness stays."
	},
	END
};

const ArgumentSpec flatten_arguments[] = {
	[FLATTEN_BACKGROUND] = COLOR("background", WHITE, "Color behind the image, without transparency."),
	END
};

const ArgumentSpec composite_arguments[] = {
	[COMPOSITE_GRAVITY] = WORD("gravity", place_words, GRAVITY_CENTER, GRAVITY),
	[COMPOSITE_X] = INTEGER("x", -MAX_SIDE, MAX_SIDE, 0, OFFSET_X),
	[COMPOSITE_Y] = INTEGER("y", -MAX_SIDE, MAX_SIDE, 0, OFFSET_Y),
	[COMPOSITE_WIDTH] = NUMBER("width", 0.001, 10, NO_DEFAULT,
							   "Width that the overlay is scaled to, as a part of the image's width: 0.2 is a fifth. "
							   "Its own size if left out."),
	[COMPOSITE_OPACITY] = NUMBER("opacity", 0, 1, 1, "From 0, invisible, to 1, as it is."),
	[COMPOSITE_TILE] = BOOLEAN("tile", false, "Whether the overlay is repeated all over the image."),
	[COMPOSITE_BLEND] = WORD("blend", blend_words, BLEND_OVER,
							 "over: the overlay covers the image. The others mix the two colours, as in other programs."),
	END
};

const ArgumentSpec text_arguments[] = {
	[TEXT_TEXT] = {
		.name = "text",
		.type = ARGUMENT_TEXT,
		.required = true,
		.maximum = 500,
		.fallback = NO_DEFAULT,
		.description = "What is written; a line break in it begins a new line. Letters are set one after the other: "
		"scripts that join or reorder them are an error, as are characters that no font of the server has."
	},
	[TEXT_SIZE] = NUMBER("size", 4, 2000, 32, "Size of the font in pixels."),
	[TEXT_BOLD] = BOOLEAN("bold", false, "Whether the font is bold."),
	[TEXT_COLOR] = COLOR("color", BLACK, "Color of the letters; with transparency for a watermark."),
	[TEXT_BACKGROUND] = COLOR("background", TRANSPARENT, "Color of the box behind the letters."),
	[TEXT_PADDING] = INTEGER("padding", 0, 1000, 0, "Pixels between the letters and the edges of their box."),
	[TEXT_ANGLE] = NUMBER("angle", -360, 360, 0, "Degrees that the box is turned by, clockwise."),
	[TEXT_GRAVITY] = WORD("gravity", place_words, GRAVITY_CENTER,
						  GRAVITY " Lines are set flush with the edge that it names."),
	[TEXT_X] = INTEGER("x", -MAX_SIDE, MAX_SIDE, 0, OFFSET_X),
	[TEXT_Y] = INTEGER("y", -MAX_SIDE, MAX_SIDE, 0, OFFSET_Y),
	[TEXT_WIDTH] = NUMBER("width", 0.001, 10, NO_DEFAULT,
						  "Width of the letters as a part of the image's width, instead of a size: 0.5 is half of it."),
	[TEXT_TILE] = BOOLEAN("tile", false, "Whether the text is repeated all over the image."),
	END
};

const ArgumentSpec join_arguments[] = {
	[JOIN_COLUMNS] = INTEGER("columns", 1, 1000, 1, "Images in a row."),
	[JOIN_GAP] = INTEGER("gap", 0, 1000, 0, "Pixels between images."),
	[JOIN_BACKGROUND] = COLOR("background", TRANSPARENT,
							  "Color of gaps, and of what a smaller image leaves of its place."),
	END
};

const ArgumentSpec keep_arguments[] = {
	[KEEP_METADATA] = WORD("metadata", metadata_words, KEEP_ALL,
						   "none: nothing, as without this operation. exif: EXIF. icc: the colour profile; "
						   "colours then stay in it instead of becoming sRGB. all: these, XMP, IPTC and comments."),
	[KEEP_GPS] = BOOLEAN("gps", false,
						 "Whether the place where the picture was taken is kept, in EXIF and XMP. "
						 "If not, XMP that tells it is dropped as a whole."),
	END
};

const ArgumentSpec jpeg_arguments[] = {
	[JPEG_QUALITY] = INTEGER("quality", 1, 100, 80, "From 1, small, to 100, faithful."),
	[JPEG_PROGRESSIVE] = BOOLEAN("progressive", false,
								 "Whether a coarse picture comes first; a little smaller, slower to write and read."),
	[JPEG_CHROMA] = WORD("chroma", chroma_words, CHROMA_AUTO,
						 "Resolution of the colours. full: that of the image. half: half of it each way (4:2:0). "
						 "auto: full from quality 90 on."),
	[JPEG_MAX_BYTES] = INTEGER("max_bytes", 100, MAX_FILE, NO_DEFAULT, MAX_BYTES),
	END
};

const ArgumentSpec png_arguments[] = {
	[PNG_COMPRESSION] = INTEGER("compression", 0, 9, 6,
								"Effort of the lossless compression, from 0, none, to 9, slow and small."),
	[PNG_PALETTE] = BOOLEAN("palette", false,
							"Whether colours are reduced to a palette: much smaller, not lossless any more."),
	[PNG_COLORS] = INTEGER("colors", 2, 256, 256, "Most colours in the palette, rounded up to 2, 4, 16 or 256; with palette=true only."),
	[PNG_INTERLACE] = BOOLEAN("interlace", false, "Whether a coarse picture comes first; larger."),
	END
};

const ArgumentSpec webp_arguments[] = {
	[WEBP_QUALITY] = INTEGER("quality", 1, 100, 80,
							 "From 1, small, to 100, faithful. With lossless: the effort."),
	[WEBP_LOSSLESS] = BOOLEAN("lossless", false, "Whether every pixel is kept as it is."),
	[WEBP_EFFORT] = INTEGER("effort", 0, 6, 4, "From 0, fast, to 6, slow and small."),
	[WEBP_MAX_BYTES] = INTEGER("max_bytes", 100, MAX_FILE, NO_DEFAULT, MAX_BYTES),
	END
};

const ArgumentSpec avif_arguments[] = {
	[AVIF_QUALITY] = INTEGER("quality", 1, 100, 50, "From 1, small, to 100, faithful."),
	[AVIF_LOSSLESS] = BOOLEAN("lossless", false, "Whether every pixel is kept as it is, as far as the encoder can."),
	[AVIF_EFFORT] = INTEGER("effort", 0, 9, 4, "From 0, fast, to 9, very slow and small."),
	[AVIF_MAX_BYTES] = INTEGER("max_bytes", 100, MAX_FILE, NO_DEFAULT, MAX_BYTES),
	END
};

const ArgumentSpec gif_arguments[] = {
	[GIF_COLORS] = INTEGER("colors", 2, 256, 256, "Most colours in the palette, rounded up to a power of two."),
	[GIF_DITHER] = NUMBER("dither", 0, 1, 1, "From 0, bands of one colour, to 1, the most of dots that look like colours between."),
	[GIF_EFFORT] = INTEGER("effort", 1, 10, 7, "From 1, fast, to 10, the best palette."),
	END
};

const ArgumentSpec tiff_arguments[] = {
	[TIFF_COMPRESSION] = WORD("compression", tiff_compression_words, TIFF_DEFLATE,
							  "deflate, lzw and none are lossless. jpeg is for 8-bit images without transparency."),
	[TIFF_QUALITY] = INTEGER("quality", 1, 100, 80, "With compression=jpeg: from 1, small, to 100, faithful."),
	END
};

const ArgumentSpec auto_arguments[] = {
	[AUTO_QUALITY] = INTEGER("quality", 1, 100, NO_DEFAULT,
							 "From 1, small, to 100, faithful, where the format has such a thing; "
							 "if left out, the default of its own encoder."),
	[AUTO_MAX_BYTES] = INTEGER("max_bytes", 100, MAX_FILE, NO_DEFAULT,
							   MAX_BYTES " An error for formats without quality: png, gif and tiff."),
	END
};
