/*
 * decoder_test.c
 *		Drives imgpipe-decoder over its real protocol.  TAP output.
 *
 *		decoder_test [--unsandboxed] path/to/imgpipe-decoder [folder of images]...
 *
 * The images are made by the vips program of libvips-tools and by hand.  Every
 * file in the folders is probed and processed: whatever it is, the decoder
 * must answer in time and stay alive.  --unsandboxed is for builds that need
 * more than the sandbox gives, with sanitizers or under valgrind.
 */
#include "decoder_harness.h"

static void
test_start(void)
{
	int			status;
	Decoder		other;
	DecoderRequest request = new_request(DECODER_SELF_TEST);
	char		report[4096] = "";
	char	   *line;
	char	   *rest = report;

	status = fork();
	if (status == 0)
	{
		close(3);
		close(4);
		if (freopen("/dev/null", "w", stderr) == NULL)
			_exit(126);
		execl(program, program, (char *) NULL);
		_exit(127);
	}
	waitpid(status, &status, 0);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 2, "started by hand it explains itself");

	other = start_decoder(MEMORY_LIMIT);
	if (!exchange(&other, &request, sizeof(request)))
		bail_out("the decoder does not start");
	check_number(reply.n_outputs, 1, "self-test has an output");
	if (!unsandboxed)
	{
		check_number(reply.sandboxed, 1, "the sandbox is active");
		if (pread(other.memory, report, sizeof(report) - 1, reply_offset(&request)) < 0)
			bail_out("could not read the self-test");
		while ((line = strsep(&rest, "\n")) != NULL && *line != '\0')
			check(strstr(line, "\trefused\t") != NULL, "%s", line);
	}
	status = stop_decoder(&other);
	check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "it ends when the client hangs up");
}

static void
check_facts(const char *name, ImageFormat format, int flags, int pages)
{
	Bytes		file;

	if (!exists(name))
		return;
	file = read_file(name);
	check_number(probe(file), DECODER_OK, name);
	check(reply.facts.layout == IMAGE_FACTS_LAYOUT && reply.facts.format == format &&
		  reply.facts.width == 640 && reply.facts.height == 480 &&
		  reply.facts.pages == (uint32_t) pages && reply.facts.orientation == 1,
		  "%s: format %d, %dx%d, %d pages", name, reply.facts.format,
		  (int) reply.facts.width, (int) reply.facts.height, (int) reply.facts.pages);
	/* What vips adds by itself does not count: EXIF, and to a GIF alpha. */
	check((reply.facts.flags & ~IMAGE_HAS_EXIF &
		   ~(format == IMAGE_FORMAT_GIF ? IMAGE_HAS_ALPHA : 0)) == flags, "%s: flags %x", name, reply.facts.flags);
	free(file.bytes);
}

static void
test_probe(void)
{
	Bytes		jpeg = read_file("q.jpg");
	Bytes		png = read_file("q.png");
	Bytes		input;

	check_facts("q.jpg", IMAGE_FORMAT_JPEG, 0, 1);
	check_facts("progressive.jpg", IMAGE_FORMAT_JPEG, IMAGE_IS_PROGRESSIVE, 1);
	check_facts("p3.jpg", IMAGE_FORMAT_JPEG, IMAGE_HAS_ICC_PROFILE, 1);
	check_facts("q.png", IMAGE_FORMAT_PNG, 0, 1);
	check_facts("interlaced.png", IMAGE_FORMAT_PNG, IMAGE_IS_PROGRESSIVE, 1);
	check_facts("half.png", IMAGE_FORMAT_PNG, IMAGE_HAS_ALPHA, 1);
	check_facts("q.webp", IMAGE_FORMAT_WEBP, 0, 1);
	check_facts("q.gif", IMAGE_FORMAT_GIF, 0, 1);
	check_facts("pages.gif", IMAGE_FORMAT_GIF, 0, 3);
	check_facts("q.tif", IMAGE_FORMAT_TIFF, 0, 1);
	check_facts("pages.tif", IMAGE_FORMAT_TIFF, 0, 3);
	check_facts("q.avif", IMAGE_FORMAT_AVIF, 0, 1);
	check_facts("q.heic", IMAGE_FORMAT_HEIC, 0, 1);

	probe(read_file("gray.jpg"));
	check_number(reply.facts.color_space, IMAGE_COLOR_SPACE_GRAY, "gray");
	check_number(reply.facts.bands, 1, "gray has one band");
	probe(read_file("cmyk.jpg"));
	check_number(reply.facts.color_space, IMAGE_COLOR_SPACE_CMYK, "CMYK");
	probe(read_file("deep.png"));
	check_number(reply.facts.depth, 16, "16 bits");
	probe(with_orientation(jpeg, 6));
	check_number(reply.facts.orientation, 6, "orientation");
	check_number(reply.facts.width, 640, "width is as stored");

	input = (Bytes) {"", 0};
	check_number(probe(input), DECODER_UNRECOGNIZED, "empty");
	check(strcmp(reply.message, "image is empty") == 0, "message: %s", reply.message);
	input = (Bytes) {"To whom it may concern\n", 23};
	check_number(probe(input), DECODER_UNRECOGNIZED, "text");
	input = (Bytes) {"\0\0\0\x18" "ftypmp42\0\0\0\0mp42isom", 24};
	check_number(probe(input), DECODER_UNRECOGNIZED, "a film");
	input = (Bytes) {jpeg.bytes, 40};
	check_number(probe(input), DECODER_CORRUPT, "JPEG header cut off");
	input = (Bytes) {png.bytes, 20};
	check_number(probe(input), DECODER_CORRUPT, "PNG header cut off");
	input = (Bytes) {"GIF89a", 6};
	check_number(probe(input), DECODER_CORRUPT, "only a magic number");
	check(reply.message[0] != '\0' && strchr(reply.message, '\n') == NULL,
		  "message: %s", reply.message);
}

