/*
 * consumer.js
 *		The rivals of ingest in Node: kafkajs and pg, an INSERT of many rows for each batch.
 *
 *		node consumer.js <folder of modules> <bootstrap> <topic> <messages> <connection string> [renditions]
 *
 * Inserts the topic's messages into table rival, and with "renditions" a thumbnail made by sharp of each into
 * rival_renditions.  Offsets are committed to Kafka after the rows, so it is at least once.  With the folder only it
 * prints its versions.
 */
'use strict';

const [folder, bootstrap, topic, messages, connectionString, renditions] = process.argv.slice(2);
const load = (name) => require(`${folder}/node_modules/${name}`);
const version = (name) => load(`${name}/package.json`).version;
const { Kafka, logLevel } = load('kafkajs');
const { Pool } = load('pg');

const BATCH_ROWS = 500;
const BATCH_BYTES = 16 * 1024 * 1024;

async function insert(client, table, rows)
{
	const width = rows[0].length;
	const values = rows.map((row, r) => `(${row.map((value, c) => `$${r * width + c + 1}`).join(', ')})`);
	await client.query(`INSERT INTO ${table} VALUES ${values.join(', ')}`, rows.flat());
}

async function thumbnail(sharp, message)
{
	return sharp(message.value).resize({ width: 320 }).jpeg({ quality: 80 }).toBuffer();
}

async function write(pool, sharp, partition, batch)
{
	const made = sharp ? await Promise.all(batch.map((message) => thumbnail(sharp, message))) : [];
	const client = await pool.connect();
	try
	{
		await client.query('BEGIN');
		await insert(client, 'rival (content, source_partition, source_offset, source_key)',
			batch.map((message) => [message.value, partition, message.offset, message.key && message.key.toString()]));
		if (sharp)
			await insert(client, 'rival_renditions (source_partition, source_offset, content)',
				batch.map((message, i) => [partition, message.offset, made[i]]));
		await client.query('COMMIT');
	}
	finally
	{
		client.release();
	}
}

/* As many messages as ingest takes into a transaction. */
function* batches(all)
{
	let batch = [], size = 0;
	for (const message of all)
	{
		batch.push(message);
		size += message.value.length;
		if (batch.length === BATCH_ROWS || size >= BATCH_BYTES)
		{
			yield batch;
			batch = [];
			size = 0;
		}
	}
	if (batch.length)
		yield batch;
}

async function main()
{
	const sharp = renditions ? load('sharp') : null;
	if (sharp)
	{
		sharp.concurrency(1);
		sharp.cache(false);
	}
	const kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.ERROR });
	const consumer = kafka.consumer({ groupId: `node-${topic}-${process.pid}`, maxBytes: 4 * BATCH_BYTES,
		maxBytesPerPartition: BATCH_BYTES, maxWaitTimeInMs: 100 });
	const pool = new Pool({ connectionString, max: 4 });
	let left = Number(messages);
	await consumer.connect();
	await consumer.subscribe({ topics: [topic], fromBeginning: true });
	await consumer.run({
		autoCommit: false, partitionsConsumedConcurrently: 4,
		eachBatch: async ({ batch }) =>
		{
			for (const part of batches(batch.messages))
			{
				await write(pool, sharp, batch.partition, part);
				await consumer.commitOffsets([{ topic, partition: batch.partition,
					offset: (BigInt(part[part.length - 1].offset) + 1n).toString() }]);
				left -= part.length;
			}
			if (left <= 0)
				process.exit(0);
		}
	});
}

if (bootstrap)
	main().catch((error) => { console.error(error); process.exit(1); });
else
	console.log(`Node ${process.versions.node}, kafkajs ${version('kafkajs')}, pg ${version('pg')}, sharp ${version('sharp')}`);
