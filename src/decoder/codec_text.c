/*
 * codec_text.c
 *		Writes on images; the only file that knows FreeType.
 *
 * libvips writes by pango and fontconfig, which open configuration, caches and
 * fonts whenever they see fit, and the latter end the process where they
 * cannot: nothing for a sandbox without files, or for one that is to start in
 * a few milliseconds.  So a few well-known fonts are mapped before the
 * lock-down (some 0.1 ms; a page of a font is read only when text is written)
 * and FreeType draws their letters from memory, one after the other, with
 * kerning.  What this cannot do is refused: scripts whose letters join or
 * change places, which need a shaping engine.
 */
#include "decoder/codec_internal.h"

#ifdef HAVE_FREETYPE

#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ft2build.h>
#include FT_FREETYPE_H

#define MAX_FONTS			12
#define MAX_CHARACTERS		512
#define MAX_FONT_SIZE		2000
#define MEASURING_SIZE		100.0	/* for text whose width is given */

typedef struct Font
{
	void	   *bytes;			/* the mapped file */
	size_t		length;
	bool		bold;
	FT_Face		face;			/* NULL until it is used */
	bool		unusable;
} Font;

static FT_Library library;
static Font fonts[MAX_FONTS];
static int	n_fonts;

/* Text to write, as characters: '\n' begins a line. */
typedef struct Line
{
	int			first;
	int			n;
	int			width;
} Line;

typedef struct Layout
{
	uint32_t	characters[MAX_CHARACTERS];
	int			n_characters;
	Line		lines[MAX_CHARACTERS + 1];
	int			n_lines;
	double		size;			/* of the font, in pixels */
	bool		bold;
	int			ascent;			/* of a line, in pixels */
	int			line_height;
	int			left;			/* what ink needs beyond the lines' own box */
	int			right;
	int			width;			/* of the box that holds all ink */
	int			height;
} Layout;