/* Several inputs in one request: all of them, or none. */
static void
test_probe_of_several(void)
{
	const char *const no_pipelines[] = {"", "", ""};
	Bytes		inputs[3] = {read_file("q.jpg"), read_file("gray.jpg"), read_file("q.png")};
	DecoderRequest request = new_request(DECODER_PROBE);

	check(send_inputs(&decoder, &request, 3, inputs, 3, no_pipelines) && reply.status == DECODER_OK, "three at once");
	check_number(reply.n_outputs, 3, "facts of three");
	check_number(reply.output_facts[0].format, IMAGE_FORMAT_JPEG, "of the first");
	check_number(reply.output_facts[1].bands, 1, "of the second");
	check_number(reply.output_facts[2].format, IMAGE_FORMAT_PNG, "of the third");
	check_number(reply.output_length[2], 0, "and no bytes");
	check_number(reply.facts.format, IMAGE_FORMAT_JPEG, "the first is input 0");

	inputs[1] = (Bytes) {"text", 4};
	request = new_request(DECODER_PROBE);
	check(send_inputs(&decoder, &request, 3, inputs, 3, no_pipelines) && reply.status == DECODER_UNRECOGNIZED, "one is text");
	check_number(reply.n_outputs, 0, "nothing of the others");
	request = new_request(DECODER_PROBE);
	check(send_inputs(&decoder, &request, 3, inputs, 2, no_pipelines) && reply.status == DECODER_FAILED, "facts of two of three");
}

static void
test_limits(void)
{
	DecoderRequest request;
	Bytes		gif = read_file("pages.gif");
	Bytes		huge = make_png_header(65536, 65536);
	const char *enlarge = "resize(width=20000, height=20000, fit=fill, enlarge=true)";

	check_number(probe(huge), DECODER_LIMIT, "PNG of 65536x65536");
	check_number(reply.limit, DECODER_LIMIT_PIXELS, "limit is the pixels");
	check_number(reply.value, 65536L * 65536, "value is the pixels");
	check_number(reply.facts.width, 65536, "facts are there");
	check_number(process(huge, "resize(width=10)"), DECODER_LIMIT, "PNG of 65536x65536, processed");

	request = new_request(DECODER_PROBE);
	request.max_pages = 2;
	check(send_job(&decoder, &request, gif, 0, NULL) && reply.status == DECODER_LIMIT &&
		  reply.limit == DECODER_LIMIT_PAGES && reply.value == 3, "pages: %s", reply.message);

	request = new_request(DECODER_PROBE);
	request.max_pixels = 640 * 480 * 3 - 1;
	check(send_job(&decoder, &request, gif, 0, NULL) && reply.status == DECODER_LIMIT &&
		  reply.limit == DECODER_LIMIT_PIXELS && reply.value == 640 * 480 * 3,
		  "pixels of all pages: %s", reply.message);

	request = new_request(DECODER_PROBE);
	request.allowed_formats = 1 << IMAGE_FORMAT_JPEG;
	check(send_job(&decoder, &request, gif, 0, NULL) && reply.status == DECODER_LIMIT &&
		  reply.limit == DECODER_LIMIT_FORMAT && reply.value == IMAGE_FORMAT_GIF,
		  "formats: %s", reply.message);

	check_number(process(gif, enlarge), DECODER_LIMIT, "output pixels");
	check(reply.limit == DECODER_LIMIT_OUTPUT_PIXELS && reply.value == 400000000,
		  "output pixels: %s", reply.message);
}

