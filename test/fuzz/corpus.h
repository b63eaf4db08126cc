/*
 * corpus.h
 *		The files that decoder_fuzz.c begins with; a part of it.
 */
#include "mutation.h"

#define LARGEST_SEED	(2 * MEGABYTE)
#define MAX_SEEDS		4096

static Seed corpus[MAX_SEEDS];
static size_t n_seeds;
static size_t n_own_seeds;		/* the first of them, which we made */

static void
add_seed(const char *path)
{
	Bytes		file;

	if (n_seeds == MAX_SEEDS)
		bail_out("more than %d files: %s", MAX_SEEDS, path);
	if (!read_path(path, &file))
		return;
	if (file.length > 0 && file.length <= LARGEST_SEED)
		corpus[n_seeds++] = (Seed) {(unsigned char *) file.bytes, file.length};
	else
		free(file.bytes);
}

/* In the order of names, so that the same seed means the same mutants. */
static void
add_folder(const char *path)
{
	struct dirent **entries;
	int			n = scandir(path, &entries, NULL, alphasort);
	int			i;

	for (i = 0; i < n; i++)
	{
		char		name[1024];
		struct stat status;

		snprintf(name, sizeof(name), "%s/%s", path, entries[i]->d_name);
		if (entries[i]->d_name[0] != '.' && stat(name, &status) == 0)
		{
			if (S_ISDIR(status.st_mode))
				add_folder(name);
			else
				add_seed(name);
		}
		free(entries[i]);
	}
	if (n >= 0)
		free(entries);
}

/* One small picture in every format and kind that this libvips can write. */
static void
add_own_images(void)
{
	static const char *const commands[] = {
		"copy seed.ppm 01.jpg", "copy seed.ppm 02.jpg[interlace]", "copy seed.ppm 03.jpg[optimize-coding,subsample-mode=off]",
		"icc_transform seed.ppm 04.jpg cmyk", "icc_transform seed.ppm 05.jpg p3", "colourspace seed.ppm 06.jpg b-w",
		"copy seed.ppm 07.png", "copy seed.ppm 08.png[interlace]", "copy seed.ppm 09.png[palette]",
		"colourspace seed.ppm 10.png rgb16", "bandjoin_const seed.ppm 11.png 128",
		"copy seed.ppm 12.webp", "copy seed.ppm 13.webp[lossless]", "bandjoin_const seed.ppm 14.webp 128",
		"copy pages.v 15.webp", "copy seed.ppm 16.gif", "copy pages.v 17.gif[interlace]",
		"copy seed.ppm 18.tif", "copy seed.ppm 19.tif[compression=lzw,predictor=horizontal]",
		"copy seed.ppm 20.tif[compression=deflate,tile,pyramid]", "copy seed.ppm 21.tif[compression=jpeg]",
		"copy pages.v 22.tif[compression=zstd]", "colourspace seed.ppm 23.tif lab", "copy seed.ppm 24.tif[bigtiff]",
		"copy seed.ppm 25.avif", "bandjoin_const seed.ppm 26.avif 128", "copy pages.v 27.avif",
		"copy seed.ppm 28.heic"
	};
	char		command[512];
	size_t		i;

	make_quarters("seed.ppm", 64, 48);
	vips("arrayjoin 'seed.ppm seed.ppm seed.ppm' pages.v[page_height=48] --across 1");
	for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		vips("%s", commands[i]);
	snprintf(command, sizeof(command), "rm -f %s/*.ppm %s/*.v", folder, folder);
	if (system(command) != 0)
		bail_out("could not run %s", command);
	add_folder(folder);
	n_own_seeds = n_seeds;
	if (n_seeds == 0)
		bail_out("could not make images: is libvips-tools installed?");
}
