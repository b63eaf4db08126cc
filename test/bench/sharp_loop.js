/*
 * sharp_loop.js
 *		The rival of process_image() in Node: the same job with sharp, one image after the other on one thread.
 *
 *		node sharp_loop.js <folder of sharp> <width> <height or 0> <format> <quality> <iterations> file...
 *
 * Prints images per second; without files the versions.
 */
'use strict';

const fs = require('fs');
const [folder, width, height, format, quality, iterations, ...files] = process.argv.slice(2);
const sharp = require(folder + '/node_modules/sharp');

sharp.concurrency(1);
sharp.cache(false);

async function run(input)
{
	const size = Number(height) ? { width: Number(width), height: Number(height), fit: 'fill' } : { width: Number(width) };
	const image = sharp(input).resize(size);
	return format === 'png' ? image.png().toBuffer() : image.toFormat(format, { quality: Number(quality) }).toBuffer();
}

async function main()
{
	if (files.length === 0)
	{
		console.log(`Node ${process.version}, sharp ${sharp.versions.sharp} with libvips ${sharp.versions.vips}`);
		return;
	}
	const inputs = files.map(file => fs.readFileSync(file));
	for (const input of inputs)
		await run(input);
	const began = process.hrtime.bigint();
	for (let i = 0; i < Number(iterations); i++)
		for (const input of inputs)
			await run(input);
	const seconds = Number(process.hrtime.bigint() - began) / 1e9;
	console.log((Number(iterations) * inputs.length / seconds).toFixed(2));
}

main().catch(error => { console.error(error.message); process.exit(1); });