/* The pipeline's result on an image of 640x480 has this size. */
static void
check_size(Bytes input, const char *pipeline, int width, int height)
{
	check_number(process(input, pipeline), DECODER_OK, pipeline);
	if (!check(reply.output_facts[0].width == (uint32_t) width &&
			   reply.output_facts[0].height == (uint32_t) height,
			   "%s is %dx%d", pipeline, width, height))
		printf("#   got %dx%d\n", (int) reply.output_facts[0].width,
			   (int) reply.output_facts[0].height);
}

static void
check_pixel(const char *name, int x, int y, int red, int green, int blue, const char *what)
{
	int			pixel[3];

	read_pixel(name, x, y, pixel, 3);
	if (!check(abs(pixel[0] - red) < 12 && abs(pixel[1] - green) < 12 &&
			   abs(pixel[2] - blue) < 12, "%s: pixel %d,%d", what, x, y))
		printf("#   got %d %d %d, expected %d %d %d\n",
			   pixel[0], pixel[1], pixel[2], red, green, blue);
}

static void
test_operations(void)
{
	static const char *const names[] = {"q.jpg", "q.png", "q.webp", "q.gif", "q.tif", "q.avif", "q.heic"};
	Bytes		jpeg = read_file("q.jpg");
	size_t		i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		Bytes		input;

		if (!exists(names[i]))
			continue;
		input = read_file(names[i]);
		check_size(input, "resize(width=160)|png", 160, 120);
		check_size(input, "resize(width=100, height=100, fit=cover)|webp", 100, 100);
		check_size(input, "rotate(angle=90)|jpeg", 480, 640);
		process_to_file(input, "resize(width=64)|png", "out.png");
		check_pixel("out.png", 5, 5, 255, 0, 0, names[i]);
		check_pixel("out.png", 58, 42, 255, 255, 255, names[i]);
	}

	check_size(jpeg, "resize(height=48)", 64, 48);
	check_size(jpeg, "resize(width=100, height=100)", 100, 75);
	check_size(jpeg, "resize(width=1000)", 640, 480);
	check_size(jpeg, "resize(width=1280, enlarge=true)", 1280, 960);
	check_size(jpeg, "resize(width=1, height=100, fit=fill)", 1, 100);
	check_size(jpeg, "resize(width=2000, height=100, fit=cover)", 640, 100);
	check_size(jpeg, "resize(width=2000, height=200, fit=cover, enlarge=true)", 2000, 200);
	check_size(jpeg, "resize(width=7)|resize(width=3)", 3, 2);
	check_size(jpeg, "crop(width=33, height=44)", 33, 44);
	check_size(jpeg, "crop(left=600, top=440, width=40, height=40)", 40, 40);
	check_size(jpeg, "blur(sigma=2)|sharpen|grayscale|rotate(angle=270)|flip", 480, 640);
	/* Shrunk on load by what suits the width, nothing would be left of the height. */
	check_size(read_file("strip.jpg"), "resize(width=64)", 64, 1);
	check_number(process(jpeg, "crop(left=600, top=0, width=41, height=40)"),
				 DECODER_INVALID_OPERATION, "crop outside");
	check_number(process(jpeg, "crop(width=641, height=1)"),
				 DECODER_INVALID_OPERATION, "crop too wide");
	check_number(process(jpeg, "resise(width=10)"), DECODER_INVALID_OPERATION, "no such operation");

	process_to_file(jpeg, "crop(left=0, top=0, width=10, height=10)|png", "out.png");
	check_pixel("out.png", 5, 5, 255, 0, 0, "crop at the left");
	process_to_file(jpeg, "crop(left=630, top=470, width=10, height=10)|png", "out.png");
	check_pixel("out.png", 5, 5, 255, 255, 255, "crop at the right");
	process_to_file(jpeg, "rotate(angle=90)|png", "out.png");
	check_pixel("out.png", 5, 5, 0, 0, 255, "rotate by 90");
	process_to_file(jpeg, "rotate(angle=180)|png", "out.png");
	check_pixel("out.png", 5, 5, 255, 255, 255, "rotate by 180");
	process_to_file(jpeg, "flip|png", "out.png");
	check_pixel("out.png", 5, 5, 0, 0, 255, "flip");
	process_to_file(jpeg, "flop|png", "out.png");
	check_pixel("out.png", 5, 5, 0, 255, 0, "flop");

	check_number(process(jpeg, "grayscale|png"), DECODER_OK, "grayscale");
	check_number(reply.output_facts[0].bands, 1, "grayscale has one band");
}

