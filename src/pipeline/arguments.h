/*
 * arguments.h
 *		The tables of arguments of each operation, for operations.c.
 */
#ifndef IMGPIPE_ARGUMENTS_H
#define IMGPIPE_ARGUMENTS_H

#include "pipeline/pipeline.h"

extern const ArgumentSpec pages_arguments[];
extern const ArgumentSpec autorotate_arguments[];
extern const ArgumentSpec resize_arguments[];
extern const ArgumentSpec crop_arguments[];
extern const ArgumentSpec extend_arguments[];
extern const ArgumentSpec trim_arguments[];
extern const ArgumentSpec rotate_arguments[];
extern const ArgumentSpec blur_arguments[];
extern const ArgumentSpec sharpen_arguments[];
extern const ArgumentSpec median_arguments[];
extern const ArgumentSpec pixelate_arguments[];
extern const ArgumentSpec modulate_arguments[];
extern const ArgumentSpec gamma_arguments[];
extern const ArgumentSpec normalize_arguments[];
extern const ArgumentSpec clahe_arguments[];
extern const ArgumentSpec tint_arguments[];
extern const ArgumentSpec flatten_arguments[];
extern const ArgumentSpec composite_arguments[];
extern const ArgumentSpec text_arguments[];
extern const ArgumentSpec join_arguments[];
extern const ArgumentSpec keep_arguments[];
extern const ArgumentSpec jpeg_arguments[];
extern const ArgumentSpec png_arguments[];
extern const ArgumentSpec webp_arguments[];
extern const ArgumentSpec avif_arguments[];
extern const ArgumentSpec gif_arguments[];
extern const ArgumentSpec tiff_arguments[];
extern const ArgumentSpec auto_arguments[];

#endif							/* IMGPIPE_ARGUMENTS_H */
