/*
 * operations.h
 *		Numbers of the operations, of their arguments and of the arguments' words.
 *
 * Each list is kept in step with its table by designated initialisers:
 * operations[] in operations.c, arguments and words in arguments.c.  What an
 * argument means stands there; here only what a name does not tell.
 */
#ifndef IMGPIPE_OPERATIONS_H
#define IMGPIPE_OPERATIONS_H

/* Index into operations[], in the order of the reference. */
typedef enum OperationId
{
	OPERATION_PAGES,
	OPERATION_AUTOROTATE,
	OPERATION_RESIZE,
	OPERATION_CROP,
	OPERATION_EXTEND,
	OPERATION_TRIM,
	OPERATION_ROTATE,
	OPERATION_FLIP,
	OPERATION_FLOP,
	OPERATION_BLUR,
	OPERATION_SHARPEN,
	OPERATION_MEDIAN,
	OPERATION_PIXELATE,
	OPERATION_MODULATE,
	OPERATION_GAMMA,
	OPERATION_NORMALIZE,
	OPERATION_CLAHE,
	OPERATION_GRAYSCALE,
	OPERATION_TINT,
	OPERATION_INVERT,
	OPERATION_FLATTEN,
	OPERATION_COMPOSITE,
	OPERATION_TEXT,
	OPERATION_JOIN,
	OPERATION_KEEP,
	OPERATION_JPEG,
	OPERATION_PNG,
	OPERATION_WEBP,
	OPERATION_AVIF,
	OPERATION_GIF,
	OPERATION_TIFF,
	OPERATION_AUTO,
	OPERATION_COUNT
} OperationId;

/* Values of ARGUMENT_WORD arguments, in the order of their word lists. */
typedef enum ResizeFit
{
	FIT_INSIDE,
	FIT_COVER,
	FIT_FILL,
	FIT_CONTAIN,
	FIT_OUTSIDE
} ResizeFit;

typedef enum ResizeKernel
{
	KERNEL_LANCZOS3,
	KERNEL_LANCZOS2,
	KERNEL_CUBIC,
	KERNEL_MITCHELL,
	KERNEL_LINEAR,
	KERNEL_NEAREST
} ResizeKernel;

/* The last two, which look at the picture, only where it is cut. */
typedef enum Gravity
{
	GRAVITY_CENTER,
	GRAVITY_NORTH,
	GRAVITY_NORTHEAST,
	GRAVITY_EAST,
	GRAVITY_SOUTHEAST,
	GRAVITY_SOUTH,
	GRAVITY_SOUTHWEST,
	GRAVITY_WEST,
	GRAVITY_NORTHWEST,
	GRAVITY_ATTENTION,
	GRAVITY_ENTROPY
} Gravity;

typedef enum ExtendFill
{
	FILL_COLOR,
	FILL_COPY,
	FILL_MIRROR,
	FILL_REPEAT
} ExtendFill;

typedef enum BlendMode
{
	BLEND_OVER,
	BLEND_MULTIPLY,
	BLEND_SCREEN,
	BLEND_OVERLAY,
	BLEND_DARKEN,
	BLEND_LIGHTEN,
	BLEND_DIFFERENCE
} BlendMode;

typedef enum KeptMetadata
{
	KEEP_NONE,
	KEEP_EXIF,
	KEEP_ICC,
	KEEP_ALL
} KeptMetadata;

typedef enum JpegChroma
{
	CHROMA_AUTO,
	CHROMA_FULL,
	CHROMA_HALF
} JpegChroma;

typedef enum TiffCompression
{
	TIFF_DEFLATE,
	TIFF_LZW,
	TIFF_NONE,
	TIFF_AS_JPEG
} TiffCompression;

/* Positions of arguments, for step_number() and step_given(). */
typedef enum PagesArgument
{
	PAGES_FIRST,
	PAGES_LAST					/* not given: the first alone */
} PagesArgument;

typedef enum AutorotateArgument
{
	AUTOROTATE_ENABLED
} AutorotateArgument;

typedef enum ResizeArgument
{
	RESIZE_WIDTH,				/* at least one side; both but for inside */
	RESIZE_HEIGHT,
	RESIZE_FIT,
	RESIZE_ENLARGE,
	RESIZE_KERNEL,
	RESIZE_GRAVITY,
	RESIZE_BACKGROUND
} ResizeArgument;