/*
 * Every operation on every kind of image, in the sandbox: none may open a file
 * or want memory that it could execute.
 */
static void
test_every_operation(void)
{
	static const char *const pipelines[] = {
		"pages", "autorotate(enabled=false)", "resize(width=64, height=64, fit=cover, gravity=attention)",
		"resize(width=64, height=64, fit=cover, gravity=entropy)", "resize(width=64, height=64, fit=contain)",
		"resize(width=700, enlarge=true, kernel=cubic)", "resize(width=64, kernel=nearest)",
		"crop(width=1, height=1, gravity=attention)", "extend(left=5, fill=mirror)", "extend(top=5, background=red)",
		"trim", "rotate(angle=30)", "rotate(angle=-90)", "flip", "flop", "blur(sigma=0.5)", "blur(sigma=50)",
		"sharpen(sigma=5)", "median(radius=3)", "pixelate", "modulate(brightness=1.1, contrast=0.9, hue=20)",
		"gamma", "normalize", "clahe", "grayscale", "tint(color=red)", "invert", "flatten(background=navy)",
		"composite", "composite(width=0.1, tile=true, opacity=0.5, blend=multiply)", "text(text='\xc2\xa9 A', angle=10)",
		"text(text='A', width=0.5, color=red)", "join(columns=2, gap=3)", "keep | jpeg(chroma=full)",
		"jpeg(progressive=true, max_bytes=100000)", "png(palette=true)", "webp(lossless=true)", "webp(effort=6, max_bytes=100000)",
		"gif(colors=16)", "tiff(compression=jpeg)", "tiff(compression=lzw)", "auto(quality=70)"
	};
	static const char *const names[] = {
		"q.jpg", "half.png", "deep.png", "deep-half.png", "gray.jpg", "cmyk.jpg", "q.gif", "pages.gif", "pages.tif", "pages.webp",
		"strip.jpg", "one.png"
	};
	Bytes		layer = read_file("half.png");
	size_t		i;
	size_t		p;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		Bytes		inputs[2] = {read_file(names[i]), layer};
		int			done = 0;

		for (p = 0; p < sizeof(pipelines) / sizeof(pipelines[0]); p++)
		{
			DecoderRequest request = new_request(DECODER_PROCESS);

			if (!send_inputs(&decoder, &request, 2, inputs, 1, &pipelines[p]))
			{
				check(false, "%s of %s ends the decoder", pipelines[p], names[i]);
				decoder = start_decoder(MEMORY_LIMIT);
			}
			else if (reply.status == DECODER_OK)
				done++;
			else
				printf("# %s of %s: %s\n", pipelines[p], names[i], reply.message);
		}
		check_number(done, (long) p, names[i]);
		free(inputs[0].bytes);
	}
	/* libheif may have been built without the encoder. */
	process(read_file("q.png"), "resize(width=64) | avif(max_bytes=10000, effort=0)");
	check(reply.status == DECODER_OK || reply.status == DECODER_UNSUPPORTED, "avif: %s", reply.message);
}

