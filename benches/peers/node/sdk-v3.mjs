// The AWS SDK for JavaScript, version 3, with full batches.
//
// All calls share one client with default settings: it keeps up to 50 connections alive, and retries. The
// items are built within the measured time, in the form of the request, which is cheaper than the document
// client's.
import assert from "node:assert";
import { createRequire } from "node:module";
import { BatchWriteItemCommand, DynamoDBClient } from "@aws-sdk/client-dynamodb";
import measured from "./measured.js";

const { IN_FLIGHT, REGION, TABLE, bodies, measure, url } = measured;
const BATCH_EVENTS = 25;

const client = new DynamoDBClient({ region: REGION, endpoint: url });
let key = 0;

function request(body) {
  const text = `20130927T005240652${String(key++).padStart(9, "0")}`;
  return { PutRequest: { Item: { key: { S: text }, body: { S: body } } } };
}

async function write(events) {
  let begun = 0;
  let answered = 0;
  async function sendOneByOne() {
    while (begun < events) {
      const batch = [];
      while (batch.length < BATCH_EVENTS && begun < events) {
        batch.push(request(bodies[begun++ % bodies.length]));
      }
      const output = await client.send(new BatchWriteItemCommand({ RequestItems: { [TABLE]: batch } }));
      assert.deepStrictEqual(output.UnprocessedItems, {});
      answered += batch.length;
    }
  }
  await Promise.all(Array.from({ length: IN_FLIGHT }, sendOneByOne));
  return answered;
}

const { version } = createRequire(import.meta.url)("@aws-sdk/client-dynamodb/package.json");
await measure(write, { "@aws-sdk/client-dynamodb": version });