static bool
map_font(const char *path, bool bold)
{
	Font	   *font = &fonts[n_fonts];
	struct stat status;
	int			file;

	if (n_fonts == MAX_FONTS)
		return false;
	file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return false;
	if (fstat(file, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0)
	{
		font->length = (size_t) status.st_size;
		font->bytes = mmap(NULL, font->length, PROT_READ, MAP_PRIVATE, file, 0);
		font->bold = bold;
		if (font->bytes != MAP_FAILED)
			n_fonts++;
	}
	close(file);
	return true;
}

/* Maps the first of a family's files that is in one of the folders. */
static bool
find_font(const char *const *names, bool bold)
{
	static const char *const folders[] = {
		"truetype/dejavu", "dejavu-sans-fonts", "dejavu", "TTF",
		"truetype/noto", "google-noto", "google-noto-vf", "noto",
		"truetype/liberation", "liberation-sans", "liberation", "liberation-fonts",
		"truetype/freefont", "truetype/droid", "opentype/noto", "google-noto-sans-cjk-fonts",
		"noto-cjk", "truetype/wqy"
	};
	char		path[256];
	size_t		f;

	for (; *names != NULL; names++)
	{
		for (f = 0; f < G_N_ELEMENTS(folders); f++)
		{
			g_snprintf(path, sizeof(path), "/usr/share/fonts/%s/%s", folders[f], *names);
			if (map_font(path, bold))
				return true;
		}
	}
	return false;
}

/* Before the lock-down.  Without fonts there is just no text. */
void
codec_load_fonts(void)
{
	static const char *const regular[] = {
		"DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "FreeSans.ttf", NULL
	};
	static const char *const bold[] = {
		"DejaVuSans-Bold.ttf", "NotoSans-Bold.ttf", "LiberationSans-Bold.ttf", "FreeSansBold.ttf", NULL
	};
	/* For characters that the first have not; Chinese, Japanese, Korean. */
	static const char *const further[][6] = {
		{"NotoSansCJK-Regular.ttc", "NotoSansCJK-VF.otf.ttc", "DroidSansFallbackFull.ttf", "wqy-zenhei.ttc", NULL},
		{"NotoSansSymbols2-Regular.ttf", "NotoSansSymbols-Regular.ttf", "FreeSans.ttf", NULL}
	};
	size_t		i;

	find_font(regular, false);
	find_font(bold, true);
	for (i = 0; i < G_N_ELEMENTS(further); i++)
		find_font(further[i], false);
}

static bool
open_face(Font *font)
{
	if (font->face != NULL || font->unusable)
		return font->face != NULL;
	if (library == NULL && FT_Init_FreeType(&library) != 0)
		library = NULL;
	if (library == NULL ||
		FT_New_Memory_Face(library, font->bytes, (FT_Long) font->length, 0, &font->face) != 0)
	{
		font->face = NULL;
		font->unusable = true;
	}
	return font->face != NULL;
}

/* The font that has a character: of the weight that is wanted if possible. */
static Font *
find_face(uint32_t character, bool bold, FT_UInt *glyph)
{
	int			pass;
	int			i;

	for (pass = 0; pass < 2; pass++)
	{
		for (i = 0; i < n_fonts; i++)
		{
			if ((fonts[i].bold == bold) != (pass == 0) || !open_face(&fonts[i]))
				continue;
			*glyph = FT_Get_Char_Index(fonts[i].face, character);
			if (*glyph != 0)
				return &fonts[i];
		}
	}
	return NULL;
}

/* Letters that join, change places or run to the left, and what directs them. */
static bool
needs_shaping(uint32_t c)
{
	static const uint32_t ranges[][2] = {
		{0x0590, 0x0DFF}, {0x0F00, 0x109F}, {0x1780, 0x18AF}, {0x1900, 0x1CFF},
		{0x200C, 0x200F}, {0x202A, 0x202E}, {0x2066, 0x2069},
		{0xA800, 0xABFF}, {0xFB1D, 0xFDFF}, {0xFE00, 0xFE0F}, {0xFE70, 0xFEFC},
		{0x10800, 0x11FFF}, {0x1E800, 0x1EEFF}
	};
	size_t		i;

	for (i = 0; i < G_N_ELEMENTS(ranges); i++)
	{
		if (c >= ranges[i][0] && c <= ranges[i][1])
			return true;
	}
	return false;
}

/* The text, which the parser has found to be UTF-8, as characters and lines. */
static bool
read_text(Canvas *canvas, const char *text, Layout *layout)
{
	const char *next;
	FT_UInt		glyph;

	layout->lines[layout->n_lines++].first = 0;
	for (next = text; *next != '\0'; next = g_utf8_next_char(next))
	{
		uint32_t	c = g_utf8_get_char(next);

		if (c == '\r')
			continue;
		if (c == '\t')
			c = ' ';
		if (layout->n_characters == MAX_CHARACTERS)
			return codec_fail(canvas->reply, DECODER_INVALID_OPERATION, "text is too long to be written");
		layout->characters[layout->n_characters++] = c;
		if (c == '\n')
		{
			layout->lines[layout->n_lines++].first = layout->n_characters;
			continue;
		}
		layout->lines[layout->n_lines - 1].n++;
		if (needs_shaping(c))
			return codec_fail(canvas->reply, DECODER_INVALID_OPERATION,
							  "text cannot be written: the letters of its script join or change places (U+%04X)",
							  (unsigned int) c);
		if (find_face(c, layout->bold, &glyph) == NULL)
			return codec_fail(canvas->reply, DECODER_INVALID_OPERATION,
							  "text cannot be written: no font of this server has the character U+%04X", (unsigned int) c);
	}
	return true;
}

/* Where a glyph was drawn or would be, in pixels. */
typedef void (*GlyphVisitor) (Layout *layout, FT_GlyphSlot slot, int x, int baseline, void *data);

/*
 * Goes over the letters of a line from x on; returns where it ends.  Weights
 * and sizes are looked up again for each letter: lines are short.
 */
static double
walk_line(Layout *layout, const Line *line, double x, int baseline, FT_Int32 flags,
		  GlyphVisitor visit, void *data)
{
	Font	   *previous = NULL;
	FT_UInt		previous_glyph = 0;
	int			i;

	for (i = line->first; i < line->first + line->n; i++)
	{
		FT_UInt		glyph = 0;
		Font	   *font = find_face(layout->characters[i], layout->bold, &glyph);
		FT_Vector	kerning;

		if (font == NULL ||
			FT_Set_Char_Size(font->face, 0, (FT_F26Dot6) rint(layout->size * 64), 72, 72) != 0)
			continue;
		if (font == previous &&
			FT_Get_Kerning(font->face, previous_glyph, glyph, FT_KERNING_UNFITTED, &kerning) == 0)
			x += kerning.x / 64.0;
		if (FT_Load_Glyph(font->face, glyph, flags) != 0)
			continue;
		visit(layout, font->face->glyph, (int) floor(x + 0.5), baseline, data);
		x += font->face->glyph->linearHoriAdvance / 65536.0;
		previous = font;
		previous_glyph = glyph;
	}
	return x;
}

static void
measure_glyph(Layout *layout, FT_GlyphSlot slot, int x, int baseline, void *data)
{
	int		   *right = data;

	(void) baseline;
	layout->left = MAX(layout->left, -(x + (int) floor(slot->metrics.horiBearingX / 64.0)));
	*right = MAX(*right, x + (int) ceil((slot->metrics.horiBearingX + slot->metrics.width) / 64.0));
}

/* Sets sizes: of the lines, and of the box that holds all of their ink. */
static void
measure(Layout *layout)
{
	FT_UInt		glyph;
	Font	   *font = find_face('x', layout->bold, &glyph);
	int			widest = 0;
	int			l;

	layout->ascent = (int) ceil(layout->size);
	layout->line_height = (int) ceil(layout->size * 1.25);
	if (font != NULL &&
		FT_Set_Char_Size(font->face, 0, (FT_F26Dot6) rint(layout->size * 64), 72, 72) == 0)
	{
		layout->ascent = (int) ceil(font->face->size->metrics.ascender / 64.0);
		layout->line_height = layout->ascent + (int) ceil(-font->face->size->metrics.descender / 64.0);
	}
	layout->left = 0;
	for (l = 0; l < layout->n_lines; l++)
	{
		Line	   *line = &layout->lines[l];
		int			right = 0;

		line->width = (int) ceil(walk_line(layout, line, 0, 0, FT_LOAD_NO_HINTING,
										   measure_glyph, &right));
		widest = MAX(widest, MAX(line->width, right));
	}
	layout->width = MAX(1, layout->left + widest);
	layout->height = MAX(1, layout->line_height * layout->n_lines);
}

static void
draw_glyph(Layout *layout, FT_GlyphSlot slot, int x, int baseline, void *data)
{
	uint8_t    *mask = data;
	const FT_Bitmap *bitmap = &slot->bitmap;
	int			left = x + slot->bitmap_left;
	int			top = baseline - slot->bitmap_top;
	int			row;
	int			column;

	if (bitmap->pixel_mode != FT_PIXEL_MODE_GRAY)
		return;
	for (row = MAX(0, -top); row < (int) bitmap->rows && top + row < layout->height; row++)
	{
		const uint8_t *from = bitmap->buffer + (ptrdiff_t) row * bitmap->pitch;
		uint8_t    *to = mask + (size_t) (top + row) * layout->width;

		for (column = MAX(0, -left);
			 column < (int) bitmap->width && left + column < layout->width; column++)
			to[left + column] = MAX(to[left + column], from[column]);
	}
}

/* Letters as coverage, one byte a pixel; lines flush as the gravity says. */
static void
draw(Layout *layout, Gravity gravity, uint8_t *mask)
{
	int			l;

	for (l = 0; l < layout->n_lines; l++)
	{
		Line	   *line = &layout->lines[l];
		Area		place = {.width = line->width};

		codec_place(gravity, layout->width - layout->left, 0, 0, 0, &place);
		walk_line(layout, line, layout->left + place.left, layout->ascent + l * layout->line_height,
				  FT_LOAD_RENDER | FT_LOAD_NO_HINTING, draw_glyph, mask);
	}
}

/* A colour over another, by its alpha and coverage; results 0 to 255. */
static void
lay_over(uint32_t over, int coverage, uint32_t under, uint8_t *pixel)
{
	double		alpha = (over & 0xFF) * coverage / (255.0 * 255.0);
	double		below = (under & 0xFF) / 255.0 * (1 - alpha);
	double		sum = alpha + below;
	int			i;

	for (i = 0; i < 3; i++)
		pixel[i] = (uint8_t) rint(sum == 0 ? over >> (24 - 8 * i) & 0xFF :
								  ((over >> (24 - 8 * i) & 0xFF) * alpha +
								   (under >> (24 - 8 * i) & 0xFF) * below) / sum);
	pixel[3] = (uint8_t) rint(sum * 255);
}

/* The box with letters on it, in sRGB with alpha; as libvips, 0 or -1. */
static int
paint(const Layout *layout, const uint8_t *mask, const PipelineStep *step, VipsImage **painted)
{
	uint32_t	color = (uint32_t) step_number(step, TEXT_COLOR);
	uint32_t	background = (uint32_t) step_number(step, TEXT_BACKGROUND);
	int			padding = (int) step_number(step, TEXT_PADDING);
	int			width = layout->width + 2 * padding;
	int			height = layout->height + 2 * padding;
	uint8_t		levels[256][4]; /* what a coverage looks like */
	uint8_t    *row;
	VipsImage  *image;
	int			failed = 0;
	int			i;
	int			x;
	int			y;

	for (i = 0; i < 256; i++)
		lay_over(color, i, background, levels[i]);
	row = g_new(uint8_t, 4 * (gsize) width);
	image = vips_image_new_memory();
	vips_image_init_fields(image, width, height, 4, VIPS_FORMAT_UCHAR, VIPS_CODING_NONE,
						   VIPS_INTERPRETATION_sRGB, 1, 1);
	for (y = 0; y < height && !failed; y++)
	{
		bool		inside = y >= padding && y < padding + layout->height;

		for (x = 0; x < width; x++)
			memcpy(row + 4 * x, levels[0], 4);
		for (x = 0; inside && x < layout->width; x++)
			memcpy(row + 4 * (padding + x),
				   levels[mask[(size_t) (y - padding) * layout->width + x]], 4);
		failed = vips_image_write_line(image, y, row);
	}
	g_free(row);
	if (failed)
		g_object_unref(image);
	else
		*painted = image;
	return failed;
}

/* The size at which the widest line has the width that is wanted. */
static double
size_for_width(Layout *layout, double width)
{
	layout->size = MEASURING_SIZE;
	measure(layout);
	return CLAMP(MEASURING_SIZE * width / layout->width, 1, MAX_FONT_SIZE);
}

bool
codec_text(Canvas *canvas, const PipelineStep *step)
{
	Gravity		gravity = (Gravity) step_number(step, TEXT_GRAVITY);
	int			padding = (int) step_number(step, TEXT_PADDING);
	Layout	   *layout;
	Canvas		box = *canvas;
	uint8_t    *mask = NULL;
	bool		done;

	if (n_fonts == 0)
		return codec_fail(canvas->reply, DECODER_UNSUPPORTED,
						  "text cannot be written: there is no font on this server; install one, such as DejaVu Sans");

	layout = g_new0(Layout, 1);
	layout->bold = step_number(step, TEXT_BOLD) != 0;
	layout->size = step_number(step, TEXT_SIZE);
	done = read_text(canvas, step->values[TEXT_TEXT].text, layout);
	if (done)
	{
		if (step_given(step, TEXT_WIDTH))
			layout->size = size_for_width(layout, step_number(step, TEXT_WIDTH) *
										  vips_image_get_width(canvas->image));
		measure(layout);
		done = codec_check_size(canvas, layout->width + 2.0 * padding, layout->height + 2.0 * padding);
	}
	if (done)
	{
		mask = g_try_malloc0((gsize) layout->width * layout->height);
		if (mask == NULL)
			done = codec_fail(canvas->reply, DECODER_OUT_OF_MEMORY, "text needs more memory than the decoder may use");
	}
	if (done)
	{
		draw(layout, gravity, mask);
		if (paint(layout, mask, step, &box.image) != 0)
			done = codec_fail_libvips(canvas->reply, DECODER_FAILED, "could not write on");
	}
	g_free(mask);
	g_free(layout);
	if (!done)
		return false;

	box.streaming = false;
	/* Gray letters leave a gray image gray. */
	done = codec_convert_colors(&box, !codec_is_gray((uint32_t) step_number(step, TEXT_COLOR)) ||
								!codec_is_gray((uint32_t) step_number(step, TEXT_BACKGROUND)), false) &&
		codec_turn(&box, step_number(step, TEXT_ANGLE), 0) &&
		codec_overlay(canvas, box.image, gravity,
					  (int) step_number(step, TEXT_X), (int) step_number(step, TEXT_Y),
					  step_number(step, TEXT_TILE) != 0, BLEND_OVER);
	g_object_unref(box.image);
	return done;
}

#else							/* !HAVE_FREETYPE */

void
codec_load_fonts(void)
{
}

bool
codec_text(Canvas *canvas, const PipelineStep *step)
{
	(void) step;
	return codec_fail(canvas->reply, DECODER_UNSUPPORTED,
					  "text cannot be written: imgpipe was built without FreeType");
}

#endif							/* HAVE_FREETYPE */