/* Images behind the first. */
static void
test_layers(void)
{
	static Bytes many[DECODER_MAX_INPUTS];
	const char *composite = "composite";
	const char *join = "join(columns=16, gap=1) | png";
	const char *const both[] = {"flip", "composite(x=1)"};
	Bytes		jpeg = read_file("q.jpg");
	Bytes		inputs[2] = {jpeg, {jpeg.bytes, jpeg.length / 2}};
	DecoderRequest request = new_request(DECODER_PROCESS);
	int			i;

	check_number(process(jpeg, composite), DECODER_INVALID_OPERATION, "composite without a layer");
	check(send_inputs(&decoder, &request, 2, inputs, 1, &composite) && reply.status == DECODER_CORRUPT &&
		  strncmp(reply.message, "image 2: ", 9) == 0, "a damaged layer: %s", reply.message);
	request = new_request(DECODER_PROCESS);
	check(send_inputs(&decoder, &request, 2, inputs, 2, both) && reply.status == DECODER_CORRUPT &&
		  reply.failed_output == 1, "the output that needs it fails");
	inputs[1] = (Bytes) {"nothing", 7};
	request = new_request(DECODER_PROCESS);
	check(send_inputs(&decoder, &request, 2, inputs, 1, &composite) && reply.status == DECODER_UNRECOGNIZED,
		  "a layer that is no image: %s", reply.message);
	inputs[1] = make_png_header(65000, 65000);
	request = new_request(DECODER_PROCESS);
	check(send_inputs(&decoder, &request, 2, inputs, 1, &composite) && reply.status == DECODER_LIMIT &&
		  reply.limit == DECODER_LIMIT_PIXELS && reply.value == UINT64_C(65000) * 65000,
		  "a layer of too many pixels: %s", reply.message);
	inputs[1] = read_file("pages.gif");
	request = new_request(DECODER_PROCESS);
	request.allowed_formats = 1 << IMAGE_FORMAT_JPEG;
	check(send_inputs(&decoder, &request, 2, inputs, 1, &composite) && reply.status == DECODER_LIMIT &&
		  reply.limit == DECODER_LIMIT_FORMAT && reply.value == IMAGE_FORMAT_GIF, "a layer of a format that is not allowed");

	for (i = 0; i < DECODER_MAX_INPUTS; i++)
		many[i] = read_file("small.png");
	request = new_request(DECODER_PROCESS);
	check(send_inputs(&decoder, &request, DECODER_MAX_INPUTS, many, 1, &join) && reply.status == DECODER_OK &&
		  reply.output_facts[0].width == 16 * 17 - 1, "as many inputs as can be: %s", reply.message);
	request = new_request(DECODER_PROCESS);
	request.max_pixels = 100 * 16 * 12;
	check(send_inputs(&decoder, &request, DECODER_MAX_INPUTS, many, 1, &join) && reply.status == DECODER_LIMIT &&
		  reply.limit == DECODER_LIMIT_PIXELS, "together they count: %s", reply.message);
}

static void
test_color(void)
{
	Bytes		half = read_file("half.png");
	Bytes		clear = read_file("clear.png");
	Bytes		deep = read_file("deep.png");
	int			pixel[4];

	process_to_file(read_file("p3.jpg"), "resize(width=64)|png", "out.png");
	check_pixel("out.png", 5, 5, 255, 0, 0, "display P3 becomes sRGB");
	check_number(reply.output_facts[0].flags, 0, "and has no profile");
	process_to_file(read_file("cmyk.jpg"), "flop|png", "out.png");
	check_pixel("out.png", 5, 470, 255, 255, 255, "CMYK becomes sRGB");
	check_number(reply.output_facts[0].bands, 3, "of three bands");
	check_number(process(read_file("gray.jpg"), "resize(width=64)|jpeg"), DECODER_OK, "gray");
	check_number(reply.output_facts[0].bands, 1, "gray stays gray");

	process_to_file(half, "resize(width=64)|jpeg(quality=95)", "out.jpg");
	check_number(reply.output_facts[0].bands, 3, "JPEG has no alpha");
	check_pixel("out.jpg", 5, 5, 255, 127, 127, "transparent parts are laid on white");
	process_to_file(half, "resize(width=64)|png", "out.png");
	check_number(reply.output_facts[0].flags, IMAGE_HAS_ALPHA, "PNG keeps alpha");
	read_pixel("out.png", 5, 5, pixel, 4);
	check(pixel[0] == 255 && pixel[1] == 0 && pixel[2] == 0 && pixel[3] == 128,
		  "and the colours under it: %d %d %d %d", pixel[0], pixel[1], pixel[2], pixel[3]);
	process_to_file(clear, "resize(width=64)|jpeg(quality=95)", "out.jpg");
	check_pixel("out.jpg", 5, 5, 255, 255, 255, "clear becomes white");
	check_number(process(half, "blur|sharpen|grayscale|webp"), DECODER_OK, "alpha through operations");
	check_number(reply.output_facts[0].flags, IMAGE_HAS_ALPHA, "WebP keeps alpha");

	check_number(process(deep, "resize(width=64)|png"), DECODER_OK, "16 bits");
	check_number(reply.output_facts[0].depth, 16, "PNG keeps 16 bits");
	process_to_file(deep, "resize(width=64)|jpeg(quality=95)", "out.jpg");
	check_number(reply.output_facts[0].depth, 8, "JPEG has 8 bits");
	check_pixel("out.jpg", 5, 5, 255, 0, 0, "16 bits become 8");
}