typedef enum CropArgument
{
	CROP_LEFT,					/* not given: by the gravity */
	CROP_TOP,					/* not given: by the gravity */
	CROP_WIDTH,
	CROP_HEIGHT,
	CROP_GRAVITY
} CropArgument;

typedef enum ExtendArgument
{
	EXTEND_LEFT,
	EXTEND_TOP,
	EXTEND_RIGHT,
	EXTEND_BOTTOM,
	EXTEND_FILL,
	EXTEND_BACKGROUND
} ExtendArgument;

typedef enum TrimArgument
{
	TRIM_THRESHOLD,
	TRIM_BACKGROUND				/* not given: the first pixel's */
} TrimArgument;

typedef enum RotateArgument
{
	ROTATE_ANGLE,
	ROTATE_BACKGROUND
} RotateArgument;

typedef enum BlurArgument
{
	BLUR_SIGMA
} BlurArgument;

typedef enum SharpenArgument
{
	SHARPEN_SIGMA,
	SHARPEN_FLAT,				/* libvips' m1 */
	SHARPEN_EDGES				/* libvips' m2 */
} SharpenArgument;

typedef enum MedianArgument
{
	MEDIAN_RADIUS
} MedianArgument;

typedef enum PixelateArgument
{
	PIXELATE_SIZE
} PixelateArgument;

typedef enum ModulateArgument
{
	MODULATE_BRIGHTNESS,
	MODULATE_CONTRAST,
	MODULATE_SATURATION,
	MODULATE_HUE
} ModulateArgument;

typedef enum GammaArgument
{
	GAMMA_EXPONENT
} GammaArgument;

typedef enum NormalizeArgument
{
	NORMALIZE_LOWER,
	NORMALIZE_UPPER
} NormalizeArgument;

typedef enum ClaheArgument
{
	CLAHE_TILES,
	CLAHE_SLOPE
} ClaheArgument;

typedef enum TintArgument
{
	TINT_COLOR
} TintArgument;

typedef enum FlattenArgument
{
	FLATTEN_BACKGROUND
} FlattenArgument;

typedef enum CompositeArgument
{
	COMPOSITE_GRAVITY,
	COMPOSITE_X,
	COMPOSITE_Y,
	COMPOSITE_WIDTH,			/* not given: the overlay's own */
	COMPOSITE_OPACITY,
	COMPOSITE_TILE,
	COMPOSITE_BLEND
} CompositeArgument;

typedef enum TextArgument
{
	TEXT_TEXT,
	TEXT_SIZE,
	TEXT_BOLD,
	TEXT_COLOR,
	TEXT_BACKGROUND,
	TEXT_PADDING,
	TEXT_ANGLE,
	TEXT_GRAVITY,
	TEXT_X,
	TEXT_Y,
	TEXT_WIDTH,					/* not given: by the size */
	TEXT_TILE
} TextArgument;

typedef enum JoinArgument
{
	JOIN_COLUMNS,
	JOIN_GAP,
	JOIN_BACKGROUND
} JoinArgument;

typedef enum KeepArgument
{
	KEEP_METADATA,
	KEEP_GPS
} KeepArgument;

typedef enum JpegArgument
{
	JPEG_QUALITY,
	JPEG_PROGRESSIVE,
	JPEG_CHROMA,
	JPEG_MAX_BYTES
} JpegArgument;

typedef enum PngArgument
{
	PNG_COMPRESSION,
	PNG_PALETTE,
	PNG_COLORS,
	PNG_INTERLACE
} PngArgument;

typedef enum WebpArgument
{
	WEBP_QUALITY,
	WEBP_LOSSLESS,
	WEBP_EFFORT,
	WEBP_MAX_BYTES
} WebpArgument;

typedef enum AvifArgument
{
	AVIF_QUALITY,
	AVIF_LOSSLESS,
	AVIF_EFFORT,
	AVIF_MAX_BYTES
} AvifArgument;

typedef enum GifArgument
{
	GIF_COLORS,
	GIF_DITHER,
	GIF_EFFORT
} GifArgument;

typedef enum TiffArgument
{
	TIFF_COMPRESSION,
	TIFF_QUALITY
} TiffArgument;

typedef enum AutoArgument
{
	AUTO_QUALITY,				/* not given: the format's default */
	AUTO_MAX_BYTES
} AutoArgument;

#endif							/* IMGPIPE_OPERATIONS_H */