static void
test_orientation(void)
{
	/* Red, green, blue and white as 0 to 3: where each corner comes from. */
	static const char corners[9][4] = {
		{0}, {0, 1, 2, 3}, {1, 0, 3, 2}, {3, 2, 1, 0}, {2, 3, 0, 1},
		{0, 2, 1, 3}, {2, 0, 3, 1}, {3, 1, 2, 0}, {1, 3, 0, 2}
	};
	static const int colors[4][3] = {{255, 0, 0}, {0, 255, 0}, {0, 0, 255}, {255, 255, 255}};
	static const char *const pipelines[] = {"resize(width=100)|png", "crop(width=400, height=400)|png"};
	Bytes		jpeg = read_file("q.jpg");
	int			orientation;
	int			p;
	int			corner;

	for (orientation = 1; orientation <= 8; orientation++)
	{
		Bytes		input = with_orientation(jpeg, orientation);

		check_size(input, "resize(width=60, height=60)", orientation >= 5 ? 45 : 60,
				   orientation >= 5 ? 60 : 45);
		check_number(reply.output_facts[0].orientation, 1, "no orientation is left");
		for (p = 0; p < 2; p++)
		{
			process_to_file(input, pipelines[p], "out.png");
			for (corner = 0; corner < 4; corner++)
			{
				const int  *color = colors[(int) corners[orientation][corner]];
				char		what[64];
				int			right = reply.output_facts[0].width - 6;
				int			bottom = reply.output_facts[0].height - 6;

				snprintf(what, sizeof(what), "orientation %d, corner %d", orientation, corner);
				check_pixel("out.png", corner % 2 ? right : 5, corner / 2 ? bottom : 5,
							color[0], color[1], color[2], what);
			}
		}
		free(input.bytes);
	}
}

static void
test_outputs(void)
{
	static const char *const several[] = {
		"resize(width=320)|webp", "resize(width=16)|png", "resize(width=100, height=100, fit=cover)|jpeg"
	};
	static const char *const second_fails[] = {"resize(width=320)", "crop(width=9999, height=1)"};
	static const struct
	{
		const char *name;
		ImageFormat format;
	}			kept[] = {
		{"q.jpg", IMAGE_FORMAT_JPEG}, {"q.png", IMAGE_FORMAT_PNG}, {"q.webp", IMAGE_FORMAT_WEBP},
		{"q.gif", IMAGE_FORMAT_GIF}, {"q.tif", IMAGE_FORMAT_TIFF},
		{"q.avif", IMAGE_FORMAT_AVIF}, {"q.heic", IMAGE_FORMAT_JPEG}
	};
	DecoderRequest request = new_request(DECODER_PROCESS);
	Bytes		jpeg = read_file("q.jpg");
	Bytes		cut;
	size_t		i;

	check(send_job(&decoder, &request, jpeg, 3, several) && reply.n_outputs == 3,
		  "three outputs of one decode: %s", reply.message);
	check(reply.output_facts[0].format == IMAGE_FORMAT_WEBP && reply.output_facts[0].width == 320 &&
		  reply.output_facts[1].format == IMAGE_FORMAT_PNG && reply.output_facts[1].width == 16 &&
		  reply.output_facts[2].format == IMAGE_FORMAT_JPEG && reply.output_facts[2].height == 100,
		  "each is what was asked for");
	keep_output(&request, 1, "out.png");
	check_pixel("out.png", 2, 2, 255, 0, 0, "the second output is where it should be");

	request = new_request(DECODER_PROCESS);
	check(send_job(&decoder, &request, jpeg, 2, second_fails) &&
		  reply.status == DECODER_INVALID_OPERATION && reply.failed_output == 1 &&
		  reply.n_outputs == 0, "the output that failed is named: %s", reply.message);

	for (i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
	{
		if (!exists(kept[i].name))
			continue;
		check_number(process(read_file(kept[i].name), "resize(width=64)"), DECODER_OK, kept[i].name);
		check_number(reply.output_facts[0].format, kept[i].format, "format without an encoder");
	}

	cut = (Bytes) {jpeg.bytes, jpeg.length / 2};
	check_number(probe(cut), DECODER_OK, "half a JPEG has a header");
	check_number(process(cut, "resize(width=64)"), DECODER_CORRUPT, "half a JPEG is corrupt");
	printf("# %s\n", reply.message);
	check(reply.facts.width == 640, "facts of what is corrupt");
	for (i = 1; i < sizeof(kept) / sizeof(kept[0]); i++)
	{
		if (!exists(kept[i].name))
			continue;
		cut = read_file(kept[i].name);
		cut.length = cut.length * 3 / 4;
		process(cut, "resize(width=64)|png");
		check_number(reply.status, DECODER_CORRUPT, kept[i].name);
		printf("# %s\n", reply.message);
	}
}

/* Frames that no client of ours sends. */
static void
test_malformed_frames(void)
{
	DecoderRequest request;
	char		large[65536] = {0};
	unsigned int seed = 1;
	int			answered = 0;
	int			i;
	size_t		j;

	if (ftruncate(decoder.memory, 4096) != 0)
		bail_out("could not size the memory file");

	request = new_request(DECODER_PROBE);
	check(exchange(&decoder, &request, 1) && reply.status == DECODER_FAILED, "a short frame");
	check(exchange(&decoder, large, sizeof(large)) && reply.status == DECODER_FAILED, "a long frame");
	request.n_inputs = 1;
	request.magic = 0;
	check(exchange(&decoder, &request, sizeof(request)) && reply.status == DECODER_FAILED, "wrong magic");
	request = new_request(99);
	check(exchange(&decoder, &request, sizeof(request)) && reply.status == DECODER_FAILED, "no such operation");
	request = new_request(DECODER_PROBE);
	check(exchange(&decoder, &request, sizeof(request)) && reply.status == DECODER_FAILED, "no input");
	request.n_inputs = 255;
	check(exchange(&decoder, &request, sizeof(request)) && reply.status == DECODER_FAILED, "too many inputs");
	request.n_inputs = 1;
	request.input_length[0] = 4097;
	check(exchange(&decoder, &request, sizeof(request)) && reply.status == DECODER_FAILED, "input beyond the file");
	request.input_length[0] = UINT64_MAX;
	check(exchange(&decoder, &request, sizeof(request)) && reply.status == DECODER_FAILED, "endless input");
	request.n_inputs = 2;
	request.input_length[0] = 4096;
	request.input_length[1] = UINT64_MAX - 95;
	check(exchange(&decoder, &request, sizeof(request)) && reply.status == DECODER_FAILED, "sum overflows");
	request = new_request(DECODER_PROCESS);
	request.n_inputs = 1;
	request.n_outputs = 200;
	check(exchange(&decoder, &request, sizeof(request)) && reply.status == DECODER_FAILED, "too many outputs");

	for (i = 0; i < 2000; i++)
	{
		request = new_request(1 + i % 2);
		request.n_inputs = 1;
		request.n_outputs = 1;
		for (j = 0; j < 4; j++)
			((unsigned char *) &request)[rand_r(&seed) % sizeof(request)] = rand_r(&seed);
		if (!exchange(&decoder, &request, sizeof(request)))
			break;
		answered++;
	}
	check_number(answered, 2000, "random frames are answered");
	check_number(probe(read_file("q.png")), DECODER_OK, "and the decoder goes on");
}

static void
test_memory_limit(void)
{
	const uint64_t limit = 256 * MEGABYTE;
	Decoder		other = start_decoder(limit);
	DecoderRequest request = new_request(DECODER_PROCESS);
	const char *pipeline = "resize(width=64)";
	long		base;
	long		peak;
	int			status;

	request.max_pixels = UINT64_MAX;
	check(send_job(&other, &request, read_file("q.jpg"), 1, &pipeline) && reply.status == DECODER_OK,
		  "work within 256 MB: %s", reply.message);
	base = memory_of(other.pid, "VmHWM");

	/* Its coefficients alone take 432 MB. */
	if (send_job(&other, &request, read_file("black.jpg"), 1, &pipeline))
	{
		check_number(reply.status, DECODER_OUT_OF_MEMORY, "a progressive JPEG that needs 432 MB");
		printf("# %s\n", reply.message);
		peak = memory_of(other.pid, "VmHWM");
		check(peak < base + (long) (limit / 1024), "peak of %ld kB, %ld before", peak, base);
		check(send_job(&other, &request, read_file("q.jpg"), 1, &pipeline) && reply.status == DECODER_OK,
			  "and the decoder goes on");
	}
	else
	{
		kill(other.pid, SIGKILL);
		check(true, "a progressive JPEG that needs 432 MB ends the decoder");
	}
	status = stop_decoder(&other);
	printf("# wait status %x\n", status);

	check_number(process(make_png_header(65000, 65000), "resize(width=64)"), DECODER_LIMIT, "limit first");
	request = new_request(DECODER_PROCESS);
	request.max_pixels = UINT64_MAX;
	check(send_job(&decoder, &request, make_png_header(65000, 65000), 1, &pipeline) &&
		  (reply.status == DECODER_CORRUPT || reply.status == DECODER_OUT_OF_MEMORY),
		  "PNG of 65000x65000 with no limit: %s", reply.message);
}

static void
test_leaks(void)
{
	static const char *const several[] = {
		"resize(width=320)|webp", "resize(width=100, height=100, fit=cover)|jpeg", "blur|grayscale|png"
	};
	Bytes		inputs[3];
	long		before = 0;
	long		after;
	int			rounds = 1000;
	int			i;

	inputs[0] = read_file("q.jpg");
	inputs[1] = (Bytes) {inputs[0].bytes, inputs[0].length / 2};	/* fails */
	inputs[2] = read_file("half.png");
	for (i = 0; i < rounds; i++)
	{
		DecoderRequest request = new_request(DECODER_PROCESS);

		if (!send_job(&decoder, &request, inputs[i % 3], 1 + i % 3, several))
			break;
		if (i == rounds / 2)
			before = memory_of(decoder.pid, "VmRSS");
	}
	after = memory_of(decoder.pid, "VmRSS");
	check_number(i, rounds, "1000 requests");
	check(after > 0 && after < before + 4096, "memory went from %ld to %ld kB", before, after);
}

static int
try_folder(const char *path)
{
	DIR		   *directory = opendir(path);
	struct dirent *entry;
	int			n_files = 0;

	if (directory == NULL)
		return 0;
	while ((entry = readdir(directory)) != NULL)
	{
		char		name[1024];
		Bytes		file;
		int			status = 0;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		if (entry->d_type == DT_DIR)
		{
			n_files += try_folder(name);
			continue;
		}
		if (!read_path(name, &file))
			continue;
		if (probe(file) < 0 || process(file, "resize(width=64)|webp") < 0 ||
			process(file, "crop(width=1, height=1)|sharpen|png") < 0)
		{
			check(false, "%s", name);
			kill(decoder.pid, SIGKILL);
			status = stop_decoder(&decoder);
			printf("# wait status %x\n", status);
			decoder = start_decoder(MEMORY_LIMIT);
		}
		else if (strstr(path, "pngsuite") != NULL && entry->d_name[0] == 'x')
		{
			/* In some it is the magic number that is damaged. */
			status = process(file, "resize(width=64)|png");
			check(status == DECODER_CORRUPT || status == DECODER_UNRECOGNIZED,
				  "%s: %s", entry->d_name, reply.message);
		}
		free(file.bytes);
		n_files++;
	}
	closedir(directory);
	return n_files;
}

int
main(int argc, char **argv)
{
	int			i;

	if (argc > 1 && strcmp(argv[1], "--unsandboxed") == 0)
	{
		unsandboxed = true;
		argv++;
		argc--;
	}
	if (argc < 2)
	{
		fprintf(stderr, "usage: decoder_test [--unsandboxed] imgpipe-decoder [folder]...\n");
		return 2;
	}
	program = argv[1];
	make_folder();
	make_images();

	test_start();
	decoder = start_decoder(MEMORY_LIMIT);
	test_probe();
	test_probe_of_several();
	test_limits();
	test_operations();
	test_every_operation();
	test_layers();
	test_color();
	test_orientation();
	test_outputs();
	test_malformed_frames();
	if (!unsandboxed)
	{
		test_memory_limit();
		test_leaks();
	}
	for (i = 2; i < argc; i++)
	{
		int			n_files = try_folder(argv[i]);

		if (n_files > 0)
			check(memory_of(decoder.pid, "VmRSS") > 0, "%s: %d files", argv[i], n_files);
		else
			printf("# no images in %s\n", argv[i]);
	}
	check(memory_of(decoder.pid, "VmRSS") > 0, "the decoder lives to the end");
	check_number(stop_decoder(&decoder), 0, "and ends well");

	remove_folder();
	printf("1..%d\n", n_tests);
	return n_failed > 0;
}
